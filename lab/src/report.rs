/*!
Plays scenarios on kernels, two guests at a time, and counts the outcomes.
*/
use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    ops::AddAssign,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;

use crate::{
    boot::{End, Line, Machine, Next},
    firmware,
    flips::{self, Answers, Assessed},
    initrd::{self, Program},
    kernels::Kernel,
    plan::{self, Durations, Extent, GUEST, Job, Plan},
    protocol::{Event, Listed, Order, Outcome, is_trouble},
    scenario::Boot,
    userland,
};

/// Guests that run at once. More gain nothing: emulation is limited by the processor, and developers' machines have few.
const GUESTS: usize = 2;

/// The limit on the host's processor time for one scenario. The longest takes a fifth of it.
const LIMIT: Duration = Duration::from_mins(10);

/// The numbers of scenarios, or other checks, by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Passed.
    pub passed: usize,
    /// Failed.
    pub failed: usize,
    /// Skipped, with a reason printed.
    pub skipped: usize,
}

impl Counts {
    /// Counts one more outcome.
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

/// A run: scenarios to play on kernels.
#[derive(Debug)]
pub struct Session<'a> {
    /// The kernels.
    pub kernels: &'a [Kernel],
    /// The scenarios.
    pub scenarios: &'a [Listed],
    /// On how many kernels each scenario is played on.
    pub extent: Extent,
    /// The programs of the guest.
    pub programs: &'a [Program],
    /// The folder for initrds, console logs and saved states.
    pub folder: &'a Path,
}

/// The result of a session.
#[derive(Clone, Debug, Default)]
pub struct Played {
    /// The numbers of scenarios by outcome.
    pub counts: Counts,
    /// The numbers of scenarios on each kernel by outcome.
    pub by_kernel: BTreeMap<String, Counts>,
    /// The time that each scenario took.
    pub durations: Durations,
}

/// The findings of `stockade assess` in guests, by kernel, boot and whether slow checks ran.
type Found = BTreeMap<String, BTreeMap<(Boot, bool), Answers>>;

/// The initrds and the disk of a kernel's guests.
struct Files {
    initrd: PathBuf,
    userland: Option<(PathBuf, PathBuf)>,
}

/// A state that the first guest that needs it saves; it has no path if saving failed.
type Saved = Arc<OnceLock<Option<PathBuf>>>;

/// Data that the threads of a session share.
struct Shared<'a> {
    jobs: Mutex<VecDeque<Job<'a>>>,
    files: BTreeMap<&'a str, Files>,
    saved: BTreeMap<SavedKey, Saved>,
    played: Mutex<Played>,
    found: Mutex<Found>,
}

