/*!
Preparing and recording.

Before the seal everything is looked at that could fail afterwards, since a seal cannot be taken back. The register comes
first and the logs after it, as a record says whether it was measured: where the TPM fails in between, it says so.
*/
use std::{
    fmt::Display,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use stockade_policy::{
    model::{Clock, Mode, Policy, Seal},
    show::canonical,
};
use stockade_reasons::Level;

use crate::{
    Digest, FORMAT, Record,
    tpm::{self, Tpm},
};

/// Where the records of this boot are. Root can write it: what it says counts as far as a register confirms it.
pub const LOG: &str = "/run/stockade/seal-record.jsonl";

/// The longest line that the kernel log takes from a program, with its beginning.
const KERNEL_LOG_LINE: usize = 976;

/// Where everything is; another place in tests.
#[derive(Clone, Debug)]
pub struct Places {
    /// The TPM.
    pub tpm: PathBuf,
    /// The kernel log.
    pub kernel_log: PathBuf,
    /// The records of this boot.
    pub log: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self { tpm: tpm::DEVICE.into(), kernel_log: "/dev/kmsg".into(), log: LOG.into() }
    }
}

/// Why a seal is not recorded as the policy demands.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Something that goes into the record cannot be read.
    #[error("the seal could not be recorded: read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The policy demands a TPM; nothing was sealed.
    #[error(
        "{source}\n  the policy says require-tpm = true, so nothing was sealed; with require-tpm = false the seal is recorded in the logs alone"
    )]
    TpmRequired {
        /// The error of the TPM.
        source: tpm::Error,
    },
    /// The TPM answered before and failed after the seal, which is in force.
    #[error(
        "the policy is sealed, and that is not recorded in PCR {pcr}: {source}\n  \
         whoever asks the TPM cannot tell that this machine is sealed until the next boot; the record is in the kernel log and in {}",
        recorded.log.display()
    )]
    NotMeasured {
        /// The register.
        pcr: u8,
        /// The error of the TPM.
        source: tpm::Error,
        /// The record that was made all the same.
        recorded: Box<Recorded>,
    },
}

/// Everything that could fail was looked at.
#[derive(Debug)]
pub struct Prepared {
    places: Places,
    register: Option<Register>,
    notice: Option<String>,
    kernel: String,
    boot_id: String,
    program: File,
}

/// A register that could be read.
#[derive(Debug)]
struct Register {
    tpm: Tpm<File>,
    pcr: u8,
}

/// A sealed policy.
#[derive(Clone, Debug)]
pub struct Sealed<'a> {
    /// The policy in force.
    pub policy: &'a Policy,
    /// The level that `auto` stands for.
    pub auto: Level,
    /// Of the compiled kernel side.
    pub object: Digest,
    /// What was left open on demand, in a word or two each: a line that gets too long is told to the kernel log by its digest.
    pub left_open: Vec<String>,
    /// When it was sealed.
    pub at: Clock,
}

/// The record and its places.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The record.
    pub record: Record,
    /// Its digest, which is what was measured.
    pub digest: Digest,
    /// Where it was measured.
    pub measured: Option<Measured>,
    /// The file that it was added to.
    pub log: PathBuf,
    /// Other failures, in words. None of them weakens the seal or the proof by the TPM.
    pub problems: Vec<String>,
}

/// A record in a TPM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    /// The register.
    pub pcr: u8,
    /// The banks that were extended.
    pub banks: Vec<String>,
    /// Its value now, in the SHA-256 bank, unless another program has extended it meanwhile.
    pub value: Digest,
}

/// Looks whether a seal can be recorded as the policy demands: to be asked before anything is sealed.
///
/// # Errors
/// [`Error::TpmRequired`] when the policy demands a TPM that does not answer, [`Error::Unreadable`].
pub fn prepare(seal: &Seal) -> Result<Prepared, Error> {
    Prepared::at(seal, Places::default())
}

