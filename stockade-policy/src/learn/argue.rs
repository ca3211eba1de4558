/*!
What speaks against an exception.
*/
use std::path::Path;

use stockade_reasons::{Reason, all, closure};

use super::subject::Subject;
use stockade_text::harmless;

use crate::{
    check::tools::{Bidding, bidding},
    requester::Tally,
    unit::{Home, Kind},
};

/// Folders in which others than root may write.
const WRITABLE: [&str; 7] = ["/home/", "/tmp/", "/var/tmp/", "/dev/shm/", "/run/user/", "/media/", "/mnt/"];

/// Programs that load modules for whoever asks, the kernel among them.
const MODULE_LOADERS: [&str; 3] = ["kmod", "systemd-udevd", "udevadm"];

/// The arguments, the gravest first.
pub(super) fn arguments(subject: &Subject, reasons: &[(&'static Reason, u64)], tally: &Tally) -> Vec<String> {
    let mut arguments = Vec::new();
    for (reason, _) in reasons {
        arguments.extend(falls(reason));
    }
    if let Some(exe) = &subject.exe {
        program(exe, reasons, tally, &mut arguments);
    }
    if let Some(home) = &subject.home {
        if subject.exe.is_none() {
            arguments.push(format!(
                "it is for every program in {}, and root can put any program there",
                harmless(home.to_string())
            ));
        }
        arguments.extend(passing(home));
    }
    arguments
}

/// Returns which other protection is void without this reason.
pub(super) fn falls(reason: &'static Reason) -> Option<String> {
    let falls = closure(reason);
    let why = reason.implies_why;
    match falls.len() {
        0 => None,
        number if number + 1 == all().len() => {
            Some(format!("{} gives it everything that the level refuses: {why}", reason.id))
        }
        _ => {
            let ids: Vec<_> = falls.iter().map(|other| other.id).collect();
            Some(format!("with {} fall {}: {why}", reason.id, ids.join(", ")))
        }
    }
}

fn program(exe: &str, reasons: &[(&'static Reason, u64)], tally: &Tally, arguments: &mut Vec<String>) {
    let name = exe.rsplit('/').next().unwrap_or(exe);
    arguments.extend(bidding(Path::new(exe)).map(|bidding| match bidding {
        Bidding::Interpreter => format!(
            "{name} runs whatever it is handed: the exception is for every script and program that it is given, since the \
             kernel knows the interpreter and not those; better a unit of its own for the one that needs it"
        ),
        Bidding::LoadsCode => {
            format!("{name} loads plugins, scripts or libraries that whoever starts it chooses: the exception is for those too")
        }
        Bidding::Arguments => {
            format!("{name} does what its arguments say: the exception is for whatever anybody makes it do")
        }
    }));
    if MODULE_LOADERS.contains(&name)
        && reasons.iter().any(|(reason, _)| matches!(reason.id, "module-signature" | "module-parameters"))
    {
        arguments.push(format!(
            "{name} loads modules for whoever asks, the kernel among them: this is as wide as allowing it for everybody"
        ));
    }
    if let Some(folder) = WRITABLE.iter().find(|folder| exe.starts_with(*folder)) {
        arguments.push(format!(
            "the program is in {folder}, where others than root may write; install it where they may not"
        ));
    }
    if tally.deleted > 0 {
        arguments.push(
            "it was replaced or deleted while it ran: make sure that what is there now is the program that is meant"
                .into(),
        );
    }
}

/// Why the name will not fit again.
fn passing(home: &Home) -> Option<String> {
    if home.comes_again() {
        return None;
    }
    let name = home.path.rsplit('/').next().unwrap_or_default();
    let instead = match &home.kind {
        Kind::Session { user, .. } => {
            format!("user-{user}.slice would be there again, and is for all that this user runs")
        }
        Kind::Container => {
            "a [[scope]] for the cgroup that the engine puts such containers in would be there again".into()
        }
        _ => "give it a service of its own, whose name stays".into(),
    };
    Some(format!(
        "the name {} will not come again, so that this lets nothing through later on; {instead}",
        harmless(name)
    ))
}
