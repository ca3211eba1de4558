/*!
What the proof of a seal says of each reason, on the model.
*/
use std::{path::Path, sync::Arc};

use stockade_common::{Added, ReasonSet};

use super::{
    Command, machine,
    stories::{CONFIDENTIALITY, INTEGRITY},
};
use crate::{
    machine::btf::KernelTypes,
    seal::{self, Cause, Conclusion, ProbeResult, Proof},
    sealed::gap::Gap,
    sys::fake::{self, Ended, Fate, Machine},
};

/// The reasons of the machine, by level.
const OF_INTEGRITY: [&str; 5] = ["module-signature", "dev-mem", "kexec", "ioport", "msr"];
const OF_CONFIDENTIALITY: [&str; 3] = ["kcore", "kprobes", "tracefs"];

/// Asks the model for a reason.
fn knock(id: &str) -> ProbeResult {
    let types = KernelTypes::of_running_kernel().unwrap();
    let number = types.number(stockade_reasons::by_id(id).unwrap().enum_name).unwrap();
    match fake::asks(number).expect("a machine is played") {
        Ok(()) => ProbeResult::LetThrough,
        Err(_) => ProbeResult::Refused,
    }
}

fn proven_by(machine: &Arc<Machine>, knock: &dyn Fn(&str) -> ProbeResult) -> Proof {
    let prove = || seal::prove(&KernelTypes::of_running_kernel()?, knock);
    machine.run(Fate::Lives, prove).done().unwrap()
}

pub(super) fn proven(machine: &Arc<Machine>) -> Proof {
    proven_by(machine, &knock)
}

/// Whether the proof waits for a program to be unloaded. On a kernel it names the program when its patience ends.
pub(super) fn proof_waits(machine: &Arc<Machine>) -> bool {
    let prove = || seal::prove(&KernelTypes::of_running_kernel()?, &knock);
    matches!(machine.run(Fate::Lives, prove), Ended::Waits)
}

