/*!
The entropy that each part of a program should have, in bits, from the kernel's source.

| part | x86-64 | arm64 | kernel function |
|---|---|---|---|
| mmap, executable | `vm.mmap_rnd_bits` | `vm.mmap_rnd_bits` | `arch_mmap_rnd()`, `load_elf_binary()` |
| mmap, executable, 32-bit | `vm.mmap_rnd_compat_bits` | `vm.mmap_rnd_compat_bits` | |
| stack | 22 bits of pages and 9 of 16 bytes, which overlap by one | 18 bits of pages and 8 of 16 bytes | `STACK_RND_MASK`, `arch_align_stack()` |
| stack, 32-bit | 11 bits of pages and 9 of 16 bytes, which overlap by one | 11 bits of pages, 8 of 16 bytes | |
| heap, relative to the end of the program | 1 GiB since 6.9 and in some older stable kernels, before 32 MiB | 1 GiB | `arch_randomize_brk()` |
| heap, 32-bit | 32 MiB | 32 MiB | |
| vDSO | with mmap since 6.9, before with the stack: 22 bits; 32-bit with mmap | with mmap | `map_vdso()`, `vdso_addr()` |
*/
use super::{image::Width, sample::Layout};
use crate::{System, system::setting_path};

/// A part of a program.
pub(super) struct Part {
    pub id: &'static str,
    /// The name in sentences.
    pub name: &'static str,
    /// The name in charts.
    pub label: &'static str,
    /// The address of the part in a sampled program.
    pub address: fn(&Layout) -> Option<u64>,
    /// The expected entropy in bits; none where it is not known.
    pub expected: fn(&System, Width) -> Option<f64>,
}

pub(super) const PARTS: [Part; 5] = [
    Part { id: "aslr.stack", name: "stack", label: "stack", address: |at| Some(at.stack), expected: stack },
    Part {
        id: "aslr.mmap",
        name: "mmap (libraries included)",
        label: "mmap",
        address: |at| Some(at.mmap),
        expected: mmap,
    },
    Part {
        id: "aslr.heap",
        name: "heap (relative to the program)",
        label: "heap",
        address: |at| at.heap.checked_sub(at.executable),
        expected: heap,
    },
    Part {
        id: "aslr.executable",
        name: "position-independent executable",
        label: "executable",
        address: |at| Some(at.executable),
        expected: mmap,
    },
    Part { id: "aslr.vdso", name: "vDSO", label: "vdso", address: |at| at.vdso, expected: vdso },
];

const X86: bool = cfg!(target_arch = "x86_64");
const ARM: bool = cfg!(target_arch = "aarch64");

/// Reports whether pages have 4 KiB, for which the figures above hold.
fn has_small_pages() -> bool {
    rustix::param::page_size() == 4096
}

fn stack(_: &System, width: Width) -> Option<f64> {
    match width {
        Width::Native if X86 => Some(30.0),
        Width::Native if ARM && has_small_pages() => Some(26.0),
        Width::Compat if X86 => Some(19.0),
        Width::Compat if ARM && has_small_pages() => Some(19.0),
        _ => None,
    }
}

fn mmap(system: &System, width: Width) -> Option<f64> {
    let setting = match width {
        Width::Native => "vm.mmap_rnd_bits",
        Width::Compat => "vm.mmap_rnd_compat_bits",
    };
    let bits = system.number(&setting_path(setting)).ok()?;
    u8::try_from(bits).ok().map(f64::from)
}

fn heap(system: &System, width: Width) -> Option<f64> {
    if !(X86 || ARM) || !has_small_pages() {
        return None;
    }
    let is_large = width == Width::Native && (ARM || system.is_at_least(6, 9));
    Some(if is_large { 18.0 } else { 13.0 })
}

fn vdso(system: &System, width: Width) -> Option<f64> {
    match width {
        Width::Native if X86 && !system.is_at_least(6, 9) => Some(22.0),
        _ if X86 || ARM => mmap(system, width),
        _ => None,
    }
}
