/*!
What is added to a seal on the model: nothing becomes laxer, and another process that adds or writes at the same time is noticed.
*/
use std::sync::Arc;

use stockade_common::{
    Added, CgroupKey, Exception, ExceptionKey, Sets, SettingRule, Slot, Stacked, Words, dialogue::table,
};
use stockade_policy::compile::CompiledSetting;
use stockade_reasons::Level;

use super::{
    Command, machine, policy,
    stories::{CONFIDENTIALITY, EVERYTHING, GRANTED, HOLDING, HOLDING_MORE, INTEGRITY, ROOM, ROOMY},
};
use crate::{
    Error,
    machine::{btf::KernelTypes, cgroups},
    pinned::{
        pins::{self, Pinned},
        tables::{self, Entries, Sink, bytes},
    },
    program::object::MapName,
    ready::Ready,
    sealed::{Sealed, Transaction},
    sys::fake::{Fate, Kind, Machine},
};

/// A machine with this policy sealed.
fn sealed(text: &'static str) -> Arc<Machine> {
    let machine = machine();
    play(&machine, Command::Enforce(text)).unwrap();
    play(&machine, Command::Seal).unwrap();
    machine
}

/// Runs a command that nothing disturbs.
fn play(machine: &Arc<Machine>, command: Command) -> Result<(), Error> {
    machine.run(Fate::Lives, || command.execute()).done()
}

/// A copy of the machine on which the policy was added with nobody beside.
fn added_alone(machine: &Arc<Machine>, text: &'static str) -> Arc<Machine> {
    let alone = machine.copy();
    play(&alone, Command::Enforce(text)).unwrap();
    alone
}

#[test]
fn a_rule_that_somebody_else_has_added_leaves_no_more_out_than_its_own_setting() {
    const RATCHET: &str = "level = \"confidentiality\"\n[settings]\nratchet = [\"kernel.dmesg_restrict\"]\nfreeze = [\"kernel.modprobe\"]\n";
    let machine = sealed(INTEGRITY);
    let alone = added_alone(&machine, CONFIDENTIALITY);
    machine
        .run(Fate::Lives, || {
            let seal = Sealed::ask().unwrap().unwrap();
            let rule = SettingRule {
                hold: SettingRule::RATCHET,
                kind: SettingRule::LOWER,
                ..SettingRule::default()
            };
            let setting = CompiledSetting { name: "kernel/dmesg_restrict".into(), rule, named: false };
            assert!(crate::sealed::add_setting(seal.slot().words.generation, &setting).unwrap());
        })
        .done();
    match play(&machine, Command::Enforce(RATCHET)) {
        Err(Error::Request(words)) => assert!(words.contains("except for kernel.dmesg_restrict"), "{words}"),
        other => panic!("{other:?}"),
    }
    let there = machine.kernel().table();
    assert_eq!(there.refused, alone.kernel().table().refused);
    assert!(there.settings.contains("kernel/modprobe"), "{:?}", there.settings);
}

#[test]
fn whoever_adds_at_any_call_keeps_nobody_from_adding_and_takes_nothing_away() {
    for (before, after) in [(INTEGRITY, CONFIDENTIALITY), (HOLDING, HOLDING_MORE)] {
        let machine = sealed(before);
        let alone = added_alone(&machine, after);
        let mut wanted = alone.kernel().table();
        let meddles = |call: usize, _: Kind| {
            let forged = Slot { digest: 7, level: 2, ..Slot::default() };
            let added = Added { deny: 1 << (call % 2), told: forged, ..Added::NONE };
            machine
                .run(Fate::Lives, || {
                    crate::sealed::add_reasons(&added).unwrap();
                    // Whether the setting is held already or not.
                    let rule = SettingRule { hold: SettingRule::RATCHET, audit: 1, ..SettingRule::default() };
                    let setting = CompiledSetting { name: "kernel/modprobe".into(), rule, named: false };
                    let _ = crate::sealed::add_setting(1, &setting);
                })
                .done();
        };
        machine.run_beside(meddles, || Command::Enforce(after).execute()).done().unwrap();
        let there = machine.kernel().table();
        wanted.refused.retain(|refused| !there.refused.contains(refused));
        wanted.settings.retain(|setting| !there.settings.contains(setting));
        assert_eq!(wanted, crate::sys::fake::Table::default(), "missing after {after}");
        // Once more, when it is over.
        play(&machine, Command::Enforce(after)).unwrap();
        assert!(matches!(play(&machine, Command::Lift), Err(Error::Sealed { .. })));
    }
}

