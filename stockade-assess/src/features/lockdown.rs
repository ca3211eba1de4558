/*!
Lockdown: whether root can change the running kernel or read its memory, by the kernel's own level and Stockade's, with a probe of each door.

| file | what it owns |
|---|---|
| `in_force.rs` | both levels in force, and the reasons that each refuses |
| `doors.rs` | the probes of the doors |
| `residual.rs` | leftovers: what was opened or loaded before the level was set |
*/
mod doors;
mod in_force;
mod residual;

use std::time::Duration;

use stockade_kernel::seal::{self, Conclusion, Proof};
use stockade_probe::limit::Limit;
use stockade_reasons::Level;

pub(super) use self::in_force::native;
use self::in_force::{InForce, Stockade};
use crate::{Feature, Finding, How, Report, System, Verdict, few};

pub(super) const FEATURE: Feature =
    Feature { id: "lockdown", title: "Kernel lockdown", limit: LIMIT, ..Feature::new(check) };

/// The limit for about forty probes, each in a process of its own: one takes a second on an emulated machine, and several may hang until their
/// own limit.
const LIMIT: Limit = Limit { processor: Duration::from_mins(1), idle: Duration::from_mins(3) };

/// The reason given for a folder of files, where nothing can be tried.
const NOT_LIVE: &str = "not tried: these are files, not the running machine";

fn check(system: &System, report: &mut Report) {
    report.add(compiled(system));
    let before = InForce::read(system);
    report.add(level(&before));
    doors::probe_all(system, &before, report);
    report.add(residual::finding(system, &before));
    report.add(sealed(&before));
}

/// Judges the level in force, the kernel's own or Stockade's.
fn level(in_force: &InForce) -> Finding {
    const ID: &str = "lockdown.level";
    let native = in_force.native.as_ref();
    let of_stockade = in_force.stockade.as_ref().ok().and_then(Option::as_ref);
    let (verdict, found) = match (native, of_stockade) {
        (Ok(native), stockade) if *native > Level::None && *native >= enforced_level(stockade) => {
            (Verdict::Pass, format!("level {native}, enforced by the kernel's own lockdown"))
        }
        // The kernel's own level may refuse what Stockade does not.
        (Err(unread), stockade) if enforced_level(stockade) == Level::None => (
            Verdict::Unknown,
            format!("the kernel's own level cannot be read: {unread}; mount securityfs: mount -t securityfs securityfs /sys/kernel/security"),
        ),
        (_, Some(stockade)) if stockade.silent => (
            Verdict::Fail,
            "nothing is refused: kernel.ftrace_enabled = 0 (should be 1) keeps Stockade's BPF programs from running".into(),
        ),
        (_, Some(stockade)) if stockade.refused.is_empty() && stockade.audit => {
            (Verdict::Fail, "nothing is refused: Stockade is in audit mode".into())
        }
        (_, Some(stockade)) if stockade.audit || stockade.level == Level::None => (
            Verdict::Warn,
            format!("no level in force: Stockade refuses only {} single reasons", stockade.refused.len()),
        ),
        (_, Some(stockade)) if !stockade.open.is_empty() => (
            Verdict::Warn,
            format!(
                "level {}, enforced by Stockade except for: {}",
                stockade.level,
                few(&stockade.open)
            ),
        ),
        (_, Some(stockade)) if stockade.weaker => (
            Verdict::Warn,
            format!(
                "level {}, enforced by Stockade without BPF LSM, which can miss a request (add bpf to lsm= on the kernel command line)",
                stockade.level
            ),
        ),
        (_, Some(stockade)) => (Verdict::Pass, format!("level {}, enforced by Stockade", stockade.level)),
        (_, None) => match &in_force.stockade {
            Ok(_) => (
                Verdict::Fail,
                "no level in force: neither the kernel's own lockdown nor Stockade refuses anything".into(),
            ),
            Err(why) => (
                Verdict::Unknown,
                format!("the kernel's own lockdown is off; whether Stockade enforces a level is unknown: {why}"),
            ),
        },
    };
    let finding = Finding::new(ID, verdict, How::Read, found).seen(&in_force.seen.0, &in_force.seen.1);
    match &in_force.stockade {
        Ok(Some(stockade)) => finding.seen("Stockade's BPF maps", stockade.summary()),
        Ok(None) => finding.seen("Stockade's BPF maps", "no policy in force"),
        Err(why) => finding.seen("Stockade's BPF maps", why),
    }
}

/// Returns the level that Stockade enforces without gaps.
fn enforced_level(stockade: Option<&Stockade>) -> Level {
    match stockade {
        Some(stockade)
            if !stockade.audit && !stockade.silent && !stockade.weaker && stockade.open.is_empty() =>
        {
            stockade.level
        }
        _ => Level::None,
    }
}

