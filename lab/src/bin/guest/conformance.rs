//! Plays the conformance matrix in a guest: every door under every setting, with the words that the administrator gets. Prints one line of
//! JSON for each.
//!
//! Native lockdown comes last, since it can only be raised. It writes at most ten lines in five seconds to the kernel log, so there is a
//! pause before a door whose lines could exceed that.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::Read,
    os::unix::fs::OpenOptionsExt,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use stockade_kernel::{
    btf::KernelTypes,
    events::{self, Reader},
};
use stockade_lab::{
    conformance::{Row, SEALED, Setting},
    doors,
};

/// The kernel's rate limit for lockdown lines: `DEFAULT_RATELIMIT_BURST` in `DEFAULT_RATELIMIT_INTERVAL`.
const BURST: usize = 10;
const INTERVAL: Duration = Duration::from_millis(5200);

pub fn run() -> Result<()> {
    let types = KernelTypes::of_running_kernel()?;
    let sealed = fs::read_to_string("/proc/cmdline")?.split_whitespace().any(|word| word == SEALED);
    let settings = if sealed { &Setting::SEALED[..] } else { &Setting::ALL };
    for &setting in settings {
        set(setting)?;
        let mut told: Box<dyn Told> = match setting {
            Setting::Nothing => Box::new(Nobody),
            Setting::Audit
            | Setting::OurIntegrity
            | Setting::OurConfidentiality
            | Setting::SealedIntegrity
            | Setting::SealedConfidentiality => Box::new(Ours { reader: Reader::open()?, types: &types }),
            Setting::NativeIntegrity | Setting::NativeConfidentiality => Box::new(Native::open()?),
        };
        for (reason, name, answer) in knocks() {
            told.prepare()?;
            let answer = answer()?;
            let row = Row { setting, reason: reason.into(), door: name.into(), answer, told: told.take()? };
            println!("{}", serde_json::to_string(&row)?);
        }
    }
    Ok(())
}

type Knock = Box<dyn Fn() -> Result<String>>;

/// Returns the lab's own doors, and those harmless doors that the lab's do not include.
fn knocks() -> Vec<(&'static str, &'static str, Knock)> {
    let mut all: Vec<(&str, &str, Knock)> = doors::all()
        .into_iter()
        .map(|door| (door.reason, door.name, Box::new(move || Ok(door.knock()?)) as Knock))
        .collect();
    for door in stockade_probe::doors() {
        if ["perf", "kprobes", "xfrm-secret"].contains(&door.reason) {
            all.push((door.reason, door.name, Box::new(move || Ok(harmless(door)))));
        }
    }
    let order: BTreeMap<&str, usize> =
        stockade_reasons::all().iter().enumerate().map(|(at, reason)| (reason.id, at)).collect();
    all.sort_by_key(|(reason, ..)| order.get(reason).copied());
    all
}

fn harmless(door: &stockade_probe::Door) -> String {
    use stockade_probe::Answer;
    match door.knock().answer {
        Answer::Refused if door.reason == "xfrm-secret" => "done: the keys are zeros".into(),
        Answer::Free if door.reason == "xfrm-secret" => "done: the keys are there".into(),
        Answer::Refused => "EPERM".into(),
        Answer::Free => "done".into(),
        Answer::Absent(why) => format!("absent: {why}"),
        other => format!("{other:?}"),
    }
}

fn set(setting: Setting) -> Result<()> {
    let stockade = |args: &[&str]| -> Result<()> {
        let output = Command::new("/bin/stockade").args(args).output().context("run stockade")?;
        ensure!(output.status.success(), "stockade {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    let native = |level: &str| {
        stockade(&["lift"])?;
        fs::write("/sys/kernel/security/lockdown", level)
            .with_context(|| format!("raise lockdown to {level}"))
    };
    match setting {
        Setting::Nothing => Ok(()),
        Setting::Audit => stockade(&["enforce", "confidentiality", "--audit"]),
        Setting::OurIntegrity => stockade(&["enforce", "integrity"]),
        // On a seal this adds the stricter policy.
        Setting::OurConfidentiality | Setting::SealedConfidentiality => {
            stockade(&["enforce", "confidentiality"])
        }
        Setting::SealedIntegrity => {
            stockade(&["enforce", "integrity"])?;
            stockade(&["seal"])
        }
        Setting::NativeIntegrity => native("integrity"),
        Setting::NativeConfidentiality => native("confidentiality"),
    }
}

/// A source of the words by which the administrator learns of a refusal.
trait Told {
    /// Prepares for the next door.
    fn prepare(&mut self) -> Result<()>;
    /// Returns the kernel's words for each reason since then, without consecutive repetitions.
    fn take(&mut self) -> Result<Vec<String>>;
}

struct Nobody;

impl Told for Nobody {
    fn prepare(&mut self) -> Result<()> {
        Ok(())
    }

    fn take(&mut self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}

/// Stockade's events.
struct Ours<'a> {
    reader: Reader,
    types: &'a KernelTypes,
}

impl Told for Ours<'_> {
    fn prepare(&mut self) -> Result<()> {
        while self.reader.take().is_some() {}
        Ok(())
    }

    fn take(&mut self) -> Result<Vec<String>> {
        let mut told: Vec<String> = std::iter::from_fn(|| self.reader.take())
            .filter_map(|told| match told {
                events::EventKind::Request(event) => Some(self.types.reason_id(event.reason)),
                // No policy of the matrix holds settings.
                events::EventKind::Setting(_) => None,
            })
            .map(|id| stockade_reasons::by_id(&id).map_or(id, |reason| reason.kernel_string.to_owned()))
            .collect();
        told.dedup();
        Ok(told)
    }
}

/// The kernel log.
struct Native {
    log: File,
    lines: usize,
    since: Instant,
}

impl Native {
    fn open() -> Result<Self> {
        let log = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg")?;
        let mut native = Self { log, lines: BURST, since: Instant::now() };
        native.read();
        Ok(native)
    }

    fn read(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        let mut record = [0; 8192];
        while let Ok(length) = self.log.read(&mut record) {
            let text = String::from_utf8_lossy(&record[..length]);
            if let Some(line) = text.lines().next().and_then(stockade_reasons::parse_kernel_line) {
                told.push(line.reason.to_owned());
            }
        }
        // The kernel's interval begins with its first line.
        if self.lines == 0 && !told.is_empty() {
            self.since = Instant::now();
        }
        self.lines += told.len();
        told
    }
}

impl Told for Native {
    /// Leaves room for two lines: no door makes the kernel write more.
    fn prepare(&mut self) -> Result<()> {
        self.read();
        if self.lines + 2 > BURST {
            thread::sleep(INTERVAL.saturating_sub(self.since.elapsed()));
            self.lines = 0;
        }
        Ok(())
    }

    fn take(&mut self) -> Result<Vec<String>> {
        let mut told = self.read();
        told.dedup();
        Ok(told)
    }
}
