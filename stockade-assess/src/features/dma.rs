/*!
DMA protection: whether devices reach only the memory that drivers mapped for them, or all of it.

| file | what it owns |
|---|---|
| `groups.rs` | IOMMU groups: their devices and their type of translation |
| `external.rs` | ports for external devices |
*/
mod external;
mod groups;

use self::groups::{Groups, Kind};
use crate::{Feature, Finding, How, Report, System, Unread, Verdict, few, instructions::Instructions};

pub(super) const FEATURE: Feature = Feature { id: "dma", title: "DMA protection", ..Feature::new(check) };

/// The IOMMUs that the kernel uses.
const UNITS: &str = "/sys/class/iommu";

/// The ACPI tables that describe IOMMUs: of Intel, AMD, ARM and virtio.
const TABLES: [&str; 4] = ["DMAR", "IVRS", "IORT", "VIOT"];

fn check(system: &System, report: &mut Report) {
    let view = View::read(system);
    report.add(iommu(system, &view));
    report.add(strict(system, &view));
    report.add(separate(&view));
    report.add(external::finding(system, &view));
    report.add(preboot(system, &view));
}

/// The state of the machine on which the findings are based.
struct View {
    /// Names of the IOMMUs in use.
    units: Result<Vec<String>, Unread>,
    groups: Result<Groups, Unread>,
    /// Whether this is a virtual machine; none where the CPU does not show it.
    virtual_machine: Option<bool>,
}

impl View {
    fn read(system: &System) -> Self {
        let units = match system.names(UNITS) {
            // A kernel without IOMMU support has no such class.
            Err(unread) if unread.is_missing() && system.exists("/sys/class") => Ok(Vec::new()),
            units => units,
        };
        Self {
            units,
            groups: Groups::read(system),
            virtual_machine: Instructions::of(system).ok().and_then(|processor| processor.of_a_guest()),
        }
    }

    /// Returns the groups, or the finding if there are none.
    fn groups(&self, id: &'static str) -> Result<&Groups, Finding> {
        match (&self.units, &self.groups) {
            (Err(unread), _) | (_, Err(unread)) => Err(Finding::unknown(id, How::Read, unread)),
            (Ok(units), Ok(groups)) if units.is_empty() && groups.is_empty() => {
                Err(Finding::not_applicable(id, How::Read, "no IOMMU in use, see dma.iommu")
                    .seen(UNITS, "empty"))
            }
            (Ok(_), Ok(groups)) => Ok(groups),
        }
    }
}

fn iommu(system: &System, view: &View) -> Finding {
    const ID: &str = "dma.iommu";
    let (units, groups) = match (&view.units, &view.groups) {
        (Err(unread), _) | (_, Err(unread)) => return Finding::unknown(ID, How::Read, unread),
        (Ok(units), Ok(groups)) => (units, groups),
    };
    let table = TABLES.into_iter().find(|table| system.exists(&format!("/sys/firmware/acpi/tables/{table}")));
    let (open, untold) = (groups.with(Kind::Identity), groups.with(Kind::Other));
    let finding = if groups.is_empty() {
        match table {
            _ if !units.is_empty() => {
                Finding::new(ID, Verdict::Fail, How::Read, "IOMMU present, but no device is behind it")
            }
            // IORT also describes other devices than IOMMUs.
            Some(table) if table != "IORT" => Finding::new(
                ID,
                Verdict::Fail,
                How::Read,
                format!(
                    "IOMMU not used: the firmware reports one (ACPI table {table}), but the kernel does not use it"
                ),
            ),
            _ if view.virtual_machine == Some(true) => Finding::not_applicable(
                ID,
                How::Read,
                "virtual machine without an IOMMU: the host decides which memory its devices reach",
            ),
            _ if view.virtual_machine.is_none() => Finding::unknown(
                ID,
                How::Read,
                "no IOMMU in use; if this is a virtual machine, its host decides, but the CPU does not show whether it is one",
            ),
            _ => {
                let found = "no IOMMU in use: every device reaches all memory by DMA; the machine has none, or it is off in the firmware setup";
                Finding::new(ID, Verdict::Fail, How::Read, found)
            }
        }
    } else if open.len() == groups.len() {
        let found = "IOMMU in passthrough mode: every device reaches all memory by DMA";
        Finding::new(ID, Verdict::Fail, How::Read, found)
    } else if !open.is_empty() {
        let found = format!(
            "IOMMU in use, but {} of {} groups reach all memory (passthrough)",
            open.len(),
            groups.len()
        );
        Finding::new(ID, Verdict::Warn, How::Read, found).seen("groups of type identity", few(&open))
    } else if !untold.is_empty() {
        let found = format!(
            "the kernel does not show the type of translation of {} of {} IOMMU groups",
            untold.len(),
            groups.len()
        );
        Finding::unknown(ID, How::Read, found).seen("groups of another type", few(&untold))
    } else {
        let found = format!("IOMMU in use for all {} groups", groups.len());
        Finding::new(ID, Verdict::Pass, How::Read, found)
    };
    let units = if units.is_empty() { "empty".into() } else { few(units) };
    let mut finding = finding.seen(UNITS, units).seen(groups::FOLDER, groups.summary());
    if let Some(table) = table {
        finding = finding.seen(format!("/sys/firmware/acpi/tables/{table}"), "present");
    }
    let words = command_line(system);
    if words.is_empty() { finding } else { finding.seen("/proc/cmdline", words.join(" ")) }
}

