/*!
docs/commands.md, made from the definitions of the commands. `STOCKADE_BLESS=1 cargo test -p stockade` writes it anew.
*/
use std::path::Path;

use clap::{Command, CommandFactory};

use crate::flags::Flags;

/// The page: for each command the text of its `--help`.
fn page() -> String {
    let mut root = Flags::command().term_width(110);
    // Gives each command the flags of those above it, and its whole name.
    root.build();
    let mut page = String::from("# Commands\n\nEvery command, as its `--help` prints it.\n");
    add(&mut page, &mut root);
    page
}

fn add(page: &mut String, command: &mut Command) {
    let name = command.get_bin_name().unwrap_or("stockade").to_owned();
    let help = command.render_long_help().to_string();
    let lines: Vec<&str> = help.trim().lines().map(str::trim_end).collect();
    page.push_str(&format!("\n## {name}\n\n```text\n{}\n```\n", lines.join("\n")));
    for below in command.get_subcommands_mut() {
        add(page, below);
    }
}

#[test]
fn docs_commands_md_says_what_help_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/commands.md");
    let page = page();
    if std::env::var_os("STOCKADE_BLESS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(there == page, "docs/commands.md is out of date: STOCKADE_BLESS=1 cargo test -p stockade");
}
