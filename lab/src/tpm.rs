/*!
A TPM 2.0 for a guest: a swtpm process beside each QEMU.
*/
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

use crate::tool;

const PATIENCE: Duration = Duration::from_secs(30);

/// A running swtpm, which ends when this is dropped.
#[derive(Debug)]
pub struct Tpm {
    swtpm: Child,
    folder: PathBuf,
}

impl Tpm {
    /// Starts swtpm with a new TPM state. Its error output goes to the file `complaints`.
    pub fn start(complaints: &Path) -> anyhow::Result<Self> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        // The state cannot be beside the console: a socket's path has at most 107 bytes.
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let folder = env::temp_dir().join(format!("stockade-tpm-{}-{number}", process::id()));
        fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
        let mut swtpm = tool::command("swtpm");
        swtpm.args(["socket", "--tpm2", "--flags", "startup-clear", "--terminate"]);
        swtpm.arg("--tpmstate").arg(format!("dir={}", folder.display()));
        swtpm.arg("--ctrl").arg(format!("type=unixio,path={}", socket(&folder).display()));
        let log = fs::File::create(complaints).context("creating a log for swtpm")?;
        swtpm.stdout(Stdio::null()).stderr(log);
        tool::end_with_this_thread(&mut swtpm);
        let child = swtpm.spawn().map_err(|e| tool::explain(&e, &swtpm))?;
        let mut tpm = Self { swtpm: child, folder };
        let begin = Instant::now();
        while !socket(&tpm.folder).exists() {
            let ended = tpm.swtpm.try_wait().context("waiting for swtpm")?;
            ensure!(
                ended.is_none() && begin.elapsed() < PATIENCE,
                "swtpm makes no socket: {}",
                fs::read_to_string(complaints).unwrap_or_default().trim()
            );
            sleep(Duration::from_millis(10));
        }
        Ok(tpm)
    }

    /// Connects the TPM to a guest.
    pub fn attach(&self, qemu: &mut Command) {
        qemu.arg("-chardev").arg(format!("socket,id=tpm,path={}", socket(&self.folder).display()));
        qemu.args(["-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm0"]);
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        let _ = self.swtpm.kill();
        let _ = self.swtpm.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("control")
}
