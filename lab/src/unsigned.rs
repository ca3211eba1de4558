/*!
Removes the signatures that the kernel checks from modules and kernel images of a distribution.
*/
use anyhow::{Context, Result, ensure};

const MODULE_END: &[u8] = b"~Module signature appended~\n";

/// The size of `struct module_signature`, between a module's signature and its last bytes: its last four bytes are the signature's length.
const MODULE_SIGNATURE: usize = 12;

/// The offset of the field with the offset of an EFI program's PE header.
const HEADER_AT: usize = 0x3c;

/// The offset of the entry for certificates from the PE header of a 64-bit EFI program.
const CERTIFICATES: usize = 24 + 112 + 4 * 8;

/// Returns a kernel module without its signature.
pub fn module(mut bytes: Vec<u8>) -> Result<Vec<u8>> {
    ensure!(bytes.ends_with(MODULE_END), "the module is not signed");
    let end = bytes.len() - MODULE_END.len();
    let length = end.checked_sub(4).context("the module is cut off")?;
    let length: [u8; 4] = bytes[length..end].try_into()?;
    let length = usize::try_from(u32::from_be_bytes(length))? + MODULE_SIGNATURE;
    bytes.truncate(end.checked_sub(length).context("the signature is longer than the module")?);
    Ok(bytes)
}

/// Returns a kernel image, which is an EFI program, without its certificates.
pub fn image(mut bytes: Vec<u8>) -> Result<Vec<u8>> {
    let number = |at: usize| -> Result<usize> {
        let field: [u8; 4] = bytes.get(at..at + 4).context("the image is cut off")?.try_into()?;
        Ok(usize::try_from(u32::from_le_bytes(field))?)
    };
    let header = number(HEADER_AT)?;
    ensure!(bytes.get(header..header + 4) == Some(b"PE\0\0"), "the image is no EFI program");
    let entry = header + CERTIFICATES;
    let (begin, length) = (number(entry)?, number(entry + 4)?);
    ensure!(length > 0 && begin + length == bytes.len(), "the image does not end with a signature");
    bytes.truncate(begin);
    bytes[entry..entry + 8].fill(0);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::{CERTIFICATES, HEADER_AT, MODULE_END, image, module};

    #[test]
    fn a_module_ends_before_its_signature() {
        let signed = [b"code".as_slice(), b"sig", &[0; 8], &[0, 0, 0, 3], MODULE_END].concat();
        assert_eq!(module(signed).unwrap(), b"code");
        assert!(module(b"code".to_vec()).is_err());
        assert!(module([b"\xff\xff\xff\xff".as_slice(), MODULE_END].concat()).is_err());
    }

    #[test]
    fn an_image_ends_before_its_certificates() {
        let mut signed = vec![0; 512];
        signed[HEADER_AT] = 64;
        signed[64..68].copy_from_slice(b"PE\0\0");
        let without = signed.clone();
        assert!(image(without.clone()).is_err());
        let entry = 64 + CERTIFICATES;
        signed[entry..entry + 8].copy_from_slice(&[0, 2, 0, 0, 3, 0, 0, 0]);
        signed.extend(b"sig");
        assert_eq!(image(signed).unwrap(), without);
    }
}
