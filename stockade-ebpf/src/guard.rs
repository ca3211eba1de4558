/*!
What keeps others from the sealed programs, and from what those decide by.

```text
bpf        nothing is taken off the root cgroup; and the dialogue, see dialogue.rs
bpf_prog   nobody loads or opens a program that could answer in the place of a sealed one, or gets a descriptor of a sealed one
bpf_map    nobody gets a descriptor of a map of the seal
file_open  files of other security modules are not written
```

None of them looks at who asks: whatever Stockade itself may do, root may do in its name.

The last two also write down what they saw: how many references there were to what somebody asked for. A call that was let through
before the guard on its way was there, and goes on afterwards, needs a reference that it had before. Where there is none but
those that are known, no such call can do anything.
*/
use aya_ebpf::{helpers::generated::bpf_set_retval, macros::lsm_cgroup, programs::LsmContext};
use core::{
    intrinsics::{AtomicOrdering, atomic_xadd},
    ptr::{addr_of, addr_of_mut, read_volatile, write_volatile},
};
use stockade_common::{
    GuardOffsets, HELD_MAX, KEPT_FILES_MAX, KEPT_MAPS_MAX, KNOWN_MAX, Known, Seal, Seen, SettingRule, Verdict, dialogue,
    kinds::{self, Hook},
};

use crate::{
    anchor::{added, seal, seen},
    dialogue::answer,
    report::{Write, report_write},
    task::{File, field},
};

const GOES_ON: i32 = 1;
const REFUSED: i32 = 0;

/// Written by the loader.
#[unsafe(no_mangle)]
pub static GUARD_OFFSETS: GuardOffsets = GuardOffsets::NONE;

const BPF_PROG_ATTACH: u32 = 8;
const BPF_PROG_DETACH: u32 = 9;
const BPF_LINK_CREATE: u32 = 28;
const BPF_F_REPLACE: u32 = 1 << 2;

