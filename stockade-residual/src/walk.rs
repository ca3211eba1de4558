/*!
Every process's descriptors and mappings.

For each process: its descriptors are told by statx(2) through /proc/PID/fd, which opens nothing; its mappings are
read from /proc/PID/maps, and of each file mapped anywhere the numbers are asked once, through
/proc/PID/map_files. Threads share both with their process, as a rule; kcmp(2) tells those that keep descriptors
of their own. The work is shared out among the processors.
*/
use std::{
    collections::HashMap,
    fs::{self, File},
    io::Read,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::Path,
    thread,
};

use rustix::{
    fs::{FileType, OFlags, RawDir},
    io::Errno,
};

use self::files::{
    Line, access, fdinfo, field, link, open_folder, open_in, other_threads, share_descriptors,
};
use crate::{
    Descriptor, Kind, Leftover, Process, Residue, Unseen,
    filesystems::Kinds,
    guarded::{Guard, Guarded, Numbers},
};

mod files;

/// Fewer processes than this are not worth a thread.
const WORTH_A_THREAD: usize = 200;
const MOST_THREADS: usize = 8;

/// Other results of the walk.
#[derive(Debug, Default)]
pub struct Walk {
    /// Open perf events: process and descriptor.
    pub perf_events: Vec<(u32, u32)>,
    /// Processes that hold a BPF program, directly or by a link, and its id.
    pub programs: Vec<(u32, u32)>,
}

/// Walks over all processes but this one.
pub fn all(proc: &Path, guard: &Guard, residue: &mut Residue) -> Walk {
    let pids = match pids(proc) {
        Ok(pids) => pids,
        Err(e) => {
            let why = format!("{}: {e}", proc.display());
            residue.unseen.push(Unseen { what: "open and mapped files", why, hidden_by: None });
            return Walk::default();
        }
    };
    let processors = thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
    let share = pids.len().div_ceil(processors).max(WORTH_A_THREAD);
    let parts: Vec<Part> = thread::scope(|scope| {
        let workers: Vec<_> =
            pids.chunks(share).map(|pids| scope.spawn(|| Worker::new(proc, guard).walk(pids))).collect();
        workers.into_iter().map(|w| w.join().expect("a worker does not panic")).collect()
    });
    let mut walk = Walk::default();
    let mut hidden = Vec::new();
    for part in parts {
        residue.processes += part.looked_at;
        residue.leftovers.extend(part.leftovers);
        walk.perf_events.extend(part.perf_events);
        walk.programs.extend(part.programs);
        hidden.extend(part.hidden);
    }
    if let Some((pid, error)) = hidden.first() {
        let why = format!("{} processes could not be read, the first was {pid}: {error}", hidden.len());
        residue.unseen.push(Unseen { what: "open and mapped files of some processes", why, hidden_by: None });
    }
    walk
}

fn pids(proc: &Path) -> std::io::Result<Vec<u32>> {
    let own = std::process::id();
    let names = fs::read_dir(proc)?.flatten().map(|entry| entry.file_name());
    Ok(names.filter_map(|name| name.to_str()?.parse().ok()).filter(|&pid| pid != own).collect())
}

/// The results of one worker.
#[derive(Default)]
struct Part {
    looked_at: usize,
    leftovers: Vec<Leftover>,
    perf_events: Vec<(u32, u32)>,
    programs: Vec<(u32, u32)>,
    hidden: Vec<(u32, Errno)>,
}

struct Worker<'a> {
    proc: &'a Path,
    guard: &'a Guard,
    kinds: Kinds,
    /// Mapped files by device, inode and path as a line of maps has them. The path belongs to it since some file
    /// systems (btrfs) use the same numbers for several files.
    known: HashMap<Box<[u8]>, Option<Guarded>>,
    maps: Vec<u8>,
    part: Part,
}

/// A guarded file of one process.
struct HeldFile {
    guarded: Guarded,
    name: String,
    descriptors: Vec<Descriptor>,
    mappings: Vec<String>,
}

type Held = Vec<HeldFile>;

