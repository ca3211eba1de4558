/*!
Tries doors by bare system calls, for callers that `probe` does not cover: root of a user namespace, and 32-bit programs.

```text
 scenario ──fork──▶ child: a namespace, if wanted ──fork──▶ grandchild: tries every door
     ◀───────────────── a shared page: one errno for each door ──────────┘
```

Both system call entries take the same arguments here: pointers are below 4 GiB, and structures have the same layout for both or were written by the
kernel.
*/
use std::{
    arch::asm,
    fs, io, ptr,
    sync::atomic::{AtomicI32, Ordering},
};

use anyhow::{Context, Result, ensure};

/// The entry by which a system call enters the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// The `syscall` instruction, as 64-bit programs use it.
    Native,
    /// `int 0x80`, as 32-bit programs use it. Kernels with CONFIG_IA32_EMULATION let any process use it.
    Compat,
}

/// The caller of a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Root of the machine.
    Root,
    /// Root of new namespaces, user namespace included, as in a container. It maps to this user id of the machine.
    Container(u32),
}

/// The errno of each door, 0 if it is free.
pub(crate) type Answers = Vec<(&'static str, i32)>;

/// A door: the operation in words, and the function that tries it.
type Door = (&'static str, fn(&Calls) -> i32);

const DOORS: [Door; 20] = [
    ("open /dev/mem", |calls| calls.open("/dev/mem")),
    ("open /dev/port", |calls| calls.open("/dev/port")),
    ("open /proc/kcore", |calls| calls.open("/proc/kcore")),
    ("open sched/verbose of debugfs", |calls| calls.open(VERBOSE)),
    ("chmod sched/verbose of debugfs", chmod),
    ("open tracing_on", |calls| calls.open("/sys/kernel/tracing/tracing_on")),
    ("ioperm", |calls| calls.errno(&IOPERM, [0x80, 1, 1, 0, 0])),
    ("iopl", |calls| calls.errno(&IOPL, [3, 0, 0, 0, 0])),
    ("init_module", init_module),
    ("kexec_load", |calls| calls.errno(&KEXEC_LOAD, [0, 0, 0, X86_64_IMAGE | 0xff, 0])),
    ("write /sys/power/disk", hibernation),
    ("write share_irqs", share_irqs),
    ("write PCI config", pci_config),
    ("PCIIOC_CONTROLLER", pci_controller),
    ("write /dev/cpu/0/msr", |calls| calls.write("/dev/cpu/0/msr", b"")),
    ("TIOCSSERIAL", tiocsserial),
    ("perf registers", perf_registers),
    ("perf kprobe", perf_kprobe),
    ("bpf_probe_read_kernel", |calls| bpf(calls, 113)),
    ("bpf_probe_write_user", |calls| bpf(calls, 36)),
];

const VERBOSE: &str = "/sys/kernel/debug/sched/verbose";

/// `KEXEC_ARCH_X86_64`: without it the kernel refuses a 32-bit caller before it asks lockdown.
const X86_64_IMAGE: usize = 62 << 16;

/// Tries every door.
pub(crate) fn answers(entry: Entry, caller: Caller) -> Result<Answers> {
    let page = Page::new(libc::MAP_SHARED)?;
    let errnos = page.errnos();
    for errno in errnos {
        errno.store(UNTRIED, Ordering::Relaxed);
    }
    in_child(|| {
        if let Caller::Container(user) = caller {
            enter_container(user)?;
        }
        in_child(|| {
            let calls = Calls { entry, memory: Page::new(libc::MAP_PRIVATE | libc::MAP_32BIT)? };
            for ((_, attempt), errno) in DOORS.iter().zip(errnos) {
                errno.store(attempt(&calls), Ordering::Relaxed);
            }
            Ok(())
        })
    })?;
    let answers: Answers =
        DOORS.iter().zip(errnos).map(|((name, _), errno)| (*name, errno.load(Ordering::Relaxed))).collect();
    let untried: Vec<_> = answers.iter().filter(|(_, errno)| *errno == UNTRIED).collect();
    ensure!(untried.is_empty(), "not tried: {untried:?}");
    Ok(answers)
}

/// Tries one door from this process, and returns the errno, 0 if it is free.
///
/// # Errors
/// When there is no such door.
pub fn try_door(door: &str) -> Result<i32> {
    let (_, attempt) = DOORS.iter().find(|(name, _)| *name == door).context("there is no such door")?;
    Ok(attempt(&Calls { entry: Entry::Native, memory: Page::new(libc::MAP_PRIVATE | libc::MAP_32BIT)? }))
}

/// Writes to the start of a file by 32-bit system calls, and returns the errno or 0.
pub(crate) fn write_by_compat(path: &str, bytes: &[u8]) -> Result<i32> {
    let calls = Calls { entry: Entry::Compat, memory: Page::new(libc::MAP_PRIVATE | libc::MAP_32BIT)? };
    Ok(calls.write(path, bytes))
}

/// Returns the doors that give two callers different answers, in words.
pub(crate) fn differences(one: &Answers, other: &Answers) -> Vec<String> {
    one.iter()
        .zip(other)
        .filter(|(one, other)| one != other)
        .map(|((name, one), (_, other))| format!("{name}: {} here, {} there", word(*one), word(*other)))
        .collect()
}

/// Returns how many doors were free before and are shut now.
pub(crate) fn shut(before: &Answers, now: &Answers) -> usize {
    // A door is free also with another errno: bpf(2) and calls with invalid arguments answer EINVAL or ENOEXEC behind the check.
    before.iter().zip(now).filter(|((_, before), (_, now))| before != now && *now == libc::EPERM).count()
}

fn word(errno: i32) -> String {
    if errno == 0 { "free".into() } else { io::Error::from_raw_os_error(errno).to_string() }
}

const UNTRIED: i32 = i32::MIN;
const PAGE: usize = 1 << 16;

/// Anonymous memory of [`PAGE`] bytes.
struct Page(*mut u8);

impl Page {
    fn new(flags: i32) -> Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: an anonymous mapping at an address that the kernel chooses replaces no mapping.
        let place = unsafe { libc::mmap(ptr::null_mut(), PAGE, access, flags | libc::MAP_ANONYMOUS, -1, 0) };
        ensure!(place != libc::MAP_FAILED, "map memory: {}", io::Error::last_os_error());
        Ok(Self(place.cast()))
    }

    fn errnos(&self) -> &[AtomicI32] {
        // SAFETY: the memory is zeroed, aligned, large enough for all doors and never unmapped while borrowed.
        unsafe { std::slice::from_raw_parts(self.0.cast(), DOORS.len()) }
    }

    /// Copies bytes to an offset, with a zero behind them, and returns their address.
    fn put(&self, offset: usize, bytes: &[u8]) -> usize {
        assert!(offset + bytes.len() < PAGE);
        // SAFETY: the assertion above keeps both writes within the mapping, to which no reference exists.
        unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr(), self.0.add(offset), bytes.len());
            self.0.add(offset + bytes.len()).write(0);
        }
        self.0 as usize + offset
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: `new` mapped this address with this length, and no reference outlives `self`.
        unsafe { libc::munmap(self.0.cast(), PAGE) };
    }
}

