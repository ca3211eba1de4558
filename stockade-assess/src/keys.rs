/*!
Public keys in the kernel's key service: it verifies with them, and shows what it computes.

A key is added to the keyring of this process, which ends with it, and is taken out before that.
*/
use std::{ffi::CStr, io};

const PROCESS_KEYRING: libc::c_int = -2;

const UNLINK: libc::c_int = 9;
const ENCRYPT: libc::c_int = 25;
const VERIFY: libc::c_int = 28;

/// `struct keyctl_pkey_params`.
#[repr(C)]
struct Parameters {
    key: i32,
    input: u32,
    /// The size of the output, or of the second input.
    other: u32,
    spare: [u32; 7],
}

/// A public key.
#[derive(Debug)]
pub(crate) struct PublicKey(i32);

impl PublicKey {
    /// Returns the key of a certificate in DER.
    ///
    /// # Errors
    /// The kernel's: ENOSYS where it has no key service, EBADMSG where it reads no certificates.
    pub fn of_certificate(certificate: &[u8]) -> io::Result<Self> {
        // SAFETY: the strings are terminated, and the certificate is as long as is said.
        let key = unsafe {
            libc::syscall(
                libc::SYS_add_key,
                c"asymmetric".as_ptr(),
                c"stockade-assess".as_ptr(),
                certificate.as_ptr(),
                certificate.len(),
                PROCESS_KEYRING,
            )
        };
        match i32::try_from(key) {
            Ok(key) if key > 0 => Ok(Self(key)),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The number raised to the key's exponent, without any padding: `length` bytes, as many as the modulus has.
    ///
    /// # Errors
    /// The kernel's.
    pub fn raise(&self, number: &[u8], length: usize) -> io::Result<Vec<u8>> {
        let mut answer = vec![0; length];
        let written = self.call(ENCRYPT, c"enc=raw", number, answer.as_mut_ptr(), length)?;
        answer.truncate(written);
        Ok(answer)
    }

    /// Whether this is a signature of PKCS #1 v1.5 of the digest, by this hash.
    ///
    /// # Errors
    /// The kernel's, other than that it is none.
    pub fn verifies(&self, hash: &CStr, digest: &[u8], signature: &[u8]) -> io::Result<bool> {
        let information = [b"enc=pkcs1 hash=", hash.to_bytes_with_nul()].concat();
        let information = CStr::from_bytes_with_nul(&information).map_err(io::Error::other)?;
        // The kernel only reads from it.
        match self.call(VERIFY, information, digest, signature.as_ptr().cast_mut(), signature.len()) {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EKEYREJECTED | libc::EBADMSG)) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn call(
        &self,
        operation: libc::c_int,
        information: &CStr,
        input: &[u8],
        other: *mut u8,
        length: usize,
    ) -> io::Result<usize> {
        let size = |length: usize| u32::try_from(length).map_err(io::Error::other);
        let parameters =
            Parameters { key: self.0, input: size(input.len())?, other: size(length)?, spare: [0; 7] };
        // SAFETY: the parameters say how long input and output are, and all live for the call.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_keyctl,
                operation,
                std::ptr::from_ref(&parameters),
                information.as_ptr(),
                input.as_ptr(),
                other,
            )
        };
        usize::try_from(answer).map_err(|_| io::Error::last_os_error())
    }
}

impl Drop for PublicKey {
    fn drop(&mut self) {
        // SAFETY: it takes two numbers.
        unsafe { libc::syscall(libc::SYS_keyctl, UNLINK, self.0, PROCESS_KEYRING) };
    }
}
