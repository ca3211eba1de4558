/*!
Files that have shown kernel addresses in the past, read by an unprivileged child.

Addresses are never reported, only the files that show them.
*/
use std::io::Write;

use crate::{Finding, How, System, Verdict, child, child::End, few, instructions::Instructions, nobody};

const ID: &str = "aslr.leaks";

/// The number of bytes read of each file. A file shows an address in every line or in none.
const SIZE: u64 = 64 << 10;

/// The number of modules whose sections are read.
const MODULES: usize = 8;

const FILES: &[&str] = &[
    "/proc/kallsyms",
    "/proc/modules",
    "/proc/net/unix",
    "/proc/net/tcp",
    "/proc/net/udp",
    "/proc/net/raw",
    "/proc/net/netlink",
    "/proc/net/packet",
    "/proc/net/ptype",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/vmallocinfo",
    "/proc/slabinfo",
    "/proc/iomem",
    "/proc/self/stack",
    "/proc/self/wchan",
    "/proc/self/stat",
    "/proc/1/stack",
    "/proc/1/wchan",
    "/proc/1/stat",
    "/proc/keys",
    "/proc/interrupts",
    "/sys/kernel/debug/sched/debug",
];

const LOG: &str = "the kernel log";

pub(super) fn finding(system: &System) -> Finding {
    if !system.is_live() {
        return Finding::unknown(ID, How::Tried, "not tried: this is not the running machine");
    }
    let ended = child::run(child::TRIAL, |out| {
        if let Err(error) = nobody::become_nobody() {
            let _ = writeln!(out, "!{error}");
            return;
        }
        read_all(system, out);
    });
    let text = match ended {
        Ok((End::Exited(0), text)) => String::from_utf8_lossy(&text).into_owned(),
        Ok((end, _)) => {
            return Finding::unknown(ID, How::Tried, format!("the unprivileged child {end}"));
        }
        Err(error) => return Finding::unknown(ID, How::Tried, format!("no child could be started: {error}")),
    };
    judge(&text)
}

/// Returns the lowest kernel address: lower with five levels of page tables on x86 and with 52-bit addresses on arm64.
fn lowest(system: &System) -> u64 {
    if cfg!(target_arch = "aarch64") {
        0xfff0_0000_0000_0000
    } else if Instructions::of(system).is_ok_and(|flags| flags.have("la57")) {
        0xff00_0000_0000_0000
    } else {
        FOUR_LEVELS
    }
}

/// The start of the upper half of 48-bit addresses.
const FOUR_LEVELS: u64 = 0xffff_8000_0000_0000;

/// Judges the lines of the child, one for each file: `-` not readable, `=` without addresses, `+` with addresses; `!` an error.
fn judge(text: &str) -> Finding {
    const SOURCE: &str = "unprivileged child";
    let of = |mark: char| -> Vec<&str> { text.lines().filter_map(|line| line.strip_prefix(mark)).collect() };
    let (leaks, read, refused, errors) = (of('+'), of('='), of('-'), of('!'));
    if let Some(error) = errors.first() {
        return Finding::unknown(ID, How::Tried, format!("no unprivileged child could be started: {error}"));
    }
    if !leaks.is_empty() {
        let found = format!("every user can read kernel addresses in {}", few(&leaks));
        return Finding::new(ID, Verdict::Fail, How::Tried, found)
            .seen(SOURCE, format!("addresses in {}", few(&leaks)));
    }
    if read.is_empty() {
        return Finding::unknown(
            ID,
            How::Tried,
            "none of the files that may show kernel addresses could be read",
        );
    }
    Finding::new(
        ID,
        Verdict::Pass,
        How::Tried,
        "no file that showed kernel addresses in the past shows them to unprivileged users",
    )
    .seen(SOURCE, format!("no address in {}; not readable: {}", few(&read), few(&refused)))
}

