/*!
The kernel's structures, as far as programs read them: tasks, their executables and cgroups, files.

Direct loads through BTF pointers only: `bpf_probe_read_kernel` is itself refused under the kernel's
own confidentiality level, and these programs must load there too. The offsets come from the running
kernel's BTF and are handed in before the programs are loaded, when the verifier takes them for
constants. They also cost a fraction of the helpers that fill the same fields: `bpf_get_current_comm`
alone is 110 instructions. A load through a null pointer of BTF type reads zero.
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

/// The task that asks.
#[derive(Clone, Copy)]
pub struct Task(*const u8);

/// Identity of a file; zero where there is none.
#[derive(Clone, Copy)]
pub struct FileId {
    pub inode: u64,
    pub device: u32,
}

impl Task {
    #[inline(always)]
    pub fn current() -> Self {
        // SAFETY: no arguments.
        Self(unsafe { bpf_get_current_task_btf() } as *const u8)
    }

    #[inline(always)]
    pub fn pid(self) -> u32 {
        // SAFETY: loads through BTF pointers read zero instead of faulting.
        unsafe { *field(self.0, &OFFSETS.task_pid) }
    }

    #[inline(always)]
    pub fn tgid(self) -> u32 {
        // SAFETY: as above.
        unsafe { *field(self.0, &OFFSETS.task_tgid) }
    }

    /// The name, in two words: the verifier takes loads of up to eight bytes.
    #[inline(always)]
    pub fn comm(self) -> [u64; 2] {
        // SAFETY: as above; the field has sixteen bytes.
        unsafe {
            let words: *const u64 = field(self.0, &OFFSETS.task_comm);
            [*words, *words.add(1)]
        }
    }

    /// The real user of the task's credentials, in the initial user namespace.
    #[inline(always)]
    pub fn uid(self) -> u32 {
        // SAFETY: as above.
        unsafe { *field(self.credentials(), &OFFSETS.cred_uid) }
    }

    /// The credentials it acts by.
    #[inline(always)]
    pub fn credentials(self) -> *const u8 {
        // SAFETY: as above.
        unsafe { *field(self.0, &OFFSETS.task_cred) }
    }

    #[inline(always)]
    pub fn executable(self) -> FileId {
        // SAFETY: as above.
        unsafe {
            if read_volatile(&raw const OFFSETS.task_mm) == 0 {
                return FileId { inode: 0, device: 0 };
            }
            // A kernel thread has no mm: no need to ask at each step, the rest of the chain reads zero.
            let mm: *const u8 = *field(self.0, &OFFSETS.task_mm);
            File(*field(mm, &OFFSETS.mm_exe_file)).id()
        }
    }

    /// The first thread of the task's process.
    #[inline(always)]
    pub fn leader(self) -> Self {
        // SAFETY: as above.
        Self(unsafe { *field(self.0, &OFFSETS.task_leader) })
    }

    #[inline(always)]
    pub fn is_traced(self) -> bool {
        // SAFETY: as above.
        unsafe { *field::<u32>(self.0, &OFFSETS.task_ptrace) != 0 }
    }

    /// Number of programs that it and its ancestors executed before.
    #[inline(always)]
    pub fn exec_id(self) -> u32 {
        // SAFETY: loads through BTF pointers read zero instead of faulting. The lower half of eight bytes.
        unsafe { *field(self.0, &OFFSETS.task_exec_id) }
    }

    /// The task that made it, or the one that took it over when that one ended.
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

    /// Whether both have the same memory.
    #[inline(always)]
    pub fn shares_memory_with(self, other: Self) -> bool {
        self.mm() == other.mm()
    }

    /// Whether the kernel has set a uprobe in its memory. The bit stays when the probe goes, until a breakpoint is hit that no
    /// probe belongs to.
    #[inline(always)]
    pub fn has_uprobes(self) -> bool {
        const MMF_HAS_UPROBES: u64 = 1 << 19;
        // SAFETY: a constant that the loader has written.
        if unsafe { read_volatile(&raw const OFFSETS.task_mm) } == 0 {
            // Nobody can tell.
            return true;
        }
        // SAFETY: loads through BTF pointers read zero instead of faulting.
        unsafe { *field::<u64>(self.mm(), &OFFSETS.mm_flags) & MMF_HAS_UPROBES != 0 }
    }

    /// Whether somebody answers system calls in the kernel's place: a seccomp filter with a listener. So is a task with more
    /// filters than are looked at.
    #[inline(always)]
    pub fn is_supervised(self) -> bool {
        const FILTERS: u32 = 32;
        // SAFETY: a constant that the loader has written.
        if unsafe { read_volatile(&raw const OFFSETS.filter_listener) } == 0 {
            // This kernel was built without filters.
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

    /// Whether the descriptors 0, 1 and 2 are open, as far as that can be seen: of a table of more than 64 descriptors nothing
    /// is known until the process has opened a file by itself.
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

    /// Its cgroup in the hierarchy of version 2.
    #[inline(always)]
    pub fn cgroup(self) -> Cgroup {
        // SAFETY: as above.
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

    /// How many cgroups are above it.
    #[inline(always)]
    pub fn level(self) -> u32 {
        // SAFETY: as above.
        unsafe { *field(self.0, &OFFSETS.cgroup_level) }
    }

    /// Whether it belongs to the default hierarchy (cgroup v2). Every task has a cgroup there, whose root is compared.
    #[inline(always)]
    pub fn is_on_default_hierarchy(self) -> bool {
        self.root() == Task::current().cgroup().root()
    }

    #[inline(always)]
    fn root(self) -> u64 {
        // SAFETY: loads through BTF pointers read zero instead of faulting. The pointer is only compared.
        unsafe { *field::<u64>(self.0, &OFFSETS.cgroup_root) }
    }

    /// Whether the kernel has released it (`CSS_RELEASED`): the last reference is gone.
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
        // SAFETY: as above.
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

    /// What is executed; for a script its interpreter.
    #[inline(always)]
    pub fn file(self) -> File {
        // SAFETY: as above.
        File(unsafe { *field(self.0, &OFFSETS.bprm_file) })
    }

    /// Where the strings of arguments and environment begin on the new stack.
    #[inline(always)]
    pub fn strings(self) -> u64 {
        // SAFETY: as above.
        unsafe { *field(self.0, &OFFSETS.bprm_strings) }
    }

    /// How many arguments there are.
    #[inline(always)]
    pub fn arguments(self) -> u32 {
        // SAFETY: as above.
        unsafe { *field(self.0, &OFFSETS.bprm_argc) }
    }

    /// Whether the process shares its root and working directory with another, which can then change both.
    #[inline(always)]
    pub fn shares_root(self) -> bool {
        const LSM_UNSAFE_SHARE: u32 = 1;
        // SAFETY: loads through BTF pointers read zero instead of faulting.
        unsafe { *field::<u32>(self.0, &OFFSETS.bprm_unsafe) & LSM_UNSAFE_SHARE != 0 }
    }

    /// How many variables there are.
    #[inline(always)]
    pub fn environment(self) -> u32 {
        // SAFETY: as above.
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
        // SAFETY: as above.
        unsafe { *field(self.0, &OFFSETS.file_inode) }
    }

    #[inline(always)]
    pub fn id(self) -> FileId {
        // SAFETY: as above.
        unsafe {
            let inode = self.inode();
            let superblock: *const u8 = *field(inode, &OFFSETS.inode_superblock);
            FileId {
                inode: *field(inode, &OFFSETS.inode_number),
                device: *field(superblock, &OFFSETS.superblock_device),
            }
        }
    }

    /// Whether fs-verity binds its content.
    #[inline(always)]
    pub fn has_verity(self) -> bool {
        const S_VERITY: u32 = 1 << 16;
        // SAFETY: as above.
        unsafe { *field::<u32>(self.inode(), &OFFSETS.inode_flags) & S_VERITY != 0 }
    }

    /// Whether this kernel keeps the digest of fs-verity where it can be read.
    #[inline(always)]
    pub fn can_read_digests() -> bool {
        // SAFETY: a constant that the loader has written.
        unsafe { read_volatile(&raw const OFFSETS.verity_digest) != 0 }
    }

    /// Whether fs-verity measured this digest. Only where [`File::can_read_digests`].
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

    /// Whether somebody has it open for writing. Executing it, which keeps writers out, counts as less than nobody.
    #[inline(always)]
    pub fn has_writer(self) -> bool {
        // SAFETY: loads through BTF pointers read zero instead of faulting.
        unsafe { *field::<i32>(self.inode(), &OFFSETS.inode_writers) > 0 }
    }

    /// Generation of the inode number.
    #[inline(always)]
    pub fn generation(self) -> u32 {
        // SAFETY: as above.
        unsafe { *field(self.inode(), &OFFSETS.inode_generation) }
    }

    /// Seconds of the change time.
    #[inline(always)]
    pub fn ctime(self) -> i64 {
        // SAFETY: as above.
        unsafe { *field(self.inode(), &OFFSETS.inode_ctime) }
    }

    /// Nanoseconds of the change time.
    #[inline(always)]
    pub fn ctime_nsec(self) -> u32 {
        // Since 6.13 the highest bit says whether somebody looked at the time.
        const QUERIED: u32 = 1 << 31;
        // SAFETY: as above.
        unsafe { *field::<u32>(self.inode(), &OFFSETS.inode_ctime_nsec) & !QUERIED }
    }
}

#[inline(always)]
pub unsafe fn field<T>(base: *const u8, offset: &'static u32) -> *const T {
    // SAFETY: the caller's. Volatile, since the value is replaced at load.
    unsafe { base.add(read_volatile(offset) as usize).cast() }
}