/// `bpf(cmd, attr, size)`: every call of bpf(2). Attached last: from
/// then on nothing can be taken off.
#[lsm_cgroup(hook = "bpf")]
pub fn guard_calls(ctx: LsmContext) -> i32 {
    let command: u32 = ctx.arg(0);
    let attr: *const u32 = ctx.arg(1);
    if !is_closed() {
        // SAFETY: points into what was added; an aligned word.
        unsafe { write_volatile(addr_of_mut!((*added()).closed), 1) };
    }
    if command == dialogue::COMMAND {
        return answer(attr);
    }
    if command != BPF_PROG_ATTACH && command != BPF_PROG_DETACH && command != BPF_LINK_CREATE {
        return GOES_ON;
    }
    // SAFETY: loads through BTF pointers read zero instead of faulting. The kernel has copied the block already, so
    // nobody changes it after this look: descriptor, descriptor, attach_type, flags, of all three commands.
    let (attach_type, flags) = unsafe { (*attr.add(2), *attr.add(3)) };
    // SAFETY: points into the seal.
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

/// Whether the commit is past, and with it the time in which the command that makes the seal may take it back.
#[inline(always)]
fn is_closed() -> bool {
    // SAFETY: points into what was added.
    unsafe { read_volatile(addr_of!((*added()).closed)) != 0 }
}

/// The answer where something of the seal is asked for: as if there were nothing with this id, so that whoever lists all programs or
/// maps goes on with the next.
#[inline(always)]
fn hidden() -> i32 {
    const ENOENT: i32 = 2;
    // SAFETY: sets what the call returns.
    unsafe { bpf_set_retval(-ENOENT) };
    REFUSED
}

/// The number of this look.
#[inline(always)]
pub fn next_number() -> u64 {
    // SAFETY: points into what was seen; an aligned word, only ever changed in this way.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(addr_of_mut!((*seen()).asked), 1) + 1 }
}

/// Writes down what was counted. Not inlined: the verifier has to see the comparison and the address together.
#[inline(never)]
fn write_down(slot: u32, number: u64, references: u64, users: u64) {
    if slot as usize >= Known::SLOTS {
        return;
    }
    // SAFETY: points into what was seen, within the array; an aligned word.
    unsafe {
        let counts = addr_of_mut!((*seen()).counts).cast::<u64>().add(slot as usize);
        write_volatile(counts, Seen::count(number, references, users));
    }
}

/// `bpf_prog(prog)`: a process is about to get a descriptor of a program, by loading it or by finding it.
#[lsm_cgroup(hook = "bpf_prog")]
pub fn guard_programs(ctx: LsmContext) -> i32 {
    let number = next_number();
    let program: *const u8 = ctx.arg(0);
    // SAFETY: loads through BTF pointers read zero instead of faulting. All at once, before the ways part: for each load of a pointer, and on each
    // way that leads to it, the verifier searches all types of the kernel by name.
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
    // Most are of no such kind, on whatever hook.
    if !kinds::reaches_us(kind, attach_type, Hook::Dialogue, 0) {
        return GOES_ON;
    }
    let slot = slot_of(id);
    if slot != 0 {
        write_down(slot - 1, number, references, 0);
        return if is_closed() { hidden() } else { GOES_ON };
    }
    // SAFETY: points into the seal.
    let (flags, dialogue) =
        unsafe { (read_volatile(addr_of!((*seal()).flags)), read_volatile(addr_of!((*seal()).dialogue_hook))) };
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
    // SAFETY: loads through BTF pointers read zero instead of faulting. In two words, since it need not be aligned to eight bytes.
    let tag = unsafe {
        let words: *const u32 = field(program, &GUARD_OFFSETS.tag);
        *words as u64 | (*words.add(1) as u64) << 32
    };
    let mut at = 0;
    while at < KNOWN_MAX {
        // SAFETY: points into the seal; the bound is the array's.
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

/// The slot of a program of the seal, counted from 1; 0 for any other. Not inlined, as [`is_ours`].
#[inline(never)]
fn slot_of(id: u32) -> u32 {
    // Places that are not used have 0, which is no program's.
    if id == 0 {
        return 0;
    }
    let mut at = 0;
    while at < HELD_MAX {
        // SAFETY: points into the seal; the bound is the array's.
        if unsafe { read_volatile(addr_of!((*seal()).programs[at])) } == id {
            return at as u32 + 1;
        }
        at += 1;
    }
    0
}

/// 1 where a program of the seal is on this hook, otherwise 0. Not inlined: it leaves the loop at the first that is, and the
/// verifier has to follow two ways from there, where it would follow one for each combination of hooks.
#[inline(never)]
fn is_ours(hook: u32) -> u32 {
    let mut at = 0;
    while at < HELD_MAX {
        // SAFETY: points into the seal; the bound is the array's.
        if unsafe { read_volatile(addr_of!((*seal()).hooks[at])) } == hook {
            return 1;
        }
        at += 1;
    }
    0
}

/// `bpf_map(map, mode)`: a process is about to get a descriptor of a map, by making it, by its id, or by a pin. Even by a
/// descriptor that is meant for reading, a program could write what decisions depend on.
#[lsm_cgroup(hook = "bpf_map")]
pub fn guard_maps(ctx: LsmContext) -> i32 {
    let number = next_number();
    let map: *const u8 = ctx.arg(0);
    // SAFETY: loads through BTF pointers read zero instead of faulting.
    let id = unsafe { *field::<u32>(map, &GUARD_OFFSETS.map_id) };
    let mut at = 0;
    while at < KEPT_MAPS_MAX {
        // SAFETY: points into the seal.
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
        // SAFETY: points into the seal; the bound is the array's.
        let kept = unsafe { &*addr_of!((*seal()).files[at]) };
        if kept.inode != 0 && kept.inode == id.inode && kept.device == id.device {
            if !writes {
                // SAFETY: loads through BTF pointers read zero instead of faulting; points into what was seen, an aligned word.
                unsafe {
                    let writers = *field::<i32>(file.inode(), &GUARD_OFFSETS.inode_writers) > 0;
                    write_volatile(addr_of_mut!((*seen()).file), id.inode << 1 | writers as u64);
                }
                return GOES_ON;
            }
            let told = Write { name: &kept.name, value: &[0; 8], length: 0, hold: SettingRule::FREEZE };
            let audited = kept.audit != 0;
            report_write(
                &told,
                if audited { Verdict::Audited } else { Verdict::Refused },
            );
            return if audited { GOES_ON } else { REFUSED };
        }
        at += 1;
    }
    GOES_ON
}