fn read_all(system: &System, out: &mut dyn Write) {
    let lowest = lowest(system);
    let modules = system.names("/sys/module").unwrap_or_default();
    let sections = modules
        .iter()
        .map(|name| format!("/sys/module/{name}/sections/.text"))
        .filter(|path| system.exists(path))
        .take(MODULES);
    for path in FILES.iter().map(|path| (*path).to_owned()).chain(sections) {
        let mark = match system.beginning(&path, SIZE) {
            Ok(bytes) if has_address(&bytes, lowest) => '+',
            Ok(_) => '=',
            Err(unread) if unread.is_missing() => continue,
            Err(_) => '-',
        };
        let _ = writeln!(out, "{mark}{path}");
    }
    let mark = match log() {
        Some(text) if has_address(&text, lowest) => '+',
        Some(_) => '=',
        None => '-',
    };
    let _ = writeln!(out, "{mark}{LOG}");
}

/// Returns the end of the kernel log, if it may be read.
fn log() -> Option<Vec<u8>> {
    const READ_ALL: libc::c_int = 3;
    let mut text = vec![0_u8; 256 << 10];
    let size = libc::c_int::try_from(text.len()).ok()?;
    // SAFETY: the kernel writes at most `size` bytes into the buffer, which is as large.
    let length = unsafe { libc::klogctl(READ_ALL, text.as_mut_ptr().cast(), size) };
    text.truncate(usize::try_from(length).ok()?);
    Some(text)
}

/// Reports whether the text has a number of 16 hexadecimal digits that can be a kernel address: in the upper half, and not one of the few that
/// are the same on every machine.
fn has_address(text: &[u8], lowest: u64) -> bool {
    let is_address = |number| is_address(number, lowest);
    text.split(|byte| !byte.is_ascii_hexdigit()).any(|word| {
        let number = || u64::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok();
        word.len() == 16 && number().is_some_and(is_address)
    }) || text.split(u8::is_ascii_whitespace).any(|word| {
        // /proc/PID/stat shows addresses in decimal.
        let number = || std::str::from_utf8(word).ok()?.parse().ok();
        word.len() == 20 && number().is_some_and(is_address)
    })
}

fn is_address(number: u64, lowest: u64) -> bool {
    const VSYSCALL: u64 = 0xffff_ffff_ff60_0000;
    // Higher numbers are error codes or masks.
    (lowest..0xffff_ffff_ffff_0000).contains(&number) && number & !0xfff != VSYSCALL
        // Round numbers are ends of regions, the same on every machine, such as 0xffff800000000000 and 0xffffffff80000000.
        && number.trailing_zeros() < 30
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_other_numbers() {
        for text in [
            "ffffffff9a000000 T _text",
            "x (0xffffffffc0123000)",
            "1 (a) S 18446744072015052800 0",
            "[<ffff888012345680>]",
        ] {
            assert!(has_address(text.as_bytes(), FOUR_LEVELS), "{text}");
        }
        for text in [
            "0000000000000000 T _text",
            "00000000abcdef01: 00000002",
            "ffffffffffffffff",
            "ffffffffff600000",
            "ffff800000000000",
            "00007fff12345678",
            "1 (a) S 18446744073709551615 0",
            "",
        ] {
            assert!(!has_address(text.as_bytes(), FOUR_LEVELS), "{text}");
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn with_five_levels_there_are_more() {
        const HEAP: &[u8] = b"ff11000123456780";
        let of = |flags| lowest(&System::fake(&[("/proc/cpuinfo", flags)]));
        assert!(has_address(HEAP, of("flags : fpu la57\n")) && !has_address(HEAP, of("flags : fpu\n")));
    }

    #[test]
    fn where_they_stand_is_told_and_not_what_they_are() {
        let leaky = System::fake(&[
            ("/proc/kallsyms", "ffffffff9a123000 T _text\n"),
            ("/proc/modules", "a 1 0 - Live 0x0000000000000000\n"),
            ("/sys/module/a/sections/.text", "0xffffffffc0123000\n"),
        ]);
        let mut out = Vec::new();
        read_all(&leaky, &mut out);
        let finding = judge(&String::from_utf8(out).unwrap());
        assert_eq!(finding.verdict, Verdict::Fail);
        assert!(finding.evidence[0].observed.contains("/sys/module/a/sections/.text"));
        assert!(!format!("{finding:?}").contains("c0123000"));
        assert_eq!(judge("=/proc/net/unix\n-/proc/kallsyms\n").verdict, Verdict::Pass);
        assert_eq!(judge("-/proc/kallsyms\n").verdict, Verdict::Unknown);
        assert_eq!(judge("!no").verdict, Verdict::Unknown);
    }
}
