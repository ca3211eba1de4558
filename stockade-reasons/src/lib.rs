/*!
What is known about each reason of the kernel's lockdown, in one table.

A *reason* is the kernel's word for one thing lockdown refuses (`enum lockdown_reason`). The facts
are in `reasons.toml`; `build.rs` checks them and compiles them in, so looking one up costs nothing
at run time. Policy, `explain`, `probe`, `assess`, completions and `docs/reasons.md` all read them
from here and nowhere else.

Not here: the reasons' numbers. They move between kernels and are resolved by name from the running
kernel's BTF, which is the business of `stockade-kernel`.

| file | what it owns |
|---|---|
| `level.rs` | the three levels |
| `reason.rs` | the type of a table row |
| `lookup.rs` | finding a row by its names |
| `closure.rs` | what else falls when a reason is allowed |
| `kernel_line.rs` | the kernel's log line, taken apart |
| `page.rs` | `docs/reasons.md` (tests only) |

```
let reason = stockade_reasons::by_id("dev-mem").expect("a reason of every kernel");
assert_eq!(reason.kernel_string, "/dev/mem,kmem,port");
```
*/

#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod closure;
mod kernel_line;
mod level;
mod lookup;
#[cfg(test)]
mod page;
mod reason;

pub use closure::closure;
pub use kernel_line::{KernelLine, parse_kernel_line};
pub use level::{Level, UnknownLevel};
pub use lookup::{all, by_enum_name, by_id, by_kernel_string, nearest};
pub use reason::{Implies, Probe, Reason, Subject};
