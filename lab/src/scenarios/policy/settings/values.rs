//! The values that a held setting accepts, in every spelling.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::FileExt,
};

use anyhow::{Result, ensure};

use super::{Setting, hold, lift_all, put, refused};
use crate::guest::Guest;

/// Name, initial value, weaker or unknown values, then stricter values in the order in which they are written, each with the values that are refused
/// afterwards. Only settings that can be set back after `lift`.
type Way =
    (&'static str, &'static str, &'static [&'static str], &'static [(&'static str, &'static [&'static str])]);

const WAYS: &[Way] = &[
    ("kernel/kptr_restrict", "1", &["0", "-1", "3"], &[("2", &["1", "0"])]),
    ("kernel/dmesg_restrict", "0", &["-1", "2"], &[("1", &["0"])]),
    ("kernel/perf_event_paranoid", "1", &["0", "-1"], &[("2", &["1", "-1"]), ("3", &["2", "-1"])]),
    ("kernel/randomize_va_space", "1", &["0", "-1", "3"], &[("2", &["1", "-1", "3"])]),
    ("kernel/unprivileged_userns_clone", "1", &["2", "-1"], &[("0", &["1", "-1"])]),
    ("kernel/io_uring_disabled", "0", &["3"], &[("1", &["0"]), ("2", &["1", "0"])]),
    (
        "kernel/sysrq",
        "438",
        &["1", "439", "-1", "8", "512"],
        &[("0x1b0", &["438", "1"]), ("0", &["16", "1"])],
    ),
    ("kernel/oops_limit", "10000", &["0", "10001"], &[("100", &["101", "0"]), ("1", &["0"])]),
    ("kernel/warn_limit", "0", &[], &[("100", &["101", "0"])]),
    ("kernel/panic_on_oops", "0", &["-1", "2"], &[("1", &["0", "-1", "2"])]),
    ("vm/mmap_min_addr", "4096", &["0", "4095"], &[("65536", &["4096", "0", "0xffff"])]),
    ("vm/unprivileged_userfaultfd", "1", &["2"], &[("0", &["1"])]),
    ("fs/suid_dumpable", "1", &["3"], &[("2", &["1"]), ("0", &["2", "1"])]),
    ("fs/protected_symlinks", "0", &["2"], &[("1", &["0"])]),
    ("fs/protected_fifos", "1", &["0", "3"], &[("2", &["1", "0"])]),
    ("net/core/bpf_jit_harden", "0", &["3"], &[("1", &["0"]), ("2", &["1"])]),
    ("dev/tty/ldisc_autoload", "1", &["2"], &[("0", &["1"])]),
    ("user/max_user_namespaces", "1000", &["1001", "-1"], &[("10", &["11"]), ("0", &["1"])]),
];

pub(super) fn ratchets(_: &Guest) -> Result<()> {
    lift_all()?;
    let (mut there, mut absent) = (Vec::new(), Vec::new());
    for way in WAYS {
        match Setting::there(way.0)? {
            Some(setting) => {
                setting.writes(way.1.as_bytes(), true)?;
                there.push((setting, way));
            }
            None => absent.push(way.0),
        }
    }
    // A cloud kernel lacks up to five of these settings.
    ensure!(absent.len() <= 5, "this kernel lacks {absent:?}");
    let names: Vec<_> = there.iter().map(|(_, way)| way.0).collect();
    hold(&format!("ratchet = {names:?}"))?;
    for (setting, (_, begin, weaker, ways)) in &there {
        setting.writes(begin.as_bytes(), true)?;
        for value in *weaker {
            setting.writes(value.as_bytes(), false)?;
        }
        for (stricter, back) in *ways {
            setting.writes(stricter.as_bytes(), true)?;
            setting.writes(format!("{stricter}\n").as_bytes(), true)?;
            for value in *back {
                setting.writes(value.as_bytes(), false)?;
            }
        }
    }
    Ok(())
}

