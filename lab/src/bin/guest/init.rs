/*!
PID 1 of a guest: mounts the file systems of a normal system, does the work that `stockade.run=` on the kernel's command line names, and
powers off.

```text
stockade.run=play          play the scenarios that the host orders on ttyS1, each in a process of its own; results on ttyS1
stockade.run=exec:/path    run a program with its output on ttyS1
stockade.run=again:/path   run a program with its output on ttyS1, then reboot instead of powering off
stockade.run=demo          run /bin/stockade-demo with its output on ttyS1
stockade.run=shell         run a shell on ttyS2
```

On the host, `--list` prints the scenarios. In a guest, scenarios call this program with `--play NAME`, `--knock DOOR`, `--attack-doors` and
`--excepted WHAT`.
*/
use std::{
    env,
    ffi::{CStr, CString},
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    os::{
        fd::AsRawFd,
        unix::{fs::OpenOptionsExt, process::CommandExt},
    },
    path::Path,
    process::{Child, Command, ExitCode, ExitStatus, Stdio},
    ptr, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use stockade_lab::{
    attacks, boots,
    follow::ENDED,
    guest::{Guest, exit_status, patience},
    protocol::{AGAIN, Event, Listed, Order, Outcome, TOLD, is_trouble},
    scenario::{Scenario, Skip},
    scenarios,
    syscall::check,
    userland,
};

/// The limit for a scenario in seconds, see [`patience`]. A scenario that takes longer counts as hung.
const TIMEOUT: u64 = 180;

/// Exit status of a scenario's process that returned [`Skip`].
const SKIPPED: u8 = 77;

/// The maximum of a scenario's output that is reported, in bytes.
const DETAIL: usize = 8192;

const MOUNTS: [(&str, &str); 10] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("securityfs", "/sys/kernel/security"),
    ("debugfs", "/sys/kernel/debug"),
    ("tracefs", "/sys/kernel/tracing"),
    ("bpf", "/sys/fs/bpf"),
    ("cgroup2", "/sys/fs/cgroup"),
    ("tmpfs", "/tmp"),
    ("tmpfs", "/run"),
];

pub fn run() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["--list"] => list(),
        ["--play", name] => play(name),
        ["--knock", door] => try_door(door),
        ["--attack-doors"] => attack_doors(),
        ["--excepted", what] => play_excepted(what),
        // The kernel passes unknown words of its command line to PID 1 as arguments.
        _ if std::process::id() == 1 => {
            if let Err(error) = init() {
                eprintln!("stockade-guest: {error:#}");
            }
            power_off()
        }
        _ => {
            eprintln!(
                "stockade-guest: this is the first program of the lab's guests; on a host it only knows --list"
            );
            ExitCode::from(2)
        }
    }
}

fn list() -> ExitCode {
    for scenario in scenarios::all() {
        let listed =
            Listed { name: scenario.name.to_owned(), boot: scenario.boot, depends: scenario.depends };
        println!("{}", serde_json::to_string(&listed).expect("names and boots are plain text"));
    }
    ExitCode::SUCCESS
}

/// Runs as the program that the policy of some attacks excepts.
fn play_excepted(what: &str) -> ExitCode {
    attacks::play_excepted(what).map_or(ExitCode::from(2), ExitCode::from)
}

