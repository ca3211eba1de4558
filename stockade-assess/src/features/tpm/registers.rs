/*!
The TPM's registers, as the kernel shows them: in files since 5.12, in one file for a TPM 1.2; for an older kernel the TPM is asked.
*/
use std::{fmt::Write as _, path::Path};

use stockade_record::tpm;

use super::eventlog::Bank;
use crate::{System, Unread};

/// Where TPMs are listed.
pub(super) const CLASS: &str = "/sys/class/tpm";

/// The first one, to which the firmware's log belongs.
pub(super) const DEVICE: &str = "/sys/class/tpm/tpm0";

/// A TPM.
pub(super) struct Tpm<'a> {
    system: &'a System,
    /// 1 or 2.
    pub(super) version: Option<i64>,
    /// The banks that are active, the best first.
    pub(super) active: Vec<Bank>,
    /// Other banks that are active.
    pub(super) others: Vec<String>,
    shown: Shown,
}

/// How registers are read.
enum Shown {
    /// A folder for each bank, a file for each register. Since 5.12.
    Files,
    /// All in one file, which TPMs 1.2 have.
    OneFile(String),
    /// By asking the TPM, for SHA-256.
    Asked,
    /// Not at all, for this reason.
    Not(String),
}

impl<'a> Tpm<'a> {
    /// The first one; none if there is none.
    pub(super) fn find(system: &'a System) -> Result<Option<Self>, Unread> {
        match system.names(CLASS) {
            Ok(names) if names.iter().any(|name| name == "tpm0") => {}
            Ok(_) => return Ok(None),
            // A kernel without support for TPMs does not have this class.
            Err(unread) if unread.is_missing() && system.exists("/sys/class") => return Ok(None),
            Err(unread) => return Err(unread),
        }
        let names = system.names(DEVICE)?;
        let banks: Vec<&str> = names.iter().filter_map(|name| name.strip_prefix("pcr-")).collect();
        // Kernels before 5.6 do not tell the version.
        let version = match system.number(&format!("{DEVICE}/tpm_version_major")) {
            Ok(version) => Some(version),
            Err(_) if !banks.is_empty() || system.exists("/sys/class/tpmrm/tpmrm0") => Some(2),
            Err(_) if names.iter().any(|name| name == "pcrs") => Some(1),
            Err(_) => None,
        };
        let known = |bank: &Bank| banks.contains(&bank.name());
        let mut tpm = Self {
            system,
            version,
            active: Bank::ALL.into_iter().filter(known).collect(),
            others: banks
                .iter()
                .filter(|name| Bank::ALL.iter().all(|bank| bank.name() != **name))
                .map(ToString::to_string)
                .collect(),
            shown: Shown::Files,
        };
        if banks.is_empty() {
            tpm.look_otherwise();
        }
        Ok(Some(tpm))
    }

    fn look_otherwise(&mut self) {
        self.shown = match self.system.text(&format!("{DEVICE}/pcrs")) {
            Ok(text) => {
                self.active = vec![Bank::Sha1];
                Shown::OneFile(text)
            }
            Err(_) if self.version == Some(1) => {
                Shown::Not("the kernel shows no registers of this TPM 1.2".into())
            }
            Err(_) if !self.system.is_live() => {
                Shown::Not("not tried: this is not the running machine".into())
            }
            Err(_) => match asked(0) {
                Ok(_) => {
                    self.active = vec![Bank::Sha256];
                    Shown::Asked
                }
                Err(error) => Shown::Not(format!("this kernel shows no registers (5.12 does), and {error}")),
            },
        };
    }

    /// Why no register can be read.
    pub(super) fn nothing_readable(&self) -> String {
        match &self.shown {
            Shown::Not(why) => why.clone(),
            _ if !self.others.is_empty() => {
                format!(
                    "the active banks are of algorithms that Stockade cannot compute: {}",
                    self.others.join(", ")
                )
            }
            _ => "the TPM has no active bank".into(),
        }
    }

    /// Where registers are read.
    pub(super) fn source(&self) -> String {
        match self.shown {
            Shown::OneFile(_) => format!("{DEVICE}/pcrs"),
            Shown::Asked => tpm::DEVICE.into(),
            Shown::Files | Shown::Not(_) => format!("{DEVICE}/pcr-*"),
        }
    }

    /// Whether register 0 of a bank that this program cannot compute is as it was at power-on, when it may begin with a locality.
    pub(super) fn is_untouched(&self, bank: &str) -> Result<bool, String> {
        let path = format!("{DEVICE}/pcr-{bank}/0");
        let text = self.system.text(&path).map_err(|unread| unread.to_string())?;
        match bytes(&text).as_deref() {
            Some([begin @ .., last]) => Ok(begin.iter().all(|byte| *byte == 0) && *last <= 4),
            _ => Err(Unread::not_understood(&path, &text).to_string()),
        }
    }

    /// The value of a register.
    pub(super) fn register(&self, bank: Bank, number: u32) -> Result<Vec<u8>, String> {
        let of_file = |path: &str, text: &str| {
            let value = bytes(text).filter(|value| value.len() == bank.size());
            value.ok_or_else(|| Unread::not_understood(path, text).to_string())
        };
        match &self.shown {
            Shown::Files => {
                let path = format!("{DEVICE}/pcr-{}/{number}", bank.name());
                of_file(&path, &self.system.text(&path).map_err(|unread| unread.to_string())?)
            }
            Shown::OneFile(text) => {
                let path = format!("{DEVICE}/pcrs");
                let begin = format!("PCR-{number:02}:");
                let line = text.lines().find_map(|line| line.trim().strip_prefix(&begin));
                of_file(&path, line.ok_or_else(|| format!("{path} does not tell of PCR {number}"))?)
            }
            Shown::Asked => asked(number),
            Shown::Not(why) => Err(why.clone()),
        }
    }
}

/// The TPM's own answer, in SHA-256. Reading changes nothing in it.
fn asked(number: u32) -> Result<Vec<u8>, String> {
    let number = u8::try_from(number).map_err(|error| error.to_string())?;
    let answer = tpm::Tpm::open(Path::new(tpm::DEVICE)).and_then(|mut tpm| tpm.read(number));
    answer.map(|digest| digest.0.to_vec()).map_err(|error| error.to_string())
}

/// Hexadecimal digits, with or without spaces between bytes.
fn bytes(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> =
        text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    let pairs = digits.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    pairs.map(|pair| u8::try_from(pair[0] * 16 + pair[1]).ok()).collect()
}

/// Returns the bytes in hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    const SHOWN: usize = 64;
    let mut text = String::new();
    for byte in bytes.iter().take(SHOWN) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
