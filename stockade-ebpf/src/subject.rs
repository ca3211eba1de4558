/*!
Who asks: the current task, its user and its executable.

Direct loads through BTF pointers only: `bpf_probe_read_kernel` is itself refused under the kernel's
own confidentiality level, and this program must load there too. The offsets come from the running
kernel's BTF and are handed in before the program is loaded, when the verifier takes them for
constants. They also cost a fraction of the helpers that fill the same fields: `bpf_get_current_comm`
alone is 110 instructions.
*/
use aya_ebpf::helpers::generated::bpf_get_current_task_btf;
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
};

/// The task that asks.
#[derive(Clone, Copy)]
pub struct Task(*const u8);

/// Identity of an executable; zero where there is none.
pub struct Executable {
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
        unsafe {
            let cred: *const u8 = *field(self.0, &OFFSETS.task_cred);
            *field(cred, &OFFSETS.cred_uid)
        }
    }

    #[inline(always)]
    pub fn executable(self) -> Executable {
        let mut exe = Executable { inode: 0, device: 0 };
        // SAFETY: as above.
        unsafe {
            if read_volatile(&raw const OFFSETS.task_mm) == 0 {
                return exe;
            }
            // A kernel thread has no mm. No need to ask at each step: a load through a null pointer of
            // BTF type reads zero as well, which makes the rest of the chain null.
            let mm: *const u8 = *field(self.0, &OFFSETS.task_mm);
            let file: *const u8 = *field(mm, &OFFSETS.mm_exe_file);
            let inode: *const u8 = *field(file, &OFFSETS.file_inode);
            let superblock: *const u8 = *field(inode, &OFFSETS.inode_superblock);
            exe.inode = *field(inode, &OFFSETS.inode_number);
            exe.device = *field(superblock, &OFFSETS.superblock_device);
        }
        exe
    }
}

#[inline(always)]
unsafe fn field<T>(base: *const u8, offset: &'static u32) -> *const T {
    // SAFETY: the caller's. Volatile, since the value is replaced at load.
    unsafe { base.add(read_volatile(offset) as usize).cast() }
}
