/*!
The copyright notices and licence texts of the crates in the program, which their licences want passed on.
*/
use std::{collections::BTreeMap, fs};

use anyhow::Context;

use super::crates::Crate;
use crate::workspace;

/// Words that files with notices begin with.
const NOTICES: [&str; 5] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE"];

/// Returns every distinct text once, under the crates that carry it.
pub fn write(crates: &BTreeMap<String, Crate>) -> anyhow::Result<String> {
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut list = String::new();
    for (id, krate) in crates {
        if krate.folder.starts_with(workspace::root()) {
            continue;
        }
        list.push_str(&format!("{id}: {}\n", krate.license));
        let mut found = false;
        for name in super::names(&krate.folder)? {
            let path = krate.folder.join(&name);
            if !NOTICES.iter().any(|word| name.to_uppercase().starts_with(word)) || !path.is_file() {
                continue;
            }
            let text = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            let text = String::from_utf8_lossy(&text).replace("\r\n", "\n").trim_end().to_owned();
            texts.entry(text).or_default().push(format!("{id} ({name})"));
            found = true;
        }
        if !found {
            list.push_str("    (its source carries no licence text of its own)\n");
        }
    }
    let mut out = format!("The program contains these crates, under these licences:\n\n{list}");
    let mut blocks: Vec<(Vec<String>, String)> = texts.into_iter().map(|(text, ids)| (ids, text)).collect();
    blocks.sort();
    for (ids, text) in blocks {
        out.push_str(&format!("\n{}\n{}\n\n{text}\n", "=".repeat(80), ids.join("\n")));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::write;
    use crate::package::crates;

    #[test]
    fn the_notices_of_the_programs_crates_are_collected() {
        let text = write(&crates::shipped().unwrap()).unwrap();
        assert!(text.contains("\nclap@") && text.contains("Permission is hereby granted"));
        // BSD-3-Clause asks for its notice in binaries.
        assert!(text.contains("Isis Agora Lovecruft"), "the notice of subtle is missing");
        assert!(!text.contains("stockade-kernel@"), "our own crates have their licences beside");
    }
}
