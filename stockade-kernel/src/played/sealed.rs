/*!
What a seal is worth on the model: there is no way back, what is laxer is refused, foreign programs are kept out, and one that
is in already is named and nothing is sealed.
*/
use std::{
    cell::{Cell, RefCell},
    os::fd::{AsFd, FromRawFd, OwnedFd},
    sync::Arc,
};

use stockade_reasons::Level;

use super::{
    Command, HOOK, State, machine, policy,
    proof::proven,
    stories::{CONFIDENTIALITY, EVERYTHING, INTEGRITY},
};
use crate::{
    Error, enforce, lift,
    program::{duty::Duty, instructions::EXIT},
    seal::{self, Conclusion},
    sealed::Sealed,
    sys::{
        self,
        fake::{Ended, Fate, Kind, Machine},
        held,
    },
};

#[test]
fn there_is_no_way_back() {
    let machine = machine();
    let play = |command: Command| machine.run(Fate::Lives, || command.execute()).done();
    play(Command::Enforce(INTEGRITY)).unwrap();
    play(Command::Seal).unwrap();
    assert_eq!(proven(&machine).conclusion(), Conclusion::Verified);
    let sealed = State::of(&machine);
    for command in [Command::Lift, Command::Seal, Command::Grant, Command::Enforce("level = \"none\"\n")] {
        let answer = play(command);
        assert!(matches!(answer, Err(Error::Sealed { .. })), "{command:?}: {answer:?}");
        assert_eq!(State::of(&machine), sealed, "{command:?}");
    }
    let forced = machine.run(Fate::Lives, || lift::lift(true)).done();
    assert!(matches!(forced, Err(Error::Sealed { .. })), "{forced:?}");
    play(Command::Enforce(CONFIDENTIALITY)).unwrap();
    let stacked = State::of(&machine);
    assert_eq!(stacked.told.map(|(.., policies)| policies), Some(2));
    assert!(matches!(play(Command::Enforce(INTEGRITY)), Err(Error::Sealed { .. })));
    assert_eq!(State::of(&machine), stacked);
}

/// A program of another's on the hook for lockdown, which decides nothing.
fn foreign(machine: &std::sync::Arc<sys::fake::Machine>) -> OwnedFd {
    let load =
        || sys::load(&[EXIT], c"GPL", b"foreign\0\0\0\0\0\0\0\0\0", sys::Target::lsm(HOOK), None, &mut []);
    machine.run(Fate::Lives, load).done().unwrap()
}

#[test]
fn a_foreign_program_is_named_and_nothing_is_sealed() {
    let machine = machine();
    let play = |command: Command| machine.run(Fate::Lives, || command.execute()).done();
    play(Command::Enforce(INTEGRITY)).unwrap();
    let before = (State::of(&machine), machine.kernel().inventory());
    let program = foreign(&machine);
    let id = machine.run(Fate::Lives, || sys::program_info(program.as_fd(), &mut []).unwrap().id).done();
    match play(Command::Seal) {
        Err(Error::Foreign { programs, words }) => {
            assert_eq!(programs, [id]);
            assert!(words.contains("foreign (LSM)"), "{words}");
        }
        other => panic!("{other:?}"),
    }
    drop(program);
    assert_eq!((State::of(&machine), machine.kernel().inventory()), before);
    // One that is trusted stays.
    let program = foreign(&machine);
    let id = machine.run(Fate::Lives, || sys::program_info(program.as_fd(), &mut []).unwrap().id).done();
    let options = || seal::Options { trust: vec![id.to_string()], best_effort: true };
    let problems =
        machine.run(Fate::Lives, || seal::seal(&options(), |_| Ok(())).map(|(done, ())| done.problems));
    assert!(problems.done().unwrap().is_empty());
}

#[test]
fn a_name_makes_no_program_one_of_ours() {
    let machine = machine();
    machine
        .run(Fate::Lives, || {
            let guard = sys::load(
                &[EXIT],
                c"GPL",
                &Duty::GuardCalls.shown(),
                sys::Target::lsm_of_cgroup(HOOK + 40),
                None,
                &mut [],
            );
            crate::sealed::anchor::Root::open()
                .unwrap()
                .attach(Duty::GuardCalls, guard.unwrap().as_fd())
                .unwrap();
        })
        .done();
    let play = |command: Command| machine.run(Fate::Lives, || command.execute()).done();
    play(Command::Enforce(INTEGRITY)).unwrap();
    play(Command::Seal).unwrap();
}

