/*!
The policy language: from files to tables that the kernel side reads, and from recorded events back to files.

```text
files ─ read ─▶ Documents ─ merge ─▶ Policy (model) ─ check ─▶ findings
                                        │
                                        ├─ interpret(request)            what it means, slowly
                                        └─ compile(reasons of a kernel) ─▶ Tables ─▶ stockade-kernel loads them

events of watch ─ read_record ─▶ Record ─┬─ replay(policy) ─▶ what would be refused
                                         └─ learn ─▶ exceptions to review, as a file again
```
*/
#![deny(missing_docs)]

pub mod compile;
pub mod document;
mod harmless;
pub mod interpret;
pub mod learn;
pub mod model;
pub mod place;
pub mod problem;
pub mod read;
pub mod recorded;
pub mod render;
pub mod replay;
pub mod requester;
pub mod source;
pub mod unit;
pub mod when;
pub mod words;

pub use document::Document;
pub use learn::learn;
pub use problem::{Problem, Problems};
pub use read::read;
pub use recorded::{Record, read_record};
pub use replay::replay;
pub use source::Source;
