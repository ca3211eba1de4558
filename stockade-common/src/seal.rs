/*!
The values of maps that belong to a seal. [`crate::dialogue`] reads and changes them.

User space writes the map `.data.seal` once, before the seal is complete. Only programs of the seal write `.data.added`,
`.data.stacked` and `.data.seen`. No process can open a map by which a seal decides, Stockade included. To read a seal or to add to it, a
process calls bpf(2) with a command number that no kernel has: the guard on that system call answers by the errno.
*/
use crate::{ReasonSet, Slot};

/// Maximum number of policies with scopes or exceptions that can be added to a seal.
pub const STACKED_MAX: usize = 16;

/// Maximum number of programs that an administrator trusts.
pub const TRUSTED_MAX: usize = 32;

/// Maximum number of entries of [`Seal::trusted`]: beside those of an administrator, programs of Stockade that are loaded while a
/// seal is made, by their ids.
pub const KNOWN_MAX: usize = TRUSTED_MAX + 10;

/// A program that may be loaded although its kind could override a sealed one. The tag alone does not make it harmless: instructions that
/// allow a request on one hook can override the other programs on another hook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct KnownProgram {
    /// The tag: the eight bytes in the kernel's order.
    pub tag: u64,
    /// The kind, see [`kinds::of`]. Any other number stands for a program that could not be read, and matches no program.
    pub kind: u32,
    /// BTF id of the hook or function that it is attached to; 0 for kinds without one.
    pub hook: u32,
}

impl KnownProgram {
    const NONE: Self = Self { tag: 0, kind: 0, hook: 0 };
}

/// Maximum number of programs of a seal: one for each duty that the root cgroup can hold.
pub const HELD_MAX: usize = 12;

/// Maximum number of maps of a seal.
pub const KEPT_MAPS_MAX: usize = 20;

/// Maximum number of `CGROUP_SYSCTL` programs of others that stay attached.
pub const STAYING_MAX: usize = 8;

/// Maximum number of files that no process may open for writing.
pub const KEPT_FILES_MAX: usize = 4;

/// A file that no process may open for writing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct KeptFile {
    /// Inode number; 0 for none.
    pub inode: u64,
    /// Device of its file system, as in [`crate::Event::exe_device`].
    pub device: u32,
    /// 1 if opening it for writing is allowed and reported.
    pub audit: u32,
    /// Name of the setting that events show for it, padded with zeros.
    pub name: [u64; 8],
}

impl KeptFile {
    const NONE: Self = Self { inode: 0, device: 0, audit: 0, name: [0; 8] };
}

/// A seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Seal {
    /// [`crate::MAGIC`].
    pub magic: u64,
    /// [`crate::LAYOUT`].
    pub layout: u32,
    /// A set of [`Seal::NEW_CGROUPS`], [`Seal::BOUNDED`] and [`Seal::SYSCTL_CLOSED`].
    pub flags: u32,
    /// Time of sealing: nanoseconds since boot, suspend included.
    pub sealed_boot_ns: u64,
    /// Boot id of the boot that it belongs to.
    pub boot_id: [u8; 16],
    /// Ids of the maps of which no process gets a descriptor; 0 for none.
    pub maps: [u32; KEPT_MAPS_MAX],
    /// Ids of the maps that decide nothing and may be opened: the counters and the events.
    pub shown: [u32; 2],
    /// Ids of the seal's programs; 0 for none.
    pub programs: [u32; HELD_MAX],
    /// BTF ids of the hooks that [`Seal::programs`] are attached to, in the same order.
    pub hooks: [u32; HELD_MAX],
    /// Number of programs of the seal that use each of [`Seal::maps`], in the same order.
    pub map_programs: [u32; KEPT_MAPS_MAX],
    /// BTF id of the hook `bpf`, where the dialogue is answered.
    pub dialogue_hook: u32,
    /// Always 0.
    pub pad: u32,
    /// Ids of the `CGROUP_SYSCTL` programs of others that were attached before; 0 for none.
    pub staying: [u32; STAYING_MAX],
    /// Programs of others that may be loaded, from the first entry on.
    pub trusted: [KnownProgram; KNOWN_MAX],
    /// Files that no process may open for writing.
    pub files: [KeptFile; KEPT_FILES_MAX],
}

