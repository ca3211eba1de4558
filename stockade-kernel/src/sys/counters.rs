/*!
Per-processor counters.
*/
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use super::{
    address, bpf, fd_number,
    maps::{BPF_MAP_LOOKUP_ELEM, BPF_MAP_UPDATE_ELEM, ElementAttr},
    processors,
};

/// A map of type `BPF_MAP_TYPE_PERCPU_ARRAY` with values of 64 bits.
pub struct Counters(OwnedFd);

impl Counters {
    /// Wraps a map that is known to have this type.
    pub fn of(map: OwnedFd) -> Self {
        Self(map)
    }

    /// Returns the sum of a counter over all processors.
    pub fn sum(&self, index: u32) -> io::Result<u64> {
        Ok(self.cells(index)?.iter().sum())
    }

    /// Sets a counter to zero unless it is. Increments during the call may be lost.
    pub fn zero(&self, index: u32) -> io::Result<()> {
        let mut cells = self.cells(index)?;
        if cells.iter().all(|&cell| cell == 0) {
            return Ok(());
        }
        cells.fill(0);
        self.call(BPF_MAP_UPDATE_ELEM, index, &mut cells)
    }

    fn cells(&self, index: u32) -> io::Result<Vec<u64>> {
        // The kernel copies a value for each possible processor.
        let mut cells = vec![0; processors()?];
        self.call(BPF_MAP_LOOKUP_ELEM, index, &mut cells)?;
        Ok(cells)
    }

    fn call(&self, command: i64, index: u32, cells: &mut [u64]) -> io::Result<()> {
        let (key, value) = (address(&raw const index), address(cells.as_mut_ptr()));
        let mut attr = ElementAttr { map_fd: fd_number(self.as_fd()), pad: 0, key, value, flags: 0 };
        bpf(command, &mut attr).map(drop)
    }
}

impl AsFd for Counters {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