impl<'a> Worker<'a> {
    fn new(proc: &'a Path, guard: &'a Guard) -> Self {
        let kinds = guard.kinds.clone();
        Self { proc, guard, kinds, known: HashMap::new(), maps: Vec::new(), part: Part::default() }
    }

    fn walk(mut self, pids: &[u32]) -> Part {
        for &pid in pids {
            match self.process(pid) {
                Ok(()) => self.part.looked_at += 1,
                // It ended meanwhile: what it had is closed.
                Err(Errno::NOENT | Errno::SRCH) => {}
                Err(error) => self.part.hidden.push((pid, error)),
            }
        }
        self.part
    }

    fn process(&mut self, pid: u32) -> rustix::io::Result<()> {
        let path = self.proc.join(pid.to_string());
        let folder = open_folder(&path)?;
        let mut held = Held::new();
        let descriptors = self.descriptors(pid, &path, &folder, &mut held);
        let memory = self.mappings(&path, &folder, &mut held);
        // What was found is told also where the rest could not be read.
        self.report(pid, None, held);
        descriptors?;
        let mut has_memory = memory?;
        for thread in other_threads(pid, &folder) {
            match self.thread(pid, thread, has_memory) {
                Ok(found_memory) => has_memory |= found_memory,
                Err(Errno::NOENT | Errno::SRCH) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A thread's own descriptors; and the memory, where the first thread has ended and took the sight of it along.
    fn thread(&mut self, pid: u32, thread: u32, has_memory: bool) -> rustix::io::Result<bool> {
        // Its folder is not listed in /proc, and is there.
        let path = self.proc.join(thread.to_string());
        let folder = open_folder(&path)?;
        let mut held = Held::new();
        let descriptors = if share_descriptors(pid, thread) {
            Ok(())
        } else {
            self.descriptors(pid, &path, &folder, &mut held)
        };
        let memory = if has_memory { Ok(true) } else { self.mappings(&path, &folder, &mut held) };
        self.report(pid, Some(thread), held);
        descriptors.and(memory)
    }

    fn descriptors(
        &mut self,
        pid: u32,
        path: &Path,
        folder: &OwnedFd,
        held: &mut Held,
    ) -> rustix::io::Result<()> {
        let list = open_in(folder, "fd", OFlags::DIRECTORY)?;
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut entries = RawDir::new(&list, &mut space);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            let Ok(number) = name.parse() else { continue };
            let file = match Numbers::of(&list, name) {
                Ok(file) => file,
                Err(error @ (Errno::ACCESS | Errno::PERM)) => return Err(error),
                // Closed meanwhile, or its file server is gone: no file of the kernel's own.
                Err(_) => continue,
            };
            // What is no file at all, such as a perf event, has no type.
            if file.kind == FileType::Unknown {
                self.nameless(pid, number, folder, &list);
                continue;
            }
            let at = path.join("fd").join(name);
            let Some(guarded) = self.guard.open_file(&file, &mut self.kinds, path, &at) else { continue };
            let Some(access) = access(folder, number) else { continue };
            if guarded.refuses(access) {
                let entry = entry_for(held, guarded, || link(&at));
                entry.descriptors.push(Descriptor { number, access });
            }
        }
        Ok(())
    }

    /// Perf events, BPF programs and links: kept to say who holds what is found elsewhere.
    fn nameless(&mut self, pid: u32, number: u32, folder: &OwnedFd, list: &OwnedFd) {
        let Ok(target) = rustix::fs::readlinkat(list, number.to_string(), Vec::new()) else { return };
        match target.to_bytes() {
            b"anon_inode:[perf_event]" => self.part.perf_events.push((pid, number)),
            b"anon_inode:bpf-prog" | b"anon_inode:bpf_link" => {
                let program = fdinfo(folder, number).and_then(|text| field(&text, "prog_id:")?.parse().ok());
                self.part.programs.extend(program.map(|program| (pid, program)));
            }
            _ => {}
        }
    }

    /// Returns whether there is any memory to be mapped: kernel threads and ended processes have none.
    fn mappings(&mut self, path: &Path, folder: &OwnedFd, held: &mut Held) -> rustix::io::Result<bool> {
        let mut maps = std::mem::take(&mut self.maps);
        maps.clear();
        let read = open_in(folder, "maps", OFlags::empty()).and_then(|file| {
            File::from(file).read_to_end(&mut maps).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))
        });
        let mut answer = Ok(!maps.is_empty());
        match read {
            Ok(_) => {
                for line in maps.split(|&b| b == b'\n').filter_map(Line::parse) {
                    if let Err(error) = self.mapping(&line, path, folder, held) {
                        answer = Err(error);
                    }
                }
            }
            // No memory, newer kernels say.
            Err(Errno::SRCH) => answer = Ok(false),
            Err(error) => answer = Err(error),
        }
        self.maps = maps;
        answer
    }

