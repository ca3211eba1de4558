/*!
ASLR and KASLR: bits of entropy of each part of a program's address space, measured on programs that are started for it; whether the kernel runs
at its link address; and which files show kernel addresses.
*/
use crate::{Feature, Finding, How, Report, System, Unread, Verdict};

mod entropy;
mod expected;
mod image;
mod leaks;
mod sample;

use entropy::Entropy;
use expected::{PARTS, Part};
use image::Width;
use sample::{Layout, Trouble};

pub(super) const FEATURE: Feature =
    Feature { id: "aslr", title: "ASLR and KASLR", measure: Some(measure), ..Feature::new(check) };

/// The number of programs started to measure entropy.
const MANY: usize = 300;
/// The number of programs started to see whether addresses change at all.
const SOME: usize = 12;

const COMPAT: &str = "aslr.compat";

fn check(system: &System, report: &mut Report) {
    report.add(enabled(system));
    report.add(mmap_bits(system));
    report.add(kernel(system));
    report.add(pointers(system));
    report.add(leaks::finding(system));
    if !system.measures() {
        sample_programs(system, SOME, report);
    }
}

fn measure(system: &System, report: &mut Report) {
    sample_programs(system, MANY, report);
}

fn enabled(system: &System) -> Finding {
    const ID: &str = "aslr.enabled";
    const SETTING: &str = "kernel.randomize_va_space";
    let found = match system.setting(SETTING).as_deref() {
        Ok("2") => (
            Verdict::Pass,
            "ASLR on: stack, heap, mmap and vDSO are randomized (kernel.randomize_va_space = 2)",
        ),
        Ok("1") => {
            (Verdict::Warn, "ASLR on, but not for the heap: kernel.randomize_va_space = 1 (should be 2)")
        }
        Ok("0") => (Verdict::Fail, "ASLR off: kernel.randomize_va_space = 0 (should be 2)"),
        Ok(other) => return Finding::unknown(ID, How::Read, Unread::not_understood(SETTING, other)),
        Err(unread) => return Finding::unknown(ID, How::Read, unread),
    };
    let value = system.setting(SETTING).unwrap_or_default();
    let finding = Finding::new(ID, found.0, How::Read, found.1).seen(SETTING, value);
    match system.parameter("norandmaps") {
        Ok(Some(_)) => finding.seen("/proc/cmdline", "norandmaps"),
        _ => finding,
    }
}

fn mmap_bits(system: &System) -> Finding {
    const ID: &str = "aslr.mmap-bits";
    const SETTING: &str = "vm.mmap_rnd_bits";
    let bits = match system.number(&crate::system::setting_path(SETTING)) {
        Ok(bits) => bits,
        Err(unread) if unread.is_missing() && system.exists("/proc/sys/vm") => {
            return Finding::not_applicable(
                ID,
                How::Read,
                "this kernel has no vm.mmap_rnd_bits: the number of random bits is fixed",
            )
            .seen(SETTING, "not there");
        }
        Err(unread) => return Finding::unknown(ID, How::Read, unread),
    };
    let config = match system.config() {
        Ok(config) => config,
        Err(unread) => return Finding::unknown(ID, How::Read, unread).seen(SETTING, bits.to_string()),
    };
    let Some(most) = config.get("CONFIG_ARCH_MMAP_RND_BITS_MAX").and_then(|most| most.parse::<i64>().ok())
    else {
        let missing =
            format!("{} has no CONFIG_ARCH_MMAP_RND_BITS_MAX, the maximum of {SETTING}", config.path);
        return Finding::unknown(ID, How::Read, missing).seen(SETTING, bits.to_string());
    };
    let (verdict, found) = if bits >= most {
        (Verdict::Pass, format!("{SETTING} = {bits}, the maximum of this kernel"))
    } else {
        (Verdict::Warn, format!("{SETTING} = {bits} (should be {most}, the maximum of this kernel)"))
    };
    Finding::new(ID, verdict, How::Read, found)
        .seen(SETTING, bits.to_string())
        .seen(&config.path, format!("CONFIG_ARCH_MMAP_RND_BITS_MAX={most}"))
}

/// The boot parameters that x86 kernels keep (Documentation/arch/x86/boot.rst). `KASLR_FLAG` in `loadflags` says that the decompressor did KASLR.
const BOOT_PARAMS: &str = "/sys/kernel/boot_params/data";

