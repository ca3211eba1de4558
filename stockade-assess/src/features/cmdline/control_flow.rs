/*!
Indirect calls in the kernel: CFI, IBT and BTI.
*/
use super::{LINE, value};
use crate::{
    Finding, How, System, Verdict,
    instructions::{CPUINFO, Instructions},
};

/// Judges whether indirect calls are checked: by kCFI (its option was renamed in Linux 6.18), or by the CPU.
pub(super) fn finding(system: &System) -> Finding {
    const ID: &str = "cmdline.control-flow";
    const SOFTWARE: &[&str] = &["CONFIG_CFI", "CONFIG_CFI_CLANG"];
    const PERMISSIVE: &str = "CONFIG_CFI_PERMISSIVE";
    const HARDWARE: &[&str] = &["CONFIG_X86_KERNEL_IBT", "CONFIG_ARM64_BTI_KERNEL"];
    let config = match system.config() {
        Ok(config) => config,
        Err(unread) => return Finding::unknown(ID, How::Read, unread),
    };
    let words = match system.cmdline() {
        Ok(words) => words,
        Err(unread) => return Finding::unknown(ID, How::Read, unread),
    };
    let values = |name: &str| -> Vec<&str> {
        words.iter().filter_map(|word| word.strip_prefix(name)).flat_map(|value| value.split(',')).collect()
    };
    let first = |options: &[&'static str]| options.iter().copied().find(|option| config.has(option));
    let checked = |strict: bool, found: &str| {
        if strict {
            Finding::new(ID, Verdict::Pass, How::Read, found)
        } else {
            let found = "kernel CFI or IBT is permissive: a violation is only logged";
            Finding::new(ID, Verdict::Warn, How::Read, found)
        }
    };
    // cfi= is parsed only with FineIBT; the last value that names a mode counts.
    let cfi = if config.has("CONFIG_FINEIBT") { values("cfi=") } else { Vec::new() };
    let chosen = cfi.iter().rfind(|word| matches!(**word, "auto" | "off" | "kcfi" | "fineibt"));
    if let Some(option) = first(SOFTWARE)
        && chosen != Some(&"off")
    {
        let permissive = config.has(PERMISSIVE);
        let warns = cfi.contains(&"warn");
        let found = "kernel CFI on: an indirect call reaches only functions of the same type";
        let finding = checked(!permissive && !warns, found)
            .seen(&config.path, value(config, if permissive { PERMISSIVE } else { option }));
        return if warns { finding.seen(LINE, "cfi=warn") } else { finding };
    }
    let instruction =
        Instructions::of(system).ok().and_then(|all| all.among(&["ibt", "bti"]).first().copied());
    let ibt = values("ibt=");
    if let Some(option) = first(HARDWARE)
        && let Some(instruction) = instruction
        && !ibt.contains(&"off")
    {
        let name = instruction.to_uppercase();
        let found = format!("kernel {name} on: an indirect call reaches only marked entry points");
        return checked(!ibt.contains(&"warn"), &found)
            .seen(&config.path, value(config, option))
            .seen(format!("flags in {CPUINFO}"), instruction);
    }
    let software = if system.is_at_least(6, 18) { SOFTWARE[0] } else { SOFTWARE[1] };
    let hardware = if config.has("CONFIG_ARM64") { HARDWARE[1] } else { HARDWARE[0] };
    let (off, why, shown) = match (first(SOFTWARE), first(HARDWARE)) {
        (Some(option), _) => ("kernel CFI off", "cfi=off".to_owned(), value(config, option)),
        (None, Some(option)) if ibt.contains(&"off") => {
            ("kernel IBT off", "ibt=off".to_owned(), value(config, option))
        }
        (None, Some(option)) => {
            let why = format!("{option} is set, but the CPU does not have the feature");
            ("kernel IBT or BTI off", why, value(config, option))
        }
        (None, None) => {
            ("no kernel CFI or IBT", format!("{software}, {hardware} not set"), value(config, software))
        }
    };
    let found = format!("{off}: an indirect call can reach any kernel code ({why})");
    Finding::new(ID, Verdict::Warn, How::Read, found).seen(&config.path, shown)
}
