/*!
`stockade status`: what is enforced here, by whom, and what came of it.
*/
use std::{collections::BTreeMap, fmt::Write};

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::Serialize;
use stockade_kernel::{
    SettingRule,
    btf::KernelTypes,
    host,
    read_back::{self, read_back},
    seal,
};
use stockade_policy::model::{Clock, Exception, Policy};
use stockade_reasons::Level;

use crate::{Exit, output};

/// The output of `status --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Report {
    /// `uname -r`
    pub kernel: String,
    /// Level of the kernel's own lockdown
    pub native_lockdown: String,
    /// What Stockade has in force; null when nothing
    pub stockade: Option<InForce>,
    /// What weakens the protection right now
    pub warnings: Vec<String>,
}

/// The state that Stockade has in force.
#[derive(Debug, Serialize, JsonSchema)]
pub struct InForce {
    /// none, integrity or confidentiality
    pub level: String,
    /// Whether the level is audited, not enforced
    pub audit: bool,
    /// Whether the kernel runs the program: it does not while kernel.ftrace_enabled is 0
    pub in_effect: bool,
    /// How the program is attached: bpf-lsm, root-cgroup once sealed, or modify-return, which is weaker
    pub attachment: String,
    /// The seal; null when root can lift it
    pub sealed: Option<Seal>,
    /// Seconds since it was applied
    pub applied_seconds_ago: u64,
    /// Reasons refused
    pub refused: Vec<String>,
    /// Reasons let through and reported
    pub audited: Vec<String>,
    /// Reasons let through in spite of the level
    pub allowed: Vec<String>,
    /// Kernel security settings that the policy holds; null where it holds none
    pub settings: Option<Settings>,
    /// Scopes: parts of the cgroup tree with verdicts of their own
    pub scopes: Vec<String>,
    /// Exceptions and grants that have not ended
    pub exceptions: Vec<ExceptionLine>,
    /// Whether the words for the policy are there; without them, scopes and exceptions are in force but not listed
    pub described: bool,
    /// New cgroups that could not be looked up among the scopes; what surrounds them decides for them
    pub unplaced_cgroups: u64,
    /// Requests per reason since enforcement started
    pub counters: Vec<Counter>,
    /// Events that found the buffer full, most often since nobody watched
    pub lost_events: u64,
    /// Requests let through unasked, since another one was being decided on the same processor: can only
    /// happen with modify-return
    pub skipped: u64,
    /// As in `bpftool prog`
    pub program_id: u32,
    /// As in `bpftool link`; null when sealed, since there is none
    pub link_id: Option<u32>,
}

/// A seal.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Seal {
    /// Whether the proof came to `verified`
    pub verified: bool,
    /// What was tried in this call, and what it came to
    pub proof: Proof,
    /// What is wrong where it does not hold
    pub problems: Vec<String>,
    /// Seconds since it was sealed
    pub sealed_seconds_ago: u64,
    /// Policies in force at once: the first, and those that were added
    pub policies: usize,
    /// What it leaves open
    pub left_open: Vec<String>,
}

/// The result of trying a seal.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Proof {
    /// What it came to
    pub conclusion: Conclusion,
    /// Reasons that were tried in this call and that the seal refused
    pub refused: Vec<String>,
    /// Reasons that the policy refuses and that were not tried
    pub not_tried: Vec<NotTried>,
}

/// The conclusion of a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Conclusion {
    /// Every refused reason that could be tried was tried and refused by the seal, and its guards hold
    Verified,
    /// Something does not hold: see problems
    NotVerified,
    /// No refused reason could be tried
    Unknown,
}

/// A reason that was not tried.
#[derive(Debug, Serialize, JsonSchema)]
pub struct NotTried {
    /// The reason's id
    pub reason: String,
    /// Why it was not tried
    pub cause: Cause,
    /// The same in words, about this machine
    pub detail: String,
}

/// Why a reason was not tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// This machine has no way to ask for it: no such device, or a kernel that was built without it
    Absent,
    /// Each attempt has an effect where nothing refuses it
    HasEffect,
    /// The kernel's own lockdown refuses it first
    NativeRefusesFirst,
    /// Something else refuses it before lockdown is asked
    RefusedBefore,
    /// The policy lets this process through: by a scope that it is in, or by an exception
    LetThroughHere,
    /// The attempt went wrong
    Failed,
}