impl Seal {
    /// Bit of [`Seal::flags`]: programs on tracepoints give new cgroups their places. Root can detach these programs.
    pub const NEW_CGROUPS: u32 = 1;
    /// Bit of [`Seal::flags`]: the verifier bounds the return value of a program on an LSM hook (6.12 and later), so that such a program can
    /// only refuse more.
    pub const BOUNDED: u32 = 2;
    /// Bit of [`Seal::flags`]: no `CGROUP_SYSCTL` program may be attached any more, since one that was loaded before the seal could change a
    /// value after the seal's program has checked it.
    pub const SYSCTL_CLOSED: u32 = 4;

    /// An empty seal: the value in programs that are not sealed.
    pub const NONE: Self = Self {
        magic: crate::MAGIC,
        layout: crate::LAYOUT,
        flags: 0,
        sealed_boot_ns: 0,
        boot_id: [0; 16],
        maps: [0; KEPT_MAPS_MAX],
        shown: [0; 2],
        programs: [0; HELD_MAX],
        hooks: [0; HELD_MAX],
        map_programs: [0; KEPT_MAPS_MAX],
        dialogue_hook: 0,
        pad: 0,
        staying: [0; STAYING_MAX],
        trusted: [KnownProgram::NONE; KNOWN_MAX],
        files: [KeptFile::NONE; KEPT_FILES_MAX],
    };
}

/// Additions to a seal. Bits are only ever set, by atomic instructions, so that concurrent additions do not undo each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Added {
    /// Reasons refused or audited anywhere by an addition, see [`crate::Words::watched_anywhere`]. Bits as in [`ReasonSet`].
    pub watched_anywhere: ReasonSet,
    /// Reasons refused or audited for every process.
    pub watched: ReasonSet,
    /// Reasons refused for every process. A subset of `watched`.
    pub deny: ReasonSet,
    /// Reasons for which no event is written, see [`crate::Words::quiet`].
    pub quiet: ReasonSet,
    /// Number of requests that the seal did not simply allow.
    pub heard: u64,
    /// Number of additions.
    pub count: u64,
    /// 1 from the first call of bpf(2) after the commit. Until then the command that makes the seal can detach its programs.
    pub closed: u64,
    /// Description of the whole policy, from the last addition. No decision reads it.
    pub told: Slot,
}

impl Added {
    /// No additions.
    pub const NONE: Self = Self {
        watched_anywhere: 0,
        watched: 0,
        deny: 0,
        quiet: 0,
        heard: 0,
        count: 0,
        closed: 0,
        told: Slot::EMPTY,
    };
}

/// Policies with scopes or exceptions that were added to a seal. Each has its own entries in the hash maps and decides each request by
/// itself; the strictest verdict counts, so that no policy can make another laxer.
///
/// A command adds a policy in one transaction: ANNOUNCE, one WRITE for each entry, COMMIT. Another process can call WRITE during the
/// transaction. The command therefore passes to COMMIT the value that [`Stacked::written`] has after its own calls, and COMMIT fails if there were
/// more. ANNOUNCE fails while another call is running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Stacked {
    /// Generation of the policy whose transaction is open; 0 for none. No decision reads it yet.
    pub pending: u64,
    /// Number of ANNOUNCE and WRITE calls since the seal, those that failed included.
    pub written: u64,
    /// Generation of the last announced policy. New cgroups get a place in it, also while it is committed.
    pub placing: u64,
    /// Number of WRITE calls for the table `cgroups` since the seal.
    pub placed: u64,
    /// Value of `placed` at the last ANNOUNCE.
    pub placed_before: u64,
    /// Number of ANNOUNCE, WRITE and COMMIT calls that are running.
    pub writing: u64,
    /// Number of commits that asked for a slot. It exceeds [`STACKED_MAX`] if commits found no free slot.
    pub count: u64,
    /// The committed policies in order. A slot with generation 0 is not complete.
    pub slots: [Slot; STACKED_MAX],
    /// For each slot, the number of WRITE calls in its transaction for tables other than `cgroups`: the maximum number of entries there.
    pub entries: [u64; STACKED_MAX],
}

