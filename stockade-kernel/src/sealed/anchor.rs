/*!
What the root of the cgroup tree holds: the programs of a seal.

```text
root cgroup, by BPF_PROG_ATTACH
  locked_down           decides
  labels' four hooks    for policies that speak of programs
  bpf_prog, bpf_map,    guards
  file_open
  sysctl                holds settings: a kind of attachment of its own
  bpf                   the guard that keeps all of them there     attached last: the commit
```

No pin, link, descriptor, mount or process is needed to keep them. What was attached before the commit can be taken off
again: leftovers of a command that was killed, which are known by their tags, and the first guard by its name. After the commit
nobody can take anything off, and the seal says itself what it is: see sealed.rs.
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

/// What is attached to the root cgroup by BPF_PROG_ATTACH, by the kind of attachment.
pub(crate) const KINDS: [u32; 2] = [kinds::ATTACH_CGROUP_SYSCTL, kinds::ATTACH_LSM_CGROUP];

/// The root of the cgroup hierarchy of version 2, open.
pub(crate) struct Root(OwnedFd);

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Root {
    /// Opens it, see [`cgroups::open_root_anywhere`].
    pub fn open() -> io::Result<Self> {
        cgroups::open_root_anywhere().map(Self)
    }

    /// Has it hold a program.
    pub fn attach(&self, duty: Duty, program: BorrowedFd<'_>) -> io::Result<()> {
        held::attach_to_cgroup(self.as_fd(), program, duty.held_as())
    }

    /// Ids of the programs that run for it, by the kind of attachment, in the order in which they are asked. Empty where the
    /// kernel knows no such kind.
    pub fn programs(&self, kind: u32) -> io::Result<Vec<u32>> {
        match held::programs_of_cgroup(self.as_fd(), kind) {
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(Vec::new()),
            ids => ids,
        }
    }

    /// Those of ours that it holds without a link. [`Error::SealedByOther`] where the guard is among them that is attached last: a seal
    /// without the dialogue is one of another version.
    fn leftovers(&self) -> Result<Vec<Leftover>, Error> {
        let failed = |e| Error::io("ask which programs the root cgroup holds", e);
        let known = object::tags().map_err(failed)?;
        let mut found = Vec::new();
        for kind in KINDS {
            for id in self.programs(kind).map_err(failed)? {
                let program = match sys::program_by_id(id) {
                    // A guard keeps it from being opened, and so it is none of ours: or it has ended meanwhile.
                    Err(e) if matches!(e.raw_os_error(), Some(libc::EPERM | libc::ENOENT)) => continue,
                    program => program.map_err(failed)?,
                };
                let info = sys::program_info(program.as_fd(), &mut []).map_err(failed)?;
                let duty = known.iter().find(|(_, tag)| *tag == info.tag).map(|(duty, _)| *duty);
                // By the tag: anybody can give a program its name.
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

    /// Has it let go of a program: works as long as the last guard is not attached.
    pub fn detach(&self, program: BorrowedFd<'_>, kind: u32) -> Result<(), Error> {
        held::detach_from_cgroup(self.as_fd(), program, kind)
            .map_err(|e| Error::io("take a program off the root cgroup", e))
    }
}

/// Ids of the programs that links attach.
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
            // A program on the hook `bpf` keeps links of its own to itself, as that of systemd 262 does. Those that are not trusted keep a machine from being sealed.
            Err(e) if e.raw_os_error() == Some(libc::EPERM) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(programs)
}

/// A program of a seal that was not finished.
pub(crate) struct Leftover {
    id: u32,
    /// How it is attached.
    kind: u32,
    program: OwnedFd,
}

/// What is found on the root cgroup.
pub(crate) enum Found {
    /// Nothing of ours.
    Nothing,
    /// Programs of ours without the last guard: left behind by a command that was killed. They can be taken off.
    Leftovers(Root, Vec<Leftover>),
    /// A seal.
    Sealed(Box<Sealed>),
}

/// Looks whether something is sealed. Whoever may not ask is told of nothing: what else they ask for says why.
pub(crate) fn look() -> Result<Found, Error> {
    if !host::is_root() {
        return Ok(Found::Nothing);
    }
    if let Some(sealed) = Sealed::ask()? {
        return Ok(Found::Sealed(Box::new(sealed)));
    }
    let Ok(root) = Root::open() else { return Ok(Found::Nothing) };
    match root.leftovers() {
        // Kernels before 5.2 aside, it is always answered.
        Err(Error::Io { source, .. }) if source.raw_os_error() == Some(libc::EPERM) => Ok(Found::Nothing),
        // Or sealed since it was asked.
        Err(Error::SealedByOther) => {
            Sealed::ask()?.map(|sealed| Found::Sealed(Box::new(sealed))).ok_or(Error::SealedByOther)
        }
        left => {
            let left = left?;
            Ok(if left.is_empty() { Found::Nothing } else { Found::Leftovers(root, left) })
        }
    }
}

/// Takes off what a command left behind that was killed before the commit.
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