    fn mapping(
        &mut self,
        line: &Line<'_>,
        path: &Path,
        folder: &OwnedFd,
        held: &mut Held,
    ) -> rustix::io::Result<()> {
        if !self.known.contains_key(line.file) {
            let place = format!("map_files/{}", line.place());
            let file = match Numbers::of(folder, place.as_str()) {
                Ok(file) => file,
                // Unmapped meanwhile.
                Err(Errno::NOENT | Errno::SRCH) => return Ok(()),
                Err(error) => return Err(error),
            };
            let guarded = self.guard.mapped_file(&file, &mut self.kinds, path, &path.join(place));
            self.known.insert(line.file.into(), guarded);
        }
        if let Some(Some(guarded)) = self.known.get(line.file) {
            let entry = entry_for(held, guarded.clone(), || line.path());
            entry.mappings.push(format!(
                "{} {}",
                String::from_utf8_lossy(line.range),
                String::from_utf8_lossy(line.access)
            ));
        }
        Ok(())
    }

    fn report(&mut self, pid: u32, thread: Option<u32>, held: Held) {
        if held.is_empty() {
            return;
        }
        let process = Process::read(self.proc, pid, thread);
        for mut file in held {
            file.descriptors.sort_unstable();
            let advice = match file.guarded.kind {
                Kind::PciBar => format!(
                    "end the process (kill {pid}); what it told the device to do goes on until the device is reset"
                ),
                _ => format!("end the process (kill {pid}) or restart its service"),
            };
            self.part.leftovers.push(Leftover {
                process: Some(process.clone()),
                descriptors: file.descriptors,
                mappings: file.mappings,
                ..Leftover::new(file.guarded.reason, file.guarded.kind, file.name, advice)
            });
        }
    }
}

