/*!
Disk encryption: whether an attacker who gets the disks can read the file systems and swap on them.

Each mount is followed down to its disks, through all layers of block devices. No key is kept, and no content of a file is read: secrets in plain text
are named by their paths.
*/
mod cipher;
mod devices;
mod table;
mod volumes;

use std::io;

use procfs_core::process::MountInfo;
use rustix::fs::{AtFlags, FileType, StatxAttributes, StatxFlags};

use self::devices::{Cover, Devices};
use crate::{Feature, Finding, How, Report, System, Verdict, few};

pub(super) const FEATURE: Feature =
    Feature { id: "encryption", title: "File system encryption", ..Feature::new(check) };

const ROOT: &str = "encryption.root";
const DATA: &str = "encryption.data";
const SWAP: &str = "encryption.swap";
const STRENGTH: &str = "encryption.strength";
const KEY: &str = "encryption.key";
const FILES: &str = "encryption.files";

const MOUNTS: &str = "/proc/self/mountinfo";
const SWAPS: &str = "/proc/swaps";
const RESUME: &str = "/sys/power/resume";

/// Paths of secrets that an attacker reads first.
const SECRETS: [&str; 9] = [
    "/etc/shadow",
    "/etc/ssh/ssh_host_ed25519_key",
    "/etc/ssh/ssh_host_rsa_key",
    "/etc/ssl/private",
    "/etc/krb5.keytab",
    "/etc/wireguard",
    "/etc/ipsec.secrets",
    "/etc/NetworkManager/system-connections",
    "/root/.ssh",
];

fn check(system: &System, report: &mut Report) {
    let mountinfo = match system.text(MOUNTS) {
        Ok(text) => text,
        Err(unread) => {
            for id in [ROOT, DATA, SWAP, STRENGTH, KEY, FILES] {
                report.add(Finding::unknown(id, How::Read, &unread));
            }
            return;
        }
    };
    let mut devices = Devices::new(system, &mountinfo);
    let tables = volumes::tables(system, &mut devices);
    report.add(root(system, &devices));
    report.add(data(&devices));
    report.add(swap(system, &devices));
    report.add(volumes::strength(tables.as_ref()));
    report.add(volumes::key(tables.as_ref()));
    report.add(files(system, &devices));
}

fn root(system: &System, devices: &Devices) -> Finding {
    let Some(mount) = devices.mount_at("/") else {
        return Finding::unknown(ROOT, How::Read, format!("{MOUNTS} does not list /"));
    };
    let on_it = |path: &&str| {
        system.exists(path)
            // An empty folder holds no secret.
            && system.names(path).map_or(true, |names| !names.is_empty())
            && devices.mount_of(path).is_some_and(|other| other.majmin == mount.majmin)
    };
    let finding = match devices.behind(mount) {
        Cover::Encrypted(_) => Finding::new(ROOT, Verdict::Pass, How::Derived, "/ is encrypted on its disks"),
        Cover::Plain(_) => {
            let secrets: Vec<&str> = SECRETS.into_iter().filter(on_it).collect();
            if secrets.is_empty() {
                let found = "/ is not encrypted: its disks hold plain text, but none of the secrets that Stockade looks for";
                Finding::new(ROOT, Verdict::Warn, How::Derived, found)
            } else {
                let found = "/ is not encrypted: its disks hold secrets in plain text";
                Finding::new(ROOT, Verdict::Fail, How::Derived, found)
                    .seen("secrets in plain text", few(&secrets))
            }
        }
        Cover::Memory => Finding::not_applicable(ROOT, How::Derived, "/ is in memory, on no disk"),
        Cover::Elsewhere(kind) => {
            Finding::not_applicable(ROOT, How::Read, format!("/ is not on a disk of this machine ({kind})"))
        }
        Cover::Unknown(why) => Finding::unknown(ROOT, How::Derived, why),
    };
    finding.seen(format!("{MOUNTS}: /"), describe_mount(devices, mount))
}

