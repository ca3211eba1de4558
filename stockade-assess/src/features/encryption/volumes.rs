/*!
Encrypted volumes: how good their ciphers are, and where their keys.
*/
use super::{
    KEY, STRENGTH, cipher,
    devices::Devices,
    table::{self, Crypt},
};
use crate::{Finding, How, System, Verdict, few};

/// A device and what encrypts it.
pub(super) type Tables = Vec<(String, Vec<Crypt>)>;

/// The tables of all encrypted devices. Devices that encrypt although their identifiers do not say so become known by them.
pub(super) fn tables(system: &System, devices: &mut Devices) -> Result<Tables, String> {
    let mapped = devices.mapped();
    let said: Vec<&String> = mapped.iter().filter(|name| devices.encrypts(name)).collect();
    if mapped.is_empty() {
        return Ok(Vec::new());
    }
    if let Some(lacks) = system.lacks_root() {
        return if said.is_empty() { Ok(Vec::new()) } else { Err(lacks.to_owned()) };
    }
    if !system.is_live() {
        return if said.is_empty() {
            Ok(Vec::new())
        } else {
            Err("not tried: this is not the running machine".into())
        };
    }
    let mut tables = Vec::new();
    let mut also = Vec::new();
    for name in &mapped {
        let Some((major, minor)) = devices.numbers(name) else { continue };
        match table::of_device(major, minor) {
            Ok(crypts) if !crypts.is_empty() => {
                also.push(name.clone());
                tables.push((devices.title(name), crypts));
            }
            Ok(_) | Err(_) if !said.contains(&name) => {}
            // Some disks encrypt by themselves, and cryptsetup only unlocks them.
            Ok(_) => tables.push((devices.title(name), Vec::new())),
            Err(error) => return Err(format!("the device mapper does not tell of {name}: {error}")),
        }
    }
    devices.also = also;
    devices.tables = true;
    Ok(tables)
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
                format!("{device} is encrypted by the disk itself, which tells no cipher"),
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
        // In order, the worst first.
        worst = graded.into_iter().chain(worst).min_by_key(|(verdict, _)| *verdict);
    }
    let (verdict, found) = match worst {
        Some((Verdict::Pass, _)) | None => {
            (Verdict::Pass, "each encrypted device uses a good cipher".to_owned())
        }
        Some(worst) => worst,
    };
    let finding = Finding::new(STRENGTH, verdict, How::Read, found);
    seen.into_iter().take(8).fold(finding, |finding, (source, observed)| finding.seen(source, observed))
}

fn grade(device: &str, crypt: &Crypt) -> (Verdict, String) {
    let (mut verdict, mut why) = cipher::grade(&crypt.cipher);
    if verdict == Verdict::Pass && (1..128).contains(&crypt.bits) {
        (verdict, why) = (Verdict::Fail, "its key is shorter than 128 bits");
    }
    (verdict, format!("{device} is encrypted with {}: {why}", crypt.cipher))
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
        .filter(|(_, crypts)| crypts.iter().any(|crypt| crypt.keyring.is_none()))
        .map(|(device, _)| device.as_str())
        .collect();
    let (verdict, found) = if shown.is_empty() {
        (Verdict::Pass, "the kernel shows no disk's key: each was loaded from a keyring".to_owned())
    } else {
        (Verdict::Warn, format!("the kernel shows root the key of {}", few(&shown)))
    };
    let finding = Finding::new(KEY, verdict, How::Read, found);
    tables.iter().take(6).fold(finding, |finding, (device, crypts)| {
        let places: Vec<String> = crypts
            .iter()
            .map(|crypt| {
                crypt
                    .keyring
                    .as_ref()
                    .map_or_else(|| "in the table".into(), |kind| format!("in a keyring ({kind})"))
            })
            .collect();
        finding.seen(format!("table of {device}"), format!("key {}", few(&places)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_cipher_counts() {
        let crypt = |cipher: &str, bits, keyring: Option<&str>| Crypt {
            cipher: cipher.into(),
            bits,
            keyring: keyring.map(Into::into),
            integrity: None,
        };
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
        assert_eq!(verdict(vec![]), (Verdict::NotApplicable, Verdict::NotApplicable));
    }
}
