/*!
AppArmor beside Stockade: each module still refuses its own operations, and `stockade` works under its AppArmor profile.
*/
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{lift_all, programs::debian, waiting::until};
use crate::{
    guest::Guest,
    program::{Answer, run, stockade},
    scenario::{Boot, Depends, Scenario},
};

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario("Stockade works under its AppArmor profile without a denial", confined),
    scenario("the AppArmor profile refuses what it leaves out", left_out),
    scenario("what AppArmor refuses is not called Stockade's", attributed),
    scenario("AppArmor and Stockade each refuse their own", both),
    Scenario {
        boot: Boot::AppArmorSealed,
        ..scenario(
            "Stockade seals, proves the seal and adds to it under its AppArmor profile without a denial",
            sealed,
        )
    },
];

const fn scenario(name: &'static str, run: fn(&Guest) -> Result<()>) -> Scenario {
    Scenario { name, boot: Boot::AppArmor, depends: Depends::UserSide, run }
}

/// The profile that is shipped.
const PROFILE: &str = include_str!("../../../packaging/apparmor/usr.bin.stockade");

/// A path to which the profile attaches.
const CONFINED: &str = "/usr/local/sbin/stockade";

/// A file that [`NARROW`] denies.
const KEPT: &str = "/etc/kept";

/// A file that the integrity level refuses.
const VERBOSE: &str = "/sys/kernel/debug/sched/verbose";

/// A profile that denies CAP_SYS_RAWIO without an audit line, and one file with an audit line. Everything else is allowed.
const NARROW: &str = "abi <abi/3.0>,
profile narrow {
  capability,
  deny capability sys_rawio,
  file,
  audit deny /etc/kept r,
  network,
  mount,
  ptrace,
}
";

fn load(profile: &str) -> Result<()> {
    fs::write("/tmp/profile", profile)?;
    debian("apparmor_parser --skip-cache --replace /tmp/profile")?.exits(0)?;
    Ok(())
}

/// Returns the kernel log since the last call, with rate limiting off.
fn log() -> Result<String> {
    fs::write("/proc/sys/kernel/printk_ratelimit", "0")?;
    Ok(run(Command::new("/bin/busybox").args(["dmesg", "-c"]))?.out)
}

fn denials(log: &str) -> Vec<&str> {
    log.lines().filter(|line| line.contains("apparmor=\"DENIED\"")).collect()
}

fn install() -> Result<()> {
    fs::create_dir_all("/usr/local/sbin")?;
    fs::copy("/bin/stockade", CONFINED)?;
    load(PROFILE)
}

fn confined_stockade(arguments: &[&str]) -> Result<Answer> {
    run(Command::new(CONFINED).args(arguments))
}

fn confined(_: &Guest) -> Result<()> {
    lift_all()?;
    install()?;
    log()?;
    same_residue()?;
    confined_stockade(&["check-host"])?.exits(0)?;
    // Under the profile the findings would show AppArmor's restrictions.
    confined_stockade(&["assess", "--quick"])?.exits(2)?.says("aa-exec -p unconfined")?;
    confined_stockade(&["enforce", "integrity", "--audit"])?.exits(0)?.says("proven")?;
    confined_stockade(&["enforce", "confidentiality"])?.exits(0)?;
    is_confined()?;
    confined_stockade(&["status"])?.exits(0)?.says("confidentiality")?;
    ensure!(File::open("/dev/mem").is_err(), "nothing is enforced");
    confined_stockade(&["watch", "--no-follow", "--kernel-log"])?.exits(0)?.says("/dev/mem,kmem,port")?;
    same_answers()?;
    confined_stockade(&["explain", "kexec"])?.exits(0)?;
    policies()?;
    confined_stockade(&["lift"])?.exits(0)?;
    same_answers()?;
    unmounted(same_answers)?;
    let log = log()?;
    ensure!(denials(&log).is_empty(), "{}", denials(&log).join("\n"));
    Ok(())
}

fn sealed(_: &Guest) -> Result<()> {
    install()?;
    log()?;
    confined_stockade(&["enforce", "integrity"])?.exits(0)?;
    confined_stockade(&["seal"])?.exits(0)?;
    let verified = |reasons: usize| -> Result<()> {
        let (inside, outside) = (tried(CONFINED)?, tried("/bin/stockade")?);
        ensure!(inside == outside, "confined: {inside:?}\nunconfined: {outside:?}");
        ensure!(inside.len() > reasons, "only {inside:?} were tried");
        Ok(())
    };
    verified(4)?;
    confined_stockade(&["enforce", "confidentiality"])?.exits(0)?;
    verified(9)?;
    confined_stockade(&["lift"])?.exits(2)?.says("sealed")?;
    let log = log()?;
    ensure!(denials(&log).is_empty(), "{}", denials(&log).join("\n"));
    Ok(())
}