/// Reports whether the decompressor did KASLR; none where there are no boot parameters.
fn has_kaslr_flag(system: &System) -> Option<bool> {
    const LOADFLAGS: usize = 0x211;
    const KASLR_FLAG: u8 = 1 << 1;
    let bytes = system.bytes(BOOT_PARAMS).ok()?;
    bytes.get(LOADFLAGS).map(|flags| flags & KASLR_FLAG != 0)
}

/// The start of the x86-64 mapping of kernel code. The link address is CONFIG_PHYSICAL_START above it.
const CODE: u64 = 0xffff_ffff_8000_0000;

fn kernel(system: &System) -> Finding {
    const ID: &str = "aslr.kernel";
    const LINE: &str = "/proc/cmdline";
    const SYMBOLS: &str = "/proc/kallsyms";
    match system.parameter("nokaslr") {
        Ok(Some(_)) => {
            return Finding::new(
                ID,
                Verdict::Fail,
                How::Read,
                "KASLR off: nokaslr on the kernel command line",
            )
            .seen(LINE, "nokaslr");
        }
        Ok(None) => {}
        Err(unread) => return Finding::unknown(ID, How::Read, unread),
    }
    let config = match system.config() {
        Ok(config) => config,
        Err(unread) => return Finding::unknown(ID, How::Read, unread),
    };
    if !config.has("CONFIG_RANDOMIZE_BASE") {
        return Finding::new(
            ID,
            Verdict::Fail,
            How::Read,
            "KASLR off: the kernel was built without CONFIG_RANDOMIZE_BASE",
        )
        .seen(&config.path, "CONFIG_RANDOMIZE_BASE is not set");
    }
    let memory = config.has("CONFIG_RANDOMIZE_MEMORY");
    let seen = |finding: Finding| {
        finding.seen(
            &config.path,
            format!(
                "CONFIG_RANDOMIZE_BASE=y, CONFIG_RANDOMIZE_MEMORY{}",
                if memory { "=y" } else { " is not set" }
            ),
        )
    };
    let start = config
        .get("CONFIG_PHYSICAL_START")
        .and_then(|text| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok());
    let unknown = |missing: String| seen(Finding::unknown(ID, How::Read, missing));
    // The first 256 KiB are enough: symbols are sorted by address, and only a few hundred per-CPU symbols, which count from 0, precede _text.
    let symbols = match system.beginning(SYMBOLS, 256 << 10) {
        Ok(symbols) => String::from_utf8_lossy(&symbols).into_owned(),
        Err(unread) => {
            return unknown(format!(
                "KASLR is built in and not disabled; whether it took effect is unknown: {unread}"
            ));
        }
    };
    let text = symbols.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (at, _, name) = (words.next()?, words.next()?, words.next()?);
        (name == "_text").then(|| u64::from_str_radix(at, 16).ok())?
    });
    match (text, start) {
        (Some(0), _) => unknown(format!(
            "KASLR is built in and not disabled; whether it took effect is unknown: {SYMBOLS} hides addresses{}",
            system.lacks_root().map_or_else(String::new, |lacks| format!("; {lacks}"))
        )),
        (Some(at), Some(start)) if at >> 31 == CODE >> 31 => {
            let unmoved = at == CODE.wrapping_add(start);
            // The random offset is 0 in one of about 500 boots.
            let (verdict, found) = match has_kaslr_flag(system) {
                _ if !unmoved => {
                    (Verdict::Pass, "KASLR on: the kernel does not run at its link address".to_owned())
                }
                Some(true) => (
                    Verdict::Pass,
                    "KASLR on: the random offset of this boot happens to be 0 (about one boot in 500)"
                        .to_owned(),
                ),
                Some(false) => {
                    (Verdict::Fail, format!("KASLR off: the kernel runs at its link address {at:#x}"))
                }
                None => {
                    return unknown(format!(
                        "the kernel runs at its link address {at:#x}; {BOOT_PARAMS}, which says whether KASLR was done, cannot be read"
                    ));
                }
            };
            let shown = if unmoved { "the link address" } else { "not the link address" };
            seen(Finding::new(ID, verdict, How::Read, found)).seen(format!("_text in {SYMBOLS}"), shown)
        }
        _ => unknown(
            "KASLR is built in and not disabled; whether it took effect cannot be seen on this architecture"
                .into(),
        ),
    }
}