impl Prepared {
    /// Does what [`prepare`] does, with other paths.
    ///
    /// # Errors
    /// The errors of [`prepare`].
    pub fn at(seal: &Seal, places: Places) -> Result<Self, Error> {
        let mut notice = None;
        let register = match &seal.pcr {
            None => None,
            Some(pcr) => match look(&places.tpm, pcr.value) {
                Ok(register) => Some(register),
                Err(source) if seal.require_tpm.value => return Err(Error::TpmRequired { source }),
                Err(source) => {
                    notice = Some(format!(
                        "the seal is not recorded in PCR {}, as the policy asks for: {source}",
                        pcr.value
                    ));
                    None
                }
            },
        };
        // Held open: what is hashed after the seal is what sealed.
        let path = Path::new("/proc/self/exe");
        let program = File::open(path).map_err(|source| Error::Unreadable { path: path.into(), source })?;
        Ok(Self {
            places,
            register,
            notice,
            kernel: line_of("/proc/sys/kernel/osrelease")?,
            boot_id: line_of("/proc/sys/kernel/random/boot_id")?,
            program,
        })
    }

    /// Returns the notice for the administrator before the seal.
    #[must_use]
    pub fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }

    /// Records a seal that is in force.
    ///
    /// # Errors
    /// [`Error::NotMeasured`] when the TPM fails. Logs that cannot be written are problems of what was recorded.
    pub fn commit(self, sealed: &Sealed<'_>) -> Result<Recorded, Error> {
        let Self { places, mut register, kernel, boot_id, program, notice } = self;
        let level = sealed.policy.level.value.settled(sealed.auto);
        let mut bytes = Vec::new();
        let mut unread = None;
        if let Err(source) = (&program).read_to_end(&mut bytes) {
            unread = Some(format!(
                "the program that sealed could not be read, so that its digest is that of nothing: {source}"
            ));
            bytes.clear();
        }
        let mut record = Record {
            format: FORMAT,
            stockade: env!("CARGO_PKG_VERSION").into(),
            kernel,
            boot_id,
            boot_ns: sealed.at.boot_ns,
            time: sealed.at.wall,
            policy: Digest::of(canonical(sealed.policy).as_bytes()),
            level: level.to_string(),
            mode: match sealed.policy.mode.value {
                Mode::Enforce => "enforce".into(),
                Mode::Audit => "audit".into(),
            },
            object: sealed.object,
            program: Digest::of(&bytes),
            left_open: sealed.left_open.clone(),
            pcr: register.as_ref().map(|register| register.pcr),
            pcr_before: None,
            previous: last(&places.log),
        };
        let measured = register.as_mut().map(|register| register.measure(&mut record));
        let (measured, failed) = match measured {
            Some(Err(error)) => {
                record.pcr_before = None;
                (None, record.pcr.take().map(|pcr| (pcr, error)))
            }
            Some(Ok(measured)) => (Some(measured), None),
            None => (None, None),
        };
        let line = line(&record);
        let digest = Digest::of(line.as_bytes());
        let mut problems: Vec<String> = notice.into_iter().chain(unread).collect();
        problems.extend(write_kernel_log(&places.kernel_log, &line, digest).err().map(|error| {
            format!("the record could not be written to {}: {error}", places.kernel_log.display())
        }));
        problems.extend(
            add(&places.log, &line)
                .err()
                .map(|error| format!("the record could not be written to {}: {error}", places.log.display())),
        );
        let recorded = Recorded { record, digest, measured, log: places.log, problems };
        match failed {
            None => Ok(recorded),
            Some((pcr, source)) => Err(Error::NotMeasured { pcr, source, recorded: Box::new(recorded) }),
        }
    }
}

impl Register {
    fn measure(&mut self, record: &mut Record) -> Result<Measured, tpm::Error> {
        let before = self.tpm.read(self.pcr)?;
        record.pcr_before = Some(before);
        let digest = Digest::of(line(record).as_bytes());
        let banks = self.tpm.event(self.pcr, &digest.0)?;
        Ok(Measured { pcr: self.pcr, banks, value: before.after(&digest.0) })
    }
}

fn look(path: &Path, pcr: u8) -> Result<Register, tpm::Error> {
    let mut tpm = Tpm::open(path)?;
    tpm.read(pcr)?;
    Ok(Register { tpm, pcr })
}

fn line(record: &Record) -> String {
    record.line().expect("a record is strings and numbers")
}

fn line_of(path: &str) -> Result<String, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::Unreadable { path: path.into(), source })?;
    Ok(text.trim_end().to_owned())
}

/// The digest of the last record of this boot.
fn last(log: &Path) -> Option<Digest> {
    let text = fs::read_to_string(log).ok()?;
    text.lines().rfind(|line| !line.is_empty()).map(|line| Digest::of(line.as_bytes()))
}

