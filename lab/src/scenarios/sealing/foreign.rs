//! Foreign BPF programs: of the kinds that a seal considers, and of kinds that it does not.

use std::{
    ffi::CStr,
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use anyhow::{Context, Result};
use stockade_kernel::btf;

/// The type of a program and the hook that it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An LSM program on the hook that decides.
    Lsm,
    /// An LSM program on a hook to which a seal attaches nothing.
    LsmElsewhere,
    /// An LSM_CGROUP program on the hook that decides.
    LsmCgroup,
    /// The instructions of [`Kind::LsmCgroup`] as an LSM program for a link.
    LsmCgroupForLink,
    /// An LSM_CGROUP program on the hook `bpf_map`.
    LsmCgroupOfMaps,
    /// A modify-return program on `security_locked_down`.
    ModifyReturn,
    /// A cgroup sysctl program.
    CgroupSysctl,
    /// An fentry program, which cannot change a result.
    Fentry,
    /// An LSM program on the hook `bpf_prog`: EPERM for the program with this id.
    Guard,
    /// An LSM program on the hook `bpf`: ENOENT for BPF_PROG_GET_FD_BY_ID with this id.
    Denier,
    /// An LSM program on the hook `bpf`: EPERM for BPF_LINK_GET_FD_BY_ID with this id.
    LinkGuard,
}

impl Kind {
    /// Returns the program type, attach type, function, name, and the return value that allows a request.
    fn parts(self) -> (u32, u32, &'static str, &'static [u8], u64) {
        match self {
            Self::Lsm => (29, 27, "bpf_lsm_locked_down", b"lab_lsm", 0),
            Self::LsmElsewhere => (29, 27, "bpf_lsm_inode_permission", b"lab_elsewhere", 0),
            Self::LsmCgroup => (29, LSM_CGROUP, "bpf_lsm_locked_down", b"lab_lsm_cgroup", 1),
            Self::LsmCgroupForLink => (29, 27, "bpf_lsm_locked_down", b"lab_for_link", 1),
            Self::LsmCgroupOfMaps => (29, LSM_CGROUP, "bpf_lsm_bpf_map", b"lab_of_maps", 1),
            Self::ModifyReturn => (26, 26, "security_locked_down", b"lab_modify", 0),
            Self::CgroupSysctl => (23, 18, "", b"lab_sysctl", 1),
            Self::Fentry => (26, 24, "security_locked_down", b"lab_fentry", 0),
            Self::Guard => (29, 27, "bpf_lsm_bpf_prog", b"lab_guard", 0),
            Self::Denier => (29, 27, "bpf_lsm_bpf", b"lab_denier", 0),
            Self::LinkGuard => (29, 27, "bpf_lsm_bpf", b"lab_link_guard", 0),
        }
    }

    /// Returns the name of its programs in the kernel.
    pub fn name(self) -> &'static str {
        std::str::from_utf8(self.parts().3).expect("plain letters")
    }

    /// Returns its type in the words of `stockade seal`.
    pub fn words(self) -> &'static str {
        match self {
            Self::Lsm
            | Self::LsmElsewhere
            | Self::LsmCgroup
            | Self::LsmCgroupForLink
            | Self::LsmCgroupOfMaps
            | Self::Guard
            | Self::Denier
            | Self::LinkGuard => "LSM",
            Self::ModifyReturn | Self::Fentry => "tracing",
            Self::CgroupSysctl => "cgroup sysctl",
        }
    }
}

/// `BPF_LSM_CGROUP`
const LSM_CGROUP: u32 = 43;

/// A loaded program.
#[derive(Debug)]
pub(super) struct Foreign {
    program: OwnedFd,
    /// Its id, as `bpftool prog` shows it.
    pub id: u32,
    /// Its tag, in sixteen hexadecimal digits.
    pub tag: String,
}

impl Foreign {
    /// Loads a program that allows everything. `number` is an operand of its instructions, so each number gives another tag.
    pub fn load(kind: Kind, number: u32) -> Result<Self> {
        Self::try_load(kind, number)?.with_context(|| format!("load a program of kind {kind:?}"))
    }

