/*!
Memory for data is not run as code: what the processor and the kernel promise, and children that try to break it.

A child runs one instruction, a return, in memory of its own where that should not work. What defends kills it: SIGSEGV is the answer that is
hoped for.
*/
use crate::{
    Feature, Finding, How, Report, System, Verdict,
    child::End,
    few,
    instructions::{CPUINFO, Instructions},
    processes,
    system::{SIZE, boolean},
};

mod trial;

use trial::{Answer, Place};

pub(super) const FEATURE: Feature =
    Feature { id: "nx", title: "Executable-space protection", ..Feature::new(check) };

fn check(system: &System, report: &mut Report) {
    report.add(cpu(system));
    report.add(supervisor(system));
    report.add(kernel(system));
    report.add(tried(system, "nx.stack", Place::Stack));
    report.add(tried(system, "nx.heap", Place::Heap));
    report.add(remap(system));
    report.add(binaries(system));
}

/// On x86 NX stands among the flags; arm64 cannot be without it.
fn is_x86(flags: &Instructions) -> bool {
    flags.have("fpu") && flags.have("msr")
}

fn cpu(system: &System) -> Finding {
    const ID: &str = "nx.cpu";
    let flags = match Instructions::of(system) {
        Ok(flags) => flags,
        Err(unread) => return Finding::unknown(ID, How::Read, unread),
    };
    if !is_x86(&flags) {
        // The flag is part of every page table entry there (UXN, PXN since ARMv8.0).
        return if flags.have("asimd") {
            Finding::new(ID, Verdict::Pass, How::Derived, "every processor of this architecture has NX")
                .seen(CPUINFO, "asimd: arm64")
        } else {
            Finding::unknown(ID, How::Read, "it is not known how this architecture tells")
        };
    }
    // Gone since 5.19; before, the flag stays and the kernel does not use it.
    if !system.is_at_least(5, 19)
        && let Ok(Some(value)) = system.parameter("noexec")
        && value == "off"
    {
        return Finding::new(
            ID,
            Verdict::Fail,
            How::Read,
            "NX is off: noexec=off on the kernel command line",
        )
        .seen("the kernel's command line", "noexec=off");
    }
    if flags.have("nx") {
        Finding::new(ID, Verdict::Pass, How::Read, "the processor has NX, and the kernel uses it")
            .seen(format!("flags in {CPUINFO}"), "nx")
    } else {
        Finding::new(
            ID,
            Verdict::Fail,
            How::Read,
            "no NX: the processor lacks it, or the firmware has it off",
        )
        .seen(format!("flags in {CPUINFO}"), "no nx")
    }
}

fn supervisor(system: &System) -> Finding {
    const ID: &str = "nx.supervisor";
    let flags = match Instructions::of(system) {
        Ok(flags) => flags,
        Err(unread) => return Finding::unknown(ID, How::Read, unread),
    };
    if !is_x86(&flags) {
        return Finding::unknown(ID, How::Read, "only looked for on x86");
    }
    let found = match (flags.have("smep"), flags.have("smap")) {
        (true, true) => (Verdict::Pass, "SMEP and SMAP are on"),
        (true, false) => {
            (Verdict::Warn, "SMEP is on, SMAP is not: the kernel can be made to read user memory")
        }
        (false, true) => (Verdict::Fail, "no SMEP: the kernel can be made to execute user memory"),
        (false, false) => {
            (Verdict::Fail, "no SMEP and no SMAP: the kernel can be made to execute and to read user memory")
        }
    };
    let shown =
        ["smep", "smap"].map(|name| if flags.have(name) { name.to_owned() } else { format!("no {name}") });
    Finding::new(ID, found.0, How::Read, found.1).seen(format!("flags in {CPUINFO}"), shown.join(", "))
}

