/*!
Offsets of the fields of kernel structures that the BPF programs read.
*/

macro_rules! offsets {
    ($($(#[$doc:meta])* $name:ident: $owner:literal . $field:literal,)+) => {
        /// Byte offsets, written into the object before it is loaded, so that the verifier takes them for constants.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[repr(C)]
        pub struct Offsets {
            $($(#[$doc])* pub $name: u32,)+
        }

        impl Offsets {
            /// Structure and field of each offset, in the order of the fields above.
            pub const FIELDS: &'static [(&'static str, &'static str)] = &[$(($owner, $field)),+];

            /// Makes offsets from words in the order of [`Self::FIELDS`]; a missing field gets 0.
            #[must_use]
            pub fn from_words(words: &[Option<u32>]) -> Self {
                let mut words = words.iter().map(|word| word.unwrap_or(0));
                Self { $($name: words.next().unwrap_or(0),)+ }
            }

            /// Returns the offsets in the order of [`Self::FIELDS`].
            #[must_use]
            pub const fn words(self) -> [u32; Self::FIELDS.len()] {
                [$(self.$name),+]
            }
        }
    };
}

offsets! {
    /// `task_struct.pid`
    task_pid: "task_struct"."pid",
    /// `task_struct.tgid`
    task_tgid: "task_struct"."tgid",
    /// `task_struct.comm`
    task_comm: "task_struct"."comm",
    /// `task_struct.cred`
    task_cred: "task_struct"."cred",
    /// `cred.uid`
    cred_uid: "cred"."uid",
    /// `task_struct.mm`; if the kernel lacks a field from here to `superblock_device`, all of these are 0 and the executable is not known
    task_mm: "task_struct"."mm",
    /// `mm_struct.exe_file`
    mm_exe_file: "mm_struct"."exe_file",
    /// `file.f_inode`
    file_inode: "file"."f_inode",
    /// `inode.i_ino`
    inode_number: "inode"."i_ino",
    /// `inode.i_sb`
    inode_superblock: "inode"."i_sb",
    /// `super_block.s_dev`
    superblock_device: "super_block"."s_dev",
    /// `task_struct.group_leader`; only policies with places or exceptions need this field and those below
    task_leader: "task_struct"."group_leader",
    /// `task_struct.ptrace`
    task_ptrace: "task_struct"."ptrace",
    /// `task_struct.cgroups`
    task_cgroups: "task_struct"."cgroups",
    /// `css_set.dfl_cgrp`
    css_set_cgroup: "css_set"."dfl_cgrp",
    /// `cgroup.level`
    cgroup_level: "cgroup"."level",
    /// `cgroup.kn`
    cgroup_node: "cgroup"."kn",
    /// `kernfs_node.id`
    node_id: "kernfs_node"."id",
    /// `cgroup.root`
    cgroup_root: "cgroup"."root",
    /// `cgroup.self`
    cgroup_state: "cgroup"."self",
    /// `cgroup_subsys_state.flags`
    state_flags: "cgroup_subsys_state"."flags",
    /// `linux_binprm.file`
    bprm_file: "linux_binprm"."file",
    /// `linux_binprm.p`
    bprm_strings: "linux_binprm"."p",
    /// `linux_binprm.argc`
    bprm_argc: "linux_binprm"."argc",
    /// `linux_binprm.envc`
    bprm_envc: "linux_binprm"."envc",
    /// `inode.i_flags`
    inode_flags: "inode"."i_flags",
    /// `inode.i_generation`
    inode_generation: "inode"."i_generation",
    /// Seconds of the inode's ctime: `inode.i_ctime_sec` since 6.11, before that the first field of `inode.__i_ctime` (6.6) or `inode.i_ctime`
    inode_ctime: "inode"."i_ctime_sec",
    /// Nanoseconds of the inode's ctime: `inode.i_ctime_nsec` since 6.11, before that eight bytes after the seconds
    inode_ctime_nsec: "inode"."i_ctime_nsec",
    /// `task_struct.real_parent`
    task_parent: "task_struct"."real_parent",
    /// `task_struct.self_exec_id`, which execve(2) increments
    task_exec_id: "task_struct"."self_exec_id",
    /// `task_struct.files`
    task_files: "task_struct"."files",
    /// `files_struct.next_fd`: every descriptor below it is open
    files_next: "files_struct"."next_fd",
    /// `files_struct.fdt`
    files_table: "files_struct"."fdt",
    /// `files_struct.open_fds_init`: the open descriptors among the first 64, while the table has no more
    files_open: "files_struct"."open_fds_init",
    /// `fdtable.max_fds`
    table_size: "fdtable"."max_fds",
    /// `mm_struct.flags`
    mm_flags: "mm_struct"."flags",
    /// `inode.i_writecount`
    inode_writers: "inode"."i_writecount",
    /// `linux_binprm.unsafe`
    bprm_unsafe: "linux_binprm"."unsafe",
    /// `task_struct.seccomp`; this field and the next three are all 0 on a kernel without seccomp filters, and if no program gives labels
    task_seccomp: "task_struct"."seccomp",
    /// `seccomp.filter`
    seccomp_filter: "seccomp"."filter",
    /// `seccomp_filter.prev`
    filter_earlier: "seccomp_filter"."prev",
    /// `seccomp_filter.notif`
    filter_listener: "seccomp_filter"."notif",
    /// `inode.i_verity_info`; this field and the next are both 0 on kernels that keep it elsewhere (since 6.18) or lack fs-verity
    inode_verity: "inode"."i_verity_info",
    /// `fsverity_info.file_digest`
    verity_digest: "fsverity_info"."file_digest",
}

/// Number of leading [`Offsets::FIELDS`] that identify the requester: no program works without them.
pub const WHO_ASKS: usize = 5;

/// Number of leading [`Offsets::FIELDS`] that every policy reads where the kernel has them.
pub const ALWAYS_READ: usize = 11;

/// Number of trailing [`Offsets::FIELDS`] that a kernel may lack: those of seccomp filters and of fs-verity.
pub const MAY_LACK: usize = 6;