/// Returns the parameters about IOMMUs on the kernel command line.
fn command_line(system: &System) -> Vec<String> {
    const PARAMETERS: [&str; 6] =
        ["iommu", "intel_iommu", "amd_iommu", "iommu.passthrough", "iommu.strict", "efi"];
    let mut words = system.cmdline().unwrap_or_default();
    words.retain(|word| {
        PARAMETERS.iter().any(|name| word.split_once('=').is_some_and(|(key, _)| key == *name))
    });
    words
}

fn strict(system: &System, view: &View) -> Finding {
    const ID: &str = "dma.strict";
    let groups = match view.groups(ID) {
        Ok(groups) => groups,
        Err(finding) => return finding,
    };
    let (lazy, untold) = (groups.with(Kind::Lazy), groups.with(Kind::Other));
    let finding = if !lazy.is_empty() {
        let found = format!(
            "IOMMU lazy for {} of {} groups: devices reach memory for some milliseconds after it was unmapped (should be strict)",
            lazy.len(),
            groups.len()
        );
        Finding::new(ID, Verdict::Warn, How::Read, found)
    } else if !untold.is_empty() {
        let found = format!(
            "{}/*/type does not show the mode of {} of {} groups",
            groups::FOLDER,
            untold.len(),
            groups.len()
        );
        Finding::unknown(ID, How::Read, found)
    } else if groups.with(Kind::Strict).is_empty() {
        Finding::not_applicable(ID, How::Read, "the IOMMU translates for no device, see dma.iommu")
    } else {
        let found = "IOMMU strict: a device cannot reach memory once it is unmapped";
        Finding::new(ID, Verdict::Pass, How::Read, found)
    };
    let finding = finding.seen(format!("{}/*/type", groups::FOLDER), groups.summary());
    let words = command_line(system);
    if words.is_empty() { finding } else { finding.seen("/proc/cmdline", words.join(" ")) }
}

fn separate(view: &View) -> Finding {
    const ID: &str = "dma.groups";
    let groups = match view.groups(ID) {
        Ok(groups) => groups,
        Err(finding) => return finding,
    };
    let shared = groups.shared();
    if groups.is_empty() {
        return Finding::not_applicable(ID, How::Read, "no device is behind the IOMMU, see dma.iommu");
    }
    let finding = if shared.is_empty() {
        Finding::new(
            ID,
            Verdict::Pass,
            How::Read,
            format!("{} IOMMU groups, each with a single device", groups.len()),
        )
    } else {
        let found = format!(
            "{} of {} IOMMU groups hold several devices, which are not isolated from each other",
            shared.len(),
            groups.len()
        );
        Finding::new(ID, Verdict::Warn, How::Read, found).seen("groups of several devices", few(&shared))
    };
    finding.seen(groups::FOLDER, groups.summary())
}