#[test]
fn a_twin_without_its_entries_or_with_one_more_is_not_taken_for_the_policy() {
    let add = |machine: &Arc<Machine>| play(machine, Command::Enforce(ROOMY));
    let count = |machine: &Arc<Machine>| machine.kernel().stacked().unwrap().count;
    let alone = sealed(ROOM);
    add(&alone).unwrap();
    assert_eq!(count(&alone), 1);
    add(&alone).unwrap();
    assert_eq!(count(&alone), 1, "added twice");
    let lets_through = ["an exception for a user", "a cgroup that is let through"];
    for kind in ["no entry", "no exception", lets_through[0], lets_through[1], "the same"] {
        let machine = sealed(ROOM);
        machine
            .run(Fate::Lives, || {
                let types = KernelTypes::of_running_kernel().unwrap();
                let ready = Ready::new(&types, policy(ROOMY), Level::None).unwrap();
                let transaction = Transaction::open().unwrap();
                let generation = transaction.generation;
                let twin = Twin { of: &transaction, kind };
                tables::write_scopes_and_exceptions(&twin, &ready.tables, &ready.executables, generation)
                    .unwrap();
                tables::place(&twin, &ready.tables.places, generation).unwrap();
                let (key, value) = match kind {
                    "an exception for a user" => {
                        let key = ExceptionKey { generation, uid: 0, ..ExceptionKey::default() };
                        (bytes(&key), bytes(&Exception { always: u64::MAX, inherited: u64::MAX, timed: 0 }))
                    }
                    "a cgroup that is let through" => {
                        let key =
                            CgroupKey { generation, cgroup: *cgroups::own_ids().unwrap().last().unwrap() };
                        (bytes(&key), bytes(&Sets { place: 1, ..Sets::default() }))
                    }
                    _ => Default::default(),
                };
                let table = if kind == lets_through[0] { table::EXCEPTIONS } else { table::CGROUPS };
                if lets_through.contains(&kind) {
                    transaction.write_entry(table, &[key, value].concat()).unwrap();
                }
                transaction
                    .commit(&Slot { words: Words { generation, ..ready.slot.words }, ..ready.slot })
                    .unwrap();
            })
            .done();
        add(&machine).unwrap();
        assert_eq!(count(&machine), if kind == "the same" { 1 } else { 2 }, "{kind}");
        // A twin without the exception refuses more. None refuses less.
        let mut missing = alone.kernel().table().refused;
        missing.retain(|refused| !machine.kernel().table().refused.contains(refused));
        assert!(missing.is_empty(), "{kind}: {missing:?}");
    }
}

/// Writes less than it is given.
struct Twin<'a> {
    of: &'a Transaction,
    kind: &'static str,
}

impl Sink for Twin<'_> {
    fn put(&self, table: MapName, entries: Entries) -> Result<(), Error> {
        match (self.kind, table) {
            ("no entry", _) | ("no exception", MapName::Exceptions) => Ok(()),
            _ => self.of.put(table, entries),
        }
    }
}

