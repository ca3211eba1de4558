/*!
DMA protection: whether devices reach only the memory they were given, or all of it.

| file | what it owns |
|---|---|
| `groups.rs` | the IOMMU's groups: their devices and how each is translated |
| `external.rs` | ports that strangers' devices are plugged into |
*/
mod external;
mod groups;

use self::groups::{Groups, Kind};
use crate::{Feature, Finding, How, Report, System, Unread, Verdict, few, instructions::Instructions};

pub(super) const FEATURE: Feature = Feature { id: "dma", title: "DMA protection", ..Feature::new(check) };

/// IOMMUs that the kernel uses.
const UNITS: &str = "/sys/class/iommu";

/// Where the firmware tells of its IOMMUs: Intel's, AMD's, ARM's, virtio's.
const TABLES: [&str; 4] = ["DMAR", "IVRS", "IORT", "VIOT"];

fn check(system: &System, report: &mut Report) {
    let view = View::of(system);
    report.add(iommu(system, &view));
    report.add(strict(system, &view));
    report.add(separate(&view));
    report.add(external::finding(system, &view));
    report.add(preboot(system, &view));
}

/// What every finding looks at.
struct View {
    /// Names of the IOMMUs in use.
    units: Result<Vec<String>, Unread>,
    groups: Result<Groups, Unread>,
    /// Whether this is a virtual machine, where the processor tells.
    virtual_machine: Option<bool>,
}

impl View {
    fn of(system: &System) -> Self {
        let units = match system.names(UNITS) {
            // The class comes with the kernel's support.
            Err(unread) if unread.is_missing() && system.exists("/sys/class") => Ok(Vec::new()),
            units => units,
        };
        Self {
            units,
            groups: Groups::of(system),
            virtual_machine: Instructions::of(system).ok().and_then(|processor| processor.of_a_guest()),
        }
    }

    /// The groups, or why there is nothing to say of them.
    fn groups(&self, id: &'static str) -> Result<&Groups, Finding> {
        match (&self.units, &self.groups) {
            (Err(unread), _) | (_, Err(unread)) => Err(Finding::unknown(id, How::Read, unread)),
            (Ok(units), Ok(groups)) if units.is_empty() && groups.is_empty() => {
                Err(Finding::not_applicable(id, How::Read, "no IOMMU is in use, see dma.iommu")
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
                Finding::new(ID, Verdict::Fail, How::Read, "there is an IOMMU, but no device is behind it")
            }
            // ARM's table tells of other things than IOMMUs, too.
            Some(table) if table != "IORT" => Finding::new(
                ID,
                Verdict::Fail,
                How::Read,
                format!("the firmware tells of an IOMMU (table {table}), and the kernel does not use it"),
            ),
            _ if view.virtual_machine == Some(true) => Finding::not_applicable(
                ID,
                How::Read,
                "a virtual machine without an IOMMU of its own: what its devices reach is decided by its host",
            ),
            _ if view.virtual_machine.is_none() => Finding::unknown(
                ID,
                How::Read,
                "no IOMMU is in use; whether this is a virtual machine, whose host then decides, the processor does not tell",
            ),
            _ => {
                let found = "no IOMMU: every device can reach all memory; this machine has none, or its firmware hides it";
                Finding::new(ID, Verdict::Fail, How::Read, found)
            }
        }
    } else if open.len() == groups.len() {
        let found = "there is an IOMMU, but it lets every device reach all memory (passthrough)";
        Finding::new(ID, Verdict::Fail, How::Read, found)
    } else if !open.is_empty() {
        let found =
            format!("in use, but {} of {} groups of devices reach all memory", open.len(), groups.len());
        Finding::new(ID, Verdict::Warn, How::Read, found).seen("groups of type identity", few(&open))
    } else if !untold.is_empty() {
        let found = format!(
            "the kernel does not say how {} of {} groups of devices are translated",
            untold.len(),
            groups.len()
        );
        Finding::unknown(ID, How::Read, found).seen("groups of another type", few(&untold))
    } else {
        let found = format!("in use for all {} groups of devices", groups.len());
        Finding::new(ID, Verdict::Pass, How::Read, found)
    };
    let units = if units.is_empty() { "empty".into() } else { few(units) };
    let mut finding = finding.seen(UNITS, units).seen(groups::FOLDER, groups.in_words());
    if let Some(table) = table {
        finding = finding.seen(format!("/sys/firmware/acpi/tables/{table}"), "there");
    }
    let words = command_line(system);
    if words.is_empty() { finding } else { finding.seen("/proc/cmdline", words.join(" ")) }
}

/// What the kernel was told about IOMMUs.
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
            "lazy for {} of {} groups of devices: memory stays reachable for a moment after it was taken back",
            lazy.len(),
            groups.len()
        );
        Finding::new(ID, Verdict::Warn, How::Read, found)
    } else if !untold.is_empty() {
        let found =
            format!("{}/*/type does not say of {} of {} groups", groups::FOLDER, untold.len(), groups.len());
        Finding::unknown(ID, How::Read, found)
    } else if groups.with(Kind::Strict).is_empty() {
        Finding::not_applicable(ID, How::Read, "no device is translated, see dma.iommu")
    } else {
        let found = "strict: memory that is taken back from a device is out of its reach at once";
        Finding::new(ID, Verdict::Pass, How::Read, found)
    };
    let finding = finding.seen(format!("{}/*/type", groups::FOLDER), groups.in_words());
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
            format!("{} groups, each of one device and its functions", groups.len()),
        )
    } else {
        let found = format!(
            "{} of {} groups hold several devices, which reach each other unchecked",
            shared.len(),
            groups.len()
        );
        Finding::new(ID, Verdict::Warn, How::Read, found).seen("groups of several devices", few(&shared))
    };
    finding.seen(groups::FOLDER, groups.in_words())
}

/// What the firmware says it does before the kernel takes over.
fn preboot(system: &System, view: &View) -> Finding {
    const ID: &str = "dma.preboot";
    /// In Intel's table: DMA_CTRL_PLATFORM_OPT_IN_FLAG. In AMD's: DMA remap support, in IVinfo.
    const FLAGS: [(&str, usize, u8); 2] = [("DMAR", 0x25, 0x4), ("IVRS", 0x24, 0x2)];
    let table = |name: &str| format!("/sys/firmware/acpi/tables/{name}");
    if view.virtual_machine == Some(true) {
        return Finding::not_applicable(ID, How::Read, "a virtual machine: its firmware is part of its host");
    }
    if !system.exists("/sys/firmware") {
        return Finding::unknown(ID, How::Read, "/sys/firmware is not there");
    }
    let Some((name, at, flag)) = FLAGS.into_iter().find(|(name, _, _)| system.exists(&table(name))) else {
        let found = "no firmware table that would say so: neither DMAR (Intel) nor IVRS (AMD)";
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
        Finding::new(
            ID,
            Verdict::Pass,
            How::Read,
            "the firmware says that it protects memory before the kernel starts",
        )
    } else {
        let found = "the firmware does not say that it protects memory before the kernel starts";
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
        // ARM's processors do not tell a virtual machine from another.
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
