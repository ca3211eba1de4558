/*!
`cargo xtask package --check`: packages made twice have to be the same, hold what the definition lists and nothing else, satisfy the
distributions' own checkers, and enable, start, stop or lift nothing.
*/
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};
use stockade_lab::tool;

use super::{FORMATS, definition, make, names};
use crate::{dist, setup, workspace};

/// The folders that packages may write to.
const FOLDERS: [&str; 12] = [
    "/etc/apparmor.d/",
    "/etc/stockade/",
    "/usr/bin/",
    "/usr/lib/systemd/system/",
    "/usr/lib/systemd/system-preset/",
    "/usr/share/bash-completion/completions/",
    "/usr/share/doc/stockade/",
    "/usr/share/fish/vendor_completions.d/",
    "/usr/share/man/",
    "/usr/share/zsh/",
    "/usr/share/licenses/stockade/",
    "/usr/share/lintian/overrides/",
];

/// The files that belong to the administrator once they are installed.
const CONFIGURATION: [&str; 2] = ["/etc/apparmor.d/usr.bin.stockade", "/etc/stockade/policy.toml"];

/// Words that no maintainer script may have: installing and removing change nothing that is enabled, running or in force.
const FORBIDDEN: [&str; 11] = [
    "systemctl enable",
    "systemctl disable",
    "systemctl start",
    "systemctl stop",
    "systemctl restart",
    "systemctl preset",
    "deb-systemd-helper",
    "deb-systemd-invoke",
    "stockade lift",
    "stockade enforce",
    "stockade seal",
];

/// A file in a package.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    path: String,
    /// The mode, as `ls -l` shows it.
    mode: String,
    /// The owner: `user/group`.
    owner: String,
}

/// Runs all checks and prints each fault.
pub fn run() -> anyhow::Result<bool> {
    setup::need(&[setup::PACKAGE])?;
    dist::build(dist::With::Nothing)?;
    let (first, second) =
        (workspace::target_folder().join("package"), workspace::target_folder().join("package-again"));
    let version = env!("CARGO_PKG_VERSION");
    let packages = make(&FORMATS, version, &first)?;
    make(&FORMATS, version, &second)?;
    let mut problems = differences(&first, &second)?;
    let definition = definition()?;
    let path_of = |end: &str| -> anyhow::Result<&PathBuf> {
        let found = packages.iter().find(|path| path.extension().is_some_and(|e| e == end));
        found.with_context(|| format!("no .{end} was made"))
    };
    let (deb, rpm) = (path_of("deb")?, path_of("rpm")?);

    let mut content = tool::command("dpkg-deb");
    let entries = tar_entries(&tool::text(content.arg("-c").arg(deb))?)?;
    problems.extend(judge("deb", &entries, &destinations(&definition, "deb")?));
    for (format, end) in [("apk", "apk"), ("archlinux", "zst")] {
        let mut tar = tool::command("tar");
        let entries = tar_entries(&tool::text(tar.arg("-tvf").arg(path_of(end)?))?)?;
        problems.extend(judge(format, &entries, &destinations(&definition, format)?));
    }
    let files = |flag: &str| -> anyhow::Result<Vec<String>> {
        let mut command = tool::command("rpm");
        let text = tool::text(command.arg(flag).arg(rpm))?;
        Ok(text.lines().filter(|line| line.starts_with('/')).map(str::to_owned).collect())
    };
    let mut query = tool::command("rpm");
    query
        .args(["-qp", "--qf", "[%{FILEMODES:perms} %{FILEUSERNAME}/%{FILEGROUPNAME} %{FILENAMES}\n]"])
        .arg(rpm);
    let entries = rpm_entries(&tool::text(&mut query)?)?;
    problems.extend(judge("rpm", &entries, &destinations(&definition, "rpm")?));

    let conffiles = tool::text(tool::command("dpkg-deb").args(["-I"]).arg(deb).arg("conffiles"))?;
    problems.extend(configuration("deb", conffiles.lines().map(str::to_owned).collect()));
    problems.extend(configuration("rpm", files("-qpc")?));
    problems.extend(presets()?);
    problems.extend(scripts()?);

    for problem in &problems {
        println!("not right: {problem}");
    }
    // As root, lintian and rpmlint only warn about that; neither runs anything of the package.
    let mut lintian = tool::command("lintian");
    lintian.args(["--allow-root", "--fail-on", "error,warning", "--no-tag-display-limit"]).arg(deb);
    let mut rpmlint = tool::command("rpmlint");
    rpmlint.arg("--strict").arg("--config").arg(workspace::root().join("packaging/rpmlint.toml")).arg(rpm);
    let mut shellcheck = tool::command("shellcheck");
    shellcheck.args(script_files()?);
    let mut right = problems.is_empty();
    for command in [&mut lintian, &mut rpmlint, &mut shellcheck] {
        right &= satisfied(command)?;
    }
    println!(
        "packages: {}",
        if right { "as they should be, and the same twice" } else { "NOT as they should be" }
    );
    Ok(right)
}

