/*!
The one entry for developers: `cargo xtask --help`. One file per command.
*/
mod bench;
mod bpf;
mod browser;
mod check;
mod demo;
mod dist;
mod docs;
mod fuzz;
mod html;
mod lab;
#[cfg(test)]
mod layers;
mod package;
mod peers;
mod programs;
mod setup;
mod systems;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Work on Stockade.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Flags {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install what the other commands need (each sees to its own needs by itself)
    Setup,
    /// Compile the programs that run in the kernel
    Bpf(bpf::Flags),
    /// Play the scenarios in throw-away guests
    Lab(lab::Flags),
    /// Play the package in whole Debian systems
    Systems(systems::Flags),
    /// Show Stockade in a throw-away guest
    Demo(demo::Flags),
    /// Everything that decides whether a change may land; the last line counts
    Test(test::Flags),
    /// Format, clippy and unit tests of the crates that changed, in under a minute; also as a pre-commit hook
    Check(check::Flags),
    /// Count the instructions of decisions in an emulated guest
    Bench(bench::Flags),
    /// Time `stockade assess` on this machine, beside other programs that check kernels
    Peers(peers::Flags),
    /// Fuzz the readers of policies, BTF, event logs, EFI signature lists and netlink answers
    Fuzz(fuzz::Flags),
    /// Hold the page of `assess --html` against a real browser
    Html(html::Flags),
    /// Check every link of the documentation and build the book of it, target/book
    Docs,
    /// Make packages for distributions: .deb, .rpm, .apk and Arch's
    Package(package::Flags),
    /// Build the release program, check it and place it in target/dist
    Dist(dist::Flags),
}

fn main() -> ExitCode {
    let result = match Flags::parse().command {
        Command::Setup => setup::run().map(|()| true),
        Command::Bpf(flags) => bpf::run(&flags),
        Command::Lab(flags) => lab::run(&flags),
        Command::Systems(flags) => systems::run(&flags),
        Command::Demo(flags) => demo::run(&flags).map(|()| true),
        Command::Test(flags) => test::run(&flags),
        Command::Check(flags) => check::run(&flags),
        Command::Bench(flags) => bench::run(&flags),
        Command::Peers(flags) => peers::run(&flags).map(|()| true),
        Command::Fuzz(flags) => fuzz::run(&flags),
        Command::Html(flags) => html::run(&flags),
        Command::Docs => docs::run(),
        Command::Package(flags) => package::run(&flags),
        Command::Dist(flags) => dist::run(&flags),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(2)
        }
    }
}
