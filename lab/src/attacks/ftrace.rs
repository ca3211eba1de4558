/*!
Attacks that write 0 to kernel.ftrace_enabled: before 7.3 this silences every program that is called through a trampoline.

Here are the paths to the file. The forms of the write are in [`super::spelled`].
*/
use std::{
    fs::{self, File},
    io::{self, Write},
    os::fd::OwnedFd,
};

use anyhow::{Context, Result, ensure};

use super::{
    Attack, Attempt, Later, Pins,
    bpf::{self, SYSCTL},
    calls::{Undo, attack, in_child, shell},
    elsewhere,
    later_programs::{Attached, ROOT},
};
use crate::syscall::check;

/// Before 7.3 writing 0 succeeds while programs are attached.
pub(super) const FALLS: Pins = Pins::FallsBefore(7, 3);

pub(super) const FILE: &str = "/proc/sys/kernel/ftrace_enabled";

pub(super) const ATTACKS: &[Attack] = &[
    Attack::new("ftrace-off", "write 0 to kernel.ftrace_enabled", FALLS, || written(fs::write(FILE, "0\n")))
        .refused_when_sealed(),
    Attack::new("ftrace-off-by-sysctl", "the same by sysctl(8)", FALLS, || {
        attack("sysctl -w kernel.ftrace_enabled=0")?;
        written(Ok(()))
    })
    .refused_when_sealed(),
    Attack::new("ftrace-off-in-another-proc", "the same in another mount of proc", FALLS, || {
        let undo = Undo("umount -l /tmp/proc");
        shell("mkdir -p /tmp/proc && mount -t proc none /tmp/proc")?.exits(0)?;
        Ok(written(fs::write("/tmp/proc/sys/kernel/ftrace_enabled", "0"))?.holding(undo))
    })
    .refused_when_sealed(),
    Attack::new("ftrace-off-through-a-bind-mount", "the same by a bind mount of the file", FALLS, || {
        let undo = Undo("umount -l /tmp/ftrace");
        shell(&format!("touch /tmp/ftrace && mount -o bind {FILE} /tmp/ftrace"))?.exits(0)?;
        Ok(written(fs::write("/tmp/ftrace", "0"))?.holding(undo))
    })
    .refused_when_sealed(),
    Attack::new("ftrace-off-in-a-chroot", "the same in a chroot with a proc of its own", FALLS, || {
        let undo = Undo("umount -l /tmp/chroot/proc; umount -l /tmp/chroot");
        shell(
            "mkdir -p /tmp/chroot && mount -t tmpfs none /tmp/chroot && cd /tmp/chroot && mkdir bin proc \
             && cp /bin/busybox bin/ && mount -t proc none proc",
        )?
        .exits(0)?;
        shell(&format!("chroot /tmp/chroot /bin/busybox sh -c 'echo 0 > {FILE}'"))?;
        Ok(written(Ok(()))?.holding(undo))
    })
    .refused_when_sealed(),
    Attack::prepared(
        "ftrace-off-by-a-kept-descriptor",
        "the same by a descriptor that was opened beforehand",
        FALLS,
        || {
            let mut file = File::options().write(true).open(FILE)?;
            Ok(Box::new(move || written(file.write_all(b"0"))) as Later)
        },
    )
    .refused_when_sealed(),
    Attack::new("ftrace-off-in-a-container", "the same as root of a user namespace of root's", FALLS, || {
        in_child(|| {
            elsewhere::enter_container()?;
            Ok(written(fs::write(FILE, "0"))?.outcome)
        })
        .map(Attempt::from)
    })
    .refused_when_sealed(),
    Attack::new("ftrace-off-in-a-child-cgroup", "the same in a cgroup of one's own", FALLS, || {
        let undo = Undo("rmdir /sys/fs/cgroup/attack-sysctl");
        shell("mkdir -p /sys/fs/cgroup/attack-sysctl")?.exits(0)?;
        shell(&format!("echo 0 > /sys/fs/cgroup/attack-sysctl/cgroup.procs && echo 0 > {FILE}"))?;
        Ok(written(Ok(()))?.holding(undo))
    })
    .refused_when_sealed(),
    Attack::new(
        "ftrace-off-by-a-sysctl-program",
        "write 1, and have a sysctl program on the root cgroup make 0 of it",
        FALLS,
        || rewritten(ROOT),
    )
    .refused_when_sealed(),
    Attack::new(
        "ftrace-off-by-a-sysctl-program-on-a-child",
        "the same with the program on a cgroup of one's own",
        FALLS,
        || {
            let undo = Undo("rmdir /sys/fs/cgroup/attack-rewrite");
            shell("mkdir -p /sys/fs/cgroup/attack-rewrite")?.exits(0)?;
            Ok(rewritten("/sys/fs/cgroup/attack-rewrite")?.holding(undo))
        },
    )
    .refused_when_sealed(),
];

/// Judges an attempt by whether ftrace is off now, not by the error.
pub(super) fn written(answer: io::Result<()>) -> Result<Attempt> {
    if is_off()? {
        return Attempt::through();
    }
    match answer {
        Ok(()) => Attempt::refused("nothing was said, and it is on"),
        Err(error) => Attempt::refused(error),
    }
}

pub(super) fn is_off() -> Result<bool> {
    Ok(fs::read_to_string(FILE).with_context(|| format!("read {FILE}"))?.trim() == "0")
}

/// Switches ftrace on again, as it was before the attack.
pub(super) fn on_again() -> Result<()> {
    if is_off()? {
        fs::write(FILE, "1")?;
    }
    ensure!(!is_off()?, "ftrace stays off");
    Ok(())
}

/// Writes 1 from a cgroup with a program that changes every written value to 0.
fn rewritten(folder: &str) -> Result<Attempt> {
    const SET_NEW_VALUE: u64 = 104;
    let zero = u64::from(b'0');
    let program = [
        // bpf_sysctl_set_new_value with the text "0" from the stack; then 1, which allows the write.
        zero << 32 | 0xfff8 << 16 | 0x0a << 8 | 0x72,
        0xa2 << 8 | 0xbf,
        0xffff_fff8 << 32 | 0x02 << 8 | 0x07,
        1 << 32 | 0x03 << 8 | 0xb7,
        SET_NEW_VALUE << 32 | 0x85,
        1 << 32 | 0xb7,
        0x95,
    ];
    let cgroup = OwnedFd::from(File::open(folder)?);
    let program = match bpf::load(SYSCTL, &program, &bpf::Extra::default()) {
        Ok(program) => program,
        Err(error) => return Attempt::refused(format!("the program could not be loaded: {error}")),
    };
    if let Err(error) = bpf::attach_to(&cgroup, &program, SYSCTL, bpf::ALLOW_MULTI) {
        return Attempt::refused(format!("the program could not be attached: {error}"));
    }
    let attached = Attached { cgroup, program, kind: SYSCTL };
    let list = format!("{folder}/cgroup.procs");
    let outcome = in_child(|| {
        fs::write(&list, "0")?;
        Ok(written(fs::write(FILE, "1"))?.outcome)
    })?;
    Ok(Attempt::from(outcome).holding(attached))
}

/// Opens the file for writing, and has the caller write to it by a system call of its choice.
pub(super) fn by(call: impl FnOnce(&File) -> io::Result<()>) -> Result<Attempt> {
    let file = File::options().write(true).open(FILE)?;
    written(call(&file))
}

/// Converts the result of a call that returns a count.
pub(super) fn counted(answer: isize) -> io::Result<()> {
    check(i32::try_from(answer).unwrap_or(i32::MAX)).map(drop)
}