/// Runs a closure in a child, and fails if it fails.
fn in_child(what: impl FnOnce() -> Result<()>) -> Result<()> {
    // SAFETY: a scenario's process has one thread, so the child's memory is consistent; the child leaves through _exit.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()).context("fork"),
        0 => {
            let done = what();
            if let Err(error) = &done {
                println!("{error:#}");
            }
            // SAFETY: _exit takes a number; it ends the child without running the parent's exit handlers.
            unsafe { libc::_exit(i32::from(done.is_err())) }
        }
        child => {
            let mut status = 0;
            // SAFETY: the status lives through the call; the child is this process's.
            unsafe { libc::waitpid(child, &raw mut status, 0) };
            ensure!(status == 0, "a child that tries the doors ended with status {status:#x}");
            Ok(())
        }
    }
}

/// Makes this process root of new namespaces, which its children inherit.
pub(crate) fn enter_container(user: u32) -> Result<()> {
    let flags = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWNET;
    // SAFETY: the calls take numbers only and change this process, which has one thread.
    let answer = unsafe {
        if libc::setresgid(user, user, user) == 0 && libc::setresuid(user, user, user) == 0 {
            // The files of /proc/self belong to root while the process is not dumpable.
            libc::prctl(libc::PR_SET_DUMPABLE, 1);
            libc::unshare(flags)
        } else {
            -1
        }
    };
    ensure!(answer == 0, "make namespaces as user {user}: {}", io::Error::last_os_error());
    fs::write("/proc/self/setgroups", "deny").context("write setgroups")?;
    fs::write("/proc/self/uid_map", format!("0 {user} 1")).context("write uid_map")?;
    fs::write("/proc/self/gid_map", format!("0 {user} 1")).context("write gid_map")
}

/// The numbers of a system call in both tables.
struct Number {
    native: libc::c_long,
    compat: u32,
}

