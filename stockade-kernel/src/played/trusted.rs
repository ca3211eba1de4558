/*!
Programs of others that a seal lets in: named by the policy before they are loaded, named to the command, and hidden by a guard of
another's.
*/
use std::{
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use stockade_common::TRUSTED_MAX;
use stockade_policy::model::Policy;
use stockade_reasons::Level;

use super::{Command, HOOK, State, machine, policy, stories::INTEGRITY};
use crate::{
    Error, enforce,
    program::{instructions, loaded},
    seal::{self, Done},
    sys::{
        self,
        fake::{Fate, Machine},
    },
};

/// Hooks of the played kernel by the order of its functions.
const BPF_PROG_HOOK: u32 = HOOK + 5;
const DIALOGUE_HOOK: u32 = HOOK + 8;

/// A hook on which no program of a seal is.
const HOOK_OF_OTHERS: u32 = HOOK + 40;

/// A program of another's that returns this; the number makes it another.
fn load(machine: &Arc<Machine>, target: sys::Target, number: i32) -> OwnedFd {
    machine.run(Fate::Lives, || instructions::load_constant(target, number)).done().unwrap()
}

fn id_and_tag(machine: &Arc<Machine>, program: &OwnedFd) -> (u32, String) {
    let info = machine.run(Fate::Lives, || sys::program_info(program.as_fd(), &mut []).unwrap()).done();
    (info.id, format!("{:016x}", u64::from_be_bytes(info.tag)))
}

fn trusting(kind: &str, tag: &str) -> Policy {
    policy(&format!("{INTEGRITY}[[seal.trust]]\nname = \"agent\"\n{kind}\ntags = [\"{tag}\"]\n"))
}

fn enforce(machine: &Arc<Machine>, policy: &Policy) {
    machine.run(Fate::Lives, || enforce::enforce(policy, Level::None).map(drop)).done().unwrap();
}

fn seal(machine: &Arc<Machine>, trust: &[&str]) -> Result<Done, Error> {
    let options = seal::Options { trust: trust.iter().map(ToString::to_string).collect(), best_effort: true };
    machine.run(Fate::Lives, || seal::seal(&options, |_| Ok(())).map(|(done, ())| done)).done()
}

fn problems(machine: &Arc<Machine>) -> Vec<String> {
    super::proof::proven(machine).problems
}

fn refused(machine: &Arc<Machine>, target: sys::Target, number: i32) -> bool {
    let answer = machine.run(Fate::Lives, || instructions::load_constant(target, number)).done();
    answer.is_err_and(|e| e.raw_os_error() == Some(libc::EPERM))
}

#[test]
fn what_the_policy_trusts_is_let_in_after_the_seal_and_nothing_else() {
    let lsm = sys::Target::lsm(HOOK);
    let machine = machine();
    let (_, tag) = id_and_tag(&machine, &load(&machine, lsm, 7));
    enforce(&machine, &trusting("kind = \"lsm\"\nhook = \"locked_down\"", &tag));
    let done = seal(&machine, &[]).unwrap();
    assert_eq!(done.policy.seal.trusted.len(), 1);
    assert!(done.problems.is_empty() && done.trusted_without_hook.is_empty(), "{:?}", done.problems);
    let agent = load(&machine, lsm, 7);
    assert!(problems(&machine).is_empty(), "{:?}", problems(&machine));
    assert!(refused(&machine, lsm, 8), "another program");
    assert!(refused(&machine, sys::Target::lsm(DIALOGUE_HOOK), 7), "the same on another hook");
    assert!(refused(&machine, sys::Target::cgroup_sysctl(), 7), "the same of another kind");
    drop(agent);
}

#[test]
fn what_the_policy_trusts_stays_where_it_is_loaded_before_the_seal() {
    for (target, kind) in [
        (sys::Target::lsm(HOOK), "kind = \"lsm\"\nhook = \"locked_down\""),
        (sys::Target::lsm_of_cgroup(DIALOGUE_HOOK), "kind = \"lsm-cgroup\"\nhook = \"bpf\""),
        (sys::Target::cgroup_sysctl(), "kind = \"cgroup-sysctl\""),
    ] {
        let machine = machine();
        let program = load(&machine, target, 7);
        let (id, tag) = id_and_tag(&machine, &program);
        enforce(&machine, &policy(INTEGRITY));
        let answer = seal(&machine, &[]);
        match (target.is_cgroup(), answer) {
            // One that is asked for sysctls stays by --best-effort.
            (true, Ok(_)) => continue,
            (false, Err(Error::Foreign { programs, .. })) => assert_eq!(programs, [id]),
            (_, other) => panic!("{kind}: {other:?}"),
        }
        enforce(&machine, &trusting(kind, &tag));
        let done = seal(&machine, &[]).unwrap();
        assert!(done.problems.is_empty(), "{kind}: {:?}", done.problems);
        drop(program);
    }
}

#[test]
fn a_trusted_sysctl_program_does_not_close_the_seal_to_others() {
    let machine = machine();
    let program = load(&machine, sys::Target::cgroup_sysctl(), 7);
    let (_, tag) = id_and_tag(&machine, &program);
    enforce(&machine, &trusting("kind = \"cgroup-sysctl\"", &tag));
    let done = seal(&machine, &[]).unwrap();
    let open: Vec<_> = done.open.iter().map(seal::Gap::word).collect();
    assert!(!open.iter().any(|word| word.contains("sysctl")), "{open:?}");
    load(&machine, sys::Target::cgroup_sysctl(), 7);
    assert!(refused(&machine, sys::Target::cgroup_sysctl(), 8));
}

#[test]
fn a_hook_that_this_kernel_lacks_is_told_and_lets_nothing_in() {
    let machine = machine();
    let (_, tag) = id_and_tag(&machine, &load(&machine, sys::Target::lsm(HOOK), 7));
    enforce(&machine, &trusting("kind = \"lsm\"\nhook = \"of_another_kernel\"", &tag));
    let done = seal(&machine, &[]).unwrap();
    assert_eq!(done.trusted_without_hook, [("agent".to_owned(), "of_another_kernel".to_owned())]);
    assert!(done.problems.is_empty(), "{:?}", done.problems);
    assert!(refused(&machine, sys::Target::lsm(HOOK), 7));
}

#[test]
fn more_than_a_seal_has_room_for_is_told_before_anything_is_done() {
    let machine = machine();
    let program = load(&machine, sys::Target::lsm(HOOK), 7);
    let (id, _) = id_and_tag(&machine, &program);
    let tags: Vec<String> = (0..TRUSTED_MAX).map(|tag| format!("{tag:016x}")).collect();
    enforce(&machine, &trusting("kind = \"lsm\"\nhook = \"locked_down\"", &tags.join("\", \"")));
    let before = (State::of(&machine), machine.kernel().inventory());
    match seal(&machine, &[&id.to_string()]) {
        Err(Error::Request(words)) => {
            assert!(words.contains("33 programs are trusted") && words.contains("room for 32"), "{words}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!((State::of(&machine), machine.kernel().inventory()), before);
}

/// A machine that enforces, with a program of another's that a guard of another's hides.
fn with_hidden(target: sys::Target) -> (Arc<Machine>, OwnedFd, u32) {
    let machine = machine();
    machine.run(Fate::Lives, || Command::Enforce(INTEGRITY).execute()).done().unwrap();
    let program = load(&machine, target, 7);
    let (id, _) = id_and_tag(&machine, &program);
    machine.kernel().hidden_by_others.insert(id);
    (machine, program, id)
}

#[test]
fn a_program_that_another_guard_hides_is_named_and_nothing_is_sealed() {
    let (machine, program, id) = with_hidden(sys::Target::lsm(HOOK));
    let before = (State::of(&machine), machine.kernel().inventory());
    match seal(&machine, &[]) {
        Err(Error::Foreign { programs, words }) => {
            assert_eq!(programs, [id]);
            let said = format!("program {id}: another guard on BPF programs refuses to let it be looked at");
            assert!(words.contains(&said) && words.contains(&format!("--trust {id}")), "{words}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!((State::of(&machine), machine.kernel().inventory()), before);
    match seal(&machine, &["1111111111111111"]) {
        Err(Error::Request(words)) => assert!(words.contains("name them by id"), "{words}"),
        other => panic!("{other:?}"),
    }
    drop(program);
}

#[test]
fn a_program_that_bpf_does_not_tell_of_is_noticed_and_nothing_is_sealed() {
    let machine = machine();
    machine.run(Fate::Lives, || Command::Enforce(INTEGRITY).execute()).done().unwrap();
    let program = load(&machine, sys::Target::lsm_of_cgroup(HOOK), 7);
    let (id, _) = id_and_tag(&machine, &program);
    machine.kernel().denied_by_others.insert(id);
    let before = (State::of(&machine), machine.kernel().inventory());
    match seal(&machine, &[]) {
        Err(Error::Foreign { programs, words }) => {
            assert_eq!(programs, [id]);
            assert!(words.contains(&format!("program {id}: ")) && words.contains("there is none"), "{words}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!((State::of(&machine), machine.kernel().inventory()), before);
    drop(program);
}

#[test]
fn a_program_of_another_s_beside_those_of_the_seal_is_told() {
    let machine = machine();
    machine.run(Fate::Lives, || Command::Enforce(INTEGRITY).execute()).done().unwrap();
    seal(&machine, &[]).unwrap();
    let program = load(&machine, sys::Target::lsm_of_cgroup(HOOK_OF_OTHERS), 7);
    let (id, _) = id_and_tag(&machine, &program);
    machine.kernel().root_cgroup.push((stockade_common::kinds::ATTACH_LSM_CGROUP, id));
    assert!(problems(&machine).is_empty(), "on another hook it is nobody's business");
    machine.kernel().denied_by_others.insert(id);
    assert!(super::proof::proof_waits(&machine), "a program that hides can be one that bypasses the seal");
}

#[test]
fn a_guard_of_another_s_is_named_by_its_link() {
    let (machine, program, id) = with_hidden(sys::Target::lsm(HOOK));
    let guard = load(&machine, sys::Target::lsm(BPF_PROG_HOOK), 5);
    let (guard_id, tag) = id_and_tag(&machine, &guard);
    let link = machine.run(Fate::Lives, || sys::attach(guard.as_fd())).done().unwrap();
    // On a hook of the seal it has to be trusted as well.
    match seal(&machine, &[&tag]) {
        Err(Error::Foreign { programs, words }) => {
            assert_eq!(programs, [id]);
            let guard = format!("another guard on BPF programs (floor (program {guard_id})) refuses");
            assert!(words.contains(&guard), "{words}");
        }
        other => panic!("{other:?}"),
    }
    machine.kernel().hidden_by_others.insert(guard_id);
    match seal(&machine, &[&id.to_string()]) {
        Err(Error::Foreign { programs, words }) => {
            assert_eq!(programs, [guard_id], "{words}");
            assert!(
                words.contains(&format!("(program {guard_id}, whose name it refuses as well)")),
                "{words}"
            );
        }
        other => panic!("{other:?}"),
    }
    drop((program, link));
}

#[test]
fn a_hidden_program_is_trusted_by_id_and_no_other_of_its_tag() {
    let target = sys::Target::lsm(HOOK);
    let (machine, program, id) = with_hidden(target);
    let done = seal(&machine, &[&id.to_string()]).unwrap();
    assert_eq!((done.trusted_by_id, done.trusted.len()), (vec![id], 0));
    assert!(done.problems.is_empty(), "{:?}", done.problems);
    assert!(problems(&machine).is_empty(), "{:?}", problems(&machine));
    assert!(refused(&machine, target, 7), "the same instructions");
    drop(program);
    assert!(problems(&machine).is_empty());
}

#[test]
fn a_hidden_program_that_cannot_reach_the_seal_is_in_nobody_s_way() {
    let (machine, program, id) = with_hidden(sys::Target::lsm(HOOK_OF_OTHERS));
    let answer = seal(&machine, &[]);
    let is_told = matches!(&answer, Err(Error::Foreign { programs, .. }) if *programs == [id]);
    assert!(is_told, "its link alone tells that it cannot: {answer:?}");
    let link = machine.run(Fate::Lives, || sys::attach(program.as_fd())).done().unwrap();
    let done = seal(&machine, &[]).unwrap();
    assert!(done.problems.is_empty(), "{:?}", done.problems);
    assert!(problems(&machine).is_empty(), "{:?}", problems(&machine));
    drop((program, link));
}

#[test]
fn a_hidden_program_on_a_hook_of_the_seal_is_in_the_way_though_its_link_is_seen() {
    for target in [sys::Target::lsm(HOOK), sys::Target::modify_return(HOOK), sys::Target::lsm(DIALOGUE_HOOK)]
    {
        let (machine, program, id) = with_hidden(target);
        let link = machine.run(Fate::Lives, || sys::attach(program.as_fd())).done().unwrap();
        let answer = seal(&machine, &[]);
        assert!(matches!(&answer, Err(Error::Foreign { programs, .. }) if *programs == [id]), "{answer:?}");
        drop(link);
    }
}

#[test]
fn what_another_guard_hides_after_the_seal_is_no_fault_of_it() {
    let machine = machine();
    machine.run(Fate::Lives, || Command::Enforce(INTEGRITY).execute()).done().unwrap();
    seal(&machine, &[]).unwrap();
    let program = load(&machine, sys::Target::lsm(HOOK_OF_OTHERS), 7);
    let (id, _) = id_and_tag(&machine, &program);
    let link = machine.run(Fate::Lives, || sys::attach(program.as_fd())).done().unwrap();
    machine.kernel().hidden_by_others.insert(id);
    assert!(problems(&machine).is_empty(), "{:?}", problems(&machine));
    drop(link);
}

#[test]
fn whatever_else_looks_at_programs_goes_on() {
    let (machine, program, id) = with_hidden(sys::Target::lsm(HOOK_OF_OTHERS));
    let found = machine.run(Fate::Lives, || loaded::look(None)).done().unwrap();
    let words = "a guard on BPF programs refuses to let it be looked at".to_owned();
    assert!(found.hidden.contains(&(id, words)), "{:?}", found.hidden);
    let before = State::of(&machine);
    assert!(before.told.is_some());
    for command in [Command::Enforce(super::stories::CONFIDENTIALITY), Command::Grant, Command::Lift] {
        machine.run(Fate::Lives, || command.execute()).done().unwrap();
    }
    assert_ne!(State::of(&machine), before);
    drop(program);
}
