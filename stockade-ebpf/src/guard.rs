/*!
The guards: programs that protect the sealed programs and their maps.

```text
bpf        refuses to detach or replace programs of the seal's kinds; answers the dialogue, see dialogue.rs
bpf_prog   refuses to load or open a program that could override a sealed one, and descriptors of sealed programs
bpf_map    refuses descriptors of the seal's maps
file_open  refuses to open files of other security modules for writing
```

No guard looks at the caller: root could act as whatever Stockade itself may do.

The guards on programs and maps also store the reference count of each sealed program or map for which a process requests a descriptor. A
system call that passed its hook before the guard was attached, and continues afterwards, needs a reference that it took before. If there are
no references but the known ones, no such call is left.
*/
use aya_ebpf::{helpers::generated::bpf_set_retval, macros::lsm_cgroup, programs::LsmContext};
use core::{
    intrinsics::{AtomicOrdering, atomic_xadd},
    ptr::{addr_of, addr_of_mut, read_volatile, write_volatile},
};
use stockade_common::{
    HELD_MAX, KEPT_FILES_MAX, KEPT_MAPS_MAX, KNOWN_MAX, Known, Seal, Seen, SettingRule, Verdict, dialogue,
    kinds::{self, Hook},
};

use crate::{
    dialogue::answer,
    maps::{GUARD_OFFSETS, added, seal, seen},
    report::{Write, report_write},
    task::{File, field},
};

const GOES_ON: i32 = 1;
const REFUSED: i32 = 0;

const BPF_PROG_ATTACH: u32 = 8;
const BPF_PROG_DETACH: u32 = 9;
const BPF_LINK_CREATE: u32 = 28;
const BPF_F_REPLACE: u32 = 1 << 2;

/// `bpf(cmd, attr, size)`: every call of bpf(2). Attached last: from then on no sealed program can be detached.
#[lsm_cgroup(hook = "bpf")]
pub fn guard_calls(ctx: LsmContext) -> i32 {
    let command: u32 = ctx.arg(0);
    let attr: *const u32 = ctx.arg(1);
    if !is_closed() {
        // SAFETY: an aligned word of ADDED.
        unsafe { write_volatile(addr_of_mut!((*added()).closed), 1) };
    }
    if command == dialogue::COMMAND {
        return answer(attr);
    }
    if command != BPF_PROG_ATTACH && command != BPF_PROG_DETACH && command != BPF_LINK_CREATE {
        return GOES_ON;
    }
    // SAFETY: loads through BTF pointers read zero instead of faulting. The kernel has already copied the attributes, so user space cannot change
    // them afterwards: all three commands have two descriptors, then attach_type and flags.
    let (attach_type, flags) = unsafe { (*attr.add(2), *attr.add(3)) };
    // SAFETY: inside SEAL.
    let sysctl_closed = unsafe { read_volatile(addr_of!((*seal()).flags)) } & Seal::SYSCTL_CLOSED != 0;
    let is_sysctl = attach_type == kinds::ATTACH_CGROUP_SYSCTL;
    let refused = if command == BPF_PROG_DETACH {
        is_sysctl || attach_type == kinds::ATTACH_LSM_CGROUP
    } else {
        let replaces = command == BPF_PROG_ATTACH && flags & BPF_F_REPLACE != 0;
        (replaces && (is_sysctl || attach_type == kinds::ATTACH_LSM_CGROUP)) || (is_sysctl && sysctl_closed)
    };
    if refused { REFUSED } else { GOES_ON }
}

/// Reports whether bpf(2) was called after the commit. Until then the command that makes the seal can undo it.
#[inline(always)]
fn is_closed() -> bool {
    // SAFETY: inside ADDED.
    unsafe { read_volatile(addr_of!((*added()).closed)) != 0 }
}

/// Refuses with ENOENT, as if no program or map had this id, so that a process that lists all programs or maps goes on with the next.
#[inline(always)]
fn hidden() -> i32 {
    const ENOENT: i32 = 2;
    // SAFETY: sets the return value of the system call.
    unsafe { bpf_set_retval(-ENOENT) };
    REFUSED
}

/// Returns the number of this request.
#[inline(always)]
pub fn next_number() -> u64 {
    // SAFETY: an aligned word of SEEN, changed by atomic instructions only.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(addr_of_mut!((*seen()).asked), 1) + 1 }
}

/// Stores a reference count. Not inlined: the verifier must know the bound of the slot where the address is computed.
#[inline(never)]
fn write_down(slot: u32, number: u64, references: u64, users: u64) {
    if slot as usize >= Known::SLOTS {
        return;
    }
    // SAFETY: an aligned word inside an array of SEEN.
    unsafe {
        let counts = addr_of_mut!((*seen()).counts).cast::<u64>().add(slot as usize);
        write_volatile(counts, Seen::count(number, references, users));
    }
}

