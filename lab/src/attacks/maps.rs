//! Attacks that write into the maps that decisions read.

use std::{
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use stockade_common::{Policy, Words};

use super::{
    Attack, Attempt, Later, Outcome, Pins, Setting,
    bpf::{self, MapInfo, ObjectType, SOCKET_FILTER},
    calls::Running,
};
use crate::{guest::patience, syscall::descriptor};

/// A limit in seconds: an emulator needs some to start a program.
const PATIENCE: u64 = 20;

pub(super) const ATTACKS: &[Attack] = &[
    Attack::new("write-the-policy-by-id", "empty the policy in its map, found by id", Pins::Falls, || {
        empty_policies(bpf::objects(ObjectType::Map).into_iter().map(|(_, map)| map))
    }),
    Attack::new(
        "write-the-policy-by-pin",
        "empty the policy in its map, opened by its pin",
        Pins::Falls,
        || match bpf::open_pin(POLICY_PIN) {
            Ok(map) => empty_policies([map]),
            Err(error) => Attempt::refused(format!("{error:#}")),
        },
    ),
    Attack::prepared(
        "write-the-policy-by-a-kept-descriptor",
        "empty the policy by a descriptor that was opened beforehand",
        Pins::Falls,
        || {
            let map = bpf::open_pin(POLICY_PIN)?;
            Ok(Box::new(move || empty_policies([map])))
        },
    ),
    Attack::prepared(
        "write-the-policy-in-memory",
        "map the policy into memory for writing, beforehand",
        Pins::Holds,
        in_memory,
    ),
    Attack::new(
        "write-the-policy-by-a-stolen-descriptor",
        "take the descriptors of a stockade watch that waits for events by pidfd_getfd, and empty the policy by them",
        Pins::Holds,
        steal,
    ),
    Attack::new("zero-every-map", "write zeros into every map that can be opened", Pins::Falls, || {
        every_map(|map, info| {
            let zeros = vec![0; info.value.next_multiple_of(8) * processors()?];
            let keys = 0..info.entries.min(1024);
            Ok(keys.filter(|key| bpf::update(map, &key.to_ne_bytes(), &zeros).is_ok()).count())
        })
    }),
    Attack::new("delete-from-every-map", "delete what can be deleted from every map", Pins::Holds, || {
        every_map(|map, info| {
            let mut deleted = 0;
            while let Ok(key) = bpf::first_key(map, info.key)
                && bpf::delete(map, &key).is_ok()
            {
                deleted += 1;
            }
            Ok(deleted)
        })
    })
    .under(Setting::Exceptions),
    Attack::new(
        "write-an-exception",
        "put the root cgroup where an exception holds",
        Pins::Falls,
        except_all,
    )
    .under(Setting::Exceptions)
    .refused_when_sealed(),
    Attack::new(
        "change-maps-by-a-program",
        "load a program of a kind that stays allowed, which changes a map that decisions read",
        Pins::Holds,
        // Without places in the policy no decision reads CGROUPS: the next attack covers it. `st_newest` tells `seal` the newest id before
        // the seal is made.
        || changed_by_a_program(&["COUNTS", "DESK", "CGROUPS", "st_newest"]),
    )
    .refused_when_sealed(),
    Attack::new(
        "change-places-by-a-program",
        "the same where a policy with exceptions is in force",
        Pins::Holds,
        || changed_by_a_program(&["COUNTS", "DESK", "st_newest"]),
    )
    .under(Setting::Exceptions)
    .refused_when_sealed(),
    Attack::new(
        "freeze-every-map",
        "freeze every map, so that nothing can be changed any more",
        Pins::Holds,
        || every_map(|map, _| Ok(usize::from(bpf::freeze(map).is_ok()))),
    ),
];

const POLICY_PIN: &str = "/sys/fs/bpf/stockade/policy";

/// Removes every refusal from those of these maps that are policies.
pub(super) fn empty_policies(maps: impl IntoIterator<Item = OwnedFd>) -> Result<Attempt> {
    let (mut written, mut refused) = (0, "no map is a policy".to_owned());
    for map in maps {
        // A descriptor of anything but a map has no such info.
        let Ok(info) = bpf::map_info(&map) else { continue };
        if info.value != size_of::<Policy>() || info.key != 4 {
            continue;
        }
        match keep(&map, 0) {
            Ok(()) => written += 1,
            Err(error) => refused = format!("{}: {error}", info.name),
        }
    }
    if written == 0 { Attempt::refused(refused) } else { Attempt::through() }
}

/// Removes every refusal, except for these reasons, from one map, which has to be a policy.
pub(super) fn keep(map: &OwnedFd, reasons: u64) -> io::Result<()> {
    let info = bpf::map_info(map)?;
    if info.value != size_of::<Policy>() || info.key != 4 {
        return Err(io::Error::other("it is no policy"));
    }
    let key = 0_u32.to_ne_bytes();
    let mut bytes = bpf::lookup(map, &key, size_of::<Policy>())?;
    // SAFETY: `bytes` has the size of a Policy, which consists of integers, so any bytes are valid.
    let mut policy: Policy = unsafe { bytes.as_ptr().cast::<Policy>().read_unaligned() };
    for slot in &mut policy.slots {
        let was = slot.words;
        slot.words = Words {
            watched_anywhere: was.watched_anywhere & reasons,
            watched: was.watched & reasons,
            deny: was.deny & reasons,
            generation: was.generation,
            ..Words::default()
        };
    }
    // SAFETY: `bytes` has the size of a Policy, whose padding is explicit, so that all bytes written are initialized.
    unsafe { bytes.as_mut_ptr().cast::<Policy>().write_unaligned(policy) };
    bpf::update(map, &key, &bytes)
}

/// Maps the policy into memory. The kernel allows this only for arrays that were created with BPF_F_MMAPABLE.
fn in_memory() -> Result<Later> {
    let map = bpf::open_pin(POLICY_PIN)?;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the kernel chooses a free address, and the descriptor is open.
    let place =
        unsafe { libc::mmap(std::ptr::null_mut(), 4096, access, libc::MAP_SHARED, map.as_raw_fd(), 0) };
    let error = io::Error::last_os_error();
    let place = place as usize;
    Ok(Box::new(move || {
        if place == libc::MAP_FAILED as usize {
            return Attempt::refused(format!("the map cannot be mapped: {error}"));
        }
        // SAFETY: the mapping is writable and larger than a policy, and no reference of this process points into it.
        unsafe { std::ptr::write_bytes(place as *mut u8, 0, size_of::<Policy>()) };
        Attempt::through()
    }))
}

/// Waits until a program sleeps in poll(2): while it starts it has the policy open for a moment, as every command has.
fn wait_in_poll(program: &Running) -> Result<()> {
    let path = format!("/proc/{}/syscall", program.pid());
    let call = format!("{} ", libc::SYS_poll);
    let begin = Instant::now();
    while !fs::read_to_string(&path).with_context(|| format!("read {path}"))?.starts_with(&call) {
        ensure!(begin.elapsed() < patience(PATIENCE), "{path} does not come to poll(2) in {PATIENCE} s");
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn steal() -> Result<Attempt> {
    let watch = Running::new(Command::new("/bin/stockade").arg("watch"))?;
    wait_in_poll(&watch)?;
    // SAFETY: takes numbers only.
    let process = descriptor(unsafe { libc::syscall(libc::SYS_pidfd_open, watch.pid(), 0) })
        .context("open the process of stockade watch")?;
    let stolen: Vec<_> = (3..64)
        .filter_map(|fd| {
            // SAFETY: takes numbers only.
            descriptor(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), fd, 0) }).ok()
        })
        .collect();
    if stolen.is_empty() {
        return Attempt::refused("stockade watch has no descriptors that could be taken");
    }
    Ok(empty_policies(stolen)?.holding(watch))
}