/// Returns whether a checker finds no fault; its output is shown otherwise.
fn satisfied(command: &mut Command) -> anyhow::Result<bool> {
    let output = tool::finish(command)?;
    if !output.status.success() {
        println!("{} objects:", command.get_program().to_string_lossy());
        print!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.status.success())
}

/// Returns the files that differ between two folders.
fn differences(first: &Path, second: &Path) -> anyhow::Result<Vec<String>> {
    let all: BTreeSet<String> = names(first)?.into_iter().chain(names(second)?).collect();
    let mut problems = Vec::new();
    for name in all {
        let read = |folder: &Path| fs::read(folder.join(&name)).ok();
        if read(first).is_none() || read(first) != read(second) {
            problems.push(format!("{name} is not the same when it is made twice"));
        }
    }
    Ok(problems)
}

/// Returns the paths at which the definition installs a file in this format. One entry is one line; `dst` that ends in a slash is a folder.
fn destinations(definition: &str, format: &str) -> anyhow::Result<Vec<String>> {
    let mut list = Vec::new();
    for line in definition.lines().filter(|line| line.trim_start().starts_with("- {src:")) {
        let field = |name: &str| {
            let value = line.split_once(&format!("{name}: "))?.1;
            Some(value[..value.find([',', '}']).unwrap_or(value.len())].to_owned())
        };
        if field("packager").is_none_or(|only| only == format) {
            list.push(field("dst").with_context(|| format!("an entry without dst in nfpm.yaml: {line}"))?);
        }
    }
    Ok(list)
}

/// Reads `dpkg-deb -c` or `tar -tv`. Files in the uppermost folder that begin with a dot describe the package; they are not installed.
fn tar_entries(text: &str) -> anyhow::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [mode, owner, _, _, _, path] = words.as_slice() else {
            bail!("the list of a package's files has the line: {line}")
        };
        let path = path.strip_prefix("./").unwrap_or(path);
        if !path.starts_with('.') {
            let owner = if *owner == "0/0" { "root/root" } else { owner };
            entries.push(Entry { path: format!("/{path}"), mode: (*mode).into(), owner: owner.into() });
        }
    }
    Ok(entries)
}

/// Reads the output of `rpm -qp` in the form of the query in [`run`].
fn rpm_entries(text: &str) -> anyhow::Result<Vec<Entry>> {
    let entry = |line: &str| -> anyhow::Result<Entry> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [mode, owner, path] = words.as_slice() else { bail!("rpm -qp printed: {line}") };
        Ok(Entry { path: (*path).into(), mode: (*mode).into(), owner: (*owner).into() })
    };
    text.lines().map(entry).collect()
}

/// Describes each fault of a package's files.
fn judge(format: &str, entries: &[Entry], destinations: &[String]) -> Vec<String> {
    let mut problems = Vec::new();
    for Entry { path, mode, owner } in entries {
        if owner != "root/root" {
            problems.push(format!("{format}: {path} belongs to {owner}, not to root/root"));
        }
        let folder = mode.starts_with('d');
        let right = match path.as_str() {
            _ if folder => "drwxr-xr-x",
            "/usr/bin/stockade" => "-rwxr-xr-x",
            _ => "-rw-r--r--",
        };
        if mode != right {
            problems.push(format!("{format}: {path} has mode {mode}, not {right}"));
        }
        if !folder && !FOLDERS.iter().any(|allowed| path.starts_with(allowed)) {
            problems.push(format!("{format}: {path} lies outside of the package's folders"));
        }
        let defined = |to: &String| path == to || to.ends_with('/') && path.starts_with(to.as_str());
        if !folder && !destinations.iter().any(defined) {
            problems.push(format!("{format}: {path} is not in the definition"));
        }
    }
    for to in destinations {
        let there = |e: &Entry| {
            !e.mode.starts_with('d')
                && (e.path == *to || to.ends_with('/') && e.path.starts_with(to.as_str()))
        };
        if !entries.iter().any(there) {
            problems.push(format!("{format}: nothing is installed to {to}"));
        }
    }
    problems
}

fn configuration(format: &str, mut files: Vec<String>) -> Option<String> {
    files.sort();
    (files != CONFIGURATION)
        .then(|| format!("{format}: configuration files are {files:?}, not {CONFIGURATION:?}"))
}

