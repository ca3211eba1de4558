//! Harmless live probes of every door that Linux lockdown guards.
//!
//! A *reason* is what the kernel names when it asks `security_locked_down()`; a [`Door`] is one way for
//! root to make the kernel ask. [`Door::knock`] tries that way in a child process, without changing
//! anything, and says whether the kernel answered [`Answer::Refused`] or [`Answer::Free`]. Doors that
//! cannot be tried without harm are in the table too, as [`Answer::Never`], so that a report is complete.
//!
//! This crate does not tell *which* lockdown refused. The kernel's own lockdown and Stockade
//! refuse at the same place with the same errno; telling them apart takes a look at both their states.
#![deny(missing_docs)]

mod answer;
mod bpf;
mod child;
mod efi;
mod file;
mod kexec;
pub mod limit;
mod memory;
mod modules;
mod network;
mod pci;
mod perf;
mod ports;
mod power;
mod privilege;
mod serial;
mod tracing;

use std::path::Path;
use std::time::Duration;

pub use answer::Answer;
use answer::Outcome;
use limit::Limit;
use privilege::Capability;

/// How much a probe may use. The slowest one, on an emulated machine, uses a few thousandths of it; a
/// virtual processor that its host runs late counts that time as used.
const LIMIT: Limit = Limit::of_processor_time(Duration::from_secs(20));

/// One way through a guarded door.
#[derive(Debug)]
pub struct Door {
    /// The id of the lockdown reason the kernel names at this door, such as `dev-mem`.
    pub reason: &'static str,
    /// The operation, such as `open /dev/mem`. Unique in the table.
    pub name: &'static str,
    probe: Probe,
}