impl Stacked {
    /// No added policies.
    pub const NONE: Self = Self {
        pending: 0,
        written: 0,
        placing: 0,
        placed: 0,
        placed_before: 0,
        writing: 0,
        count: 0,
        slots: [Slot::EMPTY; STACKED_MAX],
        entries: [0; STACKED_MAX],
    };

    /// Generations of added policies are greater than this number, those of applied and sealed policies are lower.
    pub const FIRST: u64 = 1 << 32;

    /// Returns the generation of a policy whose ANNOUNCE raised [`Stacked::written`] to this value. No earlier entry can have it.
    #[must_use]
    pub const fn generation(written: u64) -> u64 {
        Self::FIRST + written
    }
}

/// Offsets of the fields of programs, maps, files and credentials that the guards read. Written into the object before it is loaded.
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
    /// `bpf_prog_aux.id`
    pub id: u32,
    /// `bpf_map.id`
    pub map_id: u32,
    /// `bpf_map.refcnt`
    pub map_references: u32,
    /// `bpf_map.usercnt`
    pub map_users: u32,
    /// `file.f_mode`
    pub file_mode: u32,
    /// `cred.cap_effective`
    pub cred_capabilities: u32,
    /// `cred.user_ns`
    pub cred_namespace: u32,
    /// `user_namespace.level`
    pub namespace_level: u32,
    /// `bpf_prog_aux.refcnt`
    pub program_references: u32,
    /// `inode.i_writecount`
    pub inode_writers: u32,
    /// `task_struct.exit_state`
    pub exit_state: u32,
}

impl GuardOffsets {
    /// Structure and field of each offset, in the order of the fields above.
    pub const FIELDS: [(&'static str, &'static str); 16] = [
        ("bpf_prog", "type"),
        ("bpf_prog", "expected_attach_type"),
        ("bpf_prog", "tag"),
        ("bpf_prog", "aux"),
        ("bpf_prog_aux", "attach_btf_id"),
        ("bpf_prog_aux", "id"),
        ("bpf_map", "id"),
        ("bpf_map", "refcnt"),
        ("bpf_map", "usercnt"),
        ("file", "f_mode"),
        ("cred", "cap_effective"),
        ("cred", "user_ns"),
        ("user_namespace", "level"),
        ("bpf_prog_aux", "refcnt"),
        ("inode", "i_writecount"),
        ("task_struct", "exit_state"),
    ];

    /// Every offset 0: the value in the object before it is loaded.
    pub const NONE: Self = Self::from_words([0; 16]);

    /// Makes offsets from words in the order of [`Self::FIELDS`].
    #[must_use]
    pub const fn from_words(words: [u32; 16]) -> Self {
        let [kind, attach_type, tag, more, hook, id, map_id, map_references, map_users, file_mode, ..] =
            words;
        let [.., cred_capabilities, cred_namespace, namespace_level, _, _, _] = words;
        let [.., program_references, inode_writers, exit_state] = words;
        Self {
            kind,
            attach_type,
            tag,
            more,
            hook,
            id,
            map_id,
            map_references,
            map_users,
            file_mode,
            cred_capabilities,
            cred_namespace,
            namespace_level,
            program_references,
            inode_writers,
            exit_state,
        }
    }

    /// Returns the offsets in the order of [`Self::FIELDS`].
    #[must_use]
    pub const fn words(self) -> [u32; 16] {
        [
            self.kind,
            self.attach_type,
            self.tag,
            self.more,
            self.hook,
            self.id,
            self.map_id,
            self.map_references,
            self.map_users,
            self.file_mode,
            self.cred_capabilities,
            self.cred_namespace,
            self.namespace_level,
            self.program_references,
            self.inode_writers,
            self.exit_state,
        ]
    }
}

/// Numbers of `enum bpf_prog_type` and `enum bpf_attach_type` that the guards compare. They are part of the kernel's user-space
/// API and do not change.
pub mod kinds {
    use crate::Seal;

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
    /// `BPF_LSM_MAC`
    pub const ATTACH_LSM: u32 = 27;
    /// `BPF_LSM_CGROUP`
    pub const ATTACH_LSM_CGROUP: u32 = 43;

