/*!
Probes that were set on the kernel or through its trace file system.

`kprobes/list` in debugfs has every kprobe, whoever set it, and lockdown lets it be read at every level, since nobody
may write it. It does not say who. `dynamic_events` in tracefs has what was set through tracefs, uprobes and
probes on functions' entry (fprobes) too, and is shut where the reason tracefs is.
*/
use std::{collections::BTreeSet, io::Read, path::Path};

use crate::{
    Kind, Leftover, Process, Residue, Unseen,
    filesystems::{Tree, Trees},
};

const KPROBES: &str = "kprobes/list";
const EVENTS: &str = "dynamic_events";

/// Looks for probes. `perf_events` are the perf events open anywhere: a kprobe may be one's.
pub fn look(
    trees: &Trees,
    perf_events: &[(u32, u32)],
    refused: &dyn Fn(&str) -> bool,
    residue: &mut Residue,
) {
    let events = events(trees.tracefs.as_ref(), refused, &mut residue.unseen);
    let mut told = BTreeSet::new();
    for kprobe in kprobes(trees.debugfs.as_ref(), &mut residue.unseen) {
        let names: Vec<&Event> = events.iter().filter(|e| kprobe.is_at(&e.target)).collect();
        told.extend(names.iter().map(|e| e.name.clone()));
        residue.leftovers.push(kprobe_leftover(&kprobe, &names, perf_events));
    }
    // A probe on a function's entry is no kprobe; and where debugfs cannot be read, all are here.
    let others = events.iter().filter(|e| !told.contains(&e.name));
    residue.leftovers.extend(others.map(event_leftover));
}

fn kprobe_leftover(kprobe: &Kprobe, names: &[&Event], perf_events: &[(u32, u32)]) -> Leftover {
    let mut details = vec![kprobe.state.clone()];
    details.retain(|state| !state.is_empty());
    details.extend(names.iter().map(|event| format!("trace event {}", event.name)));
    let advice = if let Some(event) = names.first() {
        remove(&event.name)
    } else {
        let holders: BTreeSet<u32> = perf_events.iter().map(|(pid, _)| *pid).collect();
        if holders.is_empty() {
            "no trace event of tracefs and no open perf event is behind it: a BPF link or a module holds it; reboot if it cannot be found".into()
        } else {
            let comm = |pid| Process::read(Path::new("/proc"), pid, None).comm;
            details
                .extend(holders.iter().map(|&pid| format!("perf events are open in {} ({pid})", comm(pid))));
            "end the process whose perf event it is: one of those named".into()
        }
    };
    let what = format!("{} on {}", kprobe.kind, kprobe.target);
    Leftover { details, ..Leftover::new("kprobes", Kind::Kprobe, what, advice) }
}

fn event_leftover(event: &Event) -> Leftover {
    let (reason, kind, what) = match event.sort {
        Sort::Kernel => ("kprobes", Kind::Kprobe, "probe"),
        Sort::User => ("tracefs", Kind::Uprobe, "uprobe"),
        Sort::Event => ("tracefs", Kind::Uprobe, "event probe"),
    };
    let details = vec![format!("trace event {}", event.name)];
    let what = format!("{what} on {}", event.target);
    Leftover { details, ..Leftover::new(reason, kind, what, remove(&event.name)) }
}

fn remove(event: &str) -> String {
    format!(
        "remove it, while tracefs is not refused (stockade lift): echo 0 > /sys/kernel/tracing/events/{event}/enable; echo '-:{event}' >> /sys/kernel/tracing/{EVENTS}"
    )
}

/// A line of `kprobes/list`.
#[derive(Debug, PartialEq, Eq)]
struct Kprobe {
    kind: &'static str,
    /// Function and offset, `vfs_fsync` or `vfs_fsync+4`.
    target: String,
    /// The suffix of the kernel, such as `[DISABLED]`.
    state: String,
}

impl Kprobe {
    /// Whether an event with this target is set here. Where functions begin with a landing mark (ENDBR, BTI) of
    /// four bytes, a probe on the entry is listed behind it.
    fn is_at(&self, target: &str) -> bool {
        // An event on a module's function names the module first.
        let target = target.split_once(':').map_or(target, |(_, function)| function);
        self.target == target || self.target.strip_suffix("+4").is_some_and(|function| function == target)
    }
}

fn kprobes(debugfs: Option<&Tree>, unseen: &mut Vec<Unseen>) -> Vec<Kprobe> {
    let Some(debugfs) = debugfs else {
        // Otherwise it is told already why debugfs cannot be reached.
        if unseen.iter().all(|u| !u.what.contains("kprobes")) {
            unseen.push(Unseen {
                what: "kprobes",
                why: "this kernel has no debugfs".into(),
                hidden_by: None,
            });
        }
        return Vec::new();
    };
    match read(debugfs, KPROBES) {
        Ok(text) => text.lines().filter_map(kprobe).collect(),
        // A kernel without kprobes.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(e) => {
            let hidden_by = (e.raw_os_error() == Some(libc::EPERM)).then_some("debugfs");
            unseen.push(Unseen { what: "kprobes", why: format!("{KPROBES} in debugfs: {e}"), hidden_by });
            Vec::new()
        }
    }
}

/// `report_probe()` in kernel/kprobes.c: address, type, function+0xoffset, module, flags.
fn kprobe(line: &str) -> Option<Kprobe> {
    let mut words = line.split_whitespace();
    let _address = words.next()?;
    let kind = match words.next()? {
        "r" => "return probe",
        _ => "kprobe",
    };
    let (function, offset) = words.next()?.split_once('+')?;
    // An address without a symbol is followed by the function's size.
    let offset =
        offset.split('/').next().and_then(|o| u64::from_str_radix(o.strip_prefix("0x")?, 16).ok())?;
    Some(Kprobe { kind, target: target(function, offset), state: words.collect::<Vec<_>>().join(" ") })
}

