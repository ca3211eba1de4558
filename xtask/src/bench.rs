/*!
`cargo xtask bench`: the cost of decisions, in instructions. Guest time counts instructions here, so
figures repeat on any host, to an instruction or two. They are compared with the promises of the specification, and written
into it.
*/
use std::{fs, time::Duration};

use anyhow::{Context, ensure};
use clap::Args;
use stockade_lab::{
    boot::{Clock, Hardware, Machine},
    initrd, kernels,
};

use crate::{programs, setup, workspace};

/// The kernels to measure on, and whether to write.
#[derive(Debug, Args)]
pub struct Flags {
    /// The kernels to measure on; the specification has the figures of 6.12-generic
    #[arg(long, value_name = "KERNEL,…", value_delimiter = ',', default_value = SPECIFIED, value_parser = clap::builder::PossibleValuesParser::new(kernels::ids()))]
    on: Vec<String>,
    /// Write nothing; only hold the figures against the promises
    #[arg(long)]
    check: bool,
}

impl Flags {
    /// Returns the flags that compare the figures of the specified kernel with the promises.
    pub fn check() -> Self {
        Self { on: vec![SPECIFIED.to_owned()], check: true }
    }
}

/// The kernel whose figures are in the specification.
const SPECIFIED: &str = "6.12-generic";

/// The document with the figures.
pub const DOCUMENT: &str = "SPECIFICATION.md";

/// The beginning of a row of figures, and the promised greatest number of instructions over the floor.
const PROMISES: [(&str, i64); 7] = [
    ("Stockade, level none: allowed", 20),
    ("Stockade, confidentiality, these allowed", 20),
    ("With a scope and an exception for other reasons: allowed", 40),
    ("Stockade, refused", 400),
    ("Stockade, audited", 400),
    ("Sealed, confidentiality, these allowed", 30),
    ("Sealed, refused", 400),
];

/// Measures, prints and compares; returns whether every promise was kept.
pub fn run(flags: &Flags) -> anyhow::Result<bool> {
    setup::need(&[setup::LAB])?;
    let programs = programs::build()?;
    let folder = workspace::lab_folder()?;
    let mut kept = true;
    for id in &flags.on {
        let kernel = kernels::get(id, false)?;
        let disk = folder.join(format!("bench-{id}.cpio"));
        initrd::write(&kernel, &programs, &disk)?;
        let machine = |more: &str| Machine {
            kernel: &kernel,
            initrd: &disk,
            disk: None,
            cmdline: format!("stockade.run=exec:/bin/stockade-bench{more}"),
            hardware: Hardware::USUAL,
            console: folder.join(format!("bench-{id}.console")),
            clock: Clock::Instructions(0),
            limit: Duration::from_mins(20),
        };
        // A seal lasts until reboot.
        let machines = [machine(""), machine(" stockade.bench=sealed")];
        println!("{} ({})", kernel.id, kernel.release);
        let mut said = measure(&machines)?;
        if !broken(&said)?.is_empty() {
            println!("a promise is broken; measuring once more");
            said = measure(&machines)?;
        }
        let broken = broken(&said)?;
        for promise in &broken {
            println!("a promise is broken on {id}: {promise}");
        }
        kept &= broken.is_empty();
        if id == SPECIFIED && !flags.check {
            write(&said, &kernel.release)?;
        }
    }
    Ok(kept)
}