/// Plays one scenario in this process.
fn play(name: &str) -> ExitCode {
    let Some(scenario) = scenarios::all().into_iter().find(|s| s.name == name) else {
        eprintln!("there is no scenario {name}");
        return ExitCode::FAILURE;
    };
    match (scenario.run)(&Guest::playing(name)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(skip) = error.downcast_ref::<Skip>() {
                println!("{skip}");
                return ExitCode::from(SKIPPED);
            }
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Tries a door for a scenario that runs a copy of this program. The exit status is the errno.
fn try_door(door: &str) -> ExitCode {
    match scenarios::try_door(door).map(u8::try_from) {
        Ok(Ok(errno)) => ExitCode::from(errno),
        answer => {
            eprintln!("trying {door}: {answer:?}");
            ExitCode::from(u8::MAX)
        }
    }
}

/// Tries every door for the proof after an attack, and prints the answers.
fn attack_doors() -> ExitCode {
    match attacks::answer() {
        Ok(answer) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("trying every door: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn init() -> anyhow::Result<()> {
    let mut notes = mount_all();
    notes.extend(mount_legacy_cgroups().err().map(|error| format!("{error:#}")));
    notes.extend(load_modules("/modules/order"));
    notes.extend(mount_what_modules_bring());
    if Path::new(userland::ORDER).exists() {
        notes.extend(load_modules(userland::ORDER));
        notes.extend(mount_userland().err().map(|error| format!("{error:#}")));
    }
    // SAFETY: set_var needs a process with one thread, and this one has no other.
    unsafe {
        env::set_var("PATH", "/bin");
        env::set_var("HOME", "/root");
    }
    let cmdline = fs::read_to_string("/proc/cmdline").context("reading /proc/cmdline")?;
    let word = |name: &str| cmdline.split_whitespace().find_map(|w| w.strip_prefix(name)?.strip_prefix('='));
    let run = word("stockade.run").context("the kernel's command line has no stockade.run=")?;
    match run.split_once(':').unwrap_or((run, "")) {
        ("play", _) => {
            let mut host = Host(raw_tty("/dev/ttyS1")?);
            // The firmware may have written a part of a line.
            host.0.write_all(b"\n").context("writing to ttyS1")?;
            for detail in notes {
                host.tell(&Event::Note { detail })?;
            }
            // The host may save the machine here and resume it often, so nothing before this line may depend on the order.
            host.tell(&Event::Ready)?;
            let order = host.order()?;
            play_all(&mut host, &order)
        }
        ("exec", path) => exec(path),
        ("again", path) => {
            exec(path)?;
            leave(libc::RB_AUTOBOOT)
        }
        ("demo", _) => exec("/bin/stockade-demo"),
        ("shell", _) => shell(),
        _ => bail!("stockade.run={run} is not understood"),
    }
}

/// The serial port to the host.
struct Host(File);

impl Host {
    fn tell(&mut self, event: &Event) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        self.0.write_all(&line).context("writing to ttyS1")
    }

    /// Waits for the order.
    fn order(&mut self) -> anyhow::Result<Order> {
        let mut line = Vec::new();
        let mut byte = [0];
        while !line.ends_with(b"\n") {
            self.0.read_exact(&mut byte).context("reading the order from ttyS1")?;
            line.push(byte[0]);
        }
        serde_json::from_slice(&line)
            .with_context(|| format!("reading the order {}", String::from_utf8_lossy(&line)))
    }
}

fn play_all(host: &mut Host, order: &Order) -> anyhow::Result<()> {
    let mut log = KernelLog::open()?;
    for scenario in scenarios::all() {
        if scenario.boot != order.boot || !order.play.iter().any(|name| name == scenario.name) {
            continue;
        }
        host.tell(&Event::Start { name: scenario.name.to_owned() })?;
        log.drain();
        let begin = Instant::now();
        let (mut result, mut detail) = play_one(&scenario)
            .and_then(|played| play_again(&scenario, played))
            .unwrap_or_else(|error| (Outcome::Failed, format!("it could not be started: {error:#}")));
        let ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        let kernel = log.drain();
        if let Some(trouble) = kernel.iter().find(|line| is_trouble(line)) {
            result = Outcome::Failed;
            detail += &format!("\nthe kernel went wrong: {trouble}");
        }
        if result == Outcome::Failed && !kernel.is_empty() {
            detail += "\nthe kernel's log meanwhile:\n";
            detail += &kernel[kernel.len().saturating_sub(30)..].join("\n");
        }
        if let Ok(told) = fs::read(TOLD) {
            fs::remove_file(TOLD).with_context(|| format!("removing {TOLD}"))?;
            host.tell(&serde_json::from_slice(&told).context("reading what a scenario has to tell")?)?;
        }
        let detail = detail.trim().to_owned();
        host.tell(&Event::End { name: scenario.name.to_owned(), result, detail, ms })?;
    }
    host.tell(&Event::Done)
}

/// Plays a scenario again if it had its own process killed on purpose.
fn play_again(scenario: &Scenario, played: (Outcome, String)) -> anyhow::Result<(Outcome, String)> {
    match fs::read_to_string(AGAIN) {
        Ok(name) if name == scenario.name => {
            fs::remove_file(AGAIN).with_context(|| format!("removing {AGAIN}"))?;
            play_one(scenario)
        }
        _ => Ok(played),
    }
}

/// Plays one scenario in a process and a session of its own, so that a crash or hang affects nothing else.
fn play_one(scenario: &Scenario) -> anyhow::Result<(Outcome, String)> {
    let said = Path::new("/run/scenario");
    let output = File::create(said).context("creating /run/scenario")?;
    let mut command = Command::new("/proc/self/exe");
    command.args(["--play", scenario.name]).current_dir("/tmp");
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    // SAFETY: setsid is async-signal-safe and takes nothing.
    unsafe {
        command.pre_exec(|| check(libc::setsid()).map(drop));
    }
    let mut child = command.spawn().context("starting the scenario's process")?;
    let status = wait(&mut child)?;
    let mut detail = String::from_utf8_lossy(&fs::read(said).unwrap_or_default()).into_owned();
    if detail.len() > DETAIL {
        let begin = detail.ceil_char_boundary(detail.len() - DETAIL);
        detail = format!("… {}", &detail[begin..]);
    }
    let result = match status {
        None => {
            detail +=
                &format!("\nit did not end within {} s of the guest's clock", patience(TIMEOUT).as_secs());
            Outcome::Failed
        }
        Some(status) if status.success() => return Ok((Outcome::Passed, String::new())),
        Some(status) if status.code() == Some(SKIPPED.into()) => Outcome::Skipped,
        Some(status) => {
            if status.code().is_none() {
                detail += &format!("\nit was ended by signal {}", exit_status(status) - 128);
            }
            Outcome::Failed
        }
    };
    Ok((result, detail))
}

/// Returns the exit status, or none if the process had to be killed. Also kills the processes that it left in its process group.
fn wait(child: &mut Child) -> anyhow::Result<Option<ExitStatus>> {
    let begin = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if begin.elapsed() > patience(TIMEOUT) {
            break None;
        }
        thread::sleep(Duration::from_millis(2));
    };
    let group = i32::try_from(child.id()).context("a process number fits")?;
    // SAFETY: kill takes numbers only.
    unsafe { libc::kill(-group, libc::SIGKILL) };
    if status.is_none() {
        child.wait()?;
    }
    Ok(status)
}

/// Runs a program with its output on ttyS1. A fault of the kernel meanwhile counts as the program's failure: on the console `quiet` hides
/// warnings.
fn exec(path: &str) -> anyhow::Result<()> {
    let mut tty = raw_tty("/dev/ttyS1")?;
    let mut log = KernelLog::open()?;
    log.drain();
    let answer = Command::new(path)
        .current_dir("/root")
        .stdin(Stdio::null())
        .stdout(tty.try_clone()?)
        .stderr(tty.try_clone()?)
        .status();
    let mut status = match answer {
        Ok(status) => exit_status(status),
        Err(error) => {
            writeln!(tty, "{path} could not be run: {error}")?;
            127
        }
    };
    let meanwhile = log.drain();
    if meanwhile.iter().any(|line| is_trouble(line) || line == OVERWRITTEN) {
        writeln!(tty, "the kernel went wrong, or wrote more than it keeps:\n{}", meanwhile.join("\n"))?;
        status = 1;
    }
    Ok(writeln!(tty, "{ENDED}{status}")?)
}

/// Runs a shell on ttyS2, which keeps its line discipline for interactive use.
fn shell() -> anyhow::Result<()> {
    let tty = OpenOptions::new().read(true).write(true).open("/dev/ttyS2").context("opening /dev/ttyS2")?;
    let mut command = Command::new("/bin/busybox");
    // Variables that a shell exports cost a program its exception, so the prompt is none of them.
    fs::write("/etc/profile", "PS1='guest# '\n").context("writing /etc/profile")?;
    command.args(["sh", "-l"]).env("TERM", "vt100").current_dir("/root");
    command.stdin(tty.try_clone()?).stdout(tty.try_clone()?).stderr(tty);
    // SAFETY: both calls are async-signal-safe; standard input is the terminal by then.
    unsafe {
        command.pre_exec(|| {
            check(libc::setsid())?;
            check(libc::ioctl(0, libc::TIOCSCTTY, 0)).map(drop)
        });
    }
    command.status().context("running the shell")?;
    Ok(())
}

/// Opens a serial port in raw mode.
fn raw_tty(path: &str) -> anyhow::Result<File> {
    let tty = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOCTTY)
        .open(path)
        .with_context(|| format!("opening {path}"))?;
    let mut settings = std::mem::MaybeUninit::<libc::termios>::uninit();
    // SAFETY: the descriptor is open and the settings are written before they are read.
    let answer = unsafe {
        if libc::tcgetattr(tty.as_raw_fd(), settings.as_mut_ptr()) == 0 {
            let mut settings = settings.assume_init();
            libc::cfmakeraw(&raw mut settings);
            libc::tcsetattr(tty.as_raw_fd(), libc::TCSANOW, &raw const settings)
        } else {
            -1
        }
    };
    check(answer).with_context(|| format!("making {path} raw"))?;
    Ok(tty)
}

/// The line for records that were overwritten before they were read.
const OVERWRITTEN: &str = "(records of the kernel's log were overwritten before they were read)";

/// The lines of the kernel log that were not read yet.
struct KernelLog(File);

impl KernelLog {
    fn open() -> anyhow::Result<KernelLog> {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg");
        Ok(KernelLog(file.context("opening /dev/kmsg")?))
    }

    fn drain(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut record = vec![0; 8192];
        loop {
            match self.0.read(&mut record) {
                Ok(0) => return lines,
                // "priority,sequence,time,flags;text", then continuation lines, which are dropped.
                Ok(n) => {
                    let text = String::from_utf8_lossy(&record[..n]);
                    if let Some((_, text)) = text.split_once(';') {
                        lines.push(text.lines().next().unwrap_or("").to_owned());
                    }
                }
                // EPIPE: records were overwritten before they were read; the next read goes on after the gap.
                Err(e) if e.kind() == ErrorKind::BrokenPipe => lines.push(OVERWRITTEN.to_owned()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return lines,
            }
        }
    }
}

/// Mounts the file systems of a normal system. Returns a note for each that cannot be mounted.
fn mount_all() -> Vec<String> {
    let mut notes = Vec::new();
    for (kind, target) in MOUNTS {
        let folder = fs::create_dir_all(target);
        if let Err(error) = folder.and_then(|()| mount(kind, target)) {
            notes.push(format!("{kind} could not be mounted on {target}: {error}"));
        }
    }
    notes
}

/// Mounts cgroup v1 instead of cgroup v2, if the command line asks for it.
fn mount_legacy_cgroups() -> anyhow::Result<()> {
    const FOLDER: &CStr = c"/sys/fs/cgroup";
    let cmdline = fs::read_to_string("/proc/cmdline").context("reading /proc/cmdline")?;
    if !cmdline.split_whitespace().any(|word| word == boots::LEGACY_CGROUPS) {
        return Ok(());
    }
    // SAFETY: the strings are constants.
    check(unsafe { libc::umount(FOLDER.as_ptr()) }).context("unmounting cgroups of version 2")?;
    let kind = c"cgroup".as_ptr();
    // SAFETY: the strings are constants.
    check(unsafe { libc::mount(kind, FOLDER.as_ptr(), kind, 0, c"pids".as_ptr().cast()) })
        .context("mounting cgroups of version 1")
        .map(drop)
}

/// Mounts file systems that modules provide: EFI variables where there are any, and configfs, in which the door of ACPI tables is.
fn mount_what_modules_bring() -> Vec<String> {
    let folders = [("efivarfs", "/sys/firmware/efi/efivars"), ("configfs", "/sys/kernel/config")];
    let there = folders.into_iter().filter(|(_, folder)| Path::new(folder).exists());
    let failed = there.filter_map(|(kind, folder)| Some((kind, folder, mount(kind, folder).err()?)));
    failed.map(|(kind, folder, error)| format!("{kind} could not be mounted on {folder}: {error}")).collect()
}

fn mount(kind: &str, target: &str) -> io::Result<()> {
    mount_as(kind, target, kind, 0)
}

fn mount_as(source: &str, target: &str, kind: &str, flags: libc::c_ulong) -> io::Result<()> {
    let (source, target, kind) = (CString::new(source)?, CString::new(target)?, CString::new(kind)?);
    // SAFETY: the strings outlive the call; no data is passed.
    check(unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, ptr::null()) })
        .map(drop)
}

