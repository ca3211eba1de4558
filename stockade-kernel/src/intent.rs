/*!
What the administrator wants, compiled to bit sets for this kernel.

```text
verdict of a reason, first line that applies:
  --deny R          refused, whatever the level and mode
  --audit-reason R  let through and reported
  --allow R         let through
  the level         refused, or with --audit let through and reported
  otherwise         let through
```

A reason that this kernel has and the table lacks is decided by [`Unknown`].
*/
use serde::Serialize;
use stockade_common::{LAST_BIT, ReasonSet, Scope, Slot};
use stockade_reasons::{Level, Reason};

use crate::{Error, btf::KernelTypes};

/// What happens to a reason of this kernel that the table does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unknown {
    /// As the kernel's own lockdown would: by its position between the level markers.
    #[default]
    Level,
    /// Let through.
    Allow,
    /// Let through and reported.
    Audit,
    /// Refused.
    Deny,
}

/// A whole wish: nothing in it depends on the kernel it will be applied to.
#[derive(Clone, Debug)]
pub struct Intent {
    /// The level.
    pub level: Level,
    /// Report instead of refusing what the level covers.
    pub audit: bool,
    /// Let through in spite of the level.
    pub allow: Vec<&'static Reason>,
    /// Refused whatever the level and mode.
    pub deny: Vec<&'static Reason>,
    /// Reported, not refused, whatever the level.
    pub audit_reasons: Vec<&'static Reason>,
    /// Reasons that the table lacks.
    pub unknown: Unknown,
}

/// Something the administrator should know about a policy that is applied nevertheless.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Notice {
    /// The policy names a reason that this kernel does not have.
    AbsentReason {
        /// The reason's id.
        reason: String,
    },
    /// This kernel has a reason that the table lacks.
    UnknownReason {
        /// The kernel's name for it.
        enum_name: String,
        /// What was decided for it.
        verdict: &'static str,
    },
    /// `--allow` of what the level does not refuse anyway.
    NeedlessAllow {
        /// The reason's id.
        reason: String,
    },
    /// A reason is to go through that the kernel's own lockdown refuses anyway.
    RefusedByNative {
        /// The reason's id.
        reason: String,
        /// Level of the kernel's own lockdown.
        native: Level,
    },
}

impl std::fmt::Display for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AbsentReason { reason } => {
                write!(f, "this kernel has no check for {reason}: naming it changes nothing here")
            }
            Self::UnknownReason { enum_name, verdict } => write!(
                f,
                "this kernel checks {enum_name}, which this version of Stockade does not know: it is {verdict} (--unknown-reasons decides)"
            ),
            Self::NeedlessAllow { reason } => {
                write!(f, "the level does not refuse {reason}: allowing it changes nothing")
            }
            Self::RefusedByNative { reason, native } => write!(
                f,
                "{reason} stays refused: the kernel's own lockdown is at {native} and refuses it whatever Stockade says, until reboot"
            ),
        }
    }
}

impl Intent {
    /// The level alone.
    #[must_use]
    pub fn level(level: Level) -> Self {
        Self {
            level,
            audit: false,
            allow: vec![],
            deny: vec![],
            audit_reasons: vec![],
            unknown: Unknown::Level,
        }
    }

    /// Refuses contradictions.
    ///
    /// # Errors
    /// [`Error::Request`] when a reason is named twice with different verdicts, or when there is
    /// nothing to audit.
    pub fn check(&self) -> Result<(), Error> {
        let lists =
            [("--allow", &self.allow), ("--deny", &self.deny), ("--audit-reason", &self.audit_reasons)];
        for (i, (flag, reasons)) in lists.iter().enumerate() {
            for reason in *reasons {
                for (other, others) in &lists[i + 1..] {
                    if others.iter().any(|r| r.id == reason.id) {
                        return Err(Error::Request(format!(
                            "{} is named by both {flag} and {other}: a reason has one verdict; drop one of the two",
                            reason.id
                        )));
                    }
                }
            }
        }
        if self.audit && self.level == Level::None {
            return Err(Error::Request(
                "--audit with level none: there is nothing to audit; name the level to try, integrity or confidentiality".into(),
            ));
        }
        Ok(())
    }