impl Cause {
    fn words(self) -> &'static str {
        match self {
            Self::Absent => "not on this machine",
            Self::HasEffect => "no attempt without an effect",
            Self::NativeRefusesFirst => "native lockdown refuses first",
            Self::RefusedBefore => "refused before lockdown is asked",
            Self::LetThroughHere => "the policy lets this process through",
            Self::Failed => "the attempt went wrong",
        }
    }
}

impl From<seal::Cause> for Cause {
    fn from(cause: seal::Cause) -> Self {
        match cause {
            seal::Cause::Absent => Self::Absent,
            seal::Cause::HasEffect => Self::HasEffect,
            seal::Cause::NativeRefusesFirst => Self::NativeRefusesFirst,
            seal::Cause::RefusedBefore => Self::RefusedBefore,
            seal::Cause::LetThroughHere => Self::LetThroughHere,
            seal::Cause::Failed => Self::Failed,
        }
    }
}

impl From<seal::Proof> for Proof {
    fn from(proof: seal::Proof) -> Self {
        Self {
            conclusion: match proof.conclusion() {
                seal::Conclusion::Verified => Conclusion::Verified,
                seal::Conclusion::NotVerified => Conclusion::NotVerified,
                seal::Conclusion::Unknown => Conclusion::Unknown,
            },
            refused: proof.refused,
            not_tried: proof
                .untried
                .into_iter()
                .map(|it| NotTried { reason: it.reason, cause: it.cause.into(), detail: it.detail })
                .collect(),
        }
    }
}

impl Proof {
    /// In two lines at most.
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.refused.is_empty() {
            let all = self.refused.len() + self.not_tried.len();
            lines.push(format!(
                "{} of {all} refused reasons tried now, and refused by the seal",
                self.refused.len()
            ));
        }
        let mut by_cause: BTreeMap<Cause, Vec<&str>> = BTreeMap::new();
        for untried in &self.not_tried {
            by_cause.entry(untried.cause).or_default().push(&untried.reason);
        }
        if !by_cause.is_empty() {
            let groups: Vec<_> = by_cause
                .iter()
                .map(|(cause, reasons)| format!("{} ({})", reasons.join(", "), cause.words()))
                .collect();
            lines.push(format!("not tried: {}", groups.join("; ")));
        }
        lines
    }
}

/// Kernel security settings that the policy holds.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Settings {
    /// Those that keep their value, as sysctl(8) names them
    pub frozen: Vec<String>,
    /// Those that keep their value or get a stricter one
    pub ratcheted: Vec<String>,
    /// Those held under this name only: writes to it are refused, and the value can change by other ways
    pub name_only: Vec<String>,
    /// Whether the program that holds them is attached
    pub held: bool,
    /// Writes that were refused since enforcement started
    pub writes_refused: u64,
    /// Writes that were let through and reported
    pub writes_audited: u64,
}

/// Requests for one reason.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Counter {
    /// The reason's id
    pub reason: String,
    /// Refused
    pub refused: u64,
    /// Let through and reported
    pub audited: u64,
    /// Let through by an exception or a grant
    pub excepted: u64,
}

/// An exception or a grant.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ExceptionLine {
    /// Its name
    pub name: String,
    /// Reasons
    pub reasons: Vec<String>,
    /// Whom it lets through, in words
    pub subject: String,
    /// When the kernel ends it, in UTC; null for never. Worked out from the clock since boot, so that it is another time than the
    /// policy says where the clock was set since
    pub ends: Option<String>,
    /// Seconds until then, by the clock since boot; null for never
    pub seconds_left: Option<u64>,
    /// Whether it was granted by command
    pub granted: bool,
}

