/*!
Every command and flag, once: parsing, `--help`, man pages and completions are made from this.
*/
use std::path::PathBuf;

use clap::{
    ArgGroup, Args, Parser, Subcommand, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};
use jiff::Timestamp;
use serde::de::{DeserializeOwned, IntoDeserializer, value::Error as WordError};
use stockade_policy::model::{LevelChoice, Unknown};

use crate::names::Parser as Names;

const EXIT_CODES: &str =
    "Exit status: 0 done, or the answer is yes; 1 the answer is no; 2 it could not be asked.";

/// One of these words, which mean on the command line what they mean in a policy.
fn one_of<T: DeserializeOwned + Clone + Send + Sync + 'static>(
    words: &'static [&'static str],
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(words)
        .try_map(|word| T::deserialize(IntoDeserializer::<WordError>::into_deserializer(word.as_str())))
}

/// Programmable kernel lockdown: refuse at the kernel's own check points what even root must not do.
#[derive(Debug, Parser)]
#[command(name = "stockade", version, after_help = EXIT_CODES, disable_help_subcommand = true, infer_subcommands = false)]
pub struct Flags {
    /// Print JSON, one document (watch: one line per event)
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Apply a level until reboot or `stockade lift`
    ///
    /// On a sealed machine, a policy that is stricter in everything is added to what is sealed; any other is refused.
    Enforce(Enforce),
    /// Let somebody through for a limited time
    ///
    /// The end is enforced by the kernel, on a clock that nobody can set: no process of Stockade's has to be alive
    /// for it. A grant goes on when another policy is applied, and ends with `stockade lift`. Each use is an event
    /// that `stockade watch` shows.
    Grant(Grant),
    /// End enforcement
    ///
    /// Refused on a sealed machine: only a reboot ends that.
    Lift(Lift),
    /// Make what is enforced irremovable until reboot
    ///
    /// The root of the cgroup tree then holds the programs, and guards keep everybody from taking them off, from loading
    /// programs that could answer in their place, and from writing their maps: no process, pin or mount is needed
    /// any more, and none can be removed to end it. `stockade lift` is refused. A policy that is stricter in everything can be
    /// added with `stockade enforce`; grants end and cannot be added. kernel.ftrace_enabled stays on, and the settings of the
    /// policy are held as it says. Programs that are excepted have to be started anew.
    ///
    /// Nothing is sealed while something would make it worth nothing: foreign programs that are asked before
    /// Stockade's, a kernel loaded for kexec, kernel.ftrace_enabled at 0. Each is named with what to do about it.
    /// A command that fails or is killed leaves the policy applied and not sealed.
    ///
    /// Exit status 1 when it is sealed and that could not be proven, or not be recorded as the policy demands.
    ///
    /// Needs kernel 6.0 or newer and bpf among the active security modules. Try the policy first: only a reboot ends it.
    /// Where it is sealed at boot by stockade-seal.service, the kernel command line
    /// systemd.mask=stockade-seal.service boots once without.
    Seal(Seal),
    /// Record which programs of others a seal has to let in
    Trust(Trust),
    /// Show what is enforced here, by whom, and what was refused
    ///
    /// On a sealed machine it tries each time whether the seal holds. "verified" means that every refused reason which can be tried
    /// without an effect was tried in this call and refused by the seal, and that its guards hold; reasons that were not tried are
    /// listed with the cause. These requests, one for each reason, and a write to a setting are refused, counted and shown by watch as
    /// any other; their process is called stockade-proof.
    ///
    /// Exit status 1 when Stockade enforces nothing, when the kernel does not run its program (kernel.ftrace_enabled is 0), and when
    /// something is sealed and does not hold; 2 when it is sealed and no reason could be tried.
    Status,
    /// Try every door harmlessly and say which are refused, by whom
    ///
    /// Each door is tried in a process of its own; nothing is changed that is not restored. What it cannot help:
    /// the modem lines of a serial port are raised for a moment, a debugfs file gets a new change time, and
    /// the kernel log has lines about it. Doors that cannot be tried without harm are listed and never tried.
    ///
    /// Exit status 1 when a door is free, 2 when none is and not every door could be tried.
    Probe(Probe),
    /// List what was opened or loaded before and goes on in spite of the level
    ///
    /// Lockdown checks when something is opened or loaded and takes nothing back. This finds open and mapped
    /// /dev/mem, kcore, debugfs, tracefs and the like, mapped PCI registers, kprobes and uprobes, kernels
    /// loaded for kexec, unsigned modules, and BPF programs that read kernel memory or write user memory; each
    /// with who has it and what to do about it. Changes nothing. What it could not look at is named, and so is
    /// what the kernel shows to nobody.
    ///
    /// Exit status 1 when something was found, 2 also when nothing was found and not everything could be
    /// looked at.
    Residual,
    /// Assess what this kernel really defends, proven by trying
    ///
    /// Looks at every defence of the kernel that Stockade knows of: whether it is there, whether it is on, whether it works, how that
    /// is known and what to do. What is tried is harmless and leaves nothing behind. Most of it needs no root; what does says so.
    ///
    /// Findings that somebody has accepted are waived in /etc/stockade/assess.toml, each with a reason and an end. Guide: docs/assess.md.
    ///
    /// Exit status 1 when a finding fails that is not waived; --fail-on says what else counts.
    Assess(Assess),
    /// Print refusals and audits as they happen
    ///
    /// Starts with what happened while nobody watched, as far as the buffer reaches. What the kernel's own
    /// lockdown refuses is taken from the kernel log, from its oldest record on: it is shown again each time.
    Watch(Watch),
    /// Say whether this host can enforce and seal, what is missing and how to get it
    ///
    /// Exit status 1 when it cannot enforce.
    CheckHost,
    /// Show what was sealed since boot, and the value that the TPM's register must have for it
    ///
    /// Replays the record of the seals. The file proves nothing, since root can write it: compare the value with the register
    /// in a quote that the TPM has signed, as docs/seal-record.md describes. Works without root and on another machine, for a
    /// file that was brought there.
    ///
    /// Exit status 1 when nothing was sealed, or the records do not fit together.
    SealRecord(SealRecord),
    /// Explain a reason, a line of the kernel log, a code of `policy check`, or a finding of `assess`
    Explain(Explain),
    /// Look at policies: see stockade.policy(5)
    Policy(Policy),
    /// Print shell completions
    Completions(Completions),
    /// Write the man pages
    Man(Man),
}

