/*!
Random numbers: whether the kernel's generator is ready, what feeds it, and whether a copied virtual machine gets others than its twin.
*/
use std::{io::Read, time::Duration};

use rustix::{
    io::Errno,
    rand::{GetRandomFlags, getrandom},
};
use stockade_probe::limit::Limit;

use crate::{
    Feature, Finding, How, Report, System, Verdict,
    child::{self, End},
    few,
    instructions::{CPUINFO, Instructions},
    system::boolean,
};

mod health;

use health::{Cutoffs, examine};

pub(super) const FEATURE: Feature = Feature { id: "random", title: "Random numbers", ..Feature::new(check) };

const CURRENT: &str = "/sys/class/misc/hw_random/rng_current";
/// How much of what the device gives counts as random, of 1024.
const QUALITY: &str = "/sys/class/misc/hw_random/rng_quality";
/// The parameter before 5.18.
const OLD_QUALITY: &str = "/sys/module/rng_core/parameters/current_quality";

/// How much of the kernel's numbers is examined, in bytes.
const SAMPLE: usize = 65536;

/// How much of a device's, which may be slow.
const DEVICE_SAMPLE: usize = 512;

/// How long it is waited for a device, which may give less in that time. Time in which the machine has no processor for the child does not count.
const DEVICE_LIMIT: Limit = Limit { idle: Duration::from_millis(250), ..child::TRIAL };

/// Instructions that give random numbers, of x86 and of ARM.
const GENERATORS: [&str; 3] = ["rdseed", "rdrand", "rng"];

fn check(system: &System, report: &mut Report) {
    report.add(ready(system));
    report.add(sources(system));
    report.add(healthy(system));
    report.add(hardware(system));
    report.add(vm_fork(system));
}

fn ready(system: &System) -> Finding {
    const ID: &str = "random.ready";
    const SOURCE: &str = "getrandom(GRND_NONBLOCK)";
    if !system.is_live() {
        return Finding::unknown(ID, How::Tried, "not tried");
    }
    let finding = match getrandom(&mut [0u8; 32][..], GetRandomFlags::NONBLOCK) {
        Ok(32) => {
            Finding::new(ID, Verdict::Pass, How::Tried, "the generator is seeded").seen(SOURCE, "32 bytes")
        }
        Err(Errno::AGAIN) => {
            let found =
                "the generator is not seeded yet; what reads /dev/urandom now gets predictable numbers";
            Finding::new(ID, Verdict::Fail, How::Tried, found).seen(SOURCE, "EAGAIN")
        }
        Ok(n) => Finding::unknown(ID, How::Tried, format!("{SOURCE} gave {n} bytes of 32")),
        Err(error) => Finding::unknown(ID, How::Tried, format!("{SOURCE}: {error}")),
    };
    match system.config() {
        Ok(config) if config.has("CONFIG_VDSO_GETRANDOM") => {
            finding.seen(format!("CONFIG_VDSO_GETRANDOM in {}", config.path), "y: without system calls, too")
        }
        _ => finding,
    }
}

/// Whether the kernel counts what the processor (`cpu`) or the boot loader (`bootloader`) gives as random, and who says so.
fn trusts(system: &System, whom: &str) -> Option<(bool, String)> {
    let parameter = format!("random.trust_{whom}");
    if let Ok(Some(value)) = system.parameter(&parameter)
        && let Some(trusted) = boolean(&value)
    {
        return Some((trusted, format!("{parameter}={value}")));
    }
    if system.is_at_least(6, 2) {
        return Some((true, "on unless the command line says otherwise, since 6.2".into()));
    }
    let option = format!("CONFIG_RANDOM_TRUST_{}", whom.to_ascii_uppercase());
    let config = system.config().ok()?;
    let set = config.has(&option);
    Some((set, format!("{option} {}", if set { "y" } else { "not set" })))
}

/// How much the device's numbers count, and which file says so.
fn quality(system: &System) -> Option<(&'static str, i64)> {
    [QUALITY, OLD_QUALITY].into_iter().find_map(|path| Some((path, system.number(path).ok()?)))
}

