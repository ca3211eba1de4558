/*!
What else falls when a reason is allowed: the table's `implies`, followed to the end.
*/

use crate::{Implies, Reason, all, by_id};

/// Every other reason that falls too when `reason` is allowed, in the table's order.
///
/// Empty when the reason stands alone; all the others when it leads to
/// [`Implies::Everything`], be it over several steps.
///
/// ```
/// let msr = stockade_reasons::by_id("msr").expect("a reason of every kernel");
/// assert_eq!(stockade_reasons::closure(msr).len(), stockade_reasons::all().len() - 1);
/// ```
#[must_use]
pub fn closure(reason: &Reason) -> Vec<&'static Reason> {
    let mut reached = vec![reason.id];
    let mut next = 0;
    // `reached` is both the result and the queue: what was found is looked at in turn, once.
    while let Some(found) = reached.get(next).and_then(|id| by_id(id)) {
        next += 1;
        match found.implies {
            Implies::Everything => {
                return all().iter().filter(|other| other.id != reason.id).collect();
            }
            Implies::Reasons(ids) => {
                for id in ids {
                    if !reached.contains(id) {
                        reached.push(id);
                    }
                }
            }
        }
    }
    all().iter().filter(|other| other.id != reason.id && reached.contains(&other.id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Level;

    fn ids(of: &str) -> Vec<&'static str> {
        closure(by_id(of).expect("in the table")).into_iter().map(|reason| reason.id).collect()
    }

    #[test]
    fn memory_writers_take_everything_but_themselves() {
        for id in ["dev-mem", "msr", "kexec", "module-signature", "ioport", "pci-access", "hibernation"] {
            let falls = ids(id);
            assert_eq!(falls.len(), all().len() - 1, "{id}");
            assert!(!falls.contains(&id));
        }
    }

    #[test]
    fn one_step_to_a_memory_writer_is_enough() {
        for id in ["tiocsserial", "module-parameters", "mmiotrace", "pcmcia-cis"] {
            assert_eq!(ids(id).len(), all().len() - 1, "{id}");
        }
    }

    #[test]
    fn memory_readers_take_confidentiality_and_leave_integrity() {
        for reason in all().iter().filter(|reason| reason.level == Level::Confidentiality) {
            assert!(
                closure(reason).iter().all(|falls| falls.level == Level::Confidentiality),
                "{}",
                reason.id
            );
        }
        assert_eq!(ids("kcore").len(), 7);
    }

    #[test]
    fn some_stand_alone() {
        for id in ["xfrm-secret", "perf", "efi-test", "bpf-write-user"] {
            assert!(ids(id).is_empty(), "{id}");
        }
    }
}
