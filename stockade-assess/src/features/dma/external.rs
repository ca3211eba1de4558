/*!
Ports for external devices: Thunderbolt and USB4, external PCI slots, FireWire.
*/
use super::{View, groups::Kind};
use crate::{Finding, How, System, Verdict, few};

const ID: &str = "dma.external";
const THUNDERBOLT: &str = "/sys/bus/thunderbolt/devices";
const PCI: &str = "/sys/bus/pci/devices";
/// Whether FireWire devices may read and write physical memory.
const REMOTE_DMA: &str = "/sys/module/firewire_ohci/parameters/remote_dma";

/// A port with its verdict and evidence.
struct Port {
    verdict: Verdict,
    source: String,
    observed: String,
}

pub(super) fn finding(system: &System, view: &View) -> Finding {
    if !system.exists("/sys/bus") {
        return Finding::unknown(ID, How::Read, "/sys/bus is not there");
    }
    let mut ports = thunderbolt(system);
    ports.extend(removable(system, view));
    ports.extend(firewire(system));
    let of = |verdict: Verdict| ports.iter().filter(move |port| port.verdict == verdict).count();
    let (bad, weak, unknown) = (of(Verdict::Fail), of(Verdict::Warn), of(Verdict::Unknown));
    let finding = if bad > 0 {
        Finding::new(ID, Verdict::Fail, How::Read, "an external device can reach all memory by DMA")
    } else if weak > 0 {
        let found = "an external device can reach all memory by DMA once it is authorised";
        Finding::new(ID, Verdict::Warn, How::Read, found)
    } else if unknown > 0 {
        Finding::unknown(ID, How::Read, "the DMA protection of an external port cannot be read")
    } else if ports.is_empty() {
        return Finding::not_applicable(
            ID,
            How::Read,
            "the kernel reports no external port with DMA (Thunderbolt, USB4, removable PCI, FireWire)",
        )
        .seen(THUNDERBOLT, "no controllers");
    } else {
        Finding::new(
            ID,
            Verdict::Pass,
            How::Read,
            "external devices reach only memory that was mapped for them",
        )
    };
    ports.into_iter().fold(finding, |finding, port| finding.seen(port.source, port.observed))
}

/// Returns a port for each Thunderbolt controller: Documentation/admin-guide/thunderbolt.rst.
fn thunderbolt(system: &System) -> Vec<Port> {
    let names = system.names(THUNDERBOLT).unwrap_or_default();
    let domains = names.into_iter().filter(|name| name.starts_with("domain"));
    let port = |name: String| {
        let source = format!("{THUNDERBOLT}/{name}");
        let protected = system.number(&format!("{source}/iommu_dma_protection"));
        let security = system.text(&format!("{source}/security"));
        let verdict = match (&protected, security.as_deref()) {
            // Behind an IOMMU the security level does not matter; these levels allow no PCIe tunnels.
            (Ok(1), _) | (_, Ok("dponly" | "usbonly" | "nopcie")) => Verdict::Pass,
            (_, Ok("user" | "secure")) => Verdict::Warn,
            (_, Ok("none")) => Verdict::Fail,
            _ => Verdict::Unknown,
        };
        let security = security.unwrap_or_else(|unread| unread.to_string());
        let protected = protected.map_or_else(|unread| unread.to_string(), |value| value.to_string());
        Port { verdict, source, observed: format!("security {security}, iommu_dma_protection {protected}") }
    };
    domains.map(port).collect()
}

/// Returns the removable PCI devices as a port: the kernel uses strict mode for them, unless they are not translated at all.
fn removable(system: &System, view: &View) -> Option<Port> {
    let groups = view.groups.as_ref().ok()?;
    let names = system.names(PCI).unwrap_or_default();
    let is_removable = |name: &String| {
        system.text(&format!("{PCI}/{name}/removable")).is_ok_and(|value| value == "removable")
    };
    let removable: Vec<String> = names.into_iter().filter(is_removable).collect();
    if removable.is_empty() {
        return None;
    }
    let of = |wanted: &[Option<Kind>]| -> Vec<&String> {
        removable.iter().filter(|name| wanted.contains(&groups.kind_of(name))).collect()
    };
    let (open, untold) = (of(&[None, Some(Kind::Identity)]), of(&[Some(Kind::Other)]));
    let (verdict, observed) = if !open.is_empty() {
        (Verdict::Fail, format!("not translated: {}", few(&open)))
    } else if !untold.is_empty() {
        (Verdict::Unknown, format!("type of translation not shown: {}", few(&untold)))
    } else {
        (Verdict::Pass, format!("behind the IOMMU: {}", few(&removable)))
    };
    Some(Port { verdict, source: format!("{PCI}/*/removable"), observed })
}

fn firewire(system: &System) -> Option<Port> {
    let value = system.text(REMOTE_DMA).ok()?;
    let verdict = match value.as_str() {
        "N" => Verdict::Pass,
        "Y" => Verdict::Fail,
        _ => Verdict::Unknown,
    };
    Some(Port { verdict, source: REMOTE_DMA.into(), observed: value })
}

#[cfg(test)]
mod tests {
    use super::{super::FEATURE, *};

    const SECURITY: &str = "/sys/bus/thunderbolt/devices/domain0/security";
    const PROTECTION: &str = "/sys/bus/thunderbolt/devices/domain0/iommu_dma_protection";

    fn verdict(files: &[(&str, &str)]) -> Verdict {
        FEATURE.findings(&System::fake(files))[ID].verdict
    }

    #[test]
    fn thunderbolt_is_as_safe_as_its_iommu_or_its_level() {
        let of = |security, protection| verdict(&[(SECURITY, security), (PROTECTION, protection)]);
        assert_eq!(of("user\n", "1\n"), Verdict::Pass);
        assert_eq!(of("none\n", "1\n"), Verdict::Pass);
        assert_eq!(of("none\n", "0\n"), Verdict::Fail);
        assert_eq!(of("secure\n", "0\n"), Verdict::Warn);
        assert_eq!(of("dponly\n", "0\n"), Verdict::Pass);
        assert_eq!(of("what\n", "0\n"), Verdict::Unknown);
        assert_eq!(verdict(&[("/sys/bus/", "")]), Verdict::NotApplicable);
        assert_eq!(verdict(&[]), Verdict::Unknown);
    }

    #[test]
    fn a_device_that_can_be_taken_out_must_be_translated() {
        let removable = ("/sys/bus/pci/devices/0000:05:00.0/removable", "removable\n");
        let group = ("/sys/kernel/iommu_groups/3/devices/0000:05:00.0/", "");
        let kind = |kind| ("/sys/kernel/iommu_groups/3/type", kind);
        assert_eq!(verdict(&[removable, group, kind("DMA")]), Verdict::Pass);
        assert_eq!(verdict(&[removable, group, kind("identity")]), Verdict::Fail);
        assert_eq!(verdict(&[removable, group, kind("unknown")]), Verdict::Unknown);
        assert_eq!(verdict(&[removable, ("/sys/kernel/iommu_groups/", "")]), Verdict::Fail);
    }

    #[test]
    fn firewire_reaches_memory_only_where_it_was_let() {
        let bus = ("/sys/bus/", "");
        assert_eq!(verdict(&[bus, (REMOTE_DMA, "Y\n")]), Verdict::Fail);
        assert_eq!(verdict(&[bus, (REMOTE_DMA, "N\n")]), Verdict::Pass);
    }
}
