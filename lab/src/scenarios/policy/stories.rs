//! The stories in docs/how-to, each played with the policies and commands that its page prints.
//!
//! The programs of a story are copies of the guest's init under the paths in the guide. With `--knock` a copy tries one door
//! by one system call, and its exit status is the errno.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    Cgroup, POLICY, TREE, Tool, apply, expect, lift_all, opens, run, stockade, waiting, watched, write,
};
use crate::{
    guest::Guest,
    page::{self, Block},
    scenario::{Boot, Depends, Scenario, Skip},
    scenarios::enforcement,
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "story: hibernation is kept under integrity",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: hibernation,
    },
    Scenario {
        name: "story: the MSR tool of a vendor",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: msr_tool,
    },
    Scenario {
        name: "story: a crash kernel is loaded by kdump alone",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: kdump,
    },
    Scenario {
        name: "story: bpftrace for the time of an incident",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: incident,
    },
    Scenario {
        name: "story: pods are locked tighter than their host",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: pods,
    },
    Scenario {
        name: "story: settings stay as they were set",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: settings,
    },
    Scenario {
        name: "story: a build farm loads its modules and then no more",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: farm,
    },
];

/// Includes the pages: the scenarios play the policies and commands that a page prints.
macro_rules! pages {
    ($($name:ident $file:literal)*) => {
        $(const $name: &str = include_str!(concat!("../../../../docs/how-to/", $file));)*
        #[cfg(test)]
        const PAGES: &[&str] = &[$($name),*];
    };
}

pages! {
    HIBERNATION "hibernation.md"
    MSR_TOOL "msr-tool.md"
    KDUMP "kdump.md"
    INCIDENT "incident.md"
    PODS "pods.md"
    BUILD_FARM "build-farm.md"
    SETTINGS "settings.md"
}

/// The policies and commands of a page.
struct Chapter {
    policies: Vec<String>,
    commands: Vec<Vec<String>>,
}

impl Chapter {
    /// Reads a page. Its policies are its TOML blocks; its commands are the lines of console blocks that begin with `# stockade`.
    fn read(page: &str) -> Self {
        let mut chapter = Self { policies: Vec::new(), commands: Vec::new() };
        for Block { language, text } in page::blocks(page) {
            match language.as_str() {
                "toml" => chapter.policies.push(text),
                "console" => {
                    let commands = text.lines().filter_map(|line| line.strip_prefix("# stockade "));
                    let words = |command: &str| command.split_whitespace().map(str::to_owned).collect();
                    chapter.commands.extend(commands.map(words));
                }
                _ => {}
            }
        }
        chapter
    }

    fn policy(&self, number: usize) -> Result<&str> {
        Ok(self.policies.get(number).context("the chapter has too few policies")?)
    }

    /// Returns the command of the page that begins with these words.
    fn command(&self, words: &[&str]) -> Result<Vec<&str>> {
        let command = self
            .commands
            .iter()
            .find(|command| command.iter().map(String::as_str).take(words.len()).eq(words.iter().copied()));
        Ok(command.with_context(|| format!("no command {words:?}"))?.iter().map(String::as_str).collect())
    }
}

