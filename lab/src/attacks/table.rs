//! The table of attacks in SECURITY.md, generated from the list.

#[cfg(test)]
mod tests {
    use std::{env, fs};

    use crate::attacks::{Pins, Sealed, all};

    const BEGIN: &str = "<!-- made by STOCKADE_BLESS=1 cargo test -p stockade-lab -->\n";
    const END: &str = "<!-- until here -->\n";

    fn table() -> String {
        let mut text = String::from(BEGIN);
        text += "\n| attack | what root tries | pins only | sealed |\n|---|---|---|---|\n";
        for attack in all() {
            let pins = match attack.pins_only {
                Pins::Falls => "**falls**".to_owned(),
                Pins::FallsBefore(major, minor) => format!("**falls** before {major}.{minor}, then holds"),
                Pins::Holds => "holds".to_owned(),
                Pins::Open => "**let in**".to_owned(),
            };
            let sealed = match attack.sealed {
                Sealed::Holds => "holds".to_owned(),
                Sealed::Refused => "refused".to_owned(),
                Sealed::RefusedBefore(major, minor) => format!("refused before {major}.{minor}, then holds"),
            };
            text += &format!("| {} | {} | {pins} | {sealed} |\n", attack.name, attack.tries);
        }
        text + "\n" + END
    }

    #[test]
    fn security_md_has_the_attacks_as_they_are_played() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../SECURITY.md");
        let document = fs::read_to_string(path).unwrap();
        let (before, rest) = document.split_once(BEGIN).expect("SECURITY.md has a place for the table");
        let (_, after) = rest.split_once(END).expect("the table in SECURITY.md has an end");
        let wanted = format!("{before}{}{after}", table());
        if env::var_os("STOCKADE_BLESS").is_some() {
            fs::write(path, wanted).unwrap();
        } else {
            assert!(
                document == wanted,
                "the table of attacks in SECURITY.md is not what is played: STOCKADE_BLESS=1 cargo test -p stockade-lab writes it"
            );
        }
    }
}
