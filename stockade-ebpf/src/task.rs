/*!
The kernel structures that the programs read: tasks, their executables and cgroups, files.

All loads go through BTF pointers: the kernel's own confidentiality level refuses `bpf_probe_read_kernel`, and these programs must load there,
too. The offsets come from the running kernel's BTF and are written before the programs are loaded, so that the verifier takes them for
constants. Loads also cost a fraction of the helpers that fill the same fields: `bpf_get_current_comm` alone is 110 instructions. A
load through a null pointer of BTF type reads zero.
*/
use aya_ebpf::{bindings::task_struct, helpers::generated::bpf_get_current_task_btf};
use core::ptr::read_volatile;
use stockade_common::Offsets;

/// Written by the loader.
#[unsafe(no_mangle)]
static OFFSETS: Offsets = Offsets {
    task_pid: 0,
    task_tgid: 0,
    task_comm: 0,
    task_cred: 0,
    cred_uid: 0,
    task_mm: 0,
    mm_exe_file: 0,
    file_inode: 0,
    inode_number: 0,
    inode_superblock: 0,
    superblock_device: 0,
    task_leader: 0,
    task_ptrace: 0,
    task_cgroups: 0,
    css_set_cgroup: 0,
    cgroup_level: 0,
    cgroup_node: 0,
    node_id: 0,
    cgroup_root: 0,
    cgroup_state: 0,
    state_flags: 0,
    bprm_file: 0,
    bprm_strings: 0,
    bprm_argc: 0,
    bprm_envc: 0,
    inode_flags: 0,
    inode_generation: 0,
    inode_ctime: 0,
    inode_ctime_nsec: 0,
    task_parent: 0,
    task_exec_id: 0,
    task_files: 0,
    files_next: 0,
    files_table: 0,
    files_open: 0,
    table_size: 0,
    mm_flags: 0,
    inode_writers: 0,
    bprm_unsafe: 0,
    task_seccomp: 0,
    seccomp_filter: 0,
    filter_earlier: 0,
    filter_listener: 0,
    inode_verity: 0,
    verity_digest: 0,
};

/// A task: `struct task_struct`.
#[derive(Clone, Copy)]
pub struct Task(*const u8);

/// Identity of a file; zero if there is none.
#[derive(Clone, Copy)]
pub struct FileId {
    pub inode: u64,
    pub device: u32,
}

impl Task {
    #[inline(always)]
    pub fn current() -> Self {
        // SAFETY: the helper has no arguments.
        Self(unsafe { bpf_get_current_task_btf() } as *const u8)
    }

    #[inline(always)]
    pub fn pid(self) -> u32 {
        // SAFETY: loads through BTF pointers read zero instead of faulting.
        unsafe { *field(self.0, &OFFSETS.task_pid) }
    }

    #[inline(always)]
    pub fn tgid(self) -> u32 {
        // SAFETY: loads through BTF pointers read zero instead of faulting.
        unsafe { *field(self.0, &OFFSETS.task_tgid) }
    }

    /// Returns the name in two words: the verifier allows loads of up to eight bytes.
    #[inline(always)]
    pub fn comm(self) -> [u64; 2] {
        // SAFETY: loads through BTF pointers read zero instead of faulting; the field has sixteen bytes.
        unsafe {
            let words: *const u64 = field(self.0, &OFFSETS.task_comm);
            [*words, *words.add(1)]
        }
    }

    /// Returns the real user id in the initial user namespace.
    #[inline(always)]
    pub fn uid(self) -> u32 {
        // SAFETY: loads through BTF pointers read zero instead of faulting.
        unsafe { *field(self.credentials(), &OFFSETS.cred_uid) }
    }

    /// Returns the credentials that the task acts with.
    #[inline(always)]
    pub fn credentials(self) -> *const u8 {
        // SAFETY: loads through BTF pointers read zero instead of faulting.
        unsafe { *field(self.0, &OFFSETS.task_cred) }
    }