/// Returns the reasons that this copy of `stockade` tries for the proof of the seal.
fn tried(program: &str) -> Result<Vec<String>> {
    let status = run(Command::new(program).args(["status", "--json"]))?.exits(0)?.json()?;
    let proof = &status["stockade"]["sealed"]["proof"];
    ensure!(proof["conclusion"] == "verified", "{proof:#}");
    let refused = proof["refused"].as_array().context("the proof lists what was refused")?;
    Ok(refused.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

/// Applies a policy from a file under the profile, with a scope, an exception and a grant.
fn policies() -> Result<()> {
    fs::create_dir_all("/etc/stockade")?;
    fs::write(
        "/etc/stockade/policy.toml",
        "level = \"integrity\"\n\
         [[scope]]\nname = \"pods\"\ncgroup = \"/pods/*\"\nlevel = \"confidentiality\"\n\
         [[exception]]\nname = \"itself\"\nreasons = [\"msr\"]\nexe = \"/usr/local/sbin/stockade\"\n",
    )?;
    confined_stockade(&["policy", "show"])?.exits(0)?.says("integrity")?;
    confined_stockade(&["policy", "check"])?.exits(1)?.says("SP")?;
    confined_stockade(&["enforce"])?.exits(0)?.says("In force: integrity")?;
    confined_stockade(&["grant", "msr", "--for", "1m", "--unit", "oncall.slice"])?.exits(0)?;
    confined_stockade(&["grant", "--list"])?.exits(0)?.says("grant-oncall-slice")?;
    confined_stockade(&["status"])?.exits(0)?.says("pods (/pods/*)")?;
    Ok(())
}

/// Requires that a running `stockade` is confined by the profile.
fn is_confined() -> Result<()> {
    let mut child = Command::new(CONFINED).arg("watch").stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let mut label = String::new();
    let confined = until("the program's profile", || {
        label = fs::read_to_string(format!("/proc/{}/attr/apparmor/current", child.id()))?;
        Ok(label.starts_with("stockade ("))
    });
    child.kill()?;
    child.wait()?;
    confined.with_context(|| format!("the program runs as {label}"))?;
    ensure!(label.trim_end() == "stockade (enforce)", "the program runs as {label}");
    Ok(())
}

/// Requires that `residual` finds an open /dev/mem, and the same number of findings with and without the profile.
fn same_residue() -> Result<()> {
    let _left_open = File::open("/dev/mem")?;
    let found = |program: &str| -> Result<Value> {
        Ok(run(Command::new(program).args(["residual", "--json"]))?.exits(1)?.json()?["found"].clone())
    };
    let (inside, outside) = (found(CONFINED)?, found("/bin/stockade")?);
    let of_mem =
        |found: &Value| found.as_array().into_iter().flatten().filter(|f| f["reason"] == "dev-mem").count();
    ensure!(of_mem(&inside) == 1, "/dev/mem is open and not found: {inside}");
    let count = |found: &Value| found.as_array().map_or(0, Vec::len);
    ensure!(count(&inside) == count(&outside), "confined: {inside}\nunconfined: {outside}");
    Ok(())
}

/// Requires that the doors give the confined and the unconfined program the same answers.
fn same_answers() -> Result<()> {
    let (inside, outside) = (probed(CONFINED)?, probed("/bin/stockade")?);
    ensure!(inside == outside, "confined: {inside:?}\nunconfined: {outside:?}");
    Ok(())
}

/// Runs a closure while debugfs and tracefs are not mounted, so that `probe` mounts them for itself.
fn unmounted(then: impl FnOnce() -> Result<()>) -> Result<()> {
    let busybox = |arguments: &[&str]| run(Command::new("/bin/busybox").args(arguments))?.exits(0);
    let of_interest = |line: &&str| line.contains(" debugfs ") || line.contains(" tracefs ");
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    for line in mounts.lines().filter(of_interest) {
        busybox(&["umount", "-l", line.split(' ').nth(1).context("a mount has a place")?])?;
    }
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    ensure!(!mounts.lines().any(|line| of_interest(&line)), "still mounted: {mounts}");
    let result = then();
    for (kind, place) in [("debugfs", "/sys/kernel/debug"), ("tracefs", "/sys/kernel/tracing")] {
        busybox(&["mount", "-t", kind, kind, place])?;
    }
    result
}

/// Returns the answers of the doors to this copy of `stockade`.
fn probed(program: &str) -> Result<BTreeMap<String, String>> {
    doors(&run(Command::new(program).args(["probe", "--json"]))?)
}

fn doors(answer: &Answer) -> Result<BTreeMap<String, String>> {
    let report = answer.json()?;
    let doors = report["doors"].as_array().context("probe lists doors")?;
    Ok(doors.iter().map(|d| (format!("{} {}", d["reason"], d["door"]), d["answer"].to_string())).collect())
}

/// Makes a command change to a profile before it executes its program.
fn under<'a>(profile: &'static str, command: &'a mut Command) -> &'a mut Command {
    // SAFETY: a scenario's process has one thread, so the child may allocate; it opens and writes one file.
    unsafe { command.pre_exec(move || change_profile(profile)) }
}

fn change_profile(profile: &str) -> io::Result<()> {
    fs::write("/proc/self/attr/apparmor/current", format!("changeprofile {profile}"))
}

fn left_out(_: &Guest) -> Result<()> {
    install()?;
    fs::write("/etc/shadow", "root:*:\n")?;
    log()?;
    let shell = || {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "true"]);
        shell
    };
    ensure!(shell().status()?.success(), "a shell runs unconfined");
    let refused = under("stockade", &mut shell()).status().err().and_then(|e| e.raw_os_error());
    ensure!(refused == Some(libc::EACCES), "a shell under the profile: {refused:?}");
    let mut reader = Command::new("/bin/true");
    // SAFETY: a scenario's process has one thread, so the child may allocate; it opens one file.
    unsafe { reader.pre_exec(|| File::open("/etc/shadow").map(drop)) };
    ensure!(reader.status()?.success(), "/etc/shadow can be read unconfined");
    let mut reader = Command::new(CONFINED);
    reader.arg("--version");
    // SAFETY: a scenario's process has one thread, so the child may allocate; it writes one file and opens another.
    unsafe {
        reader.pre_exec(|| change_profile("stockade").and_then(|()| File::open("/etc/shadow").map(drop)))
    };
    let refused = reader.status().err().and_then(|e| e.raw_os_error());
    ensure!(refused == Some(libc::EACCES), "/etc/shadow under the profile: {refused:?}");
    let log = log()?;
    for name in ["/bin/busybox", "/etc/shadow"] {
        let named = format!("profile=\"stockade\" name=\"{name}\"");
        ensure!(denials(&log).iter().any(|line| line.contains(&named)), "no denial of {name} in {log}");
    }
    Ok(())
}

