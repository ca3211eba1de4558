/*!
`[[waiver]]` in /etc/stockade/assess.toml: findings of the assessment that somebody looked at and accepted for a time.

The reader is the policy's, so that mistakes are told in the same way; what findings there are is for the caller to say.
*/
use jiff::civil::Date;
use toml::{
    de::{DeTable, DeValue},
    value::Datetime,
};

use super::{
    Reader,
    fields::{Once, Table, Value, printable},
};
use crate::{model::Said, problems::Problems, source::Source, words::nearest};

const TOP: &[&str] = &["waiver"];
const KEYS: &[&str] = &["finding", "reason", "expires"];

const FINDING: &str = "finding = \"ksm.running\"";
const REASON: &str = "reason = \"all guests belong to one owner\"";
const EXPIRES: &str = "expires = 2027-01-31";

/// A finding that is accepted for a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiver {
    /// The finding's id.
    pub finding: Said<String>,
    /// Why.
    pub reason: Said<String>,
    /// The last day on which it counts, by UTC.
    pub expires: Said<Date>,
}

impl Waiver {
    /// Whether it counts no longer.
    #[must_use]
    pub fn is_over(&self, today: Date) -> bool {
        today > self.expires.value
    }
}

/// Reads a file of waivers for these findings.
///
/// # Errors
/// With everything that is wrong with it, in the order of its lines.
pub fn read_waivers(source: &Source, findings: &[&str]) -> Result<Vec<Waiver>, Problems> {
    super::of(
        source,
        "a waiver takes a hundred bytes, and there are not that many findings",
        |reader, fields| waivers(reader, fields, findings),
    )
}

fn waivers(reader: &mut Reader, fields: &DeTable, findings: &[&str]) -> Vec<Waiver> {
    let top = Table { fields, at: 0..0, called: "a file of waivers" };
    reader.only_known_keys(&top, TOP);
    let tables = reader.tables(&top, "waiver", "a waiver");
    let waivers: Vec<_> = tables.iter().filter_map(|table| reader.waiver(table, findings)).collect();
    let mut once = Once::new();
    for waiver in &waivers {
        once.check(reader, &waiver.finding.value, &waiver.finding.origin, || {
            (format!("{} is waived twice", waiver.finding.value), "keep one of the two")
        });
    }
    waivers
}