/// `stockade enforce`
#[derive(Debug, Args)]
pub struct Enforce {
    /// Level to enforce. auto: integrity if EFI Secure Boot is on, otherwise none. Without a level, the policy of this system
    /// is applied: /etc/stockade/policy.toml and the files in policy.d
    #[arg(value_parser = one_of::<LevelChoice>(&["none", "integrity", "confidentiality", "auto"]), conflicts_with = "policy")]
    pub level: Option<LevelChoice>,
    /// Apply this file, or this folder laid out like /etc/stockade (repeatable: later ones override earlier ones)
    #[arg(long, value_name = "FILE")]
    pub policy: Vec<PathBuf>,
    /// Audit: allow and report requests that would be refused, except those that --deny names
    #[arg(long)]
    pub audit: bool,
    /// Let this reason through in spite of the level (repeatable)
    #[arg(long, value_name = "REASON", requires = "level")]
    pub allow: Vec<String>,
    /// Refuse this reason whatever the level and mode (repeatable)
    #[arg(long, value_name = "REASON", requires = "level")]
    pub deny: Vec<String>,
    /// Let this reason through and report it, whatever the level (repeatable)
    #[arg(long, value_name = "REASON", requires = "level")]
    pub audit_reason: Vec<String>,
    /// Verdict on reasons of this kernel that this version does not know
    #[arg(long, value_name = "VERDICT", requires = "level", value_parser = one_of::<Unknown>(&["level", "allow", "audit", "deny"]))]
    pub unknown_reasons: Option<Unknown>,
}

