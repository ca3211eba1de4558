/*!
The smallest program that the kernel gives an address space: it is mapped, and none of its instructions ever runs.

It is position-independent and names itself as its own dynamic loader (PT_INTERP), so that the kernel maps it twice: once at the address of the
executable, once in the mmap region.
*/

/// The width of a program's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    Native,
    /// A 32-bit program on a 64-bit kernel.
    Compat,
}

/// Machine and flags of the headers (elf(5), and the psABI of each architecture).
#[cfg(target_arch = "x86_64")]
const MACHINES: Option<[(u16, u32); 2]> = Some([(62, 0), (3, 0)]);
#[cfg(target_arch = "aarch64")]
const MACHINES: Option<[(u16, u32); 2]> = Some([(183, 0), (40, 0x0500_0000)]);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const MACHINES: Option<[(u16, u32); 2]> = None;

const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PT_GNU_STACK: u32 = 0x6474_e551;
const READ: u32 = 4;
const WRITE: u32 = 2;

/// Returns the bytes of the ELF file; none on an architecture whose headers are not known here.
pub(super) fn image(width: Width, loader: &str) -> Option<Vec<u8>> {
    let [native, compat] = MACHINES?;
    let (wide, (machine, flags)) = match width {
        Width::Native => (true, native),
        Width::Compat => (false, compat),
    };
    let (header, entry) = if wide { (64_u64, 56_u64) } else { (52, 32) };
    let begin = header + 3 * entry;
    let length = loader.len() as u64 + 1;
    let end = begin + length;
    // An alignment above the page size would cost entropy.
    let align = rustix::param::page_size() as u64;
    let mut out = Vec::new();
    // Magic; class, little-endian, version.
    out.extend_from_slice(b"\x7fELF");
    out.extend_from_slice(&[if wide { 2 } else { 1 }, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let word = |out: &mut Vec<u8>, value: u64| {
        let bytes = value.to_le_bytes();
        out.extend_from_slice(if wide { &bytes } else { &bytes[..4] });
    };
    let half = |out: &mut Vec<u8>, value: u32| out.extend_from_slice(&value.to_le_bytes());
    let short = |out: &mut Vec<u8>, value: u64| out.extend_from_slice(&value.to_le_bytes()[..2]);
    // ET_DYN, the type of position-independent executables.
    short(&mut out, 3);
    short(&mut out, machine.into());
    half(&mut out, 1);
    // Entry, program headers, no section headers.
    word(&mut out, begin);
    word(&mut out, header);
    word(&mut out, 0);
    half(&mut out, flags);
    for value in [header, entry, 3, 0, 0, 0] {
        short(&mut out, value);
    }
    for (kind, rights, at, size, align) in [
        (PT_INTERP, READ, begin, length, 1),
        // Writable: Linux 6.1 does not start a program whose loader has no writable segment.
        (PT_LOAD, READ | WRITE, 0, end, align),
        (PT_GNU_STACK, READ | WRITE, 0, 0, 16),
    ] {
        half(&mut out, kind);
        if wide {
            half(&mut out, rights);
        }
        for value in [at, at, at, size, size] {
            word(&mut out, value);
        }
        if !wide {
            half(&mut out, rights);
        }
        word(&mut out, align);
    }
    out.extend_from_slice(loader.as_bytes());
    out.push(0);
    Some(out)
}
