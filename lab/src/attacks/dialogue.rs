//! Attacks that use the dialogue with the seal, as Stockade does, and attacks that open maps and programs while the seal is made.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use stockade_common::{
    Added, Exception, ExceptionKey, Sets, SettingKey, SettingRule, Slot, Stacked, Until, Words,
    dialogue::{
        ADD, ANNOUNCE, BYTE, COMMAND, COMMIT, Commit, DONE, HOLD, NewSetting, Question, REVOKE, Revoked,
        STACKED, WRITE, table,
    },
};

use super::{
    Attack, Attempt, Later, Pins, Setting,
    anchors::roots,
    bpf::{self, ObjectType},
    maps::empty_policies,
    prepared,
};
use crate::syscall::descriptor;

pub(super) const ATTACKS: &[Attack] = &[
    Attack::prepared(
        "catch-the-maps-of-a-seal",
        "open every map by its id again and again while the seal is made, and empty by these descriptors what is a policy",
        Pins::Falls,
        catch,
    ),
    Attack::prepared(
        "catch-the-programs-of-a-seal",
        "open every program and every link by its id again and again while the seal is made, detach the links, put programs of root's into them, and \
         take the programs off the root cgroup by these descriptors",
        Pins::Holds,
        catch_programs,
    ),
    Attack::prepared(
        "take-the-descriptors-of-the-command-that-seals",
        "take every BPF map from the command that seals by pidfd_getfd, again and again while it runs, and empty what is a policy",
        Pins::Holds,
        take_from_the_command,
    ),
    Attack::new(
        "add-nothing-by-the-dialogue",
        "tell the seal that nothing is added, in the name of a laxer policy and of a stricter one",
        Pins::Holds,
        || {
            let told = |level| Slot { level, digest: 1, ..Slot::default() };
            say(ADD, &[0, 2].map(|level| Added { told: told(level), ..Added::NONE }))
        },
    ),
    Attack::new(
        "hold-a-setting-less-by-the-dialogue",
        "tell the seal to hold kernel.ftrace_enabled in weaker ways",
        Pins::Holds,
        || {
            let key = |generation| SettingKey::new(generation, "kernel/ftrace_enabled");
            let rules = [(SettingRule::FREEZE, 1), (SettingRule::RATCHET, 0), (0, 0), (7, 0)];
            let mut questions = Vec::new();
            for generation in 0..4 {
                for (hold, audit) in rules {
                    let rule =
                        SettingRule { hold, audit, kind: SettingRule::LOWER, ..SettingRule::default() };
                    questions.push(NewSetting { key: key(generation).context("a short name")?, rule });
                }
            }
            say(HOLD, &questions)
        },
    ),
    Attack::new(
        "revoke-nothing-by-the-dialogue",
        "tell the seal to end exceptions that nobody has",
        Pins::Holds,
        || {
            let ends = Exception { always: u64::MAX, inherited: u64::MAX, timed: u64::MAX };
            let key = |generation| ExceptionKey { generation, uid: u32::MAX, ..ExceptionKey::default() };
            say(REVOKE, &[1, 2, 3].map(|generation| Revoked { key: key(generation), ends }))
        },
    ),
    Attack::new(
        "add-exceptions-by-the-dialogue",
        "add a policy to the seal that refuses nothing, excepts root from everything, and says that the root cgroup is let through",
        Pins::Holds,
        || if add_lax(&lax())? == DONE { Attempt::through() } else { Attempt::refused("it was not added") },
    )
    .under(Setting::Exceptions),
    Attack::new(
        "write-into-what-decides-by-the-dialogue",
        "write exceptions into the policy that was sealed and into those that were added",
        Pins::Holds,
        || {
            let mut generations: Vec<u64> = (0..8).collect();
            add_lax(&Slot::default())?;
            let written = stacked(std::mem::offset_of!(Stacked, written))?.unwrap_or_default();
            generations.extend((0..=written + 8).map(|written| Stacked::FIRST + written));
            let done = generations.into_iter().flat_map(entries).filter(|(table, entry)| write(*table, entry) == DONE);
            match done.count() {
                0 => Attempt::refused("no entry was written"),
                _ => Attempt::through(),
            }
        },
    )
    .under(Setting::Exceptions)
    .refused_when_sealed(),
    Attack::new(
        "talk-nonsense-to-the-seal",
        "ask the seal what it does not know, at every address",
        Pins::Holds,
        || {
            let mut answers = Vec::new();
            for what in (0..64).chain([u32::MAX]) {
                for from in [[0, 0], [1, 0], [u32::MAX; 2], [0, 0x8000_0000]] {
                    let at = what.wrapping_mul(97);
                    answers.push(errno(&mut Question { what, at, from }));
                }
            }
            answers.sort_unstable();
            answers.dedup();
            Attempt::refused(format!("{answers:?}"))
        },
    ),
];

