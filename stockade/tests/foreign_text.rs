//! Where text that somebody else chose comes in, and that each of these places has it made fit to print.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What becomes of such text.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// It goes through the one function, in this file.
    Harmless,
    /// In this one, to which it is handed as it is.
    HarmlessIn(&'static str),
    /// It is compared or read, and never printed.
    NotPrinted,
}
use Fate::{Harmless, HarmlessIn, NotPrinted};

const RESIDUAL: &str = "stockade/src/commands/residual.rs";
const OUTPUT: &str = "stockade/src/output.rs";

/// Every file that reads foreign text: what, and what becomes of it.
const PLACES: &[(&str, &str, Fate)] = &[
    ("stockade/src/kernel_log.rs", "lines of the kernel log, with names of processes", Harmless),
    ("stockade/src/requester.rs", "comm, executable and cgroup of who asked", Harmless),
    ("stockade/src/commands/explain.rs", "a line that somebody hands in", Harmless),
    ("stockade/src/commands/watch/line.rs", "values that were written to settings", Harmless),
    (
        "stockade/src/commands/grant.rs",
        "the name of a program, of which letters and digits are kept",
        NotPrinted,
    ),
    (
        "stockade/src/commands/assess/mod.rs",
        "an assessment of another machine",
        HarmlessIn("stockade/src/commands/assess/table.rs"),
    ),
    ("stockade-kernel/src/program/info.rs", "names of BPF programs", Harmless),
    ("stockade-kernel/src/program/loaded.rs", "pins of programs, which others look up", NotPrinted),
    ("stockade-kernel/src/machine/processes.rs", "names of processes, links of descriptors", Harmless),
    ("stockade-kernel/src/sys/machine.rs", "which namespace this is", NotPrinted),
    ("stockade-kernel/src/sealed/foreign.rs", "pins of programs, processes that hold them", Harmless),
    (
        "stockade-kernel/src/sealed/kept_files.rs",
        "a process that has a file open",
        HarmlessIn("stockade-kernel/src/machine/processes.rs"),
    ),
    (
        "stockade-kernel/src/seal/access.rs",
        "a process that is at a setting",
        HarmlessIn("stockade-kernel/src/machine/processes.rs"),
    ),
    (
        "stockade-kernel/src/seal/lists.rs",
        "lists that BPF iterators write",
        HarmlessIn("stockade-kernel/src/machine/processes.rs"),
    ),
    ("stockade/src/commands/trust.rs", "the name of a file that was asked for", Harmless),
    ("stockade-kernel/src/program/instructions.rs", "the verifier's log, which is compared", NotPrinted),
    ("stockade-kernel/src/program/object.rs", "the verifier's log", HarmlessIn(OUTPUT)),
    ("stockade-kernel/src/machine/btf.rs", "names of types", HarmlessIn(OUTPUT)),
    ("stockade-kernel/src/machine/cgroups.rs", "cgroups, which are looked up", NotPrinted),
    ("stockade-kernel/src/pinned/description.rs", "names of our own files", NotPrinted),
    ("stockade-kernel/src/machine/host.rs", "which namespace this is", NotPrinted),
    ("stockade-kernel/src/pinned/tables.rs", "settings of a policy", NotPrinted),
    ("stockade-residual/src/process.rs", "comm and executable of processes", HarmlessIn(RESIDUAL)),
    ("stockade-residual/src/walk.rs", "mappings", HarmlessIn(RESIDUAL)),
    ("stockade-residual/src/walk/files.rs", "paths of open files", HarmlessIn(RESIDUAL)),
    ("stockade-residual/src/loaded.rs", "modules", HarmlessIn(RESIDUAL)),
    ("stockade-residual/src/filesystems.rs", "mounts", HarmlessIn(RESIDUAL)),
    ("stockade-residual/src/guarded.rs", "names of devices, which are compared", NotPrinted),
    ("stockade-residual/src/lib.rs", "which namespace this is", NotPrinted),
    ("stockade-probe/src/child.rs", "what a child of ours says", HarmlessIn(OUTPUT)),
    ("stockade-probe/src/privilege.rs", "which namespace this is", NotPrinted),
    ("stockade-assess/src/finding.rs", "what was observed, of whatever kind", Harmless),
    (
        "stockade-policy/src/load.rs",
        "a policy that is no UTF-8 text",
        HarmlessIn("stockade-policy/src/problem.rs"),
    ),
    ("stockade-policy/src/trust.rs", "links on the way to a policy", HarmlessIn(OUTPUT)),
    ("stockade-policy/src/show.rs", "paths of a policy", Harmless),
    ("stockade-policy/src/check/disk.rs", "the first line of a script", NotPrinted),
    ("stockade-policy/src/check/page.rs", "pages of the documentation", NotPrinted),
];

/// What reads such text.
const READS: &[&str] = &["from_utf8_lossy", "to_string_lossy", "read_link(", "join(\"comm\")"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of sources").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

/// Without tests, which are at the end.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("sources are text");
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned()
}

#[test]
fn every_place_where_foreign_text_is_read_makes_it_harmless() {
    for (file, what, fate) in PLACES {
        let by = match fate {
            Harmless => file,
            HarmlessIn(other) => other,
            NotPrinted => continue,
        };
        assert!(code(&root().join(by)).contains("harmless"), "{what}, read in {file}, goes through {by}");
    }
}

#[test]
fn every_file_that_reads_foreign_text_is_listed() {
    let mut files = Vec::new();
    // Checks of `assess` read everything on a machine. Whatever they find is shown by one file, which is listed.
    for name in ["", "-kernel", "-residual", "-probe", "-record", "-policy"] {
        sources(&root().join(format!("stockade{name}/src")), &mut files);
    }
    let name = |file: &PathBuf| file.strip_prefix(root()).expect("below the root").display().to_string();
    let reads = |file: &&PathBuf| READS.iter().any(|read| code(file).contains(read));
    // A model of the machine.
    let elsewhere = |file: &str| file.contains("/fake/") || file.contains("/played/");
    let forgotten: Vec<_> = files
        .iter()
        .filter(reads)
        .map(name)
        .filter(|file| !elsewhere(file) && PLACES.iter().all(|(listed, ..)| listed != file))
        .collect();
    assert!(forgotten.is_empty(), "these read foreign text, and are not listed here: {forgotten:#?}");
    let gone: Vec<_> =
        PLACES.iter().map(|(file, ..)| root().join(file)).filter(|file| !file.exists()).collect();
    assert!(gone.is_empty(), "listed and gone: {gone:?}");
}

#[test]
fn there_is_one_implementation() {
    let mut files = Vec::new();
    for name in ["", "-kernel", "-residual", "-probe", "-record", "-policy", "-assess", "-reasons"] {
        sources(&root().join(format!("stockade{name}/src")), &mut files);
    }
    let replaces = |file: &&PathBuf| {
        let code = code(file);
        code.contains("replace(char::is_control") || code.contains("if c.is_control() {")
    };
    let second: Vec<_> = files.iter().filter(replaces).collect();
    assert!(second.is_empty(), "stockade-text is where characters are replaced: {second:?}");
}