impl ExceptionLine {
    /// An exception of the policy in force.
    pub fn of(exception: &Exception, now: Clock) -> Self {
        let left = exception.left_ns(now);
        let mut parts = Vec::new();
        if let Some(exe) = &exception.exe {
            parts.push(exe.value.display().to_string());
        }
        if let Some(place) = &exception.place {
            parts.push(format!("in {}", place.value));
        }
        if let Some(uid) = &exception.uid {
            parts.push(format!("as user {}", uid.value));
        }
        Self {
            name: exception.name.value.clone(),
            reasons: exception.reasons.iter().map(|reason| reason.value.clone()).collect(),
            subject: parts.join(" "),
            ends: left.map(|left| ends(exception, now, left)),
            seconds_left: left.map(|left| left / 1_000_000_000),
            granted: exception.granted,
        }
    }
}

/// When an exception ends: as it says itself, or as the clock says now where that was set since.
fn ends(exception: &Exception, now: Clock, left_ns: u64) -> String {
    const SAME: SignedDuration = SignedDuration::from_secs(60);
    let left = SignedDuration::from_nanos(i64::try_from(left_ns).unwrap_or(i64::MAX));
    let by_kernel = now.wall.saturating_add(left).unwrap_or(Timestamp::MAX);
    match &exception.expires {
        Some(said) if said.value.duration_since(by_kernel).abs() <= SAME => said.value.to_string(),
        _ => by_kernel.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    }
}

pub fn run(json: bool) -> Result<Exit> {
    let types = KernelTypes::of_running_kernel()?;
    let native = host::native_lockdown()?;
    let state = read_back(&types)?;
    // Trying is a request like any other: the counters are read before.
    let proof = match &state {
        Some(state) if state.sealed.is_some() => seal::prove(&types, &stockade_assess::proof::knock)?,
        _ => seal::Proof::default(),
    };
    let problems = proof.problems.clone();
    let proof = Proof::from(proof);
    // Reasons with exceptions in an added policy are not among the slot's; those that the seal refused in this call are refused.
    let mut refused = state.as_ref().map_or_else(Vec::new, |state| super::ids(state.slot.words.deny, &types));
    let tried: Vec<_> = proof.refused.iter().filter(|id| !refused.contains(id)).cloned().collect();
    refused.extend(tried);
    let stockade = state.map(|state| InForce {
        level: super::level_of(state.slot.level).to_string(),
        audit: state.slot.audit == 1,
        in_effect: !host::tracing_is_off(),
        attachment: super::attachment(state.attachment).into(),
        skipped: state.skipped,
        sealed: state.sealed.as_ref().map(|sealed| Seal {
            problems,
            verified: proof.conclusion == Conclusion::Verified,
            proof,
            sealed_seconds_ago: host::boot_ns().saturating_sub(sealed.boot_ns) / 1_000_000_000,
            policies: sealed.policies,
            left_open: sealed.open.iter().map(ToString::to_string).collect(),
        }),
        applied_seconds_ago: host::boot_ns().saturating_sub(state.slot.applied_boot_ns) / 1_000_000_000,
        refused,
        audited: super::ids(state.slot.words.watched & !state.slot.words.deny, &types),
        allowed: super::ids(state.slot.allow, &types),
        settings: (!state.settings.is_empty()).then(|| Settings {
            frozen: super::held(&state.settings, SettingRule::FREEZE),
            ratcheted: super::held(&state.settings, SettingRule::RATCHET),
            name_only: super::name_only(&state.settings),
            held: state.settings_held,
            writes_refused: state.setting_writes.0,
            writes_audited: state.setting_writes.1,
        }),
        described: state.description.is_some(),
        scopes: described(&state, |policy| {
            policy
                .scopes
                .iter()
                .map(|scope| format!("{} ({})", scope.name.value, scope.place.value))
                .collect()
        }),
        exceptions: described(&state, |policy| {
            // By the clock that the kernel goes by: the date hides nothing that is let through.
            let now = host::now();
            let alive = policy.exceptions.iter().filter(|e| !e.has_ended(now));
            alive.map(|exception| ExceptionLine::of(exception, now)).collect()
        }),
        unplaced_cgroups: state.unplaced_cgroups,
        counters: state
            .counts
            .into_iter()
            .map(|c| Counter {
                reason: c.reason,
                refused: c.refused,
                audited: c.audited,
                excepted: c.excepted,
            })
            .collect(),
        lost_events: state.lost_events,
        program_id: state.program_id,
        link_id: state.link_id,
    });
    let report = Report {
        kernel: host::kernel_release(),
        native_lockdown: native.to_string(),
        warnings: warnings(stockade.as_ref(), native, &types),
        stockade,
    };
    if json {
        output::json(&report)?;
    } else {
        output::text(&text(&report))?;
    }
    Ok(exit(report.stockade.as_ref()))
}

