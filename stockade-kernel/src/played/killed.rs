/*!
A kill before every call of a command.
*/
use super::each;
use crate::sys::fake::{Ended, Fate};

#[test]
fn a_kill_leaves_the_old_state_or_the_new_one_and_the_next_command_works() {
    each(|played| {
        let mut kills = 0;
        loop {
            let machine = played.machine();
            kills += 1;
            let command = played.story.command;
            if let Ended::Done(answer) = machine.run(Fate::Killed(kills), || command.execute()) {
                answer.unwrap();
                break;
            }
            let (kind, on, _) = machine.last().hit.expect("killed");
            let what = format!("{}, killed before call {kills} ({kind:?} {on})", played.story.name);
            played.judge(&machine, &what);
        }
        assert!(kills > 20, "{}: {kills} calls are few", played.story.name);
    });
}
