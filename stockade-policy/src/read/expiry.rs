/*!
When an exception ends.
*/
use jiff::Timestamp;
use toml::{de::DeValue, value::Datetime};

use super::{Reader, fields::Value};
use crate::model::Said;

const EXAMPLE: &str = "expires = 2027-01-31T00:00:00Z";

impl Reader<'_> {
    pub(super) fn expiry(&mut self, value: &Value) -> Option<Said<Timestamp>> {
        let (what, help) = match value.get_ref() {
            DeValue::Datetime(time) => match instant(time) {
                Ok(time) => return Some(self.said(time, &value.span())),
                Err(wrong) => wrong,
            },
            DeValue::String(text) => match text.parse::<Datetime>() {
                Ok(_) => ("a time stands without quotes".into(), format!("write for instance: {EXAMPLE}")),
                Err(_) => (
                    "`expires` is a time, and this is a string".into(),
                    format!("write for instance: {EXAMPLE}"),
                ),
            },
            _ => {
                self.wrong_type("expires", "a time", value, EXAMPLE);
                return None;
            }
        };
        let problem = self.wrong(what, &value.span());
        self.report(problem.help(help));
        None
    }
}

/// The moment that is meant: without an offset it would be another one in every time zone.
fn instant(time: &Datetime) -> Result<Timestamp, (String, String)> {
    let clock = match (time.date, time.time) {
        (Some(_), Some(_)) => time,
        (Some(date), None) => {
            return Err((
                "this is a date without a time of day and time zone".into(),
                format!("write the moment, for instance {date}T00:00:00Z"),
            ));
        }
        _ => {
            return Err((
                "this is a time of day without a date".into(),
                format!("write the moment: {EXAMPLE}"),
            ));
        }
    };
    if clock.offset.is_none() {
        return Err((
            "this time has no time zone, so it is not one moment".into(),
            format!("add Z for UTC or an offset: {clock}Z or {clock}+02:00"),
        ));
    }
    match clock.to_string().parse::<Timestamp>() {
        Ok(moment) if moment >= Timestamp::UNIX_EPOCH => Ok(moment),
        _ => {
            Err(("this is not a time between 1970 and 9999".into(), format!("write for instance: {EXAMPLE}")))
        }
    }
}