/// Returns `No` if something does not hold, and `Unknown` if nothing could be tried.
fn exit(stockade: Option<&InForce>) -> Exit {
    let Some(stockade) = stockade.filter(|stockade| stockade.in_effect) else { return Exit::No };
    match stockade.sealed.as_ref().map(|seal| seal.proof.conclusion) {
        None | Some(Conclusion::Verified) => Exit::Done,
        Some(Conclusion::NotVerified) => Exit::No,
        Some(Conclusion::Unknown) => Exit::Unknown,
    }
}

fn described<T>(state: &read_back::InForce, list: impl FnOnce(&Policy) -> Vec<T>) -> Vec<T> {
    state.description.as_ref().map_or_else(Vec::new, |description| list(&description.policy))
}

fn warnings(stockade: Option<&InForce>, native: Level, types: &KernelTypes) -> Vec<String> {
    let mut warnings = Vec::new();
    let in_force = stockade.is_some();
    let weaker = stockade.is_some_and(|s| s.attachment == "modify-return");
    if let Some(s) = stockade.filter(|_| weaker) {
        let lsms = host::active_lsms().unwrap_or_default();
        warnings.push(super::weaker(&lsms, host::may_switch_in_kernel()));
        if s.skipped > 0 {
            warnings.push(format!(
                "{} requests of all processes were let through unasked, since another one was being decided on the same processor",
                s.skipped
            ));
        }
    }
    if stockade.is_some_and(|s| !s.described) {
        warnings.push(format!(
            "the description of the policy, in {}, is lost or is of something else: scopes and exceptions are in force and cannot be listed",
            stockade_kernel::description::FOLDER
        ));
    }
    if stockade.and_then(|s| s.settings.as_ref()).is_some_and(|settings| !settings.held) {
        warnings.push(
            "the program that holds settings was detached: they can be changed; apply the policy again with stockade enforce"
                .into(),
        );
    }
    if let Some(s) = stockade.filter(|s| s.unplaced_cgroups > 0) {
        warnings.push(format!(
            "{} new cgroups could not be looked up among the scopes, since their paths are too long or the table is full: what surrounds them decides for them",
            s.unplaced_cgroups
        ));
    }
    warnings.extend(clock_warnings(stockade, host::implausible(host::now()), host::clock_care()));
    for problem in stockade.iter().filter_map(|s| s.sealed.as_ref()).flat_map(|seal| &seal.problems) {
        warnings.push(format!("the seal does not hold: {problem}"));
    }
    if in_force && host::tracing_is_off() {
        warnings.push("kernel.ftrace_enabled is 0: the program does not run, nothing is refused by Stockade; turn it on with: sysctl kernel.ftrace_enabled=1".into());
    }
    if in_force && native > Level::None && weaker {
        warnings.push(format!("the kernel's own lockdown is at {native}: what Stockade lets through it still refuses, so allowing that has no effect"));
    } else if in_force && native > Level::None {
        warnings.push(format!("the kernel's own lockdown is at {native} and refuses first: what it refuses is not counted here, and allowing it has no effect"));
    }
    for reason in &types.reasons {
        if stockade_reasons::by_enum_name(&reason.enum_name).is_none() {
            warnings.push(format!(
                "this kernel checks {}, which this version of Stockade does not know",
                reason.enum_name
            ));
        }
    }
    warnings
}

