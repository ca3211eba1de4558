/*!
Labels: the program that a process is known to execute, decided at execve(2).

/proc/PID/exe is not used, since root can change that link. A process gets a label when it executes a program of the policy in force whose file
has not changed since it was recorded. It gets none if something could decide what the program does: a variable that is not known to be
harmless, a tracer, a seccomp listener, a process that has the file open for writing or shares the root directory, a closed standard
descriptor. The next execve(2) removes the label.

While the policy is sealed, other processes cannot access the memory, registers or descriptors of a labelled process; otherwise such an access
voids the label. Children have copies of memory and descriptors, or share them, until execve(2): a label that matches no exception
protects them likewise.

```text
                     label of the child          access while sealed   access otherwise
fork                 GUARDED, or INHERITED       refused               voids the label
clone(CLONE_VM)      GUARDED | SHARES_MEMORY     refused               voids the parent's label; refused if that is not found
```

A process has one label, in the task storage of its first thread. A lookup that may have failed although there is a label counts as the safe
result: no exception, and no access.
*/
use aya_ebpf::{
    helpers::generated::{bpf_loop, bpf_probe_read_user_str, bpf_task_storage_delete, bpf_task_storage_get},
    macros::{lsm, map},
    maps::HashMap,
    programs::LsmContext,
};
use core::{
    ffi::c_void,
    mem::MaybeUninit,
    ptr::{null_mut, read_volatile},
};
use stockade_common::{EXCEPTIONS_MAX, Label, Program, ProgramKey};

use crate::{
    harmless::is_harmless,
    maps::{BPF_F_NO_PREALLOC, BPF_F_RDONLY_PROG, words_in_force},
    task::{Binprm, File, Task},
};

const EPERM: i32 = 1;
const EAGAIN: i32 = 11;

#[map]
static PROGRAMS: HashMap<ProgramKey, Program> =
    HashMap::with_max_entries(EXCEPTIONS_MAX, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);

/// `struct bpf_map_def`. aya-ebpf supports task storage only with BTF for the map.
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

/// Written by the loader: 1 if a lookup in task storage also returns null while another one runs on the same processor, as on kernels before 6.2.
#[unsafe(no_mangle)]
static LOOKUPS_CAN_BE_BUSY: u32 = 0;

/// The lookup failed, so that the process may have a label.
struct Unknown;

/// Returns the label of a process by its first thread; `None` also if the lookup failed.
#[inline(always)]
fn of(task: Task) -> Option<&'static mut Label> {
    // SAFETY: a task from the kernel; without CREATE the helper allocates nothing.
    let label =
        unsafe { bpf_task_storage_get(labels(), task.pointer(), null_mut(), 0).cast::<Label>().as_mut() }?;
    if is_void(label, task) { None } else { Some(label) }
}

/// Reports whether a label is void: an empty one that a lookup created, or one from before the last execve(2).
#[inline(always)]
fn is_void(label: &Label, task: Task) -> bool {
    label.inode == 0 || label.exec_id != task.exec_id()
}

/// Returns the label of a process by its first thread.
#[inline(always)]
fn find(task: Task) -> Result<Option<&'static mut Label>, Unknown> {
    if let Some(label) = of(task) {
        return Ok(Some(label));
    }
    // SAFETY: a constant that the loader has written.
    if unsafe { read_volatile(&raw const LOOKUPS_CAN_BE_BUSY) } == 0 {
        return Ok(None);
    }
    let mut none = Label::NONE;
    // SAFETY: a task from the kernel; the value has the map's value size. CREATE makes an empty label if there is none, so that
    // null means that the lookup failed.
    let label = unsafe { bpf_task_storage_get(labels(), task.pointer(), (&raw mut none).cast(), CREATE) };
    // SAFETY: points into the task storage.
    match unsafe { label.cast::<Label>().as_mut() } {
        None => Err(Unknown),
        Some(label) => Ok(if is_void(label, task) { None } else { Some(label) }),
    }
}

/// Sets the label and reports whether that succeeded.
#[inline(always)]
fn set(task: Task, label: Label) -> bool {
    let mut label = label;
    // SAFETY: a task from the kernel; the value has the map's value size.
    let there = unsafe { bpf_task_storage_get(labels(), task.pointer(), (&raw mut label).cast(), CREATE) };
    // SAFETY: points into the task storage, which may have an older label.
    let Some(there) = (unsafe { there.cast::<Label>().as_mut() }) else { return false };
    *there = label;
    true
}

/// Returns the label by which the requester may be excepted.
#[inline(always)]
pub fn of_current() -> Option<Label> {
    let task = Task::current();
    let label = of(task.leader())?;
    // Uprobes can change memory without a call of any hook. The kernel's bit can be cleared, so the label is voided for good.
    if task.has_uprobes() {
        label.flags |= Label::LOST;
    }
    if label.flags & Label::GUARDED != 0 { None } else { Some(*label) }
}

/// `bprm_committed_creds(bprm)`: the process now executes another program.
#[lsm(hook = "bprm_committed_creds")]
pub fn bprm_committed_creds(ctx: LsmContext) -> i32 {
    on_exec(ctx.arg(0));
    0
}

