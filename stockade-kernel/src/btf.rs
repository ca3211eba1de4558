/*!
What this kernel calls things: numbers of the lockdown reasons, offsets of the fields that events
need, and the id of the hook.

The numbers of `enum lockdown_reason` move within a stable series and between distributions, so they
are always resolved by name. A kernel's BTF has over a hundred thousand types and enforcing must not
wait for an index of all of them: one pass over the blob looks at the few names that matter. That is
why this is not Aya's `Btf`, which reads everything.

Format: Documentation/bpf/btf.rst. Since 5.2; modules aside, one blob at /sys/kernel/btf/vmlinux
since 5.4.
*/
use std::{fs, path::Path};

use stockade_common::Offsets;

use crate::Error;

/// Where the kernel shows its types.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;

/// One value of `enum lockdown_reason` on this kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReasonNumber {
    /// For instance `LOCKDOWN_DEV_MEM`.
    pub enum_name: String,
    /// This kernel's number for it.
    pub number: u32,
}

/// What Stockade needs to know about the running kernel's types.
#[derive(Clone, Debug)]
pub struct KernelTypes {
    /// Every reason, markers left out, in the kernel's order.
    pub reasons: Vec<ReasonNumber>,
    /// `LOCKDOWN_INTEGRITY_MAX`: reasons below it belong to the integrity level.
    pub integrity_max: u32,
    /// `LOCKDOWN_CONFIDENTIALITY_MAX`: reasons below it belong to the confidentiality level.
    pub confidentiality_max: u32,
    /// Where the fields that say who asks lie.
    pub offsets: Offsets,
    /// BTF id of `bpf_lsm_locked_down`.
    pub hook: u32,
}

impl KernelTypes {
    /// Reads the running kernel's types.
    ///
    /// # Errors
    /// [`Error::NoBtf`] without BTF, [`Error::TooOld`] when the kernel lacks the hook or the enum.
    pub fn of_running_kernel() -> Result<Self, Error> {
        let path = Path::new(VMLINUX);
        let blob = fs::read(path).map_err(|source| Error::NoBtf { path: path.into(), source })?;
        Self::parse(&blob)
    }

    /// Reads a BTF blob in the byte order of this machine.
    ///
    /// # Errors
    /// [`Error::BadBtf`] for what is not BTF, [`Error::TooOld`] for BTF without the hook or the enum.
    pub fn parse(blob: &[u8]) -> Result<Self, Error> {
        let blob = Blob::new(blob)?;
        let names = Names::find(&blob);
        let mut found = Found::default();
        blob.each_type(|id, ty| found.look(id, ty, &names, &blob))?;
        found.finish()
    }

    /// Whether a reason belongs to the integrity level, by its position between the markers, as the
    /// kernel itself decides it.
    #[must_use]
    pub fn is_integrity(&self, number: u32) -> bool {
        number < self.integrity_max
    }

    /// This kernel's number of a reason.
    #[must_use]
    pub fn number(&self, enum_name: &str) -> Option<u32> {
        self.reasons.iter().find(|r| r.enum_name == enum_name).map(|r| r.number)
    }

    /// The reason behind a number.
    #[must_use]
    pub fn enum_name(&self, number: u32) -> Option<&str> {
        self.reasons.iter().find(|r| r.number == number).map(|r| r.enum_name.as_str())
    }
}

/// String offsets of the names that matter; 0, the empty name, for one the kernel lacks.
struct Names {
    reasons: u32,
    hook: u32,
    fields: [(u32, u32); FIELDS.len()],
}

const FIELDS: [(&str, &str); 11] = [
    ("task_struct", "pid"),
    ("task_struct", "tgid"),
    ("task_struct", "comm"),
    ("task_struct", "cred"),
    ("cred", "uid"),
    ("task_struct", "mm"),
    ("mm_struct", "exe_file"),
    ("file", "f_inode"),
    ("inode", "i_ino"),
    ("inode", "i_sb"),
    ("super_block", "s_dev"),
];

impl Names {
    fn find(blob: &Blob<'_>) -> Self {
        let offset = |name: &str| blob.string_offset(name).unwrap_or(0);
        Self {
            reasons: offset("lockdown_reason"),
            hook: offset("bpf_lsm_locked_down"),
            fields: FIELDS.map(|(owner, field)| (offset(owner), offset(field))),
        }
    }
}

#[derive(Default)]
struct Found {
    reasons: Vec<ReasonNumber>,
    hook: Option<u32>,
    offsets: [Option<u32>; FIELDS.len()],
}

const STRUCT: u32 = 4;
const ENUM: u32 = 6;
const FUNC: u32 = 12;

impl Found {
    fn look(&mut self, id: u32, ty: &Type<'_>, names: &Names, blob: &Blob<'_>) {
        if ty.name == 0 {
            return;
        }
        match ty.kind {
            ENUM if ty.name == names.reasons => {
                for value in ty.rest.chunks_exact(8) {
                    let name = blob.string(word(value, 0)).unwrap_or_default();
                    self.reasons.push(ReasonNumber { enum_name: name.into(), number: word(value, 4) });
                }
            }
            FUNC if ty.name == names.hook => self.hook = Some(id),
            STRUCT => {
                for (slot, (owner, field)) in self.offsets.iter_mut().zip(names.fields) {
                    if ty.name == owner && slot.is_none() {
                        *slot = member_offset(ty, field, blob, 0);
                    }
                }
            }
            _ => {}
        }
    }

