/*!
What is loaded already, and what the kernel remembers of modules that are gone.
*/
use super::without_modules;
use crate::{Finding, How, System, Unread, Verdict, few, modprobe::has_no_modules, system::Why};

const MODULES: &str = "/sys/module";
const TAINTED: &str = "/proc/sys/kernel/tainted";

/// The parameter that exists only in kernels that check signatures.
const ENFORCE: &str = "/sys/module/module/parameters/sig_enforce";

/// Flags of a module, and their bits in the kernel's taint: Documentation/admin-guide/tainted-kernels.rst.
const UNSIGNED: [(char, i64); 2] = [('E', 1 << 13), ('F', 1 << 1)];
const FOREIGN: [(char, i64); 3] = [('P', 1 << 0), ('O', 1 << 12), ('C', 1 << 10)];

/// A loaded module and its flags.
struct Module {
    name: String,
    flags: String,
}

/// Every module that was loaded. What is built in has no such file, and one that is just unloaded has it no more.
fn modules(system: &System) -> Result<Vec<Module>, Unread> {
    let with_flags = |name: String| match system.text(&format!("{MODULES}/{name}/taint")) {
        Ok(flags) => Some(Ok(Module { name, flags })),
        Err(unread) if unread.why == Why::NotAllowed => Some(Err(unread)),
        Err(_) => None,
    };
    system.names(MODULES)?.into_iter().filter_map(with_flags).collect()
}

/// How many are loaded, those with one of these flags, and letters whose module is gone.
struct Found {
    loaded: usize,
    marked: Vec<String>,
    gone: String,
    tainted: i64,
}

fn look(system: &System, letters: &[(char, i64)]) -> Result<Found, Unread> {
    let modules = modules(system)?;
    let tainted = system.number(TAINTED)?;
    let has = |module: &&Module| letters.iter().any(|(letter, _)| module.flags.contains(*letter));
    let marked: Vec<&Module> = modules.iter().filter(has).collect();
    let gone = letters.iter().filter(|(letter, bit)| {
        tainted & bit != 0 && !marked.iter().any(|module| module.flags.contains(*letter))
    });
    Ok(Found {
        loaded: modules.len(),
        gone: gone.map(|(letter, _)| letter).collect(),
        marked: marked.iter().map(|module| format!("{} ({})", module.name, module.flags)).collect(),
        tainted,
    })
}

/// Modules without a valid signature, and such as were forced in.
pub(super) fn unsigned(system: &System) -> Finding {
    const ID: &str = "modules.unsigned-loaded";
    if has_no_modules(system) {
        return without_modules(ID);
    }
    let found = match look(system, &UNSIGNED) {
        Ok(found) => found,
        Err(unread) => return Finding::unknown(ID, How::Read, unread),
    };
    let finding = if !found.marked.is_empty() {
        let what = "loaded without a signature that the kernel trusts, or by force";
        Finding::new(ID, Verdict::Fail, How::Read, format!("{what}: {}", few(&found.marked)))
            .seen(format!("{MODULES}/*/taint"), few(&found.marked))
    } else if found.loaded > 0 && !system.exists(ENFORCE) {
        Finding::unknown(
            ID,
            How::Read,
            format!(
                "{} modules are loaded, and this kernel does not know which are signed: it was built without CONFIG_MODULE_SIG",
                found.loaded
            ),
        )
    } else if !found.gone.is_empty() {
        let what = "an unsigned module was loaded since boot, or one by force, and was unloaded";
        Finding::new(ID, Verdict::Warn, How::Read, what)
    } else {
        let what = format!("all {} loaded modules are signed", found.loaded);
        Finding::new(ID, Verdict::Pass, How::Read, what)
    };
    finding.seen(TAINTED, found.tainted.to_string())
}

/// Modules that are not of the kernel's own source.
pub(super) fn foreign(system: &System) -> Finding {
    const ID: &str = "modules.foreign";
    if has_no_modules(system) {
        return without_modules(ID);
    }
    let found = match look(system, &FOREIGN) {
        Ok(found) => found,
        Err(unread) => return Finding::unknown(ID, How::Read, unread),
    };
    let finding = if !found.marked.is_empty() {
        let what = "out-of-tree, proprietary or staging module";
        Finding::new(ID, Verdict::Warn, How::Read, format!("{what}: {}", few(&found.marked)))
            .seen(format!("{MODULES}/*/taint"), few(&found.marked))
    } else if !found.gone.is_empty() {
        let what = "an out-of-tree module was loaded since boot and was unloaded";
        Finding::new(ID, Verdict::Warn, How::Read, what)
    } else {
        let what = format!("all {} loaded modules are in-tree", found.loaded);
        Finding::new(ID, Verdict::Pass, How::Read, what)
    };
    finding.seen(TAINTED, found.tainted.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(taint: &str, tainted: &str, more: &[(&str, &str)]) -> (Verdict, Verdict) {
        let mut files = vec![
            ("/proc/modules", ""),
            ("/sys/module/ext4/taint", "\n"),
            ("/sys/module/module/parameters/other", ""),
            ("/sys/module/zfs/taint", taint),
            (TAINTED, tainted),
        ];
        files.extend(more);
        let system = System::fake(&files);
        (unsigned(&system).verdict, foreign(&system).verdict)
    }

    #[test]
    fn flags_of_modules_decide() {
        let enforce = [(ENFORCE, "N\n")];
        assert_eq!(verdicts("\n", "0\n", &enforce), (Verdict::Pass, Verdict::Pass));
        assert_eq!(verdicts("OE\n", "12288\n", &enforce), (Verdict::Fail, Verdict::Warn));
        assert_eq!(verdicts("PO\n", "4097\n", &enforce), (Verdict::Pass, Verdict::Warn));
        assert_eq!(verdicts("F\n", "2\n", &enforce), (Verdict::Fail, Verdict::Pass));
    }

    #[test]
    fn what_is_gone_is_remembered() {
        let enforce = [(ENFORCE, "N\n")];
        assert_eq!(verdicts("\n", "8192\n", &enforce), (Verdict::Warn, Verdict::Pass));
        assert_eq!(verdicts("\n", "4096\n", &enforce), (Verdict::Pass, Verdict::Warn));
        assert_eq!(verdicts("\n", "512\n", &enforce), (Verdict::Pass, Verdict::Pass));
    }

    #[test]
    fn a_kernel_that_checks_no_signatures_knows_nothing_of_them() {
        assert_eq!(verdicts("\n", "0\n", &[]), (Verdict::Unknown, Verdict::Pass));
    }
}
