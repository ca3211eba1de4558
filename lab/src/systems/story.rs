/*!
The story that every system plays, in steps. Each step starts from the state that the steps before it left.

```text
boot 1   install by apt
boot 2   enforced at boot ─ units beside it ─ upgrade by apt ─ soft-reboot ─ seal ─ systemd and the package by apt while sealed
boot 3   systemd.mask=
```
*/
use anyhow::{Context, bail, ensure};

use super::{Release, packages::Repository, system::System};

/// The state that steps share.
pub(super) struct Story<'a> {
    pub system: System<'a>,
    pub packages: &'a Repository,
    /// Errors in the journal that the system has without the package.
    known_errors: Vec<String>,
}

/// A step of the story.
pub(super) struct Step {
    /// A sentence that is true when it passes.
    pub name: &'static str,
    /// Whether later steps need the state that it leaves.
    pub is_setup: bool,
    /// Why it is skipped on this release, if it is.
    pub skipped_on: fn(Release) -> Option<&'static str>,
    /// Plays it, and returns a detail for its line, or an empty text.
    pub play: fn(&mut Story<'_>) -> anyhow::Result<String>,
}

const STEP: Step = Step { name: "", is_setup: false, skipped_on: |_| None, play: |_| Ok(String::new()) };

const NO_BPF: &str = "its systemd is built without BPF_FRAMEWORK, so RestrictFileSystems= does nothing";

pub(super) const STEPS: &[Step] = &[
    Step {
        name: "apt installs the package, and nothing is enabled or in force",
        is_setup: true,
        play: install,
        ..STEP
    },
    Step {
        name: "once enabled, the policy is enforced at boot, and no unit fails",
        is_setup: true,
        play: enable,
        ..STEP
    },
    Step {
        name: "the journal has no error that the system does not have without the package",
        play: journal,
        ..STEP
    },
    Step {
        name: "the time that the unit adds to the boot is told by systemd-analyze",
        play: boot_time,
        ..STEP
    },
    Step {
        name: "a scope and an exception hold for instances of a template that did not run",
        play: template,
        ..STEP
    },
    Step { name: "the policy stays in force when systemd executes itself anew", play: reexec, ..STEP },
    Step {
        name: "RestrictFileSystems= of a unit works beside the policy",
        skipped_on: |release| (!release.systemd_uses_bpf).then_some(NO_BPF),
        play: restrict_file_systems,
        ..STEP
    },
    Step { name: "IPAddressDeny= of a unit works beside the policy", play: address_deny, ..STEP },
    Step { name: "DynamicUser= of a unit works beside the policy", play: dynamic_user, ..STEP },
    Step { name: "check-host says that this system can enforce", play: check_host, ..STEP },
    Step { name: "assess --quick comes to its end", play: assess, ..STEP },
    Step { name: "apt upgrades the package while the policy is in force", play: upgrade, ..STEP },
    Step {
        name: "the policy stays in force over a soft-reboot",
        skipped_on: |release| (!release.soft_reboot).then_some("its systemd has no soft-reboot"),
        play: soft_reboot,
        ..STEP
    },
    Step { name: "AppArmor confines the program and denied it nothing", play: apparmor, ..STEP },
    Step { name: "stockade-seal.service seals beside the system's own systemd", play: seal, ..STEP },
    Step { name: "while sealed, apt installs systemd again, and both go on", play: sealed_systemd, ..STEP },
    Step {
        name: "while sealed, apt installs, removes and purges the package, and nothing in force changes",
        play: sealed_package,
        ..STEP
    },
    Step { name: "a boot with systemd.mask=stockade.service has no policy in force", play: mask, ..STEP },
];

const POLICY: &str = r#"cat > /etc/stockade/policy.toml <<'END'
level = "integrity"

[[scope]]
name = "agent"
unit = "my-agent@a.service"
level = "confidentiality"

[[exception]]
name = "tool"
reasons = ["dev-mem"]
unit = "my-agent@b.service"
END
cat > /etc/systemd/system/my-agent@.service <<'END'
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'for f in /proc/kcore /dev/mem; do if dd if=$$f of=/dev/null bs=64 count=1 2>/dev/null; then echo $$f opened; else echo $$f refused; fi; done'
END
systemctl daemon-reload"#;

impl<'a> Story<'a> {
    pub(super) fn new(system: System<'a>, packages: &'a Repository) -> Self {
        Self { system, packages, known_errors: Vec::new() }
    }

