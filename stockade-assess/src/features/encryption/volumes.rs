/*!
Encrypted volumes: the strength of their ciphers, and whether the kernel shows their keys.
*/
use super::{
    KEY, STRENGTH, cipher,
    devices::{Devices, Encryption},
    table::{self, Crypt, Table},
};
use crate::{Finding, How, System, Verdict, few};

/// Encrypted devices with their crypt targets.
pub(super) type Tables = Vec<(String, Vec<Crypt>)>;

/// Reads the tables of all encrypted devices, and records in `devices` what every table shows.
pub(super) fn tables(system: &System, devices: &mut Devices) -> Result<Tables, String> {
    let mapped = devices.mapped();
    let wanted = |name: &String| devices.has_crypt_uuid(name) || devices.has_empty_uuid(name);
    let lacks = match system.lacks_root() {
        None if !system.is_live() => Some("not tried: this is not the running machine"),
        lacks => lacks,
    };
    match lacks {
        Some(_) if !mapped.iter().any(wanted) => return Ok(Vec::new()),
        Some(lacks) => return Err(lacks.to_owned()),
        None => {}
    }
    let mut tables = Vec::new();
    for name in mapped {
        let Some((major, minor)) = devices.numbers(&name) else { continue };
        let says_so = devices.has_crypt_uuid(&name);
        match table::read(major, minor) {
            Ok(table) => {
                let encryption = encryption(&table, says_so);
                // Self-encrypting disks have no crypt target: cryptsetup only unlocks them.
                if says_so || !table.crypts.is_empty() {
                    tables.push((devices.title(&name), table.crypts));
                }
                devices.by_table.insert(name, encryption);
            }
            Err(error) if says_so || devices.has_empty_uuid(&name) => {
                return Err(format!("the device mapper table of {name} cannot be read: {error}"));
            }
            Err(_) => {}
        }
    }
    Ok(tables)
}

/// Returns the encryption that a table shows, for a device whose UUID says that it is encrypted or not.
fn encryption(table: &Table, says_so: bool) -> Encryption {
    if table.crypts.iter().any(|crypt| cipher::encrypts_nothing(&crypt.cipher)) {
        Encryption::None
    } else if table.crypts.is_empty() {
        if says_so { Encryption::Full } else { Encryption::None }
    } else if table.others > 0 {
        Encryption::Partial
    } else {
        Encryption::Full
    }
}

pub(super) fn strength(tables: Result<&Tables, &String>) -> Finding {
    let tables = match tables {
        Ok(tables) if tables.is_empty() => {
            return Finding::not_applicable(STRENGTH, How::Read, "no device is encrypted by this kernel");
        }
        Ok(tables) => tables,
        Err(missing) => return Finding::unknown(STRENGTH, How::Read, missing),
    };
    let mut worst: Option<(Verdict, String)> = None;
    let mut seen = Vec::new();
    for (device, crypts) in tables {
        let mut graded: Vec<(Verdict, String)> = crypts.iter().map(|crypt| grade(device, crypt)).collect();
        if graded.is_empty() {
            graded.push((
                Verdict::Unknown,
                format!("{device} is a self-encrypting disk, whose cipher cannot be read"),
            ));
        }
        for crypt in crypts.iter().take(4) {
            let integrity =
                crypt.integrity.as_ref().map(|how| format!(", integrity {how}")).unwrap_or_default();
            seen.push((
                format!("table of {device}"),
                format!("{}, key of {} bits{integrity}", crypt.cipher, crypt.bits),
            ));
        }
        // Verdicts are ordered, the worst first.
        worst = graded.into_iter().chain(worst).min_by_key(|(verdict, _)| *verdict);
    }
    let (verdict, found) = match worst {
        Some((Verdict::Pass, _)) | None => {
            (Verdict::Pass, "every encrypted device uses a strong cipher".to_owned())
        }
        Some(worst) => worst,
    };
    let finding = Finding::new(STRENGTH, verdict, How::Read, found);
    seen.into_iter().take(8).fold(finding, |finding, (source, observed)| finding.seen(source, observed))
}

