/*!
`stockade seal-record`: what was sealed since boot, and the value of the TPM's register that goes with it.
*/
use std::{fs, io, io::Read, path::Path};

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::Serialize;
use stockade_record::{LOG, Misfit, Record, Replayed, replay};

use crate::{Exit, flags, output};

/// The output of `seal-record --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Report {
    /// The records, the first one first
    pub records: Vec<Sealed>,
    /// What each register that they name must hold after the last one
    pub registers: Vec<Register>,
    /// Why the records do not fit together; null when they do
    pub misfit: Option<String>,
}

/// One record. Its digests are written `sha256:` and 64 hexadecimal digits.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Sealed {
    /// By the wall clock of the machine, which root can set
    pub time: String,
    /// Nanoseconds since boot, suspend included
    pub boot_ns: u64,
    /// The kernel's id of that boot
    pub boot_id: String,
    /// The kernel's release
    pub kernel: String,
    /// Version of the program
    pub stockade: String,
    /// Of the program
    pub program: String,
    /// Of the compiled kernel side
    pub object: String,
    /// Of the policy in its canonical form
    pub policy: String,
    /// none, integrity or confidentiality
    pub level: String,
    /// enforce or audit
    pub mode: String,
    /// What was left open on demand
    pub left_open: Vec<String>,
    /// The register it was measured into; null: none
    pub pcr: Option<u8>,
}

/// A register of the TPM.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Register {
    /// Its number
    pub pcr: u8,
    /// 64 hexadecimal digits: its value in the SHA-256 bank
    pub sha256: String,
}

pub fn run(flags: &flags::SealRecord, json: bool) -> Result<Exit> {
    let replayed = match read(&flags.file)? {
        Some(text) => replay(&text, flags.from),
        None => Ok(Replayed::default()),
    };
    let (replayed, misfit) = match replayed {
        Ok(replayed) => (replayed, None),
        Err(misfit) => (Replayed::default(), Some(misfit)),
    };
    let exit = if replayed.records.is_empty() { Exit::No } else { Exit::Done };
    if json {
        output::json(&report(&replayed, misfit.as_ref()))?;
    } else {
        output::text(&text(&flags.file, &replayed, misfit.as_ref()))?;
    }
    Ok(exit)
}

/// None where the records of this boot would be and nothing was sealed.
fn read(file: &Path) -> Result<Option<String>> {
    if file == Path::new("-") {
        let mut text = String::new();
        io::stdin().lock().read_to_string(&mut text).context("read records from standard input")?;
        return Ok(Some(text));
    }
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound && file == Path::new(LOG) => Ok(None),
        Err(e) => Err(e).with_context(|| format!("read the records of seals in {}", file.display())),
    }
}

fn report(replayed: &Replayed, misfit: Option<&Misfit>) -> Report {
    let sealed = |record: &Record| Sealed {
        time: record.time.to_string(),
        boot_ns: record.boot_ns,
        boot_id: record.boot_id.clone(),
        kernel: record.kernel.clone(),
        stockade: record.stockade.clone(),
        program: record.program.to_string(),
        object: record.object.to_string(),
        policy: record.policy.to_string(),
        level: record.level.clone(),
        mode: record.mode.clone(),
        left_open: record.left_open.clone(),
        pcr: record.pcr,
    };
    let register = |(&pcr, value): (&u8, &stockade_record::Digest)| Register { pcr, sha256: value.hex() };
    Report {
        records: replayed.records.iter().map(sealed).collect(),
        registers: replayed.values.iter().map(register).collect(),
        misfit: misfit.map(ToString::to_string),
    }
}

fn text(file: &Path, replayed: &Replayed, misfit: Option<&Misfit>) -> String {
    if let Some(misfit) = misfit {
        let file = output::harmless(file.display().to_string());
        return format!("The records do not fit together: {file}, {}", output::harmless(misfit.to_string()));
    }
    if replayed.records.is_empty() {
        return "Nothing was sealed since boot.".into();
    }
    let mut out = String::new();
    for record in &replayed.records {
        let seconds = record.boot_ns / 1_000_000_000;
        let mode = output::harmless(format!("{}, {}", record.level, record.mode));
        out += &format!("{}  sealed {mode}, {seconds} s after boot\n", record.time);
        let mut line = |name: &str, value: &str| {
            out += &format!("  {name:<9} {}\n", output::harmless(value));
        };
        line("policy", &record.policy.to_string());
        line("program", &format!("{} (stockade {})", record.program, record.stockade));
        line("object", &record.object.to_string());
        line("kernel", &format!("{}, boot {}", record.kernel, record.boot_id));
        if !record.left_open.is_empty() {
            line("left open", &record.left_open.join(", "));
        }
        line("measured", &record.pcr.map_or_else(|| "nowhere".into(), |pcr| format!("into PCR {pcr}")));
    }
    for (pcr, value) in &replayed.values {
        out += &format!("PCR {pcr} must be {} in the SHA-256 bank.\n", value.hex());
    }
    if !replayed.values.is_empty() {
        out +=
            "This file proves nothing by itself: compare with a quote of the TPM, see docs/seal-record.md.\n";
    }
    out
}