/// `stockade grant`
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").required(true).args(["reasons", "list", "revoke"])))]
#[command(group(ArgGroup::new("subject").multiple(true).args(["unit", "cgroup", "exe"])))]
pub struct Grant {
    /// Reasons to allow
    #[arg(value_name = "REASON", requires_all = ["time", "subject"])]
    pub reasons: Vec<String>,
    /// For how long, from now on: 10m, 2h 30m
    #[arg(long = "for", id = "time", value_name = "TIME", allow_hyphen_values = true)]
    pub time: Option<String>,
    /// For processes in this systemd unit or slice
    #[arg(long, conflicts_with = "cgroup")]
    pub unit: Option<String>,
    /// For processes in this cgroup or below it: a path from the root of the hierarchy
    #[arg(long, value_name = "PATH")]
    pub cgroup: Option<String>,
    /// For processes that execute this program from now on
    #[arg(long, value_name = "PATH")]
    pub exe: Option<PathBuf>,
    /// Only with this real user id
    #[arg(long, requires = "subject")]
    pub uid: Option<u32>,
    /// Also the processes that the program forks
    #[arg(long, requires = "exe")]
    pub inherit: bool,
    /// Name of the grant in status and watch; without it, one is made up
    #[arg(long)]
    pub name: Option<String>,
    /// List what is granted and has not ended. Exit status 1 when nothing is
    #[arg(long)]
    pub list: bool,
    /// End this grant now
    #[arg(long, value_name = "NAME")]
    pub revoke: Option<String>,
}

/// `stockade lift`
#[derive(Debug, Args)]
pub struct Lift {
    /// Also remove what another version pinned, or what is damaged, unread
    #[arg(long)]
    pub force: bool,
}

/// `stockade trust`
#[derive(Debug, Args)]
pub struct Trust {
    /// What to do
    #[command(subcommand)]
    pub command: TrustCommand,
}

/// The commands of `stockade trust`.
#[derive(Debug, Subcommand)]
pub enum TrustCommand {
    /// Print a policy with every loaded program of others that a seal would keep out
    ///
    /// Each program becomes a table [[seal.trust]] with its kind, hook and tag, and with who loaded and who holds it as a comment. A seal
    /// of a policy that has it lets the program in, whether it is loaded before the seal or after. Nothing is trusted by recording it:
    /// what an attacker loaded is recorded as well. The file says what to check before it is put into /etc/stockade/policy.d.
    ///
    /// A tag can be another one with another kernel, and after an update of what loads the program. With --output, tags are added to the
    /// entries of a file that is there, so run it once with each kernel.
    ///
    /// Needs root, and a machine that is not sealed. Changes nothing in the kernel. Exit status 1 when a program could not be recorded,
    /// each of which is named.
    Record(TrustRecord),
}

