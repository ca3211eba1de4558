/*!
Which implementation serves, whether it uses the processor's instructions, and how fast it is.
*/
use std::{
    io,
    time::{Duration, Instant},
};

use crate::{
    Finding, How, System, Verdict,
    algorithms::{Algorithms, LIST},
    few,
    instructions::{CPUINFO, Instructions},
};

/// How long one algorithm is measured.
const TIME: Duration = Duration::from_millis(40);

/// Algorithms that one sort of instructions speeds up.
pub(crate) struct Family {
    /// Names in /proc/crypto.
    pub names: &'static [&'static str],
    /// Any of these instructions helps, on any architecture.
    pub instructions: &'static [&'static str],
    /// The option that says that the kernel's library uses them.
    pub option: &'static str,
}

/// How an implementation works, as far as its name tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// For one sort of processors.
    Special,
    /// For all: in C, or in ARM's assembly without the instructions that were made for it.
    Portable,
    /// By the kernel's library, which may be either.
    Library,
}

impl Way {
    fn of(driver: &str) -> Self {
        // `generic-gcm-aesni` is for any key, and not portable at all.
        if ["-generic", "fixed-time", "-arm64", "-neon"].iter().any(|part| driver.contains(part)) {
            Way::Portable
        } else if driver.contains("-lib") {
            Way::Library
        } else {
            Way::Special
        }
    }
}

/// Returns the implementation that serves each of these algorithms.
pub(crate) fn serving(
    id: &'static str,
    system: &System,
    algorithms: &Algorithms,
    families: &[Family],
) -> Finding {
    let instructions = Instructions::of(system);
    let (mut fast, mut slow, mut unclear) = (Vec::new(), Vec::new(), Vec::new());
    let mut seen = Vec::new();
    for family in families {
        let have = instructions.as_ref().map(|all| all.among(family.instructions));
        for name in family.names {
            let Some(one) = algorithms.usable(name).into_iter().next() else { continue };
            let line =
                if one.name == one.driver { one.name.clone() } else { format!("{name}: {}", one.driver) };
            seen.push(line.clone());
            match (Way::of(&one.driver), &have) {
                (Way::Special, _) => fast.push(line),
                (_, Err(unread)) => unclear.push(format!("{line} ({unread})")),
                // What the processor does not have, nobody can use.
                (_, Ok(have)) if have.is_empty() => {}
                (Way::Portable, Ok(_)) => slow.push(line),
                (Way::Library, Ok(_)) => match system.config() {
                    Ok(config) if config.has(family.option) => fast.push(line),
                    Ok(_) => slow.push(line),
                    Err(_) => unclear.push(format!("{line} ({} is not known)", family.option)),
                },
            }
        }
    }
    let finding = if seen.is_empty() {
        return Finding::unknown(
            id,
            How::Read,
            "nothing has asked the kernel for it yet, so no implementation is registered",
        );
    } else if !slow.is_empty() {
        let found = format!("the processor has instructions that are not used: {}", few(&slow));
        Finding::new(id, Verdict::Warn, How::Read, found)
    } else if !unclear.is_empty() {
        Finding::unknown(
            id,
            How::Read,
            format!("whether the processor's instructions are used: {}", few(&unclear)),
        )
    } else if fast.is_empty() {
        Finding::not_applicable(
            id,
            How::Read,
            "the processor has no instructions for it; the kernel uses portable code",
        )
    } else {
        Finding::new(
            id,
            Verdict::Pass,
            How::Read,
            format!("the processor's instructions are used: {}", few(&fast)),
        )
    };
    let finding = finding.seen(LIST, few(&seen));
    match &instructions {
        Ok(instructions) => {
            let all: Vec<&str> = families.iter().flat_map(|family| family.instructions).copied().collect();
            let mut have = instructions.among(&all);
            have.sort_unstable();
            have.dedup();
            finding
                .seen(CPUINFO, if have.is_empty() { "none of its instructions".into() } else { few(&have) })
        }
        Err(_) => finding,
    }
}

