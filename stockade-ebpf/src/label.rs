/*!
What a process is known to execute, decided when it executes it.

The link that the kernel shows as /proc/PID/exe is not asked: root can change it. A process gets a label when it
executes a program that the policy in force speaks of and that is still the file that was looked at, unless it
was told to load other code with it or is being traced. It loses it with the next program it executes, and
when another process gets hold of it that could change its memory.

The label is one per process, kept with its first thread. Children start without, unless the policy says
that they inherit it.
*/
use aya_ebpf::{
    helpers::generated::{bpf_loop, bpf_probe_read_user_str, bpf_task_storage_delete, bpf_task_storage_get},
    macros::{lsm, map},
    maps::HashMap,
    programs::LsmContext,
};
use core::{ffi::c_void, mem::MaybeUninit, ptr::null_mut};
use stockade_common::{EXCEPTIONS_MAX, Label, Program, ProgramKey};

use crate::{
    decide::{BPF_F_NO_PREALLOC, BPF_F_RDONLY_PROG, words_in_force},
    task::{Binprm, Task},
};

#[map]
static PROGRAMS: HashMap<ProgramKey, Program> = 
    HashMap::with_max_entries(EXCEPTIONS_MAX, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);

/// `struct bpf_map_def`. aya-ebpf has task storage only with type information of the map's own.
#[repr(C)]
struct MapDef {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    id: u32,
    pinning: u32,
}

const BPF_MAP_TYPE_TASK_STORAGE: u32 = 29;

#[unsafe(link_section = "maps")]
#[unsafe(no_mangle)]
static mut LABELS: MapDef = MapDef {
    kind: BPF_MAP_TYPE_TASK_STORAGE,
    key_size: 4,
    value_size: size_of::<Label>() as u32,
    max_entries: 0,
    flags: BPF_F_NO_PREALLOC,
    id: 0,
    pinning: 0,
};

const CREATE: u64 = 1;

#[inline(always)]
fn labels() -> *mut c_void {
    (&raw mut LABELS).cast()
}

#[inline(always)]
fn of(task: Task) -> Option<&'static mut Label> {
    // SAFETY: a task that the kernel handed out; without CREATE nothing is made.
    unsafe { bpf_task_storage_get(labels(), task.pointer(), null_mut(), 0).cast::<Label>().as_mut() }
}

#[inline(always)]
fn set(task: Task, label: Label) {
    let mut label = label;
    // SAFETY: as above; the value has the size that the map says.
    let there = unsafe { bpf_task_storage_get(labels(), task.pointer(), (&raw mut label).cast(), CREATE) };
    // SAFETY: what is there may be an older label.
    if let Some(there) = unsafe { there.cast::<Label>().as_mut() } {
        *there = label;
    }
}

/// The label of the process that asks.
#[inline(always)]
pub fn of_current() -> Option<Label> {
    of(Task::current().leader()).map(|label| *label)
}

/// `bprm_committed_creds(bprm)`: the process has become another program.
#[lsm(hook = "bprm_committed_creds")]
pub fn bprm_committed_creds(ctx: LsmContext) -> i32 {
    executes(ctx.arg(0));
    0
}

/// The current process executes what this `linux_binprm` says.
#[inline(always)]
pub fn executes(bprm: *const u8) {
    let bprm = Binprm::from_argument(bprm);
    // Since the other threads are gone, this one is the first.
    let task = Task::current();
    match label_for(task, bprm) {
        Some(label) => set(task, label),
        None => {
            // SAFETY: the current task; there may be nothing to delete.
            unsafe { bpf_task_storage_delete(labels(), task.pointer()) };
        }
    }
}

#[inline(always)]
fn label_for(task: Task, bprm: Binprm) -> Option<Label> {
    // SAFETY: points into the policy.
    let generation = unsafe { (*words_in_force()).generation };
    let file = bprm.file();
    let id = file.id();
    let key = ProgramKey { generation, inode: id.inode, device: id.device, pad: 0 };
    // SAFETY: entries of a policy in force are not written.
    let program = unsafe { PROGRAMS.get(key) }?;
    let unchanged = if program.flags & Program::VERITY != 0 {
        file.has_verity()
    } else {
        (program.ctime, program.ctime_nsec) == (file.ctime(), file.ctime_nsec())
    };
    let same_number =
        program.flags & Program::NO_GENERATION != 0 || program.inode_generation == file.generation();
    if !unchanged || !same_number || task.is_traced() || loads_other_code(bprm) {
        return None;
    }
    let hands_on = if program.flags & Program::INHERIT != 0 { Label::HANDS_ON } else { 0 };
    Some(Label { inode: id.inode, device: id.device, flags: hands_on })
}

/// Pieces of strings that are looked at; a process with more gets no label.
const PIECES: u32 = 1 << 14;

/// Enough of a string to know it, and a multiple of what arguments usually need.
const PIECE: usize = 64;

/// How far the strings of a new program were looked at.
#[repr(C)]
struct Scan {
    /// Address in the process.
    at: u64,
    /// Strings that are done.
    strings: u32,
    /// The first so many are arguments.
    arguments: u32,
    /// So many there are.
    all: u32,
    /// Whether a string begins here.
    begins: u32,
    /// One of the constants below.
    found: u32,
}

const UNDONE: u32 = 0;
const HARMLESS: u32 = 1;
const LOADS: u32 = 2;