/// Returns a policy that refuses nothing and excepts root.
fn lax() -> Slot {
    const BY_UID: u32 = 1 << 1;
    let words = Words {
        watched_anywhere: u64::MAX,
        watched: u64::MAX,
        excepted: u64::MAX,
        shapes: BY_UID,
        places: 1,
        ..Words::default()
    };
    Slot { words, ..Slot::default() }
}

/// Adds a policy to the seal, with entries that let every process through. Returns the answer.
pub(crate) fn add_lax(slot: &Slot) -> Result<u32> {
    say(ANNOUNCE, &[()])?;
    let Some(generation) = stacked(std::mem::offset_of!(Stacked, pending))? else { return Ok(0) };
    for (table, entry) in entries(generation) {
        write(table, &entry);
    }
    let written = stacked(std::mem::offset_of!(Stacked, written))?.context("it was announced")?;
    let words = Words { generation, ..slot.words };
    Ok(answer(COMMIT, 0, &Commit { slot: Slot { words, ..*slot }, written }))
}

/// Returns entries that let root, and every process in the root cgroup, through.
fn entries(generation: u64) -> Vec<(u32, Vec<u8>)> {
    const ROOT: u64 = 1;
    let key = ExceptionKey { generation, uid: 0, ..ExceptionKey::default() };
    let all = Exception { always: u64::MAX, inherited: u64::MAX, timed: u64::MAX };
    let until = Until { itself: u64::MAX, inherited: u64::MAX };
    let place = Sets { place: 1, ..Sets::default() };
    let words = |words: &[u64]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
    let subject = [
        generation,
        key.inode,
        u64::from(key.device) | u64::from(key.place) << 32,
        u64::from(key.uid) | u64::from(key.pad) << 32,
    ];
    vec![
        (table::EXCEPTIONS, words(&[&subject[..], &[all.always, all.inherited, all.timed]].concat())),
        (table::UNTIL, words(&[&subject[..], &[1, until.itself, until.inherited]].concat())),
        (table::CGROUPS, words(&[generation, ROOT, place.watched, place.deny, u64::from(place.place)])),
    ]
}

/// Writes an entry, which is a key followed by its value. Returns the answer.
fn write(table: u32, entry: &[u8]) -> u32 {
    answer(WRITE, table, &entry[0])
}

/// Returns a word of the seal's [`Stacked`], or none where there is no seal with room.
fn stacked(at: usize) -> Result<Option<u64>> {
    let mut word = 0;
    for byte in 0..8 {
        let code = answer(STACKED, u32::try_from(at + byte)?, &0_u8);
        if !(BYTE..DONE).contains(&code) {
            return Ok(None);
        }
        word |= u64::from(code - BYTE) << (8 * byte);
    }
    Ok(Some(word))
}

/// Opens the maps that are created from now on until the seal is complete. Later no process gets a descriptor, and the attacks that are
/// played before this one need the processor.
fn catch() -> Result<Later> {
    let before = bpf::ids(ObjectType::Map).into_iter().max().unwrap_or(0);
    // The maps that exist already are included.
    let mut caught: Vec<OwnedFd> = bpf::objects(ObjectType::Map).into_iter().map(|(_, map)| map).collect();
    ensure!(!caught.is_empty(), "no map is there to begin with, and one of a policy in force should be");
    let over = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&over);
    let thread = thread::spawn(move || {
        let mut newest = before;
        while !seen.load(Ordering::Relaxed) && !prepared::is_sealed() {
            for id in bpf::ids(ObjectType::Map).into_iter().filter(|id| *id > newest).collect::<Vec<_>>() {
                if let Ok(map) = bpf::by_id(ObjectType::Map, id) {
                    newest = newest.max(id);
                    caught.push(map);
                }
            }
        }
        caught
    });
    Ok(Box::new(move || {
        over.store(true, Ordering::Relaxed);
        let caught = thread.join().map_err(|_| anyhow::anyhow!("the thread died"))?;
        println!("{} maps caught", caught.len());
        empty_policies(caught)
    }))
}

