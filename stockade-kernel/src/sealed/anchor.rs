/*!
The programs of a seal on the root of the cgroup tree.

```text
root cgroup, by BPF_PROG_ATTACH
  locked_down           decides
  labels' four hooks    for policies with exceptions by program
  bpf_prog, bpf_map,    guards
  file_open
  sysctl                holds settings, by another attach type
  bpf                   the guard that refuses to detach them     attached last: the commit
```

No pin, link, descriptor, mount or process is needed to keep them attached. Before the commit they can be detached: a command recognises by their tags those
that a killed command left. The kernel detaches the first guards itself, since only links hold them. After the commit no process can detach a program, and the
seal answers what it is, see sealed.rs.
*/
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use stockade_common::kinds;

use crate::{
    Error,
    machine::{cgroups, host, patience::Patience},
    pinned::pins,
    program::{duty::Duty, object},
    sealed::Sealed,
    sys::{self, held},
};

/// The attach types of the programs on the root cgroup.
pub(crate) const KINDS: [u32; 2] = [kinds::ATTACH_CGROUP_SYSCTL, kinds::ATTACH_LSM_CGROUP];

/// The root of the cgroup hierarchy of version 2, open.
pub(crate) struct Root(OwnedFd);

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Root {
    /// Opens the root cgroup, see [`cgroups::open_root_anywhere`].
    pub fn open() -> io::Result<Self> {
        cgroups::open_root_anywhere().map(Self)
    }

    /// Attaches a program to the root cgroup, which then holds it.
    pub fn attach(&self, duty: Duty, program: BorrowedFd<'_>) -> io::Result<()> {
        held::attach_to_cgroup(self.as_fd(), program, duty.held_as())
    }

    /// Returns the ids of the programs on the root cgroup with this attach type, in the order in which they run. Empty if the kernel lacks the
    /// attach type.
    pub fn programs(&self, kind: u32) -> io::Result<Vec<u32>> {
        match held::programs_of_cgroup(self.as_fd(), kind) {
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(Vec::new()),
            ids => ids,
        }
    }

    /// Returns Stockade's programs that the root cgroup holds without a link. [`Error::SealedByOther`] if the guard on calls is among them: a seal
    /// that does not answer the dialogue is one of another version.
    fn leftovers(&self) -> Result<Vec<Leftover>, Error> {
        let failed = |e| Error::io("ask which programs the root cgroup holds", e);
        let known = object::tags().map_err(failed)?;
        let mut found = Vec::new();
        for kind in KINDS {
            for id in self.programs(kind).map_err(failed)? {
                let program = match sys::program_by_id(id) {
                    // A guard refuses a descriptor, so it is not a leftover of Stockade; or it was unloaded meanwhile.
                    Err(e) if matches!(e.raw_os_error(), Some(libc::EPERM | libc::ENOENT)) => continue,
                    program => program.map_err(failed)?,
                };
                let info = sys::program_info(program.as_fd(), &mut []).map_err(failed)?;
                let duty = known.iter().find(|(_, tag)| *tag == info.tag).map(|(duty, _)| *duty);
                // By the tag, since any process can give a program this name.
                if duty == Some(Duty::GuardCalls) {
                    return Err(Error::SealedByOther);
                }
                if duty.is_some() {
                    found.push(Leftover { id, kind, program });
                }
            }
        }
        if !found.is_empty() {
            let linked = programs_with_links().map_err(failed)?;
            found.retain(|leftover| !linked.contains(&leftover.id));
        }
        Ok(found)
    }

    /// Detaches a program from the root cgroup. The kernel refuses it once the guard on calls is attached.
    pub fn detach(&self, program: BorrowedFd<'_>, kind: u32) -> Result<(), Error> {
        held::detach_from_cgroup(self.as_fd(), program, kind)
            .map_err(|e| Error::io("take a program off the root cgroup", e))
    }
}

/// Returns the ids of the programs that links attach.
pub(crate) fn programs_with_links() -> io::Result<Vec<u32>> {
    let mut programs = Vec::new();
    let mut id = 0;
    while let Some(next) = sys::next_link(id)? {
        id = next;
        let mut patience = Patience::new();
        let info = loop {
            match sys::link_by_id(id).and_then(|link| sys::link_info(link.as_fd())) {
                // The kernel has listed the link and is still creating it.
                Err(e) if e.raw_os_error() == Some(libc::EAGAIN) && patience.wait() => {}
                info => break info,
            }
        };
        match info {
            Ok(info) => programs.push(info.program),
            // The link was closed since it was listed.
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {}
            // A program on the hook `bpf` may refuse descriptors of its own links, as that of systemd 262 does. Unless such a program is trusted,
            // the machine cannot be sealed.
            Err(e) if e.raw_os_error() == Some(libc::EPERM) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(programs)
}

/// A program of a seal that was not finished.
pub(crate) struct Leftover {
    id: u32,
    /// The attach type.
    kind: u32,
    program: OwnedFd,
}

/// The result of [`look`].
pub(crate) enum Found {
    /// No seal and no leftovers, or this process may not see them.
    Nothing,
    /// Programs that a killed command left on the root cgroup, without the guard on calls. They can be detached.
    Leftovers(Root, Vec<Leftover>),
    /// A seal.
    Sealed(Box<Sealed>),
}

/// Looks for a seal, and for programs that a killed command left. Returns [`Found::Nothing`] without root, if the root cgroup cannot be opened and
/// if a query
/// fails with EPERM: a later call of the same command reports the missing privilege.
pub(crate) fn look() -> Result<Found, Error> {
    if !host::is_root() {
        return Ok(Found::Nothing);
    }
    if let Some(sealed) = Sealed::ask()? {
        return Ok(Found::Sealed(Box::new(sealed)));
    }
    let Ok(root) = Root::open() else { return Ok(Found::Nothing) };
    match root.leftovers() {
        // A capability is missing, or another security module refuses the query.
        Err(Error::Io { source, .. }) if source.raw_os_error() == Some(libc::EPERM) => Ok(Found::Nothing),
        // Another process may have sealed the machine since the first question.
        Err(Error::SealedByOther) => {
            Sealed::ask()?.map(|sealed| Found::Sealed(Box::new(sealed))).ok_or(Error::SealedByOther)
        }
        left => {
            let left = left?;
            Ok(if left.is_empty() { Found::Nothing } else { Found::Leftovers(root, left) })
        }
    }
}

/// Detaches the programs and removes the pins that a command left which was killed before the commit.
pub(crate) fn tidy_up() -> Result<(), Error> {
    match look()? {
        Found::Leftovers(root, left) => {
            for left in &left {
                root.detach(left.program.as_fd(), left.kind)?;
            }
            Duty::PLACES.into_iter().try_for_each(pins::end_waiting)
        }
        Found::Nothing | Found::Sealed(_) => Ok(()),
    }
}