#[test]
fn guards_keep_programs_there_and_others_out() {
    let machine = machine();
    let play = |command: Command| machine.run(Fate::Lives, || command.execute()).done();
    play(Command::Enforce(INTEGRITY)).unwrap();
    play(Command::Seal).unwrap();
    let sealed = (State::of(&machine), machine.kernel().inventory());
    let refused = |answer: std::io::Result<()>| answer.is_err_and(|e| e.raw_os_error() == Some(libc::EPERM));
    machine
        .run(Fate::Lives, || {
            let root = crate::sealed::anchor::Root::open().unwrap();
            let seal = Sealed::ask().unwrap().unwrap();
            let there: Vec<(u32, u32)> = crate::sealed::anchor::KINDS
                .into_iter()
                .flat_map(|kind| root.programs(kind).unwrap().into_iter().map(move |id| (kind, id)))
                .filter(|(_, id)| seal.seal.programs.contains(id))
                .collect();
            assert!(there.len() >= 5, "{}", there.len());
            for (kind, id) in there {
                assert!(sys::program_by_id(id).is_err(), "program {id}");
                assert!(refused(held::detach_from_nothing(kind)), "kind {kind}");
            }
            assert!(refused(crate::program::instructions::load_foreign(sys::Target::lsm(HOOK))));
            assert!(refused(crate::program::instructions::load_foreign(sys::Target::cgroup_sysctl())));
            // One that is asked about something else cannot answer in our place.
            crate::program::instructions::load_foreign(sys::Target::lsm(HOOK + 40)).unwrap();
            for id in seal.seal.maps.into_iter().filter(|&id| id != 0) {
                assert!(held::map_by_id(id).is_err(), "map {id}");
            }
            for id in seal.seal.shown {
                held::map_by_id(id).unwrap();
            }
        })
        .done();
    assert_eq!((State::of(&machine), machine.kernel().inventory()), sealed);
    // What was enforced by pins goes on by the root cgroup alone.
    let told = machine
        .run(Fate::Lives, || enforce::enforce(&policy(INTEGRITY), Level::None).map(|applied| applied.change));
    assert_eq!(told.done().unwrap(), enforce::Change::Unchanged);
}

#[test]
fn nobody_gets_hold_of_a_part_of_the_seal_at_any_call_of_the_command_that_makes_it() {
    const EACH: usize = 3;
    for first in 0..EACH {
        let machine = machine();
        machine.run(Fate::Lives, || Command::Enforce(EVERYTHING).execute()).done().unwrap();
        let taken = RefCell::new(Vec::new());
        let mut attempts = 0;
        let before = machine.kernel().maps();
        let enforcing = machine.kernel().sealed_programs();
        let opens = |call: usize, _: Kind| {
            if call % EACH != first {
                return;
            }
            let mut maps = machine.kernel().maps();
            maps.retain(|id| !before.contains(id));
            let mut programs = machine.kernel().sealed_programs();
            programs.retain(|id| !enforcing.contains(id));
            attempts += maps.len() + programs.len();
            let opened = machine.run(Fate::Lives, || {
                let maps = maps.into_iter().filter_map(|id| Some((id, held::map_by_id(id).ok()?)));
                let programs = programs.into_iter().filter_map(|id| Some((id, sys::program_by_id(id).ok()?)));
                maps.chain(programs).collect::<Vec<_>>()
            });
            // Kept to the end.
            taken.borrow_mut().extend(opened.done());
        };
        machine.run_beside(opens, || Command::Seal.execute()).done().unwrap();
        let seal = machine.run(Fate::Lives, Sealed::ask).done().unwrap().unwrap().seal;
        assert!(attempts > 100 && !taken.borrow().is_empty(), "{attempts} attempts");
        let kept: Vec<u32> = seal.maps.into_iter().chain(seal.programs).filter(|&id| id != 0).collect();
        assert!(kept.len() > 20, "{kept:?}");
        let lost: Vec<u32> =
            taken.borrow().iter().map(|(id, _)| *id).filter(|id| kept.contains(id)).collect();
        assert!(lost.is_empty(), "descriptors of {lost:?}");
    }
}

