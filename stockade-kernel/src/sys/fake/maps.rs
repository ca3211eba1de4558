/*!
The calls on maps.
*/
use std::collections::BTreeMap;

use super::{
    Kernel, PROCESSORS,
    calls::{Attributes, to},
    objects::{Map, What},
};
use crate::sys;

const TASK_STORAGE: u32 = 29;
const EXISTS_OR_NOT: usize = 24;

impl Map {
    fn is_array(&self) -> bool {
        matches!(self.kind, sys::ARRAY | sys::PERCPU_ARRAY)
    }

    /// Bytes of a value as they are copied: one for each processor.
    pub fn copied(&self) -> usize {
        if self.kind == sys::PERCPU_ARRAY {
            self.value_size.next_multiple_of(8) * PROCESSORS
        } else {
            self.value_size
        }
    }

    fn write(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<(), i32> {
        if self.frozen {
            return Err(libc::EPERM);
        }
        let is_new = !self.entries.contains_key(&key);
        if is_new
            && (self.is_array() || self.entries.len() as u64 >= u64::from(self.room.max(1)))
            && self.kind != TASK_STORAGE
        {
            return Err(libc::E2BIG);
        }
        self.entries.insert(key, value);
        Ok(())
    }
}

impl Kernel {
    pub(super) fn map_create(&mut self, attr: Attributes) -> Result<i64, i32> {
        let mut map = Map {
            kind: attr.word(0),
            name: attr.array(28),
            key_size: attr.word(4) as usize,
            value_size: attr.word(8) as usize,
            room: attr.word(12),
            frozen: false,
            entries: BTreeMap::new(),
        };
        if map.is_array() {
            let zeros = vec![0; map.copied()];
            map.entries = (0..map.room).map(|index| (index.to_ne_bytes().to_vec(), zeros.clone())).collect();
        }
        Ok(self.make(What::Map(map)).into())
    }

    fn map_at(&self, fd: u32) -> Result<(u32, &Map), i32> {
        let id = self.find(fd)?;
        self.map(id).map(|map| (id, map)).ok_or(libc::EINVAL)
    }

    /// The key that a caller gives. Task storage is asked by a descriptor of the process.
    fn key(&self, map: &Map, attr: Attributes) -> Result<Vec<u8>, i32> {
        let key = attr.bytes(8, map.key_size);
        if map.kind != TASK_STORAGE {
            return Ok(key);
        }
        let fd = u32::from_ne_bytes(key[..4].try_into().expect("four bytes"));
        match self.objects.get(&self.find(fd)?).map(|object| &object.what) {
            Some(What::Process(pid)) => Ok(pid.to_ne_bytes().to_vec()),
            _ => Err(libc::EBADF),
        }
    }

    pub(super) fn map_lookup(&mut self, attr: Attributes) -> Result<i64, i32> {
        let (_, map) = self.map_at(attr.word(0))?;
        let value = map.entries.get(&self.key(map, attr)?).ok_or(libc::ENOENT)?;
        attr.fill(16, value);
        Ok(0)
    }

    pub(super) fn map_update(&mut self, attr: Attributes) -> Result<i64, i32> {
        assert_eq!(attr.long(EXISTS_OR_NOT), 0, "flags are not modelled");
        let (id, map) = self.map_at(attr.word(0))?;
        let (key, value) = (self.key(map, attr)?, attr.bytes(16, map.copied()));
        self.changes += 1;
        self.map_mut(id).expect("found above").write(key, value).map(|()| 0)
    }

    pub(super) fn map_delete(&mut self, attr: Attributes) -> Result<i64, i32> {
        let (id, map) = self.map_at(attr.word(0))?;
        let key = self.key(map, attr)?;
        self.changes += 1;
        let map = self.map_mut(id).expect("found above");
        if map.frozen {
            return Err(libc::EPERM);
        }
        map.entries.remove(&key).map(|_| 0).ok_or(libc::ENOENT)
    }

    pub(super) fn map_freeze(&mut self, attr: Attributes) -> Result<i64, i32> {
        let (id, _) = self.map_at(attr.word(0))?;
        let map = self.map_mut(id).expect("found above");
        if std::mem::replace(&mut map.frozen, true) { Err(libc::EBUSY) } else { Ok(0) }
    }

    /// Pages hold as many as the caller has room for; a position is how many came before.
    pub(super) fn map_lookup_batch(&mut self, attr: Attributes) -> Result<i64, i32> {
        let (_, map) = self.map_at(attr.word(36))?;
        let room = attr.word(32) as usize;
        let skipped = if attr.long(0) == 0 {
            0
        } else {
            u32::from_ne_bytes(attr.bytes(0, 4).try_into().expect("four bytes"))
        };
        let left = map.entries.iter().skip(skipped as usize);
        let mut count = 0u32;
        for (key, value) in left.take(room) {
            to(attr.long(16) + u64::from(count) * key.len() as u64, key);
            to(attr.long(24) + u64::from(count) * value.len() as u64, value);
            count += 1;
        }
        attr.set(32, count);
        attr.fill(8, &(skipped + count).to_ne_bytes());
        if (skipped + count) as usize >= map.entries.len() { Err(libc::ENOENT) } else { Ok(0) }
    }

    /// One after the other, as the kernel does: what was written before one that fails stays.
    pub(super) fn map_update_batch(&mut self, attr: Attributes) -> Result<i64, i32> {
        let (id, map) = self.map_at(attr.word(36))?;
        let count = attr.word(32) as usize;
        let (key_size, value_size) = (map.key_size, map.value_size);
        let (keys, values) = (attr.bytes(16, count * key_size), attr.bytes(24, count * value_size));
        self.changes += 1;
        let map = self.map_mut(id).expect("found above");
        for (key, value) in keys.chunks_exact(key_size).zip(values.chunks_exact(value_size)) {
            map.write(key.to_vec(), value.to_vec())?;
        }
        Ok(0)
    }

    pub(super) fn map_delete_batch(&mut self, attr: Attributes) -> Result<i64, i32> {
        let (id, map) = self.map_at(attr.word(36))?;
        let keys = attr.bytes(16, attr.word(32) as usize * map.key_size);
        self.changes += 1;
        let map = self.map_mut(id).expect("found above");
        if map.frozen {
            return Err(libc::EPERM);
        }
        for key in keys.chunks_exact(map.key_size) {
            map.entries.remove(key).ok_or(libc::ENOENT)?;
        }
        Ok(0)
    }
}
