/*!
Counts what was not simply allowed, and tells user space about it.

Counters are per processor and need no lock. The ring buffer takes one: reasons in the policy's
`quiet` set (kgdb, kdb and xmon ask while every other processor is stopped) are only counted.
*/
use aya_ebpf::{
    helpers::{
        bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
        generated::{bpf_get_current_comm, bpf_ktime_get_boot_ns},
    },
    macros::map,
    maps::{PerCpuArray, RingBuf},
};
use core::ptr::addr_of_mut;
use stockade_common::{COUNTERS, EVENT_BUFFER_BYTES, Event, LOST, Verdict, counter_index};

use crate::subject::executable;

#[map]
static COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTERS, 0);

#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(EVENT_BUFFER_BYTES, 0);

#[inline(always)]
pub fn report(reason: u32, verdict: Verdict, quiet: bool) {
    count(counter_index(reason, verdict));
    if quiet {
        return;
    }
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
        count(LOST);
        return;
    };
    // Field by field, straight into the buffer: a whole event built first would be copied byte by byte.
    let event = entry.as_mut_ptr();
    let ids = bpf_get_current_pid_tgid();
    let exe = executable();
    // SAFETY: `event` is the reserved entry; the helpers take no more than they are given.
    unsafe {
        (*event).boot_ns = bpf_ktime_get_boot_ns();
        (*event).cgroup = bpf_get_current_cgroup_id();
        (*event).exe_inode = exe.inode;
        (*event).exe_device = exe.device;
        (*event).reason = reason;
        (*event).pid = ids as u32;
        (*event).tgid = (ids >> 32) as u32;
        (*event).uid = bpf_get_current_uid_gid() as u32;
        (*event).verdict = verdict as u32;
        let comm = addr_of_mut!((*event).comm);
        bpf_get_current_comm(comm.cast(), size_of::<[u8; 16]>() as u32);
    }
    entry.submit(0);
}

#[inline(always)]
fn count(index: u32) {
    if let Some(counter) = COUNTS.get_ptr_mut(index) {
        // SAFETY: this processor's own cell; the program does not migrate while it runs. An interrupt
        // that asks for lockdown in between could lose one count, never corrupt it.
        unsafe { *counter += 1 };
    }
}