fn pointers(system: &System) -> Finding {
    const ID: &str = "aslr.pointers";
    const SETTING: &str = "kernel.kptr_restrict";
    const PERF: &str = "kernel.perf_event_paranoid";
    let value = match system.setting(SETTING) {
        Ok(value) => value,
        Err(unread) => return Finding::unknown(ID, How::Read, unread),
    };
    let seen = |verdict, found| Finding::new(ID, verdict, How::Read, found).seen(SETTING, &value);
    match value.as_str() {
        "2" => seen(
            Verdict::Pass,
            "kernel addresses are hidden from all users, root included (kernel.kptr_restrict = 2)",
        ),
        "1" => {
            seen(Verdict::Pass, "kernel addresses are shown only with CAP_SYSLOG (kernel.kptr_restrict = 1)")
        }
        // kallsyms_show_value(): a user who may profile the kernel sees addresses too.
        "0" => match system.setting(PERF).map(|text| text.parse::<i64>()) {
            Ok(Ok(perf)) if perf <= 1 => {
                let found = format!(
                    "kernel addresses are shown to every user: {SETTING} = 0 (should be 1 or 2), {PERF} = {perf} (should be 2 or more)"
                );
                Finding::new(ID, Verdict::Fail, How::Read, found)
                    .seen(SETTING, &value)
                    .seen(PERF, perf.to_string())
            }
            Ok(Ok(perf)) => {
                let found = "kernel.kptr_restrict = 0 (should be 1 or 2): kernel addresses are shown with CAP_SYSLOG, hashed for other users";
                seen(Verdict::Warn, found).seen(PERF, perf.to_string())
            }
            Ok(Err(_)) => {
                Finding::unknown(ID, How::Read, format!("{PERF} is not a number")).seen(SETTING, &value)
            }
            Err(unread) => Finding::unknown(ID, How::Read, unread).seen(SETTING, &value),
        },
        other => Finding::unknown(ID, How::Read, Unread::not_understood(SETTING, other)),
    }
}

/// Starts programs and reports how random the addresses of their parts are.
fn sample_programs(system: &System, count: usize, report: &mut Report) {
    if !system.is_live() {
        for id in PARTS.iter().map(|part| part.id).chain([COMPAT]) {
            report.add(Finding::unknown(id, How::Tried, "not tried: this is not the running machine"));
        }
        return;
    }
    match sample::sample(system, Width::Native, count) {
        Ok(layouts) => {
            for part in &PARTS {
                report.add(part_of(system, part, &layouts));
            }
        }
        Err(trouble) => {
            for part in &PARTS {
                report.add(Finding::unknown(part.id, How::Tried, explain(&trouble)));
            }
        }
    }
    report.add(match sample::sample(system, Width::Compat, count) {
        Ok(layouts) => compat(system, &layouts),
        Err(Trouble::NoSuchPrograms) => {
            Finding::not_applicable(COMPAT, How::Tried, "this kernel runs no 32-bit programs")
                .seen("execveat(2) of a 32-bit program", "ENOEXEC")
        }
        Err(trouble) => Finding::unknown(COMPAT, How::Tried, explain(&trouble)),
    });
}

fn explain(trouble: &Trouble) -> &str {
    match trouble {
        Trouble::NoSuchPrograms => "this kernel does not run the test program (ENOEXEC)",
        Trouble::Other(words) => words,
    }
}

fn sampled(part: &Part, layouts: &[Layout]) -> Option<Entropy> {
    let places: Option<Vec<u64>> = layouts.iter().map(part.address).collect();
    entropy::estimate(&places?)
}

fn source(layouts: &[Layout]) -> String {
    format!("{} programs started", layouts.len())
}

fn part_of(system: &System, part: &Part, layouts: &[Layout]) -> Finding {
    let Some(entropy) = sampled(part, layouts) else {
        return Finding::unknown(
            part.id,
            How::Tried,
            format!("the kernel does not show the address of the {}", part.name),
        );
    };
    let expected = (part.expected)(system, Width::Native);
    judge(part, &entropy, expected, layouts)
}

/// Judges a sample that is too small to estimate entropy: whether addresses change at all.
fn judge_few(id: &'static str, name: &str, entropy: &Entropy, layouts: &[Layout]) -> Finding {
    let (verdict, found) = if entropy.places == 1 {
        (Verdict::Fail, format!("{name} not randomized: the same address in each program"))
    } else {
        (Verdict::Pass, format!("{name} randomized: addresses change (entropy not measured)"))
    };
    Finding::new(id, verdict, How::Tried, found)
        .seen(source(layouts), format!("{} different addresses", entropy.places))
}

