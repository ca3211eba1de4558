/*!
With what each kind of call can fail though it was made rightly and nobody else meddles: a choice from what bpf(2), the manual pages of the
other calls and the kernel's code say. Calls that change something have every errno that code may treat in a way of its own; calls that only
read have one or two, since code treats their errors alike. Left out are ENFILE, which code treats as EMFILE, and what would be a lie about
the machine: that something is not there which is.
*/
#![allow(clippy::match_same_arms, reason = "a table: one row for each kind of call")]
use libc::{EACCES, EAGAIN, EBUSY, EINVAL, EIO, EMFILE, ENOMEM, ENOSPC, EPERM, EROFS};

use super::Kind;

/// The errnos of a kind of call.
pub(super) fn of(kind: Kind) -> &'static [i32] {
    match kind {
        Kind::MapCreate => &[EPERM, ENOMEM, EINVAL, EMFILE],
        Kind::Lookup | Kind::LookupBatch => &[EPERM, ENOMEM],
        Kind::Update | Kind::UpdateBatch => &[EPERM, ENOMEM, libc::E2BIG, EBUSY],
        Kind::Delete | Kind::DeleteBatch => &[EPERM, ENOMEM, EBUSY],
        Kind::Freeze => &[EPERM, EBUSY],
        // EAGAIN is tried again: one of them is not noticed, which the caller's loop has to see to.
        Kind::Load => &[EPERM, ENOMEM, EINVAL, EACCES, libc::E2BIG, ENOSPC, EMFILE, EAGAIN],
        Kind::LoadTypes => &[EPERM, ENOMEM, EINVAL, EMFILE],
        Kind::Attach | Kind::LinkCreate => &[EPERM, ENOMEM, EINVAL, EBUSY, libc::E2BIG, EMFILE],
        Kind::Iterate => &[EPERM, ENOMEM, EMFILE],
        Kind::CgroupAttach => &[EPERM, ENOMEM, EINVAL, EBUSY, ENOSPC, libc::E2BIG],
        Kind::CgroupDetach => &[EPERM, ENOMEM],
        // EPERM says that whoever asks may not, and then nothing is claimed.
        Kind::Query => &[ENOMEM, ENOSPC],
        Kind::Pin => &[EPERM, ENOMEM, ENOSPC, EACCES],
        Kind::OpenPin => &[EPERM, ENOMEM, EMFILE],
        Kind::NextId => &[EPERM],
        Kind::ById => &[EPERM, EMFILE],
        Kind::Info => &[ENOMEM, EPERM],
        Kind::Stat => &[EACCES, ENOMEM],
        Kind::Read => &[EACCES, EMFILE],
        Kind::List | Kind::OpenFile | Kind::OpenCgroup => &[EACCES, EMFILE],
        Kind::Write => &[EACCES, ENOSPC, EROFS, EIO],
        Kind::Remove | Kind::Rename => &[EPERM, EACCES, EBUSY, EROFS, ENOMEM],
        Kind::MakeFolder => &[EPERM, EACCES, ENOSPC, EROFS, ENOMEM],
        Kind::Lock => &[libc::ENOLCK, libc::EINTR],
        Kind::GracePeriod => &[EINVAL, EPERM],
        Kind::Process => &[EMFILE, ENOMEM],
        // Another security module may refuse bpf(2).
        Kind::Told | Kind::Add => &[EPERM],
        // What the door itself says is not the kernel's answer about lockdown.
        Kind::Ask => &[],
    }
}