const OPEN: Number = Number { native: libc::SYS_open, compat: 5 };
const WRITE: Number = Number { native: libc::SYS_write, compat: 4 };
const CHMOD: Number = Number { native: libc::SYS_chmod, compat: 15 };
const IOCTL: Number = Number { native: libc::SYS_ioctl, compat: 54 };
const IOPERM: Number = Number { native: libc::SYS_ioperm, compat: 101 };
const IOPL: Number = Number { native: libc::SYS_iopl, compat: 110 };
const INIT_MODULE: Number = Number { native: libc::SYS_init_module, compat: 128 };
const KEXEC_LOAD: Number = Number { native: libc::SYS_kexec_load, compat: 283 };
const PERF_EVENT_OPEN: Number = Number { native: libc::SYS_perf_event_open, compat: 336 };
const BPF: Number = Number { native: libc::SYS_bpf, compat: 357 };

/// System calls by one entry, with memory whose addresses both entries can pass.
struct Calls {
    entry: Entry,
    memory: Page,
}

impl Calls {
    /// Makes a system call and returns its result; an errno is negative.
    fn call(&self, number: &Number, arguments: [usize; 5]) -> i32 {
        match self.entry {
            Entry::Native => {
                let a = arguments;
                // SAFETY: every pointer among the arguments is null or points to memory that is larger than the kernel reads or writes there.
                let answer = unsafe { libc::syscall(number.native, a[0], a[1], a[2], a[3], a[4]) };
                if answer == -1 { -errno() } else { i32::try_from(answer).unwrap_or(i32::MAX) }
            }
            // SAFETY: every pointer among the arguments is null or points into `memory`, below 4 GiB, where the kernel reads and writes less than is
            // there.
            Entry::Compat => unsafe { int80(number.compat, arguments) },
        }
    }

    /// Makes a system call and returns the errno or 0. A file descriptor that the call opens stays open until this process ends.
    fn errno(&self, number: &Number, arguments: [usize; 5]) -> i32 {
        self.call(number, arguments).min(0).abs()
    }

    fn descriptor(&self, path: &str, flags: i32) -> Result<usize, i32> {
        let path = self.memory.put(0, path.as_bytes());
        let answer = self.call(&OPEN, [path, flags.cast_unsigned() as usize, 0, 0, 0]);
        usize::try_from(answer).map_err(|_| -answer)
    }

    fn open(&self, path: &str) -> i32 {
        self.descriptor(path, libc::O_RDONLY).err().unwrap_or(0)
    }

    /// Writes to the start of a file, in one call.
    fn write(&self, path: &str, bytes: &[u8]) -> i32 {
        match self.descriptor(path, libc::O_WRONLY) {
            Ok(file) => self.errno(&WRITE, [file, self.memory.put(4096, bytes), bytes.len(), 0, 0]),
            Err(errno) => errno,
        }
    }
}

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

