/*!
The running kernel's BTF: numbers of the lockdown reasons, offsets of structure fields, ids of hooks.

The numbers of `enum lockdown_reason` change within a stable series and between distributions, so they are always resolved by name. A kernel's
BTF has over a hundred thousand types in about five megabytes, and the kernel returns it page by page. To keep `enforce` fast, types and names
are read from the front until the few needed ones are found, within the first third. Aya's `Btf` reads and indexes everything.

Format: Documentation/bpf/btf.rst. Since 5.2; one blob for the kernel without modules at /sys/kernel/btf/vmlinux since 5.4.
*/
use std::{io, os::unix::fs::FileExt, path::Path, sync::OnceLock};

use stockade_common::{ALWAYS_READ, MAY_LACK, Offsets, WHO_ASKS};
use stockade_reasons::Level;

use stockade_policy::interpret::KernelReason;

use crate::{Error, machine::host, sys::fs::File};

mod blob;

use blob::{Blob, ReadAt, Type};

/// The file with the kernel's BTF.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// One value of `enum lockdown_reason` on this kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReasonNumber {
    /// For instance `LOCKDOWN_DEV_MEM`.
    pub enum_name: String,
    /// The number in this kernel.
    pub number: u32,
}

/// The facts about the running kernel that BTF provides.
#[derive(Clone, Debug)]
pub struct KernelTypes {
    /// Every reason without the level markers, in the kernel's order.
    pub reasons: Vec<ReasonNumber>,
    /// `LOCKDOWN_INTEGRITY_MAX`: reasons below it belong to the integrity level.
    pub integrity_max: u32,
    /// `LOCKDOWN_CONFIDENTIALITY_MAX`: reasons below it belong to the confidentiality level.
    pub confidentiality_max: u32,
    /// Offsets of the fields that programs read. [`KernelTypes::find_late_fields`] finds those of [`LATE`].
    pub offsets: Offsets,
    late: OnceLock<Offsets>,
    /// BTF id of `bpf_lsm_locked_down`; none in a kernel built without the BPF LSM.
    pub hook: Option<u32>,
    /// Fields of [`Offsets::FIELDS`] that this kernel lacks and that policies with scopes or exceptions need.
    pub missing: Vec<(&'static str, &'static str)>,
}

impl KernelTypes {
    /// Returns the id of the reason with this number in this kernel, or the kernel's name if the table lacks it.
    #[must_use]
    pub fn reason_id(&self, number: u32) -> String {
        match self.enum_name(number) {
            Some(name) => {
                stockade_reasons::by_enum_name(name).map_or_else(|| name.to_owned(), |r| r.id.to_owned())
            }
            None => format!("reason-{number}"),
        }
    }

    /// Reads the running kernel's BTF.
    ///
    /// # Errors
    /// [`Error::NoBtf`] without BTF, [`Error::TooOld`] if the kernel lacks the enum.
    pub fn of_running_kernel() -> Result<Self, Error> {
        of_running_kernel(Self::read)
    }

    /// Reads a BTF blob in the byte order of this machine.
    ///
    /// # Errors
    /// [`Error::BadBtf`] for what is not BTF, [`Error::TooOld`] for BTF without the enum.
    pub fn parse(blob: &[u8]) -> Result<Self, Error> {
        let read = |into: &mut [u8], at: u64| {
            let from = usize::try_from(at).ok().and_then(|at| blob.get(at..)?.get(..into.len()));
            into.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        };
        Self::read(&read, blob.len() as u64)
    }

    /// Finds the fields that labelling programs read. They are after most other types, so that only policies with exceptions by program look for
    /// them.
    ///
    /// # Errors
    /// [`Error::Request`] if the kernel has seccomp filters, and the field for their listener is not found.
    pub(crate) fn find_late_fields(&self) -> Result<(), Error> {
        if self.late.get().is_none() {
            let (_, found) = ids_and_offsets(&[], &LATE)?;
            let _ = self.late.set(self.with_late([found[0], found[1], found[2]])?);
        }
        Ok(())
    }