/// The effect of an attempt that nothing refuses. The proof of a seal tries the doors without an effect alone: it runs often,
/// beside anything else that happens on the machine, and where the seal is broken nothing refuses.
#[derive(Debug)]
enum Effect {
    /// Nothing: the argument for it.
    None(&'static str),
    /// This.
    Some(&'static str),
}

/// The attempt at a door.
#[derive(Debug)]
enum Probe {
    /// Run this in a child process, which must be root and hold this capability.
    Run(Option<Capability>, fn() -> Outcome, Effect),
    /// Never try: here is why.
    Never(&'static str),
    /// Never try, and say that the door is absent where this path is missing.
    NeverWhere { path: &'static str, absent: &'static str, why: &'static str },
}

/// The result at a door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The id of the lockdown reason.
    pub reason: &'static str,
    /// The [name](Door::name) of the door.
    pub door: &'static str,
    /// The kernel's answer.
    pub answer: Answer,
    /// The errno behind the answer, where one system call decided it. A free door can have one too: the
    /// error the kernel gives *after* the lockdown check.
    pub errno: Option<i32>,
}

const TABLE: &[Door] = &[
    run(
        "module-signature",
        "load an empty unsigned module",
        Some(privilege::SYS_MODULE),
        modules::load_zeros,
        Effect::None("zeros are no ELF file, so nothing is loaded whoever lets them through"),
    ),
    run("dev-mem", "open /dev/mem", Some(privilege::SYS_RAWIO), memory::open_mem, Effect::None(OPENED)),
    run("dev-mem", "open /dev/port", Some(privilege::SYS_RAWIO), memory::open_port, Effect::None(OPENED)),
    run("efi-test", "open /dev/efi_test", Some(privilege::SYS_ADMIN), efi::open_test, Effect::None(OPENED)),
    run(
        "kexec",
        "kexec_load with invalid flags",
        Some(privilege::SYS_BOOT),
        kexec::load_nothing,
        Effect::None("the kernel rejects the flags before it looks at an image"),
    ),
    run(
        "hibernation",
        "write an unknown mode to /sys/power/disk",
        None,
        power::write_no_mode,
        Effect::None("the kernel rejects the word and keeps its mode"),
    ),
    run(
        "pci-access",
        "write a vendor id back to PCI config space",
        Some(privilege::SYS_ADMIN),
        pci::write_vendor,
        Effect::Some("it writes to a register of a device, and wakes a device that is suspended"),
    ),
    run(
        "pci-access",
        "ioctl PCIIOC_CONTROLLER",
        None,
        pci::ask_controller,
        Effect::None("the command asks for a number that the kernel has in memory"),
    ),
    run("ioport", "ioperm of port 0x80", Some(privilege::SYS_RAWIO), ports::ioperm, Effect::None(GRANTED)),
    run("ioport", "iopl level 3", Some(privilege::SYS_RAWIO), ports::iopl, Effect::None(GRANTED)),
    run(
        "msr",
        "zero-length write to /dev/cpu/0/msr",
        Some(privilege::SYS_RAWIO),
        ports::write_msr,
        Effect::None("no byte is written, so no register is"),
    ),
    Door {
        reason: "acpi-tables",
        name: "install an ACPI table",
        probe: Probe::NeverWhere {
            path: "/sys/firmware/acpi",
            absent: "this machine has no ACPI",
            why: "an installed table stays until reboot, and most callers run before any program does",
        },
    },
    Door {
        reason: "device-tree",
        name: "change the device tree",
        probe: Probe::NeverWhere {
            path: "/proc/powerpc/ofdt",
            absent: "only powerpc kernels with /proc/powerpc/ofdt have this door",
            why: "what is written here changes the device tree of the running machine",
        },
    },
    Door {
        reason: "pcmcia-cis",
        name: "write the CIS of a PCMCIA card",
        probe: Probe::NeverWhere {
            path: "/sys/class/pcmcia_socket",
            absent: "this machine has no PCMCIA socket",
            why: "the write replaces what the kernel knows of the card in the socket",
        },
    },
    run(
        "tiocsserial",
        "give a serial port an impossible interrupt",
        Some(privilege::SYS_ADMIN),
        serial::set_irq,
        Effect::Some("opening a serial port raises its modem lines for a moment"),
    ),
    run(
        "module-parameters",
        "write a word to share_irqs of 8250",
        None,
        modules::write_share_irqs,
        Effect::None("the parameter is a number, so the kernel rejects the word and keeps the value"),
    ),
    never("mmiotrace", "trace memory-mapped I/O", "only the kernel's own test module comes here"),
    run(
        "debugfs",
        "open sched/verbose in debugfs",
        Some(privilege::SYS_ADMIN),
        tracing::open_debugfs,
        Effect::None(OPENED),
    ),
    run(
        "debugfs",
        "set the mode of a debugfs file to what it is",
        Some(privilege::SYS_ADMIN),
        tracing::chmod_debugfs,
        Effect::Some("the file gets a new change time"),
    ),
    Door {
        reason: "xmon-wr",
        name: "write through xmon",
        probe: Probe::NeverWhere { path: XMON, absent: XMON_ABSENT, why: DEBUGGER },
    },
    run(
        "bpf-write-user",
        "load a program with bpf_probe_write_user",
        Some(privilege::SYS_ADMIN),
        bpf::write_user,
        Effect::None(LOADED),
    ),
    never("dbg-write-kernel", "write kernel memory through kgdb", DEBUGGER),
    Door {
        reason: "rtas-error-injection",
        name: "inject an error through RTAS",
        probe: Probe::NeverWhere {
            path: "/proc/powerpc/rtas",
            absent: "only powerpc machines with RTAS firmware have this door",
            why: "the firmware call injects a hardware error",
        },
    },
    Door {
        reason: "xen-user-actions",
        name: "act on Xen from user space",
        probe: Probe::NeverWhere {
            path: "/sys/hypervisor/type",
            absent: "this machine is no Xen guest",
            why: "it is asked once, when the driver starts, and nothing can ask it again",
        },
    },
    run("kcore", "open /proc/kcore", Some(privilege::SYS_RAWIO), memory::open_kcore, Effect::None(OPENED)),
    run(
        "kprobes",
        "perf event on a kprobe where no code is",
        Some(privilege::SYS_ADMIN),
        perf::kprobe,
        Effect::None("the kernel rejects the address, so no kprobe is placed"),
    ),
    run(
        "bpf-read-kernel",
        "load a program with bpf_probe_read_kernel",
        Some(privilege::SYS_ADMIN),
        bpf::read_kernel,
        Effect::None(LOADED),
    ),
    never("dbg-read-kernel", "read kernel memory through kgdb", DEBUGGER),
    run(
        "perf",
        "perf event that samples interrupted registers",
        Some(privilege::SYS_ADMIN),
        perf::registers,
        Effect::None("the event is disabled and of the probe's own process, and closed at once"),
    ),
    run(
        "tracefs",
        "open tracing_on in tracefs",
        Some(privilege::SYS_ADMIN),
        tracing::open_tracefs,
        Effect::None(OPENED),
    ),
    Door {
        reason: "xmon-rw",
        name: "read and write through xmon",
        probe: Probe::NeverWhere { path: XMON, absent: XMON_ABSENT, why: DEBUGGER },
    },
    run(
        "xfrm-secret",
        "read the key of an IPsec association",
        Some(privilege::NET_ADMIN),
        network::read_sa,
        Effect::Some(
            "a network namespace and an IPsec association are made, which can load a cipher's module",
        ),
    ),
];

const OPENED: &str = "the file is opened read-only and closed; nothing is read, and opening loads no module";
const GRANTED: &str = "the right is the probe's own process's, which ends without using it";
const LOADED: &str = "the program is attached to nothing, so it never runs, and is closed at once";
const DEBUGGER: &str = "the kernel debugger stops every CPU and waits at its console";
const XMON: &str = "/proc/powerpc";
const XMON_ABSENT: &str = "only powerpc kernels have the xmon debugger";

const fn run(
    reason: &'static str,
    name: &'static str,
    needs: Option<Capability>,
    probe: fn() -> Outcome,
    effect: Effect,
) -> Door {
    Door { reason, name, probe: Probe::Run(needs, probe, effect) }
}

const fn never(reason: &'static str, name: &'static str, why: &'static str) -> Door {
    Door { reason, name, probe: Probe::Never(why) }
}

/// Every door, in the order in which the kernel lists the reasons.
#[must_use]
pub fn doors() -> &'static [Door] {
    TABLE
}

/// The doors of one reason, by its id; none if the id is unknown.
pub fn doors_of(reason_id: &str) -> impl Iterator<Item = &'static Door> {
    TABLE.iter().filter(move |door| door.reason == reason_id)
}

/// Knocks at every door, in table order.
#[must_use]
pub fn knock_all() -> Vec<Finding> {
    TABLE.iter().map(Door::knock).collect()
}

/// The name of the process that knocks for the proof of a seal, in events and in /proc: 15 bytes at most. It proves nothing, since
/// every process may give itself this name.
pub const PROOF_COMM: &str = "stockade-proof";

/// Tries one reason for the proof of a seal: the first of its doors that is there and that can be tried without an effect, also where
/// nothing refuses. [`Answer::Absent`] says that there is none here, [`Answer::Never`] that each has an effect. None for an id that
/// has no door.
#[must_use]
pub fn knock_without_effect(reason_id: &str) -> Option<Finding> {
    let mut last = None;
    for door in doors_of(reason_id) {
        let found = door.without_effect();
        match found.answer {
            Answer::Absent(_) => last = Some(found),
            Answer::Never(_) => last = last.or(Some(found)),
            _ => return Some(found),
        }
    }
    last
}

impl Door {
    /// Why an attempt at this door changes nothing, also where nothing refuses it; none where it would, and where it is never tried.
    #[must_use]
    pub fn without_effect_because(&self) -> Option<&'static str> {
        match self.probe {
            Probe::Run(_, _, Effect::None(why)) => Some(why),
            _ => None,
        }
    }

