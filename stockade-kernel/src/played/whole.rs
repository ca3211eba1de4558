/*!
Nothing in between: at every instant of a command each request is decided by the old policy or by the new one, and all of them by the
same; and a decision that is under way comes to what it came to when it began.
*/
use super::{State, each};

#[test]
fn every_instant_is_decided_by_the_old_or_the_new_policy() {
    each(|played| {
        let machine = played.machine();
        let (old, new, name) = (&played.old.table, &played.new.table, played.story.name);
        let mut seen = None;
        let mut is_new = false;
        let instant = |call: usize, kind| {
            let mut kernel = machine.kernel();
            if seen.replace(kernel.changes) == Some(kernel.changes) {
                return;
            }
            kernel.decisions_go_on();
            let table = kernel.table();
            let back = is_new && table == *old && old != new;
            assert!(
                played.is_either(&table) && !back,
                "{name}, call {call} ({kind:?}): neither nor\n{table:?}\nold {old:?}\nnew {new:?}",
            );
            is_new |= table == *new;
        };
        machine.run_beside(instant, || played.story.command.execute()).done().unwrap();
        assert_eq!(State::of(&machine), played.new, "{name}");
    });
}