#[test]
fn whoever_writes_beside_a_policy_that_is_added_as_a_whole_keeps_it_from_being_added() {
    let (mut added, mut refused) = (0, 0);
    let alone = sealed(ROOM);
    let before = alone.kernel().table();
    play(&alone, Command::Enforce(ROOMY)).unwrap();
    let wanted = alone.kernel().table();
    let calls = alone.last().calls;
    for at in 1..=calls {
        let machine = sealed(ROOM);
        let writes = |call: usize, _: Kind| {
            let pending = machine.kernel().stacked().unwrap().pending;
            if call == at && pending != 0 {
                let key = ExceptionKey { generation: pending, uid: 0, ..ExceptionKey::default() };
                let all = Exception { always: u64::MAX, inherited: u64::MAX, timed: 0 };
                let entry = [bytes(&key), bytes(&all)].concat();
                machine
                    .run(Fate::Lives, || crate::sys::dialogue::write(table::EXCEPTIONS, &entry).map(drop))
                    .done()
                    .unwrap();
            }
        };
        let answer = machine.run_beside(writes, || Command::Enforce(ROOMY).execute()).done();
        match answer {
            Ok(()) => {
                added += 1;
                assert_eq!(machine.kernel().table(), wanted, "call {at}");
            }
            Err(Error::Request(words)) => {
                refused += 1;
                assert!(words.contains("another process added to it at the same time"), "{words}");
                assert_eq!(machine.kernel().table(), before, "call {at}");
                play(&machine, Command::Enforce(ROOMY)).unwrap();
                assert_eq!(machine.kernel().table(), wanted, "call {at}, the next time");
            }
            other => panic!("call {at}: {other:?}"),
        }
    }
    assert!(refused > 5 && added > 20, "{refused} refused, {added} added, of {calls}");
}

#[test]
fn no_number_that_root_gives_to_a_policy_in_force_is_one_that_an_addition_gets() {
    for number in [Stacked::FIRST + 1, u64::MAX, 0, 1, 2] {
        let machine = machine();
        play(&machine, Command::Enforce(EVERYTHING)).unwrap();
        let forge = || {
            let Pinned::Whole(mut enforcement) = pins::open()? else { panic!("it is in force") };
            let other = usize::from(enforcement.policy()?.active & 1 == 0);
            let words = Words { generation: number, ..Words::default() };
            enforcement.write_slot(other, Slot { words, ..Slot::default() })
        };
        machine.run(Fate::Lives, forge).done().unwrap();
        play(&machine, Command::Seal).unwrap();
        let seal = machine.run(Fate::Lives, Sealed::ask).done().unwrap().unwrap();
        assert!((1..=2).contains(&seal.slot().words.generation), "{number}: {:?}", seal.slot());
    }
}

#[test]
fn what_is_refused_in_one_cgroup_is_not_said_of_the_machine() {
    let machine = sealed(ROOM);
    let add = || {
        let types = KernelTypes::of_running_kernel().unwrap();
        let sealed = || Sealed::ask().unwrap().unwrap();
        let before = sealed().in_force(&types);
        let transaction = Transaction::open().unwrap();
        let generation = transaction.generation;
        // Where this process is, and nowhere else.
        let key = CgroupKey { generation, cgroup: cgroups::own_ids().unwrap()[0] };
        let sets = Sets { watched: u64::MAX, deny: u64::MAX, place: 1, pad: 0 };
        transaction.write_entry(table::CGROUPS, &[bytes(&key), bytes(&sets)].concat()).unwrap();
        let words = Words { watched_anywhere: u64::MAX, generation, places: 1, ..Words::default() };
        transaction.commit(&Slot { words, level: 2, digest: 7, ..Slot::default() }).unwrap();
        let added = sealed().policies().last().unwrap();
        assert_eq!(Sealed::sets_here(&added).unwrap().unwrap().deny, u64::MAX, "it decides here");
        let after = sealed().in_force(&types);
        assert_eq!((after.level, after.words.deny), (before.level, before.words.deny));
    };
    machine.run(Fate::Lives, add).done();
}

#[test]
fn what_root_says_of_an_addition_is_not_taken_for_the_administrators() {
    let machine = sealed(INTEGRITY);
    let alone = added_alone(&machine, CONFIDENTIALITY);
    machine
        .run(Fate::Lives, || {
            // Nothing is added, and said to be by a policy with a grant.
            let types = KernelTypes::of_running_kernel().unwrap();
            let mut said = policy(GRANTED);
            said.exceptions[0].granted = true;
            let mut ready = Ready::new(&types, said, Level::None).unwrap();
            ready.describe(9).unwrap();
            crate::sealed::add_reasons(&Added { told: ready.slot, ..Added::NONE }).unwrap();
            assert_eq!(
                Sealed::ask().unwrap().unwrap().newest_description().unwrap().policy.exceptions.len(),
                1
            );
        })
        .done();
    play(&machine, Command::Enforce(CONFIDENTIALITY)).unwrap();
    assert_eq!(machine.kernel().table(), alone.kernel().table());
}