/// Judges whether the kernel has lockdown built in, and what turns it on.
fn compiled(system: &System) -> Finding {
    const ID: &str = "lockdown.compiled";
    const LSM: &str = "CONFIG_SECURITY_LOCKDOWN_LSM";
    const EARLY: &str = "CONFIG_SECURITY_LOCKDOWN_LSM_EARLY";
    /// The options of the distributions' patches that tie the level to Secure Boot.
    const TIED: [&str; 2] = ["CONFIG_LOCK_DOWN_IN_EFI_SECURE_BOOT", "CONFIG_EFI_SECURE_BOOT_LOCK_DOWN"];
    const FORCED: [(&str, &str); 2] = [
        ("CONFIG_LOCK_DOWN_KERNEL_FORCE_CONFIDENTIALITY", "confidentiality"),
        ("CONFIG_LOCK_DOWN_KERNEL_FORCE_INTEGRITY", "integrity"),
    ];
    let config = match system.config() {
        Ok(config) => config,
        Err(unread) => return Finding::unknown(ID, How::Read, unread),
    };
    let tied = TIED.into_iter().find(|name| config.has(name));
    let forced = FORCED.into_iter().find(|(name, _)| config.has(name));
    let told = system.parameter("lockdown").ok().flatten();
    let (verdict, found) = if !config.has(LSM) {
        (Verdict::Fail, "the kernel was built without lockdown (CONFIG_SECURITY_LOCKDOWN_LSM); Stockade can enforce the same levels".to_owned())
    } else if in_force::is_inactive(system) {
        let found = "lockdown is built in, but not active: it is missing from the list of security modules (lsm=), so no level refuses anything";
        (Verdict::Fail, found.into())
    } else if let Some((_, level)) = forced {
        (Verdict::Pass, format!("lockdown is built in, and at level {level} from boot"))
    } else if tied.is_some() {
        (Verdict::Pass, "lockdown is built in, and turned on by Secure Boot".into())
    } else if !config.has(EARLY) {
        (
            Verdict::Warn,
            "lockdown is built in, but starts late (CONFIG_SECURITY_LOCKDOWN_LSM_EARLY not set): early boot is not covered".into(),
        )
    } else if let Some(level @ ("integrity" | "confidentiality")) = told.as_deref() {
        let found = format!(
            "lockdown is built in, and on only by lockdown={level}: an attacker who changes the kernel command line turns it off"
        );
        (Verdict::Warn, found)
    } else {
        (Verdict::Warn, "lockdown is built in, but off unless lockdown= is on the kernel command line".into())
    };
    let mut options = vec![LSM, EARLY];
    options.extend(tied);
    options.extend(forced.map(|(name, _)| name));
    let shown: Vec<String> =
        options.into_iter().map(|name| format!("{name}={}", config.get(name).unwrap_or("not set"))).collect();
    let finding = Finding::new(ID, verdict, How::Read, found).seen(&config.path, few(&shown));
    match told {
        Some(value) => finding.seen("/proc/cmdline", format!("lockdown={value}")),
        None => finding,
    }
}

/// Judges whether root can lower the level before a reboot.
fn sealed(in_force: &InForce) -> Finding {
    const ID: &str = "lockdown.sealed";
    let stockade = match &in_force.stockade {
        Ok(stockade) => stockade.as_ref(),
        Err(why) => return Finding::unknown(ID, How::Read, why),
    };
    // Reasons that the kernel's own level also refuses cannot be lifted. A policy may refuse reasons only at places.
    let more = |stockade: &&Stockade| {
        stockade.sealed.is_some()
            || stockade.refused.is_empty() && !stockade.audit
            || stockade.refused.iter().any(|reason| !in_force.native_covers(reason))
    };
    let Some(stockade) = stockade.filter(more) else {
        return match &in_force.native {
            Ok(Level::None) => Finding::not_applicable(ID, How::Read, "no level is in force"),
            Ok(_) => Finding::new(
                ID,
                Verdict::Pass,
                How::Read,
                "the kernel's own lockdown level cannot be lowered before a reboot",
            )
            .seen(&in_force.seen.0, &in_force.seen.1),
            Err(unread) => Finding::unknown(ID, How::Read, unread),
        };
    };
    let Some(left_open) = &stockade.sealed else {
        let found = "not sealed: root can lift Stockade's policy";
        return Finding::new(ID, Verdict::Warn, How::Read, found).seen("Stockade's BPF maps", "no seal");
    };
    if stockade.silent {
        let found = "the seal does not hold: kernel.ftrace_enabled = 0 (should be 1) keeps its BPF programs from running";
        return Finding::new(ID, Verdict::Fail, How::Read, found)
            .seen("/proc/sys/kernel/ftrace_enabled", "0");
    }
    match in_force.types.as_ref().map(|types| seal::prove(types, &crate::proof::knock)) {
        Some(Ok(proof)) => judge_proof(ID, &proof, left_open),
        Some(Err(error)) => {
            Finding::unknown(ID, How::Tried, format!("sealed, but the seal could not be tested: {error}"))
        }
        None => Finding::unknown(
            ID,
            How::Tried,
            "sealed, but the seal could not be tested without the kernel's BTF",
        ),
    }
}

