/*!
The lab: throw-away guests with real distribution kernels, and the scenarios played in them.

```text
 host (xtask)                                   guest (QEMU, emulated)
 kernels ─ initrd ─ boot ──── boots ──────────▶ stockade-guest, PID 1
                     │                            │ one process for each scenario
 report ◀─ protocol ◀┴──── ttyS1, JSON lines ◀────┘
```

Nothing is installed on the host, and a guest sees nothing of the host. ttyS0 is the kernel's console, ttyS1 carries results, ttyS2 is free
for a shell or a probe.
*/
#![allow(clippy::missing_errors_doc, reason = "a tool for developers: errors are told, not matched")]
#[cfg(feature = "scenarios")]
pub mod attacks;
pub mod boot;
pub mod boots;
pub mod cache;
pub mod conformance;
pub mod debian;
#[cfg(feature = "scenarios")]
pub mod doors;
pub mod firmware;
pub mod flips;
pub mod follow;
pub mod guest;
pub mod initrd;
pub mod kernels;
pub mod page;
pub mod plan;
#[cfg(feature = "scenarios")]
pub mod program;
pub mod protocol;
#[cfg(feature = "scenarios")]
mod raw;
pub mod reboots;
pub mod report;
mod saved;
pub mod scenario;
#[cfg(feature = "scenarios")]
pub mod scenarios;
#[cfg(feature = "scenarios")]
pub mod syscall;
pub mod systems;
pub mod tool;
pub mod tpm;
pub mod unsigned;
pub mod userland;
pub mod vmlinux;