/// Describes the devices behind a mount.
fn describe_mount(devices: &Devices, mount: &MountInfo) -> String {
    let kind = &mount.fs_type;
    format!("{kind} on {}", describe(devices, &devices.behind(mount)))
}

/// Describes a cover.
fn describe(devices: &Devices, cover: &Cover) -> String {
    let titles = |names: &[String]| few(&names.iter().map(|name| devices.title(name)).collect::<Vec<_>>());
    match cover {
        Cover::Encrypted(names) => format!("{}, encrypted", titles(names)),
        Cover::Plain(names) => format!("{}, plain", titles(names)),
        Cover::Memory => "memory".into(),
        Cover::Elsewhere(_) => "another machine or a user space file system".into(),
        Cover::Unknown(why) => why.clone(),
    }
}

fn data(devices: &Devices) -> Finding {
    let (mut plain, mut unknown, mut seen) = (Vec::new(), Vec::new(), Vec::new());
    for mount in devices.others() {
        let point = mount.mount_point.to_string_lossy().into_owned();
        // The boot loader has to read it; it holds no secrets, and signatures protect it.
        let boot = ["/boot", "/efi"].iter().any(|boot| mount.mount_point.starts_with(boot));
        let cover = devices.behind(mount);
        seen.push((format!("{MOUNTS}: {point}"), describe_mount(devices, mount)));
        match cover {
            Cover::Plain(_) if !boot => plain.push(point),
            Cover::Unknown(_) if !boot => unknown.push(point),
            _ => {}
        }
    }
    let finding = if !plain.is_empty() {
        Finding::new(
            DATA,
            Verdict::Warn,
            How::Derived,
            format!("file systems not encrypted: {}", few(&plain)),
        )
    } else if !unknown.is_empty() {
        Finding::unknown(
            DATA,
            How::Derived,
            format!("whether the devices behind {} are encrypted is not known", few(&unknown)),
        )
    } else if seen.is_empty() {
        return Finding::not_applicable(DATA, How::Read, "no other file system on a disk is mounted");
    } else {
        Finding::new(
            DATA,
            Verdict::Pass,
            How::Derived,
            "all other file systems are encrypted, except those that the boot loader reads",
        )
    };
    seen.into_iter().take(8).fold(finding, |finding, (source, observed)| finding.seen(source, observed))
}

fn swap(system: &System, devices: &Devices) -> Finding {
    let swaps = match system.text(SWAPS) {
        Ok(text) => text,
        Err(unread) if unread.is_missing() && system.exists("/proc/self") => {
            return Finding::not_applicable(SWAP, How::Read, "this kernel was built without swap")
                .seen(SWAPS, "not there");
        }
        Err(unread) => return Finding::unknown(SWAP, How::Read, unread),
    };
    let mut places: Vec<(String, String, Cover)> = Vec::new();
    for line in swaps.lines().skip(1).take(64) {
        let mut words = line.split_ascii_whitespace();
        let (Some(path), Some(kind)) = (words.next(), words.next()) else { continue };
        places.push((SWAPS.into(), path.to_owned(), devices.behind_path(path, kind == "file")));
    }
    let hibernates =
        !system.text("/sys/power/disk").unwrap_or_else(|_| "[disabled]".into()).contains("[disabled]");
    if let Ok(numbers) = system.text(RESUME)
        && hibernates
        && numbers != "0:0"
    {
        let name = devices.by_numbers(&numbers);
        let cover = name.as_ref().map_or_else(
            || Cover::Unknown(format!("the resume device {numbers} does not exist")),
            |name| devices.behind_path(name, false),
        );
        places.push((RESUME.into(), name.unwrap_or(numbers), cover));
    }
    if places.is_empty() {
        return Finding::not_applicable(SWAP, How::Read, "no swap is in use").seen(SWAPS, "no swap");
    }
    let named = |wanted: fn(&Cover) -> bool| -> Vec<&str> {
        places.iter().filter(|(.., cover)| wanted(cover)).map(|(_, place, _)| place.as_str()).collect()
    };
    let plain = named(|cover| matches!(cover, Cover::Plain(_)));
    // Another machine may write it to its disk in plain text.
    let unknown = named(|cover| matches!(cover, Cover::Unknown(_) | Cover::Elsewhere(_)));
    let finding = if !plain.is_empty() {
        let found = format!("swap is not encrypted: memory is written in plain text to {}", few(&plain));
        Finding::new(SWAP, Verdict::Fail, How::Derived, found)
    } else if !unknown.is_empty() {
        Finding::unknown(
            SWAP,
            How::Derived,
            format!("whether the devices behind {} are encrypted is not known", few(&unknown)),
        )
    } else {
        Finding::new(SWAP, Verdict::Pass, How::Derived, "swap is encrypted, or in memory only")
    };
    places.iter().take(6).fold(finding, |finding, (source, place, behind)| {
        finding.seen(source.as_str(), format!("{place}: {}", describe(devices, behind)))
    })
}

