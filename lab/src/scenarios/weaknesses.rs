//! The attacks that SECURITY.md lists as not prevented: each works, and `status` reports it. If a scenario fails because its attack fails, the page
//! has to be changed.

use std::{
    ffi::CString,
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use anyhow::{Context, Result, ensure};
use stockade_common::{Policy, Words};

use super::{lift_all, waiting::until};
use crate::{
    guest::Guest,
    program::stockade,
    scenario::{Boot, Depends, Scenario},
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "weakness: a policy written through bpf(2) counts, and status shows it",
        boot: Boot::Plain,
        depends: Depends::NewestSeries,
        run: write_maps,
    },
    Scenario {
        name: "weakness: without its BPF file system enforcement ends, and status says so",
        boot: Boot::Plain,
        depends: Depends::NewestSeries,
        run: unmount,
    },
];

fn kcore_opens() -> bool {
    File::open("/proc/kcore").is_ok()
}

/// Calls bpf(2) with attributes of four words.
fn bpf(command: i32, attributes: [u64; 4]) -> Result<i32> {
    // SAFETY: the attributes live through the call; the callers pass pointers to memory that outlives it and has the size that the command uses.
    let answer =
        unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(&attributes)) };
    ensure!(answer >= 0, "bpf({command}): {}", io::Error::last_os_error());
    i32::try_from(answer).context("descriptors fit an int")
}

/// Clears every refusal in the pinned policy map, and leaves its other fields.
fn write_maps(_: &Guest) -> Result<()> {
    const GET: i32 = 7;
    const LOOKUP: i32 = 1;
    const UPDATE: i32 = 2;
    lift_all()?;
    stockade(&["enforce", "confidentiality"])?.exits(0)?;
    let path = CString::new("/sys/fs/bpf/stockade/policy")?;
    let map = bpf(GET, [path.as_ptr() as u64, 0, 0, 0])?;
    // SAFETY: the kernel has just created the descriptor, and nothing else owns it.
    let map = unsafe { OwnedFd::from_raw_fd(map) };
    let fd = u64::from(map.as_raw_fd().cast_unsigned());
    let key = 0_u32;
    let mut policy = std::mem::MaybeUninit::<Policy>::zeroed();
    bpf(LOOKUP, [fd, &raw const key as u64, policy.as_mut_ptr() as u64, 0])?;
    // SAFETY: the policy has integers only, and the memory is zeroed and written by the kernel.
    let mut policy = unsafe { policy.assume_init() };
    for slot in &mut policy.slots {
        slot.words = Words { generation: slot.words.generation, ..Words::default() };
    }
    bpf(UPDATE, [fd, &raw const key as u64, &raw const policy as u64, 0])?;
    ensure!(kcore_opens(), "the map was written, and kcore is still refused");
    let status = stockade(&["status", "--json"])?.exits(0)?.json()?;
    ensure!(status["stockade"]["refused"].as_array().is_some_and(Vec::is_empty), "status hides it: {status}");
    // The map no longer has the applied policy, so `enforce` writes it again.
    stockade(&["enforce", "confidentiality"])?.exits(0)?.says("In force: confidentiality")?;
    ensure!(!kcore_opens(), "enforcing anew did not take");
    Ok(())
}

fn unmount(_: &Guest) -> Result<()> {
    lift_all()?;
    stockade(&["enforce", "confidentiality"])?.exits(0)?;
    // SAFETY: the path is a NUL-terminated constant.
    let answer = unsafe { libc::umount2(c"/sys/fs/bpf".as_ptr(), libc::MNT_DETACH) };
    ensure!(answer == 0, "umount -l /sys/fs/bpf: {}", io::Error::last_os_error());
    let ended = until("the end of enforcement without its pins", || Ok(kcore_opens()));
    let told = stockade(&["status"])?;
    // SAFETY: the strings are NUL-terminated constants, and no data is passed.
    let answer = unsafe {
        libc::mount(c"bpf".as_ptr(), c"/sys/fs/bpf".as_ptr(), c"bpf".as_ptr(), 0, std::ptr::null())
    };
    ensure!(answer == 0, "mount the BPF file system again: {}", io::Error::last_os_error());
    ended?;
    told.exits(2)?.says("no BPF file system is mounted")?;
    stockade(&["status"])?.exits(1)?.says("enforces nothing")?;
    stockade(&["enforce", "confidentiality"])?.exits(0)?;
    ensure!(!kcore_opens(), "enforcing anew did not take");
    Ok(())
}
