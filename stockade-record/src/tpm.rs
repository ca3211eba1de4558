/*!
The two commands that a TPM 2.0 is given: reading a register, and measuring an event into it.

TPM2_PCR_Event takes the event itself and hashes it into every active bank, also those of algorithms that this program
knows nothing of: no bank stays as it was, free for somebody else to put a record into. Commands and responses are marshalled by
the crate tpm2-protocol.
*/
use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use tpm2_protocol::{
    TpmError, TpmWriter,
    basic::TpmHandle,
    constant::TPM_MAX_COMMAND_SIZE,
    data::{
        Tpm2bEvent, TpmAlgId, TpmRc, TpmRcBase, TpmRh, TpmSt, TpmlPcrSelection, TpmsAuthCommand,
        TpmsPcrSelect, TpmsPcrSelection, TpmuHa,
    },
    frame::{
        TpmFrame, TpmPcrEventCommand, TpmPcrEventResponse, TpmPcrReadCommand, TpmPcrReadResponse,
        TpmResponse, TpmUnmarshalBody, tpm_marshal_command,
    },
};

use crate::Digest;

/// The kernel's resource manager, which several may use at once. 4.12 and later.
pub const DEVICE: &str = "/dev/tpmrm0";

/// A TPM that asks to be asked again is: it may be testing itself.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(100);

/// Why a TPM did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is none.
    #[error("this machine has no TPM 2.0 that its kernel knows: there is no {}", path.display())]
    Missing {
        /// Its device.
        path: PathBuf,
    },
    /// Its device cannot be used.
    #[error("{what} {}: {source}", path.display())]
    Device {
        /// The operation.
        what: &'static str,
        /// Its device.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// It said no.
    #[error("the TPM refuses to {what}: {code}{}", words(*code))]
    Refused {
        /// The command.
        what: &'static str,
        /// Its answer.
        code: TpmRc,
    },
    /// Nothing is measured with SHA-256.
    #[error("PCR {pcr} has no SHA-256 bank: the firmware's setup says which banks are active")]
    NoBank {
        /// The register.
        pcr: u8,
    },
    /// Its answer is none.
    #[error("the TPM's answer to {what} cannot be understood: {why}")]
    Garbled {
        /// The command.
        what: &'static str,
        /// The fault of the answer.
        why: String,
    },
}

/// Returns the meaning of a response code for an administrator, if it is known.
fn words(code: TpmRc) -> &'static str {
    match code.base() {
        TpmRcBase::Initialize => " (the firmware has not started it)",
        TpmRcBase::Failure => " (it is in failure mode until the next boot)",
        TpmRcBase::NeedsTest => " (its self-test has not been run)",
        TpmRcBase::Disabled => " (it is disabled in the firmware's setup)",
        TpmRcBase::Locality => " (the register is not for the operating system)",
        TpmRcBase::Pcr | TpmRcBase::Value => " (it has no such register)",
        TpmRcBase::AuthFail | TpmRcBase::BadAuth | TpmRcBase::AuthType => " (the register has a password)",
        TpmRcBase::Lockout => " (it is locked after wrong passwords)",
        TpmRcBase::Retry | TpmRcBase::Yielded | TpmRcBase::Testing => " (it is busy)",
        TpmRcBase::CommandCode => " (it does not have this command)",
        _ => "",
    }
}

/// A TPM, or what stands in for one in tests.
#[derive(Debug)]
pub struct Tpm<D> {
    device: D,
    path: PathBuf,
}

impl Tpm<File> {
    /// Opens the device.
    ///
    /// # Errors
    /// [`Error::Missing`] or [`Error::Device`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        match OpenOptions::new().read(true).write(true).open(path) {
            Ok(device) => Ok(Self { device, path: path.into() }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Error::Missing { path: path.into() }),
            Err(source) => Err(Error::Device { what: "open", path: path.into(), source }),
        }
    }
}

