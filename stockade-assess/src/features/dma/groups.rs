/*!
IOMMU groups: devices that the IOMMU cannot isolate from each other, and the type of their translation.
*/
use std::collections::BTreeSet;

use crate::{System, Unread};

pub(super) const FOLDER: &str = "/sys/kernel/iommu_groups";

/// The type of a group's translation: Documentation/ABI/testing/sysfs-kernel-iommu_groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Device addresses are physical addresses: no protection.
    Identity,
    /// Unmapped memory is unreachable when the call returns; a blocked group reaches nothing.
    Strict,
    /// Unmapped memory becomes unreachable some milliseconds later.
    Lazy,
    /// The kernel does not show the type, or shows another one.
    Other,
}

/// An IOMMU group.
pub(super) struct Group {
    number: String,
    kind: Kind,
    devices: Vec<String>,
}

/// All IOMMU groups.
pub(super) struct Groups(Vec<Group>);

impl Groups {
    pub(super) fn read(system: &System) -> Result<Self, Unread> {
        let names = match system.names(FOLDER) {
            Ok(names) => names,
            // A kernel without IOMMU support has no such folder.
            Err(unread) if unread.is_missing() && system.exists("/sys/kernel") => Vec::new(),
            Err(unread) => return Err(unread),
        };
        let group = |number: String| {
            let kind = match system.text(&format!("{FOLDER}/{number}/type")).as_deref() {
                Ok("identity") => Kind::Identity,
                Ok("DMA" | "blocked") => Kind::Strict,
                Ok("DMA-FQ") => Kind::Lazy,
                _ => Kind::Other,
            };
            let devices = system.names(&format!("{FOLDER}/{number}/devices")).unwrap_or_default();
            Group { number, kind, devices }
        };
        Ok(Self(names.into_iter().map(group).collect()))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the groups of a kind, with their devices.
    pub(super) fn with(&self, kind: Kind) -> Vec<String> {
        self.0.iter().filter(|group| group.kind == kind).map(Group::label).collect()
    }

    /// Returns the groups of more than one device; the functions of a device count as one.
    pub(super) fn shared(&self) -> Vec<String> {
        self.0.iter().filter(|group| group.slots().len() > 1).map(Group::label).collect()
    }

    /// Returns the type of translation of a device's group.
    pub(super) fn kind_of(&self, device: &str) -> Option<Kind> {
        let group = self.0.iter().find(|group| group.devices.iter().any(|name| name == device))?;
        Some(group.kind)
    }

    /// Counts groups, devices and types, for evidence.
    pub(super) fn summary(&self) -> String {
        let devices: usize = self.0.iter().map(|group| group.devices.len()).sum();
        let kinds = [
            (Kind::Strict, "strict"),
            (Kind::Lazy, "lazy"),
            (Kind::Identity, "identity"),
            (Kind::Other, "of another type"),
        ];
        let mut words = vec![format!("{} groups", self.len()), format!("{devices} devices")];
        words.extend(kinds.into_iter().filter_map(|(kind, name)| {
            let count = self.with(kind).len();
            (count > 0).then(|| format!("{count} {name}"))
        }));
        words.join(", ")
    }
}

impl Group {
    fn label(&self) -> String {
        format!("{} ({})", self.number, self.devices.join(" "))
    }

    /// Returns its devices without their functions: 0000:00:1f.3 is function 3 of a device.
    fn slots(&self) -> BTreeSet<&str> {
        self.devices
            .iter()
            .map(|device| device.rsplit_once('.').map_or(device.as_str(), |(slot, _)| slot))
            .collect()
    }
}
