/*!
Where a scope or an exception is: `cgroup` or `unit`.
*/
use super::{
    Reader, cgroup,
    fields::{Table, Value},
    unit,
    wrong::Wrong,
};
use crate::model::{Place, Said};

impl Reader<'_> {
    pub(super) fn place(&mut self, table: &Table) -> Option<Said<Place>> {
        if let (Some(cgroup), Some(unit)) = (table.get("cgroup"), table.get("unit")) {
            let problem = self
                .wrong(format!("{} has one place: `cgroup` or `unit`, not both", table.called), &unit.span());
            let other = self.source.origin(&cgroup.span());
            self.report(problem.also(other, "the other one").help("keep the one that is meant"));
            return None;
        }
        if let Some(value) = table.get("cgroup") {
            return self.checked("cgroup", value, "cgroup = \"/kubepods.slice\"", cgroup::parse);
        }
        self.checked("unit", table.get("unit")?, "unit = \"fwupd.service\"", unit::parse)
    }

    fn checked(
        &mut self,
        key: &str,
        value: &Value,
        example: &str,
        parse: impl Fn(&str) -> Result<Place, Wrong>,
    ) -> Option<Said<Place>> {
        let text = self.string(key, value, example)?;
        if self.source.text().get(value.span()).is_some_and(escaped_by_mistake) {
            let problem =
                self.wrong("TOML replaces \\x in double quotes, and systemd's names have it", &value.span());
            self.report(problem.help("put the name in single quotes, which TOML leaves as it is"));
            return None;
        }
        match parse(&text.value) {
            Ok(place) => Some(Said { value: place, origin: text.origin }),
            Err(wrong) => {
                let problem = self.wrong(wrong.what, &value.span());
                self.report(problem.help(wrong.help));
                None
            }
        }
    }
}

/// Whether a name such as `"system-serial\x2dgetty.slice"` loses its `\x2d` on the way.
fn escaped_by_mistake(raw: &str) -> bool {
    let mut rest = raw;
    while raw.starts_with('"')
        && let Some((_, after)) = rest.split_once('\\')
    {
        if after.starts_with('x') {
            return true;
        }
        rest = after.strip_prefix('\\').unwrap_or(after);
    }
    false
}