/// Returns the faults of the clocks if something in force has an end.
fn clock_warnings(
    stockade: Option<&InForce>,
    implausible: Option<String>,
    care: Option<host::ClockCare>,
) -> Vec<String> {
    /// A little more than NTP corrects at most.
    const ORDINARY_PPM: i64 = 1_000;
    let mut warnings = Vec::new();
    if let Some(wrong) = implausible {
        warnings.push(format!(
            "{wrong}: grants and policies with exceptions that expire are refused until it is set; those in force end on the clock since boot"
        ));
    }
    let has_end = stockade.is_some_and(|s| s.exceptions.iter().any(|e| e.ends.is_some()));
    if let Some(care) = care.filter(|care| has_end && care.slewed_ppm < -ORDINARY_PPM) {
        warnings.push(format!(
            "the clock since boot is slowed by {} % (adjtimex): what ends lasts so much longer",
            -care.slewed_ppm / 10_000
        ));
    }
    warnings
}

fn sealed(seal: Option<&Seal>) -> String {
    let Some(seal) = seal else { return "no: root can lift it".into() };
    let added = match seal.policies {
        0 | 1 => String::new(),
        2 => ", one policy added since".into(),
        n => format!(", {} policies added since", n - 1),
    };
    let ago = seal.sealed_seconds_ago;
    match seal.proof.conclusion {
        Conclusion::Verified => format!("yes, verified: until reboot, since {ago} s{added}"),
        Conclusion::NotVerified => format!("NOT VERIFIED, sealed {ago} s ago{added}: see the warnings"),
        Conclusion::Unknown => {
            format!("yes, unknown whether it holds: no reason could be tried; sealed {ago} s ago{added}")
        }
    }
}

fn text(report: &Report) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "Kernel           {}", report.kernel);
    let _ = writeln!(out, "Native lockdown  {}", report.native_lockdown);
    match &report.stockade {
        None => {
            let _ =
                writeln!(out, "Stockade         enforces nothing; try: stockade enforce integrity --audit");
        }
        Some(s) => {
            let mode = match (s.in_effect, s.audit) {
                (false, _) => "NOT ENFORCED: kernel.ftrace_enabled is 0",
                (true, true) => "audited, not enforced",
                (true, false) => "enforced",
            };
            let _ = writeln!(out, "Stockade         {}, {mode}, since {} s", s.level, s.applied_seconds_ago);
            let _ = writeln!(
                out,
                "  attached as    {} (program {}{})",
                match s.attachment.as_str() {
                    "bpf-lsm" => "BPF LSM",
                    "root-cgroup" => "BPF LSM, held by the root cgroup",
                    _ => "modify-return, the weaker way",
                },
                s.program_id,
                s.link_id.map_or_else(String::new, |link| format!(", link {link}"))
            );
            let _ = writeln!(out, "  sealed         {}", sealed(s.sealed.as_ref()));
            for line in s.sealed.iter().flat_map(|seal| seal.proof.lines()) {
                let _ = writeln!(out, "  proof          {line}");
            }
            for open in s.sealed.iter().flat_map(|seal| &seal.left_open) {
                let _ = writeln!(out, "  left open      {open}");
            }
            for (title, list) in [("refused", &s.refused), ("audited", &s.audited), ("allowed", &s.allowed)] {
                if !list.is_empty() {
                    let _ = writeln!(out, "  {title:<13}  {}", list.join(", "));
                }
            }
            if let Some(settings) = &s.settings {
                for (title, list) in [
                    ("frozen", &settings.frozen),
                    ("ratcheted", &settings.ratcheted),
                    ("name only", &settings.name_only),
                ] {
                    if !list.is_empty() {
                        let _ = writeln!(out, "  {title:<13}  {}", list.join(", "));
                    }
                }
            }
            for scope in &s.scopes {
                let _ = writeln!(out, "  scope          {scope}");
            }
            for e in &s.exceptions {
                let what = if e.granted { "grant" } else { "exception" };
                let left = e.seconds_left.map_or_else(String::new, |left| format!(", {left} s left"));
                let until = e.ends.as_ref().map_or_else(String::new, |ends| format!(", until {ends}{left}"));
                let _ = writeln!(
                    out,
                    "  {what:<13}  {}: {} for {}{until}",
                    e.name,
                    e.reasons.join(", "),
                    e.subject
                );
            }
            if !s.counters.is_empty() {
                let _ = writeln!(
                    out,
                    "\n  {:<24} {:>10} {:>10} {:>10}",
                    "since the start", "refused", "audited", "excepted"
                );
                for c in &s.counters {
                    let _ = writeln!(
                        out,
                        "  {:<24} {:>10} {:>10} {:>10}",
                        c.reason, c.refused, c.audited, c.excepted
                    );
                }
            }
            let writes = |settings: &&Settings| settings.writes_refused + settings.writes_audited > 0;
            if let Some(settings) = s.settings.as_ref().filter(writes) {
                let _ = writeln!(
                    out,
                    "  writes to settings: {} refused, {} audited",
                    settings.writes_refused, settings.writes_audited
                );
            }
            if s.lost_events > 0 {
                let _ = writeln!(
                    out,
                    "  {} events found the buffer full (counted above, not seen by watch)",
                    s.lost_events
                );
            }
        }
    }
    for warning in &report.warnings {
        let _ = writeln!(out, "warning: {warning}");
    }
    out
}

