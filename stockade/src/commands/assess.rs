/*!
`stockade assess`: what this kernel really defends.
*/
use std::{fmt::Write as _, thread};

use anyhow::Result;
use stockade_assess::{System, Verdict, assess, runner::everything};

use crate::{Exit, flags, output};

pub fn run(flags: &flags::Assess, json: bool) -> Result<Exit> {
    let system = System::live(!flags.quick);
    let at_once = thread::available_parallelism().map_or(1, usize::from);
    let assessment = assess(&system, everything(), at_once, |_, _, _| {});
    if json {
        output::json(&assessment)?;
    } else {
        let mut out = String::new();
        for feature in &assessment.features {
            let _ = writeln!(out, "{}", feature.title);
            for finding in &feature.findings {
                let _ = writeln!(out, "  {:<15} {:<28} {}", finding.verdict, finding.id, finding.found);
            }
        }
        output::text(&out)?;
    }
    let failed = assessment.features.iter().flat_map(|f| &f.findings).any(|f| f.verdict == Verdict::Fail);
    Ok(if failed { Exit::No } else { Exit::Done })
}