fn entry_for(held: &mut Held, guarded: Guarded, name: impl FnOnce() -> String) -> &mut HeldFile {
    let name = guarded.name.clone().unwrap_or_else(name);
    let at = held.iter().position(|h| h.guarded.reason == guarded.reason && h.name == name);
    let at = at.unwrap_or_else(|| {
        held.push(HeldFile { guarded, name, descriptors: Vec::new(), mappings: Vec::new() });
        held.len() - 1
    });
    &mut held[at]
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, path::PathBuf};

    use super::*;
    use crate::{Access, guarded::tests::over_null};

    /// A folder that looks like /proc.
    struct Proc(PathBuf);

    impl Proc {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("stockade-residual-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(path.join("self")).unwrap();
            Self(path)
        }

        fn process(&self, pid: u32, descriptors: &[(u32, &str, &str)], maps: &str) {
            let folder = self.0.join(pid.to_string());
            for part in ["fd", "fdinfo", "map_files", "task"] {
                fs::create_dir_all(folder.join(part)).unwrap();
            }
            for (number, target, flags) in descriptors {
                symlink(target, folder.join(format!("fd/{number}"))).unwrap();
                let info = format!("pos:\t0\nflags:\t{flags}\nmnt_id:\t1\n");
                fs::write(folder.join(format!("fdinfo/{number}")), info).unwrap();
            }
            fs::write(folder.join("maps"), maps).unwrap();
            fs::write(folder.join("comm"), "idler\n").unwrap();
            fs::write(folder.join("stat"), format!("{pid} (idler) S{}100 0\n", " 0".repeat(18) + " "))
                .unwrap();
        }

        fn walk(&self) -> Residue {
            let mut residue = Residue::default();
            all(&self.0, &over_null(), &mut residue);
            residue
        }
    }

    impl Drop for Proc {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn an_open_and_mapped_device_is_one_leftover() {
        let proc = Proc::new("open");
        let maps = "00400000-00401000 r-xp 00000000 08:01 12 /bin/idler\n\
            7f0000000000-7f0000001000 rw-s 00000000 00:05 4    /dev/null\n\
            7f0000002000-7f0000003000 rw-p 00000000 00:00 0 \n\
            7ffc00000000-7ffc00001000 rw-p 00000000 00:00 0    [stack]\n";
        proc.process(42, &[(3, "/dev/null", "0100002"), (0, "/dev/zero", "0100000")], maps);
        symlink("/dev/zero", proc.0.join("42/map_files/400000-401000")).unwrap();
        symlink("/dev/null", proc.0.join("42/map_files/7f0000000000-7f0000001000")).unwrap();
        let residue = proc.walk();
        assert_eq!(residue.processes, 1);
        let [leftover] = &residue.leftovers[..] else { panic!("{residue:?}") };
        assert_eq!((leftover.reason, leftover.what.as_str()), ("dev-mem", "/dev/null"));
        assert_eq!(leftover.descriptors, [Descriptor { number: 3, access: Access::Both }]);
        assert_eq!(leftover.mappings, ["7f0000000000-7f0000001000 rw-s"]);
        let process = leftover.process.as_ref().unwrap();
        assert_eq!((process.pid, process.comm.as_str()), (42, "idler"));
        assert_eq!(process.started_boot_ns, Some(1_000_000_000));
        assert!(residue.unseen.is_empty());
    }

    #[test]
    fn a_path_descriptor_has_nothing_open() {
        let proc = Proc::new("path");
        proc.process(42, &[(3, "/dev/null", "012000000")], "");
        assert!(proc.walk().leftovers.is_empty());
    }

    #[test]
    fn a_process_that_ended_is_no_trouble_and_one_that_cannot_be_read_is_told() {
        let proc = Proc::new("ended");
        // No fd folder any more: as if it had ended between listing and reading.
        fs::create_dir_all(proc.0.join("41")).unwrap();
        assert_eq!(proc.walk(), Residue::default());
        // Not a folder where one should be: the kernel's answer is no "gone".
        fs::write(proc.0.join("43"), "").unwrap();
        let residue = proc.walk();
        assert_eq!(residue.unseen.len(), 1);
        assert!(residue.unseen[0].why.contains("the first was 43"), "{residue:?}");
    }

    #[test]
    fn without_proc_nothing_is_claimed() {
        let mut residue = Residue::default();
        all(Path::new("/nowhere"), &over_null(), &mut residue);
        assert_eq!(residue.unseen.len(), 1);
    }

    #[test]
    fn addresses_lose_their_leading_zeros() {
        let line = Line::parse(b"00400000-0040a000 r-xp 00001000 fd:01 77                 /a b").unwrap();
        assert_eq!(line.place(), "400000-40a000");
        assert_eq!(line.path(), "/a b");
        assert!(Line::parse(b"7ff0-7ff1 rw-p 00000000 00:00 0").is_none());
        assert!(Line::parse(b"7ff0-7ff1 rw-p 00000000 00:00 0   [heap]").is_none());
        assert!(Line::parse(b"").is_none());
    }

    #[test]
    fn threads_of_one_process_share_descriptors_unless_they_part() {
        let me = std::process::id();
        std::thread::spawn(move || {
            // SAFETY: no arguments; both change this thread alone.
            let (thread, parted) =
                unsafe { (libc::syscall(libc::SYS_gettid), libc::unshare(libc::CLONE_FILES)) };
            assert_eq!(parted, 0);
            let folder = open_folder(Path::new("/proc/self")).unwrap();
            let thread = u32::try_from(thread).unwrap();
            assert!(other_threads(me, &folder).contains(&thread));
            assert!(!share_descriptors(me, thread));
            assert!(share_descriptors(me, me));
        })
        .join()
        .unwrap();
    }
}
