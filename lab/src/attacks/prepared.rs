/*!
The state that attacks prepare before the seal, and the seal itself.

```text
 scenario ─ enforce ─▶ fork, one process for each prepared attack ─▶ seal
                           │ prepare, say so, wait
 scenario of the attack ───┴▶ go ─▶ the rest, in that process ─▶ its outcome
```
*/
use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    process::exit,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::{
    Later, Outcome, Play, Setting, all,
    begin::{self, FOLDER},
    proof::wait_for,
};
use crate::{
    program::{lift_all, stockade},
    scenario::Boot,
    syscall::check,
};

const MARK: &str = "/run/attacks/sealed";

/// Reports whether this guest was sealed.
pub(super) fn is_sealed() -> bool {
    Path::new(MARK).exists()
}

/// Prepares every attack of this boot and seals, unless that was done already.
pub(super) fn seal(boot: Boot) -> Result<()> {
    if is_sealed() {
        return Ok(());
    }
    lift_all()?;
    let attacks: Vec<_> = all().into_iter().filter(|attack| attack.boot(true) == boot).collect();
    let setting = match boot {
        Boot::SealAttackedExceptions => Setting::Exceptions,
        Boot::SealAttackedPrograms => Setting::Programs,
        _ => Setting::Usual,
    };
    begin::enforce(setting)?;
    for attack in &attacks {
        if let Play::Prepared(prepare) = attack.play {
            Process::start(attack.name, prepare)?;
        }
    }
    // A policy with places leaves something open, and so does an exception for a program without fs-verity: both need --best-effort.
    let seal: &[&str] = if setting == Setting::Usual { &["seal"] } else { &["seal", "--best-effort"] };
    stockade(seal)?.exits(0)?;
    fs::write(MARK, "")?;
    begin::is_sealed(&stockade(&["status", "--json"])?.exits(0)?.json()?)
}

/// The process of a prepared attack, started before the seal and killed when this is dropped.
pub(super) struct Process {
    name: &'static str,
    pid: i32,
}

fn file(name: &str, what: &str) -> String {
    format!("{FOLDER}/{name}.{what}")
}

impl Process {
    /// Starts the process, and waits until it is prepared.
    fn start(name: &'static str, prepare: fn() -> Result<Later>) -> Result<()> {
        let [go, ready] = ["go", "ready"].map(|what| file(name, what));
        let path = std::ffi::CString::new(go.as_str())?;
        // SAFETY: the path is NUL-terminated.
        check(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }).with_context(|| format!("make {go}"))?;
        // SAFETY: a scenario's process has one thread, so the child's memory is consistent; the child never returns to its caller.
        match check(unsafe { libc::fork() }).context("fork")? {
            0 => wait_and_play(name, prepare),
            pid => fs::write(file(name, "pid"), pid.to_string())?,
        }
        ensure!(wait_for(20, || Ok(Path::new(&ready).exists()))?, "{name} was not prepared in time");
        let said = fs::read_to_string(&ready)?;
        ensure!(said.is_empty(), "{name} could not be prepared: {said}");
        Ok(())
    }

    /// Returns the process that was started for this attack.
    pub(super) fn find(name: &'static str) -> Result<Self> {
        let pid =
            fs::read_to_string(file(name, "pid")).with_context(|| format!("{name} was not prepared"))?;
        Ok(Self { name, pid: pid.parse()? })
    }

    /// Lets the process continue, and returns the outcome.
    pub(super) fn go(&self) -> Result<Outcome> {
        let answer = file(self.name, "answer");
        // With O_NONBLOCK, opening fails if the process has died, instead of waiting for a reader forever.
        let mut fifo = File::options();
        fifo.write(true).custom_flags(libc::O_NONBLOCK);
        fifo.open(file(self.name, "go"))
            .with_context(|| format!("{} waits no more", self.name))?
            .write_all(b"go")?;
        ensure!(wait_for(60, || Ok(Path::new(&answer).exists()))?, "{} does not answer", self.name);
        let said: Result<Outcome, String> = serde_json::from_slice(&fs::read(answer)?)?;
        said.map_err(anyhow::Error::msg)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SAFETY: kill takes numbers only.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
        // The kernel closes its descriptors a moment later.
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn wait_and_play(name: &str, prepare: fn() -> Result<Later>) -> ! {
    // SAFETY: setsid takes no arguments. In a session of its own the process survives the scenario's.
    unsafe { libc::setsid() };
    let later = prepare();
    let said = later.as_ref().err().map(|error| format!("{error:#}")).unwrap_or_default();
    tell(&file(name, "ready"), said.as_bytes());
    let Ok(later) = later else { exit(1) };
    let mut word = String::new();
    if File::open(file(name, "go")).and_then(|mut go| go.read_to_string(&mut word)).is_err() || word != "go" {
        exit(1);
    }
    let attempt = later();
    let said: Result<Outcome, String> =
        attempt.as_ref().map(|attempt| attempt.outcome.clone()).map_err(|error| format!("{error:#}"));
    tell(&file(name, "answer"), &serde_json::to_vec(&said).unwrap_or_default());
    // The resources of the attack are held until this process is killed.
    loop {
        std::thread::sleep(Duration::from_hours(1));
    }
}

/// Writes a file whole or not at all, since another process waits for it.
fn tell(path: &str, text: &[u8]) {
    let beside = format!("{path}.new");
    let _ = fs::write(&beside, text).and_then(|()| fs::rename(&beside, path));
}
