/*!
CPU vulnerabilities: the state that the kernel reports for each, and mitigations that the command line turns off.
*/
use crate::{
    Feature, Finding, How, Report, System, Verdict, few,
    instructions::{CPUINFO, Instructions},
};

pub(super) const FEATURE: Feature =
    Feature { id: "cpu", title: "Vulnerabilities of the CPU", ..Feature::new(check) };

const VULNERABILITIES: &str = "/sys/devices/system/cpu/vulnerabilities";
const CPUS: &str = "/sys/devices/system/cpu";

/// The kernel's note in a guest on a mitigation that is complete only without SMT on the host.
const HOST_UNKNOWN: &str = "SMT Host state unknown";

/// Parameters and their values that turn one mitigation off (Documentation/admin-guide/kernel-parameters.txt, `mitigations=`).
const OFF: &[(&str, &[&str])] = &[
    ("nopti", &[""]),
    ("pti", &["off"]),
    ("kpti", &["0", "off", "n"]),
    ("nospectre_v1", &[""]),
    ("nospectre_v2", &[""]),
    ("nospectre_bhb", &[""]),
    ("spectre_v2", &["off"]),
    ("spectre_v2_user", &["off"]),
    ("spectre_bhi", &["off"]),
    ("nospec_store_bypass_disable", &[""]),
    ("spec_store_bypass_disable", &["off"]),
    ("ssbd", &["force-off"]),
    ("l1tf", &["off"]),
    ("mds", &["off"]),
    ("tsx_async_abort", &["off"]),
    ("mmio_stale_data", &["off"]),
    ("reg_file_data_sampling", &["off"]),
    ("gather_data_sampling", &["off"]),
    ("srbds", &["off"]),
    ("retbleed", &["off"]),
    ("spec_rstack_overflow", &["off"]),
    ("indirect_target_selection", &["off"]),
    ("tsa", &["off"]),
    ("vmscape", &["off"]),
    ("kvm.nx_huge_pages", &["off"]),
    ("no_entry_flush", &[""]),
    ("no_uaccess_flush", &[""]),
    ("no_stf_barrier", &[""]),
];

fn check(system: &System, report: &mut Report) {
    let known = known(system);
    report.add(vulnerabilities(known.as_ref()));
    report.add(mitigations(system));
    report.add(smt(system, known.as_deref().unwrap_or_default()));
    report.add(microcode(system, known.as_deref().unwrap_or_default()));
}

/// Returns the name of each vulnerability that the kernel knows of, and its state as text.
fn known(system: &System) -> Result<Vec<(String, String)>, crate::Unread> {
    let names = system.names(VULNERABILITIES)?;
    let state_of = |name: String| Some((system.text(&format!("{VULNERABILITIES}/{name}")).ok()?, name));
    Ok(names.into_iter().filter_map(state_of).map(|(text, name)| (name, text)).collect())
}

/// The state of a vulnerability.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Partly,
    NotKnown,
    Closed,
}

fn state(text: &str) -> State {
    let text = text.strip_prefix("KVM: ").unwrap_or(text);
    if text.starts_with("Vulnerable") {
        State::Open
    } else if text.to_ascii_lowercase().contains("vulnerable") {
        // Such as `Mitigation: Clear CPU buffers; SMT vulnerable`.
        State::Partly
    } else if text.contains(HOST_UNKNOWN) {
        State::NotKnown
    } else if text.starts_with("Mitigation")
        || text.starts_with("Not affected")
        || text == "Processor not affected"
    {
        State::Closed
    } else {
        State::NotKnown
    }
}

fn vulnerabilities(known: Result<&Vec<(String, String)>, &crate::Unread>) -> Finding {
    const ID: &str = "cpu.vulnerabilities";
    let known = match known {
        Ok(known) if !known.is_empty() => known,
        Ok(_) => {
            return Finding::unknown(ID, How::Read, format!("{VULNERABILITIES} is empty"));
        }
        Err(unread) => return Finding::unknown(ID, How::Read, unread),
    };
    let of = |wanted| known.iter().filter(move |(_, text)| state(text) == wanted);
    let names = |wanted| few(&of(wanted).map(|(name, _)| name.as_str()).collect::<Vec<_>>());
    let count = |wanted| of(wanted).count();
    let (verdict, found, shown) = if count(State::Open) > 0 {
        (Verdict::Fail, format!("the CPU is vulnerable, not mitigated: {}", names(State::Open)), State::Open)
    } else if count(State::Partly) > 0 {
        (
            Verdict::Warn,
            format!("the CPU is vulnerable, mitigated only in part: {}", names(State::Partly)),
            State::Partly,
        )
    } else if count(State::NotKnown) > 0 {
        let found =
            format!("the kernel does not know whether this CPU is vulnerable: {}", names(State::NotKnown));
        (Verdict::Unknown, found, State::NotKnown)
    } else {
        let affected = known.iter().filter(|(_, text)| text.contains("Mitigation")).count();
        let found = format!(
            "{affected} of {} known vulnerabilities affect this CPU, and all are mitigated",
            known.len()
        );
        (Verdict::Pass, found, State::Closed)
    };
    of(shown)
        .filter(|(_, text)| shown != State::Closed || text.contains("Mitigation"))
        .fold(Finding::new(ID, verdict, How::Read, found), |finding, (name, text)| {
            finding.seen(format!("{VULNERABILITIES}/{name}"), text)
        })
}

