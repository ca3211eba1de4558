/*!
The chain from the firmware to a module: each link verifies the next, and one that does not makes all before it worthless.
*/
use stockade_reasons::Level;

use super::{efi, shim};
use crate::{
    Finding, How, System, Unread, Verdict,
    efi::{Firmware, Variable},
    features::{
        lockdown::native,
        modules::{Answer, files_are_covered, try_unsigned_kernel, try_unsigned_module},
    },
};

const ID: &str = "secure-boot.chain";

/// The state of a link.
enum Link {
    Holds(String),
    Broken(String),
    Unknown(String),
}

pub(super) fn finding(system: &System, firmware: &Firmware<'_>) -> Finding {
    let firmware = match efi(ID, firmware) {
        Ok(firmware) => firmware,
        Err(finding) => return finding,
    };
    let links = [
        ("firmware to boot loader", flag(firmware, Variable::SECURE_BOOT, true)),
        ("setup mode", flag(firmware, Variable::SETUP_MODE, false)),
        ("shim to kernel", of_shim(firmware)),
        ("kernel to module", module(system)),
        ("kernel to next kernel", kernel(system)),
    ];
    judged(&links)
}

fn judged(links: &[(&str, Link)]) -> Finding {
    let broken = links.iter().find_map(|(name, link)| match link {
        Link::Broken(how) => Some((name, how)),
        _ => None,
    });
    let unknown = links.iter().find_map(|(name, link)| match link {
        Link::Unknown(why) => Some((name, why)),
        _ => None,
    });
    let finding = match (broken, unknown) {
        (Some((name, how)), _) => {
            Finding::new(ID, Verdict::Fail, How::Derived, format!("the chain is broken ({name}): {how}"))
        }
        (None, Some((name, why))) => {
            Finding::unknown(ID, How::Derived, format!("a link is not known ({name}): {why}"))
        }
        (None, None) => Finding::new(
            ID,
            Verdict::Pass,
            How::Derived,
            "everything from the firmware to a module is verified",
        ),
    };
    links.iter().fold(finding, |finding, (name, link)| match link {
        Link::Holds(how) => finding.seen(*name, format!("holds: {how}")),
        Link::Broken(how) => finding.seen(*name, format!("broken: {how}")),
        Link::Unknown(why) => finding.seen(*name, format!("unknown: {why}")),
    })
}

fn flag(firmware: &Firmware<'_>, variable: Variable, wanted: bool) -> Link {
    let words = format!("{} is {}", variable.name, firmware.in_words(variable));
    match firmware.flag(variable) {
        Ok(Some(value)) if value == wanted => Link::Holds(words),
        Ok(_) => Link::Broken(words),
        Err(unread) => unclear(&unread),
    }
}

fn of_shim(firmware: &Firmware<'_>) -> Link {
    match (shim::is_told_not_to_verify(firmware), shim::is_used(firmware)) {
        (Ok(true), _) => Link::Broken("MokSBStateRT is 1".into()),
        (Ok(false), Ok(true)) => Link::Holds("MokSBStateRT is not 1".into()),
        (Ok(false), Ok(false)) => Link::Holds("shim is not used".into()),
        (Err(unread), _) | (_, Err(unread)) => unclear(&unread),
    }
}

fn module(system: &System) -> Link {
    match in_place_of_trying(system) {
        Some(link) => link,
        None => of_answers(&[("init_module", try_unsigned_module())]),
    }
}

fn kernel(system: &System) -> Link {
    match in_place_of_trying(system) {
        Some(Link::Holds(_)) if !files_are_covered(system) => Link::Unknown(
            "not tried, and this kernel is not known to ask lockdown for a kernel in a file".into(),
        ),
        Some(link) => link,
        None => of_answers(&try_unsigned_kernel(system)),
    }
}

/// Returns the state of the kernel's links if nothing can be tried.
fn in_place_of_trying(system: &System) -> Option<Link> {
    let why_not = if system.is_live() { system.lacks_root()? } else { "nothing was tried" };
    Some(match native(system) {
        Ok(Level::None) => Link::Unknown(format!("{why_not}; the kernel's own lockdown is off")),
        Ok(level) => Link::Holds(format!("the kernel's own lockdown is at {level}")),
        Err(_) => Link::Unknown(why_not.into()),
    })
}

/// One way through is enough.
fn of_answers(answers: &[(&str, Answer)]) -> Link {
    let mut refused = Vec::new();
    let mut unclear = None;
    for (call, answer) in answers {
        match answer {
            Answer::Free => return Link::Broken(format!("{call} accepts unsigned images")),
            Answer::Refused(_) => refused.push(format!("{call} refuses unsigned images")),
            Answer::Absent(why) | Answer::Follows(why) => refused.push(format!("{call}: {why}")),
            Answer::Unclear(why) => unclear = Some(format!("{call}: {why}")),
        }
    }
    unclear.map_or_else(|| Link::Holds(refused.join("; ")), Link::Unknown)
}

fn unclear(unread: &Unread) -> Link {
    Link::Unknown(unread.to_string())
}

#[cfg(test)]
mod tests {
    use super::{super::FEATURE, *};
    use crate::efi::fake::{Boot, boot};

    fn verdict(boot: &Boot<'_>) -> Verdict {
        FEATURE.findings(&boot.system())[ID].verdict
    }

    #[test]
    fn one_link_breaks_the_chain() {
        let locked = || {
            boot()
                .file("/sys/kernel/security/lockdown", "none [integrity] confidentiality")
                .file("/proc/sys/kernel/osrelease", "6.12")
        };
        // Lockdown is asked for a kernel in a file where signatures are looked at.
        let files = |options| locked().file("/boot/config-6.12", options);
        assert_eq!(verdict(&files("CONFIG_KEXEC_FILE=y\nCONFIG_KEXEC_SIG=y\n")), Verdict::Pass);
        assert_eq!(verdict(&files("CONFIG_KEXEC_FILE=y\n")), Verdict::Unknown);
        assert_eq!(verdict(&locked().with("SecureBoot", &[0])), Verdict::Fail);
        assert_eq!(verdict(&locked().with("SetupMode", &[1])), Verdict::Fail);
        assert_eq!(verdict(&locked().with("MokSBStateRT", &[1])), Verdict::Fail);
        assert_eq!(verdict(&boot()), Verdict::Unknown);
    }

    #[test]
    fn an_unsigned_kernel_by_one_way_breaks_it() {
        let of = |a: Answer, b: Answer| match of_answers(&[("a", a), ("b", b)]) {
            Link::Holds(_) => Verdict::Pass,
            Link::Broken(_) => Verdict::Fail,
            Link::Unknown(_) => Verdict::Unknown,
        };
        let refused = || Answer::Refused("lockdown".into());
        let unclear = || Answer::Unclear("busy".into());
        assert_eq!(of(refused(), Answer::Absent("not built".into())), Verdict::Pass);
        assert_eq!(of(refused(), Answer::Free), Verdict::Fail);
        assert_eq!(of(unclear(), Answer::Free), Verdict::Fail);
        assert_eq!(of(unclear(), refused()), Verdict::Unknown);
    }
}
