/*!
What a process is known to execute, decided when it executes it.

The link that the kernel shows as /proc/PID/exe is not asked: root can change it. A process gets a label when it
executes a program that the policy in force speaks of and that is still the file that was looked at, unless something that
comes along could decide what the program does: a variable that is not known to be harmless, a tracer, a supervisor of its
system calls, somebody who has the file open for writing or shares its root, a closed standard descriptor. It loses the
label with the next program it executes.

Nobody else gets hold of a labelled process. Sealed, an access to its memory, registers or descriptors is refused; applied
only, it costs the label. Its children have copies of both, or share them, until they execute something: they are guarded
in the same way by a label that excepts from nothing.

```text
                     label of the child          reached, sealed    reached, not sealed
fork                 GUARDED, or INHERITED       refused            costs the label
clone(CLONE_VM)      GUARDED | SHARES_MEMORY     refused            costs the parent's label; refused if that one is not found
```

The label is one per process, kept with its first thread. A lookup that may have failed for another reason than that there
is none is taken for what is safe: no exception, and no access.
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
    decide::{BPF_F_NO_PREALLOC, BPF_F_RDONLY_PROG, words_in_force},
    harmless::is_harmless,
    task::{Binprm, File, Task},
};

const EPERM: i32 = 1;
const EAGAIN: i32 = 11;

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

/// Written by the loader: 1 where a lookup in task storage also finds nothing while another is under way on the processor, as
/// on kernels before 6.2.
#[unsafe(no_mangle)]
static LOOKUPS_CAN_BE_BUSY: u32 = 0;

/// There may be a label: the storage could not be asked.
struct Unknown;

/// The label of a process, by its first thread; none also where the storage could not be asked.
#[inline(always)]
fn of(task: Task) -> Option<&'static mut Label> {
    // SAFETY: a task that the kernel handed out; without CREATE nothing is made.
    let label = unsafe { bpf_task_storage_get(labels(), task.pointer(), null_mut(), 0).cast::<Label>().as_mut() }?;
    if is_void(label, task) { None } else { Some(label) }
}

/// Whether it says nothing: made to look whether there is one, or left over from an earlier program.
#[inline(always)]
fn is_void(label: &Label, task: Task) -> bool {
    label.inode == 0 || label.exec_id != task.exec_id()
}

/// The label of a process, by its first thread.
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
    // SAFETY: a task that the kernel handed out; the value has the size that the map says. Where there is none an empty one is
    // made, so that null has one meaning.
    let label = unsafe { bpf_task_storage_get(labels(), task.pointer(), (&raw mut none).cast(), CREATE) };
    // SAFETY: points into the storage.
    match unsafe { label.cast::<Label>().as_mut() } {
        None => Err(Unknown),
        Some(label) => Ok(if is_void(label, task) { None } else { Some(label) }),
    }
}

/// Whether the label is there now.
#[inline(always)]
fn set(task: Task, label: Label) -> bool {
    let mut label = label;
    // SAFETY: a task that the kernel handed out; the value has the size that the map says.
    let there = unsafe { bpf_task_storage_get(labels(), task.pointer(), (&raw mut label).cast(), CREATE) };
    // SAFETY: what is there may be an older label.
    let Some(there) = (unsafe { there.cast::<Label>().as_mut() }) else { return false };
    *there = label;
    true
}

/// The label by which the process that asks is excepted.
#[inline(always)]
pub fn of_current() -> Option<Label> {
    let task = Task::current();
    let label = of(task.leader())?;
    // A uprobe can change memory, and nobody is asked about it. The kernel's bit can be cleared, the label does not come back.
    if task.has_uprobes() {
        label.flags |= Label::LOST;
    }
    if label.flags & Label::GUARDED != 0 { None } else { Some(*label) }
}

/// `bprm_committed_creds(bprm)`: the process has become another program.
#[lsm(hook = "bprm_committed_creds")]
pub fn bprm_committed_creds(ctx: LsmContext) -> i32 {
    on_exec(ctx.arg(0));
    0
}

/// The current process executes what this `linux_binprm` says.
#[inline(always)]
pub fn on_exec(bprm: *const u8) {
    let bprm = Binprm::from_argument(bprm);
    // Since the other threads are gone, this one is the first.
    let task = Task::current();
    match label_for(task, bprm) {
        Some(label) => {
            set(task, label);
        }
        None => {
            // SAFETY: the current task. There may be nothing to delete; what cannot be deleted is void by its number.
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
    if !is_same_file(program, file) || is_influenced(task, bprm, file) {
        return None;
    }
    let hands_on = if program.flags & Program::INHERIT != 0 { Label::HANDS_ON } else { 0 };
    Some(Label { inode: id.inode, device: id.device, flags: hands_on, exec_id: task.exec_id(), pad: 0 })
}

/// Whether this is the file that was looked at, with the same content. Only a digest of fs-verity proves the content: root can
/// set a change time.
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

/// Whether something comes along with the program, or has hold of the process, that could decide what it does.
#[inline(always)]
fn is_influenced(task: Task, bprm: Binprm, file: File) -> bool {
    task.is_traced()
        || task.is_supervised()
        || !task.has_standard_descriptors()
        || bprm.shares_root()
        || file.has_writer()
        || has_unknown_variables(bprm)
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
const UNKNOWN: u32 = 2;

/// Whether the environment has a variable that is not known to be harmless, or cannot be read.
///
/// The strings lie one after the other on the new program's stack: arguments, then environment.
#[inline(always)]
fn has_unknown_variables(bprm: Binprm) -> bool {
    let (arguments, environment) = (bprm.arguments(), bprm.environment());
    let all = arguments.wrapping_add(environment);
    let mut scan = Scan { at: bprm.strings(), strings: 0, arguments, all, begins: 1, found: UNDONE };
    // SAFETY: the kernel calls back with the number of the round and the scan, which lives through the call.
    unsafe { bpf_loop(PIECES, look as *mut c_void, (&raw mut scan).cast(), 0) };
    scan.found != HARMLESS
}

/// Looks at one piece. Anything but 0 ends the loop.
extern "C" fn look(_: u32, scan: *mut Scan) -> i64 {
    // SAFETY: what has_unknown_variables handed over.
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
        // Cut off, or ending just here: the next piece begins at the zero that was written over the last byte.
        scan.at += PIECE as u64 - 1;
        scan.begins = 0;
    }
    0
}

/// `task_alloc(task, clone_flags)`: a process or a thread is made.
#[lsm(hook = "task_alloc")]
pub fn task_alloc(ctx: LsmContext) -> i32 {
    let earlier: u64 = ctx.arg(2);
    if earlier != 0 {
        return earlier as i32;
    }
    if on_fork(ctx.arg(0), ctx.arg(1)) { 0 } else { -EAGAIN }
}

/// The current process makes this task with these flags. Whether it may: a child that cannot be guarded is not made.
#[inline(always)]
pub fn on_fork(task: *const u8, flags: u64) -> bool {
    const CLONE_VM: u64 = 0x0000_0100;
    const CLONE_THREAD: u64 = 0x0001_0000;
    // Threads have the label of the first.
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
    // Of those that share memory one is excepted: the first.
    let inherits = label.flags & (Label::HANDS_ON | Label::GUARDED) == Label::HANDS_ON && !shares_memory;
    let flags = if inherits {
        label.flags | Label::INHERITED
    } else {
        let shares_memory = if shares_memory { Label::SHARES_MEMORY } else { 0 };
        label.flags & Label::INHERITED | Label::GUARDED | shares_memory
    };
    set(Task::from_argument(task), Label { flags, ..label })
}

/// `ptrace_access_check(child, mode)`: somebody wants a process's memory, registers or descriptors.
#[lsm(hook = "ptrace_access_check")]
pub fn ptrace_access_check(ctx: LsmContext) -> i32 {
    let earlier: u64 = ctx.arg(2);
    if earlier != 0 {
        return earlier as i32;
    }
    if on_ptrace_access(ctx.arg(0), ctx.arg(1), false) { 0 } else { -EPERM }
}

/// The current process wants to get at this one, in this way. Whether it may.
#[inline(always)]
pub fn on_ptrace_access(child: *const u8, mode: u32, sealed: bool) -> bool {
    const PTRACE_MODE_ATTACH: u32 = 2;
    mode & PTRACE_MODE_ATTACH == 0
        || hand_over(label_or_none(Task::current()), Task::from_argument(child).leader(), sealed)
}

/// `ptrace_traceme(parent)`: the process hands itself to its parent.
#[lsm(hook = "ptrace_traceme")]
pub fn ptrace_traceme(ctx: LsmContext) -> i32 {
    let earlier: u64 = ctx.arg(1);
    if earlier != 0 {
        return earlier as i32;
    }
    if on_ptrace_traceme(ctx.arg(0), false) { 0 } else { -EPERM }
}

/// The current process hands itself to this one. Whether it may.
#[inline(always)]
pub fn on_ptrace_traceme(parent: *const u8, sealed: bool) -> bool {
    hand_over(label_or_none(Task::from_argument(parent)), Task::current().leader(), sealed)
}

/// The label of a thread's process, or an empty one: also where uprobes may decide what the process does. No `Option`: the verifier does not
/// let programs copy what was never set.
#[inline(always)]
fn label_or_none(task: Task) -> Label {
    let process = task.leader();
    match of(process) {
        Some(label) if !process.has_uprobes() => *label,
        _ => Label::NONE,
    }
}

/// Whether a process may fall into these hands. A process that executes the same program may have it. Anybody else
/// may not where the policy is sealed; otherwise it costs the label.
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
    // The memory is also that of a process with an exception: usually of the one that made this one.
    let owner = process.parent().leader();
    match of(owner) {
        Some(label) if label.flags & Label::GUARDED == 0 && owner.shares_memory_with(process) => {
            label.flags |= Label::LOST;
            true
        }
        _ => false,
    }
}
