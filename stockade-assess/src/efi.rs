/*!
The firmware's variables, as efivarfs shows them: four bytes of attributes, then the value.
*/
use crate::{System, Unread};

pub(crate) const EFI: &str = "/sys/firmware/efi";
pub(crate) const FOLDER: &str = "/sys/firmware/efi/efivars";

/// The bytes before a variable's value.
const ATTRIBUTES: usize = 4;

/// Below /sys/firmware: verified boot of IBM's mainframes and of POWER.
const OTHERS: [&str; 2] = ["ipl", "secvar"];

/// The model of a board without ACPI, from the device tree of its boot loader.
const BOARD: &str = "/sys/firmware/devicetree/base/compatible";

/// EFI_GLOBAL_VARIABLE.
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// EFI_IMAGE_SECURITY_DATABASE_GUID.
const SECURITY: &str = "d719b2cb-3d3a-4596-a3bc-dad00e67656f";
/// Shim's.
const SHIM: &str = "605dab50-e046-4300-abb6-3dd810dd8b23";

/// A variable's name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Variable {
    pub(crate) name: &'static str,
    vendor: &'static str,
}

impl Variable {
    pub(crate) const SECURE_BOOT: Self = Self::new("SecureBoot", GLOBAL);
    pub(crate) const SETUP_MODE: Self = Self::new("SetupMode", GLOBAL);
    pub(crate) const AUDIT_MODE: Self = Self::new("AuditMode", GLOBAL);
    pub(crate) const DEPLOYED_MODE: Self = Self::new("DeployedMode", GLOBAL);
    pub(crate) const PK: Self = Self::new("PK", GLOBAL);
    pub(crate) const KEK: Self = Self::new("KEK", GLOBAL);
    pub(crate) const DB: Self = Self::new("db", SECURITY);
    pub(crate) const DBX: Self = Self::new("dbx", SECURITY);
    /// Shim's keys, as it hands them to the kernel.
    pub(crate) const MOK_LIST: Self = Self::new("MokListRT", SHIM);
    /// 1 where shim was told not to verify. Missing where it verifies.
    pub(crate) const MOK_STATE: Self = Self::new("MokSBStateRT", SHIM);
    /// 1 where the kernel may trust shim's keys for modules.
    pub(crate) const MOK_TRUSTED: Self = Self::new("MokListTrustedRT", SHIM);
    /// Generations of boot loaders that shim no longer starts.
    pub(crate) const SBAT_LEVEL: Self = Self::new("SbatLevelRT", SHIM);

    const fn new(name: &'static str, vendor: &'static str) -> Self {
        Self { name, vendor }
    }

    pub(crate) fn path(self) -> String {
        format!("{FOLDER}/{}-{}", self.name, self.vendor)
    }
}

/// Returns the value in a file of efivarfs; `None` for a file shorter than the attributes.
pub(crate) fn value(file: &[u8]) -> Option<&[u8]> {
    file.get(ATTRIBUTES..)
}

/// The firmware's variables.
pub(crate) enum Firmware<'a> {
    /// The machine was booted without EFI.
    None,
    /// Its variables are not shown, or nobody knows whether there are any: why.
    Hidden(String),
    /// Its variables can be read.
    Variables(&'a System),
}

impl<'a> Firmware<'a> {
    pub(crate) fn of(system: &'a System) -> Self {
        if !system.exists(EFI) {
            return match system.names("/sys/firmware") {
                Ok(names) => match OTHERS.into_iter().find(|other| names.iter().any(|name| name == other)) {
                    Some(other) => Self::Hidden(format!(
                        "/sys/firmware/{other} is not looked at: it tells of a verified boot of another kind than EFI's"
                    )),
                    None if system.exists(BOARD) => Self::Hidden(
                        "a board that its own loader starts, not EFI: whether that loader verifies what it starts is not told".into(),
                    ),
                    None => Self::None,
                },
                Err(unread) => Self::Hidden(unread.to_string()),
            };
        }
        let why = match system.names(FOLDER) {
            Ok(names) if !names.is_empty() => return Self::Variables(system),
            // A mount point without its file system is an empty folder.
            Ok(_) => format!("{FOLDER} is empty"),
            Err(unread) => unread.to_string(),
        };
        Self::Hidden(format!(
            "{why}; the firmware's variables are there after: mount -t efivarfs efivarfs {FOLDER} (not with efi=noruntime)"
        ))
    }

