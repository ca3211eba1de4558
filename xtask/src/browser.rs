/*!
A headless Chromium, driven by the DevTools protocol over two pipes: JSON between zero bytes, so that neither a server nor a crate
for WebSocket is needed.
*/
use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde_json::{Value, json};

/// How long an answer may take; a page takes a second on a slow machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// A browser with one page.
pub struct Browser {
    child: Child,
    to: File,
    from: BufReader<File>,
    number: u64,
    session: Option<String>,
    /// Events that were received and not yet asked for.
    events: Vec<Value>,
}

impl Browser {
    /// Starts the browser with its profile below a folder.
    pub fn start(folder: &Path) -> anyhow::Result<Self> {
        let (theirs_in, to) = pipe()?;
        let (from, theirs_out) = pipe()?;
        let mut command = Command::new("chromium");
        command.args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            "--remote-debugging-pipe",
        ]);
        command.arg(format!("--user-data-dir={}", folder.display()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let (read, write) = (theirs_in.as_raw_fd(), theirs_out.as_raw_fd());
        // SAFETY: dup and dup2 are safe between fork and exec, and the descriptors live until the command was started. Both are
        // moved out of the way first, since either may be the other's place.
        unsafe {
            command.pre_exec(move || {
                let (read, write) = (
                    libc::fcntl(read, libc::F_DUPFD_CLOEXEC, 10),
                    libc::fcntl(write, libc::F_DUPFD_CLOEXEC, 10),
                );
                if read < 0 || write < 0 || libc::dup2(read, 3) < 0 || libc::dup2(write, 4) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn().context("starting chromium")?;
        // With these ends open here, the pipes would not be closed when the browser dies.
        drop((theirs_in, theirs_out));
        let mut browser = Self {
            child,
            to: to.into(),
            from: BufReader::new(from.into()),
            number: 0,
            session: None,
            events: Vec::new(),
        };
        let target = browser.call("Target.createTarget", &json!({"url": "about:blank"}))?;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", &attach)?;
        browser.session =
            Some(attached["sessionId"].as_str().context("chromium names the session")?.to_owned());
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), &json!({}))?;
        }
        Ok(browser)
    }

    /// Calls a method of the protocol.
    pub fn call(&mut self, method: &str, params: &Value) -> anyhow::Result<Value> {
        self.number += 1;
        let mut message = json!({"id": self.number, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = serde_json::to_vec(&message)?;
        bytes.push(0);
        self.to.write_all(&bytes).with_context(|| format!("asking chromium for {method}"))?;
        let until = Instant::now() + PATIENCE;
        loop {
            let mut answer = self.next(until).with_context(|| format!("waiting for chromium's {method}"))?;
            if answer["id"] == self.number {
                if let Some(error) = answer.get("error") {
                    bail!("chromium refuses {method}: {error}");
                }
                return Ok(answer["result"].take());
            }
            self.events.push(answer);
        }
    }

    /// Takes the events received since the last call, by their name.
    pub fn take_events(&mut self) -> Vec<(String, Value)> {
        let name = |event: Value| {
            let name = event["method"].as_str().unwrap_or_default().to_owned();
            (name, event)
        };
        self.events.drain(..).map(name).map(|(name, mut event)| (name, event["params"].take())).collect()
    }

    /// Goes to a file and waits until it is loaded. Events received meanwhile are kept.
    pub fn open(&mut self, file: &Path) -> anyhow::Result<()> {
        self.events.clear();
        self.call("Page.navigate", &json!({"url": format!("file://{}", file.display())}))?;
        let until = Instant::now() + PATIENCE;
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            let event = self.next(until).context("waiting for the page")?;
            self.events.push(event);
        }
        Ok(())
    }

    /// Returns the value of an expression, awaited if it is a promise.
    pub fn eval(&mut self, expression: &str) -> anyhow::Result<Value> {
        let params = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let mut answer = self.call("Runtime.evaluate", &params)?;
        if let Some(details) = answer.get("exceptionDetails") {
            let first: String = expression.chars().take(80).collect();
            bail!("{first}: {}", details["exception"]["description"]);
        }
        Ok(answer["result"]["value"].take())
    }

    /// Presses a key and releases it.
    pub fn press(&mut self, key: &str) -> anyhow::Result<()> {
        let (code, text) = if key == "Enter" { (13, "\r") } else { (9, "") };
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code});
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = json!(text);
            }
            self.call("Input.dispatchKeyEvent", &event)?;
        }
        Ok(())
    }

    /// Sets the window's size.
    pub fn size(&mut self, width: u32, height: u32) -> anyhow::Result<()> {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", &size).map(drop)
    }

    /// Emulates a `screen` or `print`, `light` or `dark`.
    pub fn media(&mut self, media: &str, scheme: &str) -> anyhow::Result<()> {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", &json!({"media": media, "features": features})).map(drop)
    }

    fn next(&mut self, until: Instant) -> anyhow::Result<Value> {
        let mut bytes = Vec::new();
        loop {
            if self.from.buffer().is_empty() {
                self.wait(until)?;
            }
            // Reads only the bytes that are there: reading on to the zero byte would block.
            let there = self.from.fill_buf()?;
            if there.is_empty() {
                bail!("chromium has ended");
            }
            let end = there.iter().position(|byte| *byte == 0);
            bytes.extend_from_slice(&there[..end.unwrap_or(there.len())]);
            let read = end.map_or(there.len(), |end| end + 1);
            self.from.consume(read);
            if end.is_some() {
                return Ok(serde_json::from_slice(&bytes)?);
            }
        }
    }

    fn wait(&self, until: Instant) -> anyhow::Result<()> {
        let left = until.saturating_duration_since(Instant::now()).as_millis();
        let mut poll = libc::pollfd { fd: self.from.get_ref().as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one structure that lives for the call.
        match unsafe { libc::poll(&raw mut poll, 1, i32::try_from(left).unwrap_or(i32::MAX)) } {
            0 => bail!("chromium did not answer within {} s", PATIENCE.as_secs()),
            n if n < 0 => Err(std::io::Error::last_os_error().into()),
            _ => Ok(()),
        }
    }
}