fn kernel(system: &System) -> Finding {
    const ID: &str = "nx.kernel";
    const SEPARATE: [&str; 2] = ["CONFIG_STRICT_KERNEL_RWX", "CONFIG_STRICT_MODULE_RWX"];
    let cpu = cpu(system);
    if cpu.verdict == Verdict::Fail {
        let found = "without NX (nx.cpu) all of the kernel's memory can be run";
        return Finding { evidence: cpu.evidence, ..Finding::new(ID, Verdict::Fail, How::Derived, found) };
    }
    // Since 6.0 it is off by this word alone.
    let is_off = |value: &str| value == "off" || boolean(value) == Some(false) && !system.is_at_least(6, 0);
    match system.parameter("rodata") {
        Ok(Some(value)) if is_off(&value) => {
            return Finding::new(
                ID,
                Verdict::Fail,
                How::Read,
                "the kernel's code and constants can be written to",
            )
            .seen("the kernel's command line", format!("rodata={value}"));
        }
        Ok(_) => {}
        Err(unread) => return Finding::unknown(ID, How::Read, unread),
    }
    let config = match system.config() {
        Ok(config) => config,
        Err(unread) => return Finding::unknown(ID, How::Read, unread),
    };
    let missing: Vec<&str> = SEPARATE
        .into_iter()
        .filter(|option| !config.has(option))
        // Without modules there is no memory of theirs.
        .filter(|option| *option == SEPARATE[0] || config.has("CONFIG_MODULES"))
        .collect();
    if !missing.is_empty() {
        let found = "memory of the kernel's is writable and executable at once";
        return Finding::new(ID, Verdict::Fail, How::Read, found)
            .seen(&config.path, format!("not set: {}", missing.join(", ")));
    }
    let proof =
        if config.has("CONFIG_DEBUG_WX") { "CONFIG_DEBUG_WX looks at boot" } else { "nothing looks at boot" };
    Finding::new(ID, Verdict::Pass, How::Read, "no memory of the kernel's is writable and executable at once")
        .seen(&config.path, format!("{}=y; {proof}", SEPARATE[0]))
}

fn tried(system: &System, id: &'static str, place: Place) -> Finding {
    let what = place.what();
    if !system.is_live() {
        return Finding::unknown(id, How::Tried, "not tried: this is not the running machine");
    }
    match trial::run(place) {
        Answer::Ended(End::Signal(libc::SIGSEGV)) => {
            Finding::new(id, Verdict::Pass, How::Tried, format!("code in {} is not run", place.name()))
                .seen(what, "killed by SIGSEGV")
        }
        Answer::Ran => {
            Finding::new(id, Verdict::Fail, How::Tried, format!("code in {} is run", place.name()))
                .seen(what, "it ran")
        }
        other => Finding::unknown(id, How::Tried, other.what()).seen(what, other.what()),
    }
}

/// Every process may make memory executable after writing it, unless something forbids it. SELinux may; a process can for itself.
fn remap(system: &System) -> Finding {
    const ID: &str = "nx.remap";
    if !system.is_live() {
        return Finding::unknown(ID, How::Tried, "not tried: this is not the running machine");
    }
    let written = trial::run(Place::Remapped);
    let sealed = trial::run(Place::RemappedWithMdwe);
    let seen = |finding: Finding| {
        finding
            .seen(Place::Remapped.what(), written.what())
            .seen(Place::RemappedWithMdwe.what(), sealed.what())
    };
    let refused = written == Answer::Refused;
    seen(match (&written, &sealed) {
        _ if refused => {
            Finding::new(ID, Verdict::Pass, How::Tried, "what was written cannot be made executable")
        }
        (_, Answer::Ran) => {
            let found = "a process that gave up executable memory (PR_SET_MDWE) still gets it";
            Finding::new(ID, Verdict::Fail, How::Tried, found)
        }
        (Answer::Ran, Answer::Refused) => {
            let found = "programs may make executable what they wrote, and can give that up for themselves (PR_SET_MDWE)";
            Finding::new(ID, Verdict::Pass, How::Tried, found)
        }
        (Answer::Ran, Answer::Missing) => {
            let found = "programs may make executable what they wrote, and this kernel has no PR_SET_MDWE (6.3) to give it up";
            Finding::new(ID, Verdict::Warn, How::Tried, found)
        }
        (Answer::Ran, other) | (other, _) => Finding::unknown(ID, How::Tried, other.what()),
    })
}

