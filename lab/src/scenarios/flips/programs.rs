//! Changes made with Debian's programs, a disk or a TPM, and the findings that flip with each.

use std::{ffi::CString, fs, path::Path, process::Command, ptr};

use anyhow::{Context, Result};
use stockade_record::tpm::{self, Tpm};

use super::changes::{Change, Undo, enforce, write};
use crate::{
    boots::Boot,
    flips::{
        Flip,
        Verdict::{Fail, NotApplicable, Pass, Unknown, Warn},
        flip,
    },
    program::run,
    scenarios::programs::debian,
    scenarios::selinux,
    syscall::check,
    userland,
};

const fn change(
    boot: Boot,
    name: &'static str,
    make: fn() -> Result<Option<Undo>>,
    flips: &'static [Flip],
    also: &'static [&'static str],
) -> Change {
    Change { name, boot, make, flips, also }
}

/// The changes, in the order in which they are made.
pub(super) const ALL: &[Change] = &[
    change(
        Boot::AssessedTpm,
        "flips: something that no log tells of is measured into a register of the firmware's",
        || {
            Tpm::open(Path::new(tpm::DEVICE))?.event(4, b"another boot loader")?;
            Ok(None)
        },
        &[flip("tpm.event-log", Pass, Fail, "PCR 4")],
        &[],
    ),
    change(
        Boot::AssessedPrograms,
        "flips: an AppArmor profile is enforced",
        || profile(""),
        &[flip("apparmor.profiles", Fail, Pass, ""), flip("apparmor.confinement", Unknown, Pass, "")],
        &[],
    ),
    change(
        Boot::AssessedPrograms,
        "flips: an AppArmor profile only logs",
        || profile("flags=(complain)"),
        &[flip("apparmor.profiles", Fail, Fail, "no loaded profile is in enforce mode")],
        &[],
    ),
    change(
        Boot::AssessedPrograms,
        "flips: IPsec by AES-GCM",
        || association("flag esn aead 'rfc4106(gcm(aes))' 0x000102030405060708090a0b0c0d0e0f10111213 128"),
        &[
            flip("ipsec.algorithms", NotApplicable, Pass, ""),
            flip("ipsec.secrets", NotApplicable, Warn, ""),
            flip("ipsec.states", NotApplicable, Pass, ""),
        ],
        // Only newer kernels report whether a state is for inbound packets.
        &["ipsec.replay"],
    ),
    change(
        Boot::AssessedPrograms,
        "flips: IPsec by triple DES and MD5",
        || {
            association(
                "enc 'cbc(des3_ede)' 0x0123456789abcdef23456789abcdef01456789abcdef0123 auth 'hmac(md5)' \
                 0x000102030405060708090a0b0c0d0e0f",
            )
        },
        &[flip("ipsec.algorithms", NotApplicable, Fail, "des3_ede")],
        &["ipsec.replay", "ipsec.secrets", "ipsec.states", "crypto-api.weak"],
    ),
    change(
        Boot::AssessedPrograms,
        "flips: the keys of IPsec are hidden under confidentiality",
        || {
            let ends = association(
                "flag esn aead 'rfc4106(gcm(aes))' 0x000102030405060708090a0b0c0d0e0f10111213 128",
            )?;
            let lifts = enforce("confidentiality")?;
            Ok(Some(Box::new(move || {
                for undo in [lifts, ends].into_iter().flatten() {
                    undo()?;
                }
                Ok(())
            })))
        },
        &[flip("ipsec.secrets", NotApplicable, Pass, "")],
        &[
            "ipsec.algorithms",
            "ipsec.replay",
            "ipsec.states",
            "lockdown.confidentiality-doors",
            "lockdown.doors",
            "lockdown.level",
            "lockdown.residual",
            "lockdown.sealed",
            "modules.kexec-signature",
            "modules.signature",
        ],
    ),
    change(
        Boot::AssessedPrograms,
        "flips: what is swapped lies in plain text",
        || {
            busybox(&["mkswap", DISK])?;
            swap(DISK)
        },
        &[flip("encryption.swap", NotApplicable, Fail, "")],
        &[],
    ),
    change(
        Boot::AssessedPrograms,
        "flips: what is swapped is encrypted",
        || {
            let ends = encrypted()?;
            busybox(&["mkswap", ENCRYPTED])?;
            let off = swap(ENCRYPTED)?;
            Ok(Some(Box::new(move || off.map_or(Ok(()), |off| off()).and_then(|()| ends()))))
        },
        &[
            flip("encryption.swap", NotApplicable, Pass, ""),
            flip("encryption.strength", NotApplicable, Pass, ""),
            flip("encryption.key", NotApplicable, Warn, ""),
        ],
        &[],
    ),
    change(
        Boot::AssessedPrograms,
        "flips: the root lies in plain text",
        || root_on(DISK),
        &[flip("encryption.root", NotApplicable, Fail, "/etc/shadow")],
        ELSEWHERE,
    ),
    change(
        Boot::AssessedPrograms,
        "flips: the root is encrypted",
        || {
            let ends = encrypted()?;
            root_on(ENCRYPTED)?;
            Ok(Some(ends))
        },
        &[
            flip("encryption.root", NotApplicable, Pass, ""),
            flip("encryption.strength", NotApplicable, Pass, ""),
        ],
        ELSEWHERE,
    ),
    change(
        Boot::AssessedPrograms,
        "flips: a kernel waits for a kexec",
        || {
            fs::copy(userland::KERNEL_IMAGE, "/tmp/vmlinuz").context("copying the kernel's image")?;
            debian("kexec --kexec-file-syscall -l /tmp/vmlinuz --command-line=quiet")?.exits(0)?;
            Ok(Some(Box::new(|| debian("kexec --kexec-file-syscall -u")?.exits(0).map(drop))))
        },
        &[flip("modules.kexec-loaded", Pass, Warn, "")],
        // The loaded image is also a finding of `residual`.
        &["lockdown.residual"],
    ),
    change(
        Boot::AssessedPolicy,
        "flips: the files of SELinux are there, and no policy",
        || selinux::mount_selinuxfs().map(|()| None),
        // Without selinuxfs the contexts of processes show it.
        &[flip("selinux.policy", Fail, Fail, "no policy is loaded")],
        SELINUX,
    ),
    change(
        Boot::AssessedPolicy,
        "flips: a policy of SELinux is loaded",
        || selinux::load_policy().map(|()| None),
        &[flip("selinux.policy", Fail, Pass, "")],
        SELINUX,
    ),
    change(
        Boot::AssessedPolicy,
        "flips: SELinux is permissive",
        || write("/sys/fs/selinux/enforce", "0"),
        &[flip("selinux.enforcing", Pass, Fail, "only logged")],
        &["selinux.denial", "nx.remap"],
    ),
];

