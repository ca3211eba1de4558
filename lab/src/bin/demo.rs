//! The guided tour: what `cargo xtask demo` plays inside the guest, with real commands and real output.

use std::{
    io::Write,
    process::{Command, Stdio},
    thread::sleep,
    time::Duration,
};

fn main() {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    tell(&format!("You are root in a throw-away machine with Debian's kernel {}.", release.trim()));
    tell("Nothing is locked down yet. Every door that lockdown guards is open to root:");
    show(&["stockade", "status"]);
    show(&["stockade", "probe"]);

    tell("First a trial: integrity, audited. Nothing is refused, everything is reported.");
    show(&["stockade", "enforce", "integrity", "--audit"]);
    tell("A real program, dd, reads one byte of /dev/mem. It is caught, and not stopped:");
    show(&["dd", "if=/dev/mem", "of=/dev/null", "bs=1", "count=1"]);
    show(&["stockade", "watch", "--no-follow"]);

    tell("Now for real. The same program gets the answer of the kernel's own lockdown:");
    show(&["stockade", "enforce", "integrity"]);
    show(&["dd", "if=/dev/mem", "of=/dev/null", "bs=1", "count=1"]);
    show(&["stockade", "probe"]);

    tell("Confidentiality shuts what could read the kernel's memory too:");
    show(&["stockade", "enforce", "confidentiality"]);
    show(&["dd", "if=/proc/kcore", "of=/dev/null", "bs=1", "count=1"]);

    tell("One reason is let through, here hibernation; the rest stays shut:");
    show(&["stockade", "enforce", "confidentiality", "--allow", "hibernation"]);
    show(&["stockade", "probe", "hibernation", "kexec", "dev-mem", "kcore"]);

    tell("Who was refused, in the kernel's own words, with who and where. The last few:");
    show_last(&["stockade", "watch", "--no-follow"], 4);
    tell("A reason, or a line from a log, explained:");
    show(&[
        "stockade",
        "explain",
        "Lockdown: dd: /dev/mem,kmem,port is restricted; see man kernel_lockdown.7",
    ]);
    show(&["stockade", "status"]);

    tell("And back:");
    show(&["stockade", "lift"]);
    show(&["dd", "if=/dev/mem", "of=/dev/null", "bs=1", "count=1"]);
    tell("That was it. To play yourself: cargo xtask demo --shell");
}

fn tell(text: &str) {
    println!("\n# {text}");
    let _ = std::io::stdout().flush();
    sleep(Duration::from_millis(500));
}

fn show(line: &[&str]) {
    prompt(line);
    if let Err(error) = Command::new(line[0]).args(&line[1..]).status() {
        println!("{}: {error}", line[0]);
    }
}

fn show_last(line: &[&str], lines: usize) {
    prompt(line);
    let output = Command::new(line[0]).args(&line[1..]).stderr(Stdio::inherit()).output();
    let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
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
