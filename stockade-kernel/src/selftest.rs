/*!
Proves that the deciding program decides: makes a real request at a door and tests whether the program counted it.

The kernel accepts attachments that have no effect: without `bpf` among the active security modules, or while `kernel.ftrace_enabled` is 0. The doors
exist on every supported kernel of their architecture, and a request at them has no effect after the test.
*/
use std::{fs::File, io};

use serde::Serialize;
use stockade_common::{ReasonSet, Verdict, counter_index};
use stockade_policy::compile::bit;
use stockade_reasons::Level;

use crate::{Error, machine::btf::KernelTypes, sys::Counters};

/// The result of the self-test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SelfTest {
    /// A real request reached the program, and its verdict took effect.
    Passed {
        /// Id of the requested reason.
        reason: String,
    },
    /// The kernel's own lockdown refuses every door before the program runs.
    NativeRefusesFirst,
    /// The policy watches none of the self-test's doors.
    NothingToTest,
}

type Probe = fn() -> io::Result<()>;

const DOORS: &[(&str, Probe)] = &[
    #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
    ("LOCKDOWN_IOPORT", io_port),
    ("LOCKDOWN_KCORE", kcore),
];

/// Makes a request at the first door that is watched for this process and that native lockdown does not refuse. Any verdict passes, but a refusal
/// must take effect. `heard` returns how many requests for a reason were refused, audited and excepted, see [`counted`].
pub(crate) fn run(
    types: &KernelTypes,
    heard: &dyn Fn(u32) -> Result<[u64; 3], Error>,
    watched: ReasonSet,
    native: Level,
) -> Result<SelfTest, Error> {
    let mut native_first = false;
    for (enum_name, knock) in DOORS {
        let Some(number) = types.number(enum_name) else { continue };
        if is_refused_natively(types, number, native) {
            native_first = true;
            continue;
        }
        if watched & bit(number) == 0 {
            continue;
        }
        let before = heard(number)?;
        #[cfg(not(test))]
        let answer = knock();
        #[cfg(test)]
        let answer = crate::sys::fake::asks(number).unwrap_or_else(knock);
        let id = stockade_reasons::by_enum_name(enum_name).map_or(*enum_name, |r| r.id);
        let after = heard(number)?;
        if after == before {
            // The kernel was built without this door; try the next one.
            if matches!(&answer, Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOSYS | libc::ENXIO)))
            {
                continue;
            }
            return Err(Error::SelfTest(format!(
                "the program is attached, but a request for {id} did not reach it ({})",
                if crate::machine::host::tracing_is_off() {
                    "kernel.ftrace_enabled is 0, which silences programs attached to the kernel's functions: sysctl kernel.ftrace_enabled=1"
                } else {
                    "the kernel does not say why"
                }
            )));
        }
        if after[0] > before[0] && answer.is_ok() {
            return Err(Error::SelfTest(format!(
                "a request for {id} was counted as refused and went through"
            )));
        }
        return Ok(SelfTest::Passed { reason: id.into() });
    }
    Ok(if native_first { SelfTest::NativeRefusesFirst } else { SelfTest::NothingToTest })
}

/// Reports whether the kernel's own lockdown refuses a reason, so that no program runs for it.
pub(crate) fn is_refused_natively(types: &KernelTypes, number: u32, native: Level) -> bool {
    native == Level::Confidentiality || native == Level::Integrity && types.is_integrity(number)
}

/// Returns the function that reads a program's counters.
pub(crate) fn counted(counters: &Counters) -> impl Fn(u32) -> Result<[u64; 3], Error> {
    |number| counts(counters, number)
}

/// Returns the numbers of refused, audited and excepted requests.
fn counts(counters: &Counters, number: u32) -> Result<[u64; 3], Error> {
    let mut counts = [0; 3];
    for (count, verdict) in counts.iter_mut().zip([Verdict::Refused, Verdict::Audited, Verdict::Excepted]) {
        *count = counters
            .sum(counter_index(number, verdict))
            .map_err(|e| Error::io("read the counters for the self-test", e))?;
    }
    Ok(counts)
}

/// Requests access to port 0x80, the diagnostic port, in a thread of its own: the access ends with the thread, and the port is not used.
#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
fn io_port() -> io::Result<()> {
    std::thread::spawn(|| {
        // SAFETY: grants this thread access to a port; touches no memory.
        if unsafe { libc::ioperm(0x80, 1, 1) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    })
    .join()
    .unwrap_or_else(|_| Err(io::Error::other("the thread died")))
}

fn kcore() -> io::Result<()> {
    File::open("/proc/kcore").map(drop)
}