/// Whether the environment tells the dynamic loader or the C library to load code from elsewhere, or cannot be read.
///
/// The strings lie one after the other on the new program's stack: arguments, then environment.
#[inline(always)]
fn loads_other_code(bprm: Binprm) -> bool {
    let (arguments, environment) = (bprm.arguments(), bprm.environment());
    let all = arguments.wrapping_add(environment);
    let mut scan = Scan { at: bprm.strings(), strings: 0, arguments, all, begins: 1, found: UNDONE };
    // SAFETY: the kernel calls back with the number of the round and the scan, which lives through the call.
    unsafe { bpf_loop(PIECES, look as *mut c_void, (&raw mut scan).cast(), 0) };
    scan.found != HARMLESS
}

/// Looks at one piece. Anything but 0 ends the loop.
extern "C" fn look(_: u32, scan: *mut Scan) -> i64 {
    // SAFETY: what loads_other_code handed over.
    let scan = unsafe { &mut *scan };
    if scan.strings >= scan.all {
        scan.found = HARMLESS;
        return 1;
    }
    // Not cleared first: only the beginning is compared, and the zero that ends a shorter string is in no name that is
    // looked for.
    let mut piece = MaybeUninit::<[u64; PIECE / 8]>::uninit();
    // SAFETY: writes at most that many bytes; the address is the process's own.
    let length =
        unsafe { bpf_probe_read_user_str(piece.as_mut_ptr().cast(), PIECE as u32, scan.at as *const c_void) };
    // SAFETY: the kernel has filled it: what a string does not need is what was there, and any bytes are a value.
    let begin = unsafe { (*piece.as_ptr())[0] };
    if length <= 0 || scan.begins != 0 && scan.strings >= scan.arguments && is_loaders(begin) {
        scan.found = LOADS;
        return 1;
    }
    if (length as usize) < PIECE {
        scan.at += length as u64;
        scan.strings += 1;
        scan.begins = 1;
    } else {
        // Cut off, or ending just here: the next piece begins at the zero that was written over the last byte.
        scan.at += PIECE as u64 - 1;
        scan.begins = 0;
    }
    0
}

/// Variables with which code can be brought into a program from outside, by their first eight letters: `LD_*`, and
/// glibc's `GCONV_PATH`, `GLIBC_TUNABLES`, `LOCPATH` and `NLSPATH`.
#[inline(always)]
fn is_loaders(begin: u64) -> bool {
    let is = |word: &[u8]| {
        let mut value = 0;
        let mut n = word.len();
        while n > 0 {
            n -= 1;
            value = value << 8 | word[n] as u64;
        }
        let mask = if word.len() == 8 { u64::MAX } else { (1 << (8 * word.len())) - 1 };
        begin & mask == value
    };
    is(b"LD_") || is(b"GCONV_") || is(b"GLIBC_") || is(b"LOCPATH=") || is(b"NLSPATH=")
}

/// `task_alloc(task, clone_flags)`: a process or a thread is made.
#[lsm(hook = "task_alloc")]
pub fn task_alloc(ctx: LsmContext) -> i32 {
    let earlier: u64 = ctx.arg(2);
    if earlier != 0 {
        return earlier as i32;
    }
    is_made(ctx.arg(0), ctx.arg(1));
    0
}

/// The current process makes this task with these flags.
#[inline(always)]
pub fn is_made(task: *const u8, flags: u64) {
    const CLONE_THREAD: u64 = 0x0001_0000;
    // Threads have the label of the first.
    if flags & CLONE_THREAD != 0 {
        return;
    }
    let Some(label) = of_current() else { return };
    if label.flags & Label::HANDS_ON != 0 {
        set(Task::from_argument(task), Label { flags: label.flags | Label::INHERITED, ..label });
    }
}

/// `ptrace_access_check(child, mode)`: somebody wants a process's memory, registers or descriptors.
#[lsm(hook = "ptrace_access_check")]
pub fn ptrace_access_check(ctx: LsmContext) -> i32 {
    let earlier: u64 = ctx.arg(2);
    if earlier != 0 {
        return earlier as i32;
    }
    is_reached_for(ctx.arg(0), ctx.arg(1));
    0
}

/// The current process wants to get at this one, in this way.
#[inline(always)]
pub fn is_reached_for(child: *const u8, mode: u32) {
    const PTRACE_MODE_ATTACH: u32 = 2;
    if mode & PTRACE_MODE_ATTACH != 0 {
        fall_into(of_current(), Task::from_argument(child).leader());
    }
}

/// `ptrace_traceme(parent)`: the process hands itself to its parent.
#[lsm(hook = "ptrace_traceme")]
pub fn ptrace_traceme(ctx: LsmContext) -> i32 {
    let earlier: u64 = ctx.arg(1);
    if earlier != 0 {
        return earlier as i32;
    }
    hands_itself(ctx.arg(0));
    0
}

/// The current process hands itself to this one.
#[inline(always)]
pub fn hands_itself(parent: *const u8) {
    let parent = of(Task::from_argument(parent).leader()).map(|label| *label);
    fall_into(parent, Task::current().leader());
}

/// Takes away a process's label, unless whoever gets hold of it has the same.
#[inline(always)]
fn fall_into(hands: Option<Label>, process: Task) {
    let Some(label) = of(process) else { return };
    let same = hands.is_some_and(|hands| {
        (hands.inode, hands.device) == (label.inode, label.device)
            && hands.flags & (Label::LOST | Label::INHERITED) == label.flags & Label::INHERITED
    });
    if !same {
        label.flags |= Label::LOST;
    }
}
