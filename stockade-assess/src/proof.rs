/*!
The doors of stockade-probe, as the proof of a seal knocks at them.
*/
use stockade_kernel::seal::{Cause, ProbeResult};
use stockade_probe::{Answer, knock_without_effect};

/// Tries a reason, given by its id, at a door without an effect.
#[must_use]
pub fn knock(reason: &str) -> ProbeResult {
    let Some(found) = knock_without_effect(reason) else {
        return ProbeResult::NotTried(
            Cause::Absent,
            "this version of Stockade knows no way to try it".into(),
        );
    };
    match found.answer {
        Answer::Refused => ProbeResult::Refused,
        Answer::Free => ProbeResult::LetThrough,
        Answer::Absent(why) => ProbeResult::NotTried(Cause::Absent, why),
        Answer::Never(why) => ProbeResult::NotTried(Cause::HasEffect, why.into()),
        Answer::RefusedElsewhere(why) => ProbeResult::NotTried(Cause::RefusedBefore, why),
        Answer::NeedsRoot(why) | Answer::Failed(why) => ProbeResult::NotTried(Cause::Failed, why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_that_cannot_be_tried_is_told_with_its_cause() {
        assert!(
            matches!(knock("tiocsserial"), ProbeResult::NotTried(Cause::HasEffect, why) if why.contains("modem"))
        );
        assert!(matches!(knock("no-such-reason"), ProbeResult::NotTried(Cause::Absent, _)));
        assert!(matches!(knock("mmiotrace"), ProbeResult::NotTried(Cause::HasEffect, _)));
    }
}
