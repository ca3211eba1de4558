/*!
The policy language: from files to tables that the kernel side reads, and from recorded events back to a file.

```text
files ─ read ─▶ Documents ─ merge ─▶ Policy (model) ─ check ─▶ findings
                                        │
                                        ├─ interpret(request)            what it means, slowly
                                        └─ compile(reasons of a kernel) ─▶ Tables ─▶ stockade-kernel loads them

events of watch ─ read_record ─▶ Record ─┬─ replay(policy) ─▶ what would be refused
                                         └─ learn ─▶ exceptions to review, as a file again
```

From a file to tables for a kernel:

```
use stockade_policy::{Source, compile::compile, interpret::KernelReason, merge::merge, model::Clock, read};
use stockade_reasons::Level;

let document = read(&Source::new("policy.toml", "version = 1\nlevel = \"integrity\"\n"))?;
let policy = merge([document]).expect("one file cannot contradict another");

// On a running system stockade-kernel reads the numbers from the kernel's BTF.
let dev_mem = stockade_reasons::by_id("dev-mem").expect("a reason of every kernel");
let reasons = [KernelReason {
    number: 2,
    id: Some(dev_mem.id),
    enum_name: dev_mem.enum_name.to_owned(),
    level: dev_mem.level,
    debugger: dev_mem.debugger,
}];
let now = Clock { wall: "2026-06-01T12:00:00Z".parse()?, boot_ns: 0 };
let tables = compile(&policy, Level::None, &reasons, now)?;
assert_eq!(tables.words.deny, 1 << 2);
# Ok::<(), Box<dyn std::error::Error>>(())
```
*/
#![deny(missing_docs)]

pub mod check;
pub mod compile;
pub mod diff;
pub mod document;
pub mod files;
pub mod finder;
pub mod fragment;
pub mod interpret;
pub mod laxer;
pub mod learn;
pub mod load;
pub mod merge;
pub mod model;
mod origins;
pub mod place;
pub mod problem;
mod problems;
mod quote;
pub mod read;
pub mod recorded;
pub mod render;
pub mod replay;
pub mod requester;
mod root;
mod said;
#[cfg(test)]
mod schema;
pub mod settings;
#[cfg(test)]
mod settings_page;
pub mod show;
pub mod source;
pub mod trust;
pub mod trusted;
pub mod unit;
pub mod unit_files;
pub mod when;
pub mod words;

pub use diff::diff;
pub use document::Document;
pub use learn::learn;
pub use load::{LoadError, Loaded, load};
pub use problem::Problem;
pub use problems::Problems;
pub use read::{Waiver, read, read_waivers};
pub use recorded::{Record, read_record};
pub use replay::replay;
pub use show::show;
pub use source::Source;
pub use stockade_text::harmless;
pub use trust::trustworthy;
