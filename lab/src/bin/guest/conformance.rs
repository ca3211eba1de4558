//! Plays the conformance matrix in a guest: every door under every regime, with the words that the administrator gets. Prints one line of
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
    conformance::{Regime, Row, SEALED},
    doors,
};

/// The kernel's rate limit for lockdown lines: `DEFAULT_RATELIMIT_BURST` in `DEFAULT_RATELIMIT_INTERVAL`.
const BURST: usize = 10;
const INTERVAL: Duration = Duration::from_millis(5200);

pub fn run() -> Result<()> {
    let types = KernelTypes::of_running_kernel()?;
    let sealed = fs::read_to_string("/proc/cmdline")?.split_whitespace().any(|word| word == SEALED);
    let regimes = if sealed { &Regime::SEALED[..] } else { &Regime::ALL };
    for &regime in regimes {
        enter(regime)?;
        let mut log: Box<dyn RefusalLog> = match regime {
            Regime::Nothing => Box::new(NoLog),
            Regime::Audit
            | Regime::OurIntegrity
            | Regime::OurConfidentiality
            | Regime::SealedIntegrity
            | Regime::SealedConfidentiality => {
                Box::new(StockadeEvents { reader: Reader::open()?, types: &types })
            }
            Regime::NativeIntegrity | Regime::NativeConfidentiality => Box::new(KernelLog::open()?),
        };
        for (reason, name, answer) in all_doors() {
            log.prepare()?;
            let answer = answer()?;
            let row = Row { regime, reason: reason.into(), door: name.into(), answer, told: log.take()? };
            println!("{}", serde_json::to_string(&row)?);
        }
    }
    Ok(())
}

type DoorAttempt = Box<dyn Fn() -> Result<String>>;

/// Returns the lab's own doors, and those harmless doors that the lab's do not include.
fn all_doors() -> Vec<(&'static str, &'static str, DoorAttempt)> {
    let mut all: Vec<(&str, &str, DoorAttempt)> = doors::all()
        .into_iter()
        .map(|door| (door.reason, door.name, Box::new(move || Ok(door.try_door()?)) as DoorAttempt))
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

fn enter(regime: Regime) -> Result<()> {
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
    match regime {
        Regime::Nothing => Ok(()),
        Regime::Audit => stockade(&["enforce", "confidentiality", "--audit"]),
        Regime::OurIntegrity => stockade(&["enforce", "integrity"]),
        // On a seal this adds the stricter policy.
        Regime::OurConfidentiality | Regime::SealedConfidentiality => {
            stockade(&["enforce", "confidentiality"])
        }
        Regime::SealedIntegrity => {
            stockade(&["enforce", "integrity"])?;
            stockade(&["seal"])
        }
        Regime::NativeIntegrity => native("integrity"),
        Regime::NativeConfidentiality => native("confidentiality"),
    }
}

/// A source of the words by which the administrator learns of a refusal.
trait RefusalLog {
    /// Prepares for the next door.
    fn prepare(&mut self) -> Result<()>;
    /// Returns the kernel's words for each reason since then, without consecutive repetitions.
    fn take(&mut self) -> Result<Vec<String>>;
}

struct NoLog;

impl RefusalLog for NoLog {
    fn prepare(&mut self) -> Result<()> {
        Ok(())
    }

    fn take(&mut self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}

/// Stockade's events.
struct StockadeEvents<'a> {
    reader: Reader,
    types: &'a KernelTypes,
}

impl RefusalLog for StockadeEvents<'_> {
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
struct KernelLog {
    log: File,
    lines: usize,
    since: Instant,
}

impl KernelLog {
    fn open() -> Result<Self> {
        let log = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg")?;
        let mut log = Self { log, lines: BURST, since: Instant::now() };
        log.read();
        Ok(log)
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

impl RefusalLog for KernelLog {
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
