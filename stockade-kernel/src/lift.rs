/*!
Lifts a policy: removes the link's pin first, which ends all decisions.
*/
use crate::{
    Error,
    machine::host,
    pinned::{
        description, elsewhere,
        pins::{self, Lock, Pinned},
    },
    program::{attach::wait_until_detached, duty::Duty},
    sealed::anchor::{self, Found},
};

/// The result of [`lift`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifted {
    /// A policy was lifted.
    Lifted,
    /// No policy was in force.
    NothingToLift,
}

/// Lifts the policy in force and removes every pin.
///
/// # Errors
/// [`Error`] when the pins cannot be removed. With `force`, pins of another version or damaged ones are removed without reading them.
pub fn lift(force: bool) -> Result<Lifted, Error> {
    if !host::is_root() {
        return Err(Error::no_privilege("changing what the kernel refuses"));
    }
    let _lock = Lock::take()?;
    if let Found::Sealed(_) = anchor::look()? {
        return Err(Error::Sealed {
            what: "lifting",
            instead: "enforcement ends with the next boot; `stockade status` says what is sealed".into(),
        });
    }
    anchor::tidy_up()?;
    let attached: Vec<_> =
        [Duty::Decide, Duty::Settings].into_iter().filter_map(pins::link_info_of).collect();
    match pins::open() {
        Ok(Pinned::Nothing { leftovers }) => {
            if leftovers {
                pins::remove()?;
            }
            elsewhere::nothing()?;
            description::keep_only(&[]);
            return Ok(Lifted::NothingToLift);
        }
        // Two pins cannot be removed at once, and the program for settings would outlive the deciding one: an empty policy comes first.
        Ok(Pinned::Whole(mut enforcement)) if !pins::lacks(Duty::Settings) => enforcement.disarm()?,
        Ok(Pinned::Whole(_)) => {}
        Err(Error::OtherVersion { .. } | Error::Damaged { .. }) if force => {}
        Err(e) => return Err(e),
    }
    pins::remove()?;
    description::keep_only(&[]);
    for attached in attached {
        wait_until_detached(&attached)?;
    }
    Ok(Lifted::Lifted)
}
