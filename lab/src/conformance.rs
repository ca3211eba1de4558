/*!
The conformance matrix: the same operations under Stockade and under native lockdown, on every kernel, and the document generated from it.
*/
use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
    thread,
    time::Duration,
};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::{
    boot::{Clock, Hardware, Machine},
    initrd::{self, Program},
    kernels::Kernel,
    tool, unsigned,
};

/// Guests that run at once.
const GUESTS: usize = 2;

/// The policy or native lockdown level that is in force while the doors are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Regime {
    /// Neither a policy nor native lockdown.
    Nothing,
    /// Stockade audits the confidentiality level.
    Audit,
    /// Stockade enforces integrity.
    OurIntegrity,
    /// Stockade enforces confidentiality.
    OurConfidentiality,
    /// The kernel's own lockdown, raised to integrity at run time.
    NativeIntegrity,
    /// The kernel's own lockdown, raised to confidentiality at run time.
    NativeConfidentiality,
    /// Stockade's integrity, sealed.
    SealedIntegrity,
    /// Stockade's confidentiality, added to the sealed integrity.
    SealedConfidentiality,
}

/// The word on the command line of the guest that plays [`Regime::SEALED`].
pub const SEALED: &str = "stockade.sealed";

impl Regime {
    /// The regimes that need a guest of their own, in order: neither a seal nor native lockdown can be lowered.
    pub const SEALED: [Regime; 2] = [Regime::SealedIntegrity, Regime::SealedConfidentiality];

    /// The regimes that one guest can play, in this order.
    pub const ALL: [Regime; 6] = [
        Regime::Nothing,
        Regime::Audit,
        Regime::OurIntegrity,
        Regime::OurConfidentiality,
        Regime::NativeIntegrity,
        Regime::NativeConfidentiality,
    ];
}

/// The result of one operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The regime in force.
    pub regime: Regime,
    /// The reason's id.
    pub reason: String,
    /// The operation.
    pub door: String,
    /// The answer that user space got.
    pub answer: String,
    /// The kernel's words for the reason, as the administrator got them from the kernel log or from Stockade's events.
    pub told: Vec<String>,
}

/// The results of one door on one kernel.
type Cells = BTreeMap<Regime, Row>;

/// All results: per door, per kernel.
pub struct Matrix {
    kernels: Vec<String>,
    /// Reason and operation, in the order in which the guests played them.
    doors: Vec<(String, String)>,
    cells: BTreeMap<(String, String), Cells>,
}

/// Writes the files that the operations need beside the programs: modules and an image, made from the kernel's package.
pub fn files(kernel: &Kernel, folder: &Path) -> anyhow::Result<Vec<Program>> {
    fs::create_dir_all(folder).with_context(|| format!("making the folder {}", folder.display()))?;
    let made = |name: &str, bytes: &[u8]| -> anyhow::Result<Program> {
        let source = folder.join(name);
        fs::write(&source, bytes).with_context(|| format!("writing {}", source.display()))?;
        Ok(Program { source, target: format!("root/{name}") })
    };
    let signed = tool::decompress(&kernel.module("dummy")?)?;
    let stripped = unsigned::module(signed.clone())?;
    let image = kernel.bzimage().with_context(|| format!("{} has no bzImage", kernel.id))?;
    let image = fs::read(&image).with_context(|| format!("reading {}", image.display()))?;
    Ok(vec![
        made("signed.ko", &signed)?,
        made("stripped.ko", &stripped)?,
        made("foreign.ko", &signed_by_a_stranger(&stripped, folder)?)?,
        made("image", &unsigned::image(image)?)?,
    ])
}

/// The last bytes of a signed module.
const MODULE_MAGIC: &[u8] = b"~Module signature appended~\n";

/// Signs a module with a new key, which no kernel trusts.
fn signed_by_a_stranger(module: &[u8], folder: &Path) -> anyhow::Result<Vec<u8>> {
    let file = |name: &str| folder.join(name);
    fs::write(file("module"), module)?;
    let mut request = tool::command("openssl");
    request.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=stranger"]);
    tool::output(request.arg("-keyout").arg(file("key.pem")).arg("-out").arg(file("certificate.pem")))?;
    let mut sign = tool::command("openssl");
    sign.args(["cms", "-sign", "-binary", "-noattr", "-nocerts", "-md", "sha256", "-outform", "DER"]);
    sign.arg("-in").arg(file("module")).arg("-inkey").arg(file("key.pem"));
    let signature = tool::output(sign.arg("-signer").arg(file("certificate.pem")))?;
    // The start of `struct module_signature`: five bytes that are zero but for the type PKCS#7, then three bytes of padding. The length
    // follows.
    let descriptor = [0, 0, 2, 0, 0, 0, 0, 0];
    let length = u32::try_from(signature.len())?.to_be_bytes();
    Ok([module, &signature, &descriptor, &length, MODULE_MAGIC].concat())
}

