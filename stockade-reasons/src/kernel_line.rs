/*!
The kernel's log line about a refusal, taken apart.

```text
<5>[   12.345678] Lockdown: systemd-logind: hibernation is restricted; see man kernel_lockdown.7
└──── prefix ────┘          └─── comm ───┘  └ reason ─┘              └──────── where ─────────┘
```

The comm is whatever a process calls itself, up to 15 bytes, and may contain `": "`, `Lockdown: ` or
another reason's words. So the line is never searched: the prefix is taken off the left by its known
shapes, the ending off the right, and what remains is cut from the right, where the kernel speaks.

A line is only believed if its prefix is one the kernel or its journal writes: a program that logs
the same words under its own name is not the kernel. This keeps honest logs apart and proves nothing:
a line without a prefix, or one from `logger -t kernel`, looks like the kernel's in a text file.
*/

use crate::{Reason, all};

/// A refusal as the kernel logged it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KernelLine<'a> {
    /// The name the refused task gave itself; empty where the kernel named none. Not to be trusted.
    pub comm: &'a str,
    /// The kernel's words for the reason, for [`by_kernel_string`](crate::by_kernel_string). Not
    /// necessarily a known reason: kernels newer or older than this table have others.
    pub reason: &'a str,
}

/// Takes a refusal out of a line of `dmesg`, `journalctl -k`, syslog or `/dev/kmsg`.
///
/// `None` when the line is no lockdown refusal, or is not the kernel's.
///
/// ```
/// let line = "[   12.345678] Lockdown: cat: /dev/mem,kmem,port is restricted; see man kernel_lockdown.7";
/// let refusal = stockade_reasons::parse_kernel_line(line).expect("a refusal");
/// let reason = stockade_reasons::by_kernel_string(refusal.reason).expect("a known reason");
/// assert_eq!(reason.id, "dev-mem");
/// ```
#[must_use]
pub fn parse_kernel_line(line: &str) -> Option<KernelLine<'_>> {
    let message = strip_prefix(line.trim())?.strip_prefix("Lockdown: ")?;
    // "see man kernel_lockdown.7", and in distribution kernels a web address.
    let (said, _see) = message.rsplit_once(" is restricted; see ")?;
    let (comm, reason) = cut(said);
    (!reason.is_empty()).then_some(KernelLine { comm, reason })
}

/// Cuts `comm: reason`, or `reason` alone, at the place the kernel put the colon.
fn cut(said: &str) -> (&str, &str) {
    for words in all().iter().flat_map(Reason::spellings) {
        let Some(at) = said.len().checked_sub(words.len()) else {
            continue;
        };
        if !said.get(at..).is_some_and(|end| end.eq_ignore_ascii_case(words)) {
            continue;
        }
        if at == 0 {
            return ("", said);
        }
        if let Some(comm) = said[..at].strip_suffix(": ") {
            return (comm, &said[at..]);
        }
    }
    // A reason this table does not know. No reason contains ": ", a comm may.
    said.rsplit_once(": ").unwrap_or(("", said))
}

/// Takes off what printk, dmesg or a log daemon put before the message; `None` when it shows that the
/// line was not written by the kernel.
fn strip_prefix(line: &str) -> Option<&str> {
    let mut rest = line;

    // /dev/kmsg: "5,339,5140900,-;message". The first number is facility * 8 + level.
    if let Some((record, message)) = rest.split_once(';')
        && let Some((priority, fields)) = record.split_once(',')
        && fields.split(',').count() >= 3
        && fields.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b',' | b'-' | b'='))
        && is_number(priority)
    {
        return is_kernel_priority(priority).then_some(message);
    }

    // Raw printk: "<5>".
    if let Some((priority, message)) = rest.strip_prefix('<').and_then(|rest| rest.split_once('>')) {
        if !is_kernel_priority(priority) {
            return None;
        }
        rest = message;
    }
    rest = strip_brackets(rest);
    if rest.starts_with("Lockdown: ") {
        return Some(rest);
    }

    // The journal and syslog: "Nov 23 21:04:05 host kernel: ". The word before the first ": " is the
    // sender; times have colons too, but none with a space behind it.
    // dmesg -x: "kern  :notice: ".
    let (header, message) = rest.split_once(": ")?;
    let from_kernel = header.split_whitespace().next_back() == Some("kernel")
        || header.strip_prefix("kern").is_some_and(|rest| rest.trim_start().starts_with(':'));
    from_kernel.then(|| strip_brackets(message))
}

/// Strips times and callers: `[   12.345678] `, `[Mon Nov 23 21:04:05 2026] `, `[   12.3][  T812] `.
fn strip_brackets(mut text: &str) -> &str {
    text = text.trim_start();
    while let Some((_, rest)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        text = rest.trim_start();
    }
    text
}

