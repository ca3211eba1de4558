/*!
From the lines of a log to the value that a register must have.
*/
use std::collections::BTreeMap;

use crate::{Digest, FORMAT, Record};

/// The result of replaying a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Its records, in order.
    pub records: Vec<Record>,
    /// The value that each named PCR must have after the last record, in the SHA-256 bank.
    pub values: BTreeMap<u8, Digest>,
}

/// Why a log says nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct Misfit {
    /// From 1.
    pub line: usize,
    /// The contradiction.
    pub what: String,
}

/// Replays a log. `from` is what the registers held before Stockade used them: zeros, unless the firmware's event log says
/// otherwise.
///
/// # Errors
/// When a line is no record, does not follow the one before, or tells another value of its register than the lines before it
/// give: then something is missing, or others measured into it as well.
pub fn replay(log: &str, from: Digest) -> Result<Replayed, Misfit> {
    let mut replayed = Replayed::default();
    let mut previous = None;
    for (number, line) in log.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
        let misfit = |what| Misfit { line: number + 1, what };
        let record: Record =
            serde_json::from_str(line).map_err(|e| misfit(format!("this is no record of a seal: {e}")))?;
        if record.format != FORMAT {
            return Err(misfit(format!("this is a record of format {}, not {FORMAT}", record.format)));
        }
        if record.previous != previous {
            let told = |digest: Option<Digest>| digest.map_or_else(|| "none".into(), |d| d.to_string());
            return Err(misfit(format!(
                "this record follows {}, and the one before it is {}",
                told(record.previous),
                told(previous)
            )));
        }
        let digest = Digest::of(line.as_bytes());
        if let Some(pcr) = record.pcr {
            let value = replayed.values.entry(pcr).or_insert(from);
            if let Some(before) = record.pcr_before.filter(|before| before != value) {
                return Err(misfit(format!(
                    "PCR {pcr} held {before} before this record, not {value}: something else was measured into it"
                )));
            }
            *value = value.after(&digest.0);
        }
        previous = Some(digest);
        replayed.records.push(record);
    }
    Ok(replayed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(pcr: Option<u8>) -> Record {
        Record {
            format: FORMAT,
            stockade: "0.1.0".into(),
            kernel: "6.12".into(),
            boot_id: "8a2c1d5e-0000-4000-8000-000000000000".into(),
            boot_ns: 1,
            time: "2027-01-31T00:00:00Z".parse().unwrap(),
            policy: Digest::of(b"policy"),
            level: "integrity".into(),
            mode: "enforce".into(),
            object: Digest::of(b"object"),
            program: Digest::of(b"program"),
            left_open: vec!["foreign-program 7".into()],
            pcr,
            pcr_before: pcr.map(|_| Digest::default()),
            previous: None,
        }
    }

    /// Two seals, the second on the first.
    fn log() -> (String, Digest) {
        let first = record(Some(13)).line().unwrap();
        let one = Digest::default().after(&Digest::of(first.as_bytes()).0);
        let previous = Some(Digest::of(first.as_bytes()));
        let second = Record { pcr_before: Some(one), previous, ..record(Some(13)) }.line().unwrap();
        let two = one.after(&Digest::of(second.as_bytes()).0);
        (format!("{first}\n{second}\n"), two)
    }

    /// Readers of the log rely on the order of keys and the form of each value.
    #[test]
    fn the_line_is_as_it_is_documented() {
        let line = record(None).line().unwrap();
        assert!(line.starts_with(r#"{"format":1,"stockade":"0.1.0","kernel":"6.12","boot_id":""#), "{line}");
        assert!(line.contains(r#""time":"2027-01-31T00:00:00Z","policy":"sha256:"#), "{line}");
        assert!(
            line.ends_with(
                r#""left_open":["foreign-program 7"],"pcr":null,"pcr_before":null,"previous":null}"#
            )
        );
    }

    #[test]
    fn a_log_gives_the_value_of_its_register() {
        let (log, value) = log();
        let replayed = replay(&log, Digest::default()).unwrap();
        assert_eq!(replayed.values, BTreeMap::from([(13, value)]));
        assert_eq!(replayed.records.len(), 2);
        assert_eq!(replay("", Digest::default()), Ok(Replayed::default()));
        // Measured nowhere.
        let logged = record(None).line().unwrap();
        assert!(replay(&logged, Digest::default()).unwrap().values.is_empty());
    }

    #[test]
    fn a_log_that_was_altered_does_not_fit_or_gives_another_value() {
        let (log, value) = log();
        let misfit = |text: &str, line, words: &str| {
            let error = replay(text, Digest::default()).unwrap_err();
            assert!(error.line == line && error.what.contains(words), "{error}");
        };
        misfit("{}\n", 1, "no record");
        misfit(&log.replace("\"format\":1", "\"format\":2"), 1, "format 2");
        misfit(log.lines().nth(1).unwrap(), 1, "follows sha256:");
        misfit(&log.replacen("6.12", "6.13", 1), 2, "the one before it is");
        let (first, second) = log.split_once('\n').unwrap();
        let other =
            replay(&format!("{first}\n{}", second.replace("6.12", "6.13")), Digest::default()).unwrap();
        assert_ne!(other.values[&13], value);
        let error = replay(&log, Digest::of(b"")).unwrap_err();
        assert!(error.to_string().contains("something else was measured into it"), "{error}");
    }
}