    fn finish(self) -> Result<KernelTypes, Error> {
        let hook = self.hook.ok_or(Error::TooOld("the hook bpf_lsm_locked_down"))?;
        let marker = |name| {
            self.reasons
                .iter()
                .find(|r| r.enum_name == name)
                .map(|r| r.number)
                .ok_or(Error::TooOld("enum lockdown_reason with its level markers"))
        };
        let (integrity_max, confidentiality_max) =
            (marker("LOCKDOWN_INTEGRITY_MAX")?, marker("LOCKDOWN_CONFIDENTIALITY_MAX")?);
        let [
            Some(task_pid),
            Some(task_tgid),
            Some(task_comm),
            Some(task_cred),
            Some(cred_uid),
            executable @ ..,
        ] = self.offsets
        else {
            return Err(Error::TooOld("fields of task_struct and cred that say who asks"));
        };
        // A chain with a hole would read the wrong bytes: rather no executable at all.
        let [task_mm, mm_exe_file, file_inode, inode_number, inode_superblock, superblock_device] =
            if executable.contains(&None) { [0; 6] } else { executable.map(Option::unwrap_or_default) };
        let offsets = Offsets {
            task_pid,
            task_tgid,
            task_comm,
            task_cred,
            cred_uid,
            task_mm,
            mm_exe_file,
            file_inode,
            inode_number,
            inode_superblock,
            superblock_device,
        };
        let reasons = self
            .reasons
            .into_iter()
            .filter(|r| !r.enum_name.ends_with("_MAX") && r.enum_name != "LOCKDOWN_NONE")
            .collect();
        Ok(KernelTypes { reasons, integrity_max, confidentiality_max, offsets, hook })
    }
}

/// Byte offset of a member, looking into anonymous members too: fields move into and out of them.
fn member_offset(ty: &Type<'_>, field: u32, blob: &Blob<'_>, depth: u32) -> Option<u32> {
    let bits = |member: &[u8]| if ty.kind_flag { word(member, 8) & 0x00ff_ffff } else { word(member, 8) };
    for member in ty.rest.chunks_exact(12) {
        if word(member, 0) == field && field != 0 {
            return Some(bits(member) / 8);
        }
        if word(member, 0) == 0 && depth < 4 {
            let inner = blob.type_by_id(word(member, 4))?;
            if let Some(offset) = member_offset(&inner, field, blob, depth + 1) {
                return Some(bits(member) / 8 + offset);
            }
        }
    }
    None
}

struct Type<'a> {
    name: u32,
    kind: u32,
    kind_flag: bool,
    rest: &'a [u8],
}

struct Blob<'a> {
    types: &'a [u8],
    strings: &'a [u8],
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

