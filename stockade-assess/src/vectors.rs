/*!
Known answers: the files in `vectors/`, from NIST's documents and response files.
*/

/// An encryption with AES.
#[derive(Debug)]
pub(crate) struct Aes {
    /// The kernel's name of algorithm and mode, such as `xts(aes)`.
    pub algorithm: &'static str,
    /// Where it is from.
    pub source: &'static str,
    pub key: &'static [u8],
    pub iv: &'static [u8],
    pub plain: &'static [u8],
    pub cipher: &'static [u8],
    /// Additional authenticated data, for `gcm(aes)`.
    pub associated: &'static [u8],
    pub tag: &'static [u8],
}

/// A hash.
#[derive(Debug)]
pub(crate) struct Sha {
    /// The kernel's name, such as `hmac(sha256)`.
    pub algorithm: &'static str,
    /// Where it is from.
    pub source: &'static str,
    /// For `hmac(…)`.
    pub key: &'static [u8],
    pub message: &'static [u8],
    pub digest: &'static [u8],
}

/// The public key of all signatures.
#[derive(Debug)]
pub(crate) struct RsaKey {
    pub modulus: &'static [u8],
    pub exponent: &'static [u8],
    /// A certificate that holds them.
    pub certificate: &'static [u8],
}

/// A signature of PKCS #1 v1.5, or what is none.
#[derive(Debug)]
pub(crate) struct Rsa {
    /// Such as `sha256`.
    pub hash: &'static str,
    /// Where it is from.
    pub source: &'static str,
    pub message: &'static [u8],
    pub signature: &'static [u8],
    pub valid: bool,
}

include!(concat!(env!("OUT_DIR"), "/vectors.rs"));
