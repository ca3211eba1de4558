/*!
`stockade --version`: which program this is.
*/
use anyhow::Result;
use data_encoding::HEXLOWER;
use schemars::JsonSchema;
use serde::Serialize;

use crate::{Exit, build_id::build_id, output};

/// The output of `--version --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Report {
    /// The version
    pub version: &'static str,
    /// The commit it was built from; followed by `-dirty` when the sources differed from it, `unknown` when the build did not tell
    pub commit: &'static str,
    /// The build ID that the linker made from the program's content, in hexadecimal digits; null when the linker made none
    pub build_id: Option<String>,
    /// Digest of the compiled kernel side that the program loads: `sha256:` and hexadecimal digits
    pub kernel_object: String,
}

/// How many digits of a commit people are shown.
const SHORT: usize = 12;

impl Report {
    fn of_this_program() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            // Given by `cargo xtask dist`, or by whoever packages the program. Cargo builds anew when it changes.
            commit: option_env!("STOCKADE_COMMIT").unwrap_or("unknown"),
            build_id: build_id(),
            kernel_object: format!("sha256:{}", HEXLOWER.encode(&stockade_kernel::object_digest())),
        }
    }

    fn for_people(&self) -> String {
        let Self { version, commit, build_id, kernel_object } = self;
        let (digits, dirty) =
            commit.strip_suffix("-dirty").map_or((*commit, ""), |digits| (digits, "-dirty"));
        let digits = digits.get(..SHORT).unwrap_or(digits);
        let build_id = build_id.as_deref().unwrap_or("none");
        format!(
            "stockade {version} (commit {digits}{dirty}, build id {build_id}, kernel-side object {kernel_object})"
        )
    }
}

pub fn run(json: bool) -> Result<Exit> {
    let report = Report::of_this_program();
    if json {
        output::json(&report)?;
    } else {
        output::text(&report.for_people())?;
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::Report;

    #[test]
    fn people_are_shown_a_short_commit_and_whether_the_sources_differed() {
        let text = |commit| {
            let kernel_object = "sha256:00".to_owned();
            Report { version: "1.2.3", commit, build_id: Some("cafe".into()), kernel_object }.for_people()
        };
        assert_eq!(
            text("0123456789abcdef0123456789abcdef01234567-dirty"),
            "stockade 1.2.3 (commit 0123456789ab-dirty, build id cafe, kernel-side object sha256:00)"
        );
        assert!(text("unknown").contains("(commit unknown, "));
    }
}