fn sources(system: &System) -> Finding {
    const ID: &str = "random.sources";
    let mut found: Vec<String> = Vec::new();
    let mut evidence = Vec::new();
    let mut unread = Vec::new();
    match Instructions::of(system) {
        Ok(instructions) => {
            let have = instructions.among(&GENERATORS);
            let seen = if have.is_empty() { "no RDRAND, RDSEED or RNDR".into() } else { few(&have) };
            evidence.push((CPUINFO.to_owned(), seen));
            match trusts(system, "cpu") {
                Some((true, why)) if !have.is_empty() => {
                    found.push("the processor".into());
                    evidence.push(("trust in the processor".into(), why));
                }
                Some((_, why)) => evidence.push(("trust in the processor".into(), why)),
                None => unread.push("whether the processor is trusted".to_owned()),
            }
        }
        Err(error) => unread.push(error.to_string()),
    }
    match system.text(CURRENT) {
        Ok(device) if device != "none" && !device.is_empty() => {
            let quality = quality(system);
            if quality.is_none_or(|(_, quality)| quality != 0) {
                found.push(format!("the device {device}"));
            }
            evidence.push((CURRENT.into(), device));
            if let Some((path, quality)) = quality {
                evidence.push((path.into(), format!("{quality} of 1024")));
            }
        }
        Ok(none) => evidence.push((CURRENT.into(), none)),
        Err(error) if error.is_missing() && system.exists("/sys/class") => {
            evidence.push((CURRENT.into(), "not there".into()));
        }
        Err(error) => unread.push(error.to_string()),
    }
    if let Some((trusted, why)) = trusts(system, "bootloader") {
        evidence.push((
            "a seed of the boot loader's, where it gives one".into(),
            format!("{}: {why}", if trusted { "counted" } else { "mixed in, not counted" }),
        ));
    }
    if system.is_at_least(5, 4) {
        evidence.push((
            "the kernel, since 5.4".into(),
            "makes do with its own timing when nothing else comes".into(),
        ));
    }
    let finding = if !found.is_empty() {
        let found = format!("besides interrupts, the generator is seeded by {}", few(&found));
        Finding::new(ID, Verdict::Pass, How::Read, found)
    } else if unread.is_empty() {
        Finding::new(ID, Verdict::Warn, How::Read, "only interrupts and timing seed the generator")
    } else {
        Finding::unknown(ID, How::Read, few(&unread))
    };
    evidence.into_iter().fold(finding, |finding, (source, observed)| finding.seen(source, observed))
}

fn healthy(system: &System) -> Finding {
    const ID: &str = "random.health";
    if !system.is_live() {
        return Finding::unknown(ID, How::Tried, "not tried");
    }
    let mut sample = vec![0u8; SAMPLE];
    let mut filled = 0;
    while filled < SAMPLE {
        match getrandom(&mut sample[filled..], GetRandomFlags::NONBLOCK) {
            Ok(0) => return Finding::unknown(ID, How::Tried, "getrandom gave nothing"),
            Ok(n) => filled += n,
            Err(Errno::INTR) => {}
            Err(error) => return Finding::unknown(ID, How::Tried, format!("getrandom: {error}")),
        }
    }
    judge(ID, "64 KiB of getrandom", &sample, 8.0)
}

fn judge(id: &'static str, source: &str, sample: &[u8], entropy: f64) -> Finding {
    let cutoffs = Cutoffs::of(entropy);
    match examine(sample, cutoffs) {
        Ok(()) => {
            Finding::new(id, Verdict::Pass, How::Tried, "the sample passes the health tests of SP 800-90B")
                .seen(
                    source,
                    if sample.len() < health::WINDOW {
                        format!("no byte {} times in a row; too few for the other test", cutoffs.in_a_row)
                    } else {
                        format!(
                            "no byte {} times in a row, none {} times among {}",
                            cutoffs.in_a_row,
                            cutoffs.in_window,
                            health::WINDOW
                        )
                    },
                )
        }
        Err(ill) => Finding::new(
            id,
            Verdict::Fail,
            How::Tried,
            "the sample fails a health test of SP 800-90B: the source is stuck or biased",
        )
        .seen(source, ill.to_string()),
    }
}