/// Kills the browser with all its processes when the value is dropped.
impl Drop for Browser {
    fn drop(&mut self) {
        if let Ok(group) = i32::try_from(self.child.id()) {
            // SAFETY: the group is the child's own, which has not been waited for, so that its number is nobody else's.
            unsafe { libc::kill(-group, libc::SIGKILL) };
        }
        let _ = self.child.wait();
    }
}

fn pipe() -> anyhow::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: there is room for two descriptors, which are nobody else's when it succeeds.
    unsafe {
        if libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) != 0 {
            return Err(std::io::Error::last_os_error()).context("making a pipe");
        }
        Ok((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_one_by_one_and_half_of_one_is_waited_for_until_the_deadline() {
        let (from, theirs) = pipe().unwrap();
        let mut theirs = File::from(theirs);
        let mut browser = Browser {
            child: Command::new("true").process_group(0).spawn().unwrap(),
            to: File::open("/dev/null").unwrap(),
            from: BufReader::new(from.into()),
            number: 0,
            session: None,
            events: Vec::new(),
        };
        let soon = || Instant::now() + Duration::from_millis(200);
        theirs.write_all(b"{\"id\":1}\0{\"id\":2}\0{\"id\"").unwrap();
        assert_eq!(browser.next(soon()).unwrap(), json!({"id": 1}));
        assert_eq!(browser.next(soon()).unwrap(), json!({"id": 2}));
        assert!(browser.next(soon()).unwrap_err().to_string().contains("did not answer"));
        drop(theirs);
        assert!(browser.next(soon()).unwrap_err().to_string().contains("has ended"));
    }
}
