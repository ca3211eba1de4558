/*!
BPF programs that others loaded, and which of them read kernel memory or write user memory with a helper that lockdown hides from programs
loaded later.

In a loaded program the kernel has replaced the number of each called helper by the helper's address minus that of `__bpf_call_base`. Both
addresses are in /proc/kallsyms, which lists a hundred thousand symbols in the order of their addresses and is read only as far as needed.

Not detected: reads of kernel memory through BTF pointers, and helpers that print kernel structures (`bpf_snprintf_btf`). Lockdown allows both.
*/
use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use aya_obj::generated::bpf_insn;

use crate::{
    program::{
        info,
        links::{Links, refused_by},
    },
    sys,
};

const KALLSYMS: &str = "/proc/kallsyms";
const CALL_BASE: &str = "__bpf_call_base";

/// `BPF_JMP | BPF_CALL`. Source register 0 calls a helper, 1 another function of the program, 2 a kernel function.
const CALL: u8 = 0x85;

/// Helpers that lockdown guards, by the names of their functions, with the reason's id. From `bpf_base_func_proto()` and `bpf_tracing_func_proto()`.
const GUARDED: [(&str, &str); 5] = [
    ("bpf_probe_read_kernel", "bpf-read-kernel"),
    ("bpf_probe_read_kernel_str", "bpf-read-kernel"),
    ("bpf_probe_read_compat", "bpf-read-kernel"),
    ("bpf_probe_read_compat_str", "bpf-read-kernel"),
    ("bpf_probe_write_user", "bpf-write-user"),
];

/// Maximum number of pins that are searched for a program.
const MOST_PINS: usize = 4096;

/// A loaded program that calls a helper lockdown guards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The id that `bpftool prog` shows.
    pub id: u32,
    /// The name that its loader gave it, at most 15 bytes.
    pub name: String,
    /// Its type, in words.
    pub kind: String,
    /// Time of loading, on the clock of [`crate::machine::host::boot_ns`].
    pub loaded_boot_ns: u64,
    /// The guarded helpers it calls.
    pub helpers: Vec<&'static str>,
    /// Ids of the reasons that guard them, each once.
    pub reasons: Vec<&'static str>,
}

/// The loaded programs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Programs {
    /// Programs that call guarded helpers.
    pub guarded: Vec<Program>,
    /// Number of programs that were read.
    pub looked_at: usize,
    /// Programs that could not be read: id and error.
    pub hidden: Vec<(u32, String)>,
}

/// Reads every loaded program except one that the caller knows. Needs root.
///
/// Most of the time goes into finding the kernel's symbols; they are not read if no program calls a helper.
///
/// # Errors
/// When the kernel does not list programs, or /proc/kallsyms shows no addresses.
#[inline(never)]
pub fn look(known: Option<u32>) -> io::Result<Programs> {
    let mut programs = Programs::default();
    let mut helpers = None;
    let mut refused = None;
    let mut id = 0;
    while let Some(next) = sys::next_program(id)? {
        id = next;
        if known == Some(id) {
            continue;
        }
        let (info, instructions) = match translated(id) {
            Ok(answer) => answer,
            // Unloaded in the meantime.
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => continue,
            Err(e) if e.raw_os_error() == Some(libc::EPERM) => {
                let why = refused.get_or_insert_with(|| refused_by("a guard", &Links::look()));
                programs.hidden.push((id, why.clone()));
                continue;
            }
            Err(e) => {
                programs.hidden.push((id, e.to_string()));
                continue;
            }
        };
        programs.looked_at += 1;
        let calls = calls(&instructions);
        if calls.is_empty() {
            continue;
        }
        let helpers: &Helpers = match &helpers {
            Some(known) => known,
            None => helpers.insert(Helpers::of_running_kernel()?),
        };
        let found = helpers.among(&calls);
        if !found.is_empty() {
            let mut reasons: Vec<_> = found.iter().map(|(_, reason)| *reason).collect();
            reasons.sort_unstable();
            reasons.dedup();
            programs.guarded.push(Program {
                id,
                name: info::text(&info.name.map(i8::cast_unsigned)),
                kind: info::kind(info.type_),
                loaded_boot_ns: info.load_time,
                helpers: found.into_iter().map(|(name, _)| name).collect(),
                reasons,
            });
        }
    }
    Ok(programs)
}