fn target(function: &str, offset: u64) -> String {
    if offset == 0 { function.to_owned() } else { format!("{function}+{offset}") }
}

/// A line of `dynamic_events`, as far as lockdown guards its sort.
#[derive(Debug, PartialEq, Eq)]
struct Event {
    sort: Sort,
    /// `group/event`.
    name: String,
    target: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Kernel,
    User,
    Event,
}

fn events(tracefs: Option<&Tree>, refused: &dyn Fn(&str) -> bool, unseen: &mut Vec<Unseen>) -> Vec<Event> {
    // Told already why not, or a kernel without it.
    let Some(tracefs) = tracefs else { return Vec::new() };
    // Before any opening, which would be refused and counted: where the kernel was locked down when it built
    // the tree, the tree is empty, and nothing was ever set through it.
    if !tracefs.has(EVENTS) {
        return Vec::new();
    }
    let answer = if refused("tracefs") {
        Err(std::io::Error::from_raw_os_error(libc::EPERM))
    } else {
        read(tracefs, EVENTS)
    };
    match answer {
        Ok(text) => text.lines().filter_map(event).collect(),
        Err(e) => {
            let hidden_by = (e.raw_os_error() == Some(libc::EPERM)).then_some("tracefs");
            let why = format!("{EVENTS} in tracefs: {e}");
            unseen.push(Unseen { what: "uprobes and other probes set through tracefs", why, hidden_by });
            Vec::new()
        }
    }
}

/// The syntax of Documentation/trace/kprobetrace.rst, uprobetracer.rst, fprobetrace.rst.
fn event(line: &str) -> Option<Event> {
    let (head, rest) = line.split_once(' ')?;
    let (sort, name) = head.split_once(':')?;
    let target = rest.split(' ').next()?;
    let sort = match sort.chars().next()? {
        'p' | 'r' if target.starts_with('/') => Sort::User,
        // f and t: on a function's entry or a tracepoint.
        'p' | 'r' | 'f' | 't' => Sort::Kernel,
        'e' => Sort::Event,
        // Synthetic events and those of user programs reach nothing of the kernel's.
        _ => return None,
    };
    Some(Event { sort, name: name.to_owned(), target: target.to_owned() })
}

fn read(tree: &Tree, path: &str) -> std::io::Result<String> {
    let mut text = String::new();
    tree.open(path)?.read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_kprobes_is_read() {
        let kprobe = |line: &str| kprobe(line).map(|k| (k.kind, k.target, k.state));
        assert_eq!(
            kprobe("ffffffff8120e7c0  k  vfs_fsync+0x0    [DISABLED][FTRACE]"),
            Some(("kprobe", "vfs_fsync".into(), "[DISABLED][FTRACE]".into()))
        );
        assert_eq!(
            kprobe("ffffffffc0001010  r  ext4_sync+0x10  ext4 "),
            Some(("return probe", "ext4_sync+16".into(), "ext4".into()))
        );
        assert_eq!(
            kprobe("ffffffff8120e7c0  k  foo+0x8/0x90 "),
            Some(("kprobe", "foo+8".into(), String::new()))
        );
        assert_eq!(kprobe(""), None);
    }

    #[test]
    fn events_are_sorted_by_what_they_probe() {
        let sort = |line: &str| event(line).map(|e| (e.sort, e.name, e.target));
        assert_eq!(
            sort("p:kprobes/mine vfs_fsync+4 a=%di"),
            Some((Sort::Kernel, "kprobes/mine".into(), "vfs_fsync+4".into()))
        );
        assert_eq!(
            sort("r4:uprobes/u /bin/busybox:0x0000000000001000"),
            Some((Sort::User, "uprobes/u".into(), "/bin/busybox:0x0000000000001000".into()))
        );
        assert_eq!(sort("f:fprobes/f vfs_read").unwrap().0, Sort::Kernel);
        assert_eq!(sort("e:eprobes/e sched/sched_switch").unwrap().0, Sort::Event);
        assert_eq!(sort("s:synthetic/s int a"), None);
        assert_eq!(sort(""), None);
    }

    #[test]
    fn a_kprobe_of_tracefs_is_told_once_with_its_event() {
        let kprobe = kprobe("ffffffff8120e7c0  k  vfs_fsync+0x0    [FTRACE]").unwrap();
        let event = event("p:kprobes/mine vfs_fsync").unwrap();
        let leftover = kprobe_leftover(&kprobe, &[&event], &[]);
        assert_eq!((leftover.reason, leftover.what.as_str()), ("kprobes", "kprobe on vfs_fsync"));
        assert!(leftover.advice.contains("-:kprobes/mine"), "{}", leftover.advice);
    }

    #[test]
    fn an_event_is_known_behind_a_landing_mark_and_in_a_module() {
        let marked = kprobe("ffffffff8120e7c4  k  vfs_fsync+0x4    [FTRACE]").unwrap();
        assert!(marked.is_at("vfs_fsync") && marked.is_at("vfs_fsync+4"));
        assert!(!marked.is_at("vfs_fsync+8") && !marked.is_at("vfs_fsync_range"));
        let module = kprobe("ffffffffc0001010  k  ext4_sync+0x10  ext4 ").unwrap();
        assert!(module.is_at("ext4:ext4_sync+16") && !module.is_at("ext4:ext4_sync"));
    }
}
