/*!
The user side of the kernel: everything Stockade asks of it or does to it.

```text
host     what this machine offers: BTF, LSM list, native lockdown, Secure Boot, bpffs
btf      this kernel's numbers of the reasons and offsets of the fields events need
intent   what the administrator wants, compiled to bit sets for this kernel
attach   the two ways to be asked
object   the compiled kernel side, loaded: maps, verifier, attach
pins     where enforcement lives while no process of ours does
selftest proof that the attached program decides
elsewhere whether a program of ours runs though nothing is pinned where we look
enforce  the steps from intent to effect, in an order that a kill at any point cannot spoil
events   what was refused and audited, read from the ring buffer
measure  the floor and the kernel's statistics, for the benchmark
programs BPF programs of others that read kernel memory or write user memory
sys      the bpf(2) calls that Aya has no door for
```

The only crate that knows Aya and bpf(2). Minimum kernel: 5.15.
*/
#![deny(missing_docs)]

pub mod attach;
pub mod btf;
mod elsewhere;
pub mod enforce;
mod error;
pub mod events;
pub mod host;
pub mod intent;
pub mod measure;
mod object;
pub mod pins;
pub mod programs;
mod selftest;
mod sys;

pub use error::Error;
pub use stockade_common::{Event, Verdict};
