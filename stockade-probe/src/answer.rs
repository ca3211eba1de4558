//! The results of a probe, and the meaning of the kernel's errors.

use std::io;

/// The kernel's answer at a door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The kernel refuses the operation in the way lockdown does.
    Refused,
    /// Something else refuses before the lockdown check is reached: what, in plain words.
    RefusedElsewhere(String),
    /// The kernel lets root through.
    Free,
    /// The door does not exist here, or something in front of it decides: why, in plain words.
    Absent(String),
    /// The caller is not allowed to try: what it lacks.
    NeedsRoot(String),
    /// Something unexpected: what was tried and what came back.
    Failed(String),
    /// This door is never tried: why.
    Never(&'static str),
}

/// An answer with the errno behind it: what a probe hands back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) answer: Answer,
    pub(crate) errno: Option<i32>,
}

impl Outcome {
    pub(crate) const fn free() -> Self {
        Self { answer: Answer::Free, errno: None }
    }

    pub(crate) const fn refused(errno: i32) -> Self {
        Self { answer: Answer::Refused, errno: Some(errno) }
    }

    pub(crate) fn refused_elsewhere(why: impl Into<String>) -> Self {
        Self { answer: Answer::RefusedElsewhere(why.into()), errno: None }
    }

    pub(crate) const fn never(why: &'static str) -> Self {
        Self { answer: Answer::Never(why), errno: None }
    }

    pub(crate) fn absent(why: impl Into<String>) -> Self {
        Self { answer: Answer::Absent(why.into()), errno: None }
    }

    pub(crate) fn needs_root(what: impl Into<String>) -> Self {
        Self { answer: Answer::NeedsRoot(what.into()), errno: None }
    }

    pub(crate) fn failed(what: impl Into<String>) -> Self {
        Self { answer: Answer::Failed(what.into()), errno: None }
    }

    /// Adds the errno that led to the answer.
    pub(crate) fn with(mut self, error: &io::Error) -> Self {
        self.errno = error.raw_os_error();
        self
    }

    /// Reads an error as most doors mean it: EPERM is lockdown's refusal, a missing file, device or
    /// system call means that the door is not there, anything else is unexpected.
    pub(crate) fn from_error(tried: &str, error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EPERM) => Self::refused(libc::EPERM),
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO | libc::ENOSYS) => {
                Self::absent(format!("{tried}: {error}")).with(error)
            }
            _ => Self::failed(format!("{tried}: {error}")).with(error),
        }
    }

    /// Like [`Outcome::from_error`], for a door where the kernel reports this errno only after the
    /// lockdown check: seeing it means that the door was open.
    pub(crate) fn from_error_past(tried: &str, error: &io::Error, past: i32) -> Self {
        if error.raw_os_error() == Some(past) {
            Self::free().with(error)
        } else {
            Self::from_error(tried, error)
        }
    }

    /// Reads a result: success is a free door, an error is read by [`Outcome::from_error`].
    pub(crate) fn from_result<T>(tried: &str, result: io::Result<T>) -> Self {
        match result {
            Ok(_) => Self::free(),
            Err(error) => Self::from_error(tried, &error),
        }
    }
}

/// Turns what a system call returned into a result: negative means an error in errno.
pub(crate) fn check(returned: i64) -> io::Result<i64> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(errno: i32) -> io::Error {
        io::Error::from_raw_os_error(errno)
    }

    #[test]
    fn errors_are_read_as_lockdown_means_them() {
        assert_eq!(Outcome::from_error("x", &error(libc::EPERM)), Outcome::refused(libc::EPERM));
        let missing = Outcome::from_error("open /dev/x", &error(libc::ENOENT));
        assert!(matches!(&missing.answer, Answer::Absent(why) if why.starts_with("open /dev/x: ")));
        assert_eq!(missing.errno, Some(libc::ENOENT));
        assert!(matches!(Outcome::from_error("x", &error(libc::EIO)).answer, Answer::Failed(_)));
    }

    #[test]
    fn an_error_past_the_check_means_free() {
        let past = Outcome::from_error_past("x", &error(libc::EINVAL), libc::EINVAL);
        assert_eq!(past, Outcome { answer: Answer::Free, errno: Some(libc::EINVAL) });
        let refused = Outcome::from_error_past("x", &error(libc::EPERM), libc::EINVAL);
        assert_eq!(refused.answer, Answer::Refused);
    }
}