    fn with_late(&self, found: [Option<u32>; LATE.len()]) -> Result<Offsets, Error> {
        let [earlier, listener, digest] = found;
        let mut offsets = self.offsets;
        if offsets.task_seccomp != 0 && offsets.seccomp_filter != 0 {
            let (Some(earlier), Some(listener)) = (earlier, listener) else {
                return Err(Error::Request(
                    "this kernel keeps no seccomp_filter.notif that could be found, so exceptions by program do not work here"
                        .into(),
                ));
            };
            (offsets.filter_earlier, offsets.filter_listener) = (earlier, listener);
        }
        // With only one of the two offsets a program would read the wrong bytes.
        offsets.verity_digest = digest.filter(|_| offsets.inode_verity != 0).unwrap_or(0);
        Ok(offsets)
    }

    /// Returns all offsets found so far.
    pub(crate) fn known_offsets(&self) -> Offsets {
        self.late.get().copied().unwrap_or(self.offsets)
    }

    fn read(source: &ReadAt<'_>, length: u64) -> Result<Self, Error> {
        let mut found = Found::NOTHING;
        each_type(source, length, |id, ty, blob| {
            found.look(id, ty, blob)?;
            Ok(found.everything())
        })?;
        found.finish()
    }

    /// Reports whether a reason belongs to the integrity level, by its position between the markers, as in the kernel.
    #[must_use]
    pub fn is_integrity(&self, number: u32) -> bool {
        number < self.integrity_max
    }

    /// Returns the number of a reason in this kernel.
    #[must_use]
    pub fn number(&self, enum_name: &str) -> Option<u32> {
        self.reasons.iter().find(|r| r.enum_name == enum_name).map(|r| r.number)
    }

    /// Returns the reasons in the form that the policy compiler takes.
    #[must_use]
    pub fn kernel_reasons(&self) -> Vec<KernelReason> {
        let reasons = self.reasons.iter().map(|reason| {
            let known = stockade_reasons::by_enum_name(&reason.enum_name);
            // Unknown reasons with a debugger's name write no events to the ring buffer.
            let sounds = ["DBG", "GDB", "XMON"].iter().any(|word| reason.enum_name.contains(word));
            KernelReason {
                number: reason.number,
                id: known.map(|known| known.id),
                enum_name: reason.enum_name.clone(),
                level: if self.is_integrity(reason.number) {
                    Level::Integrity
                } else {
                    Level::Confidentiality
                },
                debugger: known.map_or(sounds, |known| known.debugger),
            }
        });
        reasons.collect()
    }

    /// Returns the enum name of a number.
    #[must_use]
    pub fn enum_name(&self, number: u32) -> Option<&str> {
        self.reasons.iter().find(|r| r.number == number).map(|r| r.enum_name.as_str())
    }
}

/// Returns the BTF id of a function of the running kernel. It may be anywhere in the blob.
///
/// # Errors
/// [`Error::NoBtf`] without BTF, [`Error::BadBtf`] when it cannot be read.
pub fn function(name: &str) -> Result<Option<u32>, Error> {
    Ok(ids(&[(FUNC, name)])?[0])
}

/// Returns the names of the running kernel's functions with these BTF ids; `None` for an id that is not a function's.
pub(crate) fn function_names(wanted: &[u32]) -> Result<Vec<Option<String>>, Error> {
    let last = wanted.iter().copied().max().unwrap_or_default();
    let mut names = vec![None; wanted.len()];
    if last == 0 {
        return Ok(names);
    }
    of_running_kernel(|source, length| {
        each_type(source, length, |id, ty, blob| {
            if ty.kind == FUNC && wanted.contains(&id) {
                let name = String::from_utf8_lossy(blob.string(ty.name)?).into_owned();
                for (at, _) in wanted.iter().enumerate().filter(|(_, wanted)| **wanted == id) {
                    names[at] = Some(name.clone());
                }
            }
            Ok(id >= last)
        })?;
        Ok(names)
    })
}

/// Returns the byte offset of a member of a structure of the running kernel.
///
/// # Errors
/// [`Error::NoBtf`] without BTF, [`Error::BadBtf`] when it cannot be read.
pub fn offset(owner: &str, member: &str) -> Result<Option<u32>, Error> {
    Ok(ids_and_offsets(&[], &[(owner, member)])?.1[0])
}

