/*!
The policy language: from files to tables that the kernel side reads, and from recorded events back to files.

```text
files ─ read ─▶ Documents ─ merge ─▶ Policy (model) ─ check ─▶ findings
                                        │
                                        ├─ interpret(request)            what it means, slowly
                                        └─ compile(reasons of a kernel) ─▶ Tables ─▶ stockade-kernel loads them
```
*/
#![deny(missing_docs)]

pub mod compile;
pub mod document;
pub mod interpret;
pub mod model;
pub mod place;
pub mod problem;
pub mod read;
pub mod render;
pub mod source;
pub mod words;

pub use document::Document;
pub use problem::{Problem, Problems};
pub use read::read;
pub use source::Source;
