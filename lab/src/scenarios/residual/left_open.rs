//! Resources that a program opens or loads before lockdown. Each is a value that releases its resource when it is dropped, if the kernel allows it.

use std::{
    ffi::CString,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    ptr,
};

use anyhow::{Context, Result, ensure};

use crate::{
    scenario::Skip,
    syscall::{check, descriptor},
};

/// A device node under a name that does not show the device, removed when this is dropped.
pub struct Node(pub PathBuf);

impl Node {
    pub fn new(path: &str, major: u32, minor: u32) -> Result<Self> {
        let _ = fs::remove_file(path);
        let name = CString::new(path)?;
        let device = libc::makedev(major, minor);
        // SAFETY: the path lives through the call.
        check(unsafe { libc::mknod(name.as_ptr(), libc::S_IFCHR | 0o600, device) })
            .with_context(|| format!("mknod {path}"))?;
        Ok(Self(path.into()))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A mapped page of a file whose file descriptor is closed.
pub struct Mapped(*mut libc::c_void);

impl Mapped {
    pub fn page(path: &Path, offset: i64) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .with_context(|| path.display().to_string())?;
        // SAFETY: a new mapping of an open file, at an address that the kernel chooses, replaces no mapping.
        let at = unsafe {
            libc::mmap(ptr::null_mut(), 4096, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), offset)
        };
        ensure!(at != libc::MAP_FAILED, "mmap {}: {}", path.display(), io::Error::last_os_error());
        Ok(Self(at))
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: `page` mapped this address with this length, and no reference to it exists.
        unsafe { libc::munmap(self.0, 4096) };
    }
}

/// A file system mounted for the scenario. When this is dropped, it is unmounted lazily: open files stay open.
pub struct Mount(CString);

impl Mount {
    pub fn new(kind: &str, path: &str) -> Result<Self> {
        fs::create_dir_all(path)?;
        let (kind, path) = (CString::new(kind)?, CString::new(path)?);
        // SAFETY: the strings live through the call.
        check(unsafe { libc::mount(kind.as_ptr(), path.as_ptr(), kind.as_ptr(), 0, ptr::null()) })
            .with_context(|| format!("mount {kind:?}"))?;
        Ok(Self(path))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // SAFETY: the path lives through the call.
        unsafe { libc::umount2(self.0.as_ptr(), libc::MNT_DETACH) };
    }
}

/// A trace event, defined by a line in a file of tracefs and removed when this is dropped.
pub struct TraceEvent {
    file: PathBuf,
    name: &'static str,
}

impl TraceEvent {
    /// Creates an event by a line that defines the name `group/event`.
    pub fn new(file: &str, line: &str, name: &'static str) -> Result<Self> {
        let file = Path::new("/sys/kernel/tracing").join(file);
        append(&file, line)?;
        Ok(Self { file, name })
    }
}

impl Drop for TraceEvent {
    fn drop(&mut self) {
        let _ = append(&self.file, &format!("-:{}", self.name));
    }
}

fn append(file: &Path, line: &str) -> Result<()> {
    let mut opened =
        OpenOptions::new().append(true).open(file).with_context(|| format!("open {}", file.display()))?;
    writeln!(opened, "{line}").with_context(|| format!("write {line} to {}", file.display()))
}

/// Opens a disabled perf event on a kprobe of `vfs_fsync`.
pub fn perf_kprobe() -> Result<OwnedFd> {
    let kind: u32 = fs::read_to_string("/sys/bus/event_source/devices/kprobe/type")?.trim().parse()?;
    let function = c"vfs_fsync";
    // struct perf_event_attr, version 5: type, size; flags at byte 40 (disabled); config1 at byte 56.
    let mut attr = [0u64; 14];
    attr[0] = u64::from(kind) | 112 << 32;
    attr[5] = 1;
    attr[7] = function.as_ptr() as u64;
    // SAFETY: the kernel reads 112 bytes of `attr`, and the terminated name.
    descriptor(unsafe { libc::syscall(libc::SYS_perf_event_open, attr.as_ptr(), 0, -1, -1, 8) })
        .context("perf_event_open of a kprobe")
}