/// Writes a line at the level notice, which the journal reads from there. Of a line that is too long for the kernel log, the digest is written.
fn write_kernel_log(path: &Path, line: &str, digest: Digest) -> io::Result<()> {
    let told = |what: &dyn Display| format!("<5>stockade: sealed {what}\n");
    let mut text = told(&line);
    if text.len() > KERNEL_LOG_LINE {
        text = told(&format_args!("{{\"record\":\"{digest}\",\"log\":\"{LOG}\"}}"));
    }
    // One record of the log is one write.
    OpenOptions::new().append(true).open(path)?.write_all(text.as_bytes())
}

fn add(path: &Path, line: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    file.write_all(format!("{line}\n").as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use stockade_policy::model::{LevelChoice, Said};

    use super::*;

    fn places(folder: &Path) -> Places {
        let kernel_log = folder.join("kmsg");
        fs::write(&kernel_log, "").unwrap();
        Places { tpm: folder.join("tpmrm0"), kernel_log, log: folder.join("run/seal-record.jsonl") }
    }

    fn seal(pcr: Option<u8>, require_tpm: bool) -> Seal {
        Seal {
            pcr: pcr.map(|pcr| Said::at(pcr, "test")),
            require_tpm: Said::at(require_tpm, "test"),
            ..Seal::unsaid("test")
        }
    }

    fn sealed(policy: &Policy, left_open: usize) -> Sealed<'_> {
        Sealed {
            policy,
            auto: Level::None,
            object: Digest::of(b"object"),
            left_open: (0..left_open).map(|n| format!("foreign-program {n}")).collect(),
            at: Clock { wall: Timestamp::UNIX_EPOCH, boot_ns: 7 },
        }
    }

    #[test]
    fn records_follow_each_other_in_both_logs() {
        let folder = tempfile::tempdir().unwrap();
        let places = places(folder.path());
        let policy = Policy::level(LevelChoice::Confidentiality, "test");
        let record = |left_open| {
            let prepared = Prepared::at(&seal(None, false), places.clone()).unwrap();
            assert_eq!(prepared.notice(), None);
            prepared.commit(&sealed(&policy, left_open)).unwrap()
        };
        let (first, second) = (record(0), record(60));
        assert_eq!((first.record.previous, second.record.previous), (None, Some(first.digest)));
        assert!(first.measured.is_none() && first.problems.is_empty(), "{first:?}");
        assert_eq!((first.record.level.as_str(), first.record.boot_ns), ("confidentiality", 7));
        assert_eq!(first.record.policy, Digest::of(canonical(&policy).as_bytes()));
        assert_eq!(first.record.program, Digest::of(&fs::read("/proc/self/exe").unwrap()));
        let log = fs::read_to_string(&places.log).unwrap();
        let replayed = crate::replay(&log, Digest::default()).unwrap();
        assert_eq!(replayed.records, [first.record, second.record]);
        let told = fs::read_to_string(&places.kernel_log).unwrap();
        let told: Vec<_> = told.lines().collect();
        assert_eq!(told[0], format!("<5>stockade: sealed {}", log.lines().next().unwrap()));
        // The kernel would refuse the long one.
        assert_eq!(
            told[1],
            format!("<5>stockade: sealed {{\"record\":\"{}\",\"log\":\"{LOG}\"}}", second.digest)
        );
    }

    #[test]
    fn without_a_tpm_the_policy_says_what_comes_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let error = Prepared::at(&seal(Some(13), true), places(folder.path())).unwrap_err().to_string();
        assert!(error.contains("no TPM 2.0") && error.contains("nothing was sealed"), "{error}");
        let prepared = Prepared::at(&seal(Some(13), false), places(folder.path())).unwrap();
        assert!(prepared.notice().is_some_and(|notice| notice.contains("not recorded in PCR 13")));
        let policy = Policy::level(LevelChoice::Integrity, "test");
        let recorded = prepared.commit(&sealed(&policy, 0)).unwrap();
        assert_eq!((recorded.record.pcr, recorded.measured), (None, None));
        assert!(recorded.problems[0].contains("not recorded in PCR 13"), "{:?}", recorded.problems);
    }

    #[test]
    fn logs_that_cannot_be_written_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places {
            kernel_log: folder.path().join("no/kmsg"),
            log: "/proc/no/log".into(),
            ..places(folder.path())
        };
        let prepared = Prepared::at(&seal(None, false), places).unwrap();
        let policy = Policy::level(LevelChoice::Integrity, "test");
        assert_eq!(prepared.commit(&sealed(&policy, 0)).unwrap().problems.len(), 2);
    }
}