/// Reads a program's instructions as the verifier translated them.
fn translated(id: u32) -> io::Result<(aya_obj::generated::bpf_prog_info, Vec<bpf_insn>)> {
    // SAFETY: bpf_insn is plain data, for which zeros are valid.
    let empty: bpf_insn = unsafe { std::mem::zeroed() };
    let program = sys::program_by_id(id)?;
    let mut instructions = vec![empty; 2048];
    loop {
        let info = sys::program_info(program.as_fd(), &mut instructions)?;
        let length = info.xlated_prog_len as usize / size_of::<bpf_insn>();
        if length == 0 || info.xlated_prog_insns == 0 {
            return Err(io::Error::other("the kernel does not show its instructions"));
        }
        if length <= instructions.len() {
            instructions.truncate(length);
            return Ok((info, instructions));
        }
        instructions.resize(length, empty);
    }
}

/// Returns the distances of the called helpers, each once.
fn calls(instructions: &[bpf_insn]) -> Vec<i32> {
    let mut calls: Vec<i32> =
        instructions.iter().filter(|i| i.code == CALL && i.src_reg() == 0).map(|i| i.imm).collect();
    calls.sort_unstable();
    calls.dedup();
    calls
}

/// Guarded helpers by their distance from `__bpf_call_base`.
struct Helpers(Vec<(i32, &'static str, &'static str)>);

impl Helpers {
    fn of_running_kernel() -> io::Result<Self> {
        Self::read(BufReader::with_capacity(1 << 16, File::open(KALLSYMS)?))
    }

    fn read(mut symbols: impl BufRead) -> io::Result<Self> {
        let mut base = None;
        let mut found = Vec::new();
        let mut line = Vec::new();
        while base.is_none() || found.len() < GUARDED.len() {
            line.clear();
            if symbols.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            let Some((address, name)) = symbol(&line) else { continue };
            if name == CALL_BASE {
                base = Some(address);
            } else if let Some((name, reason)) = GUARDED.iter().find(|(helper, _)| *helper == name) {
                found.push((address, *name, *reason));
            }
        }
        let base = base.filter(|&address| address != 0).ok_or_else(|| {
            io::Error::other(format!(
                "{KALLSYMS} does not show where {CALL_BASE} is: kernel.kptr_restrict must not be 2"
            ))
        })?;
        // The kernel stores the distance as a signed number of 32 bits.
        #[expect(clippy::cast_possible_truncation, reason = "helpers are within 2 GiB of each other")]
        let distance = |address: u64| address.wrapping_sub(base).cast_signed() as i32;
        Ok(Self(found.into_iter().map(|(address, name, reason)| (distance(address), name, reason)).collect()))
    }

    fn among(&self, calls: &[i32]) -> Vec<(&'static str, &'static str)> {
        let called = self.0.iter().filter(|(distance, ..)| calls.contains(distance));
        called.map(|&(_, name, reason)| (name, reason)).collect()
    }
}

/// Parses a line of kallsyms; `None` for all but the kernel's own symbols that are needed.
fn symbol(line: &[u8]) -> Option<(u64, &str)> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let (address, rest) = line.split_at_checked(16)?;
    // Cheap: nearly every line is rejected here.
    let name =
        rest.get(3..).filter(|name| name.starts_with(b"bpf_probe_") || name.starts_with(b"__bpf_call_"))?;
    let address = u64::from_str_radix(std::str::from_utf8(address).ok()?, 16).ok()?;
    Some((address, std::str::from_utf8(name).ok()?))
}

/// A reference that keeps a program loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// A link with this id.
    Link(u32),
    /// A pin in a BPF file system.
    Pin(PathBuf),
}