/// Mounts the disk with Debian's programs, and binds the file systems that they need into it.
fn mount_userland() -> anyhow::Result<()> {
    let root = userland::MOUNTED;
    // The driver probes the disk asynchronously.
    let begin = Instant::now();
    while !Path::new(userland::DEVICE).exists() && begin.elapsed() < Duration::from_secs(30) {
        thread::sleep(Duration::from_millis(10));
    }
    mount_as(userland::DEVICE, root, "ext4", libc::MS_RDONLY)
        .with_context(|| format!("mounting {} at {root}", userland::DEVICE))?;
    for folder in ["/proc", "/sys", "/dev", "/run", "/tmp", "/modules"] {
        mount_as(folder, &format!("{root}{folder}"), "", libc::MS_BIND | libc::MS_REC)
            .with_context(|| format!("binding {folder} into {root}"))?;
    }
    Ok(())
}

/// Loads the modules of this list. Returns a note for each that fails, except with ENODEV (the guest lacks the device) or EEXIST (it is
/// loaded already).
fn load_modules(order: &str) -> Vec<String> {
    let order = fs::read_to_string(order).unwrap_or_default();
    let load = |path: &str| -> io::Result<()> {
        let file = File::open(path)?;
        // SAFETY: the descriptor is open and the parameters are an empty string.
        let answer = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
        if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    let failures = order.lines().filter_map(|path| Some((path, load(path).err()?)));
    let failures =
        failures.filter(|(_, error)| !matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EEXIST)));
    failures.map(|(path, error)| format!("{path} did not load: {error}")).collect()
}

fn power_off() -> ! {
    leave(libc::RB_POWER_OFF)
}

/// Powers off or reboots, after the serial ports have sent everything.
fn leave(how: i32) -> ! {
    for path in ["/dev/ttyS1", "/dev/ttyS2"] {
        if let Ok(tty) = OpenOptions::new().write(true).custom_flags(libc::O_NOCTTY).open(path) {
            // SAFETY: the descriptor is open.
            unsafe { libc::tcdrain(tty.as_raw_fd()) };
        }
    }
    // SAFETY: reboot takes a number, and the guest has no disk whose unwritten data matters.
    unsafe { libc::reboot(how) };
    unreachable!("a guest that cannot end panics, which ends it too")
}