/// `stockade trust record`
#[derive(Debug, Args)]
pub struct TrustRecord {
    /// Write the policy to this file, whole or not at all. What is in it stays, and programs and tags that it lacks are added
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// `stockade seal`
#[derive(Debug, Args)]
pub struct Seal {
    /// Keep this BPF program of another's, which could answer for the seal: by its id or its tag, as `bpftool prog` shows them
    /// (repeatable). The id is another one after each boot; the tag stays until the program is updated. The same program
    /// may be loaded again later, by anybody. A program that another guard keeps from being looked at is kept by id alone, and cannot be
    /// loaded again. What is to be let in at every boot belongs into the policy: `stockade trust record`
    #[arg(long, value_name = "ID|TAG")]
    pub trust: Vec<String>,
    /// Seal although something is left open: reasons of the integrity level that the policy lets through; exceptions to them for whom
    /// root can be; scopes and exceptions by unit or cgroup, which root can keep new cgroups out of; programs of others that are
    /// asked for sysctls. `status` says what is open until reboot. Whatever else keeps a machine from being sealed still does
    #[arg(long)]
    pub best_effort: bool,
}

/// `stockade probe`
#[derive(Debug, Args)]
pub struct Probe {
    /// Only the doors of these reasons
    #[arg(value_name = "REASON")]
    pub reasons: Vec<String>,
}

/// `stockade watch`
#[derive(Debug, Args)]
pub struct Watch {
    /// Also write the kernel's own line for each refusal to the kernel log, at most 10 in 5 seconds
    #[arg(long)]
    pub kernel_log: bool,
    /// Print what is there and stop
    #[arg(long)]
    pub no_follow: bool,
}

/// `stockade seal-record`
#[derive(Debug, Args)]
pub struct SealRecord {
    /// The records; - for standard input
    #[arg(value_name = "FILE", default_value = stockade_record::LOG)]
    pub file: PathBuf,
    /// Value of the PCR before the first seal, in the SHA-256 bank: 64 hexadecimal digits
    #[arg(long, value_name = "DIGEST", default_value_t = stockade_record::Digest::default(), hide_default_value = true)]
    pub from: stockade_record::Digest,
}

/// `stockade explain`
#[derive(Debug, Args)]
pub struct Explain {
    /// A reason such as dev-mem, a line such as "Lockdown: dd: /dev/mem,kmem,port is restricted; see man kernel_lockdown.7",
    /// a code such as SP001, or a finding or feature such as ksm.running or aslr
    #[arg(required = true, value_name = "REASON|LINE|CODE|FINDING")]
    pub what: Vec<String>,
}

/// `stockade policy`
#[derive(Debug, Args)]
pub struct Policy {
    /// What to do
    #[command(subcommand)]
    pub command: PolicyCommand,
}

/// The commands of `stockade policy`.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Argue against a policy: what it lets through without saying so, and what it says without effect
    ///
    /// Finds exceptions and allowed reasons that void the level, subjects that root can fake, programs that others
    /// can change, and what has no effect on this machine. Each finding has a code (`stockade explain SP001`),
    /// points at the sentence that is to blame, and can be accepted in the policy with an [[accept]] entry that
    /// says why. Changes nothing. Without root it goes as far as it can and names what it could not look at.
    ///
    /// Exit status 1 when an error or a warning is left, 2 when the policy could not be read.
    #[expect(rustdoc::broken_intra_doc_links, reason = "[[accept]] is TOML and part of the help text")]
    Check(PolicyCheck),
    /// Print what all files of the policy say together, with the file and line of each value
    ///
    /// What is printed is a policy itself, which says the same. Exit status 2 when there is no policy or it is wrong.
    Show(PolicyShow),
    /// Say what it would change to put another policy in the place of this one
    ///
    /// By meaning, not by line: which reasons would be decided otherwise, and which scopes and exceptions come, go
    /// or change. Exit status 1 when the two differ.
    Diff(PolicyDiff),
    /// Make from events the smallest exceptions that would have let them pass, to review
    ///
    /// Prints a policy file with an exception for each program or unit that was audited or refused: how often, when,
    /// and what speaks against it. What was let through by exceptions already is left out. Applies nothing and
    /// writes no file. Only without --events does it need root.
    Learn(PolicyLearn),
    /// Say what a policy would have made of recorded events: what breaks if it is enforced
    ///
    /// Where a verdict hangs on a program or cgroup that the record does not tell, since its process was gone too soon,
    /// that is said and not guessed. Applies nothing. Works without root.
    ///
    /// Exit status 1 when something would be refused, 2 when nothing would for certain and not everything can be told.
    Test(PolicyTest),
}

/// Which policy, for the commands that read one.
#[derive(Debug, Args)]
pub struct PolicyFiles {
    /// Read this file, or this folder laid out like /etc/stockade, in the place of the system's policy (repeatable:
    /// later ones override earlier ones)
    #[arg(long, value_name = "FILE", conflicts_with = "root")]
    pub policy: Vec<PathBuf>,
    /// Read the policy of the system below this folder, for instance of an image
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
}

/// `stockade policy check`
#[derive(Debug, Args)]
pub struct PolicyCheck {
    /// Read this file, or this folder laid out like /etc/stockade, in the place of the system's policy (repeatable:
    /// later ones override earlier ones)
    #[arg(long, value_name = "FILE")]
    pub policy: Vec<PathBuf>,
    /// Look at the programs, the units and, without --policy, the policy below this folder, for instance of an image; nothing
    /// is known of its kernel then
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
    /// How to print it; sarif is version 2.1.0
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: Format,
    /// Let notes decide as well
    #[arg(long)]
    pub strict: bool,
}

/// How findings are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Text,
    /// One document, as with --json
    Json,
    /// For code hosts and auditors' tools
    Sarif,
}

