/*!
`[seal]`: how it is recorded that a policy was sealed, what can be added to the seal, and which programs of others it lets in.
*/
use toml::de::DeValue;

use super::{
    Reader,
    fields::{Table, Value},
};
use crate::{
    document::SealTable,
    model::{Said, Seal},
};

/// The keys of `[seal]`.
pub const KEYS: &[&str] = &["pcr", "require-tpm", "room-for-scopes", "trust"];

const HEADING: &str = "[seal] and below it: pcr = 13";
const PCR: &str = "pcr = 13";

impl Reader<'_> {
    /// The table `[seal]`.
    pub(super) fn seal(&mut self, top: &Table) -> SealTable {
        let Some(value) = top.get("seal") else { return SealTable::default() };
        let DeValue::Table(fields) = value.get_ref() else {
            self.wrong_type("seal", "a table", value, HEADING);
            return SealTable::default();
        };
        let table = Table { fields, at: value.span(), called: "[seal]" };
        self.only_known_keys(&table, KEYS);
        let pcr = table.get("pcr").and_then(|value| self.pcr(value));
        let mut boolean = |key| table.get(key).and_then(|value| self.boolean(key, value));
        let (require_tpm, room_for_scopes) = (boolean("require-tpm"), boolean("room-for-scopes"));
        SealTable { pcr, require_tpm, room_for_scopes, trusted: self.trusted(&table) }
    }

    fn pcr(&mut self, value: &Value) -> Option<Said<u8>> {
        let DeValue::Integer(number) = value.get_ref() else {
            self.wrong_type("pcr", "a number", value, PCR);
            return None;
        };
        let number = i64::from_str_radix(number.as_str(), number.radix()).ok();
        let pcr = number.and_then(|number| u8::try_from(number).ok());
        if let Some(pcr) = pcr.filter(|pcr| Seal::PCRS.contains(pcr)) {
            return Some(self.said(pcr, &value.span()));
        }
        let what = match pcr {
            Some(0..=7) => "PCR 0 to 7 are the firmware's: what it measured could not be told any more",
            Some(16 | 23) => "PCR 16 and 23 can be reset at any time: a record there proves nothing",
            Some(17..=22) => {
                "PCR 17 to 22 are for a measured launch: the operating system cannot extend them all"
            }
            _ => "a TPM has the PCRs 0 to 23",
        };
        let problem = self.wrong(what, &value.span());
        self.report(problem.help(format!("take one of 8 to 15, for instance: {PCR}")));
        None
    }
}