/// `bpf_prog(prog)`: a process is about to get a descriptor of a program that it loads or opens.
#[lsm_cgroup(hook = "bpf_prog")]
pub fn guard_programs(ctx: LsmContext) -> i32 {
    let number = next_number();
    let program: *const u8 = ctx.arg(0);
    // SAFETY: loads through BTF pointers read zero instead of faulting. All loads precede the first branch: for each load of a pointer, on each
    // path to it, the verifier searches all types of the kernel by name.
    let (kind, attach_type, hook, id, references) = unsafe {
        let more: *const u8 = *field(program, &GUARD_OFFSETS.more);
        (
            *field::<u32>(program, &GUARD_OFFSETS.kind),
            *field::<u32>(program, &GUARD_OFFSETS.attach_type),
            *field::<u32>(more, &GUARD_OFFSETS.hook),
            *field::<u32>(more, &GUARD_OFFSETS.id),
            *field::<u64>(more, &GUARD_OFFSETS.program_references),
        )
    };
    // Most programs have a kind that cannot override a sealed program on any hook.
    if !kinds::reaches_us(kind, attach_type, Hook::Dialogue, 0) {
        return GOES_ON;
    }
    let slot = slot_of(id);
    if slot != 0 {
        write_down(slot - 1, number, references, 0);
        return if is_closed() { hidden() } else { GOES_ON };
    }
    // SAFETY: inside SEAL.
    let (flags, dialogue) = unsafe {
        (read_volatile(addr_of!((*seal()).flags)), read_volatile(addr_of!((*seal()).dialogue_hook)))
    };
    let on = if hook == dialogue {
        Hook::Dialogue
    } else if is_ours(hook) != 0 {
        Hook::Ours
    } else {
        Hook::Another
    };
    if !kinds::reaches_us(kind, attach_type, on, flags) {
        return GOES_ON;
    }
    // SAFETY: loads through BTF pointers read zero instead of faulting. Two words, since the tag need not be aligned to eight bytes.
    let tag = unsafe {
        let words: *const u32 = field(program, &GUARD_OFFSETS.tag);
        *words as u64 | (*words.add(1) as u64) << 32
    };
    let mut at = 0;
    while at < KNOWN_MAX {
        // SAFETY: inside SEAL; the loop ends at the array's length.
        let known = unsafe { &*addr_of!((*seal()).trusted[at]) };
        if known.kind == 0 {
            break;
        }
        if known.tag == tag && known.kind == kinds::of(kind, attach_type) && known.hook == hook {
            return GOES_ON;
        }
        at += 1;
    }
    REFUSED
}

/// Returns the slot of a program of the seal, counted from 1; 0 for any other. Not inlined: the verifier follows two paths from here instead of
/// one for each index.
#[inline(never)]
fn slot_of(id: u32) -> u32 {
    // Unused slots have id 0, which no program has.
    if id == 0 {
        return 0;
    }
    let mut at = 0;
    while at < HELD_MAX {
        // SAFETY: inside SEAL; the loop ends at the array's length.
        if unsafe { read_volatile(addr_of!((*seal()).programs[at])) } == id {
            return at as u32 + 1;
        }
        at += 1;
    }
    0
}

/// Returns 1 if a program of the seal is on this hook, otherwise 0. Not inlined: the verifier follows two paths from here instead of one for
/// each combination of hooks.
#[inline(never)]
fn is_ours(hook: u32) -> u32 {
    let mut at = 0;
    while at < HELD_MAX {
        // SAFETY: inside SEAL; the loop ends at the array's length.
        if unsafe { read_volatile(addr_of!((*seal()).hooks[at])) } == hook {
            return 1;
        }
        at += 1;
    }
    0
}

/// `bpf_map(map, mode)`: a process is about to get a descriptor of a map by creating it, by its id or by a pin. Even with a read-only
/// descriptor a BPF program could write to the map.
#[lsm_cgroup(hook = "bpf_map")]
pub fn guard_maps(ctx: LsmContext) -> i32 {
    let number = next_number();
    let map: *const u8 = ctx.arg(0);
    // SAFETY: loads through BTF pointers read zero instead of faulting.
    let id = unsafe { *field::<u32>(map, &GUARD_OFFSETS.map_id) };
    let mut at = 0;
    while at < KEPT_MAPS_MAX {
        // SAFETY: inside SEAL; the loop ends at the array's length.
        let kept = unsafe { read_volatile(addr_of!((*seal()).maps[at])) };
        if kept != 0 && kept == id {
            // SAFETY: loads through BTF pointers read zero instead of faulting.
            let (references, users) = unsafe {
                (
                    *field::<u64>(map, &GUARD_OFFSETS.map_references),
                    *field::<u64>(map, &GUARD_OFFSETS.map_users),
                )
            };
            write_down((Known::MAPS + at) as u32, number, references, users);
            return hidden();
        }
        at += 1;
    }
    GOES_ON
}

/// `file_open(file)`: a file is about to be opened.
#[lsm_cgroup(hook = "file_open")]
pub fn guard_files(ctx: LsmContext) -> i32 {
    const FMODE_WRITE: u32 = 2;
    let file: *const u8 = ctx.arg(0);
    // SAFETY: loads through BTF pointers read zero instead of faulting.
    let writes = unsafe { *field::<u32>(file, &GUARD_OFFSETS.file_mode) } & FMODE_WRITE != 0;
    if !writes && is_closed() {
        return GOES_ON;
    }
    let file = File::from_argument(file);
    let id = file.id();
    let mut at = 0;
    while at < KEPT_FILES_MAX {
        // SAFETY: inside SEAL; the loop ends at the array's length.
        let kept = unsafe { &*addr_of!((*seal()).files[at]) };
        if kept.inode != 0 && kept.inode == id.inode && kept.device == id.device {
            if !writes {
                // SAFETY: loads through BTF pointers read zero instead of faulting; an aligned word of SEEN.
                unsafe {
                    let writers = *field::<i32>(file.inode(), &GUARD_OFFSETS.inode_writers) > 0;
                    write_volatile(addr_of_mut!((*seen()).file), id.inode << 1 | writers as u64);
                }
                return GOES_ON;
            }
            let told = Write { name: &kept.name, value: &[0; 8], length: 0, hold: SettingRule::FREEZE };
            let audited = kept.audit != 0;
            report_write(&told, if audited { Verdict::Audited } else { Verdict::Refused });
            return if audited { GOES_ON } else { REFUSED };
        }
        at += 1;
    }
    GOES_ON
}
