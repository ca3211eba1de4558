/*!
Whether an unsigned module is accepted: the kernel is offered zeros, which are no module, and says how far they came.
*/
use std::io;

use super::{locked_down, why_not, without_modules};
use crate::{
    Finding, How, System, Verdict,
    modprobe::{DISABLED, are_off, has_no_modules},
};

const ID: &str = "modules.signature";
const ENFORCE: &str = "/sys/module/module/parameters/sig_enforce";

/// The kernel's answer to an unsigned image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::features) enum Answer {
    /// Refused since it is not signed, or by lockdown, which is the same: by whom.
    Refused(String),
    /// It was not tried: why, and from what follows that it is refused.
    Follows(String),
    /// It came accepted by every check of a signature.
    Free,
    /// There is no such way in: why.
    Absent(String),
    /// It was not tried, or the answer means something else.
    Unclear(String),
}

/// The errno of lockdown; another security module could return it too.
pub(super) const AS_LOCKDOWN: &str = "EPERM, as lockdown refuses";

impl From<stockade_probe::Answer> for Answer {
    fn from(answer: stockade_probe::Answer) -> Self {
        use stockade_probe::Answer as A;
        match answer {
            A::Refused => Self::Refused(AS_LOCKDOWN.into()),
            A::RefusedElsewhere(by) => Self::Refused(by),
            A::Free => Self::Free,
            A::Absent(why) => Self::Absent(why),
            A::NeedsRoot(why) | A::Failed(why) => Self::Unclear(why),
            A::Never(why) => Self::Unclear(why.into()),
        }
    }
}

/// Offers the kernel an unsigned image. It is none that could be loaded.
pub(in crate::features) fn try_unsigned() -> Answer {
    match stockade_probe::doors_of("module-signature").next() {
        Some(door) => door.knock().answer.into(),
        None => Answer::Unclear("this kernel has no such operation".into()),
    }
}

pub(super) fn finding(system: &System) -> Finding {
    if has_no_modules(system) {
        return without_modules(ID);
    }
    if are_off(system) {
        return Finding::new(
            ID,
            Verdict::Pass,
            How::Read,
            "no module can be loaded before the next boot, signed or not",
        )
        .seen(DISABLED, "1");
    }
    let enforced = system.text(ENFORCE);
    let finding = match why_not(system) {
        None => judged(&try_unsigned(), try_broken_signature),
        Some(why_not) => match (&enforced, locked_down(system)) {
            (Ok(value), _) if value == "Y" => {
                Finding::new(ID, Verdict::Pass, How::Read, "modules without a signature are refused")
            }
            (_, Some(level)) => Finding::new(
                ID,
                Verdict::Pass,
                How::Derived,
                format!("the kernel's own lockdown is at {level} and refuses modules without a signature"),
            ),
            _ => Finding::unknown(ID, How::Tried, why_not),
        },
    };
    match enforced {
        Ok(value) => finding.seen(ENFORCE, value),
        Err(unread) if unread.is_missing() => finding.seen(ENFORCE, "not there"),
        Err(_) => finding,
    }
}

fn judged(unsigned: &Answer, broken: impl FnOnce() -> Broken) -> Finding {
    const TRIED: &str = "init_module with an unsigned image of zeros";
    match unsigned {
        Answer::Refused(by) => {
            Finding::new(ID, Verdict::Pass, How::Tried, "a module without a signature is refused")
                .seen(TRIED, by)
        }
        Answer::Free => {
            let broken = broken();
            let found = match broken {
                Broken::Refused => "signatures are checked, but an unsigned module is accepted",
                Broken::Ignored => {
                    "this kernel does not look at signatures: it was built without CONFIG_MODULE_SIG"
                }
                Broken::Other(_) => "an unsigned module is accepted",
            };
            Finding::new(ID, Verdict::Fail, How::Tried, found)
                .seen(TRIED, "ENOEXEC: accepted by every signature check, refused as no ELF file")
                .seen("the same with a broken signature", broken.in_words())
        }
        // Modules are always tried.
        Answer::Follows(why) | Answer::Absent(why) | Answer::Unclear(why) => {
            Finding::unknown(ID, How::Tried, why)
        }
    }
}

/// The kernel's answer to an image with a malformed signature.
enum Broken {
    Refused,
    Ignored,
    Other(String),
}

impl Broken {
    fn in_words(&self) -> &str {
        match self {
            Broken::Refused => "EBADMSG: refused for its signature",
            Broken::Ignored => "ENOEXEC: the signature was not checked",
            Broken::Other(error) => error,
        }
    }
}

/// Offers zeros that end as a signed module does, with a signature longer than the file. `mod_check_sig()` refuses that as a bad message,
/// whatever is enforced; a kernel that does not check goes on and finds no ELF file.
fn try_broken_signature() -> Broken {
    let mut image = vec![0_u8; 4096];
    // struct module_signature: eight bytes of kinds and lengths, then the signature's length.
    image.extend([0; 8]);
    image.extend(u32::MAX.to_be_bytes());
    image.extend(b"~Module signature appended~\n");
    // SAFETY: the kernel copies as many bytes as the image has, and an empty parameter string.
    let result = unsafe { libc::syscall(libc::SYS_init_module, image.as_ptr(), image.len(), c"".as_ptr()) };
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        _ if result == 0 => Broken::Other("loaded".into()),
        Some(libc::EBADMSG) => Broken::Refused,
        Some(libc::ENOEXEC) => Broken::Ignored,
        _ => Broken::Other(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULES: (&str, &str) = ("/proc/modules", "");
    const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

    #[test]
    fn an_unsigned_image_that_gets_through_fails() {
        let verdict = |answer: Answer| judged(&answer, || Broken::Refused).verdict;
        assert_eq!(verdict(Answer::Free), Verdict::Fail);
        assert_eq!(verdict(Answer::Refused("lockdown".into())), Verdict::Pass);
        assert_eq!(verdict(Answer::Unclear("init_module: EACCES".into())), Verdict::Unknown);
        let found = |broken| judged(&Answer::Free, || broken).found;
        assert!(found(Broken::Ignored).contains("CONFIG_MODULE_SIG"));
        assert!(found(Broken::Refused).contains("are checked"));
    }

    #[test]
    fn what_cannot_be_tried_is_read() {
        let verdict = |files: &[(&str, &str)]| finding(&System::fake(files)).verdict;
        assert_eq!(verdict(&[MODULES, (ENFORCE, "Y\n")]), Verdict::Pass);
        assert_eq!(verdict(&[MODULES, (ENFORCE, "N\n")]), Verdict::Unknown);
        let locked = (LOCKDOWN, "none [integrity] confidentiality");
        assert_eq!(verdict(&[MODULES, (ENFORCE, "N\n"), locked]), Verdict::Pass);
        assert_eq!(verdict(&[MODULES, (super::DISABLED, "1")]), Verdict::Pass);
    }
}
