/*!
The kernel side of Stockade. Each file has one duty; this one joins them.

```text
decide    locked_down                                   decides every request
place     cgroup_mkdir, cgroup_release                  places of new cgroups, for policies with scopes
label     bprm_committed_creds, task_alloc,             for policies with exceptions by program
          ptrace_access_check, ptrace_traceme
settings  cgroup_sysctl                                 for policies that hold settings
anchor    locked_down and the hooks of labels           the same programs, sealed
guard     bpf, bpf_prog, bpf_map, file_open             protects the sealed programs and maps
dialogue  bpf                                           reads a seal and adds to it
stacked   bpf                                           adds policies with scopes or exceptions
lists     iterator over tasks                           shows whether a process is writing a setting
```
*/
#![no_std]
#![no_main]
#![allow(
    internal_features,
    reason = "BPF has an atomic addition, and core has no stable function for it on this target"
)]
#![feature(core_intrinsics)]

mod anchor;
mod bytes;
mod decide;
mod dialogue;
mod guard;
mod harmless;
mod label;
mod lists;
mod maps;
mod place;
mod report;
mod settings;
mod stacked;
mod task;

/// The verifier lets only GPL-compatible programs call the helpers that events need.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
