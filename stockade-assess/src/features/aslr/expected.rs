/*!
How many bits each part of a program should have, from the kernel's sources.

| part | x86-64 | arm64 | where |
|---|---|---|---|
| mappings, program | `vm.mmap_rnd_bits` | the same | `arch_mmap_rnd()`, `load_elf_binary()` |
| the same, 32-bit | `vm.mmap_rnd_compat_bits` | the same | |
| stack | 22 bits of pages and 9 of 16 bytes, which overlap by one | 18 bits of pages and 8 of 16 bytes | `STACK_RND_MASK`, `arch_align_stack()` |
| the same, 32-bit | 11 bits of pages, and as above | the same | |
| heap, from the program's end | 1 GiB since 6.9 and in some older stable kernels, before 32 MiB | 1 GiB | `arch_randomize_brk()` |
| the same, 32-bit | 32 MiB | the same | |
| vDSO | with the mappings since 6.9, before with the stack: 22 bits; 32-bit with the mappings | with the mappings | `map_vdso()`, `vdso_addr()` |
*/
use super::{image::Width, sample::Layout};
use crate::{System, system::setting_path};

/// A part of a program.
pub(super) struct Part {
    pub id: &'static str,
    /// In sentences.
    pub name: &'static str,
    /// In charts.
    pub label: &'static str,
    pub of: fn(&Layout) -> Option<u64>,
    /// In bits; none where it is not known.
    pub expected: fn(&System, Width) -> Option<f64>,
}

pub(super) const PARTS: [Part; 5] = [
    Part { id: "aslr.stack", name: "the stack", label: "stack", of: |at| Some(at.stack), expected: stack },
    Part {
        id: "aslr.mmap",
        name: "what is mapped, libraries included,",
        label: "mmap",
        of: |at| Some(at.mmap),
        expected: mmap,
    },
    Part {
        id: "aslr.heap",
        name: "the heap, seen from the program,",
        label: "heap",
        of: |at| at.heap.checked_sub(at.executable),
        expected: heap,
    },
    Part {
        id: "aslr.executable",
        name: "a position-independent program",
        label: "executable",
        of: |at| Some(at.executable),
        expected: mmap,
    },
    Part { id: "aslr.vdso", name: "the vDSO", label: "vdso", of: |at| at.vdso, expected: vdso },
];

const X86: bool = cfg!(target_arch = "x86_64");
const ARM: bool = cfg!(target_arch = "aarch64");

/// Pages of 4 KiB, of which the figures above speak.
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
