/*!
Where the running kernel keeps what the programs read of its structures.
*/

macro_rules! offsets {
    ($($(#[$doc:meta])* $name:ident: $owner:literal . $field:literal,)+) => {
        /// Byte offsets, written into the program before it is loaded: the verifier takes them for constants.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[repr(C)]
        pub struct Offsets {
            $($(#[$doc])* pub $name: u32,)+
        }

        impl Offsets {
            /// Structure and field behind each word, in the order in which they lie.
            pub const FIELDS: &'static [(&'static str, &'static str)] = &[$(($owner, $field)),+];

            /// Offsets in the order of [`Self::FIELDS`]; a field that is not there is 0.
            #[must_use]
            pub fn from_words(words: &[Option<u32>]) -> Self {
                let mut words = words.iter().map(|word| word.unwrap_or(0));
                Self { $($name: words.next().unwrap_or(0),)+ }
            }

            /// The words in order, as they lie in the program.
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
    /// `task_struct.mm`; this one and the following to `superblock_device` are all 0 where the kernel lacks one
    /// of them, and the executable is then unknown
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
    /// `task_struct.group_leader`; this one and all that follow are needed by policies with places or
    /// exceptions only
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
    /// Seconds of the inode's change time: `inode.i_ctime_sec` since 6.11, before that the first field of
    /// `inode.__i_ctime` (6.6) or `inode.i_ctime`
    inode_ctime: "inode"."i_ctime_sec",
    /// Nanoseconds of it: `inode.i_ctime_nsec` since 6.11, before that eight bytes further
    inode_ctime_nsec: "inode"."i_ctime_nsec",
    /// `task_struct.real_parent`
    task_parent: "task_struct"."real_parent",
    /// `task_struct.self_exec_id`, which moves with every execve(2)
    task_exec_id: "task_struct"."self_exec_id",
    /// `task_struct.files`
    task_files: "task_struct"."files",
    /// `files_struct.next_fd`: every descriptor below it is open
    files_next: "files_struct"."next_fd",
    /// `files_struct.fdt`
    files_table: "files_struct"."fdt",
    /// `files_struct.open_fds_init`: which of the first 64 descriptors are open, as long as the table has no more
    files_open: "files_struct"."open_fds_init",
    /// `fdtable.max_fds`
    table_size: "fdtable"."max_fds",
    /// `mm_struct.flags`
    mm_flags: "mm_struct"."flags",
    /// `inode.i_writecount`
    inode_writers: "inode"."i_writecount",
    /// `linux_binprm.unsafe`
    bprm_unsafe: "linux_binprm"."unsafe",
    /// `task_struct.seccomp`; this one and the three that follow are all 0 on a kernel that was built without
    /// seccomp filters, and where no program gives labels
    task_seccomp: "task_struct"."seccomp",
    /// `seccomp.filter`
    seccomp_filter: "seccomp"."filter",
    /// `seccomp_filter.prev`
    filter_earlier: "seccomp_filter"."prev",
    /// `seccomp_filter.notif`
    filter_listener: "seccomp_filter"."notif",
    /// `inode.i_verity_info`; this one and the next are both 0 on kernels that keep it elsewhere (since 6.18)
    /// or were built without fs-verity
    inode_verity: "inode"."i_verity_info",
    /// `fsverity_info.file_digest`
    verity_digest: "fsverity_info"."file_digest",
}

/// How many of [`Offsets::FIELDS`] say who asks: no program works without them.
pub const WHO_ASKS: usize = 5;

/// How many of [`Offsets::FIELDS`] every policy reads where the kernel has them.
pub const ALWAYS_READ: usize = 11;

/// How many of [`Offsets::FIELDS`], the last ones, a kernel may lack: those of seccomp filters and of fs-verity.
pub const MAY_LACK: usize = 6;