fn mitigations(system: &System) -> Finding {
    const ID: &str = "cpu.mitigations";
    const SOURCE: &str = "/proc/cmdline";
    let general = match system.parameter("mitigations") {
        Ok(general) => general,
        Err(unread) => return Finding::unknown(ID, How::Read, unread),
    };
    let said = general.as_deref().unwrap_or_default();
    let words: Vec<&str> = said.split([',', ';']).collect();
    if words.contains(&"off") {
        return Finding::new(
            ID,
            Verdict::Fail,
            How::Read,
            "all CPU mitigations are off: mitigations=off on the kernel command line",
        )
        .seen(SOURCE, format!("mitigations={said}"));
    }
    let mut off: Vec<String> = OFF
        .iter()
        .filter_map(|(name, values)| {
            let value = system.parameter(name).ok()??;
            let word = if value.is_empty() { (*name).to_owned() } else { format!("{name}={value}") };
            values.contains(&value.as_str()).then_some(word)
        })
        .collect();
    // Since Linux 6.17 whole attack vectors can be left unmitigated: mitigations=auto,no_user_kernel.
    off.extend(words.iter().filter(|word| word.starts_with("no_")).map(|word| format!("mitigations={word}")));
    if !off.is_empty() {
        let found = format!("CPU mitigations turned off on the kernel command line: {}", few(&off));
        return Finding::new(ID, Verdict::Warn, How::Read, found).seen(SOURCE, few(&off));
    }
    // Since Linux 6.9 the option has this name on every architecture; before, most had no option.
    if general.is_none()
        && system.is_at_least(6, 12)
        && let Ok(config) = system.config()
        && !config.has("CONFIG_CPU_MITIGATIONS")
    {
        return Finding::new(
            ID,
            Verdict::Fail,
            How::Read,
            "CPU mitigations are off: the kernel was built without CONFIG_CPU_MITIGATIONS",
        )
        .seen(&config.path, "CONFIG_CPU_MITIGATIONS is not set");
    }
    let seen = general.map_or("no mitigations=".to_owned(), |said| format!("mitigations={said}"));
    Finding::new(ID, Verdict::Pass, How::Read, "CPU mitigations are on: the kernel chooses them for this CPU")
        .seen(SOURCE, seen)
}

fn smt(system: &System, known: &[(String, String)]) -> Finding {
    const ID: &str = "cpu.smt";
    const ACTIVE: &str = "/sys/devices/system/cpu/smt/active";
    let with = |words: &[&str]| -> Vec<&str> {
        let said = known.iter().filter(|(_, text)| words.iter().any(|words| text.contains(words)));
        said.map(|(name, _)| name.as_str()).collect()
    };
    let (exposed, hidden) = (with(&["SMT vulnerable", HOST_UNKNOWN]), with(&[HOST_UNKNOWN]));
    let active = system.number(ACTIVE);
    if !hidden.is_empty() && !matches!(active, Ok(1..)) {
        let missing = format!(
            "a guest cannot see whether SMT is on in its host; with SMT these are not fully mitigated: {}",
            few(&hidden)
        );
        return Finding::unknown(ID, How::Read, missing)
            .seen(VULNERABILITIES, format!("{}: {HOST_UNKNOWN}", few(&hidden)));
    }
    match active {
        Ok(0) => {
            let found = "SMT off: the kernel sees no core with two active hardware threads";
            Finding::new(ID, Verdict::Pass, How::Read, found).seen(ACTIVE, "0")
        }
        Ok(_) if exposed.is_empty() => {
            let found = "SMT on: no known vulnerability of this CPU depends on it";
            Finding::new(ID, Verdict::Pass, How::Read, found).seen(ACTIVE, "1")
        }
        Ok(_) => {
            let found = format!(
                "SMT on (should be off, or used with core scheduling): not fully mitigated: {}",
                few(&exposed)
            );
            let finding = Finding::new(ID, Verdict::Warn, How::Read, found).seen(ACTIVE, "1");
            let said = known.iter().filter(|(name, _)| exposed.contains(&name.as_str()));
            said.fold(finding, |finding, (name, text)| {
                finding.seen(format!("{VULNERABILITIES}/{name}"), text)
            })
        }
        Err(unread) if unread.is_missing() && system.exists(CPUS) => {
            Finding::not_applicable(ID, How::Read, "the kernel has no SMT control on this machine")
                .seen(ACTIVE, "not there")
        }
        Err(unread) => Finding::unknown(ID, How::Read, unread),
    }
}