/// Finds processes with an executable stack, and counts those with memory that is writable and executable, which JIT compilers need.
fn binaries(system: &System) -> Finding {
    const ID: &str = "nx.binaries";
    let pids = match system.processes() {
        Ok(pids) if pids.is_empty() => return Finding::unknown(ID, How::Read, "/proc has no processes"),
        Ok(pids) => pids,
        Err(unread) => return Finding::unknown(ID, How::Read, unread),
    };
    let (mut stacks, mut both, mut looked, mut hidden, mut cut) =
        (Vec::new(), Vec::new(), 0_usize, 0_usize, 0);
    for pid in pids {
        let maps = match system.bytes(&format!("/proc/{pid}/maps")) {
            // The kernel's own threads have none.
            Ok(maps) if maps.trim_ascii().is_empty() => continue,
            Ok(maps) => maps,
            Err(unread) if unread.is_missing() => continue,
            Err(_) => {
                hidden += 1;
                continue;
            }
        };
        looked += 1;
        // The stack is among the last.
        cut += usize::from(maps.len() as u64 >= SIZE);
        let maps = String::from_utf8_lossy(&maps);
        if mappings(&maps).any(|(rights, name)| name == "[stack]" && rights.contains('x')) {
            stacks.push(processes::name(system, pid));
        } else if mappings(&maps).any(|(rights, _)| rights.starts_with("rwx")) {
            both.push(processes::name(system, pid));
        }
    }
    let seen = |finding: Finding| {
        let finding =
            finding.seen("/proc/PID/maps", format!("{looked} processes looked at, {hidden} hidden"));
        if both.is_empty() {
            finding
        } else {
            finding.seen("memory that is writable and executable", few(&both))
        }
    };
    if !stacks.is_empty() {
        let found = format!("with an executable stack run {}", few(&stacks));
        return seen(Finding::new(ID, Verdict::Fail, How::Read, found));
    }
    if hidden > 0 || looked == 0 {
        let all = looked + hidden;
        let missing = match system.lacks_root() {
            Some(lacks) => format!("{hidden} of {all} processes are hidden; {lacks}"),
            None => format!(
                "{hidden} of {all} processes do not let this one see their memory, though it is root's"
            ),
        };
        return seen(Finding::unknown(ID, How::Read, missing));
    }
    if let Some(why) = processes::unseen(system) {
        return seen(Finding::unknown(ID, How::Read, why));
    }
    if cut > 0 {
        let missing = format!("{cut} of {looked} processes have more mappings than are read");
        return seen(Finding::unknown(ID, How::Read, missing));
    }
    seen(Finding::new(
        ID,
        Verdict::Pass,
        How::Read,
        format!("none of {looked} processes has an executable stack"),
    ))
}