    /// Loads a program as [`Self::load`] does, and returns the kernel's error separately.
    pub fn try_load(kind: Kind, number: u32) -> Result<io::Result<Self>> {
        #[repr(C)]
        struct Attr {
            prog_type: u32,
            insn_cnt: u32,
            insns: u64,
            license: u64,
            log: [u64; 2],
            kern_version: u32,
            prog_flags: u32,
            prog_name: [u8; 16],
            prog_ifindex: u32,
            expected_attach_type: u32,
            /// prog_btf_fd and the fields of func_info and line_info.
            none: [u64; 4],
            line_info_cnt: u32,
            attach_btf_id: u32,
        }
        let (prog_type, attach_type, function, name, answer) = kind.parts();
        let attach_btf_id = match function {
            "" => 0,
            name => btf::function(name)?.with_context(|| format!("this kernel has no {name}"))?,
        };
        let set = |register: u64, value: u64| value << 32 | register << 8 | 0xb7;
        let program = match kind {
            Kind::Guard => guard(number)?,
            Kind::Denier => fails_for(PROG_GET_FD_BY_ID, number, libc::ENOENT),
            Kind::LinkGuard => fails_for(LINK_GET_FD_BY_ID, number, libc::EPERM),
            _ => vec![set(1, number.into()), set(0, answer), 0x95],
        };
        let mut prog_name = [0; 16];
        prog_name[..name.len()].copy_from_slice(name);
        let attr = Attr {
            prog_type,
            insn_cnt: program.len().try_into().expect("a few instructions"),
            insns: program.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            log: [0; 2],
            kern_version: 0,
            prog_flags: 0,
            prog_name,
            prog_ifindex: 0,
            expected_attach_type: attach_type,
            none: [0; 4],
            line_info_cnt: 0,
            attach_btf_id,
        };
        let program = match bpf(PROG_LOAD, &attr) {
            Ok(program) => owned(program),
            Err(error) => return Ok(Err(error)),
        };
        // struct bpf_prog_info: type, id, tag.
        let mut info = [0u8; 16];
        let ask = [u64::from(number_of(program.as_fd())) | 16 << 32, info.as_mut_ptr() as u64];
        bpf(OBJ_GET_INFO_BY_FD, &ask).context("ask what the kernel knows of a program")?;
        let id = u32::from_ne_bytes([info[4], info[5], info[6], info[7]]);
        let tag = u64::from_be_bytes(std::array::from_fn(|at| info[8 + at]));
        let tag = format!("{tag:016x}");
        Ok(Ok(Self { program, id, tag }))
    }

    /// Attaches it to its function. It is detached when the returned link is dropped, unless that is pinned.
    pub fn attach(&self) -> Result<OwnedFd> {
        let attr = [0, u64::from(number_of(self.program.as_fd()))];
        bpf(RAW_TRACEPOINT_OPEN, &attr).map(owned).context("attach a program")
    }

    /// Returns the id of a link.
    pub fn link_id(link: &OwnedFd) -> Result<u32> {
        // struct bpf_link_info: type, id.
        let mut info = [0u32; 4];
        let ask = [u64::from(number_of(link.as_fd())) | 16 << 32, info.as_mut_ptr() as u64];
        bpf(OBJ_GET_INFO_BY_FD, &ask).context("ask what the kernel knows of a link")?;
        Ok(info[1])
    }

    /// Pins the program.
    pub fn pin(&self, path: &CStr) -> Result<()> {
        let attr = [path.as_ptr() as u64, u64::from(number_of(self.program.as_fd()))];
        bpf(OBJ_PIN, &attr).map(drop).context("pin a program")
    }

    /// Attaches it to this cgroup with BPF_F_ALLOW_MULTI, beside others.
    pub fn attach_to(&self, cgroup: &File) -> io::Result<()> {
        const ALLOW_MULTI: u32 = 2;
        self.at_cgroup(PROG_ATTACH, cgroup, ALLOW_MULTI)
    }