/// Loads a kprobe program of eight instructions that calls this helper with harmless arguments. It is never attached.
pub fn program(name: &[u8; 16], helper: i32) -> Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log_buf: u64,
        kern_version: u32,
        prog_flags: u32,
        prog_name: [u8; 16],
    }
    const BPF_PROG_LOAD: i32 = 5;
    const WRITE_USER: i32 = 36;
    let insn = |code: u8, registers: u8, offset: i16, immediate: i32| {
        let bytes = [[code, registers], offset.to_ne_bytes()].concat();
        let low = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        u64::from(low) | u64::from(immediate.cast_unsigned()) << 32
    };
    let set = |register, value| insn(0xb7, register, 0, value);
    let frame = |register: u8| insn(0xbf, 10 << 4 | register, 0, 0);
    let below = |register| insn(0x07, register, 0, -8);
    let arguments = if helper == WRITE_USER {
        [set(1, 0), frame(2), below(2), set(3, 8)]
    } else {
        [frame(1), below(1), set(2, 8), set(3, 0)]
    };
    let [first, second, third, fourth] = arguments;
    let instructions = [
        insn(0x7a, 10, -8, 0),
        first,
        second,
        third,
        fourth,
        insn(0x85, 0, 0, helper),
        set(0, 0),
        insn(0x95, 0, 0, 0),
    ];
    let attr = Attr {
        prog_type: 2,
        insn_cnt: 8,
        insns: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name: *name,
    };
    // SAFETY: the attributes point to eight instructions and a terminated licence that outlive the call.
    descriptor(unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attr, size_of::<Attr>()) })
        .with_context(|| format!("load a program with helper {helper}"))
}

/// Pins a program in the BPF file system.
pub fn pin(program: &OwnedFd, path: &str) -> Result<()> {
    const BPF_OBJ_PIN: i32 = 6;
    let path = CString::new(path)?;
    let attr = [path.as_ptr() as u64, u64::from(program.as_raw_fd().cast_unsigned())];
    // SAFETY: the attributes point to a terminated path that outlives the call.
    check(unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_PIN, attr.as_ptr(), 16) })
        .context("pin a program")?;
    Ok(())
}

/// A kexec image of one page, which is never booted. It is unloaded when this is dropped.
pub struct KexecImage;

const UNLOAD: u64 = 1;

impl KexecImage {
    pub fn load() -> Result<Self> {
        const ARCHITECTURE: u64 = 62 << 16;
        let code = [0xf4u8; 16];
        // struct kexec_segment: buffer, its size, physical address, size there.
        let segment = [code.as_ptr() as u64, 16, 16 << 20, 4096];
        // SAFETY: one segment that points to sixteen bytes; both outlive the call.
        check(unsafe {
            libc::syscall(libc::SYS_kexec_load, 16u64 << 20, 1u64, segment.as_ptr(), ARCHITECTURE)
        })
        .context("kexec_load of a minimal image")?;
        Ok(Self)
    }

    /// Unloads the image, as `kexec -s -u` does.
    pub fn unload() -> io::Result<()> {
        // SAFETY: unloading takes no pointers.
        check(unsafe { libc::syscall(libc::SYS_kexec_file_load, -1, -1, 0, ptr::null::<u8>(), UNLOAD) })
            .map(drop)
    }
}

impl Drop for KexecImage {
    fn drop(&mut self) {
        let _ = Self::unload();
    }
}

/// A module without its signature, loaded in place of the signed module, which is loaded again when this is dropped.
pub struct Unsigned(Vec<u8>);

const MODULE: &str = "/modules/msr.ko";

