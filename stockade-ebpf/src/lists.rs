/*!
The BPF iterator over tasks: `seal` reads what it writes, as text, one line for each task, and a line `end`.

```text
list_tasks       process, thread, number of functions on its kernel stack, their names; none for a task that is running on another processor;
                 not those that have ended
```

Another process can put its own program into the iterator's link. Ours stores in a map of the seal that it came to the end. It lists nothing for another
process, since there is one array for the functions of a task.
*/
use aya_ebpf::{
    bindings::{seq_file, task_struct},
    helpers::generated::{bpf_get_current_pid_tgid, bpf_get_task_stack, bpf_seq_printf, bpf_seq_write},
    macros::fentry,
    programs::FEntryContext,
};
use core::{
    ffi::c_void,
    ptr::{addr_of, addr_of_mut, read_volatile, write_volatile},
};

use crate::{
    anchor::seen,
    guard::{GUARD_OFFSETS, next_number},
    task::{Task, field},
};

/// As many functions as the kernel tells of by itself, and one more: kernel.perf_event_max_stack.
const FRAMES_MAX: usize = 128;

#[unsafe(link_section = ".data.frames")]
#[unsafe(no_mangle)]
static mut FRAMES: [u64; FRAMES_MAX] = [0; FRAMES_MAX];

#[unsafe(no_mangle)]
static TASK_LINE: [u8; 11] = *b"\n%u %u %ld\0";

#[unsafe(no_mangle)]
static FRAME: [u8; 5] = *b" %pB\0";

#[unsafe(no_mangle)]
static END: [u8; 5] = *b"\nend\n";

/// `bpf_iter_task(meta, task)`: one of them, or null behind the last.
#[fentry(function = "bpf_iter_task")]
pub fn list_tasks(ctx: FEntryContext) -> i32 {
    let (meta, task): (*const *mut seq_file, *mut task_struct) = (ctx.arg(0), ctx.arg(1));
    if !is_for_us() {
        return 0;
    }
    if task.is_null() {
        end(meta);
        return 0;
    }
    // SAFETY: loads through BTF pointers read zero instead of faulting.
    if unsafe { *field::<u32>(task.cast(), &GUARD_OFFSETS.exit_state) } != 0 {
        return 0;
    }
    let here = Task::from_argument(task.cast());
    // SAFETY: loads through BTF pointers read zero instead of faulting; the file is the first field. The helpers get a task and a file that the
    // kernel handed out, and areas of the sizes told.
    unsafe {
        let file = *meta;
        let frames = addr_of_mut!(FRAMES);
        let bytes = bpf_get_task_stack(task, frames.cast(), size_of::<[u64; FRAMES_MAX]>() as u32, 0);
        let count = bytes / 8;
        let line = [here.tgid() as u64, here.pid() as u64, count as u64];
        print(file, &raw const TASK_LINE, &line);
        let mut at = 0;
        while at < FRAMES_MAX {
            if at as i64 >= count {
                break;
            }
            print(file, &raw const FRAME, &*addr_of!((*frames)[at]).cast::<[u64; 1]>());
            at += 1;
        }
    }
    0
}

#[inline(always)]
fn end(meta: *const *mut seq_file) {
    // SAFETY: the file is the first field of what the kernel handed out; the text has the size told.
    unsafe { bpf_seq_write(*meta, (&raw const END).cast(), size_of_val(&END) as u32) };
    // SAFETY: points into what was seen; an aligned word.
    unsafe { write_volatile(addr_of_mut!((*seen()).listed), next_number()) };
}

/// Whether the process that makes the seal reads this.
#[inline(always)]
fn is_for_us() -> bool {
    // SAFETY: points into what was seen. The helper reads nothing of ours.
    unsafe { read_volatile(addr_of!((*seen()).lister)) == bpf_get_current_pid_tgid() >> 32 }
}

/// # Safety
/// The file has to be one that the kernel handed out, and the format one for so many words, with a zero at its end.
#[inline(always)]
unsafe fn print<const N: usize, const M: usize>(file: *mut seq_file, format: *const [u8; N], words: &[u64; M]) {
    let data = words.as_ptr().cast::<c_void>();
    // SAFETY: the caller's.
    unsafe { bpf_seq_printf(file, format.cast(), N as u32, data, size_of::<[u64; M]>() as u32) };
}