fn hardware(system: &System) -> Finding {
    const ID: &str = "random.hardware";
    let instruction = system.is_live().then(of_the_processor).flatten();
    let is_silent = instruction.as_ref().is_some_and(|sample| sample.len() < DEVICE_SAMPLE);
    if let Some(sample) = instruction.as_ref().filter(|_| !is_silent) {
        let finding = judge(ID, "RDRAND", sample, 8.0);
        if finding.verdict == Verdict::Fail {
            return finding;
        }
    }
    let add = |finding: Finding| match &instruction {
        Some(sample) if is_silent => finding.seen("RDRAND", silence(sample)),
        Some(sample) => finding.seen("RDRAND", format!("{} bytes pass the health tests", sample.len())),
        None => finding,
    };
    let device = match system.text(CURRENT) {
        Ok(device) => device,
        Err(unread) if unread.is_missing() && system.exists("/sys/class") => "none".into(),
        Err(unread) => return Finding::unknown(ID, How::Read, unread),
    };
    if device == "none" || device.is_empty() {
        return add(match Instructions::of(system) {
            Ok(_) if is_silent => Finding::unknown(
                ID,
                How::Tried,
                "the processor's generator gave hardly any numbers when it was asked; there is no other device",
            ),
            Ok(instructions) if !instructions.among(&GENERATORS).is_empty() => {
                let how = if instruction.is_some() { How::Tried } else { How::Read };
                Finding::new(
                    ID,
                    Verdict::Pass,
                    how,
                    "the processor has a generator; there is no other device",
                )
                .seen(CPUINFO, few(&instructions.among(&GENERATORS)))
            }
            Ok(_) => Finding::new(ID, Verdict::Warn, How::Read, "there is no hardware generator")
                .seen(CPUINFO, "no RDRAND, RDSEED or RNDR"),
            Err(unread) => Finding::unknown(ID, How::Read, unread),
        }
        .seen(CURRENT, "none"));
    }
    let quality = quality(system).filter(|(_, quality)| (0..=1024).contains(quality));
    if let Some((path, 0)) = quality {
        let found = format!("the generator {device} is not counted on: its quality is set to 0");
        return add(Finding::new(ID, Verdict::Warn, How::Read, found).seen(path, "0"));
    }
    let entropy =
        quality.and_then(|(_, quality)| u16::try_from(quality).ok()).map_or(1.0, |q| f64::from(q) / 128.0);
    add(match system.is_live().then(of_the_device) {
        Some(Ok(sample)) if sample.len() >= 64 => {
            let finding =
                judge(ID, &format!("{} bytes of /dev/hwrng ({device})", sample.len()), &sample, entropy);
            // A verdict about the device, named as such.
            if finding.verdict == Verdict::Pass {
                Finding {
                    found: format!("the generator {device} passes the health tests of SP 800-90B"),
                    ..finding
                }
            } else {
                finding
            }
        }
        tried => {
            let why = match tried {
                Some(Ok(sample)) => {
                    format!("{} bytes in {} ms: too few", sample.len(), DEVICE_LIMIT.idle.as_millis())
                }
                Some(Err(why)) => why,
                None => "not tried".into(),
            };
            Finding::new(
                ID,
                Verdict::Pass,
                How::Read,
                format!("the generator {device} serves; its numbers were not examined"),
            )
            .seen("/dev/hwrng", why)
        }
    }
    .seen(CURRENT, device))
}

/// Of an instruction that gave less than was asked for.
fn silence(sample: &[u8]) -> String {
    format!("{} of {DEVICE_SAMPLE} bytes, in {DEVICE_SAMPLE} attempts", sample.len())
}

/// Some of what RDRAND gives, which may be less than is wanted; nothing where there is no such instruction.
#[cfg(target_arch = "x86_64")]
fn of_the_processor() -> Option<Vec<u8>> {
    #[target_feature(enable = "rdrand")]
    fn draw() -> Vec<u8> {
        let mut sample = Vec::with_capacity(DEVICE_SAMPLE);
        for _ in 0..DEVICE_SAMPLE {
            let mut number = 0;
            if std::arch::x86_64::_rdrand64_step(&mut number) == 1 {
                sample.extend_from_slice(&number.to_ne_bytes());
            }
            if sample.len() >= DEVICE_SAMPLE {
                break;
            }
        }
        sample
    }
    // SAFETY: the instruction is there.
    std::is_x86_feature_detected!("rdrand").then(|| unsafe { draw() })
}