    /// Attaches it to this cgroup without BPF_F_ALLOW_MULTI: no other program can be attached there for the same hook.
    pub fn attach_alone_to(&self, cgroup: &File) -> io::Result<()> {
        self.at_cgroup(PROG_ATTACH, cgroup, 0)
    }

    /// Detaches it from this cgroup.
    pub fn detach_from(&self, cgroup: &File) -> io::Result<()> {
        self.at_cgroup(PROG_DETACH, cgroup, 0)
    }

    fn at_cgroup(&self, call: i64, cgroup: &File, flags: u32) -> io::Result<()> {
        let attr = [number_of(cgroup.as_fd()), number_of(self.program.as_fd()), LSM_CGROUP, flags];
        bpf(call, &attr).map(drop)
    }
}

/// Returns the instructions of a guard on the hook `bpf_prog`: EPERM for the program with this id, 0 for every other.
fn guard(id: u32) -> Result<Vec<u64>> {
    const EIGHT_BYTES: u64 = 0x79;
    const FOUR_BYTES: u64 = 0x61;
    let offset = |owner, member| {
        btf::offset(owner, member)?.with_context(|| format!("this kernel has no {owner}.{member}"))
    };
    let (aux, aux_id) = (offset("bpf_prog", "aux")?, offset("bpf_prog_aux", "id")?);
    let load = |size: u64, (to, from): (u64, u64), offset: u32| {
        size | to << 8 | from << 12 | u64::from(offset) << 16
    };
    // r0 = 0; unless r1 == id, skip one instruction; r0 = -EPERM.
    let set_r0 = |value: i32| u64::from(value.cast_unsigned()) << 32 | 0xb7;
    let skip_unless = u64::from(id) << 32 | 1 << 16 | 1 << 8 | 0x55;
    Ok(vec![
        load(EIGHT_BYTES, (1, 1), 0),
        load(EIGHT_BYTES, (1, 1), aux),
        load(FOUR_BYTES, (1, 1), aux_id),
        set_r0(0),
        skip_unless,
        set_r0(-libc::EPERM),
        0x95,
    ])
}

/// Returns the instructions of a program on the hook `bpf`: this errno for this command with this id, 0 for everything else.
fn fails_for(command: u32, id: u32, errno: i32) -> Vec<u64> {
    let immediate = |code: u64, register: u64, value: u32| u64::from(value) << 32 | register << 8 | code;
    let load = |size: u64, to: u64, from: u64, offset: u64| size | to << 8 | from << 12 | offset << 16;
    let skip_unless = |register: u64, value: u32, count: u64| immediate(0x55, register, value) | count << 16;
    vec![
        // r2 = the command; r3 = the attributes, then their first word, the id.
        load(0x79, 2, 1, 0),
        load(0x79, 3, 1, 8),
        load(0x61, 3, 3, 0),
        immediate(0xb7, 0, 0),
        skip_unless(2, command, 2),
        skip_unless(3, id, 1),
        immediate(0xb7, 0, (-errno).cast_unsigned()),
        0x95,
    ]
}

const PROG_GET_FD_BY_ID: u32 = 13;
const LINK_GET_FD_BY_ID: u32 = 30;

const PROG_LOAD: i64 = 5;
const OBJ_PIN: i64 = 6;
const PROG_ATTACH: i64 = 8;
const PROG_DETACH: i64 = 9;
const OBJ_GET_INFO_BY_FD: i64 = 15;
const RAW_TRACEPOINT_OPEN: i64 = 17;

fn bpf<T>(call: i64, attr: &T) -> io::Result<i64> {
    // SAFETY: the attributes and the memory that they point to live through the call, and the size is that of the attributes.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, call, &raw const *attr, size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

fn owned(answer: i64) -> OwnedFd {
    let fd = i32::try_from(answer).expect("descriptors fit an int");
    // SAFETY: the kernel has just created the descriptor, and nothing else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn number_of(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}