    /// Tries this door if that has no effect.
    fn without_effect(&self) -> Finding {
        let Outcome { answer, errno } = match &self.probe {
            Probe::Run(needs, probe, Effect::None(_)) => self::knock(*needs, || {
                name_process();
                probe()
            }),
            Probe::Run(.., Effect::Some(what)) => Outcome::never(what),
            Probe::Never(_) | Probe::NeverWhere { .. } => return self.knock(),
        };
        Finding { reason: self.reason, door: self.name, answer, errno }
    }

    /// Tries this door once.
    ///
    /// The probe runs in a forked child, so what it opens, mounts or is granted ends with it. The child is killed when it
    /// has used twenty seconds of processor time, or hung for half a minute.
    /// Call it from a program with few threads: the child is a copy of the caller.
    #[must_use]
    pub fn knock(&self) -> Finding {
        let Outcome { answer, errno } = match &self.probe {
            Probe::Run(needs, probe, _) => self::knock(*needs, probe),
            Probe::Never(why) => Outcome::never(why),
            Probe::NeverWhere { path, absent, why } => {
                if Path::new(path).exists() {
                    Outcome::never(why)
                } else {
                    Outcome::absent(*absent)
                }
            }
        };
        Finding { reason: self.reason, door: self.name, answer, errno }
    }
}

