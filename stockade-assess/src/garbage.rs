/*!
Every check on machines that cannot be: whatever a check asks for is there, and holds garbage.

A check is run on an empty folder first. Where it looked, something is put: nothing at all, noise, numbers too large, a folder in place of a
file, a link to itself, words that such files are made of in the wrong order. Then it is run again, since who finds something looks further.
Garbage at the first door hides what is behind: other machines begin with `garbage/machine.txt`, a machine that has everything, of which each file
is kept, damaged, or replaced.

Each run is a child with a limit, so that a check which loops for ever is found as well as one that panics.
*/
use std::{
    collections::BTreeSet,
    fs,
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::Path,
    time::Duration,
};

use stockade_probe::limit::Limit;

use crate::{
    Feature, Finding, Report, System, Text,
    child::{self, End},
    features,
};

/// A check of garbage uses an instant. This is for slow machines.
const LIMIT: Limit = Limit { processor: Duration::from_mins(1), idle: Duration::from_mins(10) };

/// How many machines each feature meets, and how often more is put where it looked.
const MACHINES: u64 = 9;
const ROUNDS: usize = 3;

/// Words in files of the kernel.
const WORDS: &[&str] = &[
    "",
    "0",
    "1",
    "2",
    "-1",
    "y",
    "Y",
    "m",
    "n",
    "on",
    "off",
    "none",
    "[none]",
    "integrity",
    "[integrity] confidentiality",
    "enforce",
    "(enforce)",
    "18446744073709551616",
    "-9223372036854775808",
    "9223372036854775807",
    "4294967295",
    "0x",
    "0xffffffffffffffff",
    "ffffffffffffffff",
    "7ffc00000000-7ffb00000000",
    "00400000-00401000 rwxp 00000000 fe:00 1 [stack]",
    "254:0",
    "999999:999999",
    "\0",
    ":",
    "=",
    ",",
    "\t",
    " ",
    "\n",
    "\n\n",
    "\u{1b}[2J",
    "CONFIG_",
    "CONFIG_SECURITY=y",
    "CRYPT-LUKS2-0-x",
    "CRYPT-",
    "crypt",
    "aes-xts-plain64",
    "name         : xts(aes)",
    "driver",
    "priority     : -1",
    "selftest     : passed",
    "flags\t\t: nx smep aes sha_ni rdrand hypervisor",
    "Seccomp:\t2",
    "Name:\t\u{fffd}",
    "Uid:\t0\t0\t0\t0",
    "Vulnerable",
    "Mitigation:",
    "Not affected",
    "system_u:system_r:init_t:s0",
    "/usr/bin/x (complain)",
    "1 1 254:0 / / rw - ext4 /dev/root rw",
    "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue",
    "0::/system.slice/x.service",
    "memory 0 1 1",
    "Filename\tType\tSize\tUsed\tPriority",
    "/dev/dm-0 partition 1 0 -2",
    "lockdown=",
    "--",
    "\"",
    "ima",
];

/// Names of what folders of the kernel hold.
const NAMES: &[&str] = &[
    "1",
    "2",
    "4294967296",
    "self",
    "0",
    "dm-0",
    "vda",
    "vda1",
    "tpm0",
    "cpu0",
    "sha256",
    "sha1",
    "card0",
    "domain0",
    "fe:00",
    "-1",
    "…",
    "a b",
    "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c",
    "db-d719b2cb-3d3a-4596-a3bc-dad00e67656f",
    "x.1",
    "dmar0",
    "boolean",
];

/// A pipe that nobody writes to.
fn pipe(path: &Path) -> std::io::Result<()> {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path is a string that lives for the call.
    let made = unsafe { libc::mkfifo(path.as_ptr(), 0o600) };
    if made == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Numbers that look random and repeat: an xorshift generator.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.roll() % n as u64).unwrap()
    }

    fn one_of<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    fn content(&mut self) -> Vec<u8> {
        match self.below(8) {
            0 => Vec::new(),
            1 => (0..self.below(4096)).map(|_| self.roll().to_le_bytes()[3]).collect(),
            2 => vec![b'9'; 1 + self.below(100_000)],
            3 => vec![0; self.below(5000)],
            _ => {
                let mut text = String::new();
                for _ in 0..=self.below(40) {
                    text += self.one_of(WORDS);
                    text += self.one_of(&["\n", "\n", " ", "\t", ""]);
                }
                let mut bytes = text.into_bytes();
                if self.below(3) == 0 && !bytes.is_empty() {
                    let at = self.below(bytes.len());
                    bytes[at] = 0xff;
                }
                bytes
            }
        }
    }

    /// Puts something at a path, if nothing is there and what is above it is a folder.
    fn put(&mut self, path: &Path) {
        let Some(folder) = path.parent() else { return };
        if fs::symlink_metadata(path).is_ok() || fs::create_dir_all(folder).is_err() {
            return;
        }
        // Names can be too long: then nothing is put there.
        let _ = match self.below(14) {
            0 => Ok(()),
            1 => symlink("x", path),
            2 => symlink(path, path),
            3 => symlink("../../..", path),
            4 => pipe(path),
            5..=7 => self.folder(path),
            _ => fs::write(path, self.content()),
        };
    }

    fn folder(&mut self, path: &Path) -> std::io::Result<()> {
        fs::create_dir(path)?;
        for _ in 0..self.below(6) {
            let name = self.one_of(NAMES);
            self.put(&path.join(name));
        }
        if self.below(8) == 0 {
            self.put(&path.join(std::ffi::OsStr::from_bytes(b"\xff\xfe")));
        }
        Ok(())
    }
}