impl Reader<'_> {
    fn waiver(&mut self, table: &Table, findings: &[&str]) -> Option<Waiver> {
        self.only_known_keys(table, KEYS);
        let finding = self.demand(table, "finding", FINDING).and_then(|value| self.finding(value, findings));
        let reason =
            self.demand(table, "reason", REASON).and_then(|value| self.sentence("reason", value, REASON));
        let expires = self.demand(table, "expires", EXPIRES).and_then(|value| self.day(value));
        Some(Waiver { finding: finding?, reason: reason?, expires: expires? })
    }

    fn finding(&mut self, value: &Value, findings: &[&str]) -> Option<Said<String>> {
        let typed = self.string("finding", value, FINDING)?;
        if findings.contains(&typed.value.as_str()) {
            return Some(typed);
        }
        let problem =
            self.wrong(format!("there is no finding \"{}\"", printable(&typed.value)), &value.span());
        let of_feature = |id: &&str| id.split_once('.').is_some_and(|(feature, _)| feature == typed.value);
        let of_feature: Vec<&str> = findings.iter().copied().filter(of_feature).collect();
        let help = if !of_feature.is_empty() {
            format!("this is a feature; each of its findings is waived by itself: {}", of_feature.join(", "))
        } else if let Some(near) = nearest(&typed.value, findings.iter().copied()) {
            format!("did you mean \"{near}\"?")
        } else {
            "`stockade assess` lists every finding by its id".into()
        };
        self.report(problem.help(help));
        None
    }

    fn day(&mut self, value: &Value) -> Option<Said<Date>> {
        let example = format!("write for instance: {EXPIRES}");
        let (what, help) = match value.get_ref() {
            DeValue::Datetime(Datetime { date: Some(date), time: None, .. }) => {
                // TOML's dates are of the year 0 to 9999 and exist in the calendar.
                let day = date.to_string().parse::<Date>();
                match day {
                    Ok(day) => return Some(self.said(day, &value.span())),
                    Err(_) => ("this is no day of the calendar", example),
                }
            }
            DeValue::Datetime(Datetime { date: Some(date), .. }) => {
                ("`expires` is a day, without a time", format!("write for instance: expires = {date}"))
            }
            DeValue::String(text) if text.parse::<Date>().is_ok() => {
                ("a day stands without quotes", format!("write: expires = {}", printable(text)))
            }
            _ => {
                self.wrong_type("expires", "a day", value, EXPIRES);
                return None;
            }
        };
        let problem = self.wrong(what, &value.span());
        self.report(problem.help(help));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINDINGS: &[&str] = &["aslr.stack", "ksm.running"];

    fn read(text: &str) -> Result<Vec<Waiver>, String> {
        read_waivers(&Source::new("assess.toml", text), FINDINGS).map_err(|problems| problems.to_string())
    }

    #[test]
    fn a_waiver_has_a_finding_a_reason_and_an_end() {
        let text = "[[waiver]]\nfinding = \"ksm.running\"\nreason = \"one owner\"\nexpires = 2027-01-31\n";
        let waivers = read(text).unwrap();
        assert_eq!((waivers.len(), waivers[0].reason.value.as_str()), (1, "one owner"));
        assert!(!waivers[0].is_over("2027-01-31".parse().unwrap()));
        assert!(waivers[0].is_over("2027-02-01".parse().unwrap()));
        assert_eq!(read(""), Ok(Vec::new()));
    }

    #[test]
    fn every_mistake_is_told_with_its_line_and_what_would_be_right() {
        let text = "\
[[waiver]]
finding = \"ksm.runing\"
reason = \"\"
expires = 2027-01-31T00:00:00Z

[[waiver]]
finding = \"nothing.like-it\"
expires = \"2027-01-31\"
until = 3

[[waiver]]
finding = 7
reason = \"x\"

[[waiver]]
finding = \"ksm\"
reason = \"x\"
expires = 2027-01-31
";
        let told = read(text).unwrap_err();
        let wanted = [
            "assess.toml:2:11: there is no finding \"ksm.runing\"; did you mean \"ksm.running\"?",
            "assess.toml:3:10: `reason` is empty; write for instance: reason = ",
            "assess.toml:4:11: `expires` is a day, without a time; write for instance: expires = 2027-01-31",
            "assess.toml:6:1: a waiver needs `reason`; add for instance: reason = ",
            "assess.toml:7:11: there is no finding \"nothing.like-it\"; `stockade assess` lists every finding by its id",
            "assess.toml:8:11: a day stands without quotes; write: expires = 2027-01-31",
            "assess.toml:9:1: a waiver has no key `until`; its keys are finding, reason, expires",
            "assess.toml:11:1: a waiver needs `expires`; add for instance: expires = 2027-01-31",
            "assess.toml:12:11: `finding` is a string, and this is an integer",
            "assess.toml:16:11: there is no finding \"ksm\"; this is a feature; each of its findings is waived by itself: ksm.running",
        ];
        for (told, wanted) in told.lines().zip(wanted) {
            assert!(told.starts_with(wanted), "{told}");
        }
        assert_eq!(told.lines().count(), wanted.len(), "{told}");
    }

    #[test]
    fn the_same_twice_and_what_is_no_toml_are_mistakes() {
        let one = "[[waiver]]\nfinding = \"ksm.running\"\nreason = \"x\"\nexpires = 2027-01-31\n";
        assert!(
            read(&one.repeat(2)).unwrap_err().starts_with("assess.toml:6:11: ksm.running is waived twice")
        );
        assert!(read("[[waiver]\n").unwrap_err().contains("this is not TOML"));
        assert!(read("[waiver]\nfinding = \"ksm.running\"\n").unwrap_err().contains("write [[waiver]]"));
        assert!(read("expires = 2027-02-30\n").unwrap_err().contains("assess.toml:1"));
    }
}
