/*!
Calls through pointers: where they may lead.
*/
use super::{LINE, value};
use crate::{
    Finding, How, System, Verdict,
    instructions::{CPUINFO, Instructions},
};

/// Calls through pointers checked: kCFI (renamed in 6.18), or what the processor offers.
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
    let said = |name: &str| -> Vec<&str> {
        words.iter().filter_map(|word| word.strip_prefix(name)).flat_map(|value| value.split(',')).collect()
    };
    let first = |options: &[&'static str]| options.iter().copied().find(|option| config.has(option));
    let checked = |strict: bool, found: &str| {
        if strict {
            Finding::new(ID, Verdict::Pass, How::Read, found)
        } else {
            let found = "calls through pointers are checked, but a wrong one is only logged";
            Finding::new(ID, Verdict::Warn, How::Read, found)
        }
    };
    // Read where the kernel can choose the sort of check at boot; the last that names one counts.
    let cfi = if config.has("CONFIG_FINEIBT") { said("cfi=") } else { Vec::new() };
    let chosen = cfi.iter().rfind(|word| matches!(**word, "auto" | "off" | "kcfi" | "fineibt"));
    if let Some(option) = first(SOFTWARE)
        && chosen != Some(&"off")
    {
        let permissive = config.has(PERMISSIVE);
        let warns = cfi.contains(&"warn");
        let found = "calls through pointers are checked for the type of the function";
        let finding = checked(!permissive && !warns, found)
            .seen(&config.path, value(config, if permissive { PERMISSIVE } else { option }));
        return if warns { finding.seen(LINE, "cfi=warn") } else { finding };
    }
    let instruction =
        Instructions::of(system).ok().and_then(|all| all.among(&["ibt", "bti"]).first().copied());
    let ibt = said("ibt=");
    if let Some(option) = first(HARDWARE)
        && let Some(instruction) = instruction
        && !ibt.contains(&"off")
    {
        let found = "calls through pointers only reach the beginnings of functions";
        return checked(!ibt.contains(&"warn"), found)
            .seen(&config.path, value(config, option))
            .seen(format!("flags in {CPUINFO}"), instruction);
    }
    let shown = match (first(SOFTWARE), first(HARDWARE)) {
        (Some(option), _) => format!("{}, cfi=off", value(config, option)),
        (None, Some(option)) => {
            format!("{}, and the CPU has no such feature or it is off", value(config, option))
        }
        (None, None) => value(config, SOFTWARE[0]),
    };
    Finding::new(ID, Verdict::Warn, How::Read, "calls through pointers reach any code of the kernel's")
        .seen(&config.path, shown)
}