/// Opens the programs and links that are created from now on, tries to detach and update each link, and later to detach each program from
/// the root cgroup.
fn catch_programs() -> Result<Later> {
    let before = [ObjectType::Program, ObjectType::Link]
        .map(|what| (what, bpf::ids(what).into_iter().max().unwrap_or(0)));
    let of_ours = bpf::load_for(bpf::LSM, "bpf_lsm_inode_rename", 0)?.context("load a program of root's")?;
    let over = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&over);
    let thread = thread::spawn(move || {
        let (mut newest, mut caught) = (before, Vec::new());
        while !seen.load(Ordering::Relaxed) && !prepared::is_sealed() {
            for (what, newest) in &mut newest {
                for id in bpf::ids(*what).into_iter().filter(|id| id > newest).collect::<Vec<_>>() {
                    let Ok(object) = bpf::by_id(*what, id) else { continue };
                    *newest = id;
                    if *what == ObjectType::Link {
                        let _ = bpf::update_link(&object, &of_ours);
                        let _ = bpf::detach(&object);
                    } else {
                        caught.push(object);
                    }
                }
            }
        }
        caught
    });
    Ok(Box::new(move || {
        over.store(true, Ordering::Relaxed);
        let caught = thread.join().map_err(|_| anyhow::anyhow!("the thread died"))?;
        let names: Vec<_> = caught.iter().filter_map(|program| bpf::program_name(program).ok()).collect();
        println!("caught: {}", names.join(", "));
        let mut off = 0;
        for root in roots()? {
            for (program, kind) in
                caught.iter().flat_map(|program| [(program, bpf::LSM_CGROUP), (program, bpf::SYSCTL)])
            {
                off += usize::from(bpf::detach_from(&root, Some(program), kind).is_ok());
            }
        }
        Ok(if off == 0 { Attempt::refused("nothing was taken off")? } else { Attempt::through()? }
            .holding(caught))
    }))
}

/// Returns the process id of `stockade seal`.
fn command_that_seals() -> Option<i32> {
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let mut words = line.split(|byte| *byte == 0);
        (words.next()?.ends_with(b"stockade") && words.next()? == b"seal").then_some(pid)
    })
}

/// Reports whether a descriptor is that of a map.
fn is_map(descriptor: &OwnedFd) -> bool {
    let path = format!("/proc/self/fdinfo/{}", descriptor.as_raw_fd());
    std::fs::read_to_string(path).is_ok_and(|info| info.contains("map_id:"))
}

/// Takes descriptors from the command that seals until it has ended. A descriptor of anything but a map is closed at once: it would keep a
/// lock, or the link of a guard that exists only while the seal is made.
fn take_from_the_command() -> Result<Later> {
    ensure!(command_that_seals().is_none(), "a command seals already");
    let over = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&over);
    let thread = thread::spawn(move || {
        let (mut taken, mut looks) = (Vec::new(), 0_u32);
        while !seen.load(Ordering::Relaxed) && !prepared::is_sealed() {
            let Some(pid) = command_that_seals() else {
                thread::sleep(Duration::from_millis(1));
                continue;
            };
            // SAFETY: takes numbers only.
            let Ok(process) = descriptor(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) }) else {
                continue;
            };
            looks += 1;
            for fd in 3..128 {
                // SAFETY: takes numbers only.
                let answer =
                    descriptor(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), fd, 0) });
                match answer {
                    Ok(got) if is_map(&got) => taken.push(got),
                    Err(error) if error.raw_os_error() == Some(libc::ESRCH) => break,
                    _ => {}
                }
            }
        }
        (taken, looks)
    });
    Ok(Box::new(move || {
        over.store(true, Ordering::Relaxed);
        let (taken, looks) = thread.join().map_err(|_| anyhow::anyhow!("the thread died"))?;
        println!("{looks} looks, {} maps taken", taken.len());
        empty_policies(taken)
    }))
}

/// Sends questions to the seal. They are harmless even if they are obeyed, so the answers show little: the doors decide.
fn say<T>(what: u32, questions: &[T]) -> Result<Attempt> {
    let done = questions.iter().filter(|question| answer(what, 0, *question) == DONE);
    if done.count() == 0 { Attempt::refused("nothing of it was done") } else { Attempt::through() }
}

/// Returns the answer to a question that comes with data.
fn answer<T>(what: u32, at: u32, from: &T) -> u32 {
    let from = std::ptr::from_ref(from) as usize as u64;
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of an address")]
    let from = [from as u32, (from >> 32) as u32];
    errno(&mut Question { what, at, from }).cast_unsigned()
}

/// Returns the answer to a question.
fn errno(question: &mut Question) -> i32 {
    // SAFETY: the block lives through the call and has the size passed. Only the seal's program reads the memory that it points at, and it
    // accepts any address.
    let answer =
        unsafe { libc::syscall(libc::SYS_bpf, COMMAND, std::ptr::from_mut(question), size_of::<Question>()) };
    if answer < 0 { io::Error::last_os_error().raw_os_error().unwrap_or_default() } else { 0 }
}