/// Labels the current process, which executes this `linux_binprm`, or deletes its label.
#[inline(always)]
pub fn on_exec(bprm: *const u8) {
    let bprm = Binprm::from_argument(bprm);
    // execve(2) has ended the other threads, so this thread is the first.
    let task = Task::current();
    match label_for(task, bprm) {
        Some(label) => {
            set(task, label);
        }
        None => {
            // SAFETY: the current task. If a label cannot be deleted, its `exec_id` makes it void.
            unsafe { bpf_task_storage_delete(labels(), task.pointer()) };
        }
    }
}

#[inline(always)]
fn label_for(task: Task, bprm: Binprm) -> Option<Label> {
    // SAFETY: inside POLICY.
    let generation = unsafe { (*words_in_force()).generation };
    let file = bprm.file();
    let id = file.id();
    let key = ProgramKey { generation, inode: id.inode, device: id.device, pad: 0 };
    // SAFETY: user space does not write entries of a policy in force.
    let program = unsafe { PROGRAMS.get(key) }?;
    if !is_same_file(program, file) || is_influenced(task, bprm, file) {
        return None;
    }
    let hands_on = if program.flags & Program::INHERIT != 0 { Label::HANDS_ON } else { 0 };
    Some(Label { inode: id.inode, device: id.device, flags: hands_on, exec_id: task.exec_id(), pad: 0 })
}

/// Reports whether this is the recorded file with the same content. Only an fs-verity digest proves the content: root can set a ctime.
#[inline(always)]
fn is_same_file(program: &Program, file: File) -> bool {
    let same_number =
        program.flags & Program::NO_GENERATION != 0 || program.inode_generation == file.generation();
    let has_verity = program.flags & Program::VERITY != 0;
    let same_content = if has_verity && File::can_read_digests() {
        file.has_digest(&program.digest)
    } else {
        (program.ctime, program.ctime_nsec) == (file.ctime(), file.ctime_nsec())
    };
    same_number && same_content && (!has_verity || file.has_verity())
}

/// Reports whether a variable, a file or another process could decide what the program does.
#[inline(always)]
fn is_influenced(task: Task, bprm: Binprm, file: File) -> bool {
    task.is_traced()
        || task.is_supervised()
        || !task.has_standard_descriptors()
        || bprm.shares_root()
        || file.has_writer()
        || has_unknown_variables(bprm)
}

/// Maximum number of pieces to check; a process with longer strings gets no label.
const PIECES: u32 = 1 << 14;

/// Enough bytes to recognise a variable, and more than most arguments have.
const PIECE: usize = 64;

/// Progress of the check of a new program's strings.
#[repr(C)]
struct Scan {
    /// Address in the process's memory.
    at: u64,
    /// Number of strings that are done.
    strings: u32,
    /// Number of strings that are arguments. They come first.
    arguments: u32,
    /// Number of all strings.
    all: u32,
    /// Whether a string begins at this address: 0 or 1.
    begins: u32,
    /// One of the constants below.
    found: u32,
}

const UNDONE: u32 = 0;
const HARMLESS: u32 = 1;
const UNKNOWN: u32 = 2;

/// Reports whether the environment has a variable that is not known to be harmless, or cannot be read.
///
/// The strings are on the new program's stack: the arguments, then the environment.
#[inline(always)]
fn has_unknown_variables(bprm: Binprm) -> bool {
    let (arguments, environment) = (bprm.arguments(), bprm.environment());
    let all = arguments.wrapping_add(environment);
    let mut scan = Scan { at: bprm.strings(), strings: 0, arguments, all, begins: 1, found: UNDONE };
    // SAFETY: the kernel calls `look` with the number of the round and a pointer to `scan`, which outlives the call.
    unsafe { bpf_loop(PIECES, look as *mut c_void, (&raw mut scan).cast(), 0) };
    scan.found != HARMLESS
}

/// Checks one piece. A return value other than 0 ends the loop.
extern "C" fn look(_: u32, scan: *mut Scan) -> i64 {
    // SAFETY: a pointer to `scan` in `has_unknown_variables`.
    let scan = unsafe { &mut *scan };
    if scan.strings >= scan.all {
        scan.found = HARMLESS;
        return 1;
    }
    // Not cleared first: only the beginning is compared, and no name of the lists contains the zero at the end of a shorter string.
    let mut piece = MaybeUninit::<[u64; PIECE / 8]>::uninit();
    // SAFETY: the helper writes at most PIECE bytes; the address is in the process's memory.
    let length =
        unsafe { bpf_probe_read_user_str(piece.as_mut_ptr().cast(), PIECE as u32, scan.at as *const c_void) };
    // SAFETY: the kernel has initialised the memory: bytes after the string are what was there before, and any bytes are valid.
    let piece = unsafe { &*piece.as_ptr() };
    let is_variable = scan.begins != 0 && scan.strings >= scan.arguments;
    if length <= 0 || is_variable && !is_harmless([piece[0], piece[1], piece[2]]) {
        scan.found = UNKNOWN;
        return 1;
    }
    if (length as usize) < PIECE {
        scan.at += length as u64;
        scan.strings += 1;
        scan.begins = 1;
    } else {
        // The string is cut off or ends exactly here: the next piece begins at the byte that the zero has replaced.
        scan.at += PIECE as u64 - 1;
        scan.begins = 0;
    }
    0
}