/// Rights and name of each mapping in /proc/PID/maps: lines `addresses rights offset device inode name`. Names of files begin with a slash,
/// whatever follows.
fn mappings(maps: &str) -> impl Iterator<Item = (&str, &str)> {
    maps.lines().map(|line| {
        let mut words = line.split_whitespace().skip(1);
        (words.next().unwrap_or_default(), words.nth(3).unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(id: &str, files: &[(&str, &str)]) -> Verdict {
        FEATURE.findings(&System::fake(files))[id].verdict
    }

    #[test]
    fn the_processors_flags_are_read() {
        let cpu = |text| [of("nx.cpu", &[(CPUINFO, text)]), of("nx.supervisor", &[(CPUINFO, text)])];
        assert_eq!(cpu("flags\t\t: fpu msr nx smep smap\n"), [Verdict::Pass; 2]);
        assert_eq!(cpu("flags\t\t: fpu msr smep\n"), [Verdict::Fail, Verdict::Warn]);
        assert_eq!(cpu("flags\t\t: fpu msr nx\n"), [Verdict::Pass, Verdict::Fail]);
        assert_eq!(cpu("Features\t: fp asimd\n"), [Verdict::Pass, Verdict::Unknown]);
        assert_eq!(cpu(""), [Verdict::Unknown; 2]);
        let off = [(CPUINFO, "flags : fpu msr nx\n"), ("/proc/cmdline", "noexec=off")];
        assert_eq!(of("nx.cpu", &off), Verdict::Fail);
    }

    #[test]
    fn the_kernels_own_memory() {
        let built = |line, config: &str| {
            let files = [
                ("/proc/cmdline", line),
                ("/proc/sys/kernel/osrelease", "6.1.0"),
                ("/boot/config-6.1.0", config),
            ];
            of("nx.kernel", &files)
        };
        let good = "CONFIG_MODULES=y\nCONFIG_STRICT_KERNEL_RWX=y\nCONFIG_STRICT_MODULE_RWX=y\n";
        assert_eq!(built("quiet", good), Verdict::Pass);
        assert_eq!(built("rodata=off", good), Verdict::Fail);
        assert_eq!(built("rodata=0", good), Verdict::Pass);
        assert_eq!(built("quiet", "CONFIG_MODULES=y\nCONFIG_STRICT_KERNEL_RWX=y\n"), Verdict::Fail);
        assert_eq!(built("quiet", "CONFIG_STRICT_KERNEL_RWX=y\n"), Verdict::Pass);
        assert_eq!(of("nx.kernel", &[("/proc/cmdline", "")]), Verdict::Unknown);
        let all = |flags| {
            let files = [
                (CPUINFO, flags),
                ("/proc/cmdline", "quiet"),
                ("/proc/sys/kernel/osrelease", "6.1.0"),
                ("/boot/config-6.1.0", good),
            ];
            of("nx.kernel", &files)
        };
        assert_eq!([all("flags : fpu msr nx\n"), all("flags : fpu msr\n")], [Verdict::Pass, Verdict::Fail]);
    }

    #[test]
    fn executable_stacks_are_found_and_other_memory_is_told() {
        const STACK: &str = "7ffc-7ffd rw-p 00000000 00:00 0 [stack]\n";
        const BAD: &str = "7ffc-7ffd rwxp 00000000 00:00 0 [stack]\n";
        const JIT: &str = "1000-2000 rwxp 00000000 00:00 0\n";
        assert_eq!(of("nx.binaries", &[("/proc/7/maps", STACK)]), Verdict::Pass);
        assert_eq!(of("nx.binaries", &[("/proc/7/maps", STACK), ("/proc/8/maps", BAD)]), Verdict::Fail);
        assert_eq!(of("nx.binaries", &[("/proc/2/maps", "")]), Verdict::Unknown);
        assert_eq!(of("nx.binaries", &[]), Verdict::Unknown);
        let system = System::fake(&[("/proc/7/maps", &format!("{JIT}{STACK}")), ("/proc/7/comm", "jit\n")]);
        let finding = &FEATURE.findings(&system)["nx.binaries"];
        assert_eq!((finding.verdict, finding.evidence[1].observed.as_str()), (Verdict::Pass, "jit (7)"));
    }

    #[test]
    fn a_file_named_like_the_stack_is_none() {
        const FILE: &str = "1000-2000 rwxp 00000000 fe:00 7 /tmp/a [stack]\n";
        assert_eq!(of("nx.binaries", &[("/proc/7/maps", FILE)]), Verdict::Pass);
    }

    #[test]
    fn what_is_not_seen_is_not_said_to_be_good() {
        const STACK: &str = "7ffc-7ffd rw-p 00000000 00:00 0 [stack]\n";
        let line = "1000-2000 rw-p 00000000 00:00 0\n";
        let many = line.repeat(usize::try_from(SIZE).unwrap() / line.len() + 1);
        assert_eq!(of("nx.binaries", &[("/proc/7/maps", &many)]), Verdict::Unknown);
        let user = System::fake(&[("/proc/7/maps", STACK)]).not_root();
        let finding = &FEATURE.findings(&user)["nx.binaries"];
        assert_eq!(finding.verdict, Verdict::Unknown);
        assert!(finding.found.contains("hidepid"), "{}", finding.found);
    }

    #[test]
    fn nothing_is_tried_on_files() {
        for id in ["nx.stack", "nx.heap", "nx.remap"] {
            assert_eq!(of(id, &[]), Verdict::Unknown);
        }
    }
}