/// Changes every map, and reports whether anything was changed.
fn every_map(change: impl Fn(&OwnedFd, &MapInfo) -> Result<usize>) -> Result<Attempt> {
    let mut changed = 0;
    for (_, map) in bpf::objects(ObjectType::Map) {
        changed += change(&map, &bpf::map_info(&map)?)?;
    }
    if changed == 0 { Attempt::refused("nothing could be changed") } else { Attempt::through() }
}

/// Returns the number of possible processors: a per-CPU map needs a value for each.
fn processors() -> Result<usize> {
    let possible = fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let last = possible.trim().rsplit(['-', ',']).next().context("there is a processor")?;
    Ok(last.parse::<usize>()? + 1)
}

/// Gives the root cgroup the entry of the excepted cgroup.
fn except_all() -> Result<Attempt> {
    let root = fs::metadata("/sys/fs/cgroup")?.ino();
    let mut answer: Attempt = Outcome::Refused("no map of cgroups can be opened".into()).into();
    for (_, map) in bpf::objects(ObjectType::Map) {
        let info = bpf::map_info(&map)?;
        if info.name != "CGROUPS" {
            continue;
        }
        let written = bpf::first_key(&map, info.key).and_then(|key| {
            let value = bpf::lookup(&map, &key, info.value)?;
            let mut of_root = key;
            of_root[8..16].copy_from_slice(&root.to_ne_bytes());
            bpf::update(&map, &of_root, &value)
        });
        answer = Attempt::from_result(written)?;
        if answer.outcome == Outcome::Through {
            break;
        }
    }
    Ok(answer)
}

/// Loads a program that deletes from each map, to see whether the verifier allows it, and never runs it. `harmless` are maps without effect
/// on decisions.
fn changed_by_a_program(harmless: &[&str]) -> Result<Attempt> {
    let mut through = Vec::new();
    for (_, map) in bpf::objects(ObjectType::Map) {
        let info = bpf::map_info(&map)?;
        if harmless.contains(&info.name.as_str()) || info.key == 0 {
            continue;
        }
        if bpf::load(SOCKET_FILTER, &bpf::deletes_from(&map, info.key), &bpf::Extra::default()).is_ok() {
            through.push(info.name);
        }
    }
    if through.is_empty() {
        return Attempt::refused("for every map");
    }
    println!("a program may change: {}", through.join(", "));
    Attempt::through()
}