/// Facility 0 is the kernel's own; user space writing to /dev/kmsg cannot take it.
fn is_kernel_priority(priority: &str) -> bool {
    priority.parse::<u32>().is_ok_and(|priority| priority < 8)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::by_kernel_string;

    const SEE: &str = "is restricted; see man kernel_lockdown.7";

    fn parsed(line: &str) -> Option<(&str, &str)> {
        parse_kernel_line(line).map(|line| (line.comm, line.reason))
    }

    #[test]
    fn every_reason_is_read_back() {
        for reason in all() {
            let line = format!("Lockdown: some-tool: {} {SEE}", reason.kernel_string);
            let parsed = parse_kernel_line(&line).expect("the kernel's own format");
            assert_eq!(parsed.comm, "some-tool");
            assert_eq!(by_kernel_string(parsed.reason), Some(reason));

            let line = format!("Lockdown: {} {SEE}", reason.kernel_string);
            let parsed = parse_kernel_line(&line).expect("the format without a comm");
            assert_eq!((parsed.comm, parsed.reason), ("", reason.kernel_string));
        }
    }

    #[test]
    fn every_log_has_its_own_prefix() {
        for prefix in [
            "",
            "[   12.345678] ",
            "<4>[   12.345678] ",
            "<5>",
            "[   12.345678][  T812] ",
            "[Mon Nov 23 21:04:05 2026] ",
            "Nov 23 21:04:05 host kernel: ",
            "Nov 23 21:04:05 host kernel: [   12.345678] ",
            "2026-11-23T21:04:05+0000 host kernel: ",
            "kern  :notice: [   12.345678] ",
            "5,339,5140900,-;",
            "5,339,5140900,-,caller=T812;",
        ] {
            let line = format!("{prefix}Lockdown: kexec: kexec of unsigned images {SEE}\n");
            assert_eq!(parsed(&line), Some(("kexec", "kexec of unsigned images")), "{prefix}");
        }
    }

    #[test]
    fn historic_spellings_are_read() {
        assert_eq!(
            parsed("Lockdown: swapper/0: Hibernation is restricted; see https://wiki.debian.org/SecureBoot"),
            Some(("swapper/0", "Hibernation"))
        );
        // With and without a comm: the patches had either.
        for (words, id) in [
            ("Loading of unsigned modules", "module-signature"),
            ("Loading of unsigned module", "module-signature"),
            ("Loading of module with unavailable key", "module-signature"),
            ("/dev/mem,kmem,port", "dev-mem"),
            ("kexec of unsigned images", "kexec"),
            ("Hibernation", "hibernation"),
            ("/dev/snapshot", "hibernation"),
            ("Direct PCI access", "pci-access"),
            ("ioperm", "ioport"),
            ("iopl", "ioport"),
            ("Direct MSR access", "msr"),
            ("ACPI table override", "acpi-tables"),
            ("Modifying ACPI tables", "acpi-tables"),
            ("Direct PCMCIA CIS storage", "pcmcia-cis"),
            ("Using TIOCSSERIAL to change device addresses, irqs and dma channels", "tiocsserial"),
            ("Command line-specified device addresses, irqs and dma channels", "module-parameters"),
            ("Command line-specified device addresses", "module-parameters"),
            ("MMIO trace testing", "mmiotrace"),
            ("debugfs", "debugfs"),
            ("Asus WMI", "debugfs"),
            ("/proc/kcore", "kcore"),
            ("Use of kprobes", "kprobes"),
            ("BPF", "bpf-read-kernel"),
            ("perf", "perf"),
        ] {
            for comm in ["", "insmod", "a: b"] {
                let colon = if comm.is_empty() { "" } else { ": " };
                let line = format!("Lockdown: {comm}{colon}{words} {SEE}");
                let read = parse_kernel_line(&line).expect("the kernel's format of its time");
                assert_eq!(read.comm, comm, "{line}");
                assert_eq!(by_kernel_string(read.reason).map(|reason| reason.id), Some(id), "{line}");
            }
        }
    }

    #[test]
    fn a_hostile_comm_changes_nothing_but_itself() {
        for comm in [
            "a: b",
            ": ",
            "",
            "Lockdown: x",
            "x: hibernation",
            "kernel: ",
            "[1] x",
            " is restricted;",
            "use of kprobes",
            "ünïcödé: 名",
            "x:",
        ] {
            for words in ["raw MSR access", "xmon write access", "something new"] {
                let line = format!("[    1.0] Lockdown: {comm}: {words} {SEE}");
                assert_eq!(parsed(&line), Some((comm, words)), "{comm:?}");
            }
        }
    }

    #[test]
    fn other_senders_and_other_lines_are_not_believed() {
        for line in [
            "",
            "Lockdown: ",
            "Lockdown: x: hibernation",
            &format!("Lockdown:  {SEE}"),
            "Kernel is locked down from EFI Secure Boot mode; see man kernel_lockdown.7",
            &format!("Nov 23 21:04:05 host evil[12]: Lockdown: x: hibernation {SEE}"),
            &format!("Nov 23 21:04:05 host evil: kernel: Lockdown: x: hibernation {SEE}"),
            &format!("<12>Lockdown: x: hibernation {SEE}"),
            &format!("12,339,5140900,-;Lockdown: x: hibernation {SEE}"),
            &format!("user  :notice: [ 1.0] Lockdown: x: hibernation {SEE}"),
            &format!("systemd[1]: Lockdown: x: hibernation {SEE}"),
        ] {
            assert_eq!(parsed(line), None, "{line}");
        }
    }
}