    /// Waits until the boot has finished. Fails if a unit failed.
    fn finished(&mut self) -> anyhow::Result<()> {
        let state = self.system.run("systemctl is-system-running --wait")?;
        self.no_unit_failed()?;
        ensure!(state.text.trim() == "running", "systemctl is-system-running said {state}");
        Ok(())
    }

    /// Fails unless the policy of this story is in force.
    fn in_force(&mut self) -> anyhow::Result<()> {
        let status = self.system.run("stockade status")?;
        ensure!(
            status.status == 0
                && status.text.contains("integrity, enforced")
                && status.text.contains("my-agent@a.service"),
            "stockade status ended with {status}"
        );
        // The status alone is not enough: the kernel has to refuse.
        let opened = self.system.run("dd if=/dev/mem of=/dev/null bs=64 count=1")?;
        ensure!(opened.text.contains("Operation not permitted"), "reading /dev/mem ended with {opened}");
        self.nothing_denied()
    }

    /// Fails if AppArmor has denied anything to stockade since the boot.
    fn nothing_denied(&mut self) -> anyhow::Result<()> {
        let denied = self.system.run(
            "journalctl --sync; journalctl -b -k -o cat --no-pager -q | grep 'apparmor=\"DENIED\"' | grep 'profile=\"stockade\"'",
        )?;
        ensure!(denied.text.trim().is_empty(), "AppArmor denied:\n{}", denied.text);
        Ok(())
    }

    /// Seals integrity by the unit, unless this boot is sealed already.
    fn seal(&mut self) -> anyhow::Result<()> {
        let status = self.system.run("stockade status")?;
        if status.text.lines().any(is_sealed) {
            return Ok(());
        }
        // A policy with scopes needs --best-effort, since no cgroup can hold the programs that place new cgroups.
        self.system.must(
            "echo 'level = \"integrity\"' >/etc/stockade/policy.toml && systemctl reload stockade.service",
        )?;
        let started = self.system.run("systemctl start stockade-seal.service")?;
        let said = self
            .system
            .must("journalctl --sync; journalctl -b -u stockade-seal.service -o cat --no-pager -q")?;
        ensure!(started.status == 0, "stockade-seal.service failed:\n{said}");
        self.is_sealed("stockade")
    }

    /// Fails unless this program verifies the seal, and the kernel refuses to read /dev/mem.
    fn is_sealed(&mut self, program: &str) -> anyhow::Result<()> {
        let status = self.system.run(&format!("{program} status"))?;
        let verified = status.status == 0 && status.text.lines().any(is_sealed);
        ensure!(verified, "{program} status ended with {status}");
        let opened = self.system.run("dd if=/dev/mem of=/dev/null bs=64 count=1")?;
        ensure!(opened.text.contains("Operation not permitted"), "reading /dev/mem ended with {opened}");
        Ok(())
    }

    fn no_unit_failed(&mut self) -> anyhow::Result<()> {
        let failed = self.system.must("systemctl --failed --no-legend --plain --no-pager")?;
        ensure!(failed.trim().is_empty(), "units failed:\n{failed}");
        Ok(())
    }

    /// Fails unless systemd restricts the file systems of a unit, on releases whose systemd can.
    fn restricts_file_systems(&mut self) -> anyhow::Result<()> {
        if self.system.run("systemctl --version | grep -q +BPF_FRAMEWORK")?.status == 0 {
            differs(self, "RestrictFileSystems=~tracefs", "head -c1 /sys/kernel/tracing/README >/dev/null")?;
        }
        Ok(())
    }