/// `task_alloc(task, clone_flags)`: a process or a thread is created.
#[lsm(hook = "task_alloc")]
pub fn task_alloc(ctx: LsmContext) -> i32 {
    let earlier: u64 = ctx.arg(2);
    if earlier != 0 {
        return earlier as i32;
    }
    if on_fork(ctx.arg(0), ctx.arg(1)) { 0 } else { -EAGAIN }
}

/// Labels the task that the current process creates, and reports whether it may be created: not if a label cannot be set.
#[inline(always)]
pub fn on_fork(task: *const u8, flags: u64) -> bool {
    const CLONE_VM: u64 = 0x0000_0100;
    const CLONE_THREAD: u64 = 0x0001_0000;
    // Threads share the label of the first thread.
    if flags & CLONE_THREAD != 0 {
        return true;
    }
    let label = match find(Task::current().leader()) {
        Err(Unknown) => return false,
        Ok(None) => return true,
        Ok(Some(label)) => *label,
    };
    if label.flags & Label::LOST != 0 {
        return true;
    }
    let shares_memory = flags & CLONE_VM != 0;
    // Of processes that share memory only the first may be excepted.
    let inherits = label.flags & (Label::HANDS_ON | Label::GUARDED) == Label::HANDS_ON && !shares_memory;
    let flags = if inherits {
        label.flags | Label::INHERITED
    } else {
        let shares_memory = if shares_memory { Label::SHARES_MEMORY } else { 0 };
        label.flags & Label::INHERITED | Label::GUARDED | shares_memory
    };
    set(Task::from_argument(task), Label { flags, ..label })
}

/// `ptrace_access_check(child, mode)`: a process requests access to another's memory, registers or descriptors.
#[lsm(hook = "ptrace_access_check")]
pub fn ptrace_access_check(ctx: LsmContext) -> i32 {
    let earlier: u64 = ctx.arg(2);
    if earlier != 0 {
        return earlier as i32;
    }
    if on_ptrace_access(ctx.arg(0), ctx.arg(1), false) { 0 } else { -EPERM }
}

/// Reports whether the current process may access this process in this mode.
#[inline(always)]
pub fn on_ptrace_access(child: *const u8, mode: u32, sealed: bool) -> bool {
    const PTRACE_MODE_ATTACH: u32 = 2;
    mode & PTRACE_MODE_ATTACH == 0
        || hand_over(label_or_none(Task::current()), Task::from_argument(child).leader(), sealed)
}

/// `ptrace_traceme(parent)`: the process requests to be traced by its parent.
#[lsm(hook = "ptrace_traceme")]
pub fn ptrace_traceme(ctx: LsmContext) -> i32 {
    let earlier: u64 = ctx.arg(1);
    if earlier != 0 {
        return earlier as i32;
    }
    if on_ptrace_traceme(ctx.arg(0), false) { 0 } else { -EPERM }
}

/// Reports whether the current process may be traced by this parent.
#[inline(always)]
pub fn on_ptrace_traceme(parent: *const u8, sealed: bool) -> bool {
    hand_over(label_or_none(Task::from_argument(parent)), Task::current().leader(), sealed)
}

/// Returns the label of a thread's process, or an empty one: also if it has uprobes, which may decide what the process does. Not an `Option`: the
/// verifier does not let programs copy uninitialised memory.
#[inline(always)]
fn label_or_none(task: Task) -> Label {
    let process = task.leader();
    match of(process) {
        Some(label) if !process.has_uprobes() => *label,
        _ => Label::NONE,
    }
}

/// Reports whether a process with the label `hands` may access `process`. A process that executes the same program may. For any other process a
/// sealed policy refuses; otherwise the label becomes void.
#[inline(always)]
fn hand_over(hands: Label, process: Task, sealed: bool) -> bool {
    let label = match find(process) {
        Err(Unknown) => return false,
        Ok(None) => return true,
        Ok(Some(label)) => label,
    };
    let shares_memory = label.flags & Label::SHARES_MEMORY != 0;
    if label.flags & Label::LOST != 0 && !shares_memory {
        return true;
    }
    // An empty label has no inode number.
    let same = (hands.inode, hands.device) == (label.inode, label.device)
        && hands.flags & (Label::LOST | Label::INHERITED | Label::GUARDED) == label.flags & Label::INHERITED;
    if same {
        return true;
    }
    if sealed {
        return false;
    }
    if !shares_memory {
        label.flags |= Label::LOST;
        return true;
    }
    // A process with an exception, usually the parent, has the same memory.
    let owner = process.parent().leader();
    match of(owner) {
        Some(label) if label.flags & Label::GUARDED == 0 && owner.shares_memory_with(process) => {
            label.flags |= Label::LOST;
            true
        }
        _ => false,
    }
}