    #[inline(always)]
    pub fn executable(self) -> FileId {
        // SAFETY: loads through BTF pointers read zero instead of faulting.
        unsafe {
            if read_volatile(&raw const OFFSETS.task_mm) == 0 {
                return FileId { inode: 0, device: 0 };
            }
            // A kernel thread has no mm: the following loads then read zero.
            let mm: *const u8 = *field(self.0, &OFFSETS.task_mm);
            File(*field(mm, &OFFSETS.mm_exe_file)).id()
        }
    }

    /// Returns the first thread of the task's process.
    #[inline(always)]
    pub fn leader(self) -> Self {
        // SAFETY: loads through BTF pointers read zero instead of faulting.
        Self(unsafe { *field(self.0, &OFFSETS.task_leader) })
    }

    #[inline(always)]
    pub fn is_traced(self) -> bool {
        // SAFETY: loads through BTF pointers read zero instead of faulting.
        unsafe { *field::<u32>(self.0, &OFFSETS.task_ptrace) != 0 }
    }

    /// Returns `self_exec_id`, which execve(2) increments and children inherit.
    #[inline(always)]
    pub fn exec_id(self) -> u32 {
        // SAFETY: loads through BTF pointers read zero instead of faulting. The lower half of eight bytes.
        unsafe { *field(self.0, &OFFSETS.task_exec_id) }
    }

    /// Returns the parent: the task that created this one, or the one that it was reparented to.
    #[inline(always)]
    pub fn parent(self) -> Self {
        // SAFETY: loads through BTF pointers read zero instead of faulting.
        Self(unsafe { *field(self.0, &OFFSETS.task_parent) })
    }

    #[inline(always)]
    fn mm(self) -> *const u8 {
        // SAFETY: loads through BTF pointers read zero instead of faulting.
        unsafe { *field(self.0, &OFFSETS.task_mm) }
    }

    /// Reports whether both tasks have the same memory.
    #[inline(always)]
    pub fn shares_memory_with(self, other: Self) -> bool {
        self.mm() == other.mm()
    }

    /// Reports whether a uprobe was set in the task's memory. The kernel's bit stays when the uprobe is removed, until a
    /// breakpoint without a uprobe is hit.
    #[inline(always)]
    pub fn has_uprobes(self) -> bool {
        const MMF_HAS_UPROBES: u64 = 1 << 19;
        // SAFETY: a constant that the loader has written.
        if unsafe { read_volatile(&raw const OFFSETS.task_mm) } == 0 {
            // Without the offset this is not known.
            return true;
        }
        // SAFETY: loads through BTF pointers read zero instead of faulting.
        unsafe { *field::<u64>(self.mm(), &OFFSETS.mm_flags) & MMF_HAS_UPROBES != 0 }
    }

    /// Reports whether a seccomp filter has a listener, which can answer system calls in the kernel's place. Also true for a task with more filters
    /// than are checked.
    #[inline(always)]
    pub fn is_supervised(self) -> bool {
        const FILTERS: u32 = 32;
        // SAFETY: a constant that the loader has written.
        if unsafe { read_volatile(&raw const OFFSETS.filter_listener) } == 0 {
            // This kernel has no seccomp filters.
            return false;
        }
        // SAFETY: loads through BTF pointers read zero instead of faulting.
        unsafe {
            let seccomp: *const u8 = field(self.0, &OFFSETS.task_seccomp);
            let mut filter: *const u8 = *field(seccomp, &OFFSETS.seccomp_filter);
            let mut at = 0;
            while at < FILTERS {
                if filter.is_null() {
                    return false;
                }
                if !(*field::<*const u8>(filter, &OFFSETS.filter_listener)).is_null() {
                    return true;
                }
                filter = *field(filter, &OFFSETS.filter_earlier);
                at += 1;
            }
        }
        true
    }

    /// Reports whether the descriptors 0, 1 and 2 are known to be open. Of a table of more than 64 descriptors this is not known until the
    /// process has opened a file.
    #[inline(always)]
    pub fn has_standard_descriptors(self) -> bool {
        const STANDARD: u64 = 0b111;
        const EMBEDDED: u32 = 64;
        // SAFETY: loads through BTF pointers read zero instead of faulting.
        unsafe {
            let files: *const u8 = *field(self.0, &OFFSETS.task_files);
            if *field::<u32>(files, &OFFSETS.files_next) > 2 {
                return true;
            }
            let table: *const u8 = *field(files, &OFFSETS.files_table);
            *field::<u32>(table, &OFFSETS.table_size) == EMBEDDED
                && *field::<u64>(files, &OFFSETS.files_open) & STANDARD == STANDARD
        }
    }