    /// The hook that an LSM program is attached to.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Hook {
        /// A hook without a program of the seal.
        Another,
        /// One of [`Seal::hooks`].
        Ours,
        /// [`Seal::dialogue_hook`].
        Dialogue,
    }

    /// Returns the kind of a program: its `enum bpf_prog_type`, with its `enum bpf_attach_type` in the upper 16 bits for an LSM program. The
    /// attach type matters because a return value of 1 allows the request in an `LSM_CGROUP` program, and is the hook's result in another.
    #[must_use]
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "the kernel side has no function calls on this path")]
    pub const fn of(kind: u32, attach_type: u32) -> u32 {
        if kind == LSM { kind | attach_type << 16 } else { kind }
    }

    /// Reports whether a program of this kind could override a sealed one.
    ///
    /// The kernel runs an LSM program on its own hook alone. On a hook of the seal it could allow a request that the seal refuses: an `LSM_CGROUP`
    /// program always, since it can set the hook's return value; another one unless the verifier bounds its return value ([`Seal::BOUNDED`]), which
    /// it does for one attach type alone. With bounds it can still refuse, but on the hook of the dialogue a refusal is an answer.
    #[must_use]
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "the kernel side has no function calls on this path")]
    pub const fn reaches_us(kind: u32, attach_type: u32, hook: Hook, flags: u32) -> bool {
        if kind == LSM {
            return match hook {
                Hook::Another => false,
                Hook::Ours => attach_type != ATTACH_LSM || flags & Seal::BOUNDED == 0,
                Hook::Dialogue => true,
            };
        }
        kind == EXT || kind == CGROUP_SYSCTL || (kind == TRACING && attach_type == ATTACH_MODIFY_RETURN)
    }
}

const _: () = assert!(
    size_of::<Seal>()
        == 40
            + 4 * (2 * KEPT_MAPS_MAX + 2 + 2 * HELD_MAX + 2 + STAYING_MAX)
            + 16 * KNOWN_MAX
            + size_of::<KeptFile>() * KEPT_FILES_MAX
);
const _: () = assert!(size_of::<Added>() == 56 + size_of::<Slot>());
const _: () = assert!(size_of::<Stacked>() == 56 + STACKED_MAX * (size_of::<Slot>() + 8));

#[cfg(test)]
mod tests {
    use super::{
        Seal,
        kinds::{
            ATTACH_LSM, ATTACH_LSM_CGROUP, ATTACH_MODIFY_RETURN, CGROUP_SYSCTL, EXT, Hook, LSM, TRACING,
            reaches_us,
        },
    };

    #[test]
    fn a_program_reaches_us_by_what_it_is_attached_to() {
        let lsm = |attach_type, hook, flags| reaches_us(LSM, attach_type, hook, flags);
        for flags in [0, Seal::BOUNDED, Seal::NEW_CGROUPS] {
            for attach_type in [ATTACH_LSM, ATTACH_LSM_CGROUP] {
                assert!(!lsm(attach_type, Hook::Another, flags));
                assert!(lsm(attach_type, Hook::Dialogue, flags), "a refusal is an answer");
            }
            assert!(lsm(ATTACH_LSM_CGROUP, Hook::Ours, flags), "it may set what the hook returns");
            assert!(lsm(24, Hook::Ours, flags), "the verifier bounds another attach type");
            for kind in [EXT, CGROUP_SYSCTL] {
                assert!(reaches_us(kind, 0, Hook::Another, flags));
            }
            assert!(reaches_us(TRACING, ATTACH_MODIFY_RETURN, Hook::Another, flags));
            // fentry and socket filters cannot change a result.
            assert!(!reaches_us(TRACING, 24, Hook::Ours, flags) && !reaches_us(1, 0, Hook::Ours, flags));
        }
        assert!(lsm(ATTACH_LSM, Hook::Ours, 0));
        assert!(!lsm(ATTACH_LSM, Hook::Ours, Seal::BOUNDED));
    }
}