/// The files of the machine that has everything: lines `== PATH`, each with the content behind it. A path that ends with a slash is an
/// empty folder, and content that begins with `-> ` a symbolic link's.
const MACHINE: &str = include_str!("garbage/machine.txt");

/// The logs of real firmware, which are no text.
const LOGS: [&[u8]; 2] =
    [include_bytes!("features/tpm/samples/seabios.log"), include_bytes!("features/tpm/samples/ovmf.log")];

const LOG: &str = "sys/kernel/security/tpm0/binary_bios_measurements";

impl Dice {
    /// Puts that machine below a folder, with more or less of it damaged.
    fn machine(&mut self, root: &Path) {
        let of_ten = 1 + self.below(9);
        let log = LOGS[self.below(LOGS.len())];
        let files = MACHINE.split("== ").skip(1).filter_map(|part| part.split_once('\n'));
        let files = files.map(|(path, content)| (path.trim_start_matches('/'), content.as_bytes()));
        for (path, content) in files.chain([(LOG, log)]) {
            let path = root.join(path);
            if path.as_os_str().as_bytes().ends_with(b"/") {
                let _ = fs::create_dir_all(&path);
                continue;
            }
            if self.below(10) >= of_ten {
                let mut content = content.to_vec();
                if self.below(3) == 0 {
                    self.damage(&mut content);
                }
                // A file may be where a folder is wanted.
                let _ = path.parent().map_or(Ok(()), fs::create_dir_all);
                let _ = match content.strip_prefix(b"-> ") {
                    Some(target) => symlink(std::ffi::OsStr::from_bytes(target.trim_ascii()), &path),
                    None => fs::write(&path, content),
                };
            } else {
                self.put(&path);
            }
        }
    }

    fn damage(&mut self, content: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            let at = self.below(content.len() + 1);
            match self.below(4) {
                0 => content.truncate(at),
                1 => content.splice(at..at, self.one_of(WORDS).bytes()).for_each(drop),
                2 => content.extend_from_within(at..),
                _ if at < content.len() => content[at] = self.roll().to_le_bytes()[5],
                _ => {}
            }
        }
    }
}

/// Runs a check in a child. Where it looked.
fn looked(feature: &Feature, root: &Path, machine: u64) -> BTreeSet<String> {
    let (end, said) = child::run(LIMIT, |out| {
        let system = System::below(root);
        let mut findings = Vec::new();
        (feature.check)(&system, &mut Report::to(&mut findings));
        for line in findings.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let finding: Finding = serde_json::from_slice(line).unwrap();
            writeln!(out, "found {}", finding.id).unwrap();
        }
        for path in system.asked.borrow().iter().filter(|path| !path.contains('\n')) {
            writeln!(out, "asked {path}").unwrap();
        }
    })
    .unwrap();
    let said = String::from_utf8_lossy(&said);
    assert_eq!(end, End::Exited(0), "{} on machine {machine}: {said}", feature.id);
    let found: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("found ")).collect();
    let mut once = found.clone();
    once.sort_unstable();
    let wanted: Vec<&str> = Text::of_feature(feature.id).map(|text| text.id).collect();
    assert_eq!(once, wanted, "{} on machine {machine} did not report each finding once", feature.id);
    said.lines().filter_map(|line| line.strip_prefix("asked ").map(str::to_owned)).collect()
}

#[test]
fn no_check_falls_over_garbage() {
    for feature in features::ALL {
        for machine in 1..=MACHINES {
            let folder = tempfile::tempdir().unwrap();
            let mut dice = Dice(machine.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            if machine % 3 != 0 {
                dice.machine(folder.path());
            }
            let mut known = BTreeSet::new();
            for _ in 0..ROUNDS {
                let asked = looked(feature, folder.path(), machine);
                let new: Vec<&String> = asked.difference(&known).collect();
                if new.is_empty() {
                    break;
                }
                for path in new {
                    // What climbs out of the folder is none of this test's.
                    if !path.split('/').any(|part| part == "..") {
                        dice.put(&folder.path().join(path.trim_start_matches('/')));
                    }
                }
                known.extend(asked);
            }
            looked(feature, folder.path(), machine);
        }
    }
}