    /// The reasons that were to go through by name, and that the kernel's own lockdown at this level refuses
    /// nevertheless.
    #[must_use]
    pub fn without_effect(&self, native: Level, types: &KernelTypes) -> Vec<Notice> {
        let native_set = level_set(native, types);
        let refused = |reason: &&&Reason| {
            types.number(reason.enum_name).is_some_and(|number| native_set & bit(number) != 0)
        };
        let named = self.allow.iter().chain(&self.audit_reasons);
        named
            .filter(refused)
            .map(|reason| Notice::RefusedByNative { reason: reason.id.into(), native })
            .collect()
    }

    /// Bit sets for this kernel, and what the administrator should know about them.
    #[must_use]
    pub fn compile(&self, types: &KernelTypes) -> (Slot, Vec<Notice>) {
        let mut notices = Vec::new();
        let mut numbers = |reasons: &[&'static Reason]| {
            let mut set: ReasonSet = 0;
            for reason in reasons {
                match types.number(reason.enum_name) {
                    Some(number) => set |= bit(number),
                    None => notices.push(Notice::AbsentReason { reason: reason.id.into() }),
                }
            }
            set
        };
        let (mut allow, mut deny_extra, mut audit_extra) =
            (numbers(&self.allow), numbers(&self.deny), numbers(&self.audit_reasons));
        let mut level_set = level_set(self.level, types);
        for reason in &self.allow {
            if types.number(reason.enum_name).is_some_and(|n| bit(n) & level_set == 0) {
                notices.push(Notice::NeedlessAllow { reason: reason.id.into() });
            }
        }
        let mut quiet = 0;
        for reason in &types.reasons {
            let bit = bit(reason.number);
            let Some(known) = stockade_reasons::by_enum_name(&reason.enum_name) else {
                // Whatever sounds like a debugger is not written to a ring buffer.
                if ["DBG", "GDB", "XMON"].iter().any(|word| reason.enum_name.contains(word)) {
                    quiet |= bit;
                }
                let verdict = match self.unknown {
                    Unknown::Level if level_set & bit == 0 => "allowed, as the level says",
                    Unknown::Level if self.audit => "audited, as the level says",
                    Unknown::Level => "refused, as the level says",
                    Unknown::Allow => {
                        allow |= bit;
                        "allowed"
                    }
                    Unknown::Audit => {
                        audit_extra |= bit;
                        "audited"
                    }
                    Unknown::Deny => {
                        deny_extra |= bit;
                        "refused"
                    }
                };
                notices.push(Notice::UnknownReason { enum_name: reason.enum_name.clone(), verdict });
                continue;
            };
            if known.debugger {
                quiet |= bit;
            }
        }
        if self.level == Level::Confidentiality {
            // Numbers beyond the sets share the last bit: closed rather than open.
            level_set |= bit(LAST_BIT);
        }
        let covered = level_set & !allow;
        let deny = (if self.audit { 0 } else { covered & !audit_extra }) | deny_extra;
        let slot = Slot {
            scope: Scope { watched: covered | audit_extra | deny, deny, quiet },
            allow,
            deny_extra,
            audit_extra,
            applied_boot_ns: 0,
            level: match self.level {
                Level::None => 0,
                Level::Integrity => 1,
                Level::Confidentiality => 2,
            },
            audit: u8::from(self.audit),
            pad: [0; 6],
        };
        (slot, notices)
    }
}

/// The bit of a reason with this number.
#[must_use]
pub fn bit(number: u32) -> ReasonSet {
    1 << number.min(LAST_BIT)
}

