//! Measures the cost of a lockdown check in instructions: runs in a guest under `-icount shift=0`, where a nanosecond of guest time is an
//! instruction. Without it the figures are nanoseconds of an emulator and mean nothing.
//!
//! Each figure is the cheapest of several batches of one system call whose only variable part is the
//! check. The floor is an empty BPF program on the same hook, measured in the same boot.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::PermissionsExt,
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use stockade_kernel::{btf::KernelTypes, events::Reader, lab};

const CALLS: u32 = 500;
const BATCHES: u32 = 8;

/// A system call that makes the kernel check lockdown.
struct Subject {
    name: &'static str,
    reason: &'static str,
    call: Box<dyn FnMut()>,
}

pub fn run() -> Result<()> {
    let types = KernelTypes::of_running_kernel()?;
    println!("kernel {}", fs::read_to_string("/proc/sys/kernel/osrelease")?.trim());
    let mut subjects = subjects()?;
    // After ioperm grants a port, every system call of the process takes longer to return: all figures include that, or none.
    for subject in &mut subjects {
        (subject.call)();
    }
    if fs::read_to_string("/proc/cmdline")?.contains("stockade.bench=sealed") {
        return sealed(&types, &mut subjects);
    }
    make_programs()?;
    commands()?;
    print_head("instructions per call (over the floor)", &subjects);

    print_row("nothing on the hook", &measure_all(&mut subjects, None)?, None);
    let floor = {
        let _program = lab::attach_empty_program(&types)?;
        measure_all(&mut subjects, None)?
    };
    print_row("an empty BPF LSM program: the floor", &floor, None);

    enforce(&["none"])?;
    print_row("Stockade, level none: allowed", &measure_all(&mut subjects, None)?, Some(&floor));
    let names: Vec<&str> = subjects.iter().map(|s| s.reason).collect();
    let allow: Vec<&str> = names.iter().flat_map(|name| ["--allow", name]).collect();
    enforce(&[&["confidentiality"], &allow[..]].concat())?;
    print_row("Stockade, confidentiality, these allowed", &measure_all(&mut subjects, None)?, Some(&floor));
    statistics(&mut subjects)?;
    enforce(&["confidentiality"])?;
    let mut reader = Reader::open()?;
    let refused = measure_all(&mut subjects, Some(&mut reader))?;
    print_row("Stockade, refused, event read by a live reader", &refused, Some(&floor));
    enforce(&["confidentiality", "--audit"])?;
    let audited = measure_all(&mut subjects, Some(&mut reader))?;
    print_row("Stockade, audited, event read by a live reader", &audited, Some(&floor));
    drop(reader);
    stockade(&["lift"])?;
    policies(&mut subjects, &floor)?;

    // Last, since native lockdown can only be raised.
    fs::write("/sys/kernel/security/lockdown", "integrity")?;
    let native = measure_all(&mut subjects, None)?;
    print_row("native integrity: refuses MSR write and ioperm, allows the others", &native, None);
    fs::write("/sys/kernel/security/lockdown", "confidentiality")?;
    print_row("native confidentiality: refused", &measure_all(&mut subjects, None)?, None);
    Ok(())
}

fn print_head(name: &str, subjects: &[Subject]) {
    print!("| {name} |");
    for subject in subjects {
        print!(" {} |", subject.name);
    }
    println!("\n|---|{}", "---:|".repeat(subjects.len()));
}