impl<'a> Blob<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        if bytes.len() < 24 || u16::from_ne_bytes([bytes[0], bytes[1]]) != MAGIC {
            return Err(Error::BadBtf("it does not start with the BTF magic number"));
        }
        let header = word(bytes, 4) as usize;
        let section = |offset: usize, length: usize| {
            let start = header.checked_add(word(bytes, offset) as usize)?;
            bytes.get(start..start.checked_add(word(bytes, length) as usize)?)
        };
        Ok(Self {
            types: section(8, 12).ok_or(Error::BadBtf("the type section is cut off"))?,
            strings: section(16, 20).ok_or(Error::BadBtf("the string section is cut off"))?,
        })
    }

    fn string_offset(&self, name: &str) -> Option<u32> {
        let needle: Vec<u8> = [b"\0", name.as_bytes(), b"\0"].concat();
        memchr::memmem::find(self.strings, &needle).and_then(|at| u32::try_from(at + 1).ok())
    }

    fn string(&self, offset: u32) -> Option<&'a str> {
        let rest = self.strings.get(offset as usize..)?;
        std::str::from_utf8(&rest[..memchr::memchr(0, rest)?]).ok()
    }

    fn each_type(&self, mut look: impl FnMut(u32, &Type<'a>)) -> Result<(), Error> {
        let mut rest = self.types;
        let mut id = 1;
        while !rest.is_empty() {
            let (ty, next) =
                Self::split(rest).ok_or(Error::BadBtf("a type is cut off or of an unknown kind"))?;
            look(id, &ty);
            rest = next;
            id += 1;
        }
        Ok(())
    }

    fn type_by_id(&self, id: u32) -> Option<Type<'a>> {
        let mut rest = self.types;
        for _ in 1..id {
            rest = Self::split(rest)?.1;
        }
        Self::split(rest).map(|(ty, _)| ty)
    }

    fn split(bytes: &'a [u8]) -> Option<(Type<'a>, &'a [u8])> {
        if bytes.len() < 12 {
            return None;
        }
        let info = word(bytes, 4);
        let (kind, count) = ((info >> 24) & 0x1f, (info & 0xffff) as usize);
        let extra = match kind {
            // int, var, declaration tag
            1 | 14 | 17 => 4,
            // pointer, forward, typedef, volatile, const, restrict, func, float, type tag
            2 | 7..=12 | 16 | 18 => 0,
            3 => 12,                       // array
            4 | 5 | 15 | 19 => count * 12, // struct, union, data section, 64-bit enum
            6 | 13 => count * 8,           // enum, function prototype
            _ => return None,
        };
        let end = 12 + extra;
        let rest = bytes.get(12..end)?;
        Some((Type { name: word(bytes, 0), kind, kind_flag: info >> 31 == 1, rest }, &bytes[end..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A blob with just the types given, each as (name, info, size, extra words).
    fn blob(types: &[(&str, u32, u32, Vec<u32>)], extra_names: &[&str]) -> (Vec<u8>, Vec<u32>) {
        let mut strings = vec![0u8];
        // As in a kernel's blob, each string is there once.
        let mut known = std::collections::HashMap::from([(String::new(), 0)]);
        let mut add = |name: &str| {
            *known.entry(name.to_owned()).or_insert_with(|| {
                let at = u32::try_from(strings.len()).unwrap();
                strings.extend(name.as_bytes());
                strings.push(0);
                at
            })
        };
        let extra: Vec<u32> = extra_names.iter().map(|n| add(n)).collect();
        let mut body = Vec::new();
        for (name, info, size, words) in types {
            for w in [add(name), *info, *size].iter().chain(words) {
                body.extend(w.to_ne_bytes());
            }
        }
        let mut out = Vec::new();
        out.extend(MAGIC.to_ne_bytes());
        out.extend([1, 0]);
        let len = |v: &[u8]| u32::try_from(v.len()).unwrap();
        for w in [24, 0, len(&body), len(&body), len(&strings)] {
            out.extend(w.to_ne_bytes());
        }
        out.extend(body);
        out.extend(strings);
        (out, extra)
    }

    /// A kernel with five reasons, the hook if wanted, and the structs that events need: each member of
    /// `FIELDS` lies 8 bytes behind the one before, from 8 on; `without` is left out.
    fn kernel(with_hook: bool, without: &str) -> Vec<u8> {
        let mut names = vec![
            "LOCKDOWN_NONE",
            "LOCKDOWN_DEV_MEM",
            "LOCKDOWN_INTEGRITY_MAX",
            "LOCKDOWN_KCORE",
            "LOCKDOWN_CONFIDENTIALITY_MAX",
        ];
        names.extend(FIELDS.map(|(_, field)| field));
        // String offsets of the extra names are known before the types are made: they come first.
        let (_, at) = blob(&[], &names);
        let values: Vec<u32> =
            at[..5].iter().enumerate().flat_map(|(i, &o)| [o, u32::try_from(i).unwrap()]).collect();
        let mut types = vec![("lockdown_reason", ENUM << 24 | 5, 4, values)];
        if with_hook {
            types.push(("bpf_lsm_locked_down", FUNC << 24, 1, vec![]));
        }
        for owner in ["task_struct", "cred", "mm_struct", "file", "inode", "super_block"] {
            let members: Vec<u32> = FIELDS
                .iter()
                .zip(&at[5..])
                .zip(1u32..)
                .filter(|(((of, field), _), _)| *of == owner && *field != without)
                .flat_map(|((_, &name), n)| [name, 0, n * 64])
                .collect();
            let count = u32::try_from(members.len() / 3).unwrap();
            types.push((owner, STRUCT << 24 | count, 128, members));
        }
        blob(&types, &names).0
    }

    #[test]
    fn reasons_and_hook_are_found_by_name() {
        let types = KernelTypes::parse(&kernel(true, "")).unwrap();
        assert_eq!(types.number("LOCKDOWN_DEV_MEM"), Some(1));
        assert_eq!(types.number("LOCKDOWN_KCORE"), Some(3));
        assert_eq!((types.integrity_max, types.confidentiality_max, types.hook), (2, 4, 2));
        assert_eq!(types.reasons.len(), 2);
    }

    #[test]
    fn a_kernel_without_the_hook_is_too_old() {
        assert!(matches!(KernelTypes::parse(&kernel(false, "")), Err(Error::TooOld(_))));
    }

    #[test]
    fn fields_are_found_and_a_hole_hides_the_executable_only() {
        let offsets = KernelTypes::parse(&kernel(true, "")).unwrap().offsets;
        assert_eq!((offsets.task_pid, offsets.cred_uid, offsets.superblock_device), (8, 40, 88));
        let offsets = KernelTypes::parse(&kernel(true, "i_sb")).unwrap().offsets;
        assert_eq!((offsets.task_pid, offsets.task_mm, offsets.superblock_device), (8, 0, 0));
        assert!(matches!(KernelTypes::parse(&kernel(true, "comm")), Err(Error::TooOld(_))));
    }

    #[test]
    fn every_cut_is_an_error_and_never_a_panic() {
        let whole = kernel(true, "");
        for end in 0..whole.len() {
            assert!(KernelTypes::parse(&whole[..end]).is_err(), "cut at {end}");
        }
    }
}
