/*!
Another command at every call. Whoever reads what is in force takes no lock; whoever changes it waits for the lock, and where it
was not taken yet goes first.
*/
use super::{Command, State, each, look, stories::CONFIDENTIALITY};
use crate::sys::fake::{Ended, Fate, Kind};

#[test]
fn whoever_reads_at_any_call_is_told_the_old_state_or_the_new_one() {
    each(|played| {
        let machine = played.machine();
        let (old, new, name) = (&played.old.told, &played.new.told, played.story.name);
        let (mut told, mut waited) = (0, 0);
        let reads = |call: usize, kind: Kind| match machine.run(Fate::Lives, look) {
            // It goes on once the command has.
            Ended::Waits => waited += 1,
            Ended::Done(Ok(state)) => {
                assert!(state == *old || state == *new, "{name}, call {call} ({kind:?}): told {state:?}");
                told += 1;
            }
            other => panic!("{name}, call {call} ({kind:?}): {other:?}"),
        };
        machine.run_beside(reads, || played.story.command.execute()).done().unwrap();
        assert!(told > 20, "{name}: told {told} times, waited {waited} times");
        assert_eq!(State::of(&machine), played.new, "{name}");
    });
}

#[test]
fn whoever_reads_while_a_command_runs_is_told_the_old_state_or_the_new_one() {
    each(|played| {
        let mut at = 1;
        loop {
            let machine = played.machine();
            let command = played.story.command;
            let runs = |call: usize, _: Kind| {
                if call == at {
                    // It waits where the reader holds what it wants gone; then it is done later.
                    let _ = machine.run(Fate::Lives, || command.execute());
                }
            };
            let (old, new, name) = (&played.old.told, &played.new.told, played.story.name);
            match machine.run_beside(runs, look) {
                Ended::Waits => {}
                Ended::Done(Ok(state)) => {
                    assert!(
                        state == *old || state == *new,
                        "{name} at call {at} of the reader: told {state:?}"
                    );
                }
                other => panic!("{name} at call {at} of the reader: {other:?}"),
            }
            if machine.last().calls < at {
                break;
            }
            let what = format!("{name} at call {at} of a reader");
            played.judge(&machine, &what);
            at += 1;
        }
    });
}

#[test]
fn of_two_commands_that_change_something_one_waits() {
    each(|played| {
        let machine = played.machine();
        let name = played.story.name;
        let mut locked = false;
        let tries = |call: usize, kind: Kind| {
            if locked {
                let before = machine.kernel().fingerprint();
                for other in [Command::Lift, Command::Enforce(CONFIDENTIALITY), Command::Seal, Command::Grant]
                {
                    let ended = machine.run(Fate::Lives, || other.execute());
                    assert!(matches!(ended, Ended::Waits), "{name}, call {call}: {other:?} did not wait");
                }
                assert_eq!(
                    machine.kernel().fingerprint(),
                    before,
                    "{name}, call {call}: changed by one that waits"
                );
            }
            locked |= kind == Kind::Lock;
        };
        // Before the lock's own call nothing is locked; after it everything is.
        machine.run_beside(tries, || played.story.command.execute()).done().unwrap();
        assert!(locked, "{name}: without a lock");
        assert_eq!(State::of(&machine), played.new, "{name}");
    });
}