/// Under a profile without CAP_SYS_RAWIO, the kernel refuses raw memory and ports before it asks lockdown.
fn attributed(_: &Guest) -> Result<()> {
    lift_all()?;
    load(NARROW)?;
    stockade(&["enforce", "integrity"])?.exits(0)?;
    stockade(&["watch", "--no-follow"])?.exits(0)?;
    let probe = run(under("narrow", Command::new("/bin/stockade").args(["probe", "--json"])))?;
    let events = events()?;
    lift_all()?;
    let report = probe.json()?;
    let answers = |reason: &str| -> Vec<&Value> {
        let doors = report["doors"].as_array().into_iter().flatten();
        doors
            .filter(|d| d["reason"] == reason && d["answer"] != "not-present")
            .map(|d| &d["answer"])
            .collect()
    };
    for reason in ["dev-mem", "ioport"] {
        let answers = answers(reason);
        ensure!(
            !answers.is_empty() && answers.iter().all(|a| *a == "refused-by-other"),
            "{reason}: {answers:?}"
        );
        ensure!(!events.contains(&reason.to_owned()), "watch shows {reason}, which was not Stockade's");
    }
    for reason in ["kexec", "hibernation", "debugfs"] {
        let answers = answers(reason);
        ensure!(
            !answers.is_empty() && answers.iter().all(|a| *a == "refused-by-stockade"),
            "{reason}: {answers:?}"
        );
        ensure!(events.contains(&reason.to_owned()), "watch does not show {reason}: {events:?}");
    }
    Ok(())
}

/// Returns the reasons of the events that `watch` shows now.
fn events() -> Result<Vec<String>> {
    let answer = stockade(&["watch", "--no-follow", "--json"])?.exits(0)?;
    answer
        .out
        .lines()
        .map(|line| {
            let event: Value = serde_json::from_str(line)?;
            Ok(event["reason"].as_str().unwrap_or_default().to_owned())
        })
        .collect()
}

fn both(_: &Guest) -> Result<()> {
    lift_all()?;
    load(NARROW)?;
    fs::write(KEPT, "")?;
    let read = |path: &str| -> Result<String> {
        Ok(run(under("narrow", Command::new("/bin/busybox").args(["cat", path])))?.err)
    };
    ensure!(read(VERBOSE)?.is_empty(), "{VERBOSE} can be read before anything is enforced");
    ensure!(read(KEPT)?.contains("Permission denied"), "AppArmor refuses {KEPT}");
    stockade(&["enforce", "integrity"])?.exits(0)?;
    stockade(&["watch", "--no-follow"])?.exits(0)?;
    log()?;
    let (kept, verbose) = (read(KEPT)?, read(VERBOSE)?);
    let (events, log) = (events()?, log()?);
    lift_all()?;
    ensure!(kept.contains("Permission denied"), "AppArmor goes on refusing {KEPT}: {kept}");
    ensure!(verbose.contains("Operation not permitted"), "Stockade refuses {VERBOSE}: {verbose}");
    ensure!(events == ["debugfs"], "watch shows {events:?}, not Stockade's one refusal");
    let denied = denials(&log);
    ensure!(denied.len() == 1 && denied[0].contains(KEPT), "AppArmor's one refusal is {KEPT}: {denied:?}");
    ensure!(read(VERBOSE)?.is_empty(), "{VERBOSE} can be read after lift");
    ensure!(read(KEPT)?.contains("Permission denied"), "AppArmor refuses {KEPT} after lift");
    Ok(())
}