/// Judges the DMA protection that the firmware reports for the time before the kernel starts.
fn preboot(system: &System, view: &View) -> Finding {
    const ID: &str = "dma.preboot";
    /// DMA_CTRL_PLATFORM_OPT_IN_FLAG in Intel's DMAR; DMA remap support, of IVinfo, in AMD's IVRS.
    const FLAGS: [(&str, usize, u8); 2] = [("DMAR", 0x25, 0x4), ("IVRS", 0x24, 0x2)];
    let table = |name: &str| format!("/sys/firmware/acpi/tables/{name}");
    if view.virtual_machine == Some(true) {
        return Finding::not_applicable(ID, How::Read, "virtual machine: its host provides the firmware");
    }
    if !system.exists("/sys/firmware") {
        return Finding::unknown(ID, How::Read, "/sys/firmware is not there");
    }
    let Some((name, at, flag)) = FLAGS.into_iter().find(|(name, _, _)| system.exists(&table(name))) else {
        let found = "no ACPI table that could report it: neither DMAR (Intel) nor IVRS (AMD)";
        return Finding::not_applicable(ID, How::Read, found);
    };
    let path = table(name);
    let bytes = match system.bytes(&path) {
        Ok(bytes) => bytes,
        Err(unread) => return Finding::unknown(ID, How::Read, unread),
    };
    let (true, Some(value)) = (bytes.starts_with(name.as_bytes()), bytes.get(at)) else {
        return Finding::unknown(
            ID,
            How::Read,
            Unread::not_understood(&path, &format!("{} bytes", bytes.len())),
        );
    };
    let finding = if value & flag != 0 {
        Finding::new(ID, Verdict::Pass, How::Read, "pre-boot DMA protection on: the firmware reports it")
    } else {
        let found =
            "pre-boot DMA protection not reported: devices may reach all memory before the kernel starts";
        Finding::new(ID, Verdict::Warn, How::Read, found)
    };
    finding.seen(path, format!("flags {value:#04x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: (&str, &str) = ("/sys/class/iommu/dmar0/", "");
    const NIC: (&str, &str) = ("/sys/kernel/iommu_groups/1/devices/0000:00:03.0/", "");
    const DISK: (&str, &str) = ("/sys/kernel/iommu_groups/2/devices/0000:00:04.0/", "");
    const TYPES: [&str; 2] = ["/sys/kernel/iommu_groups/1/type", "/sys/kernel/iommu_groups/2/type"];

    fn verdict(id: &str, files: &[(&str, &str)]) -> Verdict {
        FEATURE.findings(&System::fake(files))[id].verdict
    }

    fn typed(id: &str, kinds: [&str; 2]) -> Verdict {
        verdict(id, &[UNIT, NIC, DISK, (TYPES[0], kinds[0]), (TYPES[1], kinds[1])])
    }

    #[test]
    fn an_iommu_that_translates_is_in_use() {
        let id = "dma.iommu";
        assert_eq!(typed(id, ["DMA\n", "DMA-FQ\n"]), Verdict::Pass);
        assert_eq!(typed(id, ["identity\n", "identity\n"]), Verdict::Fail);
        assert_eq!(typed(id, ["DMA\n", "identity\n"]), Verdict::Warn);
        assert_eq!(typed(id, ["DMA\n", "blocked\n"]), Verdict::Pass);
        assert_eq!(typed(id, ["DMA\n", "unknown\n"]), Verdict::Unknown);
        assert_eq!(verdict(id, &[UNIT, NIC]), Verdict::Unknown);
        assert_eq!(verdict(id, &[UNIT, ("/sys/kernel/iommu_groups/", "")]), Verdict::Fail);
    }

    #[test]
    fn an_iommu_that_is_off_is_told_from_none() {
        let none = [("/sys/class/iommu/", ""), ("/sys/kernel/iommu_groups/", "")];
        let with = |file: (&'static str, &'static str)| verdict("dma.iommu", &[none[0], none[1], file]);
        assert_eq!(with(("/proc/cpuinfo", "flags : fpu hypervisor\n")), Verdict::NotApplicable);
        assert_eq!(with(("/proc/cpuinfo", "flags : fpu\n")), Verdict::Fail);
        // ARM CPUs do not show whether this is a virtual machine.
        assert_eq!(with(("/proc/cpuinfo", "Features : fp asimd\n")), Verdict::Unknown);
        assert_eq!(with(("/sys/firmware/acpi/tables/DMAR", "DMAR")), Verdict::Fail);
        assert_eq!(verdict("dma.iommu", &[]), Verdict::Unknown);
    }

    #[test]
    fn lazy_is_weaker_than_strict() {
        let id = "dma.strict";
        assert_eq!(typed(id, ["DMA\n", "DMA\n"]), Verdict::Pass);
        assert_eq!(typed(id, ["DMA\n", "DMA-FQ\n"]), Verdict::Warn);
        assert_eq!(typed(id, ["DMA\n", "unknown\n"]), Verdict::Unknown);
        assert_eq!(typed(id, ["DMA\n", "identity\n"]), Verdict::Pass);
        assert_eq!(typed(id, ["identity\n", "identity\n"]), Verdict::NotApplicable);
        assert_eq!(verdict(id, &[UNIT, NIC]), Verdict::Unknown);
    }

    #[test]
    fn devices_of_one_group_reach_each_other() {
        let id = "dma.groups";
        let function = ("/sys/kernel/iommu_groups/1/devices/0000:00:03.1/", "");
        let neighbour = ("/sys/kernel/iommu_groups/1/devices/0000:00:05.0/", "");
        assert_eq!(verdict(id, &[UNIT, NIC, DISK, function]), Verdict::Pass);
        assert_eq!(verdict(id, &[UNIT, NIC, DISK, neighbour]), Verdict::Warn);
    }

    #[test]
    fn the_firmware_says_what_it_did() {
        let id = "dma.preboot";
        let table = |flags: u8| {
            let mut bytes = b"DMAR".to_vec();
            bytes.resize(0x25, b' ');
            bytes.push(flags);
            String::from_utf8(bytes).unwrap()
        };
        let of = |content: &str| verdict(id, &[("/sys/firmware/acpi/tables/DMAR", content)]);
        assert_eq!(of(&table(5)), Verdict::Pass);
        assert_eq!(of(&table(1)), Verdict::Warn);
        assert_eq!(of("DMAR"), Verdict::Unknown);
        assert_eq!(verdict(id, &[("/sys/firmware/acpi/tables/APIC", "")]), Verdict::NotApplicable);
    }
}