impl Matrix {
    /// Plays the matrix on these kernels, several guests at a time.
    pub fn play(kernels: &[Kernel], programs: &[Program], folder: &Path) -> anyhow::Result<Matrix> {
        let waiting: Mutex<VecDeque<&Kernel>> = Mutex::new(kernels.iter().collect());
        let played = Mutex::new(BTreeMap::new());
        thread::scope(|scope| {
            for _ in 0..GUESTS {
                scope.spawn(|| {
                    while let Some(kernel) = next(&waiting) {
                        let rows = guest(kernel, programs, folder);
                        played.lock().expect("no thread panics here").insert(kernel.id.clone(), rows);
                    }
                });
            }
        });
        let mut matrix = Matrix { kernels: Vec::new(), doors: Vec::new(), cells: BTreeMap::new() };
        let mut played = played.into_inner().expect("no thread panics here");
        for kernel in kernels {
            let rows = played.remove(&kernel.id).context("every kernel was played")??;
            matrix.add(&kernel.id, rows);
        }
        Ok(matrix)
    }

    fn add(&mut self, kernel: &str, rows: Vec<Row>) {
        self.kernels.push(kernel.to_owned());
        for row in rows {
            let door = (row.reason.clone(), row.door.clone());
            if !self.doors.contains(&door) {
                self.doors.push(door);
            }
            let cells = self.cells.entry((row.door.clone(), kernel.to_owned())).or_default();
            cells.insert(row.regime, row);
        }
    }

    /// Returns where Stockade and native lockdown differ, and where an audited policy has an effect. There should be none.
    #[must_use]
    pub fn differences(&self) -> Vec<String> {
        use Regime::{
            Audit, NativeConfidentiality, NativeIntegrity, Nothing, OurConfidentiality, OurIntegrity,
            SealedConfidentiality, SealedIntegrity,
        };
        let mut found = Vec::new();
        for ((door, kernel), cells) in &self.cells {
            let mut compare = |ours: Regime, theirs: Regime, words: bool| {
                let (Some(ours_row), Some(theirs_row)) = (cells.get(&ours), cells.get(&theirs)) else {
                    found.push(format!("{kernel}: {door}: {ours:?} or {theirs:?} was not played"));
                    return;
                };
                if ours_row.answer != theirs_row.answer {
                    let (a, b) = (&ours_row.answer, &theirs_row.answer);
                    found.push(format!("{kernel}: {door}: {ours:?} answers {a}, {theirs:?} {b}"));
                }
                if words && ours_row.told != theirs_row.told {
                    let (a, b) = (&ours_row.told, &theirs_row.told);
                    found.push(format!("{kernel}: {door}: {ours:?} tells {a:?}, {theirs:?} {b:?}"));
                }
            };
            compare(Audit, Nothing, false);
            compare(OurIntegrity, NativeIntegrity, true);
            compare(OurConfidentiality, NativeConfidentiality, true);
            compare(SealedIntegrity, NativeIntegrity, true);
            compare(SealedConfidentiality, NativeConfidentiality, true);
        }
        found
    }

    /// Returns how many answers were compared with those of native lockdown.
    #[must_use]
    pub fn compared(&self) -> usize {
        4 * self.cells.len()
    }

    /// Returns the document, docs/conformance.md.
    #[must_use]
    pub fn document(&self) -> String {
        let mut out = String::from(HEAD);
        let mut absent: BTreeMap<(&str, String), Vec<&str>> = BTreeMap::new();
        for (reason, door) in &self.doors {
            let mut seen: Vec<([&str; 3], Vec<&str>)> = Vec::new();
            for kernel in &self.kernels {
                let Some(cells) = self.cells.get(&(door.clone(), kernel.clone())) else { continue };
                let answers = answers(cells);
                if let Some(why) = answers[0].strip_prefix("absent: ") {
                    absent.entry((door, why.to_owned())).or_default().push(kernel);
                    continue;
                }
                match seen.iter_mut().find(|(known, _)| *known == answers) {
                    Some((_, kernels)) => kernels.push(kernel),
                    None => seen.push((answers, vec![kernel])),
                }
            }
            for ([nothing, integrity, confidentiality], kernels) in seen {
                let kernels =
                    if kernels.len() == self.kernels.len() { "all".into() } else { kernels.join(", ") };
                let _ = writeln!(
                    out,
                    "| {reason} | {door} | {nothing} | {integrity} | {confidentiality} | {kernels} |"
                );
            }
        }
        out += "\n## Differences between Stockade and native lockdown\n\n";
        let differences = self.differences();
        if differences.is_empty() {
            out += "None.\n";
        }
        for difference in differences {
            let _ = writeln!(out, "- {difference}");
        }
        out += "\n## Doors that a kernel's guest does not have\n\n| operation | kernels | why |\n|---|---|---|\n";
        for ((door, why), kernels) in &absent {
            let _ = writeln!(out, "| {door} | {} | {why} |", kernels.join(", "));
        }
        out += UNREACHABLE;
        out
    }
}