    /// A variable's value; none if there is no such variable.
    pub(crate) fn value(&self, variable: Variable) -> Result<Option<Vec<u8>>, Unread> {
        let Self::Variables(system) = self else { return Ok(None) };
        match system.bytes(&variable.path()) {
            Ok(bytes) => match value(&bytes) {
                Some(value) => Ok(Some(value.to_vec())),
                None => Err(Unread::not_understood(&variable.path(), "shorter than its attributes")),
            },
            Err(unread) if unread.is_missing() => Ok(None),
            Err(unread) => Err(unread),
        }
    }

    /// A variable of one byte, 0 or 1; none if there is no such variable.
    pub(crate) fn flag(&self, variable: Variable) -> Result<Option<bool>, Unread> {
        match self.value(variable)?.as_deref() {
            None => Ok(None),
            Some([value @ (0 | 1)]) => Ok(Some(*value == 1)),
            Some(other) => Err(Unread::not_understood(&variable.path(), &format!("{} bytes", other.len()))),
        }
    }

    /// Describes the value for people.
    pub(crate) fn in_words(&self, variable: Variable) -> &'static str {
        match self.flag(variable) {
            Ok(Some(true)) => "1",
            Ok(Some(false)) => "0",
            Ok(None) => "not there",
            Err(_) => "not understood",
        }
    }
}

#[cfg(test)]
pub(crate) mod fake {
    use std::{collections::BTreeMap, fs, path::Path};

    use super::*;
    use crate::features::secure_boot::signatures;

    /// A machine that was booted with Secure Boot, to be changed.
    pub(crate) struct Boot<'a> {
        variables: BTreeMap<String, Vec<u8>>,
        files: Vec<(&'a str, &'a str)>,
    }

    pub(crate) fn boot<'a>() -> Boot<'a> {
        let key = signatures::list(&[b"a certificate"]);
        let revoked = signatures::list(&[b"one certificate..", b"another of a size"]);
        Boot { variables: BTreeMap::new(), files: Vec::new() }
            .with("SecureBoot", &[1])
            .with("SetupMode", &[0])
            .with("AuditMode", &[0])
            .with("PK", &key)
            .with("KEK", &key)
            .with("db", &key)
            .with("dbx", &revoked)
    }

    impl<'a> Boot<'a> {
        pub(crate) fn with(mut self, name: &str, value: &[u8]) -> Self {
            self.variables.insert(name.into(), value.to_vec());
            self
        }

        pub(crate) fn without(mut self, name: &str) -> Self {
            self.variables.remove(name);
            self
        }

        pub(crate) fn file(mut self, path: &'a str, content: &'a str) -> Self {
            self.files.push((path, content));
            self
        }

        pub(crate) fn system(&self) -> System {
            let system = System::fake(&self.files);
            let folder = system.folder().join(FOLDER.trim_start_matches('/'));
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("BootCurrent-x"), []).unwrap();
            for (name, value) in &self.variables {
                let vendor = match name.as_str() {
                    "db" | "dbx" => SECURITY,
                    name if name.starts_with("Mok") || name.starts_with("Sbat") => SHIM,
                    _ => GLOBAL,
                };
                write(&folder.join(format!("{name}-{vendor}")), value);
            }
            system
        }
    }

    fn write(path: &Path, value: &[u8]) {
        let mut bytes = vec![6, 0, 0, 0];
        bytes.extend(value);
        fs::write(path, bytes).unwrap();
    }
}
