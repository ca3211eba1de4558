/*!
The policy language: from files to tables that the kernel side reads.

```text
files ─ read ─▶ Policy (model) ─ check ─▶ findings
                   │
                   ├─ interpret(request)            what it means, slowly
                   └─ compile(reasons of a kernel) ─▶ Tables ─▶ stockade-kernel loads them
```
*/
#![deny(missing_docs)]

pub mod compile;
pub mod interpret;
pub mod model;
pub mod place;
