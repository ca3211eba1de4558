/*!
The policy language: from files to tables that the kernel side reads.

```text
files ─ read ─▶ Documents ─ merge ─▶ Policy (model) ─ check ─▶ findings
                                        │
                                        └─ compile(reasons of a kernel) ─▶ Tables ─▶ stockade-kernel loads them
```
*/
#![deny(missing_docs)]

pub mod check;
pub mod document;
pub mod model;
pub mod problem;
pub mod read;
pub mod render;
pub mod source;
pub mod words;

pub use document::Document;
pub use problem::{Problem, Problems};
pub use read::read;
pub use source::Source;
