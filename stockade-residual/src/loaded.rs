/*!
What was loaded into the kernel itself: images for kexec, and modules.
*/
use std::{fs, io, path::Path};

use crate::{Kind, Leftover, Residue, Unseen};

/// Bits of /proc/sys/kernel/tainted: Documentation/admin-guide/tainted-kernels.rst.
const FORCED: u64 = 1 << 1;
const ACPI_TABLE: u64 = 1 << 8;
const UNSIGNED: u64 = 1 << 13;

/// Looks below `root`, which is `/` but in tests.
pub fn look(root: &Path, residue: &mut Residue) {
    images(root, residue);
    let flags = modules(root, residue);
    taint(root, &flags, residue);
}

fn leftover(reason: &'static str, kind: Kind, what: &str, detail: &str, advice: String) -> Leftover {
    Leftover { details: vec![detail.to_owned()], ..Leftover::new(reason, kind, what.to_owned(), advice) }
}

fn images(root: &Path, residue: &mut Residue) {
    // kexec_load refuses to unload as it refuses to load; kexec_file_load (-s) does not.
    let images = [
        (
            "kexec_loaded",
            Kind::KexecImage,
            "a kernel for kexec",
            "the kernel does not say whether its signature was checked",
            "unload it, if nobody is about to reboot by it: kexec -s -u",
        ),
        (
            "kexec_crash_loaded",
            Kind::CrashImage,
            "a kernel for a crash",
            "usually loaded by kdump at boot; the kernel does not say whether its signature was checked",
            "load it with a signature (kexec -s -p), or unload it: kexec -s -p -u",
        ),
    ];
    for (file, kind, what, detail, advice) in images {
        match fs::read_to_string(root.join("sys/kernel").join(file)) {
            Ok(text) if text.trim() == "1" => {
                residue.leftovers.push(leftover("kexec", kind, what, detail, advice.to_owned()));
            }
            Ok(_) => {}
            // A kernel without kexec has the file not; one without sysfs has nothing.
            Err(e) if e.kind() == io::ErrorKind::NotFound && root.join("sys/kernel").exists() => {}
            Err(e) => {
                let why = format!("/sys/kernel/{file}: {e}");
                residue.unseen.push(Unseen { what: "kernels loaded for kexec", why, hidden_by: None });
            }
        }
    }
}

/// Returns the taint of the loaded modules taken together, as letters.
fn modules(root: &Path, residue: &mut Residue) -> String {
    let mut all = String::new();
    let entries = match fs::read_dir(root.join("sys/module")) {
        Ok(entries) => entries,
        Err(e) => {
            residue.unseen.push(Unseen {
                what: "unsigned modules",
                why: format!("/sys/module: {e}"),
                hidden_by: None,
            });
            return all;
        }
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // What is built in has no such file, and a module just removed has none any more.
        let Ok(flags) = fs::read_to_string(entry.path().join("taint")) else { continue };
        let flags = flags.trim();
        all += flags;
        let why = match (flags.contains('E'), flags.contains('F')) {
            (true, true) => "unsigned, and forced in (E, F)",
            (true, false) => "unsigned (E)",
            (false, true) => "forced in (F)",
            (false, false) => {
                if !flags.is_empty() {
                    residue.notes.push(format!(
                        "module {name} taints the kernel ({flags}) and carries a signature the kernel trusts: lockdown lets it in"
                    ));
                }
                continue;
            }
        };
        let advice = format!("unload it (rmmod {name}); what it did to the kernel stays until reboot");
        residue.leftovers.push(leftover(
            "module-signature",
            Kind::Module,
            &format!("module {name}"),
            why,
            advice,
        ));
    }
    all
}

/// Adds the traces of unloaded modules and of replaced ACPI tables.
fn taint(root: &Path, modules: &str, residue: &mut Residue) {
    let path = root.join("proc/sys/kernel/tainted");
    let read = fs::read_to_string(path).and_then(|text| {
        text.trim().parse::<u64>().map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
    });
    let taint = match read {
        Ok(taint) => taint,
        Err(e) => {
            residue.unseen.push(Unseen {
                what: "modules that were loaded and are gone",
                why: format!("/proc/sys/kernel/tainted: {e}"),
                hidden_by: None,
            });
            return;
        }
    };
    let gone = |bit, letter| taint & bit != 0 && !modules.contains(letter);
    let by_hand = "the kernel's taint says so; root can also have set it by hand";
    let mut add = |reason, what: &str, advice: &str| {
        residue.leftovers.push(leftover(reason, Kind::Taint, what, by_hand, advice.to_owned()));
    };
    let reboot = "reboot: nothing else takes back what its code may have done to the kernel";
    if gone(UNSIGNED, 'E') {
        add("module-signature", "an unsigned module that was loaded and is gone", reboot);
    }
    if gone(FORCED, 'F') {
        add("module-signature", "a module that was forced in and is gone", reboot);
    }
    if taint & ACPI_TABLE != 0 {
        add(
            "acpi-tables",
            "ACPI tables replaced since the machine was switched on",
            "take the tables out of the initial RAM disk or the program that loads them, and reboot",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that looks like / as far as it is read here.
    fn root(name: &str, files: &[(&str, &str)]) -> Residue {
        let root = std::env::temp_dir().join(format!("stockade-loaded-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let mut residue = Residue::default();
        look(&root, &mut residue);
        fs::remove_dir_all(&root).unwrap();
        residue
    }

    fn found(residue: &Residue) -> Vec<(Kind, &str)> {
        residue.leftovers.iter().map(|l| (l.kind, l.reason)).collect()
    }

    #[test]
    fn a_clean_kernel_has_nothing() {
        let residue = root(
            "clean",
            &[
                ("sys/kernel/kexec_loaded", "0\n"),
                ("sys/kernel/kexec_crash_loaded", "0\n"),
                ("sys/module/ext4/taint", "\n"),
                ("proc/sys/kernel/tainted", "0\n"),
            ],
        );
        assert_eq!(residue, Residue::default());
    }

    #[test]
    fn modules_and_images_are_found() {
        let residue = root(
            "dirty",
            &[
                ("sys/kernel/kexec_loaded", "1\n"),
                ("sys/kernel/kexec_crash_loaded", "1\n"),
                ("sys/module/evil/taint", "OE\n"),
                ("sys/module/zfs/taint", "PO\n"),
                ("proc/sys/kernel/tainted", "12289\n"),
            ],
        );
        assert_eq!(
            found(&residue),
            [(Kind::KexecImage, "kexec"), (Kind::CrashImage, "kexec"), (Kind::Module, "module-signature")]
        );
        assert_eq!(residue.notes.len(), 1, "{:?}", residue.notes);
    }

    #[test]
    fn what_is_gone_is_remembered() {
        let residue = root(
            "gone",
            &[("sys/kernel/x", ""), ("sys/module/ext4/taint", "\n"), ("proc/sys/kernel/tainted", "8450\n")],
        );
        assert_eq!(
            found(&residue),
            [
                (Kind::Taint, "module-signature"),
                (Kind::Taint, "module-signature"),
                (Kind::Taint, "acpi-tables")
            ]
        );
        assert!(residue.unseen.is_empty());
    }

    #[test]
    fn without_sysfs_and_proc_nothing_is_claimed() {
        let residue = root("nothing", &[("x", "")]);
        assert!(residue.leftovers.is_empty());
        assert_eq!(residue.unseen.len(), 4);
    }
}
