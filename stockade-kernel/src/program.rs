/*!
BPF programs: those of the built-in object, and those that others have loaded.
*/
pub mod attach;
pub(crate) mod duty;
pub(crate) mod info;
pub(crate) mod instructions;
pub(crate) mod links;
pub mod loaded;
pub(crate) mod object;
