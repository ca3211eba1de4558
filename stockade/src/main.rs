/*!
The program: what an administrator types, and what the answer looks like.

One file per command; each returns an [`Exit`] and prints through [`output`]. Everything that touches
the kernel is in the crate stockade-kernel, everything known about reasons in stockade-reasons.
*/
mod build_id;
mod commands;
#[cfg(test)]
mod commands_page;
mod exit;
mod flags;
mod kernel_log;
mod manual;
mod names;
mod output;
mod requester;
mod sarif;
#[cfg(test)]
mod schema;

use std::process::ExitCode;

use clap::{Parser, error::ErrorKind};

use exit::Exit;
use flags::{Command, Flags};

fn main() -> ExitCode {
    let flags = match Flags::try_parse() {
        Ok(flags) => flags,
        Err(error) if error.kind() == ErrorKind::DisplayVersion => {
            return end(commands::version::run(json_is_asked_for()), json_is_asked_for());
        }
        Err(error) => not_understood(&error),
    };
    let json = flags.json;
    let result = match flags.command {
        Command::Enforce(f) => commands::enforce::run(&f, json),
        Command::Grant(f) => commands::grant::run(&f, json),
        Command::Lift(f) => commands::lift::run(&f, json),
        Command::Seal(f) => commands::seal::run(&f, json),
        Command::Trust(f) => commands::trust::run(&f, json),
        Command::Status => commands::status::run(json),
        Command::Probe(f) => commands::probe::run(&f, json),
        Command::Residual => commands::residual::run(json),
        Command::Assess(f) => commands::assess::run(&f, json),
        Command::Watch(f) => commands::watch::run(&f, json),
        Command::CheckHost => commands::check_host::run(json),
        Command::Policy(f) => commands::policy::run(&f, json),
        Command::SealRecord(f) => commands::seal_record::run(&f, json),
        Command::Explain(f) => commands::explain::run(&f, json),
        Command::Completions(f) => commands::documents::completions(&f),
        Command::Man(f) => commands::documents::man(&f),
    };
    end(result, json)
}

/// The exit status, and why a command could not be asked.
fn end(result: anyhow::Result<Exit>, json: bool) -> ExitCode {
    match result {
        Ok(Exit::Done) => ExitCode::SUCCESS,
        Ok(Exit::No) => ExitCode::from(1),
        Ok(Exit::Unknown) => ExitCode::from(2),
        // Whoever closed the pipe has read enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::failure(&error, json);
            ExitCode::from(2)
        }
    }
}

/// Ends with what is wrong with the command line, or with the help that was asked for.
fn not_understood(error: &clap::Error) -> ! {
    if json_is_asked_for() && error.use_stderr() {
        let words = error.render().to_string();
        let _ = output::json(&output::Failure {
            error: words.trim_start_matches("error: ").trim_end().to_owned(),
            problems: Vec::new(),
        });
    }
    error.exit()
}

/// Whether `--json` is given, where there are no flags yet; what stands behind a bare `--` is no flag.
fn json_is_asked_for() -> bool {
    std::env::args_os().skip(1).take_while(|word| word != "--").any(|word| word == "--json")
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
    })
}
