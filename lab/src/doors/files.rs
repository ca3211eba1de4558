//! Files on which lockdown refuses open, read, write or chmod, and some beside them that it does not govern.

use std::{fs, io::Write, os::unix::fs::PermissionsExt, path::Path};

use super::{Answer, Door, missing, open, reading, writing};

pub(super) const DOORS: &[Door] = &[
    Door::new("dev-mem", "open /dev/mem", || open("/dev/mem", &reading())),
    Door::new("dev-mem", "open /dev/mem to write", || open("/dev/mem", &writing())),
    Door::new("dev-mem", "open /dev/port", || open("/dev/port", &reading())),
    Door::new("efi-test", "open /dev/efi_test", || open("/dev/efi_test", &reading())),
    Door::new("hibernation", "write the current mode to /sys/power/disk", write_mode),
    Door::new("hibernation", "read /sys/power/disk", || first_word("/sys/power/disk", "[disabled]")),
    Door::new("hibernation", "read /sys/power/state", || first_word("/sys/power/state", "disk")),
    Door::new("hibernation", "open /dev/snapshot", || open("/dev/snapshot", &reading())),
    Door::new("module-parameters", "write share_irqs of 8250 back", write_share_irqs),
    Door::new("debugfs", "open sched/verbose", || open("/sys/kernel/debug/sched/verbose", &reading())),
    Door::new("debugfs", "open sched/verbose to write", || {
        open("/sys/kernel/debug/sched/verbose", &writing())
    }),
    Door::new("debugfs", "set the mode of sched/verbose to what it is", chmod),
    Door::new("debugfs", "open devices_deferred, which everybody may read", || {
        open("/sys/kernel/debug/devices_deferred", &reading())
    }),
    Door::new("kcore", "open /proc/kcore", || open("/proc/kcore", &reading())),
    Door::new("tracefs", "open tracing_on", || open("/sys/kernel/tracing/tracing_on", &reading())),
    Door::new("tracefs", "open trace", || open("/sys/kernel/tracing/trace", &reading())),
    Door::new("tracefs", "open set_event to write", || open("/sys/kernel/tracing/set_event", &writing())),
    Door::new("tracefs", "open enabled_functions", || {
        open("/sys/kernel/tracing/enabled_functions", &reading())
    }),
    Door::new("tracefs", "open the format of an event", || {
        open("/sys/kernel/tracing/events/sched/sched_switch/format", &reading())
    }),
    Door::new("kprobes", "register a kprobe through tracefs", || {
        register("/sys/kernel/tracing/kprobe_events", "p:lab/fsync vfs_fsync", "-:lab/fsync")
    }),
    Door::new("tracefs", "register a uprobe through tracefs", || {
        register("/sys/kernel/tracing/uprobe_events", "p:lab/busybox /bin/busybox:0x1000", "-:lab/busybox")
    }),
    Door::new("acpi-tables", "install a table through configfs", || {
        open("/sys/kernel/config/acpi/table", &reading())
    }),
];

/// Reports whether the file contains this word.
fn first_word(path: &str, word: &str) -> Answer {
    match fs::read_to_string(path) {
        Ok(text) if text.split_whitespace().any(|w| w == word) => Answer::Done(format!("it has {word}")),
        Ok(_) => Answer::Done(format!("it does not have {word}")),
        Err(e) => Answer::from_result::<()>(Err(e)),
    }
}

/// Writes the current mode back. While hibernation is disabled the file does not show it; the modes `platform` and `shutdown` exist on every machine.
fn write_mode() -> Answer {
    let modes = fs::read_to_string("/sys/power/disk").unwrap_or_default();
    let current = modes.split(['[', ']']).nth(1).unwrap_or_default();
    let mode = if current == "disabled" { "shutdown" } else { current };
    Answer::from_result(fs::write("/sys/power/disk", mode))
}

fn write_share_irqs() -> Answer {
    let paths = ["8250", "8250_core"].map(|module| format!("/sys/module/{module}/parameters/share_irqs"));
    let Some(path) = paths.iter().find(|path| Path::new(path.as_str()).exists()) else {
        return Answer::Absent("the serial driver has no such parameter".into());
    };
    match fs::read(path) {
        Ok(value) => Answer::from_result(fs::write(path, value)),
        Err(e) => Answer::from_result::<()>(Err(e)),
    }
}

fn chmod() -> Answer {
    let path = "/sys/kernel/debug/sched/verbose";
    match fs::metadata(path) {
        Ok(file) => {
            let mode = file.permissions().mode() & 0o7777;
            Answer::from_result(fs::set_permissions(path, fs::Permissions::from_mode(mode)))
        }
        Err(_) => missing(path),
    }
}

/// Registers a probe point and removes it.
fn register(list: &str, add: &str, remove: &str) -> Answer {
    if !Path::new(list).exists() {
        return missing(list);
    }
    let write = |line: &str| -> std::io::Result<()> {
        let mut file = fs::OpenOptions::new().append(true).open(list)?;
        file.write_all(line.as_bytes())
    };
    match write(add) {
        Ok(()) => Answer::from_result(write(remove)),
        Err(e) => Answer::from_result::<()>(Err(e)),
    }
}
