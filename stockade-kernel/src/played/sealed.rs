/*!
What a seal is worth on the model: there is no way back, what is laxer is refused, foreign programs are kept out, and one that
is in already is named and nothing is sealed.
*/
use std::os::fd::{AsFd, OwnedFd};

use stockade_reasons::Level;

use super::{
    Command, State, machine, policy,
    stories::{CONFIDENTIALITY, INTEGRITY},
};
use crate::{
    Error, enforce, lift, seal,
    sys::{self, fake::Fate, held},
};

#[test]
fn there_is_no_way_back() {
    let machine = machine();
    let play = |command: Command| machine.run(Fate::Lives, || command.execute()).done();
    play(Command::Enforce(INTEGRITY)).unwrap();
    play(Command::Seal).unwrap();
    let problems = || seal::problems(&crate::btf::KernelTypes::of_running_kernel()?);
    assert!(machine.run(Fate::Lives, problems).done().unwrap().is_empty());
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
    let exits = aya_obj::generated::bpf_insn {
        code: 0x95,
        _bitfield_align_1: [],
        _bitfield_1: aya_obj::generated::__BindgenBitfieldUnit::default(),
        off: 0,
        imm: 0,
    };
    let load =
        || sys::load(&[exits], c"GPL", b"foreign\0\0\0\0\0\0\0\0\0", sys::Target::lsm(3), None, &mut []);
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
    let trusting = || {
        let options = seal::Options { trust: vec![id.to_string()], best_effort: true };
        seal::seal(&options, |_| Ok(())).map(|(done, ())| done.problems)
    };
    drop(program);
    assert_eq!((State::of(&machine), machine.kernel().inventory()), before);
    // One that is trusted stays.
    let program = foreign(&machine);
    let id = machine.run(Fate::Lives, || sys::program_info(program.as_fd(), &mut []).unwrap().id).done();
    let options = || seal::Options { trust: vec![id.to_string()], best_effort: true };
    let problems =
        machine.run(Fate::Lives, || seal::seal(&options(), |_| Ok(())).map(|(done, ())| done.problems));
    assert!(problems.done().unwrap().is_empty());
    let _ = trusting;
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
            let root = crate::anchor::Root::open().unwrap();
            let there = root.holds().unwrap();
            assert!(there.len() >= 3, "{}", there.len());
            for held in &there {
                let program = sys::program_by_id(held.id).unwrap();
                assert!(
                    refused(held::detach_from_cgroup(root.as_fd(), program.as_fd(), held.kind)),
                    "{}",
                    held.name
                );
            }
            assert!(refused(crate::measure::load_foreign(sys::Target::lsm(3))));
            // Every map of the seal is read-only for good, but for the events'.
            for &map in &there[0].maps {
                let map = held::map_by_id(map).unwrap();
                let info = held::map_info(map.as_fd()).unwrap();
                if info.kind == sys::ARRAY {
                    assert!(refused(held::freeze(map.as_fd())) || held::freeze(map.as_fd()).is_err());
                    let value = held::value(map.as_fd()).unwrap();
                    assert!(!value.is_empty());
                }
            }
        })
        .done();
    assert_eq!((State::of(&machine), machine.kernel().inventory()), sealed);
    // What was enforced by pins goes on by the root cgroup alone.
    let told = machine
        .run(Fate::Lives, || enforce::enforce(&policy(INTEGRITY), Level::None).map(|applied| applied.change));
    assert_eq!(told.done().unwrap(), enforce::Change::Unchanged);
}