/// Returns the links and pins that hold these programs, given the mount points of BPF file systems. Links and pins that cannot be read are left
/// out: the result helps to find the holder, and proves nothing.
#[must_use]
pub fn holds(programs: &[u32], folders: &[PathBuf]) -> Vec<(u32, Hold)> {
    let mut holds = Vec::new();
    let mut id = 0;
    while let Ok(Some(next)) = sys::next_link(id) {
        id = next;
        if let Ok(info) = sys::link_by_id(id).and_then(|link| sys::link_info(link.as_fd()))
            && programs.contains(&info.program)
        {
            holds.push((info.program, Hold::Link(id)));
        }
    }
    let mut left = MOST_PINS;
    for folder in folders {
        pins_below(folder, &mut left, &mut |path| {
            if let Some(program) = pinned_program(path)
                && programs.contains(&program)
            {
                holds.push((program, Hold::Pin(path.to_owned())));
            }
        });
    }
    holds
}

fn pins_below(folder: &Path, left: &mut usize, found: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if *left == 0 {
            return;
        }
        *left -= 1;
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => pins_below(&entry.path(), left, found),
            Ok(kind) if kind.is_file() => found(&entry.path()),
            _ => {}
        }
    }
}

/// Returns the program of a pin, or of a pinned link.
fn pinned_program(path: &Path) -> Option<u32> {
    use std::os::unix::ffi::OsStrExt;
    let object = sys::open_pin(&std::ffi::CString::new(path.as_os_str().as_bytes()).ok()?).ok()?;
    match kind_of(&object)?.as_str() {
        "anon_inode:bpf-prog" => sys::program_info(object.as_fd(), &mut []).ok().map(|info| info.id),
        "anon_inode:bpf_link" => sys::link_info(object.as_fd()).ok().map(|info| info.program),
        _ => None,
    }
}

fn kind_of(object: &OwnedFd) -> Option<String> {
    let link = fs::read_link(format!("/proc/self/fd/{}", object.as_raw_fd())).ok()?;
    Some(link.to_string_lossy().into_owned())
}

/// Returns the program that a process's perf event runs, if any.
#[must_use]
pub fn of_perf_event(pid: u32, fd: u32) -> Option<u32> {
    sys::perf_event_program(pid, fd).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYMBOLS: &str = "\
0000000000000000 A fixed_percpu_data
ffffffff81000000 T _stext
ffffffff81200000 T __bpf_call_base
ffffffff811fff00 T bpf_probe_write_user
ffffffff81200100 T bpf_probe_read_kernel
ffffffff81200180 T bpf_probe_read_kernel_str
ffffffffc0000000 t bpf_probe_read_compat\t[impostor]
";

    fn call(distance: i32, source: u8) -> bpf_insn {
        // SAFETY: plain data, for which zeros are valid.
        let mut insn: bpf_insn = unsafe { std::mem::zeroed() };
        insn.code = CALL;
        insn.set_src_reg(source);
        insn.imm = distance;
        insn
    }

    #[test]
    fn helpers_are_known_by_their_distance() {
        let helpers = Helpers::read(SYMBOLS.as_bytes()).unwrap();
        let program = [call(0x100, 0), call(-0x100, 0), call(0x180, 1), call(0x180, 2), call(7, 0)];
        assert_eq!(
            helpers.among(&calls(&program)),
            [("bpf_probe_write_user", "bpf-write-user"), ("bpf_probe_read_kernel", "bpf-read-kernel")]
        );
        assert!(helpers.among(&calls(&[call(7, 0)])).is_empty());
        assert_eq!(helpers.0.len(), 3, "a module's symbol is not the kernel's");
    }

    #[test]
    fn hidden_addresses_are_an_error_and_not_nothing() {
        let hidden = "0000000000000000 T __bpf_call_base\n0000000000000000 T bpf_probe_read_kernel\n";
        assert!(Helpers::read(hidden.as_bytes()).is_err());
        assert!(Helpers::read(&b""[..]).is_err());
    }

    #[test]
    fn guarded_helpers_belong_to_reasons_of_the_table() {
        assert!(GUARDED.iter().all(|(_, reason)| stockade_reasons::by_id(reason).is_some()));
        assert_eq!(info::kind(2), "kprobe");
        assert_eq!(info::kind(29), "LSM");
        assert_eq!(info::kind(99), "type 99");
    }
}
