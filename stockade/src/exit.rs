/*!
The result of a command.
*/

/// The result of a command; the exit status is made from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done, or the answer is yes.
    Done,
    /// The answer is no.
    No,
    /// Not everything could be asked, and what could does not settle it.
    Unknown,
}
