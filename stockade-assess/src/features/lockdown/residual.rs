/*!
Leftovers: what was opened or loaded before the level was set, which lockdown does not revoke.
*/
use stockade_reasons::Level;
use stockade_residual::{Kind, Leftover, Residue, incomplete_view, look};

use super::{NOT_LIVE, in_force::InForce};
use crate::{Finding, How, System, Verdict};

const ID: &str = "lockdown.residual";

/// The number of leftovers in the evidence; `stockade residual` lists all.
const SHOWN: usize = 6;

pub(super) fn finding(system: &System, in_force: &InForce) -> Finding {
    let why_not = if system.is_live() { system.lacks_root() } else { Some(NOT_LIVE) };
    if let Some(why_not) = why_not {
        return Finding::unknown(ID, How::Read, why_not);
    }
    if let Some(why_not) = incomplete_view() {
        return Finding::unknown(ID, How::Read, why_not);
    }
    let stockade = match &in_force.stockade {
        Ok(stockade) => stockade.as_ref(),
        Err(why) => return Finding::unknown(ID, How::Read, why),
    };
    let nothing_refused = stockade.is_none_or(|stockade| stockade.silent || stockade.refused.is_empty());
    match &in_force.native {
        Ok(Level::None) if nothing_refused => {
            return Finding::not_applicable(ID, How::Read, "nothing is refused, so nothing can bypass it");
        }
        Err(unread) if nothing_refused => return Finding::unknown(ID, How::Read, unread),
        _ => {}
    }
    let refused = |reason: &str| in_force.refuses(reason);
    judge(look(&refused, stockade.and_then(|stockade| stockade.program)), &refused)
}

fn judge(residue: Residue, refused: &dyn Fn(&str) -> bool) -> Finding {
    let against: Vec<Leftover> =
        residue.leftovers.into_iter().filter(|leftover| refused(leftover.reason)).collect();
    // kdump loads a crash kernel on purpose before the level is set.
    let (on_purpose, bad): (Vec<_>, Vec<_>) = against.iter().partition(|l| l.kind == Kind::CrashImage);
    // A part that lockdown itself hides from this check is hidden from new programs too.
    let unseen = residue.unseen.iter().find(|unseen| unseen.hidden_by.is_none());
    let mut finding = if !bad.is_empty() {
        Finding::new(
            ID,
            Verdict::Fail,
            How::Read,
            format!("{} leftovers, opened or loaded before, bypass what is refused now", bad.len()),
        )
    } else if let Some(unseen) = unseen {
        Finding::unknown(
            ID,
            How::Read,
            format!("not everything could be checked: {}: {}", unseen.what, unseen.why),
        )
    } else if !on_purpose.is_empty() {
        Finding::new(
            ID,
            Verdict::Warn,
            How::Read,
            "a crash kernel (kdump) was loaded before signatures were enforced",
        )
    } else {
        Finding::new(
            ID,
            Verdict::Pass,
            How::Read,
            format!(
                "no leftovers: nothing that is refused now is still open or loaded ({} processes checked)",
                residue.processes
            ),
        )
    };
    for leftover in against.iter().take(SHOWN) {
        let source = match &leftover.process {
            Some(process) => format!("process {} ({})", process.pid, process.comm),
            None => "the kernel".into(),
        };
        finding = finding.seen(source, format!("{} ({})", leftover.what, leftover.reason));
    }
    if against.len() > SHOWN {
        finding = finding.seen("stockade residual", format!("lists {} more", against.len() - SHOWN));
    }
    for unseen in &residue.unseen {
        finding = finding.seen(unseen.what, format!("not checked: {}", unseen.why));
    }
    finding
}

#[cfg(test)]
mod tests {
    use stockade_residual::Unseen;

    use super::*;

    fn leftover(reason: &'static str, kind: Kind) -> Leftover {
        Leftover::new(reason, kind, "/dev/mem".into(), String::new())
    }

    fn verdict(leftovers: Vec<Leftover>, unseen: Vec<Unseen>) -> Verdict {
        judge(Residue { leftovers, unseen, ..Residue::default() }, &|reason| reason != "kcore").verdict
    }

    #[test]
    fn what_goes_on_in_spite_of_the_level_fails() {
        assert_eq!(verdict(vec![], vec![]), Verdict::Pass);
        assert_eq!(verdict(vec![leftover("dev-mem", Kind::File)], vec![]), Verdict::Fail);
        assert_eq!(verdict(vec![leftover("kcore", Kind::File)], vec![]), Verdict::Pass);
        assert_eq!(verdict(vec![leftover("kexec", Kind::CrashImage)], vec![]), Verdict::Warn);
    }

    #[test]
    fn what_could_not_be_looked_at_is_no_proof() {
        let unseen = |hidden_by| Unseen { what: "modules", why: "no /sys".into(), hidden_by };
        assert_eq!(verdict(vec![], vec![unseen(None)]), Verdict::Unknown);
        assert_eq!(verdict(vec![], vec![unseen(Some("debugfs"))]), Verdict::Pass);
        assert_eq!(verdict(vec![leftover("msr", Kind::File)], vec![unseen(None)]), Verdict::Fail);
    }
}