/// Findings that depend on the policy, and nx.remap, whose permission the policy refuses to programs of this guest.
const SELINUX: &[&str] = &[
    "nx.remap",
    "selinux.booleans",
    "selinux.denial",
    "selinux.enabled",
    "selinux.enforcing",
    "selinux.permissive-domains",
    "selinux.unconfined",
];

/// The scratch disk, after the one with Debian's programs.
const DISK: &str = "/dev/vdb";

/// The scratch disk through dm-crypt.
const ENCRYPTED: &str = "/dev/dm-0";

/// Findings about mounts, which are others under another root, and about user namespaces, which a process in a chroot cannot create.
const ELSEWHERE: &[&str] =
    &["encryption.data", "encryption.files", "encryption.key", "modules.rare", "settings.user-namespaces"];

fn busybox(arguments: &[&str]) -> Result<()> {
    run(Command::new("/bin/busybox").args(arguments))?.exits(0).map(drop)
}

fn profile(flags: &str) -> Result<Option<Undo>> {
    fs::write("/tmp/profile", format!("abi <abi/3.0>,\nprofile flips {flags} {{\n  file,\n}}\n"))?;
    debian("apparmor_parser --skip-cache --replace /tmp/profile")?.exits(0)?;
    Ok(Some(Box::new(|| debian("apparmor_parser --remove /tmp/profile")?.exits(0).map(drop))))
}

