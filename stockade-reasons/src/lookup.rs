/*!
Finding a row of the table by one of its names. Nothing here guesses: only [`nearest`] does, for a
"did you mean" that a person reads.
*/

use crate::{Implies, Level, Probe, Reason, Subject};

include!(concat!(env!("OUT_DIR"), "/table.rs"));

/// Below this likeness a suggestion confuses more than it helps.
const NEAR: f64 = 0.8;

/// Every reason, in the kernel's order: first all of integrity, then all of confidentiality.
#[must_use]
pub fn all() -> &'static [Reason] {
    &REASONS
}

/// Finds a reason by its id. Also accepts the kernel's name, with or without `LOCKDOWN_`, in any
/// case, with underscores or hyphens.
///
/// ```
/// let reason = stockade_reasons::by_id("LOCKDOWN_DEV_MEM").expect("a reason of every kernel");
/// assert_eq!(reason.id, "dev-mem");
/// ```
#[must_use]
pub fn by_id(name: &str) -> Option<&'static Reason> {
    let name = to_id(name);
    REASONS.iter().find(|reason| reason.id == name)
}

/// Finds a reason by the kernel's own constant, exactly as BTF spells it.
#[must_use]
pub fn by_enum_name(name: &str) -> Option<&'static Reason> {
    REASONS.iter().find(|reason| reason.enum_name == name)
}

/// Finds a reason by the words of the kernel's log line, those of kernels before 5.4 too. Case is ignored:
/// some distribution kernels capitalise them.
#[must_use]
pub fn by_kernel_string(text: &str) -> Option<&'static Reason> {
    REASONS.iter().find(|reason| reason.spellings().any(|words| words.eq_ignore_ascii_case(text)))
}

impl Reason {
    /// The kernel's words for it, of today and of before.
    pub(crate) fn spellings(&self) -> impl Iterator<Item = &'static str> + use<> {
        std::iter::once(self.kernel_string).chain(self.historic.iter().copied())
    }
}

/// The id most like a misspelt name, or none when nothing is near enough to suggest.
#[must_use]
pub fn nearest(name: &str) -> Option<&'static str> {
    let name = to_id(name);
    REASONS
        .iter()
        .map(|reason| {
            // One swap, slip or gap in a short name (`kexce`), or a right beginning (`hibernate`).
            let edits = strsim::normalized_damerau_levenshtein(&name, reason.id);
            let start = strsim::jaro_winkler(&name, reason.id);
            (edits.max(start), edits, reason.id)
        })
        .filter(|(likeness, ..)| *likeness >= NEAR)
        .max_by(|left, right| left.0.total_cmp(&right.0).then(left.1.total_cmp(&right.1)))
        .map(|(.., id)| id)
}

fn to_id(name: &str) -> String {
    let name = name.trim().to_ascii_lowercase().replace('_', "-");
    match name.strip_prefix("lockdown-") {
        Some(id) => id.to_owned(),
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_name_is_unique() {
        let names: [fn(&Reason) -> &'static str; 3] =
            [|reason| reason.id, |reason| reason.enum_name, |reason| reason.kernel_string];
        for name in names {
            assert_eq!(all().iter().map(name).collect::<HashSet<_>>().len(), all().len());
        }
    }

    #[test]
    fn every_name_finds_its_reason() {
        for reason in all() {
            let short = reason.enum_name.strip_prefix("LOCKDOWN_").expect("the kernel's prefix");
            for name in [reason.id, reason.enum_name, short, &reason.enum_name.to_lowercase()] {
                assert_eq!(by_id(name), Some(reason), "{name}");
            }
            assert_eq!(by_enum_name(reason.enum_name), Some(reason));
            assert_eq!(by_kernel_string(reason.kernel_string), Some(reason));
            assert_eq!(nearest(reason.id), Some(reason.id));
        }
        assert_eq!(by_id("none"), None);
        assert_eq!(by_enum_name("lockdown_kexec"), None);
        assert_eq!(by_kernel_string("kexec"), None);
    }

    #[test]
    fn all_28_reasons_are_here_in_the_kernels_order() {
        assert_eq!(all().len(), 28);
        assert!(all().is_sorted_by_key(|reason| reason.level));
        let integrity = all().iter().filter(|reason| reason.level == Level::Integrity).count();
        assert_eq!(integrity, 20);
    }

    #[test]
    fn slips_are_understood_and_nonsense_is_not() {
        for (slip, meant) in [
            ("kexce", "kexec"),
            ("hibernate", "hibernation"),
            ("devmem", "dev-mem"),
            ("LOCKDOWN_KPROBE", "kprobes"),
            ("dbugfs", "debugfs"),
            ("bpf_read_kernal", "bpf-read-kernel"),
            ("io-port", "ioport"),
        ] {
            assert_eq!(nearest(slip), Some(meant), "{slip}");
        }
        for nonsense in ["", "x", "banana", "selinux", "seccomp"] {
            assert_eq!(nearest(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn debuggers_are_marked_and_never_probed() {
        let debuggers: Vec<_> = all().iter().filter(|reason| reason.debugger).collect();
        assert_eq!(debuggers.len(), 4);
        for reason in debuggers {
            assert!(matches!(reason.probe, Probe::Never(_)), "{}", reason.id);
            assert_eq!(reason.subject, Subject::Unreliable, "{}", reason.id);
        }
    }

    #[test]
    fn a_reason_serialises_for_json_listings() {
        let reason = by_id("tiocsserial").expect("in the table");
        let json = serde_json::to_value(reason).expect("a reason serialises");
        assert_eq!(json["level"], "integrity");
        assert_eq!(json["implies"]["reasons"][0], "ioport");
        assert_eq!(json["subject"], "trustworthy");
        let reason = by_id("kexec").expect("in the table");
        assert_eq!(serde_json::to_value(reason).expect("a reason serialises")["implies"], "everything");
    }
}
