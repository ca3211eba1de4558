/*!
The policy language: from files to tables that the kernel side reads.

```text
files ─ read ─▶ Documents ─ merge ─▶ Policy (model) ─ check ─▶ findings
                                        │
                                        ├─ interpret(request)            what it means, slowly
                                        └─ compile(reasons of a kernel) ─▶ Tables ─▶ stockade-kernel loads them
```
*/
#![deny(missing_docs)]

pub mod check;
pub mod compile;
pub mod diff;
pub mod document;
pub mod files;
pub mod interpret;
pub mod load;
pub mod merge;
pub mod model;
mod origins;
pub mod place;
pub mod problem;
mod quote;
pub mod read;
pub mod render;
mod root;
#[cfg(test)]
mod schema;
pub mod show;
pub mod source;
pub mod trust;
pub mod words;

pub use diff::diff;
pub use document::Document;
pub use load::{LoadError, Loaded, load};
pub use problem::{Problem, Problems};
pub use read::read;
pub use show::show;
pub use source::Source;
pub use trust::trustworthy;