impl<D: Read + Write> Tpm<D> {
    /// The value of a register in the SHA-256 bank.
    ///
    /// # Errors
    /// [`Error`] when it has none, or the TPM does not answer.
    pub fn read(&mut self, pcr: u8) -> Result<Digest, Error> {
        const WHAT: &str = "read a register";
        let mut bits = [0; 3];
        let Some(byte) = bits.get_mut(usize::from(pcr / 8)) else { return Err(Error::NoBank { pcr }) };
        *byte = 1 << (pcr % 8);
        let built = (|| {
            let mut selection = TpmlPcrSelection::default();
            let pcr_select = TpmsPcrSelect::try_from(&bits[..])?;
            selection.try_push(TpmsPcrSelection { hash: TpmAlgId::Sha256, pcr_select })?;
            Ok(TpmPcrReadCommand { handles: [], pcr_selection_in: selection })
        })();
        let command = built.map_err(|e: TpmError| garbled(WHAT, e))?;
        let response: TpmPcrReadResponse = self.ask(WHAT, &command, &[])?;
        let value = response.pcr_values.first().ok_or(Error::NoBank { pcr })?;
        let bytes = <[u8; 32]>::try_from(&value[..]).map_err(|e| garbled(WHAT, e))?;
        Ok(Digest(bytes))
    }

    /// Measures an event of at most 1024 bytes into a register. Returns the names of the banks that were extended.
    ///
    /// # Errors
    /// [`Error`] when the TPM refuses or does not answer; also when it says to have extended the SHA-256 bank by another digest.
    pub fn event(&mut self, pcr: u8, event: &[u8]) -> Result<Vec<String>, Error> {
        const WHAT: &str = "extend a register";
        let event_data = Tpm2bEvent::try_from(event).map_err(|e| garbled(WHAT, e))?;
        let command = TpmPcrEventCommand { handles: [TpmHandle::new(u32::from(pcr))], event_data };
        let no_password = TpmsAuthCommand {
            session_handle: TpmHandle::new(TpmRh::Pw as u32),
            ..TpmsAuthCommand::default()
        };
        let response: TpmPcrEventResponse = self.ask(WHAT, &command, &[no_password])?;
        let wanted = Digest::of(event);
        let mut right = false;
        for value in response.digests.iter() {
            if value.hash_alg == TpmAlgId::Sha256 {
                right = matches!(&value.digest, TpmuHa::Digest(digest) if digest[..] == wanted.0);
            }
        }
        if !right {
            return Err(garbled(WHAT, format!("the SHA-256 bank was not extended by {wanted}")));
        }
        let name = |algorithm: TpmAlgId| algorithm.to_string().trim_start_matches("TPM_ALG_").to_lowercase();
        Ok(response.digests.iter().map(|value| name(value.hash_alg)).collect())
    }

    fn ask<R: TpmUnmarshalBody>(
        &mut self,
        what: &'static str,
        command: &impl TpmFrame,
        sessions: &[TpmsAuthCommand],
    ) -> Result<R, Error> {
        let mut buffer = [0; TPM_MAX_COMMAND_SIZE];
        let mut writer = TpmWriter::new(&mut buffer);
        let tag = if sessions.is_empty() { TpmSt::NoSessions } else { TpmSt::Sessions };
        tpm_marshal_command(command, tag, sessions, &mut writer).map_err(|e| garbled(what, e))?;
        let length = writer.len();
        let mut tries = 0;
        loop {
            let answer = self.exchange(&buffer[..length])?;
            let response = TpmResponse::cast(&answer).map_err(|e| garbled(what, e))?;
            let code = response.rc().map_err(|e| garbled(what, e))?;
            match code.base() {
                TpmRcBase::Success => return response.unmarshal().map_err(|e| garbled(what, e)),
                TpmRcBase::Retry | TpmRcBase::Yielded | TpmRcBase::Testing if tries < TRIES => {
                    tries += 1;
                    thread::sleep(PAUSE);
                }
                _ => return Err(Error::Refused { what, code }),
            }
        }
    }

    /// One command is one write, and its answer one read.
    fn exchange(&mut self, command: &[u8]) -> Result<Vec<u8>, Error> {
        let failed = |what| move |source| (what, source);
        let answer = (|| {
            self.device.write_all(command).map_err(failed("write to"))?;
            let mut answer = vec![0; TPM_MAX_COMMAND_SIZE];
            let length = self.device.read(&mut answer).map_err(failed("read"))?;
            answer.truncate(length);
            Ok(answer)
        })();
        answer.map_err(|(what, source)| Error::Device { what, path: self.path.clone(), source })
    }
}

