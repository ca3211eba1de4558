/*!
The machine: its kernel, its types, cgroups and files.
*/
pub mod btf;
pub mod cgroups;
pub mod executables;
mod facts;
pub mod host;
pub(crate) mod patience;
pub(crate) mod processes;

pub use facts::Machine;