fn judge(part: &Part, entropy: &Entropy, expected: Option<f64>, layouts: &[Layout]) -> Finding {
    if layouts.len() < MANY {
        return judge_few(part.id, part.name, entropy, layouts);
    }
    let (verdict, found) = verdict(part.name, entropy, expected);
    Finding::new(part.id, verdict, How::Tried, found).seen(source(layouts), shown(entropy)).measured(
        part.label,
        tenths(entropy.bits),
        "bits",
        expected,
    )
}

/// Judges a measured entropy: half a bit below the expected value still passes.
fn verdict(name: &str, entropy: &Entropy, expected: Option<f64>) -> (Verdict, String) {
    const TOLERANCE: f64 = 0.5;
    let bits = entropy.bits;
    if entropy.places == 1 {
        return (Verdict::Fail, format!("{name} not randomized: the same address in each program"));
    }
    match expected {
        None => (
            Verdict::Unknown,
            format!(
                "{name} has {bits:.1} bits of entropy; the value to expect on this architecture is not known"
            ),
        ),
        Some(expected) if bits >= expected - TOLERANCE => {
            (Verdict::Pass, format!("{name} randomized: {bits:.1} bits of entropy, {expected:.0} expected"))
        }
        Some(expected) => {
            let verdict = if bits < expected / 2.0 { Verdict::Fail } else { Verdict::Warn };
            (verdict, format!("{name} has only {bits:.1} bits of entropy, {expected:.0} expected"))
        }
    }
}

fn shown(entropy: &Entropy) -> String {
    let even = if entropy.even { "evenly spread" } else { "unevenly spread" };
    format!("{} different addresses, {even}, {:.2} ± {:.2} bits", entropy.places, entropy.bits, entropy.error)
}

fn tenths(bits: f64) -> f64 {
    (bits * 10.0).round() / 10.0
}

/// Judges all parts of 32-bit programs in one finding: the worst counts.
fn compat(system: &System, layouts: &[Layout]) -> Finding {
    const SETTING: &str = "vm.mmap_rnd_compat_bits";
    let mut worst = (Verdict::Pass, String::new());
    let mut finding = Finding::new(COMPAT, Verdict::Pass, How::Tried, "");
    let mut least = f64::MAX;
    let set = match system.setting(SETTING) {
        Ok(bits) => format!("{SETTING} = {bits} (should be 16)"),
        Err(_) => format!("{SETTING} should be 16"),
    };
    for part in &PARTS {
        // Some kernels give 32-bit programs no vDSO.
        let Some(entropy) = sampled(part, layouts) else { continue };
        let expected = (part.expected)(system, Width::Compat);
        let judged = if layouts.len() < MANY {
            let finding = judge_few(COMPAT, part.name, &entropy, layouts);
            (finding.verdict, finding.found)
        } else {
            // The 32-bit heap has 13 bits relative to the program, whatever vm.mmap_rnd_compat_bits is.
            if part.id != "aslr.heap" {
                least = least.min(entropy.bits);
            }
            finding = finding
                .seen(format!("{} of {}", part.label, source(layouts)), shown(&entropy))
                .measured(&format!("{}, 32-bit", part.label), tenths(entropy.bits), "bits", expected);
            verdict(part.name, &entropy, expected)
        };
        if judged.0 < worst.0 {
            worst = judged;
        }
    }
    if layouts.len() < MANY {
        finding = finding.seen(source(layouts), format!("{} programs", layouts.len()));
    }
    (finding.verdict, finding.found) = match worst {
        (Verdict::Pass, _) if layouts.len() < MANY => {
            (Verdict::Pass, "32-bit programs randomized: addresses change (entropy not measured)".into())
        }
        // As set, and still guessed within minutes.
        (Verdict::Pass, _) if least < 15.5 => {
            (Verdict::Warn, format!("32-bit programs have only {least:.1} bits of entropy: {set}"))
        }
        (Verdict::Pass, _) => {
            (Verdict::Pass, format!("32-bit programs randomized: at least {least:.1} bits of entropy"))
        }
        (verdict, found) => (verdict, format!("32-bit programs: {found}")),
    };
    finding
}

#[cfg(test)]
mod tests;
