/*!
A machine for tests: its files, cgroups and kernel.
*/
use std::{io, path::Path};

use stockade_reasons::Level;

use super::{Cgroups, FileSystem, Files, Keeper, Machine, Now, Program, Report, Step, Unseen, check};
use crate::{
    Source,
    model::Policy,
    unit_files::{Placed, Unplaced},
};

/// The digest of the files of the tests.
const CONTENT: [u8; 32] = [0x11; 32];

/// Path, owner, mode, and what else there is to it.
const FILES: &[(&str, u32, u32, &str)] = &[
    ("/", 0, 0o755, "folder"),
    ("/usr", 0, 0o755, "folder"),
    ("/usr/bin", 0, 0o755, "folder"),
    ("/usr/bin/intel-undervolt", 0, 0o755, "verity"),
    ("/usr/bin/vendor-profiler", 0, 0o755, ""),
    ("/usr/bin/python3.13", 0, 0o755, ""),
    ("/usr/bin/perf", 0, 0o755, ""),
    ("/usr/bin/setuid-helper", 0, 0o4755, ""),
    ("/usr/bin/not-executable", 0, 0o644, ""),
    ("/usr/sbin", 0, 0o755, "folder"),
    ("/usr/sbin/wrmsr", 0, 0o755, ""),
    ("/usr/sbin/cron", 0, 0o755, ""),
    ("/usr/libexec", 0, 0o755, "folder"),
    ("/usr/libexec/fwupd", 0, 0o755, "folder"),
    ("/usr/libexec/fwupd/fwupd", 0, 0o755, ""),
    ("/usr/local", 0, 0o755, "folder"),
    ("/usr/local/bin", 0, 0o755, "folder"),
    ("/usr/local/bin/update-firmware", 0, 0o755, "script"),
    ("/opt", 0, 0o755, "folder"),
    ("/opt/vendor", 1000, 0o755, "folder"),
    ("/opt/vendor/bin", 0, 0o775, "folder"),
    ("/opt/vendor/bin/tool", 0, 0o755, ""),
    ("/srv", 0, 0o755, "folder"),
    ("/srv/nfs", 0, 0o755, "folder"),
    ("/srv/nfs/tool", 0, 0o755, "nfs"),
    ("/srv/fuse", 0, 0o755, "fuse"),
    ("/srv/overlay", 0, 0o755, "overlay"),
    ("/srv/noexec", 0, 0o755, "noexec"),
    ("/srv/read-only", 0, 0o755, "read-only"),
    ("/tmp", 0, 0o1777, "folder"),
    ("/tmp/of-root", 0, 0o755, "memory"),
    ("/tmp/of-user", 1000, 0o755, "memory"),
];

const CGROUPS: &[&str] =
    &["/", "/system.slice", "/kubepods.slice", "/build.slice", "/system.slice/fwupd.service"];

const SETTINGS: &[(&str, &str)] = &[
    ("kernel/kptr_restrict", "0"),
    ("kernel/sysrq", "438"),
    ("kernel/kptr_restict", "1"),
    ("kernel/yama/ptrace_scope", "1"),
];

struct Scenery;

impl Files for Scenery {
    fn program(&self, exe: &Path) -> Result<Program, Unseen> {
        let row = |path: &Path| FILES.iter().find(|(name, ..)| Path::new(name) == path);
        if exe == Path::new("/root/secret") {
            return Err(Unseen::Failed("/root".into(), io::ErrorKind::PermissionDenied.into()));
        }
        let Some((_, _, _, what)) = row(exe) else { return Err(Unseen::Missing(exe.into())) };
        let mut way: Vec<Step> = exe
            .ancestors()
            .filter_map(row)
            .map(|(path, uid, mode, _)| Step {
                path: path.into(),
                link: false,
                uid: *uid,
                gid: 50,
                mode: *mode,
                acl: false,
            })
            .collect();
        way.reverse();
        let keeper = match *what {
            "nfs" => Keeper::Network("NFS"),
            "fuse" => Keeper::Process,
            "overlay" => Keeper::Overlay,
            "memory" => Keeper::Memory,
            _ => Keeper::Kernel,
        };
        Ok(Program {
            real: exe.into(),
            way,
            regular: *what != "folder",
            script: (*what == "script").then(|| "/bin/sh".into()),
            file_system: FileSystem { keeper, no_exec: *what == "noexec", read_only: *what == "read-only" },
        })
    }

    fn sha256(&self, _: &Path) -> io::Result<[u8; 32]> {
        Ok(CONTENT)
    }

    fn verity(&self, exe: &Path) -> io::Result<Option<[u8; 32]>> {
        Ok((exe == Path::new("/usr/bin/intel-undervolt")).then_some(CONTENT))
    }

    fn unit(&self, unit: &str) -> Placed {
        let path = if unit == "rasdaemon.service" {
            Ok(format!("/system.slice/{unit}"))
        } else {
            Err(Unplaced::NoFile(unit.into()))
        };
        Placed { name: unit.into(), path }
    }
}

/// No lockdown of the kernel's own, Secure Boot, a kernel for x86, in November 2026.
pub fn machine() -> Machine<'static> {
    Machine {
        native: Some(Level::None),
        auto: Some(Level::Integrity),
        reasons: Some(
            stockade_reasons::all()
                .iter()
                .filter(|reason| reason.architecture != "powerpc")
                .map(|reason| reason.id.to_owned())
                .collect(),
        ),
        now: "2026-11-01T00:00:00Z".parse().unwrap(),
        files: &Scenery,
        cgroups: &|place| Some(Cgroups::of(CGROUPS).named_by(place)),
        function: &|name| Some(["bpf_lsm_file_open", "security_inode_getattr"].contains(&name)),
        setting: &|name| {
            let found = SETTINGS.iter().find(|(known, _)| *known == name);
            found.map_or(Now::Absent, |(_, value)| Now::Is((*value).to_owned()))
        },
    }
}

pub fn policy(text: &str) -> Policy {
    let document = crate::read(&Source::new("policy.toml", text)).unwrap_or_else(|wrong| panic!("{wrong}"));
    crate::merge::merge([document]).unwrap()
}

pub fn found(text: &str) -> Report {
    check(&policy(text), &machine())
}