#[cfg(test)]
mod tests {
    use stockade_policy::{Source, read};

    use super::*;

    fn line(expires: &str, wall: &str, left: Option<u64>) -> ExceptionLine {
        let text =
            format!("[[exception]]\nname = \"e\"\nreasons = [\"msr\"]\nexe = \"/a\"\nexpires = {expires}\n");
        let mut exception = read(&Source::new("f", text)).unwrap().exceptions.remove(0);
        let now = Clock { wall: wall.parse().unwrap(), boot_ns: 7_000_000_000 };
        exception.ends_boot_ns = left.map(|left| now.boot_ns + left * 1_000_000_000);
        ExceptionLine::of(&exception, now)
    }

    #[test]
    fn what_is_let_through_is_told_by_the_clock_since_boot() {
        let ordinary = line("2027-01-01T00:10:00Z", "2027-01-01T00:00:03Z", Some(600));
        assert_eq!(ordinary.ends.as_deref(), Some("2027-01-01T00:10:00Z"));
        // The clock was at 1970 when it was applied, and was set right.
        let set = line("1970-01-01T00:10:00Z", "2027-01-01T00:00:00Z", Some(540));
        assert_eq!(set.ends.as_deref(), Some("2027-01-01T00:09:00Z"));
        assert_eq!(set.seconds_left, Some(540));
        let text = line("9999-01-01T00:00:00Z", "2027-01-01T00:00:00Z", None);
        assert_eq!((text.ends, text.seconds_left), (None, None), "in centuries");
    }

    fn proof(conclusion: Conclusion) -> Proof {
        let untried = |reason: &str, cause| NotTried { reason: reason.into(), cause, detail: "why".into() };
        Proof {
            conclusion,
            refused: vec!["dev-mem".into(), "kexec".into()],
            not_tried: vec![
                untried("tiocsserial", Cause::HasEffect),
                untried("efi-test", Cause::Absent),
                untried("msr", Cause::Absent),
            ],
        }
    }

    #[test]
    fn what_was_tried_is_told_in_two_lines() {
        assert_eq!(
            proof(Conclusion::Verified).lines(),
            [
                "2 of 5 refused reasons tried now, and refused by the seal",
                "not tried: efi-test, msr (not on this machine); tiocsserial (no attempt without an effect)",
            ]
        );
    }

    #[test]
    fn a_seal_is_called_verified_by_its_proof_alone() {
        let line = |conclusion| {
            sealed(Some(&Seal {
                verified: conclusion == Conclusion::Verified,
                proof: proof(conclusion),
                problems: Vec::new(),
                sealed_seconds_ago: 3,
                policies: 1,
                left_open: Vec::new(),
            }))
        };
        assert_eq!(line(Conclusion::Verified), "yes, verified: until reboot, since 3 s");
        for conclusion in [Conclusion::NotVerified, Conclusion::Unknown] {
            assert!(!line(conclusion).contains("yes, verified"), "{}", line(conclusion));
        }
    }

    #[test]
    fn clocks_that_are_wrong_are_told() {
        let care = |slewed_ppm| Some(host::ClockCare { synchronised: true, slewed_ppm });
        assert!(clock_warnings(None, None, care(-100_000)).is_empty(), "nothing has an end");
        assert_eq!(clock_warnings(None, Some("the clock says 1970".into()), care(0)).len(), 1);
    }
}