/// Returns the BTF ids of these functions and type names, in one pass.
pub(crate) fn ids(wanted: &[(u32, &str)]) -> Result<Vec<Option<u32>>, Error> {
    Ok(ids_and_offsets(wanted, &[])?.0)
}

/// Ids or offsets, in the order of the request.
type Found32 = Vec<Option<u32>>;

/// Returns BTF ids like [`ids`], and byte offsets of these members of structures, in one pass.
pub(crate) fn ids_and_offsets(
    wanted: &[(u32, &str)],
    fields: &[(&str, &str)],
) -> Result<(Found32, Found32), Error> {
    of_running_kernel(|source, length| {
        let mut sought = Sought::new(wanted, fields);
        each_type(source, length, |id, ty, blob| {
            sought.look(id, ty, blob)?;
            Ok(sought.missing == 0)
        })?;
        Ok((sought.ids, sought.offsets))
    })
}

/// [`KernelTypes::of_running_kernel`] and [`ids_and_offsets`] in one pass over the kernel's BTF, which has about 150,000 types.
pub(crate) fn types_ids_and_offsets(
    wanted: &[(u32, &str)],
    fields: &[(&str, &str)],
) -> Result<(KernelTypes, Found32, Found32), Error> {
    of_running_kernel(|source, length| {
        let (mut found, mut sought) = (Found::NOTHING, Sought::new(wanted, fields));
        let mut has_types = false;
        each_type(source, length, |id, ty, blob| {
            if !has_types {
                found.look(id, ty, blob)?;
                has_types = found.everything();
            }
            sought.look(id, ty, blob)?;
            Ok(has_types && sought.missing == 0)
        })?;
        Ok((found.finish()?, sought.ids, sought.offsets))
    })
}

/// Calls `look` with each struct, enum, typedef and function and its id, until `look` returns true. BTF has no index: each type begins where the
/// one before ends.
fn each_type(
    source: &ReadAt<'_>,
    length: u64,
    mut look: impl FnMut(u32, &Type, &mut Blob<'_>) -> Result<bool, Error>,
) -> Result<(), Error> {
    let mut blob = Blob::new(source, length)?;
    let mut id = 1;
    while let Some(ty) = blob.get(id)? {
        if matches!(ty.kind, STRUCT | ENUM | TYPEDEF | FUNC) && look(id, &ty, &mut blob)? {
            break;
        }
        id += 1;
    }
    Ok(())
}

/// Hooks and fields that are looked up by name.
struct Sought<'a> {
    wanted: &'a [(u32, &'a str)],
    fields: &'a [(&'a str, &'a str)],
    /// The first eight bytes of each name in `wanted`, to skip other types without reading the whole name. None if a name is shorter.
    beginnings: Option<Vec<[u8; 8]>>,
    ids: Found32,
    offsets: Found32,
    /// Number of names and fields that are not found yet.
    missing: usize,
}

impl<'a> Sought<'a> {
    fn new(wanted: &'a [(u32, &'a str)], fields: &'a [(&'a str, &'a str)]) -> Self {
        let mut beginnings: Option<Vec<[u8; 8]>> =
            wanted.iter().map(|(_, word)| word.as_bytes().first_chunk().copied()).collect();
        if let Some(beginnings) = &mut beginnings {
            beginnings.sort_unstable();
            beginnings.dedup();
        }
        let (ids, offsets) = (vec![None; wanted.len()], vec![None; fields.len()]);
        Self { wanted, fields, beginnings, ids, offsets, missing: wanted.len() + fields.len() }
    }

    fn look(&mut self, id: u32, ty: &Type, blob: &mut Blob<'_>) -> Result<(), Error> {
        if matches!(ty.kind, FUNC | TYPEDEF) {
            if let Some(beginnings) = &self.beginnings
                && blob.beginning(ty.name)?.is_none_or(|begins| !beginnings.contains(&begins))
            {
                return Ok(());
            }
            let name = blob.string(ty.name)?;
            // A name may be wanted more than once, for two programs on one hook.
            for (at, &(kind, word)) in self.wanted.iter().enumerate() {
                if kind == ty.kind && word.as_bytes() == name && self.ids[at].is_none() {
                    self.ids[at] = Some(id);
                    self.missing -= 1;
                }
            }
        } else if ty.kind == STRUCT {
            let name = blob.string(ty.name)?;
            if let Some(first) = self.fields.iter().position(|(owner, _)| owner.as_bytes() == name) {
                let owner = self.fields[first].0;
                for (at, (_, field)) in self.fields.iter().enumerate().filter(|(_, (of, _))| *of == owner) {
                    if self.offsets[at].is_none() {
                        self.offsets[at] = member_offset(ty, field, blob, 0)?;
                        self.missing -= usize::from(self.offsets[at].is_some());
                    }
                }
            }
        }
        Ok(())
    }
}