fn judge_proof(id: &'static str, proof: &Proof, left_open: &[String]) -> Finding {
    let finding = match proof.conclusion() {
        Conclusion::NotVerified => {
            Finding::new(id, Verdict::Fail, How::Tried, "Stockade is sealed, but the seal does not hold")
        }
        Conclusion::Unknown => {
            Finding::unknown(id, How::Tried, "sealed until reboot, but no refused reason could be tested")
        }
        Conclusion::Verified if left_open.is_empty() => {
            Finding::new(id, Verdict::Pass, How::Tried, "sealed until reboot, verified by tests")
        }
        Conclusion::Verified => Finding::new(
            id,
            Verdict::Warn,
            How::Tried,
            "sealed until reboot, verified by tests, but the policy leaves ways open on purpose",
        ),
    };
    let finding =
        if left_open.is_empty() { finding } else { finding.seen("left open by the seal", few(left_open)) };
    let untried: Vec<String> = proof.untried.iter().map(|untried| untried.reason.clone()).collect();
    let finding = finding.seen("reasons tested and refused", few(&proof.refused));
    let finding =
        if untried.is_empty() { finding } else { finding.seen("reasons not tested", few(&untried)) };
    proof.problems.iter().fold(finding, |finding, problem| finding.seen("failed test of the seal", problem))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Unread;

    const CONFIG: &str = "/boot/config-6.12";
    const RELEASE: (&str, &str) = ("/proc/sys/kernel/osrelease", "6.12");

    fn native(level: Level) -> InForce {
        InForce { native: Ok(level), seen: Default::default(), stockade: Ok(None), types: None }
    }

    fn with(stockade: Stockade) -> InForce {
        InForce { stockade: Ok(Some(stockade)), ..native(Level::None) }
    }

    fn integrity() -> Stockade {
        Stockade { level: Level::Integrity, ..Stockade::default() }
    }

    #[test]
    fn the_level_is_that_of_whoever_refuses() {
        let verdict = |in_force: &InForce| level(in_force).verdict;
        assert_eq!(verdict(&native(Level::None)), Verdict::Fail);
        assert_eq!(verdict(&native(Level::Integrity)), Verdict::Pass);
        assert_eq!(verdict(&with(integrity())), Verdict::Pass);
        assert_eq!(verdict(&with(Stockade { audit: true, ..integrity() })), Verdict::Fail);
        assert_eq!(verdict(&with(Stockade { silent: true, ..integrity() })), Verdict::Fail);
        assert_eq!(verdict(&with(Stockade { weaker: true, ..integrity() })), Verdict::Warn);
        assert_eq!(verdict(&with(Stockade { open: vec!["msr".into()], ..integrity() })), Verdict::Warn);
        assert_eq!(verdict(&with(Stockade::default())), Verdict::Warn);
        let single = Stockade { audit: true, refused: vec!["msr".into()], ..integrity() };
        assert_eq!(verdict(&with(single)), Verdict::Warn);
        let both = |stockade| InForce { native: Ok(Level::Integrity), ..with(stockade) };
        assert_eq!(verdict(&both(Stockade { audit: true, ..integrity() })), Verdict::Pass);
        let more = Stockade { level: Level::Confidentiality, ..Stockade::default() };
        assert_eq!(level(&both(more)).found, "level confidentiality, enforced by Stockade");
        // Stockade's policy on top of the kernel's own level does not make the verdict worse.
        let partly =
            Stockade { level: Level::Confidentiality, open: vec!["perf".into()], ..Stockade::default() };
        assert_eq!(verdict(&both(partly)), Verdict::Pass);
    }

    #[test]
    fn a_level_that_nobody_could_read_is_unknown() {
        let hidden = InForce { stockade: Err("run this as root".into()), ..native(Level::None) };
        assert_eq!(level(&hidden).verdict, Verdict::Unknown);
        assert!(level(&hidden).found.contains("run this as root"));
        let native = InForce { native: Ok(Level::Integrity), ..hidden };
        assert_eq!(level(&native).verdict, Verdict::Pass);
        let unread = || Err(Unread::not_understood(in_force::LOCKDOWN, "?"));
        let verdict = |stockade| level(&InForce { native: unread(), ..with(stockade) }).verdict;
        assert_eq!(verdict(Stockade { audit: true, ..integrity() }), Verdict::Unknown);
        assert_eq!(verdict(Stockade::default()), Verdict::Unknown);
        assert_eq!(verdict(integrity()), Verdict::Pass);
    }

    #[test]
    fn the_files_of_a_machine_tell_its_own_level() {
        let of = |files| FEATURE.findings(&System::fake(files));
        let on = of(&[(in_force::LOCKDOWN, "none [integrity] confidentiality\n")]);
        assert_eq!(on["lockdown.level"].verdict, Verdict::Pass);
        for tried in ["lockdown.doors", "lockdown.confidentiality-doors", "lockdown.residual"] {
            assert_eq!(on[tried].verdict, Verdict::Unknown, "{tried}");
        }
        let nothing = of(&[]);
        assert_eq!(nothing["lockdown.level"].verdict, Verdict::Unknown);
        assert!(nothing["lockdown.level"].found.contains("mount -t securityfs"));
        assert_eq!(nothing.len(), 6);
    }

    #[test]
    fn what_was_built_in_decides_what_turns_it_on() {
        let verdict = |options: &str| {
            let system = System::fake(&[RELEASE, (CONFIG, options)]);
            compiled(&system).verdict
        };
        let lsm = "CONFIG_SECURITY_LOCKDOWN_LSM=y\nCONFIG_SECURITY_LOCKDOWN_LSM_EARLY=y\n";
        assert_eq!(verdict("CONFIG_X=y\n"), Verdict::Fail);
        assert_eq!(verdict(lsm), Verdict::Warn);
        assert_eq!(verdict(&format!("{lsm}CONFIG_LOCK_DOWN_IN_EFI_SECURE_BOOT=y\n")), Verdict::Pass);
        assert_eq!(verdict(&format!("{lsm}CONFIG_LOCK_DOWN_KERNEL_FORCE_INTEGRITY=y\n")), Verdict::Pass);
        assert_eq!(compiled(&System::fake(&[])).verdict, Verdict::Unknown);
        let forced = format!("{lsm}CONFIG_LOCK_DOWN_KERNEL_FORCE_INTEGRITY=y\n");
        let told = System::fake(&[RELEASE, (CONFIG, lsm), ("/proc/cmdline", "quiet lockdown=integrity\n")]);
        assert!(compiled(&told).found.contains("only by lockdown=integrity"), "{:?}", compiled(&told));
        let inactive =
            System::fake(&[RELEASE, (CONFIG, &forced), (crate::mandatory::LIST, "capability,yama\n")]);
        assert_eq!(compiled(&inactive).verdict, Verdict::Fail);
    }

    #[test]
    fn a_level_that_root_can_lift_is_told() {
        assert_eq!(sealed(&native(Level::None)).verdict, Verdict::NotApplicable);
        assert_eq!(sealed(&native(Level::Integrity)).verdict, Verdict::Pass);
        let refusing = || Stockade { refused: vec!["msr".into()], ..integrity() };
        assert_eq!(sealed(&with(refusing())).verdict, Verdict::Warn);
        let both = InForce { native: Ok(Level::Integrity), ..with(refusing()) };
        assert_eq!(sealed(&both).verdict, Verdict::Pass);
        let audited = with(Stockade { audit: true, ..integrity() });
        assert_eq!(sealed(&audited).verdict, Verdict::NotApplicable);
        let silent = with(Stockade { sealed: Some(Vec::new()), silent: true, ..integrity() });
        assert_eq!(sealed(&silent).verdict, Verdict::Fail);
        let hidden = InForce { stockade: Err("run this as root".into()), ..native(Level::None) };
        assert_eq!(sealed(&hidden).verdict, Verdict::Unknown);
        let proven = |proof: &Proof, open: &[String]| judge_proof("lockdown.sealed", proof, open).verdict;
        let tried = Proof { refused: vec!["msr".into()], ..Proof::default() };
        assert_eq!(proven(&tried, &[]), Verdict::Pass);
        assert_eq!(proven(&tried, &["new-cgroups".into()]), Verdict::Warn);
        assert_eq!(proven(&Proof::default(), &[]), Verdict::Unknown, "no reason was tried");
        let broken = Proof { problems: vec!["a guard is gone".into()], ..tried };
        assert_eq!(proven(&broken, &[]), Verdict::Fail);
    }
}
