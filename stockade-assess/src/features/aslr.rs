/*!
Addresses left to chance: how many bits of them, measured on programs that are started for it; whether the kernel was moved; and what tells
where it is.
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

/// How many programs are started to measure, and where only a look is wanted.
const MANY: usize = 300;
const SOME: usize = 12;

const COMPAT: &str = "aslr.compat";

fn check(system: &System, report: &mut Report) {
    report.add(enabled(system));
    report.add(mmap_bits(system));
    report.add(kernel(system));
    report.add(pointers(system));
    report.add(leaks::finding(system));
    if !system.measures() {
        look(system, SOME, report);
    }
}

fn measure(system: &System, report: &mut Report) {
    look(system, MANY, report);
}

fn enabled(system: &System) -> Finding {
    const ID: &str = "aslr.enabled";
    const SETTING: &str = "kernel.randomize_va_space";
    let found = match system.setting(SETTING).as_deref() {
        Ok("2") => (Verdict::Pass, "programs get their parts at random places"),
        Ok("1") => (Verdict::Warn, "programs get their parts at random places, except the heap"),
        Ok("0") => (Verdict::Fail, "programs get their parts where every attacker expects them"),
        Ok(other) => return Finding::unknown(ID, How::Read, Unread::not_understood(SETTING, other)),
        Err(unread) => return Finding::unknown(ID, How::Read, unread),
    };
    let value = system.setting(SETTING).unwrap_or_default();
    let finding = Finding::new(ID, found.0, How::Read, found.1).seen(SETTING, value);
    match system.parameter("norandmaps") {
        Ok(Some(_)) => finding.seen("the kernel's command line", "norandmaps"),
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
                "this kernel lets nobody choose the number of bits",
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
        let missing = format!("{} does not say how many bits are possible", config.path);
        return Finding::unknown(ID, How::Read, missing).seen(SETTING, bits.to_string());
    };
    let (verdict, found) = if bits >= most {
        (Verdict::Pass, format!("all {most} bits that are possible are used"))
    } else {
        (Verdict::Warn, format!("{bits} bits are used of {most} that are possible"))
    };
    Finding::new(ID, verdict, How::Read, found)
        .seen(SETTING, bits.to_string())
        .seen(&config.path, format!("CONFIG_ARCH_MMAP_RND_BITS_MAX={most}"))
}

/// What the kernel was started with, as it keeps it (Documentation/arch/x86/boot.rst). One bit of it says that the loader left the kernel's
/// place to chance (`KASLR_FLAG` of `loadflags`).
const STARTED_WITH: &str = "/sys/kernel/boot_params/data";

/// Whether the loader left the kernel's place to chance; none where x86's own loader does not tell.
fn was_left_to_chance(system: &System) -> Option<bool> {
    const LOADFLAGS: usize = 0x211;
    const KASLR_FLAG: u8 = 1 << 1;
    let bytes = system.bytes(STARTED_WITH).ok()?;
    bytes.get(LOADFLAGS).map(|flags| flags & KASLR_FLAG != 0)
}

/// Where x86-64 maps the kernel's code; a kernel that was not moved begins CONFIG_PHYSICAL_START behind it.
const CODE: u64 = 0xffff_ffff_8000_0000;

fn kernel(system: &System) -> Finding {
    const ID: &str = "aslr.kernel";
    const LINE: &str = "the kernel's command line";
    const SYMBOLS: &str = "/proc/kallsyms";
    match system.parameter("nokaslr") {
        Ok(Some(_)) => {
            return Finding::new(
                ID,
                Verdict::Fail,
                How::Read,
                "the kernel is where every attacker expects it",
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
        return Finding::new(ID, Verdict::Fail, How::Read, "the kernel was built without it")
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
    // The beginning is enough: the file is in order of addresses, behind a few hundred symbols that count from 0.
    let symbols = match system.beginning(SYMBOLS, 256 << 10) {
        Ok(symbols) => String::from_utf8_lossy(&symbols).into_owned(),
        Err(unread) => return unknown(format!("built in and not switched off; whether it worked: {unread}")),
    };
    let text = symbols.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (at, _, name) = (words.next()?, words.next()?, words.next()?);
        (name == "_text").then(|| u64::from_str_radix(at, 16).ok())?
    });
    match (text, start) {
        (Some(0), _) => unknown(format!(
            "built in and not switched off; whether it worked, {SYMBOLS} does not show{}",
            system.lacks_root().map_or_else(String::new, |what| format!(": {what}"))
        )),
        (Some(at), Some(start)) if at >> 31 == CODE >> 31 => {
            let unmoved = at == CODE.wrapping_add(start);
            // Chance moves it by nothing in one of about 500 boots.
            let (verdict, found) = match was_left_to_chance(system) {
                _ if !unmoved => (Verdict::Pass, "the kernel was moved at boot"),
                Some(true) => (
                    Verdict::Pass,
                    "the kernel's place was left to chance, which this time put it where it was built for",
                ),
                Some(false) => (
                    Verdict::Fail,
                    "the kernel is where it was built for: whoever started it did not move it",
                ),
                None => {
                    return unknown(format!(
                        "the kernel is where it was built for, and whether by chance {STARTED_WITH} does not tell"
                    ));
                }
            };
            let shown = if unmoved { "not moved" } else { "moved" };
            seen(Finding::new(ID, verdict, How::Read, found)).seen(format!("_text in {SYMBOLS}"), shown)
        }
        _ => unknown(
            "built in and not switched off; whether it worked is not known on this architecture".into(),
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
        "2" => seen(Verdict::Pass, "the kernel's addresses are shown to nobody"),
        "1" => seen(Verdict::Pass, "the kernel's addresses are shown to those with CAP_SYSLOG only"),
        // kallsyms_show_value(): who may profile the kernel sees them as well.
        "0" => match system.setting(PERF).map(|text| text.parse::<i64>()) {
            Ok(Ok(perf)) if perf <= 1 => {
                seen(Verdict::Fail, "the kernel's addresses are shown to every user")
                    .seen(PERF, perf.to_string())
            }
            Ok(Ok(perf)) => {
                let found = "the kernel's addresses are shown to those with CAP_SYSLOG, and hashed to others";
                seen(Verdict::Warn, found).seen(PERF, perf.to_string())
            }
            Ok(Err(_)) => {
                Finding::unknown(ID, How::Read, format!("{PERF} is no number")).seen(SETTING, &value)
            }
            Err(unread) => Finding::unknown(ID, How::Read, unread).seen(SETTING, &value),
        },
        other => Finding::unknown(ID, How::Read, Unread::not_understood(SETTING, other)),
    }
}

/// Starts programs and says where their parts were.
fn look(system: &System, count: usize, report: &mut Report) {
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
                report.add(Finding::unknown(part.id, How::Tried, words(&trouble)));
            }
        }
    }
    report.add(match sample::sample(system, Width::Compat, count) {
        Ok(layouts) => compat(system, &layouts),
        Err(Trouble::NoSuchPrograms) => {
            Finding::not_applicable(COMPAT, How::Tried, "this kernel runs no 32-bit programs")
                .seen("execveat(2) of a 32-bit program", "ENOEXEC")
        }
        Err(trouble) => Finding::unknown(COMPAT, How::Tried, words(&trouble)),
    });
}

fn words(trouble: &Trouble) -> &str {
    match trouble {
        Trouble::NoSuchPrograms => "this kernel does not run the program that was made for it",
        Trouble::Other(words) => words,
    }
}

fn sampled(part: &Part, layouts: &[Layout]) -> Option<Entropy> {
    let places: Option<Vec<u64>> = layouts.iter().map(part.of).collect();
    entropy::estimate(&places?)
}

fn source(layouts: &[Layout]) -> String {
    format!("{} programs that were started", layouts.len())
}

fn part_of(system: &System, part: &Part, layouts: &[Layout]) -> Finding {
    let Some(entropy) = sampled(part, layouts) else {
        return Finding::unknown(
            part.id,
            How::Tried,
            format!("the kernel does not tell where {} is", part.name),
        );
    };
    let expected = (part.expected)(system, Width::Native);
    judge(part, &entropy, expected, layouts)
}

/// Too few samples to tell bits: whether there is any chance at all.
fn glance(id: &'static str, name: &str, entropy: &Entropy, layouts: &[Layout]) -> Finding {
    let (verdict, found) = if entropy.places == 1 {
        (Verdict::Fail, format!("{name} is always at the same place"))
    } else {
        (Verdict::Pass, format!("{name} is at changing places; how many bits that is was not measured"))
    };
    Finding::new(id, verdict, How::Tried, found).seen(source(layouts), format!("{} places", entropy.places))
}

fn judge(part: &Part, entropy: &Entropy, expected: Option<f64>, layouts: &[Layout]) -> Finding {
    if layouts.len() < MANY {
        return glance(part.id, part.name, entropy, layouts);
    }
    let (verdict, found) = verdict(part.name, entropy, expected);
    Finding::new(part.id, verdict, How::Tried, found).seen(source(layouts), shown(entropy)).measured(
        part.label,
        tenths(entropy.bits),
        "bits",
        expected,
    )
}

/// What half a bit below what it should be, or less, comes to.
fn verdict(name: &str, entropy: &Entropy, expected: Option<f64>) -> (Verdict, String) {
    const TOLERANCE: f64 = 0.5;
    let bits = entropy.bits;
    if entropy.places == 1 {
        return (Verdict::Fail, format!("{name} is always at the same place"));
    }
    match expected {
        None => (
            Verdict::Unknown,
            format!(
                "{name} has {bits:.1} bits left to chance; how many this architecture should give is not known"
            ),
        ),
        Some(expected) if bits >= expected - TOLERANCE => {
            (Verdict::Pass, format!("{name} has {bits:.1} bits left to chance; {expected:.0} are meant"))
        }
        Some(expected) => {
            let verdict = if bits < expected / 2.0 { Verdict::Fail } else { Verdict::Warn };
            (verdict, format!("{name} has only {bits:.1} bits left to chance of {expected:.0}"))
        }
    }
}

fn shown(entropy: &Entropy) -> String {
    let even = if entropy.even { "evenly spread" } else { "unevenly spread" };
    format!("{} places, {even}, {:.2} bits, give or take {:.2}", entropy.places, entropy.bits, entropy.error)
}

fn tenths(bits: f64) -> f64 {
    (bits * 10.0).round() / 10.0
}

/// All parts of 32-bit programs in one finding: the worst counts.
fn compat(system: &System, layouts: &[Layout]) -> Finding {
    let mut worst = (Verdict::Pass, String::new());
    let mut finding = Finding::new(COMPAT, Verdict::Pass, How::Tried, "");
    let mut least = f64::MAX;
    for part in &PARTS {
        // Some kernels give 32-bit programs none.
        let Some(entropy) = sampled(part, layouts) else { continue };
        let expected = (part.expected)(system, Width::Compat);
        let judged = if layouts.len() < MANY {
            let finding = glance(COMPAT, part.name, &entropy, layouts);
            (finding.verdict, finding.found)
        } else {
            least = least.min(entropy.bits);
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
        (Verdict::Pass, _) if layouts.len() < MANY => (
            Verdict::Pass,
            "parts of 32-bit programs are at changing places; how many bits that is was not measured".into(),
        ),
        // As it should be, and still guessed in minutes.
        (Verdict::Pass, _) if least < 15.5 => (
            Verdict::Warn,
            format!(
                "as little of 32-bit programs' addresses is left to chance as is set: {least:.1} bits, of up to 16"
            ),
        ),
        (Verdict::Pass, _) => (
            Verdict::Pass,
            format!("at least {least:.1} bits of 32-bit programs' addresses are left to chance"),
        ),
        (verdict, found) => (verdict, format!("of 32-bit programs, {found}")),
    };
    finding
}

#[cfg(test)]
mod tests;
