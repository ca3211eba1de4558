/*!
Settings that are held to no effect, or at a value that nobody wants to keep.
*/
use stockade_reasons::Level;

use super::{About, Case, Finding, Now, Report, Severity, code, settled};
use crate::{
    model::{Hold, LevelChoice, Origin},
    settings::{self, Coverage, DEFAULT, Values},
};

pub(super) fn argue(case: &Case<'_>, report: &mut Report) {
    for (name, said) in &case.policy.settings {
        let about = About::Key(format!("settings.{name}"));
        if name == DEFAULT {
            report.findings.extend(default(case, about, &said.origin));
            continue;
        }
        let near = settings::near(name).filter(|near| *near != name);
        if let Some(near) = near.filter(|_| settings::by_name(name).is_none()) {
            report.findings.push(
                Finding::new(
                    &code::SETTING_MISSPELT,
                    about.clone(),
                    &said.origin,
                    format!("{name} is not known, and {near} is"),
                )
                .remedy(format!("Write {near}, or accept the finding where {name} is really meant.")),
            );
        }
        report.findings.extend(name_only(name, about.clone(), &said.origin));
        match (case.machine.setting)(&settings::dotted(name)) {
            Now::Unknown => report.unseen.push("the settings: whether they are there is not told".into()),
            Now::Absent => report.findings.push(Finding::new(
                &code::SETTING_ABSENT,
                about,
                &said.origin,
                format!("there is no setting {name} here: holding it changes nothing"),
            )),
            Now::Is(value) if said.value == Hold::Freeze && is_weakest(name, &value) => {
                let why = settings::by_name(name).map_or("", |setting| setting.why);
                report.findings.push(
                    Finding::new(
                        &code::FROZEN_WEAKEST,
                        about,
                        &said.origin,
                        format!("{name} is {value} now, its weakest value, and would be frozen at that"),
                    )
                    .why(why),
                );
            }
            Now::Is(_) => {}
        }
    }
}

/// A setting whose value changes by other ways as well.
fn name_only(name: &str, about: About, origin: &Origin) -> Option<Finding> {
    let Coverage::NameOnly(ways) = settings::coverage(name) else { return None };
    let (severity, message) = if ways.is_empty() {
        (
            Severity::Note,
            format!(
                "{name} is held under this name only: whether its value changes by other ways is not known"
            ),
        )
    } else {
        (
            Severity::Warning,
            format!("{name} is held under this name only: its value also changes by {}", ways.join("; by ")),
        )
    };
    let finding = Finding::new(&code::SETTING_NAME_ONLY, about, origin, message).severity(severity);
    let instead = settings::by_name(name).and_then(|setting| setting.instead);
    Some(match instead {
        Some(instead) => finding.remedy(instead),
        None => finding,
    })
}

/// The default profile of a level that has none.
fn default(case: &Case<'_>, about: About, origin: &Origin) -> Option<Finding> {
    let level = case.policy.level.value;
    if settled(level, case.machine) != Level::None {
        return None;
    }
    let (severity, message) = if level == LevelChoice::Auto {
        (Severity::Note, "the default profile holds nothing here: auto is none, since Secure Boot is off")
    } else {
        (Severity::Warning, "the default profile of level none holds nothing")
    };
    Some(Finding::new(&code::DEFAULT_HOLDS_NOTHING, about, origin, message).severity(severity))
}

/// Whether a setting has the value that every other one is stricter than.
fn is_weakest(name: &str, value: &str) -> bool {
    let Some(known) = settings::by_name(name) else { return false };
    let Ok(value) = value.trim().parse::<i64>() else { return false };
    match known.values {
        Values::Order(order) => order.first().is_some_and(|first| i64::from(*first) == value),
        Values::Bits => value == 1,
        Values::Lower => value < 0,
        Values::Higher | Values::LowerButZero => value <= 0,
        Values::Text | Values::Number | Values::List => false,
    }
}
