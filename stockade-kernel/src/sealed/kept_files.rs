/*!
Files by which root disables or weakens other security modules. A policy names them among its settings; a seal refuses every process to open them for
writing, by any mount and path.

The guard identifies a file by device and inode number: these are pseudo file systems with one instance each, whose files have the same inode until reboot. A
process that already has a file open for writing could still write to it after the seal, so the machine is not sealed then.
*/
use std::{os::unix::fs::MetadataExt, path::PathBuf};

use stockade_common::KeptFile;
use stockade_policy::{compile::CompiledSetting, settings};

use crate::{
    Error,
    machine::{patience::Patience, processes},
    sys::fs,
};

/// Returns the files for these settings, if their security modules are active.
pub(crate) fn find(held: &[CompiledSetting], lsms: &str) -> Result<Vec<(PathBuf, KeptFile)>, Error> {
    let mut found = Vec::new();
    for setting in held {
        let Some(known) = settings::FILES.iter().find(|known| known.kernel_name == setting.name) else {
            continue;
        };
        if !lsms.split(',').any(|lsm| lsm == known.module) {
            continue;
        }
        let there: Vec<_> =
            known.files.iter().filter_map(|file| Some((file, fs::metadata(file).ok()?))).collect();
        if there.is_empty() {
            return Err(Error::Request(format!(
                "the policy holds {}, and {} is not there: mount its file system, or take it out of [settings]",
                settings::dotted(&setting.name),
                known.files[0]
            )));
        }
        for (file, metadata) in there {
            found.push((PathBuf::from(file), kept(&metadata, setting)));
        }
    }
    Ok(found)
}

fn kept(metadata: &std::fs::Metadata, setting: &CompiledSetting) -> KeptFile {
    let device = metadata.dev();
    let mut name = [0; 64];
    for (to, byte) in name[..63].iter_mut().zip(setting.name.bytes()) {
        *to = byte;
    }
    let words = |bytes: [u8; 64]| {
        let mut words = [0; 8];
        for (word, eight) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_ne_bytes(eight.try_into().expect("eight bytes"));
        }
        words
    };
    KeptFile {
        inode: metadata.ino(),
        device: libc::major(device) << 20 | libc::minor(device),
        audit: u32::from(setting.rule.audit != 0),
        name: words(name),
    }
}

/// Waits until none of the files that the seal refuses to write is open for writing. Opens each for reading, so that the guard of the files stores
/// whether it has
/// writers; `seen` reads that, see [`stockade_common::Seen::file`]. Fails at once if a process has a file open for writing, and after some seconds if
/// no process can be found.
pub(crate) fn wait_for_no_writer(
    files: &[(PathBuf, KeptFile)],
    seen: &dyn Fn() -> Result<u64, Error>,
) -> Result<(), Error> {
    let refused: Vec<_> = files.iter().filter(|(_, file)| file.audit == 0).collect();
    for (path, kept) in &refused {
        let mut patience = Patience::new();
        loop {
            fs::File::open(path).map_err(|e| Error::io(format!("open {}", path.display()), e))?;
            let seen = seen()?;
            if seen == kept.inode << 1 {
                break;
            }
            // Another file may have been opened since, and `seen` be about that one.
            if seen == kept.inode << 1 | 1 {
                no_process_writes(&refused)?;
            }
            if !patience.wait() {
                return Err(Error::Request(format!(
                    "not sealed: {} is open for writing, by a descriptor that is in no process: on its way through a socket, for instance; end \
                     whoever holds it, or reboot",
                    path.display()
                )));
            }
        }
    }
    Ok(())
}

/// Fails if a process has one of these files open for writing.
fn no_process_writes(files: &[&(PathBuf, KeptFile)]) -> Result<(), Error> {
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        for fd in processes::descriptors(&entry.path()) {
            let Ok(metadata) = fs::metadata(fd.path()) else { continue };
            let same = |(path, _): &&&(PathBuf, KeptFile)| {
                fs::metadata(path)
                    .is_ok_and(|file| (file.dev(), file.ino()) == (metadata.dev(), metadata.ino()))
            };
            if let Some((path, _)) = files.iter().find(same).filter(|_| is_writable(&fd)) {
                return Err(Error::Request(format!(
                    "{} ({pid}) has {} open for writing, and could write it after the seal: end it and seal again",
                    processes::comm(&entry.path()),
                    path.display()
                )));
            }
        }
    }
    Ok(())
}

/// Reports whether a descriptor is open for writing: the two lowest bits of its flags are the access mode, 0 for O_RDONLY.
fn is_writable(fd: &fs::DirEntry) -> bool {
    let info = fs::read_to_string(processes::fdinfo(fd)).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    flags.is_none_or(|flags| !flags.trim().ends_with(['0', '4']))
}
