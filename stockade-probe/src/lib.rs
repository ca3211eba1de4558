//! Harmless live probes of every door that Linux lockdown guards.
//!
//! A *reason* is what the kernel names when it asks `security_locked_down()`; a [`Door`] is one way for
//! root to make the kernel ask. [`Door::knock`] tries that way in a child process, without changing
//! anything, and says whether the kernel answered [`Answer::Refused`] or [`Answer::Free`]. Doors that
//! cannot be tried without harm are in the table too, as [`Answer::Never`], so that a report is complete.
//!
//! What this crate does not do: it does not say *who* refused. The kernel's own lockdown and Stockade
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
    /// What is tried, in words, such as `open /dev/mem`. Unique in the table.
    pub name: &'static str,
    probe: Probe,
}

/// What there is to do at a door.
#[derive(Debug)]
enum Probe {
    /// Run this in a child process, which must be root and hold this capability.
    Run(Option<Capability>, fn() -> Outcome),
    /// Never try: here is why.
    Never(&'static str),
    /// Never try, and say that the door is absent where this path is missing.
    NeverWhere { path: &'static str, absent: &'static str, why: &'static str },
}

/// What was found at a door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The id of the lockdown reason.
    pub reason: &'static str,
    /// The [name](Door::name) of the door.
    pub door: &'static str,
    /// What the kernel answered.
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
    ),
    run("dev-mem", "open /dev/mem", Some(privilege::SYS_RAWIO), memory::open_mem),
    run("dev-mem", "open /dev/port", Some(privilege::SYS_RAWIO), memory::open_port),
    run("efi-test", "open /dev/efi_test", Some(privilege::SYS_ADMIN), efi::open_test),
    run("kexec", "kexec_load with invalid flags", Some(privilege::SYS_BOOT), kexec::load_nothing),
    run("hibernation", "write the current mode to /sys/power/disk", None, power::write_mode),
    run(
        "pci-access",
        "write a vendor id back to PCI config space",
        Some(privilege::SYS_ADMIN),
        pci::write_vendor,
    ),
    run("pci-access", "ioctl PCIIOC_CONTROLLER", None, pci::ask_controller),
    run("ioport", "ioperm of port 0x80", Some(privilege::SYS_RAWIO), ports::ioperm),
    run("ioport", "iopl level 3", Some(privilege::SYS_RAWIO), ports::iopl),
    run("msr", "zero-length write to /dev/cpu/0/msr", Some(privilege::SYS_RAWIO), ports::write_msr),
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
    ),
    run("module-parameters", "write share_irqs of 8250 back", None, modules::write_share_irqs),
    never("mmiotrace", "trace memory-mapped I/O", "only the kernel's own test module comes here"),
    run("debugfs", "open sched/verbose in debugfs", Some(privilege::SYS_ADMIN), tracing::open_debugfs),
    run(
        "debugfs",
        "set the mode of a debugfs file to what it is",
        Some(privilege::SYS_ADMIN),
        tracing::chmod_debugfs,
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
    run("kcore", "open /proc/kcore", Some(privilege::SYS_RAWIO), memory::open_kcore),
    run("kprobes", "perf event on a kprobe of vfs_fsync", Some(privilege::SYS_ADMIN), perf::kprobe),
    run(
        "bpf-read-kernel",
        "load a program with bpf_probe_read_kernel",
        Some(privilege::SYS_ADMIN),
        bpf::read_kernel,
    ),
    never("dbg-read-kernel", "read kernel memory through kgdb", DEBUGGER),
    run("perf", "perf event that samples interrupted registers", Some(privilege::SYS_ADMIN), perf::registers),
    run("tracefs", "open tracing_on in tracefs", Some(privilege::SYS_ADMIN), tracing::open_tracefs),
    Door {
        reason: "xmon-rw",
        name: "read and write through xmon",
        probe: Probe::NeverWhere { path: XMON, absent: XMON_ABSENT, why: DEBUGGER },
    },
    run("xfrm-secret", "read the key of an IPsec association", Some(privilege::NET_ADMIN), network::read_sa),
];

const DEBUGGER: &str = "the kernel debugger stops every CPU and waits at its console";
const XMON: &str = "/proc/powerpc";
const XMON_ABSENT: &str = "only powerpc kernels have the xmon debugger";

const fn run(
    reason: &'static str,
    name: &'static str,
    needs: Option<Capability>,
    probe: fn() -> Outcome,
) -> Door {
    Door { reason, name, probe: Probe::Run(needs, probe) }
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

impl Door {
    /// Tries this door once.
    ///
    /// The probe runs in a forked child, so what it opens, mounts or is granted ends with it. The child is killed when it
    /// has used twenty seconds of processor time, or hung for half a minute.
    /// Call it from a program with few threads: the child is a copy of the caller.
    #[must_use]
    pub fn knock(&self) -> Finding {
        let Outcome { answer, errno } = match &self.probe {
            Probe::Run(needs, probe) => match privilege::lacking(*needs) {
                Some(what) => Outcome::needs_root(what),
                None => child::run(LIMIT, probe),
            },
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
    fn the_kernel_debugger_is_left_alone() {
        for door in doors_of("dbg-write-kernel") {
            assert_eq!(door.knock().answer, Answer::Never(DEBUGGER));
        }
    }
}
