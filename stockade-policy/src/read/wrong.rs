/*!
Mistakes in values.
*/

/// A mistake in a value, and the right value.
pub(super) struct Wrong {
    pub(super) what: String,
    pub(super) help: String,
}

impl Wrong {
    pub(super) fn new(what: impl Into<String>, help: impl Into<String>) -> Self {
        Self { what: what.into(), help: help.into() }
    }
}