/// A machine on which these policies are in force: the first is sealed, the others are added.
fn sealed(policies: &[&'static str]) -> Arc<Machine> {
    let machine = machine();
    let play = |command: Command| machine.run(Fate::Lives, || command.execute()).done().unwrap();
    play(Command::Enforce(policies[0]));
    play(Command::Seal);
    policies[1..].iter().for_each(|policy| play(Command::Enforce(policy)));
    machine
}

/// Moves the process that plays into a cgroup.
fn enter_cage(machine: &Machine) {
    std::fs::write(machine.at(Path::new("/proc/self/cgroup")), "0::/cage\n").unwrap();
}

fn untried(proof: &Proof) -> Vec<(&str, Cause)> {
    proof.untried.iter().map(|untried| (untried.reason.as_str(), untried.cause)).collect()
}

#[test]
fn every_reason_that_is_refused_is_tried() {
    let of_integrity = proven(&sealed(&[INTEGRITY]));
    assert_eq!(of_integrity, Proof { refused: OF_INTEGRITY.map(Into::into).into(), ..Proof::default() });
    let all = proven(&sealed(&[CONFIDENTIALITY]));
    assert_eq!(all.refused, [&OF_INTEGRITY[..], &OF_CONFIDENTIALITY[..]].concat());
    assert_eq!(all.conclusion(), Conclusion::Verified);
}

const ADDED: &str = "level = \"integrity\"\n[reasons]\nkcore = \"deny\"\n";

#[test]
fn a_reason_that_an_addition_alone_refuses_is_tried() {
    let machine = sealed(&[INTEGRITY, ADDED]);
    assert_eq!(proven(&machine).refused, [&OF_INTEGRITY[..], &["kcore"]].concat());
    machine.kernel().unasked.insert(7);
    let proof = proven(&machine);
    assert_eq!(proof.conclusion(), Conclusion::NotVerified);
    assert_eq!(proof.refused, OF_INTEGRITY);
}

#[test]
fn a_seal_is_not_verified_where_one_reason_is_let_through() {
    let machine = sealed(&[INTEGRITY]);
    machine.kernel().unasked.insert(5);
    let proof = proven(&machine);
    assert_eq!(proof.conclusion(), Conclusion::NotVerified);
    let [problem] = &proof.problems[..] else { panic!("{:?}", proof.problems) };
    assert!(problem.contains("msr went through") && problem.contains("did not ask the seal"), "{problem}");
    assert_eq!(proof.refused, OF_INTEGRITY[..4]);
}

#[test]
fn a_refusal_that_the_seal_did_not_decide_is_no_proof() {
    let machine = sealed(&[INTEGRITY]);
    let refused = |id: &str| if id == "kexec" { ProbeResult::Refused } else { knock(id) };
    let proof = proven_by(&machine, &refused);
    assert_eq!(proof.conclusion(), Conclusion::NotVerified);
    assert!(proof.problems[0].contains("kexec was refused, and not by the seal"), "{:?}", proof.problems);
}

#[test]
fn a_proof_that_tried_no_reason_is_unknown() {
    let machine = sealed(&[INTEGRITY]);
    let absent = |_: &str| ProbeResult::NotTried(Cause::Absent, "no such device".into());
    let proof = proven_by(&machine, &absent);
    assert_eq!(proof.conclusion(), Conclusion::Unknown);
    assert_eq!(untried(&proof), OF_INTEGRITY.map(|id| (id, Cause::Absent)));
    std::fs::write(
        machine.at(Path::new("/sys/kernel/security/lockdown")),
        "none [integrity] confidentiality\n",
    )
    .unwrap();
    let proof = proven(&machine);
    assert_eq!(proof.conclusion(), Conclusion::Unknown);
    assert_eq!(untried(&proof), OF_INTEGRITY.map(|id| (id, Cause::NativeRefusesFirst)));
    // Of what native integrity leaves to the seal, all is tried.
    let both = sealed(&[CONFIDENTIALITY]);
    std::fs::write(both.at(Path::new("/sys/kernel/security/lockdown")), "none [integrity] confidentiality\n")
        .unwrap();
    let proof = proven(&both);
    assert_eq!(
        (proof.conclusion(), &proof.refused[..]),
        (Conclusion::Verified, &OF_CONFIDENTIALITY.map(String::from)[..])
    );
}

const EXCEPTED: &str = "level = \"integrity\"\n\
    [[exception]]\nname = \"us\"\nreasons = [\"msr\"]\ncgroup = \"/cage\"\nwhy = \"w\"\n";

#[test]
fn an_exception_that_fits_this_process_is_told() {
    let machine = sealed(&[EXCEPTED]);
    assert_eq!(proven(&machine).refused, OF_INTEGRITY, "outside of the cage");
    enter_cage(&machine);
    let proof = proven(&machine);
    assert_eq!(proof.conclusion(), Conclusion::Verified, "{:?}", proof.problems);
    assert_eq!(untried(&proof), [("msr", Cause::LetThroughHere)]);
    assert_eq!(proof.refused, OF_INTEGRITY[..4]);
    // The exception is no reason for a request that the seal does not hear of.
    machine.kernel().unasked.insert(5);
    assert_eq!(proven(&machine).conclusion(), Conclusion::NotVerified);
}

const FOR_ANOTHER: &str = "level = \"integrity\"\n\
    [[exception]]\nname = \"others\"\nreasons = [\"kexec\"]\nexe = \"/tool\"\nwhy = \"w\"\n";

#[test]
fn an_exception_for_another_program_excuses_nothing() {
    let machine = sealed(&[FOR_ANOTHER]);
    assert_eq!(proven(&machine).refused, OF_INTEGRITY);
    // The seal hears of it, and yet it goes through.
    let lets_through = |id: &str| {
        let knocked = knock(id);
        if id == "kexec" { ProbeResult::LetThrough } else { knocked }
    };
    let proof = proven_by(&machine, &lets_through);
    assert!(proof.problems[0].contains("kexec reached the seal and went through"), "{proof:?}");
    // Without its description it cannot be told whether this process is excepted.
    std::fs::remove_dir_all(machine.at(Path::new(crate::pinned::description::FOLDER))).unwrap();
    assert_eq!(proven(&machine).conclusion(), Conclusion::Verified);
    let proof = proven_by(&machine, &lets_through);
    assert!(proof.problems[0].contains("description of the policy is lost"), "{proof:?}");
}

const LAXER_CAGE: &str = "level = \"integrity\"\n\
    [[scope]]\nname = \"cage\"\ncgroup = \"/cage\"\nlevel = \"none\"\nloosen = true\n\
    [scope.reasons]\nkcore = \"deny\"\n";

#[test]
fn the_scope_of_this_process_says_what_is_tried() {
    let machine = sealed(&[LAXER_CAGE]);
    assert_eq!(proven(&machine).refused, OF_INTEGRITY);
    enter_cage(&machine);
    let proof = proven(&machine);
    assert_eq!((proof.conclusion(), &proof.refused[..]), (Conclusion::Verified, &["kcore".to_owned()][..]));
    assert_eq!(untried(&proof), OF_INTEGRITY.map(|id| (id, Cause::LetThroughHere)));
}

#[test]
fn a_scope_that_does_not_refuse_an_integrity_reason_is_open() {
    let open = |machine: &Arc<Machine>| {
        let look = || {
            let types = KernelTypes::of_running_kernel().unwrap();
            match crate::sealed::anchor::look().unwrap() {
                crate::sealed::anchor::Found::Sealed(sealed) => Gap::of_seal(&sealed, &types),
                _ => panic!("not sealed"),
            }
        };
        machine.run(Fate::Lives, look).done()
    };
    let machine = sealed(&[LAXER_CAGE]);
    let scopes = Gap::Scopes(vec![format!("/cage: {}", OF_INTEGRITY.join(", "))]);
    assert!(open(&machine).contains(&scopes), "{:?}", open(&machine));
    // The seal refuses an added reason in every cgroup.
    let added = Added { deny: ReasonSet::MAX, watched: ReasonSet::MAX, ..Added::NONE };
    machine.run(Fate::Lives, || crate::sealed::add_reasons(&added)).done().unwrap();
    assert!(!open(&machine).iter().any(|open| matches!(open, Gap::Scopes(_))), "{:?}", open(&machine));
    // Whether such a scope exists is not known without the description.
    let machine = sealed(&[LAXER_CAGE]);
    std::fs::remove_dir_all(machine.at(Path::new(crate::pinned::description::FOLDER))).unwrap();
    assert!(open(&machine).contains(&Gap::UnknownScopes), "{:?}", open(&machine));
}
