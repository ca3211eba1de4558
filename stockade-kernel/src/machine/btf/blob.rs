/*!
A BTF blob with its sections of types and strings. Each section is read from its front, only as far as needed.
*/
use std::{io, ops::Range};

use super::{ENUM, STRUCT, UNION, VMLINUX};
use crate::Error;

pub(super) const MAGIC: u16 = 0xeb9f;

/// Fills a buffer with the bytes at an offset, or fails.
pub(super) type ReadAt<'a> = dyn Fn(&mut [u8], u64) -> io::Result<()> + 'a;

/// A section, read from its front as far as needed.
struct Section<'a> {
    source: &'a ReadAt<'a>,
    start: u64,
    length: usize,
    bytes: Vec<u8>,
}

impl Section<'_> {
    const STEP: usize = 64 << 10;

    /// Reads the section up to `end`; false if the section is shorter.
    #[inline]
    fn reach(&mut self, end: usize) -> Result<bool, Error> {
        if end <= self.bytes.len() { Ok(true) } else { self.read(end) }
    }

    #[cold]
    fn read(&mut self, end: usize) -> Result<bool, Error> {
        let known = self.bytes.len();
        if end > self.length {
            return Ok(false);
        }
        let wanted = self.length.min(end.max(known + Self::STEP));
        self.bytes.resize(wanted, 0);
        (self.source)(&mut self.bytes[known..], self.start + known as u64)
            .map_err(|source| Error::NoBtf { path: VMLINUX.into(), source })?;
        Ok(true)
    }
}

/// A type: the offset of its name and the range of its members.
pub(super) struct Type {
    pub(super) name: u32,
    pub(super) kind: u32,
    pub(super) kind_flag: bool,
    pub(super) members: Range<usize>,
}

pub(super) struct Blob<'a> {
    types: Section<'a>,
    strings: Section<'a>,
    /// Start of each type that was read so far; type 1 comes first.
    starts: Vec<usize>,
    /// Start of the next type.
    end: usize,
}

pub(super) fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

impl<'a> Blob<'a> {
    pub(super) fn new(source: &'a ReadAt<'a>, length: u64) -> Result<Self, Error> {
        let mut header = [0; 24];
        if length < 24
            || source(&mut header, 0).is_err()
            || u16::from_ne_bytes([header[0], header[1]]) != MAGIC
        {
            return Err(Error::BadBtf("it does not start with the BTF magic number"));
        }
        let section = |offset: usize, size: usize, what| {
            let start = u64::from(word(&header, 4)) + u64::from(word(&header, offset));
            let size = word(&header, size);
            if start + u64::from(size) > length {
                return Err(Error::BadBtf(what));
            }
            Ok(Section { source, start, length: size as usize, bytes: Vec::new() })
        };
        Ok(Self {
            types: section(8, 12, "the type section is cut off")?,
            strings: section(16, 20, "the string section is cut off")?,
            starts: Vec::new(),
            end: 0,
        })
    }

    /// Returns a word of the part of the type section that was read so far.
    pub(super) fn word(&self, at: usize) -> u32 {
        word(&self.types.bytes, at)
    }

    /// Returns the string at this offset, without its zero byte.
    pub(super) fn string(&mut self, offset: u32) -> Result<&[u8], Error> {
        let start = offset as usize;
        let mut end = start;
        loop {
            if !self.strings.reach(end + 1)? {
                return Err(Error::BadBtf("a name is cut off"));
            }
            match memchr::memchr(0, &self.strings.bytes[end..]) {
                Some(length) => return Ok(&self.strings.bytes[start..end + length]),
                None => end = self.strings.bytes.len(),
            }
        }
    }

    /// Returns the eight bytes at this offset, which may reach into the next string; `None` at the end of the section.
    pub(super) fn beginning(&mut self, offset: u32) -> Result<Option<[u8; 8]>, Error> {
        let start = offset as usize;
        if !self.strings.reach(start + 8)? {
            return Ok(None);
        }
        Ok(self.strings.bytes[start..].first_chunk().copied())
    }

    /// Returns the type with this id; `None` after the last.
    pub(super) fn get(&mut self, id: u32) -> Result<Option<Type>, Error> {
        let Some(at) = (id as usize).checked_sub(1) else { return Ok(None) };
        if let Some(&start) = self.starts.get(at) {
            return self.type_at(start).map(Some);
        }
        while self.end != self.types.length {
            let ty = self.type_at(self.end)?;
            self.starts.push(self.end);
            self.end = ty.members.end;
            if self.starts.len() > at {
                return Ok(Some(ty));
            }
        }
        Ok(None)
    }

    /// Returns the type to which another one refers by this id.
    pub(super) fn type_by_id(&mut self, id: u32) -> Result<Type, Error> {
        self.get(id)?.ok_or(Error::BadBtf("a type refers to one that is not there"))
    }

    /// Parses the type that starts at this offset.
    fn type_at(&mut self, start: usize) -> Result<Type, Error> {
        const BROKEN: Error = Error::BadBtf("a type is cut off or of an unknown kind");
        if !self.types.reach(start + 12)? {
            return Err(BROKEN);
        }
        let (name, info) = (self.word(start), self.word(start + 4));
        let count = (info & 0xffff) as usize;
        let kind = (info >> 24) & 0x1f;
        let members = match kind {
            // int, var, declaration tag
            1 | 14 | 17 => 4,
            // pointer, forward, typedef, volatile, const, restrict, func, float, type tag
            2 | 7..=12 | 16 | 18 => 0,
            3 => 12, // array
            // struct, union, data section, 64-bit enum
            STRUCT | UNION | 15 | 19 => count * 12,
            // enum, function prototype
            ENUM | 13 => count * 8,
            _ => return Err(BROKEN),
        };
        let members = start + 12..start + 12 + members;
        if self.types.reach(members.end)? {
            Ok(Type { name, kind, kind_flag: info >> 31 == 1, members })
        } else {
            Err(BROKEN)
        }
    }
}
