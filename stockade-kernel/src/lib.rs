/*!
The user side: everything that Stockade reads from the kernel or does to it.

```text
enforce      applies a policy, safe against a kill at any point     lift         lifts it          trial        attaches and detaches, for check-host
seal         makes a seal, adds to it, proves that it holds         read_back    reads the state   events       reads events
ready        prepares a policy for this machine                     selftest     proves that the program decides
notices      notices for the administrator                          lab          what only the lab needs

sealed/      anchor, the programs on the root cgroup; the dialogue with a seal; its gaps; programs and files of others
pinned/      pins, slots, tables, description and labels of the policy in force
program/     BPF programs: duties, the built-in object, attachments; loaded programs and links of others
machine/     kernel, BTF, cgroups, executables, processes
sys/         the system calls, and the bpf(2) calls that Aya lacks; the seam of the model tests
```

Each line uses the ones below it and none above.

Only this crate uses Aya and bpf(2). Minimum kernel: 5.15.
*/
#![deny(missing_docs)]

pub mod enforce;
mod error;
pub mod events;
#[doc(hidden)]
pub mod lab;
pub mod lift;
mod machine;
pub mod notices;
mod pinned;
#[cfg(test)]
mod played;
mod program;
pub mod read_back;
mod ready;
pub mod seal;
mod sealed;
mod selftest;
mod sys;
pub mod trial;

pub use error::Error;
pub use machine::{Machine, btf, cgroups, executables, host};
pub use pinned::{description, labels, pins};
pub use program::{attach, loaded as programs, object::digest as object_digest};
pub use sealed::{blocked_programs, foreign};
pub use stockade_common::{Event, SettingEvent, SettingRule, Verdict};