pub(super) fn spellings(_: &Guest) -> Result<()> {
    lift_all()?;
    let strict = Setting::new("kernel/sysctl_writes_strict")?;
    let kptr = Setting::set("kernel/kptr_restrict", "2")?;
    hold("ratchet = [\"kernel/kptr_restrict\"]")?;
    let long_zeros = "0".repeat(200);
    let zeros_and_two = format!("{}2", "0".repeat(63));
    let far = format!("2{}0", " ".repeat(200));
    for strictness in ["1", "0", "-1"] {
        strict.writes(strictness.as_bytes(), true)?;
        for odd in [
            "0",
            "00",
            "0x0",
            "0X0",
            " 0",
            "\t0",
            "\n0",
            "\x0b0",
            "\u{c}0",
            "\r0",
            "-0",
            "-2",
            "- 2",
            "+2",
            "0\n0",
            "0 2",
            "2 0",
            "2\n0",
            "2\t2",
            "2\n\n",
            "2x",
            "2,0",
            "0\0",
            "2\0",
            "2\x000",
            "",
            "\n",
            " ",
            "x",
            "0b10",
            "0o2",
            "1e1",
            "0x",
            "2 ",
            "18446744073709551618",
            "4294967298",
            "-4294967294",
            "9223372036854775810",
        ] {
            kptr.writes(odd.as_bytes(), false)?;
        }
        for odd in [&long_zeros, &zeros_and_two, &far] {
            kptr.writes(odd.as_bytes(), false)?;
        }
        kptr.writes(b"\xa00", false)?;
        let file = OpenOptions::new().write(true).open(&kptr.path)?;
        // The kernel passes only the lower 32 bits of a position to sysctl programs.
        for position in [1, 2, 1 << 31, 1 << 32] {
            ensure!(refused(&file.write_at(b"0", position)), "a write at {position} got through");
        }
        ensure!(refused(&file.write_at(b"2", 1)), "the same value at another position got through");
        // A value in two writes: the second write is at another position.
        let mut pieces = OpenOptions::new().write(true).open(&kptr.path)?;
        pieces.write_all(b"2")?;
        ensure!(refused(&pieces.write(b"0")), "a second piece got through");
        let many = [b"0".as_slice(), b"0"].map(io::IoSlice::new);
        ensure!(refused(&(&file).write_vectored(&many)), "a write in pieces got through");
        for same in ["2", "2\n", "02", "0x2", "0X2\n", "  2", "\t2\n"] {
            kptr.writes(same.as_bytes(), true)?;
        }
        ensure!(kptr.value()? == "2", "{}", kptr.value()?);
    }
    Ok(())
}

/// A xorshift generator, which gives the same numbers on each run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits") % limit
    }

    fn bytes(&mut self) -> Vec<u8> {
        const OFTEN: &[u8] = b" \t\n\x0b\x0d\xa0-+0011223xXaf\0";
        let length = if self.below(20) == 0 { 1 + self.below(5000) } else { 1 + self.below(8) };
        (0..length).map(|_| OFTEN[self.below(OFTEN.len())]).collect()
    }
}

pub(super) fn any_bytes(_: &Guest) -> Result<()> {
    const WRITES: usize = 4000;
    lift_all()?;
    let kptr = Setting::set("kernel/kptr_restrict", "1")?;
    // The bytes are a useful test: many of these writes change the value while it is not held.
    let (mut chance, mut changed) = (Chance(7), 0);
    for _ in 0..WRITES {
        let _ = put(&kptr.path, &chance.bytes());
        if kptr.value()? != "1" {
            changed += 1;
            kptr.writes(b"1", true)?;
        }
    }
    ensure!(
        changed > WRITES / 50,
        "{changed} of {WRITES} writes changed the value: too few to tell anything"
    );
    hold("freeze = [\"kernel.kptr_restrict\"]")?;
    let (mut chance, mut passed) = (Chance(7), 0);
    for _ in 0..WRITES {
        let bytes = chance.bytes();
        passed += usize::from(put(&kptr.path, &bytes).is_ok());
        ensure!(kptr.value()? == "1", "{:?} … changed it", &bytes[..bytes.len().min(70)]);
    }
    ensure!(passed > 0, "not even the same value got through");
    Ok(())
}

pub(super) fn texts(_: &Guest) -> Result<()> {
    lift_all()?;
    let core = Setting::set("kernel/core_pattern", "|/bin/false %P  %u")?;
    let modprobe = Setting::new("kernel/modprobe")?;
    let list = Setting::new("kernel/printk")?;
    hold("freeze = [\"kernel.core_pattern\", \"kernel/modprobe\", \"kernel.printk\"]")?;
    for (same, wanted) in [
        ("|/bin/false %P  %u", true),
        ("|/bin/false %P  %u\n", true),
        ("|/bin/false %P %u", false),
        ("|/bin/false %P \t%u", false),
        ("|/bin/false %P  %u\n\n", false),
        ("|/bin/false", false),
        ("|/bin/false %P  %u x", false),
        (" |/bin/false %P  %u", false),
        ("core", false),
        ("\n", false),
        ("\0", false),
    ] {
        core.writes(same.as_bytes(), wanted)?;
    }
    ensure!(core.value()? == "|/bin/false %P  %u");
    core.writes(&b"x".repeat(300), false)?;
    let file = OpenOptions::new().write(true).open(&core.path)?;
    ensure!(refused(&file.write_at(b"x", 1)), "the end of a string was changed");
    modprobe.writes(b"/tmp/mine", false)?;
    modprobe.writes(modprobe.value()?.as_bytes(), true)?;
    // The kernel shows tabs, and administrators write spaces.
    let now = list.value()?;
    list.writes(now.as_bytes(), true)?;
    list.writes(now.replace('\t', " ").as_bytes(), true)?;
    list.writes(b"0", false)?;
    list.writes(now.replacen(|c: char| c.is_ascii_digit(), "0", 1).as_bytes(), false)?;
    ensure!(list.value()? == now);
    Ok(())
}