/// The key of a saved state: guests with the same key are identical until they get their order.
type SavedKey = (String, &'static str, String);

fn saved_key(job: &Job<'_>) -> Option<SavedKey> {
    let facts = job.boot.facts();
    // The states of a TPM and of EFI variables are outside the saved machine. A guest with two processors runs on the host's clock, which
    // cannot be halted.
    if facts.tpm || facts.firmware.is_some() || facts.hardware.processors > 1 {
        return None;
    }
    let machine = format!("{:?} {} {}", facts.hardware, facts.packaged, facts.userland);
    Some((job.kernel.id.clone(), facts.cmdline, machine))
}

impl Session<'_> {
    /// Plays everything, and prints a line for each scenario.
    pub fn play(&self) -> anyhow::Result<Played> {
        let plan = Plan::new(self.kernels, self.scenarios, self.extent, &Durations::load());
        let mut played = Played::default();
        for left in &plan.left_out {
            let what = format!("{} scenarios", left.scenarios);
            println!(
                "{}",
                line_of(Outcome::Skipped, &label(left.kernel, left.boot), &what, None, left.reason)
            );
            for _ in 0..left.scenarios {
                played.add(left.kernel, Outcome::Skipped);
            }
        }
        let files = self.files(&plan)?;
        let mut wanted: BTreeMap<SavedKey, usize> = BTreeMap::new();
        for key in plan.jobs.iter().filter_map(saved_key) {
            *wanted.entry(key).or_default() += 1;
        }
        let saved = wanted.into_iter().filter(|(_, jobs)| *jobs > 1).map(|(key, _)| (key, Saved::default()));
        let shared = Shared {
            jobs: Mutex::new(plan.jobs.into()),
            files,
            saved: saved.collect(),
            played: Mutex::new(played),
            found: Mutex::default(),
        };
        thread::scope(|scope| {
            for _ in 0..GUESTS {
                scope.spawn(|| {
                    while let Some(job) = next(&shared.jobs) {
                        self.guest(&job, &shared);
                    }
                });
            }
        });
        let states = shared.saved.values().filter_map(|saved| saved.get()?.as_ref());
        states.for_each(|state| drop(fs::remove_file(state)));
        let mut played = shared.played.into_inner().expect("no thread panics while counting");
        let found = shared.found.into_inner().expect("no thread panics while noting what was found");
        for (kernel, of_boots) in &found {
            for (boot, what, result) in flips::judge_booted(of_boots) {
                let outcome = if result.is_ok() { Outcome::Passed } else { Outcome::Failed };
                let detail = result.err().map(|error| format!("{error:#}")).unwrap_or_default();
                println!("{}", line_of(outcome, &label(kernel, boot), &what, None, &detail));
                played.add(kernel, outcome);
            }
        }
        // Without these durations the next run only orders its guests less well.
        if let Err(error) = played.durations.save() {
            eprintln!("the durations of this run could not be kept: {error:#}");
        }
        Ok(played)
    }

    /// Makes the initrds, for each kernel that has something to play.
    fn files(&self, plan: &Plan<'_>) -> anyhow::Result<BTreeMap<&str, Files>> {
        let mut all = BTreeMap::new();
        for kernel in self.kernels {
            let mut boots =
                plan.jobs.iter().filter(|job| job.kernel.id == kernel.id).map(|job| job.boot).peekable();
            if boots.peek().is_none() {
                continue;
            }
            let initrd = self.folder.join(format!("{}.cpio", kernel.id));
            initrd::write(kernel, self.programs, &initrd)
                .with_context(|| format!("making the RAM disk for {}", kernel.id))?;
            let userland = if boots.any(|boot| boot.facts().userland) {
                let disk = userland::disk()?;
                Some((userland::initrd(kernel, &initrd)?, disk))
            } else {
                None
            };
            all.insert(kernel.id.as_str(), Files { initrd, userland });
        }
        Ok(all)
    }

    fn guest<'a>(&self, job: &Job<'a>, shared: &Shared<'a>) {
        let files = &shared.files[job.kernel.id.as_str()];
        let (initrd, disk) = match &files.userland {
            Some((initrd, disk)) if job.boot.facts().userland => (initrd, Some(disk.as_path())),
            _ => (&files.initrd, None),
        };
        let machine = Machine {
            kernel: job.kernel,
            initrd,
            disk,
            cmdline: format!("{} stockade.run=play", job.boot.facts().cmdline),
            hardware: job.boot.facts().hardware,
            console: self.folder.join(format!("{}-{}.console", job.kernel.id, job.boot)),
            clock: plan::clock(job.boot),
            limit: LIMIT,
        };
        let label = label(&job.kernel.id, job.boot);
        if job.boot.is_refused() {
            return refused(job, &machine, &label, &shared.played);
        }
        let saved = saved_key(job).and_then(|key| shared.saved.get(&key));
        let state = saved.and_then(|saved| saved.get_or_init(|| save(&machine, job.boot, &label)).clone());
        let mut results = GuestResults::new(job, &label, shared);
        let order = results.order();
        let mut end = match &state {
            // The saved guest has already sent [`Event::Ready`].
            Some(state) => {
                machine.resume(job.boot.facts().packaged, state, &order, |line| results.hear(line))
            }
            None => run(&machine, job.boot, |line| results.hear(line)),
        };
        // On two emulated processors, kernels that patch their own code during boot sometimes crash because of the emulator. A crash before
        // the guest's first event says nothing about Stockade.
        if state.is_none() && job.boot.facts().hardware.processors > 1 && !results.greeted {
            println!("note {label} its kernel did not come up, and is booted once more");
            end = run(&machine, job.boot, |line| results.hear(line));
        }
        results.end(end, &machine);
    }
}

