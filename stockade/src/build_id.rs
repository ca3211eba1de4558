/*!
The build ID that the linker gave this program: a digest of its content, in a note that is mapped with it. Reports, core dumps
and packages name a program by it.
*/
use std::{ffi::c_void, ops::ControlFlow, slice};

use data_encoding::HEXLOWER;

const NT_GNU_BUILD_ID: u32 = 3;

/// The build ID in hexadecimal digits; none when the linker gave none.
pub fn build_id() -> Option<String> {
    let mut found: Option<String> = None;
    // SAFETY: the function is called before this returns, with the pointer to `found`, which lives as long.
    unsafe { libc::dl_iterate_phdr(Some(look_at_program), (&raw mut found).cast()) };
    found
}

/// Called for each loaded object, first for the program itself, where it ends the walk.
unsafe extern "C" fn look_at_program(info: *mut libc::dl_phdr_info, _size: usize, found: *mut c_void) -> i32 {
    // SAFETY: the C library hands a valid description for the time of the call.
    let info = unsafe { &*info };
    // SAFETY: `build_id` hands a pointer to its own variable, which nothing else uses meanwhile.
    let found = unsafe { &mut *found.cast::<Option<String>>() };
    // SAFETY: the program's headers are mapped, read-only, as many as the description says.
    let headers = unsafe { slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
    for header in headers.iter().filter(|header| header.p_type == libc::PT_NOTE) {
        let Ok(size) = usize::try_from(header.p_memsz) else { continue };
        let start = info.dlpi_addr.wrapping_add(header.p_vaddr);
        // SAFETY: notes belong to a segment that the kernel mapped from the program, read-only, for as long as it runs.
        let notes = unsafe { slice::from_raw_parts(start as *const u8, size) };
        if let ControlFlow::Break(id) = find(notes, if header.p_align == 8 { 8 } else { 4 }) {
            *found = Some(HEXLOWER.encode(id));
        }
    }
    1
}

/// The build ID among these notes: sizes of name and content, type, name, content, each padded.
fn find(mut notes: &[u8], align: usize) -> ControlFlow<&[u8]> {
    while let Some((head, rest)) = notes.split_first_chunk::<12>() {
        let word = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (Ok(name_size), Ok(size)) = (usize::try_from(word(0)), usize::try_from(word(4))) else { break };
        // The head has 12 bytes, so that a name of 4 ends on either alignment.
        let begin = (12 + name_size).next_multiple_of(align) - 12;
        let (Some(name), Some(content)) = (rest.get(..name_size), rest.get(begin..begin + size)) else {
            break;
        };
        if word(8) == NT_GNU_BUILD_ID && name == b"GNU\0" {
            return ControlFlow::Break(content);
        }
        notes = rest.get((begin + size).next_multiple_of(align)..).unwrap_or_default();
    }
    ControlFlow::Continue(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(kind: u32, name: &[u8], content: &[u8]) -> Vec<u8> {
        let mut note: Vec<u8> = [name.len(), content.len()]
            .into_iter()
            .flat_map(|size| u32::try_from(size).unwrap().to_ne_bytes())
            .chain(kind.to_ne_bytes())
            .collect();
        for part in [name, content] {
            note.extend(part);
            note.resize(note.len().next_multiple_of(4), 0);
        }
        note
    }

    #[test]
    fn the_build_id_is_found_among_other_notes() {
        let notes =
            [note(1, b"GNU\0", &[0; 16]), note(3, b"Go\0", b"abc"), note(3, b"GNU\0", b"\xca\xfe")].concat();
        assert_eq!(find(&notes, 4), ControlFlow::Break(&b"\xca\xfe"[..]));
    }

    #[test]
    fn notes_without_one_or_cut_short_have_none() {
        let whole = note(3, b"GNU\0", &[7; 20]);
        assert_eq!(find(&note(1, b"GNU\0", &[0; 16]), 4), ControlFlow::Continue(()));
        for end in 0..whole.len() {
            assert_eq!(find(&whole[..end], 4), ControlFlow::Continue(()), "{end}");
        }
    }
}
