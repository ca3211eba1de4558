/*!
Counts requests that were not simply allowed, and writes events about them.

Counters are per processor and need no lock. The ring buffer takes a lock, so reasons in the policy's `quiet` set (kgdb, kdb and xmon ask
while every other processor is stopped) are only counted.
*/
use aya_ebpf::{
    helpers::{bpf_get_current_cgroup_id, generated::bpf_ktime_get_boot_ns},
    macros::map,
    maps::{PerCpuArray, RingBuf},
};
use core::{
    intrinsics::{AtomicOrdering, atomic_xadd},
    ptr::addr_of_mut,
};
use stockade_common::{
    COUNTERS, EVENT_BUFFER_BYTES, Event, LOST, NO_REASON, SETTINGS_AUDITED, SETTINGS_REFUSED, SettingEvent,
    Verdict, counter_index, decide::Decision,
};

use crate::task::{FileId, Task};

#[map]
static COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTERS, 0);

#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(EVENT_BUFFER_BYTES, 0);

/// The requester's executable and user, whose loads follow pointers. Read before the code branches: for each such load, on each path to it, the
/// verifier searches all types of the kernel by name.
#[derive(Clone, Copy)]
pub struct Who {
    exe: FileId,
    uid: u32,
}

impl Who {
    #[inline(always)]
    pub fn is(task: Task) -> Self {
        Self { exe: task.executable(), uid: task.uid() }
    }
}

#[inline(always)]
pub fn report(reason: u32, decision: Decision, quiet: bool, who: impl FnOnce(Task) -> Who) {
    count(counter_index(reason, decision.verdict));
    if quiet {
        return;
    }
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
        count(LOST);
        return;
    };
    // SAFETY: `event` is the reserved entry.
    unsafe {
        let event = entry.as_mut_ptr();
        tell_who(event, who);
        (*event).reason = reason;
        (*event).verdict = decision.verdict as u32;
        // One store for both, if they are constants.
        addr_of_mut!((*event).place)
            .cast::<u64>()
            .write(decision.place as u64 | (decision.shape as u64) << 32);
    }
    entry.submit(0);
}

/// A write to a held setting.
pub struct Write<'a> {
    /// The kernel's name of the setting.
    pub name: &'a [u64; 8],
    /// The beginning of the value.
    pub value: &'a [u64; 8],
    /// Length of the value in bytes, 0 if it is not known.
    pub length: u32,
    /// [`stockade_common::SettingRule::hold`].
    pub hold: u32,
}

#[inline(always)]
pub fn report_write(write: &Write<'_>, verdict: Verdict) {
    count(match verdict {
        Verdict::Refused => SETTINGS_REFUSED,
        _ => SETTINGS_AUDITED,
    });
    let Some(mut entry) = EVENTS.reserve::<SettingEvent>(0) else {
        count(LOST);
        return;
    };
    // SAFETY: `told` is the reserved entry; it and the fields written here are aligned to eight bytes.
    unsafe {
        let told = entry.as_mut_ptr();
        tell_who(addr_of_mut!((*told).event), Who::is);
        (*told).event.reason = NO_REASON;
        (*told).event.verdict = verdict as u32;
        addr_of_mut!((*told).event.place).cast::<u64>().write(0);
        addr_of_mut!((*told).name).cast::<[u64; 8]>().write(*write.name);
        addr_of_mut!((*told).value).cast::<[u64; 8]>().write(*write.value);
        (*told).hold = write.hold;
        (*told).length = write.length;
    }
    entry.submit(0);
}

/// Fills in the requester and the time. Writes each field into the buffer: the compiler would copy a local event byte by byte.
#[inline(always)]
unsafe fn tell_who(event: *mut Event, who: impl FnOnce(Task) -> Who) {
    // Calls come first: they clobber the registers that hold the loaded values.
    // SAFETY: the caller passes a reserved entry.
    unsafe {
        (*event).boot_ns = bpf_ktime_get_boot_ns();
        (*event).cgroup = bpf_get_current_cgroup_id();
        let task = Task::current();
        let who = who(task);
        (*event).exe_inode = who.exe.inode;
        (*event).exe_device = who.exe.device;
        (*event).pid = task.pid();
        (*event).tgid = task.tgid();
        (*event).uid = who.uid;
        // The entry and this field are aligned to eight bytes.
        addr_of_mut!((*event).comm).cast::<[u64; 2]>().write(task.comm());
    }
}

#[inline(always)]
pub fn count(index: u32) {
    if let Some(counter) = COUNTS.get_ptr_mut(index) {
        // SAFETY: an aligned cell of this processor, changed in this way only. Atomic, since a kernel with preemption may run another task between
        // a load and a store, and the store would then undo that task's increments.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, 1) };
    }
}