#[cfg(not(target_arch = "x86_64"))]
fn of_the_processor() -> Option<Vec<u8>> {
    None
}

/// Some of what the device gives. Reading may wait in the kernel whatever is asked for: a child does, which can be ended.
fn of_the_device() -> Result<Vec<u8>, String> {
    const PATH: &str = "/dev/hwrng";
    let open = || {
        use std::os::unix::fs::OpenOptionsExt as _;
        std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(PATH)
    };
    let mut device = open().map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => "only root may read it".to_owned(),
        _ => error.to_string(),
    })?;
    let read = child::run(DEVICE_LIMIT, |out| {
        let mut part = [0; 64];
        let mut left = DEVICE_SAMPLE;
        while left > 0 {
            match device.read(&mut part) {
                Ok(n) if n > 0 => {
                    let _ = out.write_all(&part[..n.min(left)]);
                    left = left.saturating_sub(n);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                _ => break,
            }
        }
    });
    match read {
        Ok((End::Exited(0) | End::TooLong(_), sample)) => Ok(sample),
        Ok((end, _)) => Err(format!("the child that reads it {end}")),
        Err(error) => Err(error.to_string()),
    }
}

fn vm_fork(system: &System) -> Finding {
    const ID: &str = "random.vm-fork";
    const DEVICES: &str = "/sys/bus/acpi/devices";
    let driver = ["/sys/bus/platform/drivers/vmgenid", "/sys/bus/acpi/drivers/vmgenid"]
        .into_iter()
        .find_map(|folder| Some((folder, system.names(folder).ok()?)));
    let bound = driver.as_ref().and_then(|(folder, names)| {
        let device = names.iter().find(|name| name.contains(':') || name.contains("vmgenid"))?;
        Some((*folder, device.clone()))
    });
    if let Some((folder, device)) = bound {
        let found = "the kernel is told when this machine was copied or set back, and seeds itself anew";
        return Finding::new(ID, Verdict::Pass, How::Read, found).seen(folder, device);
    }
    let offered = system.names(DEVICES).unwrap_or_default().into_iter().find(|device| {
        let modalias = system.text(&format!("{DEVICES}/{device}/modalias")).unwrap_or_default();
        // The kernel's driver knows both.
        let modalias = modalias.to_ascii_uppercase();
        modalias.contains(":VMGENCTR:") || modalias.contains(":VM_GEN_COUNTER:")
    });
    if let Some(device) = offered {
        let found = if driver.is_some() {
            "the hypervisor would tell when this machine is copied or set back, but the driver does not use its device"
        } else {
            "the hypervisor would tell when this machine is copied or set back, but the kernel has no driver for it"
        };
        return Finding::new(ID, Verdict::Warn, How::Read, found)
            .seen(DEVICES, device)
            .seen("the driver vmgenid", if driver.is_some() { "bound to nothing" } else { "not there" });
    }
    match Instructions::of(system) {
        Ok(instructions) if instructions.have("hypervisor") => {
            let found = "the hypervisor does not tell when this machine is copied or set back: both copies may draw the same numbers";
            Finding::new(ID, Verdict::Warn, How::Read, found)
                .seen(DEVICES, "no VM_GEN_COUNTER")
                .seen(CPUINFO, "hypervisor")
        }
        Ok(_) if system.text(CPUINFO).is_ok_and(|text| text.contains("flags")) => {
            Finding::not_applicable(ID, How::Read, "this is no virtual machine")
                .seen(CPUINFO, "no hypervisor")
        }
        Ok(_) => {
            Finding::unknown(ID, How::Read, "whether this is a virtual machine; the processor does not say")
        }
        Err(unread) => Finding::unknown(ID, How::Read, unread),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITH: (&str, &str) = (CPUINFO, "processor : 0\nflags\t\t: fpu rdrand hypervisor\n");
    const WITHOUT: (&str, &str) = (CPUINFO, "flags : fpu\n");
    const OLD: (&str, &str) = ("/proc/sys/kernel/osrelease", "6.1.0");
    const NEW: (&str, &str) = ("/proc/sys/kernel/osrelease", "6.12.0");

    fn verdict(id: &str, files: &[(&str, &str)]) -> Verdict {
        FEATURE.findings(&System::fake(files))[id].verdict
    }

    #[test]
    fn sources_count_when_they_are_trusted() {
        const ID: &str = "random.sources";
        const NONE: (&str, &str) = (CURRENT, "none\n");
        assert_eq!(verdict(ID, &[WITH, NEW, NONE]), Verdict::Pass);
        assert_eq!(verdict(ID, &[WITHOUT, NEW, NONE]), Verdict::Warn);
        let off = ("/proc/cmdline", "random.trust_cpu=off");
        assert_eq!(verdict(ID, &[WITH, NEW, NONE, off]), Verdict::Warn);
        assert_eq!(verdict(ID, &[WITH, NEW, off, (CURRENT, "virtio_rng.0\n")]), Verdict::Pass);
        assert_eq!(verdict(ID, &[WITH, NEW, off, (CURRENT, "x"), (QUALITY, "0")]), Verdict::Warn);
        assert_eq!(verdict(ID, &[WITH, OLD, off, (CURRENT, "x"), (OLD_QUALITY, "0")]), Verdict::Warn);
        assert_eq!(verdict(ID, &[WITH, OLD, NONE, ("/boot/config-6.1.0", "CONFIG_X=y")]), Verdict::Warn);
        assert_eq!(
            verdict(ID, &[WITH, OLD, NONE, ("/boot/config-6.1.0", "CONFIG_RANDOM_TRUST_CPU=y")]),
            Verdict::Pass
        );
        assert_eq!(verdict(ID, &[WITH, OLD, NONE]), Verdict::Unknown);
        assert_eq!(verdict(ID, &[]), Verdict::Unknown);
    }

    #[test]
    fn a_generator_is_a_device_or_an_instruction() {
        const ID: &str = "random.hardware";
        assert_eq!(verdict(ID, &[WITH, ("/sys/class/", "")]), Verdict::Pass);
        assert_eq!(verdict(ID, &[WITHOUT, (CURRENT, "none\n")]), Verdict::Warn);
        assert_eq!(verdict(ID, &[WITHOUT, (CURRENT, "tpm-rng-0\n")]), Verdict::Pass);
        assert_eq!(verdict(ID, &[WITHOUT, (CURRENT, "tpm-rng-0\n"), (QUALITY, "0\n")]), Verdict::Warn);
        assert_eq!(verdict(ID, &[(CURRENT, "none")]), Verdict::Unknown);
    }

    #[test]
    fn a_sick_source_is_told_with_the_test_it_failed() {
        let finding = judge("random.health", "a sample", &[7; 1024], 8.0);
        assert_eq!(finding.verdict, Verdict::Fail);
        assert!(finding.evidence[0].observed.contains("repetition count"), "{finding:?}");
    }

    #[test]
    fn a_virtual_machine_wants_to_be_told_of_copies() {
        const ID: &str = "random.vm-fork";
        let offered = ("/sys/bus/acpi/devices/QEMUVGID:00/modalias", "acpi:QEMUVGID:VM_GEN_COUNTER:\n");
        assert_eq!(verdict(ID, &[WITH]), Verdict::Warn);
        assert_eq!(verdict(ID, &[WITH, offered]), Verdict::Warn);
        for bus in ["acpi", "platform"] {
            let bound = format!("/sys/bus/{bus}/drivers/vmgenid/QEMUVGID:00");
            assert_eq!(verdict(ID, &[WITH, offered, (&bound, "-> ../x")]), Verdict::Pass);
            let idle = format!("/sys/bus/{bus}/drivers/vmgenid/bind");
            assert_eq!(verdict(ID, &[WITH, offered, (&idle, "")]), Verdict::Warn);
        }
        assert_eq!(verdict(ID, &[WITHOUT]), Verdict::NotApplicable);
        assert_eq!(verdict(ID, &[(CPUINFO, "Features : aes")]), Verdict::Unknown);
        assert_eq!(verdict(ID, &[]), Verdict::Unknown);
    }

    #[test]
    fn this_machine_gives_numbers() {
        let findings = FEATURE.findings(&System::live(false));
        for id in ["random.ready", "random.health"] {
            assert_eq!(findings[id].verdict, Verdict::Pass, "{:?}", findings[id]);
        }
        assert_eq!(verdict("random.ready", &[]), Verdict::Unknown);
    }
}
