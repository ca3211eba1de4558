/*!
Extracts the ELF kernel from a bzImage. QEMU boots it through PVH, without the decompressor and the firmware's boot loader: under emulation
that saves seconds.
*/
use std::{fs, path::Path};

use anyhow::{Context, bail, ensure};

use crate::tool;

/// The magic numbers of compression formats, and the tool that decompresses each.
const COMPRESSIONS: [(&[u8], &str); 4] = [
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x1f\x8b\x08", "gzip"),
    (b"\x02\x21\x4c\x18", "lz4"),
];

/// Reports whether the image is an ELF file.
#[must_use]
pub fn is_elf(image: &[u8]) -> bool {
    image.starts_with(b"\x7fELF")
}

/// Extracts the ELF kernel from a bzImage; `scratch` is a folder for a temporary file.
pub fn extract(image: &[u8], scratch: &Path) -> anyhow::Result<Vec<u8>> {
    let payload = payload(image)?;
    let Some((_, tool)) = COMPRESSIONS.iter().find(|(magic, _)| payload.starts_with(magic)) else {
        bail!(
            "the kernel is compressed in a way unknown here (it begins with {:x?})",
            &payload[..payload.len().min(6)]
        );
    };
    let file = scratch.join("payload");
    fs::write(&file, payload).with_context(|| format!("writing {}", file.display()))?;
    // The length of the kernel follows the compressed stream. A tool reports it as garbage and fails after it has written the whole kernel,
    // so the output is checked, not the exit status.
    let output = tool::finish(tool::command(tool).arg("-dc").stdin(fs::File::open(&file)?));
    let _ = fs::remove_file(&file);
    let kernel = output?.stdout;
    ensure!(is_elf(&kernel), "what {tool} makes of the kernel's payload is not an ELF file");
    Ok(kernel)
}

/// Returns the compressed kernel, by the setup header (Documentation/arch/x86/boot.rst).
fn payload(image: &[u8]) -> anyhow::Result<&[u8]> {
    let word = |at: usize| -> Option<usize> {
        let bytes = image.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
    };
    ensure!(image.get(0x202..0x206) == Some(b"HdrS"), "this is neither a bzImage nor an ELF kernel");
    let sectors = match image[0x1f1] {
        0 => 4,
        n => usize::from(n),
    };
    let (offset, length) = (word(0x248), word(0x24c));
    offset
        .zip(length)
        .and_then(|(offset, length)| {
            let begin = (sectors + 1) * 512 + offset;
            image.get(begin..begin + length)
        })
        .context("the image is cut short: its payload lies beyond its end")
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_text_is_no_kernel() {
        assert!(super::payload(&[b'x'; 4096]).is_err());
        assert!(super::payload(b"").is_err());
    }
}
