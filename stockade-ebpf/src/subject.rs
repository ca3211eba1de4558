/*!
Who asks: the executable of the current task.

Direct loads through BTF pointers only: `bpf_probe_read_kernel` is itself refused under the kernel's
own confidentiality level, and this program must load there too. The offsets come from the running
kernel's BTF and are handed in before the program is loaded, when the verifier takes them for
constants. Zero means that this kernel has no such field: the executable then stays unknown.
*/
use aya_ebpf::helpers::generated::bpf_get_current_task_btf;
use core::ptr::read_volatile;

#[unsafe(no_mangle)]
static TASK_MM: u32 = 0;
#[unsafe(no_mangle)]
static MM_EXE_FILE: u32 = 0;
#[unsafe(no_mangle)]
static FILE_INODE: u32 = 0;
#[unsafe(no_mangle)]
static INODE_NUMBER: u32 = 0;
#[unsafe(no_mangle)]
static INODE_SUPERBLOCK: u32 = 0;
#[unsafe(no_mangle)]
static SUPERBLOCK_DEVICE: u32 = 0;

/// Identity of an executable; zero where there is none.
pub struct Executable {
    pub inode: u64,
    pub device: u32,
}

#[inline(always)]
pub fn executable() -> Executable {
    let mut exe = Executable { inode: 0, device: 0 };
    // SAFETY: loads through BTF pointers read zero instead of faulting.
    unsafe {
        let task = bpf_get_current_task_btf() as *const u8;
        let mm = pointer(task, &TASK_MM);
        if mm.is_null() {
            return exe;
        }
        let file = pointer(mm, &MM_EXE_FILE);
        if file.is_null() {
            return exe;
        }
        let inode = pointer(file, &FILE_INODE);
        if inode.is_null() {
            return exe;
        }
        exe.inode = *inode.add(offset(&INODE_NUMBER)).cast::<u64>();
        let superblock = pointer(inode, &INODE_SUPERBLOCK);
        if !superblock.is_null() {
            exe.device = *superblock.add(offset(&SUPERBLOCK_DEVICE)).cast::<u32>();
        }
    }
    exe
}

#[inline(always)]
unsafe fn pointer(base: *const u8, field: &'static u32) -> *const u8 {
    // SAFETY: the caller's.
    unsafe { *base.add(offset(field)).cast::<*const u8>() }
}

#[inline(always)]
fn offset(field: &'static u32) -> usize {
    // SAFETY: a static of this file. Volatile, since the value is replaced at load.
    unsafe { read_volatile(field) as usize }
}