fn level_set(level: Level, types: &KernelTypes) -> ReasonSet {
    types
        .reasons
        .iter()
        .filter(|r| match level {
            Level::None => false,
            Level::Integrity => types.is_integrity(r.number),
            Level::Confidentiality => true,
        })
        .fold(0, |set, r| set | bit(r.number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::btf::ReasonNumber;
    use stockade_common::Offsets;

    fn types(names: &[(&str, u32)]) -> KernelTypes {
        KernelTypes {
            reasons: names.iter().map(|&(n, number)| ReasonNumber { enum_name: n.into(), number }).collect(),
            integrity_max: 10,
            confidentiality_max: 20,
            offsets: Offsets::default(),
            hook: Some(1),
        }
    }

    fn kernel() -> KernelTypes {
        types(&[
            ("LOCKDOWN_DEV_MEM", 2),
            ("LOCKDOWN_KEXEC", 3),
            ("LOCKDOWN_KCORE", 12),
            ("LOCKDOWN_DBG_READ_KERNEL", 13),
        ])
    }

    fn reason(id: &str) -> &'static Reason {
        stockade_reasons::by_id(id).unwrap()
    }

    #[test]
    fn levels_follow_the_markers() {
        let (slot, notices) = Intent::level(Level::Integrity).compile(&kernel());
        assert_eq!((slot.scope.watched, slot.scope.deny), (0b1100, 0b1100));
        assert!(notices.is_empty());
        let (slot, _) = Intent::level(Level::Confidentiality).compile(&kernel());
        assert_eq!(slot.scope.deny, 0b1100 | 1 << 12 | 1 << 13 | 1 << 63);
        let (slot, _) = Intent::level(Level::None).compile(&kernel());
        assert_eq!(slot.scope.watched, 0);
    }

    #[test]
    fn audit_watches_and_refuses_nothing_but_what_is_denied_by_name() {
        let mut intent = Intent::level(Level::Integrity);
        intent.audit = true;
        intent.deny = vec![reason("kexec")];
        let (slot, _) = intent.compile(&kernel());
        assert_eq!((slot.scope.watched, slot.scope.deny), (0b1100, 0b1000));
    }

    #[test]
    fn an_exception_that_native_lockdown_overrules_is_told() {
        let mut intent = Intent::level(Level::Confidentiality);
        intent.allow = vec![reason("dev-mem"), reason("kcore"), reason("msr")];
        intent.audit_reasons = vec![reason("kexec")];
        let told = |native| -> Vec<String> {
            let notices = intent.without_effect(native, &kernel());
            notices.iter().map(ToString::to_string).collect()
        };
        assert!(told(Level::None).is_empty());
        let integrity = told(Level::Integrity);
        assert_eq!(integrity.len(), 2, "{integrity:?}");
        assert!(integrity[0].starts_with("dev-mem stays refused") && integrity[1].starts_with("kexec"));
        // This kernel has no check for msr.
        assert_eq!(told(Level::Confidentiality).len(), 3);
    }

    #[test]
    fn one_reason_is_let_through_and_the_rest_stays_shut() {
        let mut intent = Intent::level(Level::Integrity);
        intent.allow = vec![reason("dev-mem")];
        let (slot, _) = intent.compile(&kernel());
        assert_eq!((slot.scope.watched, slot.scope.deny), (0b1000, 0b1000));
    }

    #[test]
    fn the_debugger_is_quiet() {
        let (slot, _) = Intent::level(Level::Confidentiality).compile(&kernel());
        assert_eq!(slot.scope.quiet, 1 << 13);
    }

    #[test]
    fn unknown_reasons_follow_the_level_with_a_notice_or_what_is_said() {
        let mut future = kernel();
        future.reasons.push(ReasonNumber { enum_name: "LOCKDOWN_TELEPATHY".into(), number: 5 });
        let mut intent = Intent::level(Level::Integrity);
        let (slot, notices) = intent.compile(&future);
        assert_eq!(slot.scope.deny & 1 << 5, 1 << 5);
        assert!(
            matches!(&notices[..], [Notice::UnknownReason { enum_name, .. }] if enum_name == "LOCKDOWN_TELEPATHY")
        );
        intent.unknown = Unknown::Allow;
        assert_eq!(intent.compile(&future).0.scope.watched & 1 << 5, 0);
        intent.unknown = Unknown::Audit;
        let scope = intent.compile(&future).0.scope;
        assert_eq!((scope.watched & 1 << 5, scope.deny & 1 << 5), (1 << 5, 0));
        intent.level = Level::None;
        intent.unknown = Unknown::Deny;
        assert_eq!(intent.compile(&future).0.scope.deny, 1 << 5);
    }

    #[test]
    fn contradictions_name_both_flags() {
        let mut intent = Intent::level(Level::Integrity);
        intent.allow = vec![reason("kexec")];
        intent.deny = vec![reason("kexec")];
        let message = intent.check().unwrap_err().to_string();
        assert!(
            message.contains("--allow") && message.contains("--deny") && message.contains("kexec"),
            "{message}"
        );
    }
}
