//! States that `seal` refuses to seal. Each refusal leaves the policy enforced, unsealed and liftable.

use std::{
    ffi::{CStr, OsStr},
    fs,
    os::unix::{ffi::OsStrExt, process::CommandExt},
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, ensure};
use stockade_kernel::host;

use super::{
    as_before, enforced_unsealed,
    foreign::{Foreign, Kind},
    in_force, lift_all, mem_opens, says_all, would_seal,
};
use crate::{
    guest::Guest,
    program::{run, stockade},
    scenario::{Boot, Depends, Scenario, Skip},
    scenarios::residual::left_open::KexecImage,
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "seal: nothing enforced is nothing to seal",
        boot: Boot::Sealed,
        depends: Depends::UserSide,
        run: nothing,
    },
    Scenario {
        name: "seal: a policy that refuses nothing is not sealed",
        boot: Boot::Sealed,
        depends: Depends::UserSide,
        run: idle,
    },
    Scenario {
        name: "seal: tracing switched off is named",
        boot: Boot::Sealed,
        depends: Depends::NewestSeries,
        run: tracing_off,
    },
    Scenario {
        name: "seal: a kernel loaded for kexec is named",
        boot: Boot::Sealed,
        depends: Depends::NewestSeries,
        run: kexec,
    },
    Scenario {
        name: "seal: without root it is refused",
        boot: Boot::Sealed,
        depends: Depends::UserSide,
        run: not_root,
    },
    Scenario {
        name: "seal: a lost description is named",
        boot: Boot::Sealed,
        depends: Depends::UserSide,
        run: description,
    },
    Scenario {
        name: "seal: each foreign program is named",
        boot: Boot::Sealed,
        depends: Depends::Series,
        run: foreign,
    },
    Scenario {
        name: "seal: an attached foreign program is named",
        boot: Boot::Sealed,
        depends: Depends::NewestSeries,
        run: attached,
    },
    Scenario {
        name: "seal: what others are called drives no terminal",
        boot: Boot::Sealed,
        depends: Depends::UserSide,
        run: named_by_an_attacker,
    },
    Scenario {
        name: "seal: foreign programs can be trusted by id and by tag",
        boot: Boot::Sealed,
        depends: Depends::Series,
        run: trust,
    },
    Scenario {
        name: "seal: programs that reach nothing are nobody's business",
        boot: Boot::Sealed,
        depends: Depends::NewestSeries,
        run: others,
    },
    Scenario {
        name: "seal: without bpf among the modules it is refused with the remedy",
        boot: Boot::NoBpfLsm,
        depends: Depends::UserSide,
        run: no_lsm,
    },
];

/// Requires that `seal` is refused with these texts, and that integrity stays enforced and unsealed.
fn refused(words: &[&str]) -> Result<()> {
    says_all(stockade(&["seal"])?.exits(2)?, words)?;
    enforced_unsealed()
}

fn enforce_integrity() -> Result<()> {
    lift_all()?;
    stockade(&["enforce", "integrity"])?.exits(0).map(drop)
}

fn nothing(_: &Guest) -> Result<()> {
    lift_all()?;
    stockade(&["seal"])?.exits(2)?.says("nothing is enforced")?.says("stockade enforce")?;
    let answer = stockade(&["seal", "--json"])?.exits(2)?;
    ensure!(answer.json()?["error"].is_string(), "{}", answer.out);
    ensure!(in_force()?.is_null() && mem_opens(), "something is in force");
    Ok(())
}

fn idle(_: &Guest) -> Result<()> {
    for policy in [&["none"][..], &["integrity", "--audit"], &["none", "--audit-reason", "dev-mem"]] {
        lift_all()?;
        stockade(&[&["enforce"], policy].concat())?.exits(0)?;
        stockade(&["seal"])?.exits(2)?.says("root can change the kernel, and with it the seal")?;
        stockade(&["seal", "--best-effort"])?.exits(2)?.says("refuses nothing")?;
        let now = in_force()?;
        ensure!(!now.is_null() && now["sealed"].is_null() && mem_opens(), "{policy:?}: {now:#}");
        stockade(&["lift"])?.exits(0)?.says("Lifted")?;
    }
    // One refused reason is enough.
    stockade(&["enforce", "none", "--deny", "dev-mem"])?.exits(0)?;
    let answer = stockade(&["seal"])?.exits(2)?.says("what is not refused: module-signature, ")?;
    ensure!(!answer.err.contains("dev-mem"), "what is refused is named: {}", answer.err);
    would_seal(&["--best-effort"])?;
    stockade(&["lift"])?.exits(0)?;
    ensure!(mem_opens(), "lifted, and /dev/mem is still refused");
    Ok(())
}