    fn errors(&mut self) -> anyhow::Result<Vec<String>> {
        let text = self.system.must("journalctl --sync; journalctl -b -p err -o cat --no-pager -q")?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    fn times(&mut self, show: &str) -> anyhow::Result<Vec<u64>> {
        let text = self.system.must(show)?;
        let values = text.lines().filter_map(|line| line.split_once('='));
        values
            .map(|(_, value)| value.trim().parse().with_context(|| format!("`{show}` printed {text}")))
            .collect()
    }
}

/// Installs the package by apt, from the disk with the repository.
pub(super) fn install_package(system: &mut System<'_>) -> anyhow::Result<()> {
    system.must(
        "mount -o ro /dev/vdb /srv/packages && rm -f /etc/apt/sources.list /etc/apt/sources.list.d/* && \
         echo 'deb [trusted=yes] file:/srv/packages/old ./' > /etc/apt/sources.list.d/lab.list && apt-get update",
    )?;
    system.must("DEBIAN_FRONTEND=noninteractive apt-get install -y stockade").map(drop)
}

fn install(story: &mut Story<'_>) -> anyhow::Result<String> {
    story.system.boot("")?;
    story.finished()?;
    story.known_errors = story.errors()?;
    install_package(&mut story.system)?;
    let system = &mut story.system;
    let version = system.must("dpkg-query -W -f '${Version}' stockade")?;
    ensure!(version.trim() == story.packages.version, "dpkg-query says that {version} is installed");
    let enabled = system.run("systemctl is-enabled stockade.service stockade-seal.service")?;
    ensure!(enabled.text == "disabled\ndisabled\n", "systemctl is-enabled ended with {enabled}");
    let status = system.run("stockade status")?;
    ensure!(status.status == 1, "stockade status ended with {status}");
    Ok(version.trim().to_owned())
}

fn enable(story: &mut Story<'_>) -> anyhow::Result<String> {
    story.system.must(POLICY)?;
    story.system.must("stockade policy check --strict || test $? = 1")?;
    story.system.must("systemctl enable stockade.service")?;
    story.system.reboot("")?;
    story.finished()?;
    story.in_force()?;
    let kernel = story.system.must("uname -r")?;
    Ok(kernel.trim().to_owned())
}

fn journal(story: &mut Story<'_>) -> anyhow::Result<String> {
    let errors = story.errors()?;
    let new: Vec<_> = errors.iter().filter(|line| !story.known_errors.contains(line)).collect();
    ensure!(new.is_empty(), "new errors in the journal: {new:#?}");
    let units = "journalctl -b -u stockade.service -p warning -o cat --no-pager -q";
    let warnings = story.system.must(units)?;
    ensure!(warnings.trim().is_empty(), "stockade.service warns: {warnings}");
    Ok(String::new())
}

fn boot_time(story: &mut Story<'_>) -> anyhow::Result<String> {
    let unit =
        "systemctl show stockade.service -p InactiveExitTimestampMonotonic -p ActiveEnterTimestampMonotonic";
    let times = story.times(unit)?;
    let [a, b] = times[..] else { bail!("`{unit}` printed {} times", times.len()) };
    ensure!(a > 0 && b > 0 && a != b, "`{unit}` says that it did not run at this boot");
    let chain = story.system.must("systemd-analyze critical-chain --no-pager sysinit.target")?;
    let critical = if chain.contains("stockade.service") { "on" } else { "beside" };
    Ok(format!(
        "stockade.service {} ms, {critical} the critical chain of sysinit.target; 1 ms is a million instructions",
        a.abs_diff(b) / 1000
    ))
}

fn template(story: &mut Story<'_>) -> anyhow::Result<String> {
    let system = &mut story.system;
    for (instance, kcore, mem) in
        [("a", "refused", "refused"), ("b", "opened", "opened"), ("c", "opened", "refused")]
    {
        let unit = format!("my-agent@{instance}.service");
        system.must(&format!("systemctl start {unit}"))?;
        let said = system.must(&format!(
            "journalctl --sync; journalctl -b -u {unit} -o cat --no-pager -q | grep -E '^/(proc|dev)/'"
        ))?;
        let right = format!("/proc/kcore {kcore}\n/dev/mem {mem}\n");
        ensure!(said == right, "in {unit}: {said}instead of {right}");
    }
    Ok(String::new())
}

fn reexec(story: &mut Story<'_>) -> anyhow::Result<String> {
    story.system.must("systemctl daemon-reexec")?;
    story.finished()?;
    story.in_force()?;
    Ok(String::new())
}

/// Runs a command in a unit without a setting, where it has to succeed, and in a unit with it, where it has to fail.
fn differs(story: &mut Story<'_>, setting: &str, command: &str) -> anyhow::Result<()> {
    let run = |more: &str| format!("systemd-run --quiet --collect --wait --pipe {more} sh -c '{command}'");
    story.system.must(&run(""))?;
    let with = story.system.run(&run(&format!("-p {setting}")))?;
    ensure!(with.status != 0, "with {setting}, `{command}` works all the same: {with}");
    Ok(())
}

fn restrict_file_systems(story: &mut Story<'_>) -> anyhow::Result<String> {
    differs(story, "RestrictFileSystems=~tracefs", "head -c1 /sys/kernel/tracing/README >/dev/null")?;
    story.in_force()?;
    Ok(String::new())
}

fn address_deny(story: &mut Story<'_>) -> anyhow::Result<String> {
    differs(story, "IPAddressDeny=any", "ping -c1 -W1 127.0.0.1")?;
    story.in_force()?;
    Ok(String::new())
}

fn dynamic_user(story: &mut Story<'_>) -> anyhow::Result<String> {
    let text = story
        .system
        .must("systemd-run --quiet --collect --wait --pipe -p DynamicUser=yes -p StateDirectory=lab id -u")?;
    let uid: u32 = text.trim().parse().with_context(|| format!("id -u printed {text}"))?;
    ensure!((61184..=65519).contains(&uid), "the unit ran as {uid}, which is no dynamic user");
    Ok(String::new())
}

fn check_host(story: &mut Story<'_>) -> anyhow::Result<String> {
    story.system.must("stockade check-host")?;
    Ok(String::new())
}

fn assess(story: &mut Story<'_>) -> anyhow::Result<String> {
    let answer = story.system.run("aa-exec -p unconfined -- stockade assess --quick")?;
    ensure!(matches!(answer.status, 0 | 1), "stockade assess ended with {answer}");
    let last = answer.text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    ensure!(last.contains("stockade explain"), "stockade assess ended early, with {answer}");
    Ok(String::new())
}

fn upgrade(story: &mut Story<'_>) -> anyhow::Result<String> {
    let system = &mut story.system;
    // The mount was made by hand, and a reboot removes it.
    system.must(
        "mountpoint -q /srv/packages || mount -o ro /dev/vdb /srv/packages; sed -i s/old/new/ /etc/apt/sources.list.d/lab.list && \
         apt-get update && DEBIAN_FRONTEND=noninteractive apt-get upgrade -y",
    )?;
    let version = system.must("dpkg-query -W -f '${Version}' stockade")?;
    ensure!(version.trim() == story.packages.newer, "dpkg-query says that {version} is installed");
    let enabled = system.run("systemctl is-enabled stockade.service stockade-seal.service")?;
    ensure!(enabled.text == "enabled\ndisabled\n", "systemctl is-enabled ended with {enabled}");
    story.finished()?;
    story.in_force()?;
    story.system.must("systemctl reload stockade.service")?;
    story.in_force()?;
    Ok(version.trim().to_owned())
}

fn soft_reboot(story: &mut Story<'_>) -> anyhow::Result<String> {
    story.system.soft_reboot()?;
    let boots = story.system.boots();
    let [.., before, after] = boots else { bail!("the agent greeted only once") };
    ensure!(before == after, "the kernel was booted anew: {before}, {after}");
    story.finished()?;
    story.in_force()?;
    Ok(String::new())
}

fn apparmor(story: &mut Story<'_>) -> anyhow::Result<String> {
    let profiles = story.system.must("grep '^stockade ' /sys/kernel/security/apparmor/profiles")?;
    ensure!(profiles == "stockade (enforce)\n", "AppArmor has {profiles}");
    // The program's own finding, from its AppArmor label.
    let confined = story.system.run("stockade assess --quick")?;
    ensure!(
        confined.text.contains("profile stockade confines"),
        "stockade assess --quick ended with {confined}"
    );
    story.nothing_denied()?;
    Ok(String::new())
}

fn seal(story: &mut Story<'_>) -> anyhow::Result<String> {
    story.seal()?;
    let lifted = story.system.run("stockade lift")?;
    ensure!(lifted.status != 0, "stockade lift ended with {lifted}");
    // systemd's own BPF program restricts file systems, also after systemd has loaded it again.
    story.restricts_file_systems()?;
    story.system.must("systemctl daemon-reexec")?;
    story.restricts_file_systems()?;
    story.no_unit_failed()?;
    Ok(String::new())
}

fn sealed_systemd(story: &mut Story<'_>) -> anyhow::Result<String> {
    story.seal()?;
    let system = &mut story.system;
    let version = "dpkg-query -W -f '${Version}' systemd";
    let before = system.must(version)?;
    let said = system
        .must("DEBIAN_FRONTEND=noninteractive apt-get install --reinstall -y /srv/archive/systemd_*.deb")?;
    ensure!(said.contains("Setting up systemd ("), "apt-get did not install systemd again: {said}");
    let state = system.must("dpkg-query -W -f '${Status}' systemd")?;
    let after = system.must(version)?;
    ensure!(state == "install ok installed\n" || state == "install ok installed", "systemd is {state}");
    ensure!(before == after, "systemd was {before} and is {after}");
    story.restricts_file_systems()?;
    story.no_unit_failed()?;
    story.is_sealed("stockade")?;
    Ok(format!("systemd {}", after.trim()))
}

/// The path of a copy of the program that removing the package does not remove.
const COPY: &str = "/root/stockade-copy";

fn sealed_package(story: &mut Story<'_>) -> anyhow::Result<String> {
    story.seal()?;
    let system = &mut story.system;
    system.must(&format!(
        "cp /usr/bin/stockade {COPY}; mountpoint -q /srv/packages || mount -o ro /dev/vdb /srv/packages; apt-get update"
    ))?;
    let apt = |what: &str| format!("DEBIAN_FRONTEND=noninteractive apt-get {what} stockade");
    let stays = "stays in force until the next boot";
    for (what, says) in [
        ("install --reinstall -y", Some(stays)),
        ("remove -y", Some(stays)),
        ("purge -y", None),
        ("install -y", None),
        ("purge -y", Some(stays)),
    ] {
        let said = story.system.must(&apt(what))?;
        let told = says.is_none_or(|says| said.contains(says) && said.contains("sealed"));
        ensure!(told, "`apt-get {what}` does not say what stays: {said}");
        story.is_sealed(COPY)?;
        story.no_unit_failed()?;
    }
    let gone = story.system.run("command -v stockade")?;
    ensure!(gone.status != 0, "the purged package left {gone}");
    // The next steps need the package installed, with its policy, and enabled.
    story.system.must(&apt("install -y"))?;
    story.system.must("mkdir -p /etc/stockade && echo 'level = \"integrity\"' >/etc/stockade/policy.toml && systemctl enable stockade.service")?;
    story.is_sealed("stockade")?;
    Ok(String::new())
}

/// Reports whether this line of `stockade status` says that the seal was verified.
pub(super) fn is_sealed(line: &str) -> bool {
    let said = line.trim().strip_prefix("sealed ").map(str::trim_start);
    said.is_some_and(|said| said.starts_with("yes, verified"))
}

fn mask(story: &mut Story<'_>) -> anyhow::Result<String> {
    story.system.reboot("systemd.mask=stockade.service")?;
    story.finished()?;
    let status = story.system.run("stockade status")?;
    ensure!(status.status == 1, "stockade status ended with {status}");
    story.system.must("dd if=/dev/mem of=/dev/null bs=64 count=1")?;
    Ok(String::new())
}

#[cfg(test)]
mod tests {
    use super::is_sealed;

    #[test]
    fn a_verified_seal_is_told_from_none_and_from_one_that_is_broken() {
        assert!(is_sealed("  sealed         yes, verified: until reboot, since 0 s"));
        assert!(!is_sealed("  sealed         no: root can lift it"));
        assert!(!is_sealed("  sealed         NOT VERIFIED, sealed 3 s ago: see the warnings"));
        assert!(!is_sealed("  not sealed     yes, verified"));
    }
}
