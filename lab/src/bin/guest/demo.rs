//! The guided tour: what `cargo xtask demo` plays inside the guest, with real commands and real output.

use std::{
    io::Write,
    process::{Command, ExitCode, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread::sleep,
    time::Duration,
};

/// Whether a command ended with another status than the tour expects.
static OTHERWISE: AtomicBool = AtomicBool::new(false);

pub fn run() -> ExitCode {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    tell(&format!("You are root in a throw-away machine with Debian's kernel {}.", release.trim()));
    tell("Nothing is locked down yet. Every door that lockdown guards is open to root:");
    show(1, &["stockade", "status"]);
    show(1, &["stockade", "probe"]);

    tell("First a trial: integrity, audited. Nothing is refused, everything is reported.");
    show(0, &["stockade", "enforce", "integrity", "--audit"]);
    tell("A real program, dd, reads one byte of /dev/mem. It is caught, and not stopped:");
    show(0, &["dd", "if=/dev/mem", "of=/dev/null", "bs=1", "count=1"]);
    show(0, &["stockade", "watch", "--no-follow"]);

    tell("Now for real. The same program gets the answer of the kernel's own lockdown:");
    show(0, &["stockade", "enforce", "integrity"]);
    show(1, &["dd", "if=/dev/mem", "of=/dev/null", "bs=1", "count=1"]);
    show(1, &["stockade", "probe"]);

    tell("Confidentiality shuts what could read the kernel's memory too:");
    show(0, &["stockade", "enforce", "confidentiality"]);
    show(1, &["dd", "if=/proc/kcore", "of=/dev/null", "bs=1", "count=1"]);

    tell("One reason is let through, here hibernation; the rest stays shut:");
    show(0, &["stockade", "enforce", "confidentiality", "--allow", "hibernation"]);
    show(1, &["stockade", "probe", "hibernation", "kexec", "dev-mem", "kcore"]);

    tell("Who was refused, in the kernel's own words, with who and where. The last few:");
    show_last(&["stockade", "watch", "--no-follow"], 4);
    tell("A reason, or a line from a log, explained:");
    show(
        0,
        &["stockade", "explain", "Lockdown: dd: /dev/mem,kmem,port is restricted; see man kernel_lockdown.7"],
    );
    show(0, &["stockade", "status"]);

    tell("And back: what is enforced, root can lift.");
    show(0, &["stockade", "lift"]);
    show(0, &["dd", "if=/dev/mem", "of=/dev/null", "bs=1", "count=1"]);

    tell("Unless it is sealed. From here on nobody takes it off before the next boot:");
    show(0, &["stockade", "enforce", "integrity"]);
    show(0, &["stockade", "seal"]);
    tell("Root tries all the same. To lift it, to apply a laxer policy, to let a program through:");
    show(2, &["stockade", "lift"]);
    show(2, &["stockade", "enforce", "none"]);
    show(2, &["stockade", "grant", "dev-mem", "--for", "10m", "--exe", "/bin/busybox"]);
    tell("To silence every program that is attached to the kernel's functions:");
    show(1, &["sh", "-c", "echo 0 > /proc/sys/kernel/ftrace_enabled"]);
    tell("To take away the file systems that enforcement came by:");
    show(0, &["umount", "-l", "/sys/fs/bpf"]);
    show(0, &["umount", "-l", "/sys/fs/cgroup"]);
    tell("It holds. status tries the seal and a door before it says so:");
    show(1, &["dd", "if=/dev/mem", "of=/dev/null", "bs=1", "count=1"]);
    show(0, &["stockade", "status"]);
    tell("That was it. To play yourself: cargo xtask demo --shell");
    ExitCode::from(u8::from(OTHERWISE.load(Ordering::Relaxed)))
}

fn tell(text: &str) {
    println!("\n# {text}");
    let _ = std::io::stdout().flush();
    sleep(Duration::from_millis(500));
}

/// Runs a command that has to end with this status.
fn show(status: i32, line: &[&str]) {
    prompt(line);
    let answer = Command::new(line[0]).args(&line[1..]).status();
    told(status, answer.map(|status| status.code()), line[0]);
}

/// Prints and notes when a command ended with another status.
fn told(expected: i32, answer: std::io::Result<Option<i32>>, program: &str) {
    match answer {
        Ok(Some(status)) if status == expected => return,
        Ok(status) => println!("{program} ended with status {status:?}, not {expected}"),
        Err(error) => println!("{program}: {error}"),
    }
    OTHERWISE.store(true, Ordering::Relaxed);
}

fn show_last(line: &[&str], lines: usize) {
    prompt(line);
    let output = Command::new(line[0]).args(&line[1..]).stderr(Stdio::inherit()).output();
    let text = output.as_ref().map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    told(0, output.map(|o| o.status.code()), line[0]);
    let all: Vec<&str> = text.lines().collect();
    for line in &all[all.len().saturating_sub(lines)..] {
        println!("{line}");
    }
}

fn prompt(line: &[&str]) {
    let word = |word: &&str| if word.contains(' ') { format!("{word:?}") } else { (*word).to_owned() };
    println!("\nroot@guest:~# {}", line.iter().map(word).collect::<Vec<_>>().join(" "));
    let _ = std::io::stdout().flush();
    sleep(Duration::from_millis(300));
}
