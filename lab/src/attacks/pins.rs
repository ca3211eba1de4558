//! Attacks on the pins, and on the file system and the mounts that contain them.

use anyhow::Result;

use super::{
    Attack, Attempt, Pins, Setting,
    calls::{Undo, attack},
    prepared,
};

pub(super) const ATTACKS: &[Attack] = &[
    Attack::new("unlink-the-pin", "unlink the pin of the attachment", Pins::Falls, || {
        attack("rm /sys/fs/bpf/stockade/link")
    }),
    Attack::new("unlink-every-pin", "remove everything from the BPF file system", Pins::Falls, || {
        attack("rm -r /sys/fs/bpf/*")
    }),
    Attack::new("rename-over-the-pin", "rename another pin over that of the attachment", Pins::Falls, || {
        attack("mv -f /sys/fs/bpf/stockade/policy /sys/fs/bpf/stockade/link")
    }),
    Attack::new("rename-the-folder", "rename the folder of the pins", Pins::Holds, || {
        let undo = Undo("mv /sys/fs/bpf/elsewhere /sys/fs/bpf/stockade");
        Ok(attack("mv /sys/fs/bpf/stockade /sys/fs/bpf/elsewhere")?.holding(undo))
    }),
    Attack::new("unmount-bpffs", "unmount the BPF file system", Pins::Falls, || attack("umount /sys/fs/bpf")),
    Attack::new("unmount-bpffs-lazily", "unmount the BPF file system lazily", Pins::Falls, || {
        attack("umount -l /sys/fs/bpf")
    }),
    Attack::new("unmount-sys-lazily", "unmount /sys, and what lies below it, lazily", Pins::Falls, || {
        attack("umount -l /sys")
    }),
    Attack::new(
        "unmount-root-lazily",
        "move /sys into a root of one's own, and unmount that root lazily",
        Pins::Falls,
        || in_a_root_of_its_own("/bin/busybox umount -l /"),
    ),
    Attack::new(
        "pivot-root",
        "exchange the root by pivot_root, and unmount the old one",
        Pins::Falls,
        || in_a_root_of_its_own("cd /m && /bin/busybox pivot_root . old && /bin/busybox umount -l /old"),
    ),
    Attack::new("mount-over-bpffs", "mount an empty file system over the pins", Pins::Holds, || {
        let undo = Undo("umount /sys/fs/bpf");
        Ok(attack("mount -t tmpfs none /sys/fs/bpf")?.holding(undo))
    }),
    Attack::new("move-bpffs", "move the mount of the BPF file system elsewhere", Pins::Holds, || {
        let undo = Undo("mount -o move /tmp/moved /sys/fs/bpf");
        Ok(attack("mkdir -p /tmp/moved && mount -o move /sys/fs/bpf /tmp/moved")?.holding(undo))
    }),
    Attack::new("remount-bpffs-read-only", "remount the BPF file system read-only", Pins::Holds, || {
        let undo = Undo("mount -o remount,rw /sys/fs/bpf");
        Ok(attack("mount -o remount,ro /sys/fs/bpf")?.holding(undo))
    }),
    Attack::new(
        "remove-the-mount-point",
        "remove the folder that the BPF file system is mounted on, from another mount namespace",
        Pins::Falls,
        || attack("unshare -m sh -c 'umount /sys/fs/bpf && rmdir /sys/fs/bpf'"),
    )
    .under(Setting::RemovableMountPoint),
];

/// Runs a line as root of a tree to which /sys, with all its mounts, was moved. The guest's own root, an initramfs, cannot be unmounted.
/// Sealed, all of it happens in another mount namespace: a guest without /sys can play no more attacks.
fn in_a_root_of_its_own(line: &str) -> Result<Attempt> {
    let namespace = if prepared::is_sealed() { "unshare -m" } else { "" };
    let inside = format!(
        "/bin/busybox mount -t tmpfs none /m && /bin/busybox mkdir /m/old /m/bin && /bin/busybox cp /bin/busybox /m/bin/ && {line}"
    );
    let undo = Undo("umount -l /tmp/root");
    let attempt = attack(&format!(
        "mkdir -p /tmp/root && {namespace} sh -c 'mount -t tmpfs none /tmp/root && cd /tmp/root && mkdir sys bin m \
         && cp /bin/busybox bin/ && mount -o move /sys sys && chroot . /bin/busybox sh -c \"{inside}\"'"
    ))?;
    Ok(attempt.holding(undo))
}
