/*!
Plays scenarios on kernels, two guests at a time, and counts.
*/
use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    ops::{AddAssign, ControlFlow},
    path::{Path, PathBuf},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;

use crate::{
    boot::{End, Machine},
    firmware,
    flips::{self, Answers, Assessed},
    initrd::{self, Program},
    kernels::Kernel,
    protocol::{Event, Listed, Outcome, is_trouble},
    scenario::Boot,
    userland,
};

/// Guests at a time. More gains nothing: emulation is bound by the processor, and developers have few.
const GUESTS: usize = 2;

/// Longer than a scenario may take, see `stockade-guest-init`.
const PATIENCE: Duration = Duration::from_secs(210);

/// How many scenarios, or other checks, ended in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// As told.
    pub passed: usize,
    /// Otherwise.
    pub failed: usize,
    /// Not played, with a reason printed.
    pub skipped: usize,
}

impl Counts {
    /// Counts one more.
    pub fn add(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Passed => self.passed += 1,
            Outcome::Failed => self.failed += 1,
            Outcome::Skipped => self.skipped += 1,
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// What to play.
#[derive(Debug)]
pub struct Session<'a> {
    /// On which kernels.
    pub kernels: &'a [Kernel],
    /// Which scenarios.
    pub scenarios: &'a [Listed],
    /// The scenarios' filter, as given to the guest.
    pub only: Option<&'a str>,
    /// The programs of the guest.
    pub programs: &'a [Program],
    /// Folder for RAM disks and consoles.
    pub folder: &'a Path,
}

/// What guests said of `stockade assess`, by kernel, boot and whether it was measured.
type Found<'a> = BTreeMap<&'a str, BTreeMap<(Boot, bool), Answers>>;

struct Job<'a> {
    kernel: &'a Kernel,
    boot: Boot,
    names: Vec<&'a str>,
    initrd: PathBuf,
    disk: Option<PathBuf>,
}

impl Session<'_> {
    /// Plays everything, printing a line for each scenario.
    pub fn play(&self) -> anyhow::Result<Counts> {
        let mut boots: BTreeMap<Boot, Vec<&str>> = BTreeMap::new();
        for scenario in self.scenarios {
            boots.entry(scenario.boot).or_default().push(&scenario.name);
        }
        let disk =
            if boots.keys().any(|boot| boot.facts().userland) { Some(userland::disk()?) } else { None };
        let (mut jobs, mut skipped) = (VecDeque::new(), Counts::default());
        for kernel in self.kernels {
            let initrd = self.folder.join(format!("{}.cpio", kernel.id));
            initrd::write(kernel, self.programs, &initrd)
                .with_context(|| format!("making the RAM disk for {}", kernel.id))?;
            let (played, left_out): (Vec<_>, Vec<_>) =
                boots.iter().partition(|(boot, _)| firmware::suits(kernel) || !boot.facts().generic);
            for (boot, names) in left_out {
                let what = format!("{} scenarios", names.len());
                let why = "of each series, the generic kernel plays them";
                println!("{}", line_of(Outcome::Skipped, &label(kernel, *boot), &what, 0, why));
                for _ in names {
                    skipped.add(Outcome::Skipped);
                }
            }
            for (&boot, names) in played {
                let (initrd, disk) = match &disk {
                    Some(disk) if boot.facts().userland => {
                        (userland::initrd(kernel, &initrd)?, Some(disk.clone()))
                    }
                    _ => (initrd.clone(), None),
                };
                jobs.push_back(Job { kernel, boot, names: names.clone(), initrd, disk });
            }
        }
        let jobs = Mutex::new(jobs);
        let total = Mutex::new(skipped);
        let assessed = Mutex::new(BTreeMap::new());
        thread::scope(|scope| {
            for _ in 0..GUESTS {
                scope.spawn(|| {
                    while let Some(job) = next(&jobs) {
                        let counts = self.guest(&job, &assessed);
                        *total.lock().expect("no thread panics while counting") += counts;
                    }
                });
            }
        });
        let mut total = total.into_inner().expect("no thread panics while counting");
        let assessed: Found<'_> =
            assessed.into_inner().expect("no thread panics while noting what was found");
        for (kernel, played) in &assessed {
            for (boot, what, result) in flips::judge_booted(played) {
                let outcome = if result.is_ok() { Outcome::Passed } else { Outcome::Failed };
                let detail = result.err().map(|error| format!("{error:#}")).unwrap_or_default();
                println!("{}", line_of(outcome, &format!("{kernel:<12} {boot:<22}"), &what, 0, &detail));
                total.add(outcome);
            }
        }
        Ok(total)
    }

    fn guest<'a>(&self, job: &Job<'a>, found: &Mutex<Found<'a>>) -> Counts {
        let label = label(job.kernel, job.boot);
        let mut cmdline = format!("{} stockade.run=boot:{}", job.boot.facts().cmdline, job.boot);
        if let Some(only) = self.only {
            cmdline += &format!(" stockade.only={only}");
        }
        let machine = Machine {
            kernel: job.kernel,
            initrd: &job.initrd,
            disk: job.disk.as_deref(),
            cmdline,
            hardware: job.boot.facts().hardware,
            console: self.folder.join(format!("{}-{}.console", job.kernel.id, job.boot)),
            count_instructions: false,
            patience: PATIENCE,
        };
        if job.boot.is_refused() {
            return refused(job, &machine, &label);
        }
        let mut counts = Counts::default();
        let mut open: Vec<&str> = job.names.clone();
        let mut running = None;
        let mut done = false;
        let hear = |line: &str| match serde_json::from_str(line) {
            Ok(Event::Note { detail }) => println!("note {label} {detail}"),
            Ok(Event::Start { name }) => running = Some(name),
            Ok(Event::End { name, result, detail, ms }) => {
                running = None;
                open.retain(|n| *n != name);
                counts.add(result);
                println!("{}", line_of(result, &label, &name, ms, &detail));
            }
            Ok(Event::Assessed(Assessed { measured, answers })) => {
                let mut found = found.lock().expect("no thread panics while noting what was found");
                found.entry(&job.kernel.id).or_default().insert((job.boot, measured), answers);
            }
            Ok(Event::Done) => done = true,
            Err(_) if line.trim().is_empty() => {}
            Err(_) if job.boot.has_firmware() && is_firmware(line) => {}
            Err(_) => println!("note {label} said: {line}"),
        };
        let end = run(&machine, job.boot, hear);
        let console = machine.console_tail();
        let crash = console.lines().find(|l| is_trouble(l)).map(str::to_owned);
        let complaint = match (end, done) {
            (Err(error), _) => format!("{error:#}"),
            (Ok(End::Silent), false) => format!("the guest said nothing for {} s", PATIENCE.as_secs()),
            (Ok(_), false) => {
                format!("the guest ended early: {}", crash.as_deref().unwrap_or("no reason on its console"))
            }
            (Ok(End::Silent), true) => "the guest did not power off".to_owned(),
            (Ok(End::Off | End::Enough), true) => match &crash {
                Some(line) => format!("the kernel went wrong: {line}"),
                None if open.is_empty() => return counts,
                None => "the guest did not play it".to_owned(),
            },
        };
        if open.is_empty() {
            counts.failed += 1;
            println!("{}", line_of(Outcome::Failed, &label, "(guest)", 0, &complaint));
        }
        for name in open {
            counts.failed += 1;
            let detail = if running.as_deref() == Some(name) {
                &complaint
            } else {
                "never played: the guest did not last"
            };
            println!("{}", line_of(Outcome::Failed, &label, name, 0, detail));
        }
        println!(
            "--- console of {} {} ({})\n{console}\n---",
            job.kernel.id,
            job.boot,
            machine.console.display()
        );
        println!("--- {complaint}");
        counts
    }
}