fn of_running_kernel<T>(read: impl FnOnce(&ReadAt<'_>, u64) -> Result<T, Error>) -> Result<T, Error> {
    let path = Path::new(VMLINUX);
    let missing = |source| Error::NoBtf { path: path.into(), source };
    let file = File::open(path).map_err(missing)?;
    let length = file.metadata().map_err(missing)?.len();
    read(&|into, at| file.read_exact_at(into, at), length)
}

const FIELDS: &[(&str, &str)] = Offsets::FIELDS;

/// Fields of structures near the end of a kernel's BTF.
pub(crate) const LATE: [(&str, &str); 3] =
    [("seccomp_filter", "prev"), ("seccomp_filter", "notif"), ("fsverity_info", "file_digest")];

/// Reports whether fields of this structure are among [`LATE`].
#[inline]
fn is_late(owner: &str) -> bool {
    LATE.iter().any(|(late, _)| *late == owner)
}

struct Found {
    reasons: Vec<ReasonNumber>,
    hook: Option<u32>,
    offsets: [Option<u32>; FIELDS.len()],
    /// Whether the structure of each field was read: fields that it lacks are not searched any further.
    seen: [bool; FIELDS.len()],
}

const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
/// BTF kind of a typedef.
pub(crate) const TYPEDEF: u32 = 8;
/// BTF kind of a function.
pub(crate) const FUNC: u32 = 12;

impl Found {
    const NOTHING: Self =
        Self { reasons: Vec::new(), hook: None, offsets: [None; FIELDS.len()], seen: [false; FIELDS.len()] };

    fn everything(&self) -> bool {
        let seen = || FIELDS.iter().zip(self.seen).all(|((owner, _), seen)| seen || is_late(owner));
        // Runs after every type, so the cheap tests come first.
        !self.reasons.is_empty() && self.hook.is_some() && seen()
    }

    fn look(&mut self, id: u32, ty: &Type, blob: &mut Blob<'_>) -> Result<(), Error> {
        match ty.kind {
            ENUM if self.reasons.is_empty() && blob.string(ty.name)? == b"lockdown_reason" => {
                for at in ty.members.clone().step_by(8) {
                    let (name, number) = (blob.word(at), blob.word(at + 4));
                    let enum_name = String::from_utf8_lossy(blob.string(name)?).into_owned();
                    self.reasons.push(ReasonNumber { enum_name, number });
                }
            }
            FUNC if self.hook.is_none()
                && blob.beginning(ty.name)? == Some(*b"bpf_lsm_")
                && blob.string(ty.name)? == b"bpf_lsm_locked_down" =>
            {
                self.hook = Some(id);
            }
            STRUCT => {
                let name = blob.string(ty.name)?;
                // Most structures are not needed: one comparison of the name, not one for each field.
                let Some(first) = FIELDS.iter().position(|(owner, _)| owner.as_bytes() == name) else {
                    return Ok(());
                };
                let owner = FIELDS[first].0;
                if is_late(owner) {
                    return Ok(());
                }
                for (at, &(of, field)) in FIELDS.iter().enumerate().filter(|(_, (of, _))| *of == owner) {
                    if self.offsets[at].is_none() {
                        self.offsets[at] = match member_offset(ty, field, blob, 0)? {
                            None if of == "inode" => older_change_time(ty, field, blob)?,
                            offset => offset,
                        };
                    }
                    self.seen[at] = true;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(self) -> Result<KernelTypes, Error> {
        let marker = |name| {
            self.reasons
                .iter()
                .find(|r| r.enum_name == name)
                .map(|r| r.number)
                .ok_or(Error::TooOld("enum lockdown_reason with its level markers"))
        };
        let (integrity_max, confidentiality_max) =
            (marker("LOCKDOWN_INTEGRITY_MAX")?, marker("LOCKDOWN_CONFIDENTIALITY_MAX")?);
        let mut words = self.offsets;
        if words[..WHO_ASKS].contains(&None) {
            return Err(Error::TooOld("fields of task_struct and cred that say who asks"));
        }
        // With a missing offset the programs would read the wrong bytes, so the executable is then unknown.
        if words[WHO_ASKS..ALWAYS_READ].contains(&None) {
            words[WHO_ASKS..ALWAYS_READ].fill(None);
        }
        // Without bpf_loop() the programs for places and exceptions cannot run.
        if !has_loop(&host::kernel_release()) {
            words[ALWAYS_READ..].fill(None);
        }
        let needed = FIELDS.iter().zip(words).take(FIELDS.len() - MAY_LACK);
        let missing: Vec<_> = needed.filter(|(_, word)| word.is_none()).map(|(field, _)| *field).collect();
        let offsets = Offsets::from_words(&words);
        let reasons = self
            .reasons
            .into_iter()
            .filter(|r| !r.enum_name.ends_with("_MAX") && r.enum_name != "LOCKDOWN_NONE")
            .collect();
        Ok(KernelTypes {
            reasons,
            integrity_max,
            confidentiality_max,
            offsets,
            late: OnceLock::new(),
            hook: self.hook,
            missing,
        })
    }
}

/// Reports whether a kernel of this release has `bpf_loop()`: since 5.17.
fn has_loop(release: &str) -> bool {
    host::is_release_at_least(release, 5, 17)
}

/// Returns the offset of the ctime before 6.11: seconds and nanoseconds in one field, which has had two names.
fn older_change_time(ty: &Type, field: &str, blob: &mut Blob<'_>) -> Result<Option<u32>, Error> {
    let further = match field {
        "i_ctime_sec" => 0,
        "i_ctime_nsec" => 8,
        _ => return Ok(None),
    };
    for name in ["__i_ctime", "i_ctime"] {
        if let Some(offset) = member_offset(ty, name, blob, 0)? {
            return Ok(Some(offset + further));
        }
    }
    Ok(None)
}

/// Returns the byte offset of a member, also inside anonymous members, since fields move into and out of them.
fn member_offset(ty: &Type, field: &str, blob: &mut Blob<'_>, depth: u32) -> Result<Option<u32>, Error> {
    for at in ty.members.clone().step_by(12) {
        let (name, inner, place) = (blob.word(at), blob.word(at + 4), blob.word(at + 8));
        let offset = if ty.kind_flag { place & 0x00ff_ffff } else { place } / 8;
        if name != 0 {
            if blob.string(name)? == field.as_bytes() {
                return Ok(Some(offset));
            }
        } else if depth < 4 {
            let inner = blob.type_by_id(inner)?;
            if matches!(inner.kind, STRUCT | UNION)
                && let Some(within) = member_offset(&inner, field, blob, depth + 1)?
            {
                return Ok(Some(offset + within));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Makes a blob of the given types, each as (name, info, size, extra words).
    pub(crate) fn blob(types: &[(&str, u32, u32, Vec<u32>)], extra_names: &[&str]) -> (Vec<u8>, Vec<u32>) {
        let mut strings = vec![0u8];
        // As in a kernel's blob, each string occurs once.
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
        out.extend(blob::MAGIC.to_ne_bytes());
        out.extend([1, 0]);
        let len = |v: &[u8]| u32::try_from(v.len()).unwrap();
        for w in [24, 0, len(&body), len(&body), len(&strings)] {
            out.extend(w.to_ne_bytes());
        }
        out.extend(body);
        out.extend(strings);
        (out, extra)
    }

    /// Makes the blob of a kernel with five reasons, the hook if wanted, and the structures that programs read. The members of `FIELDS` have
    /// offsets from 8 in steps of 8; `without` is left out.
    fn kernel(with_hook: bool, without: &str) -> Vec<u8> {
        let mut names = vec![
            "LOCKDOWN_NONE",
            "LOCKDOWN_DEV_MEM",
            "LOCKDOWN_INTEGRITY_MAX",
            "LOCKDOWN_KCORE",
            "LOCKDOWN_CONFIDENTIALITY_MAX",
        ];
        names.extend(FIELDS.iter().map(|(_, field)| field));
        // The extra names come first, so that their string offsets are known before the types are made.
        let (_, at) = blob(&[], &names);
        let values: Vec<u32> =
            at[..5].iter().enumerate().flat_map(|(i, &o)| [o, u32::try_from(i).unwrap()]).collect();
        let mut types = vec![("lockdown_reason", ENUM << 24 | 5, 4, values)];
        if with_hook {
            types.push(("bpf_lsm_locked_down", FUNC << 24, 1, vec![]));
        }
        let mut owners: Vec<&str> = FIELDS.iter().map(|(owner, _)| *owner).collect();
        owners.sort_unstable();
        owners.dedup();
        for owner in owners {
            let members: Vec<u32> = FIELDS
                .iter()
                .zip(&at[5..])
                .zip(1u32..)
                .filter(|(((of, field), _), _)| *of == owner && *field != without && *field != "i_ctime_nsec")
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
        assert_eq!((types.integrity_max, types.confidentiality_max, types.hook), (2, 4, Some(2)));
        assert_eq!(types.reasons.len(), 2);
    }

    #[test]
    fn a_kernel_may_lack_the_hook() {
        assert_eq!(KernelTypes::parse(&kernel(false, "")).unwrap().hook, None);
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
    fn a_kernel_without_filters_or_verity_is_enough_and_half_of_either_is_not_used() {
        let types = |without| KernelTypes::parse(&kernel(true, without)).unwrap();
        let whole = types("").with_late([Some(1), Some(2), Some(3)]).unwrap();
        assert_eq!((whole.filter_earlier, whole.filter_listener, whole.verity_digest), (1, 2, 3));
        assert!(types("").with_late([Some(1), None, Some(3)]).is_err(), "filters without a listener");
        let without = types("filter").with_late([None; 3]).unwrap();
        assert_eq!((without.filter_listener, without.verity_digest), (0, 0));
        let half = types("i_verity_info").with_late([Some(1), Some(2), Some(3)]).unwrap();
        assert_eq!((half.inode_verity, half.verity_digest), (0, 0));
    }

    #[test]
    fn releases_are_compared_as_numbers() {
        assert!(has_loop("5.17.0") && has_loop("6.1.0-50-amd64") && has_loop("7.2") && has_loop("10.0.1"));
        assert!(!has_loop("5.15.0-100-generic") && !has_loop("5.9") && !has_loop("unknown"));
    }

    #[test]
    fn the_change_time_has_had_other_names() {
        let mut older = kernel(true, "");
        let at = older.windows(12).position(|bytes| bytes == b"i_ctime_sec\0").unwrap();
        older[at..at + 12].copy_from_slice(b"__i_ctime\0\0\0");
        let types = KernelTypes::parse(&older).unwrap();
        assert!(types.missing.is_empty(), "{:?}", types.missing);
        assert_eq!(types.offsets.inode_ctime_nsec, types.offsets.inode_ctime + 8);
        assert_eq!(
            KernelTypes::parse(&kernel(true, "dfl_cgrp")).unwrap().missing,
            [("css_set", "dfl_cgrp"), ("inode", "i_ctime_nsec")]
        );
    }

    #[test]
    fn a_changed_byte_is_never_a_panic() {
        let whole = kernel(true, "");
        for at in 0..whole.len() {
            for byte in [0x00, 0x7f, 0xff] {
                let mut changed = whole.clone();
                changed[at] = byte;
                let _ = KernelTypes::parse(&changed);
            }
        }
    }

    #[test]
    fn every_cut_is_an_error_and_never_a_panic() {
        let whole = kernel(true, "");
        for end in 0..whole.len() {
            assert!(KernelTypes::parse(&whole[..end]).is_err(), "cut at {end}");
        }
    }
}
