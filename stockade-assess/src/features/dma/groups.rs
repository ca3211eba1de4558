/*!
The IOMMU's groups: devices that it cannot tell apart, and how their addresses are translated.
*/
use std::collections::BTreeSet;

use crate::{System, Unread};

pub(super) const FOLDER: &str = "/sys/kernel/iommu_groups";

/// How a group's addresses are translated: Documentation/ABI/testing/sysfs-kernel-iommu_groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Each to itself: no protection.
    Identity,
    /// What is unmapped is out of reach when the call returns; for a group that is blocked everything is.
    Strict,
    /// What is unmapped is out of reach a moment later.
    Lazy,
    /// The kernel does not say, or something else.
    Other,
}

pub(super) struct Group {
    number: String,
    kind: Kind,
    devices: Vec<String>,
}

/// All of them.
pub(super) struct Groups(Vec<Group>);

impl Groups {
    pub(super) fn of(system: &System) -> Result<Self, Unread> {
        let names = match system.names(FOLDER) {
            Ok(names) => names,
            // The folder comes with the kernel's support.
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

    /// Those of a kind, with their devices.
    pub(super) fn with(&self, kind: Kind) -> Vec<String> {
        self.0.iter().filter(|group| group.kind == kind).map(Group::in_words).collect()
    }

    /// Those of more than one device. Functions of one device are one.
    pub(super) fn shared(&self) -> Vec<String> {
        self.0.iter().filter(|group| group.slots().len() > 1).map(Group::in_words).collect()
    }

    /// How a device's group is translated.
    pub(super) fn kind_of(&self, device: &str) -> Option<Kind> {
        let group = self.0.iter().find(|group| group.devices.iter().any(|name| name == device))?;
        Some(group.kind)
    }

    pub(super) fn in_words(&self) -> String {
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
    fn in_words(&self) -> String {
        format!("{} ({})", self.number, self.devices.join(" "))
    }

    /// Its devices without the functions: 0000:00:1f.3 is function 3 of a device.
    fn slots(&self) -> BTreeSet<&str> {
        self.devices
            .iter()
            .map(|device| device.rsplit_once('.').map_or(device.as_str(), |(slot, _)| slot))
            .collect()
    }
}
