/*!
From the text of a file to a [`Document`], or to everything that is wrong with it.

```text
text ─ syntax ─▶ tables with spans ─ one file per kind of table ─▶ Document
```

Strings become types here and nowhere else. Reading goes on after a mistake, so that one run tells them all.

| file | what it owns |
|---|---|
| `syntax.rs` | TOML itself: its errors, in our words |
| `fields.rs` | taking values of one type out of a table; unknown keys |
| `table.rs` | the top of the file |
| `scope.rs`, `exception.rs`, `accept.rs`, `reasons.rs`, `settings.rs`, `seal.rs`, `trusted.rs` | one kind of table each |
| `place.rs`, `cgroup.rs`, `unit.rs` | where a scope or exception is |
| `waivers.rs` | the other kind of file: waivers of the assessment |
| `exe.rs`, `digest.rs`, `expiry.rs`, `name.rs` | one kind of value each |
*/
mod accept;
mod cgroup;
mod digest;
mod exception;
mod exe;
mod expiry;
mod fields;
mod name;
mod place;
mod reasons;
mod scope;
mod seal;
mod settings;
mod syntax;
mod table;
mod trusted;
mod unit;
mod waivers;
mod wrong;

pub use table::VERSION;
pub use waivers::{Waiver, read_waivers};

use toml::de::DeTable;

use crate::{document::Document, problem::Problem, problems::Problems, source::Source};

/// The keys of each kind of table.
pub mod keys {
    pub use super::{
        accept::KEYS as ACCEPT, exception::KEYS as EXCEPTION, scope::KEYS as SCOPE, seal::KEYS as SEAL,
        settings::KEYS as SETTINGS, table::KEYS as TOP, trusted::KEYS as TRUST,
    };
}

/// The largest file that is read: 10,000 exceptions are about 2 MiB.
pub const LARGEST: usize = 16 << 20;

/// Reads one file.
///
/// ```
/// use stockade_policy::{Source, read};
///
/// let source = Source::new("policy.toml", "version = 1\nlevel = \"integrty\"\n");
/// let problems = read(&source).unwrap_err();
/// assert_eq!(problems.list.len(), 1);
/// assert!(problems.to_string().contains("policy.toml:2"));
/// ```
///
/// # Errors
/// With everything that is wrong with it, in the order of its lines.
pub fn read(source: &Source) -> Result<Document, Problems> {
    of(source, "split it into files in policy.d, or cover many programs by one scope or unit", table::read)
}

fn of<T: Default>(
    source: &Source,
    too_large: &str,
    top: impl FnOnce(&mut Reader, &DeTable) -> T,
) -> Result<T, Problems> {
    let mut reader = Reader { source, problems: Vec::new() };
    let said = if source.text().len() > LARGEST {
        let mib = LARGEST >> 20;
        let what = format!("a file of more than {mib} MiB is not read");
        reader.problems.push(Problem::new(what, source.origin(&(0..0))).help(too_large));
        T::default()
    } else {
        syntax::read(&mut reader, top)
    };
    if reader.problems.is_empty() {
        return Ok(said);
    }
    let mut problems = reader.problems;
    problems.sort_by_key(|problem| problem.at.span);
    Err(Problems::new(problems, [source.clone()]))
}

/// The file that is read, and what was found wrong with it so far.
struct Reader<'s> {
    source: &'s Source,
    problems: Vec<Problem>,
}