impl Unsigned {
    pub fn msr() -> Result<Self> {
        const MAGIC: &[u8] = b"~Module signature appended~\n";
        let Ok(signed) = fs::read(MODULE) else {
            return Err(Skip("this kernel has msr built in: there is no module to strip".into()).into());
        };
        // Before the magic: struct module_signature of twelve bytes, which ends with the length of the signature.
        let rest = signed.strip_suffix(MAGIC).with_context(|| format!("{MODULE} carries no signature"))?;
        let (rest, length) = rest.split_last_chunk::<4>().context("a signature has a length")?;
        let end = rest.len() - 8 - u32::from_be_bytes(*length) as usize;
        remove()?;
        load(&signed[..end]).context("load msr without its signature")?;
        Ok(Self(signed))
    }
}

impl Drop for Unsigned {
    fn drop(&mut self) {
        let _ = remove();
        let _ = load(&self.0);
    }
}

fn remove() -> Result<()> {
    // SAFETY: the name is a NUL-terminated constant.
    check(unsafe { libc::syscall(libc::SYS_delete_module, c"msr".as_ptr(), libc::O_NONBLOCK) })
        .context("rmmod msr")?;
    Ok(())
}

fn load(module: &[u8]) -> io::Result<()> {
    // SAFETY: the image and the empty parameters outlive the call.
    check(unsafe { libc::syscall(libc::SYS_init_module, module.as_ptr(), module.len(), c"".as_ptr()) })
        .map(drop)
}

/// Returns the first BAR of QEMU's `edu` device.
pub fn edu_bar() -> Result<PathBuf> {
    for device in fs::read_dir("/sys/bus/pci/devices")?.flatten() {
        let is = |file: &str, value: &str| {
            fs::read_to_string(device.path().join(file)).is_ok_and(|text| text.trim() == value)
        };
        if is("vendor", "0x1234") && is("device", "0x11e8") {
            // A driver would enable the memory of the device; here no driver does.
            let _ = fs::write(device.path().join("enable"), "1");
            return Ok(device.path().join("resource0"));
        }
    }
    anyhow::bail!("this guest has no edu device")
}

/// Makes SIGUSR1 end only the thread to which it is sent.
pub fn end_this_thread_on_signal() {
    extern "C" fn end(_: libc::c_int) {
        // SAFETY: exit(2) takes a number and ends the calling thread only.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    }
    let handler: extern "C" fn(libc::c_int) = end;
    // SAFETY: the handler is async-signal-safe, since it makes one system call.
    unsafe { libc::signal(libc::SIGUSR1, handler as libc::sighandler_t) };
}

/// Children of this process, killed when this is dropped.
#[derive(Default)]
pub struct Children(Vec<i32>);

impl Children {
    /// Starts a child that runs a closure and then pauses. Returns its process id after the closure has returned.
    pub fn start(&mut self, does: impl FnOnce() -> Result<()>) -> Result<u32> {
        let (ready, mut writer) = pipe()?;
        // SAFETY: this process has one thread; the child runs this program's code and leaves through _exit.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            drop(ready);
            if let Err(error) = does() {
                eprintln!("child: {error:#}");
                // SAFETY: _exit takes a number; it ends the child without running the parent's exit handlers.
                unsafe { libc::_exit(1) };
            }
            let _ = writer.write_all(b"1");
            loop {
                // SAFETY: pause takes no arguments.
                unsafe { libc::pause() };
            }
        }
        check(pid).context("fork")?;
        self.0.push(pid);
        drop(writer);
        let mut byte = [0];
        io::Read::read_exact(&mut { ready }, &mut byte).context("the child did not get ready")?;
        Ok(pid.cast_unsigned())
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        for &pid in &self.0 {
            // SAFETY: the process ids belong to children of this process that were not reaped, and a null status pointer is allowed.
            unsafe {
                libc::kill(pid, libc::SIGKILL);
                libc::waitpid(pid, ptr::null_mut(), 0);
            }
        }
    }
}

fn pipe() -> Result<(File, File)> {
    let (reader, writer) = io::pipe()?;
    Ok((File::from(OwnedFd::from(reader)), File::from(OwnedFd::from(writer))))
}
