/*!
The BPF iterator over tasks. It writes one line of text for each task and a line `end`; `seal` reads them.

```text
list_tasks       process id, thread id, number of functions on the kernel stack and their names; no functions for a task
                 that is running on another processor; no line for a task that has exited
```

Another process can replace the program of the iterator's link. This program therefore stores in a map of the seal that it reached the end. It
lists nothing for other processes, since all readers would share one array of functions.
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
    guard::next_number,
    maps::{GUARD_OFFSETS, seen},
    task::{Task, field},
};

/// Default of kernel.perf_event_max_stack, plus one.
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

/// `bpf_iter_task(meta, task)`: one task, or null after the last.
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
    // SAFETY: loads through BTF pointers read zero instead of faulting; `seq` is the first field of `meta`. The helpers get a task and a file from
    // the kernel, and buffers with their sizes.
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
    // SAFETY: `seq` is the first field of `meta` from the kernel; the text has the given size.
    unsafe { bpf_seq_write(*meta, (&raw const END).cast(), size_of_val(&END) as u32) };
    // SAFETY: an aligned word of SEEN.
    unsafe { write_volatile(addr_of_mut!((*seen()).listed), next_number()) };
}

/// Reports whether the reader is the process that makes the seal.
#[inline(always)]
fn is_for_us() -> bool {
    // SAFETY: inside SEEN. The helper has no arguments.
    unsafe { read_volatile(addr_of!((*seen()).lister)) == bpf_get_current_pid_tgid() >> 32 }
}

/// # Safety
/// `file` must come from the kernel; `format` must take N words and end with a zero.
#[inline(always)]
unsafe fn print<const N: usize, const M: usize>(
    file: *mut seq_file,
    format: *const [u8; N],
    words: &[u64; M],
) {
    let data = words.as_ptr().cast::<c_void>();
    // SAFETY: the caller passes a file from the kernel and a matching format.
    unsafe { bpf_seq_printf(file, format.cast(), N as u32, data, size_of::<[u64; M]>() as u32) };
}