/// Adds an IPsec state for one direction, and a policy that uses it.
fn association(algorithms: &str) -> Result<Option<Undo>> {
    let ends = "src 192.0.2.1 dst 192.0.2.2";
    debian(&format!(
        "ip xfrm state add {ends} proto esp spi 0x100 mode tunnel replay-window 32 {algorithms}"
    ))?
    .exits(0)?;
    debian(&format!("ip xfrm policy add {ends} dir out tmpl {ends} proto esp mode tunnel"))?.exits(0)?;
    Ok(Some(Box::new(|| debian("ip xfrm policy flush && ip xfrm state flush")?.exits(0).map(drop))))
}

fn swap(device: &'static str) -> Result<Option<Undo>> {
    busybox(&["swapon", device])?;
    Ok(Some(Box::new(move || busybox(&["swapoff", device]))))
}

/// Sets up the scratch disk through dm-crypt, with a key that is public: it is in this file.
fn encrypted() -> Result<Undo> {
    let sectors =
        fs::read_to_string("/sys/class/block/vdb/size").context("this guest has no disk to write on")?;
    let table =
        format!("0 {} crypt aes-xts-plain64 {} 0 {DISK} 0", sectors.trim(), "0123456789abcdef".repeat(8));
    debian(&format!("dmsetup create --noudevsync -u CRYPT-LUKS2-00112233-flips flips --table '{table}'"))?
        .exits(0)?;
    // Deferred: a process whose root is on the device keeps it open until it ends.
    Ok(Box::new(|| debian("dmsetup remove --noudevsync --deferred flips")?.exits(0).map(drop)))
}

/// Gives this process a root file system on this device, with the other folders bind-mounted into it.
fn root_on(device: &str) -> Result<Option<Undo>> {
    const ROOT: &str = "/tmp/root";
    busybox(&["mke2fs", device])?;
    // SAFETY: unshare takes flags only; a scenario's process has one thread.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) }).context("leaving the namespace of mounts")?;
    mount(None, "/", libc::MS_REC | libc::MS_PRIVATE)?;
    fs::create_dir_all(ROOT)?;
    busybox(&["mount", "-t", "ext2", device, ROOT])?;
    fs::create_dir_all(format!("{ROOT}/etc"))?;
    fs::write(format!("{ROOT}/etc/shadow"), "")?;
    for entry in fs::read_dir("/").context("listing /")?.flatten() {
        let name = entry.file_name();
        if !entry.file_type()?.is_dir() || name == "etc" || name == "tmp" {
            continue;
        }
        let at = Path::new(ROOT).join(&name);
        fs::create_dir_all(&at)?;
        mount(Some(&format!("/{}", name.display())), &at.to_string_lossy(), libc::MS_BIND | libc::MS_REC)?;
    }
    fs::create_dir_all(format!("{ROOT}/tmp"))?;
    std::os::unix::fs::chroot(ROOT).context("changing the root")?;
    std::env::set_current_dir("/")?;
    // The mount namespace ends with this process.
    Ok(Some(Box::new(|| Ok(()))))
}

fn mount(source: Option<&str>, target: &str, flags: libc::c_ulong) -> Result<()> {
    let at = CString::new(target)?;
    let from = source.map(CString::new).transpose()?;
    // SAFETY: the strings outlive the call; no type and no data are passed.
    let answer = unsafe {
        libc::mount(
            from.as_ref().map_or(ptr::null(), |s| s.as_ptr()),
            at.as_ptr(),
            ptr::null(),
            flags,
            ptr::null(),
        )
    };
    check(answer).with_context(|| format!("mounting at {target}"))?;
    Ok(())
}
