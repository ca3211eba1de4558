/*!
A child that calls a return instruction it has put somewhere.
*/
use std::ptr;

use crate::child::{self, End};

/// A return, and room around it: it is never run past.
#[cfg(target_arch = "x86_64")]
const RETURN: Option<[u8; 4]> = Some([0xc3; 4]);
#[cfg(target_arch = "aarch64")]
const RETURN: Option<[u8; 4]> = Some(0xd65f_03c0_u32.to_le_bytes());
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const RETURN: Option<[u8; 4]> = None;

/// Statuses that the child ends with. None is a panic's.
const RAN: i32 = 40;
const REFUSED: i32 = 41;
const MISSING: i32 = 42;
const NO_MEMORY: i32 = 43;
/// It got SIGSEGV.
const FAULTED: i32 = 44;

/// Where the instruction is put.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Stack,
    Heap,
    /// In a mapping that is written and made executable afterwards.
    Remapped,
    /// Executes remapped memory in a child that has set PR_SET_MDWE.
    RemappedWithMdwe,
    /// In a mapping made executable as it should be: shows that the instruction works.
    #[cfg(test)]
    Code,
}

impl Place {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Stack => "the stack",
            Self::Heap => "the heap",
            Self::Remapped | Self::RemappedWithMdwe => "a mapping",
            #[cfg(test)]
            Self::Code => "code",
        }
    }

    pub(super) fn what(self) -> &'static str {
        match self {
            Self::Stack => "a child that jumped into its stack",
            Self::Heap => "a child that jumped into its heap",
            Self::Remapped => "a child that made executable what it wrote",
            Self::RemappedWithMdwe => "the same after PR_SET_MDWE",
            #[cfg(test)]
            Self::Code => "a child that jumped into code",
        }
    }
}

/// The result.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Ran,
    /// mprotect was refused.
    Refused,
    /// The kernel lacks PR_SET_MDWE.
    Missing,
    NoMemory,
    NotHere,
    NotStarted(String),
    Ended(End),
}

impl Answer {
    pub(super) fn what(&self) -> String {
        match self {
            Self::Ran => "it ran".into(),
            Self::Refused => "mprotect(PROT_EXEC) was refused".into(),
            Self::Missing => "this kernel has no PR_SET_MDWE".into(),
            Self::NoMemory => "the child got no memory for it".into(),
            Self::NotHere => "not tried on this architecture".into(),
            Self::NotStarted(error) => format!("no child could be started: {error}"),
            Self::Ended(End::Signal(libc::SIGSEGV)) => "killed by SIGSEGV".into(),
            Self::Ended(end) => format!("the child {end}"),
        }
    }
}

pub(super) fn run(place: Place) -> Answer {
    let Some(code) = RETURN else { return Answer::NotHere };
    let ended = child::run(child::TRIAL, |_| {
        let status = act(place, code);
        child::leave(status);
    });
    match ended {
        Err(error) => Answer::NotStarted(error.to_string()),
        Ok((End::Exited(RAN), _)) => Answer::Ran,
        Ok((End::Exited(REFUSED), _)) => Answer::Refused,
        Ok((End::Exited(MISSING), _)) => Answer::Missing,
        Ok((End::Exited(NO_MEMORY), _)) => Answer::NoMemory,
        Ok((End::Exited(FAULTED), _)) => Answer::Ended(End::Signal(libc::SIGSEGV)),
        Ok((end, _)) => Answer::Ended(end),
    }
}

/// In the child. Returns the status to end with, unless it is killed before.
fn act(place: Place, code: [u8; 4]) -> i32 {
    // A child that leaves by itself leaves no line in the kernel's log and no memory dump, whoever collects those.
    // SAFETY: the handler does nothing but end the process.
    unsafe { libc::signal(libc::SIGSEGV, faulted as *const () as libc::sighandler_t) };
    match place {
        Place::Stack => {
            let mut on_stack = [0_u8; 64];
            on_stack[..4].copy_from_slice(&code);
            let on_stack = std::hint::black_box(on_stack);
            call(on_stack.as_ptr())
        }
        Place::Heap => {
            // SAFETY: grows the heap by a page, which nobody else knows of; (void *)-1 is its error.
            let at = unsafe { libc::sbrk(4096) };
            if at as isize == -1 {
                return NO_MEMORY;
            }
            // SAFETY: the page begins there and is writable.
            unsafe { ptr::copy_nonoverlapping(code.as_ptr(), at.cast::<u8>(), code.len()) };
            call(at.cast())
        }
        Place::Remapped | Place::RemappedWithMdwe => {
            if place == Place::RemappedWithMdwe {
                let gain = libc::c_ulong::from(libc::PR_MDWE_REFUSE_EXEC_GAIN);
                // SAFETY: takes numbers and changes this child alone.
                if unsafe { libc::prctl(libc::PR_SET_MDWE, gain, 0, 0, 0) } != 0 {
                    return MISSING;
                }
            }
            map_and_call(code)
        }
        #[cfg(test)]
        Place::Code => map_and_call(code),
    }
}

extern "C" fn faulted(_: libc::c_int) {
    child::leave(FAULTED);
}

fn map_and_call(code: [u8; 4]) -> i32 {
    const SIZE: usize = 4096;
    let writable = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping where there was none.
    let at = unsafe {
        libc::mmap(ptr::null_mut(), SIZE, writable, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
    };
    if at == libc::MAP_FAILED {
        return NO_MEMORY;
    }
    // SAFETY: the mapping is writable and larger than this.
    unsafe { ptr::copy_nonoverlapping(code.as_ptr(), at.cast::<u8>(), code.len()) };
    // SAFETY: changes the rights of the mapping just made.
    if unsafe { libc::mprotect(at, SIZE, libc::PROT_READ | libc::PROT_EXEC) } != 0 {
        return REFUSED;
    }
    call(at.cast())
}

fn call(at: *const u8) -> i32 {
    // SAFETY: there is a return instruction at `at`, which does nothing but come back here. If the memory may not be run, the kernel
    // sends SIGSEGV, which is what this child was started for.
    unsafe {
        let code: extern "C" fn() = std::mem::transmute(at);
        code();
    }
    RAN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instruction_works_where_it_may_and_kills_where_it_may_not() {
        assert_eq!(run(Place::Code), Answer::Ran);
        for place in [Place::Stack, Place::Heap] {
            assert_eq!(run(place), Answer::Ended(End::Signal(libc::SIGSEGV)));
        }
        let sealed = run(Place::RemappedWithMdwe);
        assert!(matches!(sealed, Answer::Refused | Answer::Missing), "{sealed:?}");
    }
}