/// Judges home directories on file systems that are not encrypted.
fn files(system: &System, devices: &Devices) -> Finding {
    let cover = |path: &str| devices.mount_of(path).map(|mount| devices.behind(mount));
    let mut homes = vec!["/root".to_owned()];
    // A network file system is not read: its server may not answer.
    if !matches!(cover("/home"), Some(Cover::Elsewhere(_))) {
        let names = system.names("/home").unwrap_or_default();
        homes.extend(names.iter().take(64).map(|name| format!("/home/{name}")));
    }
    let (mut plain, mut unknown) = (Vec::new(), Vec::new());
    for home in homes.into_iter().filter(|home| !home.ends_with("/lost+found")) {
        let homes = match cover(&home) {
            Some(Cover::Plain(_)) => &mut plain,
            Some(Cover::Unknown(_)) | None => &mut unknown,
            Some(_) => continue,
        };
        if system.exists(&home) && (!system.is_live() || is_folder(&home)) {
            homes.push(home);
        }
    }
    if plain.is_empty() && !unknown.is_empty() {
        let missing = format!("whether the devices behind {} are encrypted is not known", few(&unknown));
        return Finding::unknown(FILES, How::Derived, missing);
    }
    if plain.is_empty() {
        return Finding::not_applicable(FILES, How::Derived, "no home directory is on a plain file system");
    }
    if !system.is_live() {
        return Finding::unknown(FILES, How::Read, "not tried: this is not the running machine");
    }
    // A sample, which takes about a millisecond.
    let programs = system.names("/usr/bin").unwrap_or_default();
    let looked: Vec<bool> = programs
        .iter()
        .take(200)
        .filter_map(|name| attribute(&format!("/usr/bin/{name}"), StatxAttributes::VERITY).ok())
        .collect();
    let verity = looked.iter().filter(|protected| **protected).count();
    judge_homes(&plain, &unknown, |home| attribute(home, StatxAttributes::ENCRYPTED)).seen(
        "statx(2) of programs in /usr/bin",
        format!("{verity} of {} protected by fs-verity", looked.len()),
    )
}