/// Runs the benchmark, prints its output and returns it.
fn measure(machines: &[Machine<'_>]) -> anyhow::Result<Vec<String>> {
    let mut said = Vec::new();
    for machine in machines {
        machine.run_program(|line| {
            println!("{line}");
            said.push(line.to_owned());
        })?;
    }
    Ok(said)
}

/// Returns the promises that these figures break. A missing figure is an error.
fn broken(said: &[String]) -> anyhow::Result<Vec<String>> {
    let mut broken = Vec::new();
    for (row, at_most) in PROMISES {
        let line = said.iter().find(|line| line.strip_prefix("| ").is_some_and(|l| l.starts_with(row)));
        let line = line.with_context(|| format!("the benchmark has no row {row:?}"))?;
        let over: Vec<i64> = line.split('|').filter_map(over_the_floor).collect();
        ensure!(!over.is_empty(), "no figures over the floor in: {line}");
        if over.iter().any(|instructions| *instructions > at_most) {
            broken.push(format!("{row}: {over:?} instructions over the floor, promised are {at_most}"));
        }
    }
    Ok(broken)
}

/// Reads `1028 (+19)`.
fn over_the_floor(cell: &str) -> Option<i64> {
    cell.trim().strip_suffix(')')?.split_once('(')?.1.parse().ok()
}

/// The tables: their marks in the specification, and how they begin.
const TABLES: [(&str, &str); 4] = [
    ("bench", "| instructions per call"),
    ("commands", "| whole commands"),
    ("sealed-bench", "| sealed: instructions per call"),
    ("sealed-commands", "| sealed: whole commands"),
];

/// Writes the tables into the specification.
fn write(said: &[String], release: &str) -> anyhow::Result<()> {
    let file = workspace::root().join(DOCUMENT);
    let mut text = fs::read_to_string(&file).with_context(|| format!("reading {DOCUMENT}"))?;
    for (name, first) in TABLES {
        let rows = said.iter().skip_while(|line| !line.starts_with(first)).take_while(|l| l.starts_with('|'));
        let table: String = rows.flat_map(|row| [row, "\n"]).collect();
        text = replaced(&text, name, &format!("Kernel {release}.\n\n{table}"))?;
    }
    fs::write(&file, text).with_context(|| format!("writing {DOCUMENT}"))
}

/// Returns the text with the part between two marks replaced.
pub fn replaced(text: &str, name: &str, with: &str) -> anyhow::Result<String> {
    let (start, end) = (format!("<!-- {name}:start -->\n"), format!("<!-- {name}:end -->"));
    let missing = || format!("{DOCUMENT} has no marks {name}:start and {name}:end");
    let (before, rest) = text.split_once(&start).with_context(missing)?;
    let (_, after) = rest.split_once(&end).with_context(missing)?;
    Ok([before, &start, with, &end, after].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(allowed: i64, audited: i64) -> Vec<String> {
        vec![
            "| Stockade, level none: allowed | 1028 (+19) | 5899 (+19) |".to_owned(),
            format!("| Stockade, confidentiality, these allowed | 1028 ({allowed:+}) |"),
            "| With a scope and an exception for other reasons: allowed | 1028 (+19) |".to_owned(),
            "| Stockade, refused, event read by a live reader | 1306 (+297) | 1065 (-4815) |".to_owned(),
            format!("| Stockade, audited, event read by a live reader | 6279 ({audited:+}) |"),
            "| Sealed, confidentiality, these allowed | 1075 (+24) |".to_owned(),
            "| Sealed, refused by a policy added later, event read by a live reader | 1485 (+363) |"
                .to_owned(),
        ]
    }

    #[test]
    fn a_promise_is_kept_to_the_last_instruction() {
        assert_eq!(broken(&figures(20, 400)).unwrap(), Vec::<String>::new());
        assert_eq!(broken(&figures(21, 400)).unwrap().len(), 1);
        assert_eq!(broken(&figures(21, 401)).unwrap().len(), 2);
        assert!(broken(&figures(20, 400)[1..]).is_err(), "a row is missing");
    }

    #[test]
    fn only_what_stands_between_the_marks_is_replaced() {
        let text = "a\n<!-- x:start -->\nold\n<!-- x:end -->\nb\n";
        assert_eq!(replaced(text, "x", "new\n").unwrap(), "a\n<!-- x:start -->\nnew\n<!-- x:end -->\nb\n");
        assert!(replaced(text, "y", "new\n").is_err());
    }

    #[test]
    fn the_specification_has_the_marks() {
        let text = fs::read_to_string(workspace::root().join(DOCUMENT)).unwrap();
        for (name, _) in TABLES {
            replaced(&text, name, "").unwrap();
        }
    }
}
