/*!
A policy that pins keep in force: pins, slots, tables, description and labels.
*/
pub mod description;
pub(crate) mod elsewhere;
pub mod labels;
pub mod pins;
pub(crate) mod slots;
pub(crate) mod tables;