/// Copies the guest's init to the path of a story's program.
fn program(path: &str) -> Result<Tool> {
    fs::create_dir_all(Path::new(path).parent().context("a program has a folder")?)?;
    let _ = fs::remove_file(path);
    fs::copy("/proc/self/exe", path).with_context(|| format!("make the program {path}"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(Tool(path.into()))
}

/// A program that no policy excepts.
const ANOTHER: &str = "/proc/self/exe";

/// Requires that a program that tries a door, in a cgroup if one is given, gets this errno.
fn try_door(program: &str, at: Option<&Cgroup>, door: &str, wanted: i32, who: &str) -> Result<()> {
    let mut command = Command::new(program);
    command.args(["--knock", door]);
    if let Some(cgroup) = at {
        cgroup.runs(&mut command)?;
    }
    let answer = run(&mut command)?;
    ensure!(
        answer.code == wanted,
        "{who}, at {door}: errno {}, not {wanted}\n{}{}",
        answer.code,
        answer.out,
        answer.err
    );
    Ok(())
}

/// Creates a cgroup and its missing parents. The deepest comes first, so that they are removed in this order.
fn branch(path: &str) -> Result<Vec<Cgroup>> {
    let mut made = Vec::new();
    for (end, _) in path.match_indices('/').skip(1).chain([(path.len(), "")]) {
        if !Path::new(&format!("{TREE}{}", &path[..end])).exists() {
            made.insert(0, Cgroup::new(&path[..end])?);
        }
    }
    Ok(made)
}

fn deepest(branch: &[Cgroup]) -> Result<&Cgroup> {
    branch.first().context("its cgroups were there before")
}

const MSR: &str = "write /dev/cpu/0/msr";
const KEXEC: &str = "kexec_load";
const MODULE: &str = "init_module";

fn hibernation(_: &Guest) -> Result<()> {
    lift_all()?;
    let chapter = Chapter::read(HIBERNATION);
    apply(chapter.policy(0)?)?.says("allowed by name: hibernation")?;
    stockade(&["policy", "check"])?.exits(0)?;
    enforcement::expect(|reason, integrity| integrity && reason != "hibernation")?;
    if !enforcement::doors()?.keys().any(|(reason, _)| reason == "hibernation") {
        bail!(Skip("this kernel cannot hibernate".into()));
    }
    Ok(())
}

fn msr_tool(_: &Guest) -> Result<()> {
    lift_all()?;
    let chapter = Chapter::read(MSR_TOOL);
    let path = "/opt/vendor/bin/msrtool";
    let tool = program(path)?;
    try_door(path, None, MSR, 0, "the tool with nothing in force")?;

    // The digest in the guide belongs to no file: the policy is not applied, and `policy check` reports the right digest.
    let printed = chapter.policy(0)?;
    write(printed)?;
    stockade(&["enforce"])?.exits(2)?.says("content is another")?;
    ensure!(!super::enforced()?, "a policy with a wrong digest was applied");
    let policy = printed.replace(digest(printed)?, told_digest(digest(printed)?)?.as_str());
    apply(&policy)?;
    stockade(&["policy", "check"])?.exits(0)?;

    try_door(path, None, MSR, 0, "the tool")?;
    try_door(path, None, "ioperm", libc::EPERM, "the tool for another reason")?;
    try_door(ANOTHER, None, MSR, libc::EPERM, "another program")?;
    let seen = watched()?;
    ensure!(
        seen.iter().any(|e| e["verdict"] == "excepted" && e["exception"] == "msrtool"),
        "no event of the exception's use: {seen:?}"
    );

    // One byte more: the file is still a program, but has another digest. Timestamps of file systems have a granularity of at most ten milliseconds,
    // so the change time differs after this sleep.
    sleep(Duration::from_millis(50));
    let mut content = fs::read(&tool.0)?;
    content.push(0);
    fs::write(&tool.0, content)?;
    try_door(path, None, MSR, libc::EPERM, "the tool with other content")?;
    stockade(&["enforce"])?.exits(2)?.says("content is another")?;
    try_door(path, None, MSR, libc::EPERM, "the tool with other content, after applying in vain")?;
    enforcement::expect(|_, integrity| integrity)
}

/// Returns the first SHA-256 digest in a text.
fn digest(text: &str) -> Result<&str> {
    let begin = text.find("sha256:").context("it has no digest")?;
    text.get(begin..begin + "sha256:".len() + 64).context("its digest is cut off")
}

/// Returns the digest that `policy check` reports instead of this one.
fn told_digest(wrong: &str) -> Result<String> {
    let answer = stockade(&["policy", "check", "--json"])?.exits(1)?.json()?;
    let findings = answer["findings"].as_array().context("no findings")?;
    let finding = findings.iter().find(|f| f["code"] == "SP206").context("the check believes the digest")?;
    let text = finding.to_string().replace(wrong, "");
    Ok(digest(&text)?.to_owned())
}

fn kdump(_: &Guest) -> Result<()> {
    lift_all()?;
    let chapter = Chapter::read(KDUMP);
    let path = "/usr/sbin/kexec";
    let _tool = program(path)?;
    fs::create_dir_all("/run/systemd/system")?;
    fs::write("/run/systemd/system/kdump-tools.service", "[Service]\nExecStart=/usr/sbin/kexec -p\n")?;
    apply(chapter.policy(0)?)?;
    // The cgroup is created when the service starts, after the policy was applied.
    let service = branch("/system.slice/kdump-tools.service")?;
    let service = deepest(&service)?;
    stockade(&["policy", "check"])?.exits(0)?;
    try_door(path, Some(service), KEXEC, libc::EINVAL, "kexec in the service")?;
    try_door(path, None, KEXEC, libc::EPERM, "kexec outside of the service")?;
    try_door(ANOTHER, Some(service), KEXEC, libc::EPERM, "another program in the service")?;
    try_door(path, Some(service), MODULE, libc::EPERM, "kexec in the service for another reason")?;
    enforcement::expect(|_, integrity| integrity)
}

fn incident(_: &Guest) -> Result<()> {
    const DOORS: [(&str, i32); 4] = [
        // For a helper that lockdown refuses, the verifier answers as for an unknown helper.
        ("bpf_probe_read_kernel", libc::EINVAL),
        ("perf kprobe", libc::EPERM),
        ("open tracing_on", libc::EPERM),
        ("perf registers", libc::EPERM),
    ];
    lift_all()?;
    let chapter = Chapter::read(INCIDENT);
    let path = "/usr/bin/bpftrace";
    let _tool = program(path)?;
    let session = branch("/oncall.slice/run-u1.scope")?;
    let on_call = deepest(&session)?;
    let refused = |at, program, who| {
        DOORS.iter().try_for_each(|(door, refusal)| try_door(program, at, door, *refusal, who))
    };
    apply(chapter.policy(0)?)?;
    stockade(&["policy", "check"])?.exits(0)?;
    refused(Some(on_call), path, "bpftrace before the grant")?;

    let end = waiting::within(&[15, 60], |seconds| {
        stockade(&chapter.command(&["grant", "--revoke"])?)?;
        // The printed command with a shorter time.
        let mut grant = chapter.command(&["grant", "bpf-read-kernel"])?;
        let time = grant.iter().position(|word| *word == "--for").context("a grant without a time")? + 1;
        let shorter = format!("{seconds}s");
        grant[time] = &shorter;
        stockade(&grant)?.exits(0)?;
        for (door, _) in DOORS {
            try_door(path, Some(on_call), door, 0, "bpftrace of the on-call group")?;
        }
        refused(None, path, "bpftrace of somebody else")?;
        refused(Some(on_call), ANOTHER, "another program of the on-call group")?;
        try_door(path, Some(on_call), "bpf_probe_write_user", libc::EINVAL, "what is not granted")?;
        let uses: Vec<_> = watched()?
            .into_iter()
            .filter(|e| e["verdict"] == "excepted" && e["exception"] == "incident")
            .collect();
        for reason in ["bpf-read-kernel", "kprobes", "tracefs", "perf"] {
            ensure!(uses.iter().any(|e| e["reason"] == reason), "no event of the use of {reason}: {uses:?}");
        }
        Ok(())
    })?;

    // The grant ends without a command.
    sleep(end.saturating_duration_since(Instant::now()));
    waiting::until("the grant's end", || Ok(refused(Some(on_call), path, "").is_ok()))?;
    refused(Some(on_call), path, "bpftrace after the grant")?;
    let list = chapter.command(&["grant", "--list"])?;
    stockade(&list)?.exits(1)?.says("Nothing is granted")?;

    // A grant that is revoked ends before its time.
    stockade(&chapter.command(&["grant", "bpf-read-kernel"])?)?.exits(0)?;
    stockade(&list)?.exits(0)?.says("incident")?;
    try_door(path, Some(on_call), "perf kprobe", 0, "bpftrace of the on-call group, granted once more")?;
    stockade(&chapter.command(&["grant", "--revoke"])?)?.exits(0)?;
    refused(Some(on_call), path, "bpftrace after the grant was revoked")
}

fn pods(_: &Guest) -> Result<()> {
    lift_all()?;
    let chapter = Chapter::read(PODS);
    let kcore = || opens("/bin/busybox", "/proc/kcore");
    let mem = || opens("/bin/busybox", "/dev/mem");
    // One pod runs already; the others start later.
    let old = branch("/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1.slice/cri-a.scope")?;
    apply(chapter.policy(0)?)?;
    stockade(&["policy", "check"])?.exits(0)?;
    deepest(&old)?.expect(kcore(), false)?;
    for path in [
        "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod2.slice/cri-b.scope",
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod3.slice/cri-c.scope",
        "/kubepods.slice/kubepods-pod4.slice/cri-d.scope",
    ] {
        let new = branch(path)?;
        deepest(&new)?.expect(kcore(), false)?;
        deepest(&new)?.expect(mem(), false)?;
        try_door(ANOTHER, Some(deepest(&new)?), "perf kprobe", libc::EPERM, "a new pod")?;
    }
    expect(&mut kcore(), true, "the host")?;
    try_door(ANOTHER, None, "perf kprobe", 0, "the host")?;
    expect(&mut mem(), false, "the host, at integrity")?;
    stockade(&chapter.command(&["status"])?)?.exits(0)?.says("pods (/kubepods.slice/kubepods-*.slice)")?;
    // Cgroups beside those of the pods belong to the host.
    let service = branch("/system.slice/kubelet.service")?;
    deepest(&service)?.expect(kcore(), true)?;
    Ok(())
}

fn settings(_: &Guest) -> Result<()> {
    lift_all()?;
    let chapter = Chapter::read(SETTINGS);
    let sysctl = |said: &str| run(Command::new("/bin/busybox").args(["sysctl", "-w", said]));
    let before = fs::read_to_string("/proc/sys/kernel/kptr_restrict")?;
    sysctl("kernel.kptr_restrict=1")?.exits(0)?;
    write(chapter.policy(0)?)?;
    stockade(&["policy", "check"])?.exits(0)?;
    stockade(&["enforce"])?.exits(0)?;
    let container = Cgroup::new("/container")?;
    let mut inside = Command::new("/bin/busybox");
    inside.args(["sysctl", "-w", "kernel.core_pattern=|/tmp/mine"]);
    container.runs(&mut inside)?;
    run(&mut inside)?.says("Operation not permitted")?;
    drop(container);
    sysctl("kernel.kptr_restrict=0")?.says("Operation not permitted")?;
    stockade(&chapter.command(&["watch"])?)?.exits(0)?.says("refused kernel.kptr_restrict = \"0\"")?;
    stockade(&chapter.command(&["status"])?)?.exits(0)?.says("kernel.core_pattern, kernel.modprobe")?;
    // The same value and stricter ones are accepted.
    sysctl("kernel.kptr_restrict=1")?.exits(0)?;
    sysctl("kernel.kptr_restrict=2")?.exits(0)?;
    sysctl("kernel.kptr_restrict=1")?.says("Operation not permitted")?;
    lift_all()?;
    sysctl(&format!("kernel.kptr_restrict={}", before.trim()))?.exits(0)?;
    Ok(())
}

fn farm(_: &Guest) -> Result<()> {
    lift_all()?;
    let chapter = Chapter::read(BUILD_FARM);
    let path = "/usr/bin/kmod";
    let _tool = program(path)?;
    let service = branch("/system.slice/farm-modules.service")?;
    let service = deepest(&service)?;
    // Both policies are at the paths of the guide.
    let boot = chapter.command(&["enforce", "--policy"])?;
    write(chapter.policy(1)?)?;
    fs::write(boot[2], chapter.policy(0)?)?;
    fs::set_permissions(boot[2], fs::Permissions::from_mode(0o644))?;
    let done = (|| {
        stockade(&boot)?.exits(0)?;
        stockade(&["policy", "check", "--policy", boot[2]])?.exits(0)?;
        try_door(path, Some(service), MODULE, libc::ENOEXEC, "kmod in the service while booting")?;
        try_door(path, None, MODULE, libc::EPERM, "kmod elsewhere")?;
        try_door(ANOTHER, Some(service), MODULE, libc::EPERM, "another program in the service")?;
        enforcement::expect(|_, integrity| integrity)
    })();
    fs::remove_file(boot[2])?;
    done?;

    ensure!(chapter.commands.iter().any(|command| command == &["enforce"]), "the second step is not printed");
    stockade(&["enforce"])?.exits(0)?.says("instead of the policy before")?;
    stockade(&["policy", "check"])?.exits(0)?;
    try_door(path, Some(service), MODULE, libc::EPERM, "kmod in the service once boot is done")?;
    enforcement::expect(|_, integrity| integrity)?;
    ensure!(Path::new(POLICY).exists(), "the policy of this host is gone");
    Ok(())
}

#[cfg(test)]
mod tests {
    use stockade_policy::{Source, read};

    use super::*;

    /// The scenarios read the pages too, but a guest takes longer.
    #[test]
    fn the_pages_print_policies_that_can_be_read() {
        for page in PAGES {
            let title = page.lines().next().unwrap();
            let policies = Chapter::read(page).policies;
            assert!(!policies.is_empty(), "{title} has no policy");
            for policy in policies {
                if let Err(problems) = read(&Source::new(title, policy)) {
                    panic!("{title}: {problems}");
                }
            }
        }
    }
}