/// Measures a sealed policy, in a boot of its own since a seal lasts until reboot.
fn sealed(types: &KernelTypes, subjects: &mut [Subject]) -> Result<()> {
    let names: Vec<&str> = subjects.iter().map(|s| s.reason).collect();
    let allow: Vec<&str> = names.iter().flat_map(|name| ["--allow", name]).collect();
    let floor = {
        let _program = lab::hold_empty_program(types)?;
        measure_all(subjects, None)?
    };
    enforce(&[&["confidentiality"], &allow[..]].concat())?;
    println!("| sealed: whole commands | ms at a billion instructions a second |\n|---|---:|");
    // The reasons that are allowed for the figures below leave something open, so the seal needs --best-effort.
    let start = Instant::now();
    let output = Command::new("/bin/stockade").args(["seal", "--best-effort", "--json"]).output()?;
    let took = start.elapsed().as_millis();
    ensure!(output.status.success(), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    println!("| seal, until it is in force | {} |", report["effective_after_ms"]);
    println!("| seal, until it is proven and recorded | {took} |");
    command("status, with its proof of what is not allowed", &["status"], 0)?;
    let allowed = measure_all(subjects, None)?;
    enforce(&["confidentiality"])?;
    command("status, with its proof of every reason", &["status"], 0)?;
    command("status, once more", &["status"], 0)?;
    println!();
    print_head("sealed: instructions per call (over the floor)", subjects);
    print_row("an empty program, held by the root cgroup: the floor", &floor, None);
    print_row("Sealed, confidentiality, these allowed", &allowed, Some(&floor));
    let mut reader = Reader::open()?;
    let refused = measure_all(subjects, Some(&mut reader))?;
    print_row("Sealed, refused by a policy added later, event read by a live reader", &refused, Some(&floor));
    Ok(())
}

/// Measures whole commands, from start to end of the process. The time in which the kernel waits is included, so these are times on a
/// machine that executes a billion instructions a second, and not counts.
fn commands() -> Result<()> {
    println!("| whole commands | ms at a billion instructions a second |\n|---|---:|");
    for (name, args, status) in [
        ("enforce, first start after boot", &["enforce", "integrity"][..], 0),
        ("enforce, another policy", &["enforce", "confidentiality"], 0),
        ("status", &["status"], 0),
        ("lift, until the kernel has detached", &["lift"], 0),
        ("enforce, a later start", &["enforce", "integrity"], 0),
        // Integrity leaves doors free. At the first try the kernel sets up its ciphers.
        ("probe, all doors, first after boot", &["probe"], 1),
        ("probe, all doors", &["probe"], 1),
        ("lift, once more", &["lift"], 0),
        ("enforce, a small policy with a scope and an exception", &["enforce", "--policy", SMALL], 0),
        (
            "enforce, 10,000 exceptions by program and 1,000 scopes in its place",
            &["enforce", "--policy", LARGE],
            0,
        ),
        ("grant, beside them", &["grant", "dev-mem", "--for", "10m", "--unit", "oncall.slice"], 0),
    ] {
        command(name, args, status)?;
    }
    println!();
    stockade(&["lift"])
}

fn command(name: &str, args: &[&str], status: i32) -> Result<()> {
    let start = Instant::now();
    let output = Command::new("/bin/stockade").args(args).output().context("run stockade")?;
    let took = start.elapsed().as_millis();
    ensure!(output.status.code() == Some(status), "{args:?}: {output:?}");
    println!("| {name} | {took} |");
    Ok(())
}

const SMALL: &str = "/root/small.toml";
const LARGE: &str = "/root/large.toml";

/// Makes the files for the policies: programs to be excepted, each another file.
fn make_programs() -> Result<()> {
    fs::create_dir_all("/tmp/many")?;
    for number in 0..10_000 {
        let path = format!("/tmp/many/{number}");
        fs::write(&path, "x")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    fs::write(SMALL, policy(1, 1))?;
    fs::write(LARGE, policy(10_000, 1000))?;
    Ok(())
}

fn policy(exceptions: usize, scopes: usize) -> String {
    let mut text = String::from("level = \"confidentiality\"\n");
    for number in 0..exceptions {
        text += &format!(
            "[[exception]]\nname = \"e{number}\"\nreasons = [\"msr\", \"ioport\", \"kcore\", \"tracefs\"]\nexe = \"/tmp/many/{number}\"\n"
        );
    }
    for number in 0..scopes {
        text += &format!(
            "[[scope]]\nname = \"s{number}\"\ncgroup = \"/many/{number}\"\nlevel = \"confidentiality\"\n"
        );
    }
    text
}

/// Measures the cost of places and exceptions for requests that they match and for requests that they do not match.
fn policies(subjects: &mut [Subject], floor: &[u64]) -> Result<()> {
    let apply = |text: &str| -> Result<()> {
        fs::write("/root/policy.toml", text)?;
        enforce(&["--policy", "/root/policy.toml"])
    };
    apply(
        "level = \"none\"\n[[scope]]\nname = \"pods\"\ncgroup = \"/pods\"\n[scope.reasons]\nkexec = \"deny\"\n\
         [[exception]]\nname = \"e\"\nreasons = [\"kexec\"]\nexe = \"/tmp/many/1\"\n",
    )?;
    let row = "With a scope and an exception for other reasons: allowed";
    print_row(row, &measure_all(subjects, None)?, Some(floor));
    apply("level = \"none\"\n[[scope]]\nname = \"pods\"\ncgroup = \"/pods\"\nlevel = \"confidentiality\"\n")?;
    print_row(
        "The same reasons refused in a scope elsewhere: allowed",
        &measure_all(subjects, None)?,
        Some(floor),
    );
    let mut reader = Reader::open()?;
    for (row, exceptions, scopes) in [
        ("With one exception by program: refused", 1, 0),
        ("With 10,000 exceptions by program: refused", 10_000, 0),
        ("With 1,000 scopes: refused", 0, 1000),
        ("With 10,000 exceptions and 1,000 scopes: refused", 10_000, 1000),
    ] {
        apply(&policy(exceptions, scopes))?;
        print_row(row, &measure_all(subjects, Some(&mut reader))?, Some(floor));
    }
    apply(
        "level = \"confidentiality\"\n[[exception]]\nname = \"e\"\ncgroup = \"/\"\n\
         reasons = [\"msr\", \"ioport\", \"kcore\", \"tracefs\"]\n",
    )?;
    let excepted = measure_all(subjects, Some(&mut reader))?;
    print_row("Let through by an exception for a cgroup", &excepted, Some(floor));
    drop(reader);
    stockade(&["lift"])
}

fn subjects() -> Result<Vec<Subject>> {
    let mut msr = OpenOptions::new()
        .write(true)
        .open("/dev/cpu/0/msr")
        .context("open /dev/cpu/0/msr: is the module msr loaded?")?;
    let mut subjects = vec![
        Subject {
            name: "zero-length MSR write",
            reason: "msr",
            call: Box::new(move || drop(msr.write(&[]))),
        },
        Subject {
            name: "ioperm",
            reason: "ioport",
            call: Box::new(|| {
                // SAFETY: ioperm takes numbers, and the port is not accessed.
                unsafe { libc::ioperm(0x80, 1, 1) };
            }),
        },
    ];
    for (name, reason, path) in [
        ("open kcore", "kcore", "/proc/kcore"),
        ("open tracing_on", "tracefs", "/sys/kernel/tracing/tracing_on"),
    ] {
        subjects.push(Subject { name, reason, call: Box::new(move || drop(File::open(path))) });
    }
    Ok(subjects)
}

fn measure_all(subjects: &mut [Subject], mut reader: Option<&mut Reader>) -> Result<Vec<u64>> {
    let mut figures = Vec::new();
    for subject in subjects {
        let mut best = u64::MAX;
        for _ in 0..BATCHES {
            let start = Instant::now();
            for _ in 0..CALLS {
                (subject.call)();
            }
            best = best.min(u64::try_from(start.elapsed().as_nanos())?);
            if let Some(reader) = reader.as_deref_mut() {
                let read = std::iter::from_fn(|| reader.take()).count();
                ensure!(read >= CALLS as usize, "{read} events of {CALLS} calls were read");
            }
        }
        figures.push(best / u64::from(CALLS));
    }
    Ok(figures)
}

fn print_row(name: &str, figures: &[u64], floor: Option<&[u64]>) {
    print!("| {name} |");
    for (i, figure) in figures.iter().enumerate() {
        match floor {
            Some(floor) => print!(" {figure} ({:+}) |", figure.cast_signed() - floor[i].cast_signed()),
            None => print!(" {figure} |"),
        }
    }
    println!();
}

/// Prints the kernel's own count and time of the program's runs; the time includes reading the clock.
fn statistics(subjects: &mut [Subject]) -> Result<()> {
    fs::write("/proc/sys/kernel/bpf_stats_enabled", "1")?;
    let mut cells = Vec::new();
    for subject in subjects {
        let before = lab::statistics()?;
        for _ in 0..CALLS {
            (subject.call)();
        }
        let after = lab::statistics()?;
        let runs = after.runs - before.runs;
        let each = (after.nanoseconds - before.nanoseconds).checked_div(runs).unwrap_or(0);
        cells.push(format!("{runs} runs, {each} each"));
    }
    fs::write("/proc/sys/kernel/bpf_stats_enabled", "0")?;
    println!("| the kernel's BPF statistics of {CALLS} such calls | {} |", cells.join(" | "));
    Ok(())
}

fn enforce(args: &[&str]) -> Result<()> {
    stockade(&[&["enforce"], args].concat())
}

fn stockade(args: &[&str]) -> Result<()> {
    let output = Command::new("/bin/stockade").args(args).output().context("run stockade")?;
    ensure!(output.status.success(), "stockade {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