/// Returns the units that could be enabled and that the preset does not keep disabled.
fn presets() -> anyhow::Result<Vec<String>> {
    let folder = workspace::root().join("packaging/systemd");
    let preset = workspace::root().join("packaging/systemd-preset/80-stockade.preset");
    let preset = fs::read_to_string(&preset).with_context(|| format!("reading {}", preset.display()))?;
    let mut problems = Vec::new();
    for name in names(&folder)? {
        let unit = fs::read_to_string(folder.join(&name)).with_context(|| format!("reading {name}"))?;
        let installable = unit.lines().any(|line| line == "[Install]");
        if installable && !preset.lines().any(|line| line == format!("disable {name}")) {
            problems.push(format!("{name} can be enabled, and the preset has no `disable {name}`"));
        }
    }
    if preset.lines().any(|line| line.starts_with("enable")) {
        problems.push("the preset enables something".into());
    }
    Ok(problems)
}

fn script_files() -> anyhow::Result<Vec<PathBuf>> {
    let folder = workspace::root().join("packaging/scripts");
    Ok(names(&folder)?.into_iter().map(|name| folder.join(name)).collect())
}

fn scripts() -> anyhow::Result<Vec<String>> {
    let mut problems = Vec::new();
    for file in script_files()? {
        let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        problems.extend(forbidden(&text).into_iter().map(|line| format!("{}: {line}", file.display())));
    }
    Ok(problems)
}

/// Returns the lines of a script that change which units are enabled or running, or the policy in force. Comments and printed text may mention it.
fn forbidden(script: &str) -> Vec<&str> {
    let code = |line: &&str| {
        let line = line.trim_start();
        !line.starts_with('#') && !line.starts_with("echo ")
    };
    // Flags between the words change nothing.
    let words = |line: &str| {
        line.split_whitespace().filter(|word| !word.starts_with('-')).collect::<Vec<_>>().join(" ")
    };
    script.lines().filter(code).filter(|line| FORBIDDEN.iter().any(|bad| words(line).contains(bad))).collect()
}

#[cfg(test)]
mod tests {
    use stockade_lab::tool;

    use super::{
        Entry, configuration, destinations, forbidden, judge, presets, rpm_entries, satisfied, scripts,
        tar_entries,
    };

    const DEFINITION: &str = "contents:\n  - {src: a, dst: /usr/bin/stockade, file_info: {mode: 0755}}\n  - {src: \"b/*\", dst: /usr/share/man/man1/}\n  \
                              - {src: c, dst: /usr/share/doc/stockade/c, packager: rpm}\n";

    fn entry(path: &str, mode: &str) -> Entry {
        Entry { path: path.into(), mode: mode.into(), owner: "root/root".into() }
    }

    #[test]
    fn destinations_are_those_of_the_format() {
        assert_eq!(destinations(DEFINITION, "deb").unwrap(), ["/usr/bin/stockade", "/usr/share/man/man1/"]);
        assert_eq!(destinations(DEFINITION, "rpm").unwrap().len(), 3);
        assert!(destinations("  - {src: a}", "deb").is_err());
    }

    #[test]
    fn listings_are_read() {
        let deb = "drwxr-xr-x root/root         0 2026-11-28 01:20 ./usr/\n-rw-r--r-- root/root       369 2026-11-28 01:20 ./usr/a\n";
        let arch =
            "-rw-r--r-- 0/0   9 2026-11-28 01:20 .PKGINFO\n-rw-r--r-- 0/0  369 2026-11-28 01:20 usr/a\n";
        assert_eq!(tar_entries(arch).unwrap(), [entry("/usr/a", "-rw-r--r--")]);
        assert_eq!(tar_entries(deb).unwrap(), [entry("/usr/", "drwxr-xr-x"), entry("/usr/a", "-rw-r--r--")]);
        assert_eq!(rpm_entries("-rw-r--r-- root/root /usr/a\n").unwrap(), [entry("/usr/a", "-rw-r--r--")]);
        assert!(tar_entries("total 3").is_err() && rpm_entries("(none)").is_err());
    }