/// Reports whether a path is a directory; true if stat(2) fails.
fn is_folder(path: &str) -> bool {
    rustix::fs::stat(path).map_or(true, |stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Reports whether a file has this statx(2) attribute.
fn attribute(path: &str, wanted: StatxAttributes) -> io::Result<bool> {
    let answer = rustix::fs::statx(rustix::fs::CWD, path, AtFlags::empty(), StatxFlags::empty())?;
    Ok(answer.stx_attributes.contains(wanted))
}

fn judge_homes(
    plain: &[String],
    unknown: &[String],
    is_encrypted: impl Fn(&str) -> io::Result<bool>,
) -> Finding {
    let (mut encrypted, mut open) = (0, Vec::new());
    let mut failed: Vec<String> = unknown
        .iter()
        .map(|home| format!("{home}: whether its devices are encrypted is not known"))
        .collect();
    for home in plain {
        match is_encrypted(home) {
            Ok(true) => encrypted += 1,
            Ok(false) => open.push(home.as_str()),
            Err(error) => failed.push(format!("{home}: {error}")),
        }
    }
    let finding = if !open.is_empty() {
        let found =
            format!("home directories not encrypted, neither by their disk nor by fscrypt: {}", few(&open));
        Finding::new(FILES, Verdict::Warn, How::Read, found)
    } else if !failed.is_empty() {
        Finding::unknown(FILES, How::Read, few(&failed))
    } else {
        let found = "home directories on plain file systems are encrypted by fscrypt";
        Finding::new(FILES, Verdict::Pass, How::Read, found)
    };
    finding.seen("statx(2) of home directories", format!("{encrypted} of {} encrypted", plain.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "\
22 1 252:0 / / rw,relatime shared:1 - ext4 /dev/mapper/vg-root rw
23 22 0:21 / /proc rw - proc proc rw
24 22 8:1 / /boot rw - ext4 /dev/sda1 rw
25 22 0:40 /home /home rw - btrfs /dev/mapper/home rw,subvol=/home
";

    /// A machine with LVM over LUKS for /, btrfs over two LUKS devices for /home, and a plain /boot.
    fn files() -> Vec<(String, String)> {
        let mut files: Vec<(String, String)> = vec![
            (MOUNTS.into(), TWO.into()),
            ("/proc/swaps".into(), "Filename Type Size Used Priority\n/dev/dm-2 partition 9 0 -2\n".into()),
            ("/sys/dev/block/252:0".into(), "-> ../../devices/virtual/block/dm-0".into()),
            ("/sys/dev/block/8:1".into(), "-> ../../devices/pci0/block/sda/sda1".into()),
            ("/dev/mapper/home".into(), "-> ../dm-3".into()),
            ("/sys/fs/btrfs/1234/devices/dm-3".into(), String::new()),
            ("/sys/fs/btrfs/1234/devices/dm-4".into(), String::new()),
            ("/sys/class/block/sda1".into(), "-> ../../devices/pci0/block/sda/sda1".into()),
            ("/sys/devices/pci0/block/sda/sda1/partition".into(), "1".into()),
            ("/sys/class/block/sda/dev".into(), "8:0".into()),
            ("/sys/class/block/sda2/dev".into(), "8:2".into()),
            ("/etc/shadow".into(), "x".into()),
            ("/root/".into(), String::new()),
        ];
        for (device, uuid, name, below) in [
            ("dm-0", "LVM-abc", "vg-root", "dm-1"),
            ("dm-1", "CRYPT-LUKS2-0123-luks", "luks", "sda2"),
            ("dm-2", "CRYPT-PLAIN-swap", "swap", "sda2"),
            ("dm-3", "CRYPT-LUKS2-4567-home", "home", "sda2"),
            ("dm-4", "CRYPT-LUKS1-89ab-home2", "home2", "sda2"),
        ] {
            files.push((format!("/sys/class/block/{device}/dm/uuid"), uuid.into()));
            files.push((format!("/sys/class/block/{device}/dm/name"), name.into()));
            files.push((format!("/sys/class/block/{device}/slaves/{below}"), String::new()));
        }
        files
    }

    /// Returns the machine with some files changed.
    fn with(changes: &[(&str, &str)]) -> System {
        let mut files = files();
        for (path, content) in changes {
            files.retain(|(other, _)| other != path);
            files.push(((*path).into(), (*content).into()));
        }
        let files: Vec<(&str, &str)> =
            files.iter().map(|(path, content)| (path.as_str(), content.as_str())).collect();
        System::fake(&files)
    }

    fn verdicts(changes: &[(&str, &str)]) -> [Verdict; 3] {
        let findings = FEATURE.findings(&with(changes));
        [ROOT, DATA, SWAP].map(|id| findings[id].verdict)
    }

    #[test]
    fn what_is_encrypted_below_passes() {
        assert_eq!(verdicts(&[]), [Verdict::Pass; 3]);
        let findings = FEATURE.findings(&with(&[]));
        assert_eq!(findings[ROOT].evidence[0].observed, "ext4 on dm-1 (luks), encrypted");
        assert_eq!(findings[DATA].evidence[0].observed, "ext4 on sda1, plain");
        assert_eq!(findings[DATA].evidence[1].observed, "btrfs on dm-3 (home), dm-4 (home2), encrypted");
        // Tables are only there on the running machine.
        assert_eq!((findings[STRENGTH].verdict, findings[KEY].verdict), (Verdict::Unknown, Verdict::Unknown));
        assert_eq!(findings[FILES].verdict, Verdict::NotApplicable);
    }

    #[test]
    fn what_is_plain_below_fails() {
        let luks = "/sys/class/block/dm-1/dm/uuid";
        assert_eq!(verdicts(&[(luks, "LVM-x")]), [Verdict::Fail, Verdict::Pass, Verdict::Pass]);
        // dm-verity protects integrity, not confidentiality.
        assert_eq!(verdicts(&[(luks, "CRYPT-VERITY-0123-root")])[0], Verdict::Fail);
        // A device made by dmsetup may encrypt, and its table was not read.
        assert_eq!(verdicts(&[(luks, "")])[0], Verdict::Unknown);
        assert_eq!(verdicts(&[("/sys/class/block/dm-4/dm/uuid", "LVM-x")])[1], Verdict::Warn);
        assert_eq!(verdicts(&[("/sys/class/block/dm-2/dm/uuid", "LVM-x")])[2], Verdict::Fail);
        let mut few: Vec<(String, String)> = files();
        few.retain(|(path, _)| path != "/etc/shadow" && path != luks);
        few.push(("/etc/ssl/private/".into(), String::new()));
        let few: Vec<(&str, &str)> =
            few.iter().map(|(path, content)| (path.as_str(), content.as_str())).collect();
        let findings = FEATURE.findings(&System::fake(&few));
        assert_eq!((findings[ROOT].verdict, findings[FILES].verdict), (Verdict::Warn, Verdict::Unknown));
    }

    #[test]
    fn what_is_not_on_a_disk_is_not_applicable() {
        let root = |line: &str| verdicts(&[(MOUNTS, line)])[0];
        assert_eq!(root("1 1 0:2 / / rw - rootfs rootfs rw\n"), Verdict::NotApplicable);
        assert_eq!(root("1 1 0:30 / / rw - nfs4 server:/x rw\n"), Verdict::NotApplicable);
        assert_eq!(root("1 1 0:30 / / rw - overlay overlay rw\n"), Verdict::Unknown);
        assert_eq!(root("1 1 9:9 / / rw - ext4 /dev/md9 rw\n"), Verdict::Unknown);
        assert_eq!(root("nonsense\n"), Verdict::Unknown);
        // The last mount at a point is the one that is seen.
        assert_eq!(
            root("1 1 0:2 / / rw - rootfs rootfs rw\n2 1 252:0 / / rw - ext4 /dev/dm-0 rw\n"),
            Verdict::Pass
        );
    }

    #[test]
    fn files_and_hibernation_are_swap_too() {
        let swaps = |line: &str| verdicts(&[("/proc/swaps", &format!("Filename\n{line}\n"))])[2];
        assert_eq!(swaps("/swapfile file 9 0 -2"), Verdict::Pass);
        assert_eq!(swaps("/boot/swapfile file 9 0 -2"), Verdict::Fail);
        let remote = format!("{TWO}26 22 0:50 / /net rw - nfs4 server:/x rw\n");
        let swapped = ("/proc/swaps", "Filename\n/net/swapfile file 9 0 -2\n");
        assert_eq!(verdicts(&[(MOUNTS, &remote), swapped])[2], Verdict::Unknown);
        assert_eq!(swaps("/dev/zram0 partition 9 0 100"), Verdict::Pass);
        let zram = |disk| {
            verdicts(&[
                ("/proc/swaps", "Filename\n/dev/zram0 partition 9 0 100\n"),
                ("/sys/class/block/zram0/backing_dev", disk),
            ])[2]
        };
        assert_eq!((zram("none\n"), zram("/dev/dm-1\n")), (Verdict::Pass, Verdict::Pass));
        assert_eq!(zram("/dev/sda1\n"), Verdict::Fail);
        // Without udev, the entry in /dev/mapper is no symlink.
        assert_eq!(swaps("/dev/mapper/swap partition 9 0 -2"), Verdict::Pass);
        assert_eq!(swaps("/dev/sdz partition 9 0 100"), Verdict::Unknown);
        assert_eq!(swaps(""), Verdict::NotApplicable);
        let resume = |disk| verdicts(&[(RESUME, "8:1"), ("/sys/power/disk", disk)])[2];
        assert_eq!((resume("[platform] shutdown"), resume("[disabled]")), (Verdict::Fail, Verdict::Pass));
    }

    #[test]
    fn file_systems_that_may_encrypt_are_not_left_out() {
        let mounts = format!("{TWO}26 22 0:50 / /srv rw - zfs tank/srv rw\n");
        assert_eq!(verdicts(&[(MOUNTS, &mounts)])[1], Verdict::Unknown);
    }

    #[test]
    fn a_file_as_a_disk_is_as_its_file_system() {
        let line = "1 1 252:0 / / rw - ext4 /dev/dm-0 rw\n2 1 7:0 / /home rw - ext4 /dev/loop0 rw\n\
                    3 1 0:5 / /dev rw - devtmpfs udev rw\n";
        let on = |file| {
            verdicts(&[
                (MOUNTS, line),
                ("/sys/dev/block/7:0", "-> ../../devices/virtual/block/loop0"),
                ("/sys/class/block/loop0/loop/backing_file", file),
            ])[1]
        };
        assert_eq!(on("/var/disk.img"), Verdict::Pass);
        // A device instead of a file: /dev itself is in memory.
        assert_eq!((on("/dev/sda1"), on("/dev/dm-1")), (Verdict::Warn, Verdict::Pass));
        // A cycle of devices ends.
        assert_eq!(on("/home/disk.img"), Verdict::Unknown);
    }

    #[test]
    fn a_home_is_encrypted_by_its_disk_or_by_itself() {
        let plain = ["/root".to_owned(), "/home/a".to_owned()];
        let verdict =
            |is_encrypted: fn(&str) -> io::Result<bool>| judge_homes(&plain, &[], is_encrypted).verdict;
        assert_eq!(verdict(|_| Ok(true)), Verdict::Pass);
        assert_eq!(verdict(|home| Ok(home == "/root")), Verdict::Warn);
        let fails =
            |home: &str| if home == "/root" { Ok(true) } else { Err(io::ErrorKind::PermissionDenied.into()) };
        assert_eq!(verdict(fails), Verdict::Unknown);
        assert_eq!(judge_homes(&plain, &["/home/b".to_owned()], |_| Ok(true)).verdict, Verdict::Unknown);
        let on = |mounts: &str| {
            let files = [(MOUNTS, mounts), ("/root/", ""), ("/home/a/", "")];
            FEATURE.findings(&System::fake(&files))[FILES].verdict
        };
        assert_eq!(on("1 1 0:30 / / rw - overlay overlay rw\n"), Verdict::Unknown);
        assert_eq!(on("1 1 0:30 / / rw - nfs4 server:/x rw\n"), Verdict::NotApplicable);
        assert!(is_folder("/proc/self") && !is_folder("/proc/self/exe"));
        assert!(!attribute("/proc/self/exe", StatxAttributes::ENCRYPTED).unwrap());
    }

    #[test]
    fn not_root_sees_what_is_encrypted_and_no_cipher() {
        let findings = FEATURE.findings(&with(&[]).not_root());
        assert_eq!((findings[ROOT].verdict, findings[STRENGTH].verdict), (Verdict::Pass, Verdict::Unknown));
        assert_eq!(findings[STRENGTH].found, "run this as root");
    }
}
