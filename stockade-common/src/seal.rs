/*!
What sealed programs know of the seal: the value of the map `.data.seal`, written once, then read-only for user space
and for programs alike.
*/

/// Most programs that the guards know: our own, and those that an administrator trusts.
pub const KNOWN_MAX: usize = 64;

/// A program that may be loaded. Its instructions alone do not make it harmless: what lets through at one hook may answer
/// in the place of everybody else at another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct KnownProgram {
    /// Its tag, as the kernel has the bytes.
    pub tag: u64,
    /// Its kind: one of `enum bpf_prog_type`.
    pub kind: u32,
    /// What it is attached to: a BTF id; 0 for kinds that have none.
    pub hook: u32,
    /// How it is attached: one of `enum bpf_attach_type`, or [`KnownProgram::ANY`].
    pub attach_type: u32,
    /// Zero.
    pub pad: u32,
}

impl KnownProgram {
    /// The kernel does not tell of another's program how it is meant to be attached.
    pub const ANY: u32 = u32::MAX;

    const NONE: Self = Self { tag: 0, kind: 0, hook: 0, attach_type: 0, pad: 0 };
}

/// Most maps that are kept from others: see [`Seal::maps`].
pub const KEPT_MAPS_MAX: usize = 4;

/// Most files that nobody may open for writing.
pub const KEPT_FILES_MAX: usize = 4;

/// A file that nobody may open for writing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct KeptFile {
    /// Inode number; 0 for none.
    pub inode: u64,
    /// Device of its file system, as in [`crate::Event::exe_device`].
    pub device: u32,
    /// 1 where it is let through and reported.
    pub audit: u32,
    /// The setting that it stands for, padded with zeros.
    pub name: [u64; 8],
}

impl KeptFile {
    const NONE: Self = Self { inode: 0, device: 0, audit: 0, name: [0; 8] };
}

/// The seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Seal {
    /// [`crate::MAGIC`].
    pub magic: u64,
    /// [`crate::LAYOUT`].
    pub layout: u32,
    /// Number of the generation: 1 for the first, one more for each stacked on it.
    pub number: u32,
    /// When it was sealed: nanoseconds since boot, suspend included.
    pub sealed_boot_ns: u64,
    /// The boot it belongs to.
    pub boot_id: [u8; 16],
    /// What is left open, see [`Seal::NEW_CGROUPS`].
    pub open: u32,
    /// How many programs are known.
    pub programs_known: u32,
    /// Ids of maps that programs write and decisions depend on: nobody else gets a descriptor to write them by. 0 for none.
    pub maps: [u32; KEPT_MAPS_MAX],
    /// Programs that may be loaded.
    pub programs: [KnownProgram; KNOWN_MAX],
    /// Files that nobody may open for writing.
    pub files: [KeptFile; KEPT_FILES_MAX],
}

impl Seal {
    /// Bit of [`Seal::open`]: new cgroups get their places by attachments that root can end.
    pub const NEW_CGROUPS: u32 = 1;

    /// What a program that can be lifted knows: nothing.
    pub const NONE: Self = Self {
        magic: crate::MAGIC,
        layout: crate::LAYOUT,
        number: 0,
        sealed_boot_ns: 0,
        boot_id: [0; 16],
        open: 0,
        programs_known: 0,
        maps: [0; KEPT_MAPS_MAX],
        programs: [KnownProgram::NONE; KNOWN_MAX],
        files: [KeptFile::NONE; KEPT_FILES_MAX],
    };
}

/// Where the running kernel keeps what the guards read of programs, maps and files. Written into the object before it is loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct GuardOffsets {
    /// `bpf_prog.type`
    pub kind: u32,
    /// `bpf_prog.expected_attach_type`
    pub attach_type: u32,
    /// `bpf_prog.tag`
    pub tag: u32,
    /// `bpf_prog.aux`
    pub more: u32,
    /// `bpf_prog_aux.attach_btf_id`
    pub hook: u32,
    /// `bpf_map.id`
    pub map_id: u32,
    /// `file.f_mode`
    pub file_mode: u32,
}

impl GuardOffsets {
    /// Structure and field behind each word, in the order in which they lie.
    pub const FIELDS: [(&'static str, &'static str); 7] = [
        ("bpf_prog", "type"),
        ("bpf_prog", "expected_attach_type"),
        ("bpf_prog", "tag"),
        ("bpf_prog", "aux"),
        ("bpf_prog_aux", "attach_btf_id"),
        ("bpf_map", "id"),
        ("file", "f_mode"),
    ];

    /// The words in order, as they lie in the program.
    #[must_use]
    pub const fn words(self) -> [u32; 7] {
        [self.kind, self.attach_type, self.tag, self.more, self.hook, self.map_id, self.file_mode]
    }
}

/// `enum bpf_prog_type` and `enum bpf_attach_type`, as far as guards know them: user space's interface, and so fixed.
pub mod kinds {
    /// `BPF_PROG_TYPE_CGROUP_SYSCTL`
    pub const CGROUP_SYSCTL: u32 = 23;
    /// `BPF_PROG_TYPE_TRACING`
    pub const TRACING: u32 = 26;
    /// `BPF_PROG_TYPE_EXT`
    pub const EXT: u32 = 28;
    /// `BPF_PROG_TYPE_LSM`
    pub const LSM: u32 = 29;
    /// `BPF_CGROUP_SYSCTL`
    pub const ATTACH_CGROUP_SYSCTL: u32 = 18;
    /// `BPF_MODIFY_RETURN`
    pub const ATTACH_MODIFY_RETURN: u32 = 26;
    /// `BPF_LSM_CGROUP`
    pub const ATTACH_LSM_CGROUP: u32 = 43;

    /// Whether programs of this kind can stand between a question and the answer of a sealed one.
    #[must_use]
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "the kernel side has no function calls on this path")]
    pub const fn reaches_us(kind: u32, attach_type: u32) -> bool {
        kind == LSM
            || kind == EXT
            || kind == CGROUP_SYSCTL
            || (kind == TRACING && attach_type == ATTACH_MODIFY_RETURN)
    }
}

const _: () = assert!(size_of::<Seal>() == 48 + 4 * KEPT_MAPS_MAX + 24 * KNOWN_MAX + 80 * KEPT_FILES_MAX);
