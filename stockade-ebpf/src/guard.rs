/*!
What keeps others from the sealed programs.

Only bpf(2) can take them off the root cgroup, and only programs of four kinds can stand between a question and
their answer: other programs of the security module, programs that modify what a function of the kernel returns,
programs that extend a program, and those that are asked for sysctls. The guards refuse the first and let nobody
load the second, unless it is a program of ours: those can only refuse more.
*/
use aya_ebpf::{macros::lsm_cgroup, programs::LsmContext};
use core::ptr::{addr_of, read_volatile};
use stockade_common::{
    GuardOffsets, KEPT_FILES_MAX, KEPT_MAPS_MAX, KNOWN_MAX, KnownProgram, SettingRule, Verdict, kinds,
};

use crate::{
    anchor::seal,
    report::{Write, report_write},
    task::{File, field},
};

const GOES_ON: i32 = 1;
const REFUSED: i32 = 0;

/// Written by the loader.
#[unsafe(no_mangle)]
static GUARD_OFFSETS: GuardOffsets = GuardOffsets { kind: 0, attach_type: 0, tag: 0, more: 0, hook: 0, map_id: 0, file_mode: 0 };

const BPF_PROG_ATTACH: u32 = 8;
const BPF_PROG_DETACH: u32 = 9;
const BPF_F_REPLACE: u32 = 1 << 2;

/// `bpf(cmd, attr, size)`: every call of bpf(2). Attached last: from
/// then on nothing can be taken off.
#[lsm_cgroup(hook = "bpf")]
pub fn guard_calls(ctx: LsmContext) -> i32 {
    let command: u32 = ctx.arg(0);
    if command != BPF_PROG_ATTACH && command != BPF_PROG_DETACH {
        return GOES_ON;
    }
    let attr: *const u32 = ctx.arg(1);
    // SAFETY: loads through BTF pointers read zero instead of faulting. The kernel has copied the block already, so
    // nobody changes it after this look: target_fd, attach_bpf_fd, attach_type, attach_flags.
    let (attach_type, flags) = unsafe { (*attr.add(2), *attr.add(3)) };
    let ours = attach_type == kinds::ATTACH_LSM_CGROUP || attach_type == kinds::ATTACH_CGROUP_SYSCTL;
    if ours && (command == BPF_PROG_DETACH || flags & BPF_F_REPLACE != 0) { REFUSED } else { GOES_ON }
}

/// `bpf_prog(prog)`: a process is about to get a descriptor of a program, by loading it or by finding it.
#[lsm_cgroup(hook = "bpf_prog")]
pub fn guard_programs(ctx: LsmContext) -> i32 {
    let program: *const u8 = ctx.arg(0);
    // SAFETY: as above.
    let (kind, attach_type) = unsafe {
        (
            *field::<u32>(program, &GUARD_OFFSETS.kind),
            *field::<u32>(program, &GUARD_OFFSETS.attach_type),
        )
    };
    if !kinds::reaches_us(kind, attach_type) {
        return GOES_ON;
    }
    // SAFETY: as above. In two words, since it need not be aligned to eight bytes.
    let tag = unsafe {
        let words: *const u32 = field(program, &GUARD_OFFSETS.tag);
        *words as u64 | (*words.add(1) as u64) << 32
    };
    // SAFETY: as above.
    let hook = unsafe {
        let more: *const u8 = *field(program, &GUARD_OFFSETS.more);
        *field::<u32>(more, &GUARD_OFFSETS.hook)
    };
    let mut at = 0;
    while at < KNOWN_MAX {
        // SAFETY: points into the seal; the bound is the array's.
        let (used, known) =
            unsafe { (read_volatile(addr_of!((*seal()).programs_known)), &*addr_of!((*seal()).programs[at])) };
        if at as u32 >= used {
            break;
        }
        let meant = known.attach_type == attach_type || known.attach_type == KnownProgram::ANY;
        if known.tag == tag && known.kind == kind && known.hook == hook && meant {
            return GOES_ON;
        }
        at += 1;
    }
    REFUSED
}

/// `bpf_map(map, mode)`: a process is about to get a descriptor of a map. Even by one that is meant for reading, a program
/// could write what decisions depend on.
#[lsm_cgroup(hook = "bpf_map")]
pub fn guard_maps(ctx: LsmContext) -> i32 {
    let map: *const u8 = ctx.arg(0);
    // SAFETY: as above.
    let id = unsafe { *field::<u32>(map, &GUARD_OFFSETS.map_id) };
    let mut at = 0;
    while at < KEPT_MAPS_MAX {
        // SAFETY: points into the seal.
        let kept = unsafe { read_volatile(addr_of!((*seal()).maps[at])) };
        if kept != 0 && kept == id {
            return REFUSED;
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
    // SAFETY: as above.
    if unsafe { *field::<u32>(file, &GUARD_OFFSETS.file_mode) } & FMODE_WRITE == 0 {
        return GOES_ON;
    }
    let id = File::from_argument(file).id();
    let mut at = 0;
    while at < KEPT_FILES_MAX {
        // SAFETY: points into the seal.
        let kept = unsafe { &*addr_of!((*seal()).files[at]) };
        if kept.inode != 0 && kept.inode == id.inode && kept.device == id.device {
            let told = Write { name: &kept.name, value: &[0; 8], length: 0, hold: SettingRule::FREEZE };
            let audited = kept.audit != 0;
            report_write(&told, if audited { Verdict::Audited } else { Verdict::Refused });
            return if audited { GOES_ON } else { REFUSED };
        }
        at += 1;
    }
    GOES_ON
}
