/*!
docs/full-test.md: the result of the last `cargo xtask test --all`.
*/
use std::fs;

use anyhow::Context;
use stockade_lab::tool;

use super::{Run, times::minutes};
use crate::workspace;

const DOCUMENT: &str = "docs/full-test.md";

/// Writes the document.
pub fn write(run: &Run<'_>) -> anyhow::Result<()> {
    let git = |arguments: &[&str]| -> anyhow::Result<String> {
        Ok(tool::text(tool::command("git").current_dir(workspace::root()).args(arguments))?.trim().to_owned())
    };
    let commit = git(&["rev-parse", "HEAD"])?;
    let dirty = !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    let date = tool::text(tool::command("date").args(["-u", "+%Y-%m-%d"]))?;
    let mut text = format!(
        "# The last full test\n\nWritten by `cargo xtask test --all`, which plays everything on every kernel.\n\n\
         - Date: {}\n- Commit: {commit}{}\n- Result: {}\n- Time: {}\n\n| kernel | passed | failed | skipped |\n|---|---:|---:|---:|\n",
        date.trim(),
        if dirty { ", with changes that were not committed" } else { "" },
        run.counts,
        minutes(run.times.whole()),
    );
    for (kernel, counts) in run.played.iter().flat_map(|played| &played.by_kernel) {
        text += &format!("| {kernel} | {} | {} | {} |\n", counts.passed, counts.failed, counts.skipped);
    }
    fs::write(workspace::root().join(DOCUMENT), text).with_context(|| format!("writing {DOCUMENT}"))
}