/// Boots a guest until it waits for its order, and saves its state. Without a saved state each guest boots.
fn save(machine: &Machine<'_>, boot: Boot, label: &str) -> Option<PathBuf> {
    let state = machine.console.with_extension("state");
    let ready = |line: Line<'_>| match serde_json::from_str(line.text) {
        Ok(Event::Ready) => Next::End,
        Ok(Event::Note { detail }) => {
            println!("note {label} {detail}");
            Next::Hear
        }
        _ => Next::Hear,
    };
    match machine.save(boot.facts().packaged, &state, ready) {
        Ok(()) => Some(state),
        Err(error) => {
            println!("note {label} could not be saved, so each of its guests boots: {error:#}");
            None
        }
    }
}

/// Prints and counts the results of one guest as they arrive.
struct GuestResults<'a, 'b> {
    job: &'a Job<'b>,
    label: &'a str,
    shared: &'a Shared<'b>,
    open: Vec<&'b str>,
    running: Option<String>,
    /// Whether the guest has sent [`Event::Ready`].
    greeted: bool,
    done: bool,
    /// The processor time at the end of the last scenario, or at the start of the one that runs.
    mark: Duration,
    between: Duration,
}

impl<'a, 'b> GuestResults<'a, 'b> {
    fn new(job: &'a Job<'b>, label: &'a str, shared: &'a Shared<'b>) -> Self {
        let (mark, between) = (Duration::ZERO, Duration::ZERO);
        GuestResults {
            job,
            label,
            shared,
            open: job.names.clone(),
            running: None,
            greeted: false,
            done: false,
            mark,
            between,
        }
    }

    fn order(&self) -> String {
        let play = self.job.names.iter().map(|name| (*name).to_owned()).collect();
        let order = Order { boot: self.job.boot, play };
        serde_json::to_string(&order).expect("names and boots are plain text")
    }

    fn hear(&mut self, line: Line<'_>) -> Next {
        match serde_json::from_str(line.text) {
            Ok(Event::Ready) => {
                self.greeted = true;
                return Next::Say(self.order());
            }
            Ok(Event::Note { detail }) => println!("note {} {detail}", self.label),
            Ok(Event::Start { name }) => {
                self.running = Some(name);
                self.between += line.used.saturating_sub(self.mark);
                self.mark = line.used;
            }
            Ok(Event::End { name, result, detail, .. }) => {
                self.running = None;
                self.open.retain(|n| *n != name);
                let took = line.used.saturating_sub(self.mark);
                self.mark = line.used;
                self.told(result, &name, Some(took), &detail);
                let mut played = self.shared.played.lock().expect("no thread panics while counting");
                played.durations.note(&self.job.kernel.id, self.job.boot, &name, took);
            }
            Ok(Event::Assessed(Assessed { measured, answers })) => {
                let mut found =
                    self.shared.found.lock().expect("no thread panics while noting what was found");
                found
                    .entry(self.job.kernel.id.clone())
                    .or_default()
                    .insert((self.job.boot, measured), answers);
            }
            Ok(Event::Done) => {
                self.done = true;
                self.between += line.used.saturating_sub(self.mark);
            }
            Err(_) if line.text.trim().is_empty() => {}
            Err(_) if self.job.boot.has_firmware() && is_firmware(line.text) => {}
            Err(_) => println!("note {} said: {}", self.label, line.text),
        }
        Next::Hear
    }

    /// Prints and counts one result.
    fn told(&self, outcome: Outcome, name: &str, took: Option<Duration>, detail: &str) {
        println!("{}", line_of(outcome, self.label, name, took, detail));
        let mut played = self.shared.played.lock().expect("no thread panics while counting");
        played.add(&self.job.kernel.id, outcome);
    }

    /// Counts scenarios that were not played as failed, and reports a fault of the kernel as a failure.
    fn end(self, end: anyhow::Result<End>, machine: &Machine<'_>) {
        {
            let mut played = self.shared.played.lock().expect("no thread panics while counting");
            played.durations.note(&self.job.kernel.id, self.job.boot, GUEST, self.between);
        }
        let console = machine.console_tail();
        let crash = console.lines().find(|l| is_trouble(l)).map(str::to_owned);
        let complaint = match (end, self.done) {
            (Err(error), _) => format!("{error:#}"),
            (Ok(End::Off | End::Enough), false) => {
                format!("the guest ended early: {}", crash.as_deref().unwrap_or("no reason on its console"))
            }
            (Ok(end @ (End::Spun | End::Hung)), _) => format!("the guest {}", end.words(LIMIT)),
            (Ok(End::Off | End::Enough), true) => match &crash {
                Some(line) => format!("the kernel went wrong: {line}"),
                None if self.open.is_empty() => return,
                None => "the guest did not play it".to_owned(),
            },
        };
        if self.open.is_empty() {
            self.told(Outcome::Failed, GUEST, None, &complaint);
        }
        for name in &self.open {
            let detail = if self.running.as_deref() == Some(name) {
                &complaint
            } else {
                "never played: the guest did not last"
            };
            self.told(Outcome::Failed, name, None, detail);
        }
        println!(
            "--- console of {} {} ({})\n{console}\n---",
            self.job.kernel.id,
            self.job.boot,
            machine.console.display()
        );
        println!("--- {complaint}");
    }
}

