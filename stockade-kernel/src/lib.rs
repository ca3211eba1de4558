/*!
The user side of the kernel: everything Stockade asks of it or does to it.

```text
host         what this machine offers: BTF, LSM list, native lockdown, Secure Boot, bpffs
btf          this kernel's numbers of the reasons and offsets of the fields programs read
cgroups      the cgroup tree: places of a policy, units
executables  programs of a policy, as the kernel will know them
attach       the two ways to be asked
duty         what each program of ours is for and attached to
object       the compiled kernel side, loaded: maps, verifier, attach
tables       a compiled policy, written into maps
pins         where enforcement lives while no process of ours does
ready        a policy made ready for this machine
enforce      the steps from a policy to its effect, in an order that a kill at any point cannot spoil
slots        what is in force of a pinned policy, what is written beside it, and which of both counts
trial        attaching the program, heard and taken off again
selftest     the proof that it decides
description  the policy in force in words
labels       who runs an excepted program without being known for it
notices      what the administrator should know
anchor       what the root cgroup holds: a seal
seal         the steps to it, what is added to it, and the proof that it holds
sealed       a seal, as it says itself what it is
foreign      programs of others that a seal keeps out
links        what links say of programs that a guard of another's hides
trust        programs of others that a seal lets in
instructions programs of a few instructions, written down by hand
kept_out     programs of others that a seal would keep out, to be recorded
kept_files   files of other security modules that a seal keeps from being written
lift         the way back
read_back    what is in force
patience     how long is waited for what the kernel does later
elsewhere    whether a program of ours works where we do not look
events       what was refused, audited and excepted, read from the ring buffer
measure      the floor and the kernel's statistics, for the benchmark
programs     BPF programs of others that read kernel memory or write user memory
sys          the bpf(2) calls that Aya has no door for
```

The only crate that knows Aya and bpf(2). Minimum kernel: 5.15.
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
