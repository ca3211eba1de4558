/*!
Every errno at every call, and starvation from every call on.
*/
use std::{error::Error as _, sync::Arc};

use super::{Command, Played, each};
use crate::{
    Error,
    sys::fake::{Ended, Fate, Machine},
};

/// An error of a call says what was tried; the errno is in it or in its source.
fn says_what(error: &Error, what: &str) {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text += &format!(": {inner}");
        source = inner.source();
    }
    assert!(text.split_whitespace().count() >= 4, "{what}: an error that says nothing: {text}");
}

/// Judges what a command has come to that was hit by an error.
fn judge(played: &mut Played, machine: &Arc<Machine>, ended: Ended<Result<(), Error>>, what: &str) {
    let state = played.judge(machine, what);
    match ended {
        Ended::Done(Ok(())) => assert_eq!(state, played.new, "{what}: claimed, and not so"),
        Ended::Done(Err(error)) => says_what(&error, what),
        // It would give up after some seconds.
        Ended::Waits => {}
        Ended::Killed => unreachable!("nobody kills it"),
    }
}

#[test]
fn a_call_that_fails_leaves_the_old_state_or_the_new_one_and_an_error_that_says_what() {
    each(|played| {
        let (mut call, mut which) = (1, 0);
        loop {
            let machine = played.machine();
            let command: Command = played.story.command;
            let ended = machine.run(Fate::Fails(call, which), || command.execute());
            let account = machine.last();
            if account.calls < call {
                break;
            }
            let Some((kind, on, errno)) = account.hit else {
                // No further errno for this call.
                (call, which) = (call + 1, 0);
                continue;
            };
            which += 1;
            let name = played.story.name;
            judge(
                played,
                &machine,
                ended,
                &format!("{name}, call {call} ({kind:?} {on}) fails with {errno}"),
            );
        }
    });
}

#[test]
fn whoever_is_short_of_something_changes_nothing_or_all() {
    each(|played| {
        for errno in [libc::EMFILE, libc::ENOMEM, libc::ENOSPC, libc::EPERM] {
            let mut from = 1;
            loop {
                let machine = played.machine();
                let command: Command = played.story.command;
                let ended = machine.run(Fate::Starves(from, errno), || command.execute());
                // Calls before the first one that is hit cannot fail with this.
                let Some((first, kind, on)) = machine.last().first else { break };
                from = first + 1;
                let name = played.story.name;
                judge(
                    played,
                    &machine,
                    ended,
                    &format!("{name}, {errno} from call {first} ({kind:?} {on}) on"),
                );
            }
        }
    });
}