/// `stockade policy show`
#[derive(Debug, Args)]
pub struct PolicyShow {
    /// Which policy
    #[command(flatten)]
    pub files: PolicyFiles,
    /// Print the form whose SHA-256 digest the record of a seal has: without comments, and with units as the cgroups that they
    /// have on this machine
    #[arg(long, conflicts_with = "json")]
    pub canonical: bool,
}

/// `stockade policy diff`
#[derive(Debug, Args)]
pub struct PolicyDiff {
    /// Which policy it is compared with
    #[command(flatten)]
    pub files: PolicyFiles,
    /// The other policy: files, or folders laid out like /etc/stockade, later ones over earlier ones
    #[arg(required = true, value_name = "NEW")]
    pub new: Vec<PathBuf>,
}

/// `stockade policy learn`
#[derive(Debug, Args)]
pub struct PolicyLearn {
    /// Events that `stockade watch --json` wrote; - for standard input. Without it: what is in the buffer now, which is
    /// taken out by that
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// Leave out what this policy lets through already, and give no exception a name that it has (repeatable: later
    /// ones override earlier ones)
    #[arg(long, value_name = "FILE")]
    pub policy: Vec<PathBuf>,
    /// Make exceptions for the users alone that were seen
    #[arg(long)]
    pub with_uid: bool,
    /// When the host of the record was booted, such as 2027-01-31T06:00:00Z: times are told by the wall clock then
    #[arg(long, value_name = "TIME", requires = "events")]
    pub booted: Option<Timestamp>,
}

/// `stockade policy test`
#[derive(Debug, Args)]
pub struct PolicyTest {
    /// Events that `stockade watch --json` wrote; - for standard input
    #[arg(long, value_name = "FILE")]
    pub events: PathBuf,
    /// Which policy
    #[command(flatten)]
    pub files: PolicyFiles,
    /// Decide as if every mode in the policy were enforce
    #[arg(long)]
    pub enforce: bool,
    /// When the host of the record was booted, such as 2027-01-31T06:00:00Z: times are told by the wall clock then
    #[arg(long, value_name = "TIME")]
    pub booted: Option<Timestamp>,
}

/// `stockade completions`
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    #[arg(value_parser = PossibleValuesParser::new(["bash", "elvish", "fish", "powershell", "zsh"]))]
    pub shell: String,
}

/// `stockade man`
#[derive(Debug, Args)]
pub struct Man {
    /// Folder to write stockade.1, a page for each command and stockade.policy.5 to
    pub folder: PathBuf,
}

/// `stockade assess`
#[derive(Debug, Args)]
pub struct Assess {
    /// Only these features or findings, such as aslr or tpm.event-log
    #[arg(value_name = "NAME", value_parser = Names, hide_possible_values = true)]
    pub names: Vec<String>,
    /// Leave out what takes longer than an instant: measured randomness of addresses, throughput
    #[arg(long)]
    pub quick: bool,
    /// Also show what each finding rests on, and of those that do not pass why it matters and what to do
    #[arg(long)]
    pub details: bool,
    /// The least that makes the exit status 1: what is waived never does
    #[arg(long, value_name = "VERDICT", default_value = "fail")]
    pub fail_on: FailOn,
    /// Report only what changed since this assessment, which --json printed. What got better does not count for --fail-on
    #[arg(long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,
    /// The waivers, instead of /etc/stockade/assess.toml
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Show this assessment, which --json printed, instead of asking this machine
    #[arg(long, value_name = "FILE", conflicts_with = "quick")]
    pub from: Option<PathBuf>,
    /// Print SARIF 2.1.0 for code hosts and auditors' tools, or write it to a file beside what is printed
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "-")]
    pub sarif: Option<PathBuf>,
    /// Print JUnit's XML for CI, or write it to a file beside what is printed
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "-")]
    pub junit: Option<PathBuf>,
    /// Print one HTML page that needs nothing else, or write it to a file beside what is printed
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "-")]
    pub html: Option<PathBuf>,
}

/// The verdicts that make the exit status 1; each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum FailOn {
    /// Nothing
    Never,
    /// Findings that fail
    Fail,
    /// Also those with a warning
    Warn,
    /// Also those that could not be checked
    Unknown,
}
