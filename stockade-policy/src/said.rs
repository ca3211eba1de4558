/*!
A value of a policy and the place where it was said.
*/
use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// Where something was said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Origin {
    /// The file as it was named, or words such as `command line` and `default`.
    pub file: Arc<str>,
    /// Line, from 1; 0 where there are no lines.
    pub line: u32,
    /// Byte offsets of the value in that file: start and end; both 0 where there are none.
    pub span: (u32, u32),
}

impl Origin {
    /// A place without lines.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self { file: name.into(), line: 0, span: (0, 0) }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 { f.write_str(&self.file) } else { write!(f, "{}:{}", self.file, self.line) }
    }
}

/// A value and where it was said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said<T> {
    /// The value.
    pub value: T,
    /// Where.
    pub origin: Origin,
}

impl<T> Said<T> {
    /// A value said at a place without lines.
    pub fn at(value: T, place: &str) -> Self {
        Self { value, origin: Origin::named(place) }
    }
}
