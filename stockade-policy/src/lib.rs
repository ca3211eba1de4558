/*!
The policy language: from files to tables that the kernel side reads.

```text
files ─ read ─▶ Policy (model) ─ check ─▶ findings
                   │
                   └─ compile(reasons of a kernel) ─▶ Tables ─▶ stockade-kernel loads them
```
*/
#![deny(missing_docs)]

pub mod check;
pub mod model;