const SWITCH: &str = "/proc/sys/kernel/ftrace_enabled";

fn tracing_off(_: &Guest) -> Result<()> {
    enforce_integrity()?;
    fs::write(SWITCH, "0").context("switch tracing off")?;
    let answer = stockade(&["seal"]);
    fs::write(SWITCH, "1").context("switch tracing on")?;
    answer?.exits(2)?.says("kernel.ftrace_enabled is 0")?.says("sysctl kernel.ftrace_enabled=1")?;
    as_before()
}

fn kexec(_: &Guest) -> Result<()> {
    lift_all()?;
    if !Path::new("/sys/kernel/kexec_loaded").exists() {
        return Err(Skip("this kernel has no kexec".into()).into());
    }
    let image = KexecImage::load()?;
    stockade(&["enforce", "integrity"])?.exits(0)?;
    refused(&["a kernel is loaded for kexec", "unload it", "reboot into it"])?;
    drop(image);
    would_seal(&[])?;
    as_before()
}

fn not_root(_: &Guest) -> Result<()> {
    enforce_integrity()?;
    let mut nobody = Command::new("/bin/stockade");
    run(nobody.arg("seal").uid(65534).gid(65534))?.exits(2)?.says("run this as root")?;
    as_before()
}

fn description(_: &Guest) -> Result<()> {
    enforce_integrity()?;
    fs::remove_dir_all("/run/stockade")?;
    refused(&["description of the policy"])?;
    as_before()
}

const KINDS: [Kind; 4] = [Kind::LsmCgroup, Kind::ModifyReturn, Kind::Lsm, Kind::CgroupSysctl];

/// Returns the kinds of programs that could answer in place of a sealed program. Since 6.12 the verifier bounds the return value of LSM programs.
fn reaching() -> Vec<Kind> {
    let mut kinds = vec![Kind::LsmCgroup, Kind::ModifyReturn];
    if !host::is_at_least(6, 12) {
        kinds.push(Kind::Lsm);
    }
    kinds
}

/// Returns the texts that the refusal must have about a foreign program.
fn account(kind: Kind, program: &Foreign) -> [String; 5] {
    [
        // Without the closing parenthesis: the report about an unattached tracing program continues with the reason for the refusal.
        format!("{} {} ({}", program.id, kind.name(), kind.words()),
        "loaded by user 0".into(),
        format!("({})", std::process::id()),
        format!("--trust {} or", program.tag),
        format!("or --trust {}", program.id),
    ]
}

fn foreign(_: &Guest) -> Result<()> {
    enforce_integrity()?;
    let mut loaded = Vec::new();
    for kind in reaching() {
        let program = Foreign::load(kind, 1)?;
        let answer = stockade(&["seal"])?.exits(2)?.says("end them, or keep those that you trust")?;
        says_all(answer, &account(kind, &program))?;
        enforced_unsealed()?;
        loaded.push((kind, program));
    }
    // With every program loaded, the refusal names each.
    let mut answer = stockade(&["seal"])?.exits(2)?;
    for (kind, program) in &loaded {
        answer = says_all(answer, &account(*kind, program))?;
    }
    drop(loaded);
    // A sysctl program stays, but cannot be loaded again after the seal, so `seal` asks for a confirmation.
    let sysctl = Foreign::load(Kind::CgroupSysctl, 1)?;
    let named = format!("{} {}", sysctl.id, Kind::CgroupSysctl.name());
    refused(&["asked for sysctls stay as they are", &named, "--best-effort"])?;
    would_seal(&["--best-effort"])?;
    would_seal(&["--trust", &sysctl.tag])?;
    // A program on a hook that the seal does not use is no obstacle.
    let _elsewhere = Foreign::load(Kind::LsmElsewhere, 1)?;
    drop(sysctl);
    would_seal(&[])?;
    as_before()
}

