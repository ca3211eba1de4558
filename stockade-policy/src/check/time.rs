/*!
Exceptions that have ended, are about to, or will so late that nobody means it.
*/
use jiff::{SignedDuration, Timestamp};

use super::{Case, Finding, Report, code, falls::about};

const SOON: SignedDuration = SignedDuration::from_hours(7 * 24);
const LATE: SignedDuration = SignedDuration::from_hours(366 * 24);

pub(super) fn argue(case: &Case<'_>, report: &mut Report) {
    let now = case.machine.now;
    for exception in &case.policy.exceptions {
        let Some(end) = &exception.expires else { continue };
        let name = &exception.name.value;
        let left = end.value.duration_since(now);
        let (code, message) = if left <= SignedDuration::ZERO {
            (
                &code::EXPIRED,
                format!("exception {name:?} expired {} ago: it lets nothing through", roughly(-left)),
            )
        } else if left <= SOON && !exception.granted {
            (&code::EXPIRES_SOON, format!("exception {name:?} expires in {}", roughly(left)))
        } else if left > LATE {
            (&code::EXPIRES_LATE, format!("exception {name:?} expires in {}", roughly(left)))
        } else {
            continue;
        };
        report
            .findings
            .push(Finding::new(code, about(exception), &end.origin, message).label(day(end.value)));
    }
}

fn roughly(time: SignedDuration) -> String {
    let hours = time.as_hours();
    let (count, unit) = match hours {
        0 => (time.as_mins(), "minute"),
        1..48 => (hours, "hour"),
        48..17_520 => (hours / 24, "day"),
        _ => (hours / (365 * 24), "year"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

fn day(time: Timestamp) -> String {
    format!("{}", time.strftime("%a %e %b %Y %H:%M UTC"))
}