fn microcode(system: &System, known: &[(String, String)]) -> Finding {
    const ID: &str = "cpu.microcode";
    const OLD: &str = "old_microcode";
    let info = match system.text(CPUINFO) {
        Ok(info) => info,
        Err(unread) => return Finding::unknown(ID, How::Read, unread),
    };
    let values = |key: &str| -> Vec<&str> {
        let fields = info.lines().filter_map(|line| line.split_once(':'));
        let mut values: Vec<&str> =
            fields.filter(|(name, _)| name.trim() == key).map(|(_, value)| value.trim()).collect();
        values.sort_unstable();
        values.dedup();
        values
    };
    let revisions = values("microcode");
    if revisions.is_empty() {
        return if info.contains("processor") {
            Finding::not_applicable(ID, How::Read, "the kernel shows no microcode revision for this CPU")
                .seen(CPUINFO, "no line microcode")
        } else {
            Finding::unknown(ID, How::Read, format!("{CPUINFO} lists no processor"))
        };
    }
    let seen = |finding: Finding| finding.seen(format!("microcode in {CPUINFO}"), few(&revisions));
    let is_guest = Instructions::of(system).ok().and_then(|processor| processor.of_a_guest()) == Some(true);
    let text = |name: &str| known.iter().find(|(other, _)| other == name).map(|(_, text)| text.as_str());
    let missing: Vec<&str> = known
        .iter()
        .filter(|(_, text)| text.to_ascii_lowercase().contains("no microcode"))
        .map(|(name, _)| name.as_str())
        .collect();
    let old = format!("{VULNERABILITIES}/{OLD}");
    if revisions.len() > 1 {
        let found = "cores run different microcode revisions, so a mitigation may be missing on some of them";
        return seen(Finding::new(ID, Verdict::Warn, How::Read, found));
    }
    match text(OLD) {
        Some(text) if state(text) == State::Open => {
            let found = "microcode outdated: the kernel knows a newer revision for this CPU";
            seen(Finding::new(ID, Verdict::Fail, How::Read, found)).seen(old, text)
        }
        _ if !missing.is_empty() => {
            let guest = if is_guest { "; in a guest, update the host" } else { "" };
            let found = format!("microcode too old for the mitigation of {}{guest}", few(&missing));
            seen(Finding::new(ID, Verdict::Fail, How::Read, found))
        }
        // A hypervisor may show any revision, so the kernel judges none in a guest and says "Not affected".
        _ if is_guest => {
            let missing = "a guest cannot see the microcode revision of the CPU; check the host";
            seen(Finding::unknown(ID, How::Read, missing))
        }
        // The kernel lists only revisions of Intel CPUs; for a model that is not in the list it also says "Not affected".
        Some(text) if state(text) == State::Closed && values("vendor_id") == ["GenuineIntel"] => {
            seen(Finding::new(
                ID,
                Verdict::Pass,
                How::Read,
                "microcode up to date: the kernel knows no newer revision for this CPU",
            ))
            .seen(old, text)
        }
        _ => {
            let missing = "the kernel does not know the newest microcode revision for this CPU (it does for Intel CPUs since Linux 6.16)";
            seen(Finding::unknown(ID, How::Read, missing))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(id: &str, files: &[(&str, &str)]) -> Finding {
        FEATURE.findings(&System::fake(files))[id].clone()
    }

    const A: &str = "/sys/devices/system/cpu/vulnerabilities/a";
    const B: &str = "/sys/devices/system/cpu/vulnerabilities/b";
    const SMT: &str = "/sys/devices/system/cpu/smt/active";
    const LINE: &str = "/proc/cmdline";

    #[test]
    fn the_worst_vulnerability_counts() {
        let verdict = |a, b| finding("cpu.vulnerabilities", &[(A, a), (B, b)]).verdict;
        assert_eq!(verdict("Not affected\n", "Mitigation: Retpolines\n"), Verdict::Pass);
        assert_eq!(verdict("Not affected\n", "Vulnerable: no microcode\n"), Verdict::Fail);
        assert_eq!(verdict("Not affected\n", "KVM: Vulnerable\n"), Verdict::Fail);
        assert_eq!(verdict("Mitigation: PTI\n", "KVM: Mitigation: VMX disabled\n"), Verdict::Pass);
        assert_eq!(verdict("Mitigation: IBRS; BHI: Vulnerable\n", "Not affected"), Verdict::Warn);
        let guest = "Mitigation: Clear CPU buffers; SMT Host state unknown\n";
        assert_eq!(verdict(guest, "Not affected"), Verdict::Unknown);
        assert_eq!(verdict("Unknown: Dependent on hypervisor status\n", "Not affected"), Verdict::Unknown);
        assert_eq!(finding("cpu.vulnerabilities", &[]).verdict, Verdict::Unknown);
        assert_eq!(finding("cpu.vulnerabilities", &[(LINE, "")]).verdict, Verdict::Unknown);
    }

    #[test]
    fn what_was_switched_off_is_told() {
        let told = |line| finding("cpu.mitigations", &[(LINE, line)]);
        assert_eq!(told("quiet").verdict, Verdict::Pass);
        assert_eq!(told("mitigations=auto,nosmt").verdict, Verdict::Pass);
        assert_eq!(told("mitigations=off").verdict, Verdict::Fail);
        assert_eq!(told("mitigations=off mitigations=auto").verdict, Verdict::Pass);
        assert_eq!(told("nopti mds=off").evidence[0].observed, "nopti, mds=off");
        assert_eq!(told("mds=full").verdict, Verdict::Pass);
        assert_eq!(told("mitigations=auto,no_guest_host").verdict, Verdict::Warn);
        assert_eq!(finding("cpu.mitigations", &[]).verdict, Verdict::Unknown);
        let built = |option| {
            let files =
                [(LINE, "quiet"), ("/proc/sys/kernel/osrelease", "6.12.1"), ("/boot/config-6.12.1", option)];
            finding("cpu.mitigations", &files).verdict
        };
        assert_eq!(built("CONFIG_CPU_MITIGATIONS=y"), Verdict::Pass);
        assert_eq!(built("# CONFIG_CPU_MITIGATIONS is not set"), Verdict::Fail);
    }

    #[test]
    fn hardware_threads_matter_where_something_is_open_by_them() {
        let verdict = |active, a| finding("cpu.smt", &[(SMT, active), (A, a)]).verdict;
        assert_eq!(verdict("1", "Mitigation: Clear CPU buffers; SMT vulnerable"), Verdict::Warn);
        assert_eq!(verdict("0", "Mitigation: Clear CPU buffers; SMT disabled"), Verdict::Pass);
        assert_eq!(verdict("1", "Not affected"), Verdict::Pass);
        let guest = "Mitigation: Clear CPU buffers; SMT Host state unknown";
        assert_eq!((verdict("0", guest), verdict("1", guest)), (Verdict::Unknown, Verdict::Warn));
        assert_eq!(finding("cpu.smt", &[(A, "Not affected")]).verdict, Verdict::NotApplicable);
        assert_eq!(finding("cpu.smt", &[]).verdict, Verdict::Unknown);
    }

    #[test]
    fn microcode_is_old_missing_or_not_known() {
        const OLD: &str = "/sys/devices/system/cpu/vulnerabilities/old_microcode";
        const INTEL: &str = "processor\t: 0\nvendor_id\t: GenuineIntel\nmicrocode\t: 0x10\n";
        const AMD: &str = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmicrocode\t: 0x10\n";
        let verdict = |info, old, a| finding("cpu.microcode", &[(CPUINFO, info), (OLD, old), (A, a)]).verdict;
        assert_eq!(verdict(INTEL, "Not affected", ""), Verdict::Pass);
        assert_eq!(verdict(INTEL, "Vulnerable", ""), Verdict::Fail);
        assert_eq!(verdict(INTEL, "Unknown: running under hypervisor", ""), Verdict::Unknown);
        assert_eq!(verdict(AMD, "Not affected", ""), Verdict::Unknown);
        let guest = format!("{INTEL}flags\t: fpu hypervisor\n");
        assert_eq!(verdict(&guest, "Not affected", ""), Verdict::Unknown);
        assert_eq!(verdict(AMD, "Not affected", "Vulnerable: Safe RET, no microcode"), Verdict::Fail);
        let two = format!("{INTEL}\nprocessor: 1\nmicrocode\t: 0x11\n");
        assert_eq!(verdict(&two, "Not affected", ""), Verdict::Warn);
        assert_eq!(verdict("processor : 0\n", "", ""), Verdict::NotApplicable);
        assert_eq!(verdict("", "", ""), Verdict::Unknown);
    }
}