impl Played {
    fn add(&mut self, kernel: &str, outcome: Outcome) {
        self.counts.add(outcome);
        self.by_kernel.entry(kernel.to_owned()).or_default().add(outcome);
    }
}

/// Runs a guest in the way that its boot needs.
fn run(machine: &Machine<'_>, boot: Boot, hear: impl FnMut(Line<'_>) -> Next) -> anyhow::Result<End> {
    if boot.facts().packaged {
        return machine.run_packaged(boot.facts().tpm, hear);
    }
    let Some(setup) = boot.facts().firmware else { return machine.run(hear) };
    let disk = prepare(machine, setup)?;
    let end = machine.run_firmware(&disk, hear);
    // One image has some 30 MB.
    let _ = fs::remove_dir_all(machine.console.with_extension("firmware"));
    end
}

fn prepare(machine: &Machine<'_>, setup: firmware::Setup) -> anyhow::Result<firmware::Disk> {
    let folder = machine.console.with_extension("firmware");
    firmware::prepare(setup, machine.kernel, machine.initrd, &machine.kernel_cmdline(), &folder)
        .with_context(|| format!("making the boot disk for {}", machine.kernel.id))
}

/// Reports whether the line is the firmware's, which writes to every serial port.
fn is_firmware(line: &str) -> bool {
    line.starts_with("BdsDxe:") || line.contains('\u{1b}')
}

/// Plays the boots that must fail: the firmware has to say that it refuses the image, and the guest must not send an event.
fn refused(job: &Job<'_>, machine: &Machine<'_>, label: &str, played: &Mutex<Played>) {
    let begin = Instant::now();
    let attempt = job.boot.facts().firmware.context("only firmware refuses").and_then(|setup| {
        let disk = prepare(machine, setup)?;
        let mut verdict = None;
        machine.run_firmware(&disk, |line| {
            let guest = serde_json::from_str::<Event>(line.text).is_ok();
            match (guest, firmware::is_refusal(line.text)) {
                (true, _) => verdict = Some(Err(anyhow::anyhow!("the firmware booted the image"))),
                (_, true) => verdict = Some(Ok(())),
                _ => return Next::Hear,
            }
            Next::End
        })?;
        let _ = fs::remove_dir_all(machine.console.with_extension("firmware"));
        verdict.unwrap_or_else(|| Err(anyhow::anyhow!("the firmware did not say that it refuses the image")))
    });
    let (outcome, detail) = match attempt {
        Ok(()) => (Outcome::Passed, String::new()),
        Err(error) => (Outcome::Failed, format!("{error:#}")),
    };
    for name in &job.names {
        println!("{}", line_of(outcome, label, name, Some(begin.elapsed()), &detail));
        played.lock().expect("no thread panics while counting").add(&job.kernel.id, outcome);
    }
}

fn label(kernel: &str, boot: Boot) -> String {
    format!("{kernel:<12} {boot:<22}")
}

fn next<'a>(jobs: &Mutex<VecDeque<Job<'a>>>) -> Option<Job<'a>> {
    jobs.lock().expect("no thread panics while taking a job").pop_front()
}

/// Returns the line for a result, and its detail indented below. The time is the host's processor time.
fn line_of(outcome: Outcome, label: &str, name: &str, took: Option<Duration>, detail: &str) -> String {
    let word = match outcome {
        Outcome::Passed => "ok  ",
        Outcome::Failed => "FAIL",
        Outcome::Skipped => "skip",
    };
    let mut text = format!("{word} {label} {name}");
    if let Some(took) = took {
        text += &format!("  {} ms", took.as_millis());
    }
    if outcome == Outcome::Passed {
        return text;
    }
    for line in detail.lines() {
        text += &format!("\n     {line}");
    }
    text
}
