/*!
What is wrong with a value.
*/

/// What is wrong with a value, and what would be right.
pub(super) struct Wrong {
    pub(super) what: String,
    pub(super) help: String,
}

impl Wrong {
    pub(super) fn new(what: impl Into<String>, help: impl Into<String>) -> Self {
        Self { what: what.into(), help: help.into() }
    }
}