fn garbled(what: &'static str, why: impl std::fmt::Display) -> Error {
    Error::Garbled { what, why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers one command after the other, and keeps what it was asked.
    struct Played {
        answers: Vec<&'static str>,
        asked: Vec<String>,
    }

    impl Read for Played {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let answer = self.answers.remove(0).as_bytes();
            for (byte, digits) in buffer.iter_mut().zip(answer.chunks(2)) {
                *byte = u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
            }
            Ok(answer.len() / 2)
        }
    }

    impl Write for Played {
        fn write(&mut self, command: &[u8]) -> io::Result<usize> {
            let mut digits = String::new();
            for byte in command {
                digits.push_str(&format!("{byte:02x}"));
            }
            self.asked.push(digits);
            Ok(command.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn answering(answers: &[&'static str]) -> Tpm<Played> {
        Tpm { device: Played { answers: answers.to_vec(), asked: Vec::new() }, path: "played".into() }
    }

    const ABC: &str = "589f9ffed4c477966bfb8d41f37895b08c69047df8f911d6f3b57fbe08faee8d";

    /// The command of `tpm2_pcrread sha256:13` to swtpm 0.7, and the answer after `abc` had been measured.
    #[test]
    fn a_register_is_read_as_tpm2_tools_do_it() {
        let mut tpm = answering(&[
            "80010000003e000000000000001800000001000b03002000000000010020589f9ffed4c477966bfb8d41f37895b08c69047df8f911d6f3b57fbe08faee8d",
        ]);
        assert_eq!(tpm.read(13).unwrap().hex(), ABC);
        assert_eq!(tpm.device.asked, ["8001000000140000017e00000001000b03002000"]);
    }

    /// The answer of swtpm 0.7 to this command without a password, as in part 3 of the specification.
    #[test]
    fn an_event_is_measured_into_every_bank() {
        let mut tpm = answering(&[
            "8002000000c300000000000000b0000000040004a9993e364706816aba3e25717850c26c9cd0d89d000bba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad000ccb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7000dddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f0000010000",
        ]);
        let banks = tpm.event(13, b"abc").unwrap();
        assert_eq!(banks, ["sha1", "sha256", "sha384", "sha512"]);
        assert_eq!(tpm.device.asked, ["8002000000200000013c0000000d000000094000000900000000000003616263"]);
        assert_eq!(Digest::default().after(b"abc").hex(), ABC);
    }

    #[test]
    fn another_digest_than_the_events_is_not_believed() {
        let mut tpm = answering(&["8002000000390000000000000026"]);
        assert!(matches!(tpm.event(13, b"abc"), Err(Error::Garbled { .. })));
        // The digest of abc, for an event that is another.
        let mut tpm = answering(&[
            "800200000039000000000000002600000001000bba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad0000010000",
        ]);
        let error = tpm.event(13, b"abd").unwrap_err().to_string();
        assert!(error.contains("was not extended by"), "{error}");
    }

    /// Answers of swtpm 0.7, for PCR 17 among others.
    #[test]
    fn refusals_are_told_in_words() {
        for (answer, words) in [
            ("80010000000a00000907", "TPM_RC_LOCALITY (the register is not for the operating system)"),
            ("80010000000a00000100", "TPM_RC_INITIALIZE (the firmware has not started it)"),
            ("80010000000a00000101", "TPM_RC_FAILURE (it is in failure mode until the next boot)"),
            ("80010000000a00000184", "TPM_RC_VALUE"),
            ("80010000000a0000098e", "TPM_RC_AUTH_FAIL"),
        ] {
            let error = answering(&[answer]).event(17, b"abc").unwrap_err().to_string();
            assert!(
                error.starts_with("the TPM refuses to extend a register: ") && error.contains(words),
                "{error}"
            );
        }
        assert!(matches!(answering(&[""]).read(13), Err(Error::Garbled { .. })));
        // A bank that is not active: nothing is selected, and no value is told.
        let none = "80010000001c000000000000001800000001000b0300000000000000";
        let error = answering(&[none]).read(13).unwrap_err().to_string();
        assert!(error.contains("no SHA-256 bank"), "{error}");
    }

    #[test]
    fn a_busy_one_is_asked_again() {
        let read = "80010000003e000000000000001800000001000b03002000000000010020589f9ffed4c477966bfb8d41f37895b08c69047df8f911d6f3b57fbe08faee8d";
        let mut tpm = answering(&["80010000000a00000922", "80010000000a0000090a", read]);
        assert_eq!(tpm.read(13).unwrap().hex(), ABC);
        assert_eq!(tpm.device.asked.len(), 3);
    }

    #[test]
    fn a_machine_without_one_is_told_so() {
        let error = Tpm::open(Path::new("/nowhere/tpmrm0")).unwrap_err().to_string();
        assert_eq!(error, "this machine has no TPM 2.0 that its kernel knows: there is no /nowhere/tpmrm0");
    }
}
