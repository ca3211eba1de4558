/*!
Who is at a setting since before the program was there that holds it.

The kernel asks that program when a write begins. One that began before can be held up, by a lock for instance, and set the value when it
goes on. The kernel counts who is at any file of a table of settings: so a setting is read while a program sees that count. Where it is
this process alone, whoever comes later is asked about.
*/
use std::{io, path::Path};

use crate::{Error, patience::Patience, sys::fs};

/// Waits until nobody is at these settings any more who was there before. `seen` is [`stockade_common::Seen::access`].
pub(super) fn none_from_before<'a>(
    settings: impl Iterator<Item = &'a str>,
    seen: &dyn Fn() -> Result<u64, Error>,
) -> Result<(), Error> {
    for name in settings {
        let path = Path::new("/proc/sys").join(name);
        let mut patience = Patience::new();
        loop {
            let before = seen()? >> 32;
            match fs::read(&path) {
                // Not on this kernel, or no longer there: a device that has gone.
                Err(e) if e.kind() == io::ErrorKind::NotFound => break,
                // The value may not be to be had; that it was asked for is enough.
                Ok(_) | Err(_) => {}
            }
            let now = seen()?;
            // One that is being read is counted as this process.
            if now >> 32 > before && now & u64::from(u32::MAX) <= 1 {
                break;
            }
            if !patience.wait() {
                return Err(Error::Request(if now >> 32 > before {
                    format!(
                        "not sealed: somebody has been reading or writing a setting in the table of {} since before it was held, for {} s, and could change it \
                         after the seal: end that process (its stack in /proc/PID/stack names proc_sys_call_handler) and seal again",
                        path.display(),
                        patience.seconds()
                    )
                } else {
                    format!(
                        "not sealed: {} cannot be read, so nobody can tell whether somebody is writing it: take it out of [settings]",
                        path.display()
                    )
                }));
            }
        }
    }
    Ok(())
}
