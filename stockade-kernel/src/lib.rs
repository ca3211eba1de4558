/*!
The user side: everything that Stockade reads from the kernel or does to it.

```text
host         facts about this machine: LSM list, native lockdown, Secure Boot, bpffs, clocks
btf          this kernel's BTF: numbers of the reasons, offsets of fields, ids of hooks
cgroups      the cgroup v2 hierarchy: places of a policy, units
executables  the identity of programs that exceptions name
attach       the two ways to attach the deciding program
duty         the purpose and hook of each program
object       the compiled kernel side, loaded: maps, verifier, attach
tables       writes a compiled policy into maps
pins         the pins that keep a policy in force without a process
ready        prepares a policy for this machine
enforce      the steps by which a policy comes into force, safe against a kill at any point
slots        the two slots of a pinned policy: reads, writes and flips them
trial        attaches the deciding program and detaches it again
selftest     proves that the program decides
description  the policy in force as it was configured
labels       processes that run an excepted program without a label
notices      notices for the administrator
anchor       the sealed programs on the root cgroup
seal         makes a seal, adds to it, and proves that it holds
sealed       reads a seal by its dialogue
foreign      programs of others that a seal refuses
links        links of programs that a guard of others hides
trust        programs of others that a seal trusts
instructions programs of a few instructions, made without a compiler
kept_out     programs of others that a seal would refuse, for a record
kept_files   files of other security modules that a seal protects from writes
lift         lifts a policy
read_back    reads the policy in force
patience     waits for the kernel to finish something
elsewhere    detects a deciding program that is pinned elsewhere
events       reads the events of requests that were not simply allowed
measure      empty programs and the kernel's statistics, for the benchmark
programs     BPF programs of others that read kernel memory or write user memory
sys          the system calls, and the bpf(2) calls that Aya lacks
```

Only this crate uses Aya and bpf(2). Minimum kernel: 5.15.
*/
#![deny(missing_docs)]

mod anchor;
pub mod attach;
pub mod btf;
pub mod cgroups;
pub mod description;
mod duty;
mod elsewhere;
pub mod enforce;
mod error;
pub mod events;
pub mod executables;
pub mod foreign;
pub mod host;
mod instructions;
mod kept_files;
pub mod kept_out;
pub mod labels;
pub mod lift;
mod links;
pub mod measure;
pub mod notices;
mod object;
mod patience;
pub mod pins;
#[cfg(test)]
mod played;
pub mod programs;
pub mod read_back;
mod ready;
pub mod seal;
mod sealed;
mod selftest;
mod slots;
mod sys;
mod tables;
pub mod trial;
mod trust;

pub use error::Error;
pub use object::digest as object_digest;
pub use stockade_common::{Event, SettingEvent, SettingRule, Verdict};