fn grade(device: &str, crypt: &Crypt) -> (Verdict, String) {
    let (mut verdict, mut why) = cipher::grade(&crypt.cipher);
    if verdict == Verdict::Pass && (1..128).contains(&crypt.bits) {
        (verdict, why) = (Verdict::Fail, "the key is shorter than 128 bits");
    }
    (verdict, format!("{device} uses {} ({why})", crypt.cipher))
}

pub(super) fn key(tables: Result<&Tables, &String>) -> Finding {
    let tables = match tables {
        Ok(tables) if tables.iter().all(|(_, crypts)| crypts.is_empty()) => {
            return Finding::not_applicable(KEY, How::Read, "no device is encrypted by this kernel");
        }
        Ok(tables) => tables,
        Err(missing) => return Finding::unknown(KEY, How::Read, missing),
    };
    let shown: Vec<&str> = tables
        .iter()
        .filter(|(_, crypts)| crypts.iter().any(|crypt| crypt.bits > 0 && crypt.keyring.is_none()))
        .map(|(device, _)| device.as_str())
        .collect();
    let (verdict, found) = if shown.is_empty() {
        (Verdict::Pass, "the kernel does not show the key of any encrypted disk".to_owned())
    } else {
        (
            Verdict::Warn,
            format!(
                "the kernel shows root the disk encryption key of {} (dmsetup table --showkeys)",
                few(&shown)
            ),
        )
    };
    let finding = Finding::new(KEY, verdict, How::Read, found);
    tables.iter().take(6).fold(finding, |finding, (device, crypts)| {
        let places: Vec<String> = crypts
            .iter()
            .map(|crypt| match &crypt.keyring {
                Some(kind) => format!("in a keyring ({kind})"),
                None if crypt.bits == 0 => "none".into(),
                None => "in the table".into(),
            })
            .collect();
        finding.seen(format!("table of {device}"), format!("key {}", few(&places)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crypt(cipher: &str, bits: usize, keyring: Option<&str>) -> Crypt {
        Crypt { cipher: cipher.into(), bits, keyring: keyring.map(Into::into), integrity: None }
    }

    #[test]
    fn a_table_counts_for_more_than_an_identifier() {
        let with = |cipher: Option<&str>, others, says_so| {
            let crypts = cipher.map(|cipher| crypt(cipher, 512, None)).into_iter().collect();
            encryption(&Table { crypts, others }, says_so)
        };
        assert_eq!(with(Some("aes-xts-plain64"), 0, false), Encryption::Full);
        assert_eq!(with(Some("aes-xts-plain64"), 1, true), Encryption::Partial);
        assert_eq!(with(Some("cipher_null-ecb"), 0, true), Encryption::None);
        // A self-encrypting disk, and a device made by dmsetup.
        assert_eq!((with(None, 1, true), with(None, 1, false)), (Encryption::Full, Encryption::None));
    }

    #[test]
    fn the_worst_cipher_counts() {
        let good = ("dm-0".to_owned(), vec![crypt("aes-xts-plain64", 512, Some("logon"))]);
        let fair = ("dm-1".to_owned(), vec![crypt("aes-cbc-essiv:sha256", 256, None)]);
        let bad = ("dm-2".to_owned(), vec![crypt("aes-ecb", 256, Some("logon"))]);
        let disk = ("dm-3".to_owned(), vec![]);
        let verdict = |tables: Tables| (strength(Ok(&tables)).verdict, key(Ok(&tables)).verdict);
        assert_eq!(verdict(vec![good.clone()]), (Verdict::Pass, Verdict::Pass));
        assert_eq!(verdict(vec![good.clone(), fair.clone()]), (Verdict::Warn, Verdict::Warn));
        assert_eq!(verdict(vec![fair, bad, good.clone()]), (Verdict::Fail, Verdict::Warn));
        assert_eq!(verdict(vec![good, disk.clone()]), (Verdict::Unknown, Verdict::Pass));
        assert_eq!(verdict(vec![disk]), (Verdict::Unknown, Verdict::NotApplicable));
        // A cipher without a key shows none.
        let none = ("dm-4".to_owned(), vec![crypt("cipher_null-ecb", 0, None)]);
        assert_eq!(verdict(vec![none]), (Verdict::Fail, Verdict::Pass));
        assert_eq!(verdict(vec![]), (Verdict::NotApplicable, Verdict::NotApplicable));
    }
}