#[test]
fn whoever_has_a_program_of_the_seal_at_any_call_keeps_it_from_being_made() {
    const SOME: usize = 9;
    let calls = {
        let machine = machine();
        machine.run(Fate::Lives, || Command::Enforce(EVERYTHING).execute()).done().unwrap();
        machine.run(Fate::Lives, || Command::Seal.execute()).done().unwrap();
        machine.last().calls
    };
    let (mut kept, mut made) = (0, 0);
    for at in (1..=calls).step_by(SOME) {
        let machine = machine();
        machine.run(Fate::Lives, || Command::Enforce(EVERYTHING).execute()).done().unwrap();
        let inventory = |machine: &Arc<Machine>| {
            let mut there = machine.kernel().inventory();
            there.dedup();
            there
        };
        let before = (State::of(&machine), inventory(&machine));
        let enforcing = machine.kernel().sealed_programs();
        let taken = RefCell::new(Vec::new());
        let counts = Cell::new(false);
        let opens = |call: usize, kind: Kind| {
            // From when references are counted on the first guards are all there is: who gets past them then is not seen.
            let guard = machine.kernel().programs_named(Duty::GuardPrograms.shown());
            let is_guarded = machine.kernel().root_cgroup.iter().any(|(_, id)| guard.contains(id));
            counts.set(counts.get() || kind == Kind::ById && is_guarded);
            if call == at && !counts.get() {
                let mut programs = machine.kernel().sealed_programs();
                programs.retain(|id| !enforcing.contains(id));
                // By a way past the first guards.
                let opens = |id| machine.kernel().descriptor(id).ok();
                // SAFETY: a descriptor that was just made, and nobody else's.
                let opened =
                    programs.into_iter().filter_map(opens).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
                taken.borrow_mut().extend(opened);
            }
        };
        let ended = machine.run_beside(opens, || Command::Seal.execute());
        if taken.borrow().is_empty() {
            ended.done().unwrap();
            made += 1;
            continue;
        }
        kept += 1;
        // It waits for whoever has it to let go.
        assert!(
            matches!(ended, Ended::Waits),
            "a seal was made at call {at} although somebody has a program of it"
        );
        taken.borrow_mut().clear();
        machine.run(Fate::Lives, crate::sealed::anchor::tidy_up).done().unwrap();
        // The description is that of a command that was killed.
        let now = (State::of(&machine), inventory(&machine));
        assert_eq!(now, before, "call {at}");
    }
    assert!(kept > 10 && made > 10, "{kept} of {calls} calls, {made} made");
}

#[test]
fn whoever_puts_an_iterator_in_the_place_of_ours_keeps_the_seal_from_being_made() {
    let machine = machine();
    machine.run(Fate::Lives, || Command::Enforce(INTEGRITY).execute()).done().unwrap();
    let before = State::of(&machine);
    let forge = || {
        sys::load(&[EXIT], c"GPL", b"foreign\0\0\0\0\0\0\0\0\0", sys::Target::iterator(HOOK), None, &mut [])
    };
    let forger = machine.run(Fate::Lives, forge).done().unwrap();
    let id = machine.run(Fate::Lives, || sys::program_info(forger.as_fd(), &mut []).unwrap().id).done();
    let replaced = Cell::new(0);
    let meddles = |_: usize, _: Kind| replaced.set(replaced.get() + machine.kernel().replace_iterators(id));
    // No link attaches it before that, so that it has to be trusted.
    let options = || seal::Options { trust: vec![id.to_string()], best_effort: true };
    match machine.run_beside(meddles, || seal::seal(&options(), |_| Ok(())).map(drop)).done() {
        Err(Error::Request(words)) => {
            assert!(words.contains("replaced the BPF program that lists the tasks"), "{words}");
        }
        other => panic!("{other:?}"),
    }
    assert!(replaced.get() > 0);
    assert_eq!(State::of(&machine), before);
}

