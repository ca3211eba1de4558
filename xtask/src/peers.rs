/*!
`cargo xtask peers`: how long `stockade assess` takes on this machine, beside other programs that check kernels. By the clock, so no
promise depends on it: the table goes into the specification, with the machine that was measured.
*/
use std::{
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::Args;
use stockade_lab::tool;

use crate::{bench, setup, workspace};

/// The measurement.
#[derive(Debug, Args)]
pub struct Flags {
    /// How often each is run; the median counts
    #[arg(long, value_name = "N", default_value_t = 9)]
    times: usize,
    /// The program kernel-hardening-checker, which Debian does not have; without it there is no row for it
    #[arg(long, value_name = "PATH")]
    kernel_hardening_checker: Option<String>,
    /// Print the table and write nothing
    #[arg(long)]
    dry: bool,
}

const LYNIS: setup::Packages = &["lynis"];

/// A row: its name, its command, and how often it runs compared with others.
struct Row {
    name: String,
    command: Vec<String>,
    does: String,
    /// Slow ones are run a third as often.
    slow: bool,
}

/// Measures, prints and writes.
pub fn run(flags: &Flags) -> anyhow::Result<()> {
    setup::need(&[LYNIS])?;
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--quiet", "--release", "-p", "stockade"]);
    workspace::run("the release build", &mut cargo)?;
    let stockade = workspace::target_folder().join("release/stockade").display().to_string();
    let mut table = format!(
        "Kernel {}, {} processors, as {}, by the clock.\n\n| | median | fastest | slowest | what it does |\n|---|---:|---:|---:|---|\n",
        series(&fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default()),
        std::thread::available_parallelism().map_or(0, usize::from),
        // SAFETY: geteuid takes nothing and cannot fail.
        if unsafe { libc::geteuid() } == 0 { "root" } else { "an ordinary user" },
    );
    for row in rows(&stockade, flags.kernel_hardening_checker.as_deref()) {
        let times = if row.slow { flags.times.div_ceil(3) } else { flags.times };
        let mut took = Vec::new();
        for _ in 0..times.max(1) {
            took.push(time(&row).with_context(|| format!("measuring {}", row.name))?);
        }
        took.sort();
        let seconds = |duration: Duration| format!("{:.2} s", duration.as_secs_f64());
        let line = format!(
            "| {} | {} | {} | {} | {} |\n",
            row.name,
            seconds(took[took.len() / 2]),
            seconds(took[0]),
            seconds(took[took.len() - 1]),
            row.does
        );
        print!("{line}");
        table += &line;
    }
    if !flags.dry {
        let file = workspace::root().join(bench::DOCUMENT);
        let text = fs::read_to_string(&file).with_context(|| format!("reading {}", bench::DOCUMENT))?;
        fs::write(&file, bench::replaced(&text, "peers", &table)?)
            .with_context(|| format!("writing {}", bench::DOCUMENT))?;
    }
    Ok(())
}

/// Returns the series of a kernel's release: `6.12` of `6.12.117+deb12-amd64`.
fn series(release: &str) -> String {
    let numbers: Vec<&str> = release.trim().split(['.', '-', '+']).take(2).collect();
    numbers.join(".")
}

fn rows(stockade: &str, checker: Option<&str>) -> Vec<Row> {
    let words = |command: &str| command.split(' ').map(str::to_owned).collect();
    let version = |program: &str, flag: &str| {
        let said = tool::text(tool::command(program).arg(flag)).unwrap_or_default();
        said.split_whitespace().last().unwrap_or_default().to_owned()
    };
    let count = |arguments: &[&str]| -> usize {
        let said = Command::new(stockade).args(arguments).arg("--json").output();
        said.map_or(0, |said| String::from_utf8_lossy(&said.stdout).matches("\"verdict\"").count())
    };
    let mut rows = vec![
        Row {
            name: "`stockade assess --quick`".into(),
            command: words(&format!("{stockade} assess --quick")),
            does: format!("{} findings, tried where that is harmless", count(&["assess", "--quick"])),
            slow: false,
        },
        Row {
            name: "`stockade assess`".into(),
            command: words(&format!("{stockade} assess")),
            does: "the same, and the randomness of addresses and the throughput of ciphers measured".into(),
            slow: false,
        },
    ];
    if let Some(checker) = checker {
        rows.push(Row {
            name: format!("kernel-hardening-checker {} `-a`", version(checker, "--version")),
            command: words(&format!("{checker} -a")),
            does: "reads the configuration, the command line and settings; tries nothing".into(),
            slow: false,
        });
    }
    let lynis = version("lynis", "--version");
    rows.push(Row {
        name: format!("lynis {lynis}, groups kernel and kernel_hardening"),
        command: words("lynis audit system --quick --no-colors --tests-from-group kernel,kernel_hardening"),
        does: "its checks of the kernel".into(),
        slow: true,
    });
    rows.push(Row {
        name: format!("lynis {lynis}, everything"),
        command: words("lynis audit system --quick --no-colors"),
        does: "the whole system, far beyond the kernel".into(),
        slow: true,
    });
    rows
}

fn time(row: &Row) -> anyhow::Result<Duration> {
    let (program, arguments) = row.command.split_first().context("a row has a command")?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let begin = Instant::now();
    let status = command.status().map_err(|error| tool::explain(&error, &command))?;
    let took = begin.elapsed();
    // An exit status for findings is no failure.
    ensure!(status.code().is_some(), "it was ended by a signal");
    Ok(took)
}