/// Megabytes a second, where each turn does this many bytes: of elapsed time, so a busy machine's are fewer. No verdict rests on it.
///
/// # Errors
/// The first turn's that fails.
pub(crate) fn speed(bytes: usize, mut turn: impl FnMut() -> io::Result<()>) -> io::Result<f64> {
    turn()?;
    let begin = Instant::now();
    let mut turns: u32 = 0;
    loop {
        turn()?;
        turns = turns.saturating_add(1);
        if begin.elapsed() >= TIME {
            break;
        }
    }
    Ok(megabytes_a_second(bytes, turns, begin.elapsed()))
}

fn megabytes_a_second(bytes: usize, turns: u32, time: Duration) -> f64 {
    let bytes = f64::from(u32::try_from(bytes).unwrap_or(u32::MAX));
    (f64::from(turns) * bytes / time.as_secs_f64() / 1e6).round()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAMILY: Family =
        Family { names: &["sha256"], instructions: &["sha_ni"], option: "CONFIG_CRYPTO_LIB_SHA256_ARCH" };

    fn verdict(driver: &str, flags: &str, config: Option<&str>) -> Verdict {
        let list = format!("name : sha256\ndriver : {driver}\nselftest : passed\ntype : shash\n");
        let cpu = format!("flags : {flags}\n");
        let mut files =
            vec![(LIST, list.as_str()), (CPUINFO, cpu.as_str()), ("/proc/sys/kernel/osrelease", "6.18.0")];
        if let Some(config) = config {
            files.push(("/boot/config-6.18.0", config));
        }
        let system = System::fake(&files);
        serving("sha.driver", &system, &Algorithms::of(&system).unwrap(), &[FAMILY]).verdict
    }

    #[test]
    fn portable_code_is_a_pity_where_the_processor_could_do_better() {
        assert_eq!(verdict("sha256-ni", "sha_ni", None), Verdict::Pass);
        assert_eq!(verdict("sha256-generic", "sha_ni", None), Verdict::Warn);
        assert_eq!(verdict("sha256-generic", "fpu", None), Verdict::NotApplicable);
        assert_eq!(verdict("x(sha256-generic)", "sha_ni", None), Verdict::Warn);
        assert_eq!(verdict("generic-gcm-aesni", "sha_ni", None), Verdict::Pass);
        assert_eq!(verdict("sha256-arm64-neon", "sha_ni", None), Verdict::Warn);
        assert_eq!(verdict("sha256-arm64", "fpu", None), Verdict::NotApplicable);
    }

    #[test]
    fn the_library_is_known_by_the_kernels_configuration() {
        assert_eq!(verdict("sha256-lib", "sha_ni", None), Verdict::Unknown);
        assert_eq!(verdict("sha256-lib", "sha_ni", Some("CONFIG_CRYPTO_LIB_SHA256_ARCH=y")), Verdict::Pass);
        assert_eq!(verdict("sha256-lib", "sha_ni", Some("CONFIG_CRYPTO=y")), Verdict::Warn);
        let with = Some("CONFIG_CRYPTO_LIB_SHA256_ARCH=y");
        assert_eq!(verdict("sha256-lib", "fpu", with), Verdict::NotApplicable);
    }

    #[test]
    fn bytes_are_counted() {
        let speed = megabytes_a_second(1_000_000, 4, Duration::from_millis(40));
        assert!((speed - 100.0).abs() < f64::EPSILON, "{speed}");
    }

    #[test]
    fn a_turn_that_fails_is_told_and_one_that_works_is_repeated() {
        let mut turns = 0;
        let speed = super::speed(1, || {
            turns += 1;
            Ok(())
        });
        assert!(speed.is_ok() && turns > 1);
        assert!(super::speed(1, || Err(io::Error::other("no"))).is_err());
    }
}