    #[test]
    fn a_package_that_is_not_as_defined_is_noticed() {
        let to = destinations(DEFINITION, "deb").unwrap();
        let right = || {
            vec![entry("/usr/bin/stockade", "-rwxr-xr-x"), entry("/usr/share/man/man1/a.1.gz", "-rw-r--r--")]
        };
        assert_eq!(judge("deb", &right(), &to), Vec::<String>::new());
        for (more, problem) in [
            (entry("/usr/share/man/man1/b.1.gz", "-rwsr-xr-x"), "has mode"),
            (entry("/usr/share/man/man5/b.5.gz", "-rw-r--r--"), "not in the definition"),
            (entry("/opt/b", "-rw-r--r--"), "outside"),
            (entry("/usr/", "drwxrwxr-x"), "has mode"),
            (Entry { owner: "1000/1000".into(), ..entry("/usr/", "drwxr-xr-x") }, "belongs to"),
        ] {
            let mut entries = right();
            entries.push(more);
            let problems = judge("deb", &entries, &to);
            assert!(problems.iter().any(|p| p.contains(problem)), "{problem}: {problems:?}");
        }
        assert!(judge("deb", &right()[..1], &to)[0].contains("nothing is installed to /usr/share/man/man1/"));
        assert!(configuration("deb", vec!["/etc/stockade/policy.toml".into()]).is_some());
    }

    #[test]
    fn a_checker_that_objects_is_noticed() {
        assert!(satisfied(&mut tool::command("true")).unwrap());
        assert!(!satisfied(&mut tool::command("false")).unwrap());
        assert!(satisfied(&mut tool::command("no-such-checker")).is_err());
    }

    #[test]
    fn the_preset_keeps_every_unit_disabled() {
        assert_eq!(presets().unwrap(), Vec::<String>::new());
    }

    #[test]
    fn maintainer_scripts_read_fields_that_status_prints() {
        let schema = std::fs::read(crate::workspace::root().join("docs/schema/status.json")).unwrap();
        let schema: serde_json::Value = serde_json::from_slice(&schema).unwrap();
        let in_force = &schema["$defs"]["InForce"]["properties"];
        assert_eq!(in_force["level"]["type"], "string");
        assert!(in_force["sealed"]["anyOf"].as_array().unwrap().iter().any(|kind| kind["type"] == "null"));
    }

    /// Returns the output of a maintainer script while `stockade status --json` prints this and ends with this exit status.
    fn printed(script: &str, argument: &str, status: &str, code: u8) -> String {
        use std::os::unix::fs::PermissionsExt;
        let folder =
            std::env::temp_dir().join(format!("stockade-script-{}-{script}-{code}", std::process::id()));
        std::fs::create_dir_all(folder.join("bin")).unwrap();
        let program = |name: &str, text: &str| {
            let path = folder.join("bin").join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        program("stockade", &format!("cat <<'E'\n{status}\nE\nexit {code}"));
        program("systemctl", "exit 1");
        let text =
            std::fs::read_to_string(crate::workspace::root().join("packaging/scripts").join(script)).unwrap();
        // A machine that systemd has booted has this folder.
        let text = text.replace("/run/systemd/system", folder.to_str().unwrap());
        let path = std::env::var("PATH").unwrap();
        let output = tool::command("sh")
            .args(["-c", &text, script, argument])
            .env("PATH", format!("{}:{path}", folder.join("bin").display()))
            .output()
            .unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn maintainer_scripts_say_what_stays_whatever_the_exit_status_of_status() {
        const SEALED: &str =
            "{\n  \"stockade\": {\n    \"level\": \"integrity\",\n    \"sealed\": {}\n  }\n}";
        const UNSEALED: &str =
            "{\n  \"stockade\": {\n    \"level\": \"integrity\",\n    \"sealed\": null\n  }\n}";
        for (script, argument) in [("postinst.sh", "configure"), ("prerm.sh", "remove")] {
            for code in [0, 1, 2] {
                let sealed = printed(script, argument, SEALED, code);
                assert!(
                    sealed.contains("sealed") && sealed.contains("until the next boot"),
                    "{script} {code}: {sealed}"
                );
                let unsealed = printed(script, argument, UNSEALED, code);
                assert!(
                    unsealed.contains("in force") && !unsealed.contains("sealed"),
                    "{script} {code}: {unsealed}"
                );
            }
            let other = printed(
                script,
                argument,
                "stockade: this machine is sealed, by another version of Stockade",
                2,
            );
            assert!(other.contains("sealed") && other.contains("until the next boot"), "{script}: {other}");
            assert_eq!(printed(script, argument, "{\n  \"stockade\": null\n}", 1), "", "{script}");
        }
    }

    #[test]
    fn no_maintainer_script_changes_anything_in_force() {
        assert_eq!(scripts().unwrap(), Vec::<String>::new());
        let script = "# systemctl stop x\necho \"run stockade lift\"\nsystemctl --system daemon-reload\nsystemctl --now disable stockade.service\n/usr/bin/stockade lift\n";
        assert_eq!(forbidden(script), ["systemctl --now disable stockade.service", "/usr/bin/stockade lift"]);
    }
}
