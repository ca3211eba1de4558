/*!
Waits for system calls that began before the seal's programs were attached: writes to sysctls, and kexec_load(2) and kexec_file_load(2).

The kernel asks that program when a write begins. One that began before can be held up, by a lock for instance, and set the value when it
goes on. So every task of the machine is looked at once after the program was attached, by the functions that it is in. Whoever is seen
elsewhere once is asked about from then on.

The kernel shows nothing of a task that runs on another processor at that moment. So the look is repeated on each processor in turn: what ran there
then runs no more.
*/
use std::{collections::BTreeSet, path::Path};

use crate::{
    Error,
    machine::{patience::Patience, processes},
    sys::{self, fs},
};

/// The prefix of the kernel functions that read and write files below /proc/sys (fs/proc/proc_sysctl.c).
const AT_SETTING: &str = " proc_sys_";

/// Functions of kexec_load(2) and kexec_file_load(2) (kernel/kexec.c, kernel/kexec_file.c), as a stack trace shows them.
const AT_KEXEC: [&str; 3] = ["sys_kexec_", " do_kexec_load+", " kimage_"];

/// How many functions the kernel tells of a task.
const LIMIT: &str = "/proc/sys/kernel/perf_event_max_stack";
const ENOUGH: u32 = 127;

/// A task: process and thread.
type Task = (u32, u32);

/// Where a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    AtSetting,
    AtKexec,
    Elsewhere,
    /// The kernel does not say where.
    Running,
}

/// Waits until nobody is at a setting any more who was there before. `list` lists all tasks, as stockade-ebpf's `lists.rs` says.
pub(super) fn wait_for_earlier_calls(list: &dyn Fn() -> Result<String, Error>) -> Result<(), Error> {
    let mut left: Option<BTreeSet<Task>> = None;
    let mut patience = Patience::new();
    let processors = sys::EachProcessor::new();
    loop {
        tells_enough()?;
        let now = parse(&list()?)?;
        let before = left.unwrap_or_else(|| now.iter().map(|(task, _)| *task).collect());
        let waits: Vec<_> = now
            .into_iter()
            .filter(|(task, place)| *place != Place::Elsewhere && before.contains(task))
            .collect();
        let Some(&(task, place)) = waits.iter().find(|(_, place)| *place != Place::Running).or(waits.first())
        else {
            return Ok(());
        };
        if !patience.wait() {
            return Err(Error::Request(describe(task, place, patience.seconds())));
        }
        left = Some(waits.into_iter().map(|(task, _)| task).collect());
        processors.next();
    }
}

/// A shorter list could end before the function that matters.
fn tells_enough() -> Result<(), Error> {
    let most = fs::read_to_string(LIMIT).map_err(|e| Error::io(format!("read {LIMIT}"), e))?;
    if most.trim().parse().is_ok_and(|most: u32| most >= ENOUGH) {
        return Ok(());
    }
    Err(Error::Request(format!(
        "not sealed: kernel.perf_event_max_stack is {}, too low to tell whether somebody is writing a setting: sysctl \
         kernel.perf_event_max_stack={ENOUGH}",
        most.trim()
    )))
}

fn describe((process, _): Task, place: Place, seconds: u64) -> String {
    let who = format!("{} ({process})", processes::comm(&Path::new("/proc").join(process.to_string())));
    match place {
        Place::AtSetting => format!(
            "not sealed: {who} has been reading or writing a file below /proc/sys for {seconds} s, since before settings were held, and could change one \
             after the seal: end it and seal again"
        ),
        Place::AtKexec => format!(
            "not sealed: {who} has been loading a kernel for kexec for {seconds} s, since before that was refused, and could finish after the seal: end it \
             and seal again"
        ),
        Place::Elsewhere | Place::Running => format!(
            "not sealed: {who} has been running for {seconds} s without a pause, so nobody can tell whether it is writing a setting since before settings \
             were held: end it and seal again"
        ),
    }
}

/// Lines of process, thread, how many functions, and these.
fn parse(text: &str) -> Result<Vec<(Task, Place)>, Error> {
    let broken = |line: &str| Error::Object(format!("a list of tasks with the line {line:?}"));
    let lines = text.lines().filter(|line| !line.is_empty());
    let tasks = lines.map(|line| {
        let mut words = line.split(' ');
        let mut number = || words.next()?.parse::<i64>().ok();
        let (Some(process), Some(thread), Some(count)) = (number(), number(), number()) else {
            return Err(broken(line));
        };
        let task = (u32::try_from(process), u32::try_from(thread));
        let (Ok(process), Ok(thread)) = task else { return Err(broken(line)) };
        let place = match count {
            // There may be more.
            count if count > i64::from(ENOUGH) => Place::Running,
            _ if line.contains(AT_SETTING) => Place::AtSetting,
            _ if AT_KEXEC.iter().any(|function| line.contains(function)) => Place::AtKexec,
            1.. if ends_early(line) => Place::Running,
            1.. => Place::Elsewhere,
            _ => Place::Running,
        };
        Ok(((process, thread), place))
    });
    tasks.collect()
}

/// Whether the kernel may have lost the way in code that was generated at run time, before it came to where the task entered the kernel.
fn ends_early(line: &str) -> bool {
    const GENERATED: [&str; 4] = ["0x", "bpf_prog_", "bpf_trampoline_", "ftrace_trampoline"];
    // x86-64 and arm64: system calls, interrupts and exceptions, and what a new task begins with.
    const ENTRIES: [&str; 5] = ["entry_", "asm_", "ret_from_fork", "el0", "ret_to_user"];
    let begins = |name: &str, with: &[&str]| with.iter().any(|begin| name.starts_with(begin));
    // Behind a name stands the module that it is of.
    let names = line.split(' ').skip(3).filter(|name| !name.starts_with('['));
    names.clone().any(|name| begins(name, &GENERATED))
        && !names.last().is_some_and(|last| begins(last, &ENTRIES))
}

#[cfg(test)]
mod tests {
    use super::{Place, parse};

    #[test]
    fn where_a_task_is_is_told_by_its_functions() {
        let text = "\n1 1 3 __schedule+0x2e schedule+0x5d do_wait+0x60\n7 9 2 mutex_lock+0x1 \
                    proc_sys_call_handler+0x1c9\n7 7 2 schedule+0x5d proc_sys_write+0x13\n8 8 0\n9 9 -14\n10 10 128 schedule+0x5d\n";
        let places: Vec<_> =
            parse(text).unwrap().into_iter().map(|((_, thread), place)| (thread, place)).collect();
        assert_eq!(
            places,
            [
                (1, Place::Elsewhere),
                (9, Place::AtSetting),
                (7, Place::AtSetting),
                (8, Place::Running),
                (9, Place::Running),
                (10, Place::Running)
            ]
        );
        assert!(parse("1 1").is_err() && parse("a 1 0").is_err());
        let place = |frames: &str| parse(&format!("1 1 3 {frames}")).unwrap()[0].1;
        assert_eq!(place("schedule+0x1 bpf_prog_0123_x+0x2 vfs_write+0x3 [ext4]"), Place::Running);
        assert_eq!(place("schedule+0x1 0xffffffffc0001234"), Place::Running);
        assert_eq!(
            place("schedule+0x1 bpf_prog_0123_x+0x2 entry_SYSCALL_64_after_hwframe+0x6e"),
            Place::Elsewhere
        );
    }
}