#[test]
fn what_is_pinned_in_the_place_of_ours_is_named() {
    let machine = machine();
    let play = |command: Command| machine.run(Fate::Lives, || command.execute()).done();
    play(Command::Enforce(INTEGRITY)).unwrap();
    let before = State::of(&machine);
    let program = foreign(&machine);
    let pinned = machine.run(Fate::Lives, || {
        let link = sys::attach(program.as_fd()).unwrap();
        sys::pin(link.as_fd(), c"/sys/fs/bpf/stockade/link-label")
    });
    pinned.done().unwrap();
    match play(Command::Seal) {
        Err(Error::Foreign { words, .. }) => assert!(words.contains("is none of this version's"), "{words}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(State::of(&machine), before);
}

#[test]
fn a_folder_among_the_pins_is_in_nobodys_way() {
    let machine = machine();
    let play = |command: Command| machine.run(Fate::Lives, || command.execute()).done();
    play(Command::Enforce(INTEGRITY)).unwrap();
    std::fs::create_dir_all(machine.at(std::path::Path::new("/sys/fs/bpf/stockade/folder/more"))).unwrap();
    play(Command::Seal).unwrap();
    assert_eq!(State::of(&machine).told.map(|(.., policies)| policies), Some(1));
}

#[test]
fn a_kernel_that_is_loaded_for_kexec_meanwhile_keeps_the_seal_from_being_made() {
    let machine = machine();
    machine.run(Fate::Lives, || Command::Enforce(INTEGRITY).execute()).done().unwrap();
    let before = State::of(&machine);
    let loads = |_: usize, _: Kind| {
        if !machine.kernel().sealed_programs().is_empty() {
            let path = machine.at(std::path::Path::new("/sys/kernel/kexec_loaded"));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "1\n").unwrap();
        }
    };
    match machine.run_beside(loads, || Command::Seal.execute()).done() {
        Err(Error::Request(words)) => assert!(words.contains("loaded for kexec"), "{words}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(State::of(&machine), before);
}

#[test]
fn a_trusted_program_is_let_in_as_it_was_attached_and_in_no_other_way() {
    let machine = machine();
    let load = |target: sys::Target| {
        let name = b"trusted\0\0\0\0\0\0\0\0\0";
        machine.run(Fate::Lives, || sys::load(&[EXIT], c"GPL", name, target, None, &mut [])).done()
    };
    machine.run(Fate::Lives, || Command::Enforce(INTEGRITY).execute()).done().unwrap();
    let program = load(sys::Target::lsm(HOOK)).unwrap();
    let link = machine.run(Fate::Lives, || sys::attach(program.as_fd())).done().unwrap();
    let id = machine.run(Fate::Lives, || sys::program_info(program.as_fd(), &mut []).unwrap().id).done();
    let options = || seal::Options { trust: vec![id.to_string()], best_effort: true };
    machine.run(Fate::Lives, || seal::seal(&options(), |_| Ok(())).map(drop)).done().unwrap();
    drop((link, program));
    load(sys::Target::lsm(HOOK)).unwrap();
    load(sys::Target::lsm_of_cgroup(HOOK)).unwrap_err();
    load(sys::Target::lsm(HOOK + 1)).unwrap();
}

#[test]
fn whoever_is_at_a_setting_since_before_or_may_be_keeps_it_from_being_made() {
    for (tasks, waits) in [
        ("7 7 2 mutex_lock+0x1 proc_sys_call_handler+0x1\n", true),
        ("7 8 0\n", true),
        ("7 7 2 schedule+0x1 vfs_read+0x1\n", false),
    ] {
        let machine = machine();
        machine.run(Fate::Lives, || Command::Enforce(INTEGRITY).execute()).done().unwrap();
        std::fs::write(machine.at(std::path::Path::new("/tasks")), tasks).unwrap();
        let ended = machine.run(Fate::Lives, || Command::Seal.execute());
        assert_eq!(matches!(ended, Ended::Waits), waits, "{tasks}");
    }
}