/// # Safety
/// The arguments have to meet the requirements of the system call with this number in the 32-bit table.
unsafe fn int80(number: u32, arguments: [usize; 5]) -> i32 {
    let answer: u64;
    // SAFETY: the caller ensures valid arguments. The first one belongs into rbx, which LLVM reserves, so it is swapped in and out; older kernels do
    // not preserve r8 to r11 here, so these are clobbers.
    unsafe {
        asm!(
            "xchg {first}, rbx",
            "int 0x80",
            "xchg {first}, rbx",
            first = inout(reg) arguments[0] => _,
            inlateout("rax") u64::from(number) => answer,
            in("rcx") arguments[1],
            in("rdx") arguments[2],
            in("rsi") arguments[3],
            in("rdi") arguments[4],
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    #[expect(clippy::cast_possible_truncation, reason = "the answer of a 32-bit call is in eax")]
    let answer = answer as u32;
    answer.cast_signed()
}

fn chmod(calls: &Calls) -> i32 {
    use std::os::unix::fs::MetadataExt;
    let mode = match fs::metadata(VERBOSE) {
        Ok(file) => file.mode() & 0o7777,
        Err(error) => return error.raw_os_error().unwrap_or(libc::EIO),
    };
    calls.errno(&CHMOD, [calls.memory.put(0, VERBOSE.as_bytes()), mode as usize, 0, 0, 0])
}

fn init_module(calls: &Calls) -> i32 {
    let image = calls.memory.put(4096, &[0; 4096]);
    calls.errno(&INIT_MODULE, [image, 4096, calls.memory.put(0, b""), 0, 0])
}

/// Writes the current hibernation mode back. The mode `disabled` counts as refused.
fn hibernation(calls: &Calls) -> i32 {
    let Ok(modes) = fs::read_to_string("/sys/power/disk") else { return errno() };
    let current = modes.split(['[', ']']).nth(1).unwrap_or_default();
    if current == "disabled" { libc::EPERM } else { calls.write("/sys/power/disk", current.as_bytes()) }
}

fn share_irqs(calls: &Calls) -> i32 {
    for module in ["8250", "8250_core"] {
        let path = format!("/sys/module/{module}/parameters/share_irqs");
        if let Ok(value) = fs::read(&path) {
            return calls.write(&path, &value);
        }
    }
    libc::ENOENT
}

/// Writes the vendor id of a PCI device back.
fn pci_config(calls: &Calls) -> i32 {
    let path = "/sys/bus/pci/devices/0000:00:00.0/config";
    match fs::read(path) {
        Ok(config) => calls.write(path, &config[..2]),
        Err(_) => errno(),
    }
}

fn pci_controller(calls: &Calls) -> i32 {
    match calls.descriptor("/proc/bus/pci/00/00.0", libc::O_RDONLY) {
        Ok(file) => calls.errno(&IOCTL, [file, 0x5043_4900, 0, 0, 0]),
        Err(errno) => errno,
    }
}

/// Reads the settings of a serial port that is no console, and writes them with an impossible IRQ. The 64-bit and the 32-bit layout of the settings
/// have the IRQ at the same offset.
fn tiocsserial(calls: &Calls) -> i32 {
    const IRQ: usize = 12;
    let port = match calls.descriptor("/dev/ttyS2", libc::O_RDWR | libc::O_NOCTTY | libc::O_NONBLOCK) {
        Ok(port) => port,
        Err(errno) => return errno,
    };
    let settings = calls.memory.put(4096, &[0; 128]);
    let answer = calls.errno(&IOCTL, [port, 0x541e, settings, 0, 0]);
    if answer != 0 {
        return answer;
    }
    // SAFETY: the address is within `memory`, in the settings that the kernel has just written.
    unsafe { ptr::write_unaligned((settings + IRQ) as *mut i32, i32::MAX) };
    calls.errno(&IOCTL, [port, 0x541f, settings, 0, 0])
}

/// Opens a disabled perf event. `words` are 64-bit words of a `struct perf_event_attr` of version 5, by index.
fn perf(calls: &Calls, words: &[(usize, u64)]) -> i32 {
    const SIZE: u64 = 112;
    let mut attr = [0_u64; 14];
    attr[0] = SIZE << 32;
    attr[5] = 1;
    for (index, word) in words {
        attr[*index] |= word;
    }
    let bytes: Vec<u8> = attr.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let everywhere = usize::MAX;
    calls.errno(&PERF_EVENT_OPEN, [calls.memory.put(4096, &bytes), 0, everywhere, everywhere, 8])
}

fn perf_registers(calls: &Calls) -> i32 {
    // The software clock; PERF_SAMPLE_REGS_INTR of one register.
    perf(calls, &[(0, 1), (2, 1_000_000), (3, 1 << 18), (12, 1)])
}

/// Opens a perf event on a kprobe. Not tried while ftrace is off: the kernel would register the probe, and then lose track of the function.
fn perf_kprobe(calls: &Calls) -> i32 {
    if fs::read_to_string("/proc/sys/kernel/ftrace_enabled").is_ok_and(|value| value.trim() == "0") {
        return libc::ENOENT;
    }
    let Ok(kind) = fs::read_to_string("/sys/bus/event_source/devices/kprobe/type") else { return errno() };
    let kind = kind.trim().parse().unwrap_or(0);
    let function = calls.memory.put(0, b"vfs_fsync") as u64;
    perf(calls, &[(0, kind), (7, function)])
}

/// Loads a program that calls a helper, as `stockade-probe` does. The refusal is EINVAL.
fn bpf(calls: &Calls, helper: u64) -> i32 {
    let set = |register: u64, value: u64| value << 32 | register << 8 | 0xb7;
    let frame_to = |register: u64| (0xa0 | register) << 8 | 0xbf;
    let minus_eight = |register: u64| 0xffff_fff8 << 32 | register << 8 | 0x07;
    let (target, source, length) = if helper == 36 { (set(1, 0), 2, 3) } else { (frame_to(1), 1, 2) };
    let program: [u64; 8] = [
        // *(u64 *)(r10 - 8) = 0
        0xfff8 << 16 | 0xa << 8 | 0x7a,
        target,
        if helper == 36 { frame_to(source) } else { minus_eight(source) },
        if helper == 36 { minus_eight(source) } else { set(length, 8) },
        if helper == 36 { set(length, 8) } else { set(3, 0) },
        helper << 32 | 0x85,
        set(0, 0),
        0x95,
    ];
    let words = |words: &[u64]| -> Vec<u8> { words.iter().flat_map(|word| word.to_ne_bytes()).collect() };
    let instructions = calls.memory.put(4096, &words(&program)) as u64;
    let license = calls.memory.put(0, b"GPL") as u64;
    // prog_type (kprobe), insn_cnt (8), insns, license; the remaining fields are zero.
    let mut attr = [0; 9];
    attr[0] = 8 << 32 | 2;
    attr[1] = instructions;
    attr[2] = license;
    calls.errno(&BPF, [5, calls.memory.put(8192, &words(&attr)), 72, 0, 0])
}