/// Runs a probe in a child, if the caller may.
fn knock(needs: Option<Capability>, probe: impl FnOnce() -> Outcome) -> Outcome {
    match privilege::lacking(needs) {
        Some(what) => Outcome::needs_root(what),
        None => child::run(LIMIT, probe),
    }
}

/// Gives this process the name of those that knock for a proof.
fn name_process() {
    let name = std::ffi::CString::new(PROOF_COMM).expect("it has no zero byte");
    // SAFETY: reads a terminated string.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_reason_has_a_door_and_every_door_a_reason() {
        for reason in stockade_reasons::all() {
            assert!(doors_of(reason.id).next().is_some(), "no door for {}", reason.id);
        }
        for door in doors() {
            let known = stockade_reasons::by_id(door.reason).is_some_and(|reason| reason.id == door.reason);
            assert!(known, "{} is no reason", door.reason);
        }
    }

    #[test]
    fn doors_come_in_the_order_of_the_reasons() {
        let place = |door: &Door| stockade_reasons::all().iter().position(|reason| reason.id == door.reason);
        assert!(doors().is_sorted_by_key(place));
    }

    #[test]
    fn door_names_are_unique() {
        let names: HashSet<_> = doors().iter().map(|door| door.name).collect();
        assert_eq!(names.len(), doors().len());
    }

    #[test]
    fn an_unknown_reason_has_no_door() {
        assert_eq!(doors_of("no-such-reason").count(), 0);
    }

    #[test]
    fn what_would_do_harm_is_never_run() {
        for door in doors() {
            let runs = matches!(door.probe, Probe::Run(..));
            let reason = stockade_reasons::by_id(door.reason).expect("a test above says so");
            assert_eq!(runs, matches!(reason.probe, stockade_reasons::Probe::How(_)), "{}", door.name);
        }
    }

    #[test]
    fn a_proof_tries_what_has_no_effect_and_nothing_else() {
        for door in doors() {
            if door.without_effect_because().is_some() {
                continue;
            }
            let answer = door.without_effect().answer;
            assert!(matches!(answer, Answer::Never(_) | Answer::Absent(_)), "{}: {answer:?}", door.name);
        }
        assert!(matches!(knock_without_effect("tiocsserial").unwrap().answer, Answer::Never(_)));
        assert!(matches!(knock_without_effect("xfrm-secret").unwrap().answer, Answer::Never(_)));
        assert_eq!(knock_without_effect("no-such-reason"), None);
    }

    #[test]
    fn the_process_that_knocks_for_a_proof_has_a_name_of_its_own() {
        assert!(PROOF_COMM.len() <= 15, "the kernel keeps 15 bytes");
        let named = child::run(LIMIT, || {
            name_process();
            Outcome::absent(file::text("/proc/self/comm").unwrap_or_default())
        });
        assert_eq!(named.answer, Answer::Absent(PROOF_COMM.into()));
    }

    #[test]
    fn the_kernel_debugger_is_left_alone() {
        for door in doors_of("dbg-write-kernel") {
            assert_eq!(door.knock().answer, Answer::Never(DEBUGGER));
        }
    }
}