/// Returns the answers without lockdown, at integrity and at confidentiality.
fn answers(cells: &Cells) -> [&str; 3] {
    [Regime::Nothing, Regime::NativeIntegrity, Regime::NativeConfidentiality]
        .map(|regime| cells.get(&regime).map_or("not played", |row| row.answer.as_str()))
}

fn next<'a>(waiting: &Mutex<VecDeque<&'a Kernel>>) -> Option<&'a Kernel> {
    waiting.lock().expect("no thread panics here").pop_front()
}

fn guest(kernel: &Kernel, programs: &[Program], folder: &Path) -> anyhow::Result<Vec<Row>> {
    let scratch: PathBuf = folder.join(format!("conformance-{}", kernel.id));
    let all = [programs, &files(kernel, &scratch)?].concat();
    let disk = scratch.join("guest.cpio");
    initrd::write(kernel, &all, &disk)?;
    let mut rows = play(kernel, &disk, "")?;
    rows.extend(play(kernel, &disk, SEALED)?);
    Ok(rows)
}

/// Plays one guest, with this word on its command line.
fn play(kernel: &Kernel, disk: &Path, word: &str) -> anyhow::Result<Vec<Row>> {
    let machine = Machine {
        kernel,
        initrd: disk,
        disk: None,
        cmdline: format!("stockade.run=exec:/bin/stockade-conformance {word}"),
        hardware: Hardware::USUAL,
        console: disk.with_file_name("console"),
        clock: Clock::Instructions(2),
        limit: Duration::from_mins(5),
    };
    let mut rows = Vec::new();
    let mut noise = Vec::new();
    let ended = machine.run_program(|line| match serde_json::from_str(line) {
        Ok(row) => rows.push(row),
        Err(_) if line.trim().is_empty() => {}
        Err(_) => noise.push(line.to_owned()),
    });
    ended.with_context(|| noise.join("\n"))?;
    if !noise.is_empty() || rows.is_empty() {
        bail!("the guest on {} did not play the matrix: {}", kernel.id, noise.join("\n"));
    }
    Ok(rows)
}

const HEAD: &str = "\
# Conformance

Made by `cargo xtask lab conformance`; `cargo xtask test` fails when it is not true any more.

The same operations, by root of a throw-away guest, under the kernel's own lockdown and under Stockade at the same
level: what user space sees. Native lockdown is raised at run time. Under Stockade the answers are the same, operation
by operation, and so are the words that the kernel log (native) and `stockade watch` name the refusal with; once sealed
they are the same still (integrity, and confidentiality added to it); with `--audit` they are those without lockdown. Where that is not so, it is listed below the table.

| reason | operation | without lockdown | integrity | confidentiality | kernels |
|---|---|---|---|---|---|
";

const UNREACHABLE: &str = "
## Doors that no guest here reaches

| reason | why |
|---|---|
| acpi-tables | most callers run before any program does; the one at run time, configfs, is not in Debian's kernels |
| device-tree, rtas-error-injection, xmon-wr, xmon-rw | powerpc only |
| dbg-write-kernel, dbg-read-kernel | the kernel debugger stops the machine and waits at its console |
| efi-test | none of these kernels is built with CONFIG_EFI_TEST |
| mmiotrace | asked by the kernel's own test module only, which Debian does not build |
| pcmcia-cis | needs a socket, which the guest's machine does not have |
| xen-user-actions | Xen guests only |
";

#[cfg(test)]
mod tests {
    use super::*;

    fn row(regime: Regime, answer: &str, told: &[&str]) -> Row {
        let told = told.iter().map(ToString::to_string).collect();
        Row { regime, reason: "kcore".into(), door: "open".into(), answer: answer.into(), told }
    }

    fn matrix(ours: Row) -> Matrix {
        let mut matrix = Matrix { kernels: Vec::new(), doors: Vec::new(), cells: BTreeMap::new() };
        let rows = vec![
            row(Regime::Nothing, "done", &[]),
            row(Regime::Audit, "done", &["kcore"]),
            row(Regime::OurIntegrity, "done", &[]),
            row(Regime::NativeIntegrity, "done", &[]),
            ours,
            row(Regime::NativeConfidentiality, "EPERM", &["kcore"]),
            row(Regime::SealedIntegrity, "done", &[]),
            row(Regime::SealedConfidentiality, "EPERM", &["kcore"]),
        ];
        matrix.add("6.1", rows);
        matrix
    }

    #[test]
    fn alike_is_no_difference() {
        let same = matrix(row(Regime::OurConfidentiality, "EPERM", &["kcore"]));
        assert_eq!(same.differences(), Vec::<String>::new());
        assert!(same.document().contains("| kcore | open | done | done | EPERM | all |"));
    }

    #[test]
    fn another_answer_or_another_word_is_a_difference() {
        let free = matrix(row(Regime::OurConfidentiality, "done", &["kcore"]));
        assert_eq!(free.differences().len(), 1);
        let silent = matrix(row(Regime::OurConfidentiality, "EPERM", &[]));
        assert_eq!(silent.differences().len(), 1);
    }
}