/// Runs a guest in the way its boot asks for.
fn run(machine: &Machine<'_>, boot: Boot, mut hear: impl FnMut(&str)) -> anyhow::Result<End> {
    if boot.facts().packaged {
        return machine.run_packaged(boot.facts().tpm, hear);
    }
    let Some(setup) = boot.facts().firmware else { return machine.run(hear) };
    let disk = prepare(machine, setup)?;
    let end = machine.run_firmware(&disk, |line| {
        hear(line);
        ControlFlow::Continue(())
    });
    // One image is some thirty megabytes.
    let _ = fs::remove_dir_all(machine.console.with_extension("firmware"));
    end
}

fn prepare(machine: &Machine<'_>, setup: firmware::Setup) -> anyhow::Result<firmware::Disk> {
    let folder = machine.console.with_extension("firmware");
    firmware::prepare(setup, machine.kernel, machine.initrd, &machine.kernel_cmdline(), &folder)
        .with_context(|| format!("making the boot disk for {}", machine.kernel.id))
}

/// What the firmware writes to every serial port.
fn is_firmware(line: &str) -> bool {
    line.starts_with("BdsDxe:") || line.contains('\u{1b}')
}

/// Plays the boots that must not happen: the firmware has to say that it refuses the image, and nothing of
/// the guest may be heard.
fn refused(job: &Job<'_>, machine: &Machine<'_>, label: &str) -> Counts {
    let begin = Instant::now();
    let attempt = job.boot.facts().firmware.context("only firmware refuses").and_then(|setup| {
        let disk = prepare(machine, setup)?;
        let mut verdict = None;
        machine.run_firmware(&disk, |line| {
            let guest = serde_json::from_str::<Event>(line).is_ok();
            match (guest, firmware::is_refusal(line)) {
                (true, _) => verdict = Some(Err(anyhow::anyhow!("the firmware booted the image"))),
                (_, true) => verdict = Some(Ok(())),
                _ => return ControlFlow::Continue(()),
            }
            ControlFlow::Break(())
        })?;
        let _ = fs::remove_dir_all(machine.console.with_extension("firmware"));
        verdict.unwrap_or_else(|| Err(anyhow::anyhow!("the firmware did not say that it refuses the image")))
    });
    let (outcome, detail) = match attempt {
        Ok(()) => (Outcome::Passed, String::new()),
        Err(error) => (Outcome::Failed, format!("{error:#}")),
    };
    let ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut counts = Counts::default();
    for name in &job.names {
        counts.add(outcome);
        println!("{}", line_of(outcome, label, name, ms, &detail));
    }
    counts
}

fn label(kernel: &Kernel, boot: Boot) -> String {
    format!("{:<12} {:<22}", kernel.id, boot)
}

fn next<'a>(jobs: &Mutex<VecDeque<Job<'a>>>) -> Option<Job<'a>> {
    jobs.lock().expect("no thread panics while taking a job").pop_front()
}

/// One line for a result, and what it has to say, indented.
fn line_of(outcome: Outcome, label: &str, name: &str, ms: u64, detail: &str) -> String {
    let (word, time) = match outcome {
        Outcome::Passed => return format!("ok   {label} {name}  {ms} ms"),
        Outcome::Failed => ("FAIL", format!("  {ms} ms")),
        Outcome::Skipped => ("skip", String::new()),
    };
    let mut text = format!("{word} {label} {name}{time}");
    for line in detail.lines() {
        text += &format!("\n     {line}");
    }
    text
}