    /// Returns the task's cgroup in the v2 hierarchy.
    #[inline(always)]
    pub fn cgroup(self) -> Cgroup {
        // SAFETY: loads through BTF pointers read zero instead of faulting.
        unsafe {
            let css_set: *const u8 = *field(self.0, &OFFSETS.task_cgroups);
            Cgroup(*field(css_set, &OFFSETS.css_set_cgroup))
        }
    }

    #[inline(always)]
    pub fn from_argument(task: *const u8) -> Self {
        Self(task)
    }

    #[inline(always)]
    pub fn pointer(self) -> *mut task_struct {
        self.0.cast_mut().cast()
    }
}

/// A cgroup.
#[derive(Clone, Copy)]
pub struct Cgroup(*const u8);

impl Cgroup {
    #[inline(always)]
    pub fn from_argument(cgroup: *const u8) -> Self {
        Self(cgroup)
    }

    /// Returns the number of the cgroup's ancestors.
    #[inline(always)]
    pub fn level(self) -> u32 {
        // SAFETY: loads through BTF pointers read zero instead of faulting.
        unsafe { *field(self.0, &OFFSETS.cgroup_level) }
    }

    /// Reports whether the cgroup belongs to the default hierarchy (v2), in which every task has a cgroup.
    #[inline(always)]
    pub fn is_on_default_hierarchy(self) -> bool {
        self.root() == Task::current().cgroup().root()
    }

    #[inline(always)]
    fn root(self) -> u64 {
        // SAFETY: loads through BTF pointers read zero instead of faulting. The pointer is only compared.
        unsafe { *field::<u64>(self.0, &OFFSETS.cgroup_root) }
    }

    /// Reports whether the kernel has released the cgroup (`CSS_RELEASED`): the last reference is gone.
    #[inline(always)]
    pub fn is_released(self) -> bool {
        const CSS_RELEASED: u32 = 1 << 2;
        // SAFETY: loads through BTF pointers read zero instead of faulting. `self` is embedded in the cgroup.
        unsafe {
            let state: *const u8 = field(self.0, &OFFSETS.cgroup_state);
            *field::<u32>(state, &OFFSETS.state_flags) & CSS_RELEASED != 0
        }
    }

    #[inline(always)]
    pub fn id(self) -> u64 {
        // SAFETY: loads through BTF pointers read zero instead of faulting.
        unsafe {
            let node: *const u8 = *field(self.0, &OFFSETS.cgroup_node);
            *field(node, &OFFSETS.node_id)
        }
    }
}

/// A program about to be executed: `struct linux_binprm`.
#[derive(Clone, Copy)]
pub struct Binprm(*const u8);

impl Binprm {
    #[inline(always)]
    pub fn from_argument(bprm: *const u8) -> Self {
        Self(bprm)
    }

    /// Returns the executed file; for a script its interpreter.
    #[inline(always)]
    pub fn file(self) -> File {
        // SAFETY: loads through BTF pointers read zero instead of faulting.
        File(unsafe { *field(self.0, &OFFSETS.bprm_file) })
    }

    /// Returns the address of the argument and environment strings on the new stack.
    #[inline(always)]
    pub fn strings(self) -> u64 {
        // SAFETY: loads through BTF pointers read zero instead of faulting.
        unsafe { *field(self.0, &OFFSETS.bprm_strings) }
    }

    /// Returns the number of arguments.
    #[inline(always)]
    pub fn arguments(self) -> u32 {
        // SAFETY: loads through BTF pointers read zero instead of faulting.
        unsafe { *field(self.0, &OFFSETS.bprm_argc) }
    }

    /// Reports whether the process shares its root and working directory with another, which can then change both.
    #[inline(always)]
    pub fn shares_root(self) -> bool {
        const LSM_UNSAFE_SHARE: u32 = 1;
        // SAFETY: loads through BTF pointers read zero instead of faulting.
        unsafe { *field::<u32>(self.0, &OFFSETS.bprm_unsafe) & LSM_UNSAFE_SHARE != 0 }
    }

