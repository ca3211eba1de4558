/*!
Features and findings by the names that are typed, such as `aslr` and `tpm.event-log`.
*/
use clap::{
    Arg, Command, Error,
    builder::{PossibleValue, StringValueParser, TypedValueParser},
    error::ErrorKind,
};
use stockade_assess::{Feature, Text, everything};
use stockade_policy::words::nearest;

/// The wanted findings; all of them if no name is given.
#[derive(Clone, Debug, Default)]
pub struct Names(Vec<String>);

impl Names {
    /// These, which the parser of the command line has let through.
    pub fn of(names: &[String]) -> Self {
        Self(names.to_vec())
    }

    /// Whether this finding is wanted.
    pub fn has(&self, id: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|name| covers(name, id))
    }

    /// The names of which none of these findings is.
    pub fn without(&self, ids: &[&str]) -> Vec<&str> {
        self.0.iter().map(String::as_str).filter(|name| !ids.iter().any(|id| covers(name, id))).collect()
    }

    /// The features that have wanted findings.
    pub fn features(&self) -> Vec<Feature> {
        let all = everything().iter();
        all.filter(|feature| Text::of_feature(feature.id).any(|text| self.has(text.id))).copied().collect()
    }
}

/// Whether a name is that of a finding or of its feature.
fn covers(name: &str, id: &str) -> bool {
    name == id || id.split_once('.').is_some_and(|(feature, _)| name == feature)
}

/// Every name there is: features, then findings.
pub fn all() -> impl Iterator<Item = &'static str> {
    everything().iter().map(|feature| feature.id).chain(Text::all().iter().map(|text| text.id))
}

/// How the files of forms are commonly called.
const FORMS: [(&str, &str); 3] = [(".html", "html"), (".xml", "junit"), (".sarif", "sarif")];

/// The name that was probably meant.
pub fn near(typed: &str) -> Option<&'static str> {
    nearest(typed, all())
}

/// Returns the error for an unknown name.
pub fn none(typed: &str) -> String {
    if let Some(near) = near(typed) {
        return format!("there is no feature or finding {typed:?}; did you mean {near}?");
    }
    // As other flags have it, with a space before the file.
    if let Some((_, form)) = FORMS.iter().find(|(end, _)| typed.ends_with(end)) {
        return format!(
            "there is no feature or finding {typed:?}; a file to write follows an equals sign, as in --{form}=FILE"
        );
    }
    let features: Vec<_> = everything().iter().map(|feature| feature.id).collect();
    format!("there is no feature or finding {typed:?}; the features are: {}", features.join(", "))
}

/// Lets known names through, and offers them to completions.
#[derive(Clone, Debug)]
pub struct Parser;

impl TypedValueParser for Parser {
    type Value = String;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<String, Error> {
        let typed = StringValueParser::new().parse_ref(command, arg, value)?;
        if all().any(|name| name == typed) {
            return Ok(typed);
        }
        Err(Error::raw(ErrorKind::InvalidValue, none(&typed) + "\n").with_cmd(command))
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(all().map(PossibleValue::new)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_is_all_its_findings_and_no_name_is_everything() {
        let names = Names::of(&["ksm".into(), "tpm.event-log".into()]);
        assert!(names.has("ksm.running") && names.has("tpm.event-log") && !names.has("tpm.banks"));
        assert_eq!(names.without(&["ksm.shared", "tpm.banks"]), ["tpm.event-log"]);
        assert!(Names::default().has("tpm.banks"));
        assert_eq!(Names::default().features().len(), everything().len());
        assert_eq!(names.features()[0].id, "ksm");
    }

    #[test]
    fn what_is_no_name_has_one_near() {
        assert!(none("ksm.runing").ends_with("did you mean ksm.running?"));
        assert!(none("ASLR").ends_with("did you mean aslr?"));
        assert!(none("zzz").contains("the features are: "));
        assert!(none("report.html").ends_with("as in --html=FILE"));
    }
}
