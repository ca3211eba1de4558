/*!
SHA-256 as it is written down: `sha256:` and 64 hexadecimal digits.
*/
use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

const PREFIX: &str = "sha256:";

/// A SHA-256 digest, or the value of a register in a TPM's SHA-256 bank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Returns the value of a PCR with this value after this event was measured into it: TPM2_PCR_Event hashes the event and extends
    /// the PCR with the digest.
    ///
    /// ```
    /// use stockade_record::Digest;
    ///
    /// let event = b"sealed";
    /// let extended = [Digest::default().0, Digest::of(event).0].concat();
    /// assert_eq!(Digest::default().after(event), Digest::of(&extended));
    /// ```
    #[must_use]
    pub fn after(self, event: &[u8]) -> Self {
        Self(Sha256::new().chain_update(self.0).chain_update(Sha256::digest(event)).finalize().into())
    }

    /// Its digits alone, as tpm2-tools write them.
    #[must_use]
    pub fn hex(&self) -> String {
        let mut digits = String::with_capacity(64);
        self.0.iter().for_each(|byte| digits.push_str(&format!("{byte:02x}")));
        digits
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.hex())
    }
}

/// The error about a text that is no digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a SHA-256 digest is 64 hexadecimal digits, with or without sha256: or 0x before them")]
pub struct NoDigest;

impl FromStr for Digest {
    type Err = NoDigest;

    fn from_str(text: &str) -> Result<Self, NoDigest> {
        let digits = text.strip_prefix(PREFIX).or_else(|| text.strip_prefix("0x")).unwrap_or(text);
        if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NoDigest);
        }
        let mut bytes = [0; 32];
        for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(&digits[at..at + 2], 16).map_err(|_| NoDigest)?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_read_as_they_are_written() {
        // The one of nothing, from FIPS 180-4's examples.
        let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").to_string(), text);
        assert_eq!(text.parse(), Ok(Digest::of(b"")));
        assert_eq!(Digest::of(b"").hex().to_uppercase().parse(), Ok(Digest::of(b"")));
        for wrong in ["", "sha256:", &text[..70], &format!("{text}0"), "sha1:00", &text.replace('e', "ä")] {
            assert_eq!(wrong.parse::<Digest>(), Err(NoDigest), "{wrong}");
        }
    }

    /// `printf abc | tpm2_pcrevent 13` on swtpm, and then `tpm2_pcrread sha256:13`.
    #[test]
    fn a_register_is_extended_as_a_tpm_does_it() {
        let after = Digest::default().after(b"abc");
        assert_eq!(after.hex(), "589f9ffed4c477966bfb8d41f37895b08c69047df8f911d6f3b57fbe08faee8d");
    }
}