fn attached(_: &Guest) -> Result<()> {
    enforce_integrity()?;
    for kind in reaching().into_iter().filter(|kind| *kind != Kind::LsmCgroup) {
        let program = Foreign::load(kind, 2)?;
        let link = program.attach()?;
        let answer = says_all(stockade(&["seal"])?.exits(2)?, &account(kind, &program))?;
        answer.says("held by link ")?;
        enforced_unsealed()?;
        drop(link);
    }
    let root = fs::File::open("/sys/fs/cgroup")?;
    let alone = Foreign::load(Kind::LsmCgroupOfMaps, 3)?;
    alone.attach_alone_to(&root)?;
    // This program could answer before a guard. If it is trusted, the guard cannot be attached beside it.
    refused(&[&format!("{} lab_of_maps (LSM)", alone.id)])?;
    let trusted = stockade(&["seal", "--trust", &alone.tag])?.exits(2)?;
    says_all(trusted, &["LSM_CGROUP program for bpf_map", "without BPF_F_ALLOW_MULTI"])?;
    enforced_unsealed()?;
    alone.detach_from(&root)?;
    drop(alone);
    would_seal(&[])?;
    as_before()
}

fn trust(_: &Guest) -> Result<()> {
    enforce_integrity()?;
    let numbers = 30..;
    let programs: Vec<Foreign> = KINDS
        .into_iter()
        .zip(numbers)
        .map(|(kind, number)| Foreign::load(kind, number))
        .collect::<Result<_>>()?;
    let ids: Vec<String> = programs.iter().map(|program| program.id.to_string()).collect();
    let by_id: Vec<&str> = ids.iter().flat_map(|id| ["--trust", id]).collect();
    let by_tag: Vec<&str> = programs.iter().flat_map(|program| ["--trust", program.tag.as_str()]).collect();
    would_seal(&by_id)?;
    would_seal(&by_tag)?;
    // The refusal names only the program that is not trusted.
    let answer = stockade(&[&["seal"], &by_id[2..]].concat())?.exits(2)?;
    let answer = says_all(answer, &account(KINDS[0], &programs[0]))?;
    ensure!(!answer.err.contains(KINDS[1].name()), "a trusted program is named: {}", answer.err);
    // An id and a tag that no loaded program has.
    for unknown in ["4294967295", "0123456789abcdef"] {
        let answer = stockade(&["seal", "--trust", unknown])?.exits(2)?;
        let there = KINDS.iter().zip(&ids).map(|(kind, id)| format!("{id} ({})", kind.name()));
        let mut words: Vec<String> = there.collect();
        words.push(format!("--trust {unknown}: no loaded program"));
        says_all(answer, &words)?;
    }
    as_before()?;
    drop(programs);
    enforce_integrity()?;
    stockade(&["seal", "--trust", &ids[0]])?.exits(2)?.says("no loaded program")?;
    as_before()
}

fn others(_: &Guest) -> Result<()> {
    enforce_integrity()?;
    let program = Foreign::load(Kind::Fentry, 4)?;
    let _link = program.attach()?;
    would_seal(&[])?;
    as_before()
}

fn no_lsm(_: &Guest) -> Result<()> {
    enforce_integrity()?;
    refused(&["bpf is not among the active security modules", ",bpf to the kernel command line", "reboot"])?;
    as_before()
}

/// Names of a process and a pin with escape sequences that clear the screen and set the window title, and with a line break.
fn named_by_an_attacker(_: &Guest) -> Result<()> {
    const COMM: &[u8] = b"\x1b[2J\x1b]0;x\x07\nok";
    // The BPF file system refuses names with dots.
    const PIN: &CStr = c"/sys/fs/bpf/\x1b[2J\xe2\x80\xaepin\nSealed: integrity!";
    enforce_integrity()?;
    let before = fs::read("/proc/self/comm")?;
    let program = Foreign::load(Kind::LsmCgroup, 6)?;
    program.pin(PIN)?;
    fs::write("/proc/self/comm", COMM)?;
    let answers = [stockade(&["seal"]), stockade(&["seal", "--json"]), stockade(&["residual"])];
    fs::write("/proc/self/comm", before.trim_ascii_end())?;
    fs::remove_file(OsStr::from_bytes(PIN.to_bytes()))?;
    drop(program);
    let [refused, json, residual] = answers;
    let refused = refused?.exits(2)?;
    for answer in [&refused, &json?, &residual?] {
        for text in [&answer.out, &answer.err] {
            ensure!(
                text.chars().all(|c| c == '\n' || c == '\t' || !c.is_control() && c != '\u{202e}'),
                "{}: {text:?}",
                answer.line
            );
            ensure!(!text.lines().any(|line| line.starts_with("Sealed")), "a forged line: {text}");
        }
    }
    ensure!(
        refused.err.contains("?[2J?]0;x??ok (")
            && refused.err.contains("/sys/fs/bpf/?[2J?pin?Sealed: integrity!"),
        "the names are not told: {}",
        refused.err
    );
    as_before()
}