    /// Returns the number of environment variables.
    #[inline(always)]
    pub fn environment(self) -> u32 {
        // SAFETY: loads through BTF pointers read zero instead of faulting.
        unsafe { *field(self.0, &OFFSETS.bprm_envc) }
    }
}

/// An open file.
#[derive(Clone, Copy)]
pub struct File(*const u8);

impl File {
    #[inline(always)]
    pub fn from_argument(file: *const u8) -> Self {
        Self(file)
    }

    #[inline(always)]
    pub fn inode(self) -> *const u8 {
        // SAFETY: loads through BTF pointers read zero instead of faulting.
        unsafe { *field(self.0, &OFFSETS.file_inode) }
    }

    #[inline(always)]
    pub fn id(self) -> FileId {
        // SAFETY: loads through BTF pointers read zero instead of faulting.
        unsafe {
            let inode = self.inode();
            let superblock: *const u8 = *field(inode, &OFFSETS.inode_superblock);
            FileId {
                inode: *field(inode, &OFFSETS.inode_number),
                device: *field(superblock, &OFFSETS.superblock_device),
            }
        }
    }

    /// Reports whether the file is under fs-verity.
    #[inline(always)]
    pub fn has_verity(self) -> bool {
        const S_VERITY: u32 = 1 << 16;
        // SAFETY: loads through BTF pointers read zero instead of faulting.
        unsafe { *field::<u32>(self.inode(), &OFFSETS.inode_flags) & S_VERITY != 0 }
    }

    /// Reports whether this kernel keeps fs-verity digests where programs can read them.
    #[inline(always)]
    pub fn can_read_digests() -> bool {
        // SAFETY: a constant that the loader has written.
        unsafe { read_volatile(&raw const OFFSETS.verity_digest) != 0 }
    }

    /// Reports whether fs-verity measured this digest. Only where [`File::can_read_digests`].
    #[inline(always)]
    pub fn has_digest(self, wanted: &[u64; 4]) -> bool {
        // SAFETY: loads through BTF pointers read zero instead of faulting; the field has 64 bytes.
        unsafe {
            let verity: *const u8 = *field(self.inode(), &OFFSETS.inode_verity);
            let digest: *const u64 = field(verity, &OFFSETS.verity_digest);
            *digest == wanted[0]
                && *digest.add(1) == wanted[1]
                && *digest.add(2) == wanted[2]
                && *digest.add(3) == wanted[3]
        }
    }

    /// Reports whether a process has the file open for writing. `i_writecount` is negative while the file is executed.
    #[inline(always)]
    pub fn has_writer(self) -> bool {
        // SAFETY: loads through BTF pointers read zero instead of faulting.
        unsafe { *field::<i32>(self.inode(), &OFFSETS.inode_writers) > 0 }
    }

    /// Returns `i_generation`.
    #[inline(always)]
    pub fn generation(self) -> u32 {
        // SAFETY: loads through BTF pointers read zero instead of faulting.
        unsafe { *field(self.inode(), &OFFSETS.inode_generation) }
    }

    /// Returns the seconds of the ctime.
    #[inline(always)]
    pub fn ctime(self) -> i64 {
        // SAFETY: loads through BTF pointers read zero instead of faulting.
        unsafe { *field(self.inode(), &OFFSETS.inode_ctime) }
    }

    /// Returns the nanoseconds of the ctime.
    #[inline(always)]
    pub fn ctime_nsec(self) -> u32 {
        // Since 6.13 the highest bit tells whether the time was queried.
        const QUERIED: u32 = 1 << 31;
        // SAFETY: loads through BTF pointers read zero instead of faulting.
        unsafe { *field::<u32>(self.inode(), &OFFSETS.inode_ctime_nsec) & !QUERIED }
    }
}

#[inline(always)]
pub unsafe fn field<T>(base: *const u8, offset: &'static u32) -> *const T {
    // SAFETY: the caller passes a BTF pointer and an offset within its type. Volatile, since the loader replaces the value.
    unsafe { base.add(read_volatile(offset) as usize).cast() }
}
