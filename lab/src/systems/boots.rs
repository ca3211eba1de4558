/*!
Boots a system that is sealed by its unit many times, and counts the boots that end sealed and without a failed unit.

One guest installs the package and enables its units. Each boot after that is a guest of its own on an overlay of that disk, and is ended as
soon as its outcome is known.
*/
use std::{fmt, sync::Mutex, thread, time::Instant};

use anyhow::{Context, ensure};

use super::{
    packages::{self, Repository},
    play::{GUESTS, Session},
    root::{self, Root},
    story::{install_package, is_sealed},
    system::System,
};

/// The outcome of one boot.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Boot {
    /// Sealed and verified, and no unit failed.
    Sealed,
    /// Not sealed, or not verified, with the output of `stockade status`.
    Unsealed(String),
    /// Sealed, but these units failed.
    Failed(String),
}

impl fmt::Display for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sealed => f.write_str("sealed and verified, no unit failed"),
            Self::Unsealed(said) => write!(f, "UNSEALED: {said}"),
            Self::Failed(units) => write!(f, "sealed, and units FAILED: {units}"),
        }
    }
}

/// The numbers of boots by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Boots {
    /// Sealed and verified.
    pub sealed: usize,
    /// Not sealed, or the seal not verified, or the guest did not answer.
    pub unsealed: usize,
    /// Sealed, with failed units.
    pub failed_units: usize,
}

impl Boots {
    /// Reports whether each boot was sealed and verified, and no unit failed.
    #[must_use]
    pub fn are_sealed(self) -> bool {
        self.unsealed == 0 && self.failed_units == 0
    }

    fn add(&mut self, boot: &Boot) {
        match boot {
            Boot::Sealed => self.sealed += 1,
            Boot::Unsealed(_) => self.unsealed += 1,
            Boot::Failed(_) => self.failed_units += 1,
        }
    }
}

impl fmt::Display for Boots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sealed, unsealed, failed_units } = self;
        write!(f, "{sealed} boots sealed and verified, {unsealed} unsealed, {failed_units} with failed units")
    }
}

/// Waits for the end of the boot, then prints the failed units and the status.
const ASK: &str = "systemctl is-system-running --wait >/dev/null; echo failed: $(systemctl --failed --no-legend --plain --no-pager | cut -d' ' -f1); stockade status";

impl Session<'_> {
    /// Boots each release this many times, and prints the outcomes.
    ///
    /// # Errors
    /// When a guest cannot be prepared.
    pub fn boots(&self, times: usize) -> anyhow::Result<Boots> {
        let _lock = self.lock()?;
        let packages = packages::write(self.package, &self.folder.join("packages"))?;
        let mut all = Boots::default();
        for &release in self.releases {
            let root = root::get(release, self.refresh)?;
            let prepared = self.prepared(&root, &packages)?;
            let begin = Instant::now();
            let boots = self.boot_all(&prepared, times)?;
            println!(
                "{} {:<12} {boots} in {} s",
                if boots.are_sealed() { "ok  " } else { "FAIL" },
                release.id,
                begin.elapsed().as_secs()
            );
            all.sealed += boots.sealed;
            all.unsealed += boots.unsealed;
            all.failed_units += boots.failed_units;
        }
        Ok(all)
    }

    /// Prepares a guest that is powered off, with the package installed and the units enabled on its disk.
    fn prepared<'a>(&self, root: &'a Root, packages: &'a Repository) -> anyhow::Result<System<'a>> {
        let mut system = System::new(root, packages, &self.folder)?;
        system.boot("")?;
        install_package(&mut system)?;
        system.must(
            "echo 'level = \"integrity\"' >/etc/stockade/policy.toml && systemctl enable stockade.service stockade-seal.service",
        )?;
        system.off()?;
        Ok(system)
    }

    fn boot_all(&self, prepared: &System<'_>, times: usize) -> anyhow::Result<Boots> {
        let guests: Vec<_> = (0..GUESTS.min(times))
            .map(|number| prepared.overlay(self.folder.join(format!("boots-{number}.console"))))
            .collect::<anyhow::Result<_>>()?;
        let left = Mutex::new(1..=times);
        let boots = Mutex::new(Boots::default());
        let boots_of = |mut guest: System<'_>| {
            loop {
                let Some(number) = left.lock().expect("no thread panics with it").next() else { break };
                let before = guest.processor_seconds();
                let boot = boot(&mut guest).unwrap_or_else(|error| Boot::Unsealed(format!("{error:#}")));
                let used = guest.processor_seconds() - before;
                println!("boot {number} of {times}: {boot}, {used:.0} processor s");
                boots.lock().expect("no thread panics while counting").add(&boot);
            }
        };
        thread::scope(|scope| {
            for guest in guests {
                scope.spawn(|| boots_of(guest));
            }
        });
        let boots = boots.into_inner().expect("no thread panics while counting");
        ensure!(boots.sealed + boots.unsealed + boots.failed_units == times, "only {boots} of {times}");
        Ok(boots)
    }
}

/// Boots a guest, asks for the outcome, and ends it.
fn boot(guest: &mut System<'_>) -> anyhow::Result<Boot> {
    let answer = guest.boot("").and_then(|()| guest.run(ASK).context("asking how the boot came out"));
    guest.end();
    answer.map(|answer| judge(&answer.text, answer.status))
}

/// Interprets the answer to [`ASK`].
fn judge(text: &str, status: i32) -> Boot {
    let failed = text.lines().find_map(|line| line.strip_prefix("failed:")).map(str::trim);
    if status != 0 || !text.lines().any(is_sealed) {
        return Boot::Unsealed(text.trim().to_owned());
    }
    match failed {
        Some("") => Boot::Sealed,
        Some(units) => Boot::Failed(units.to_owned()),
        None => Boot::Unsealed(text.trim().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_is_judged_by_its_seal_and_its_units() {
        let sealed = "  sealed         yes, verified: until reboot, since 0 s\n";
        assert_eq!(judge(&format!("failed:\n{sealed}"), 0), Boot::Sealed);
        assert_eq!(judge(&format!("failed: a.service\n{sealed}"), 0), Boot::Failed("a.service".into()));
        assert!(matches!(judge(sealed, 0), Boot::Unsealed(_)), "nothing was said of units");
        assert!(matches!(judge(&format!("failed:\n{sealed}"), 1), Boot::Unsealed(_)));
        assert!(matches!(judge("failed:\n  sealed         no: root can lift it\n", 0), Boot::Unsealed(_)));
    }

    #[test]
    fn one_boot_that_is_not_sealed_fails_all() {
        let mut boots = Boots::default();
        boots.add(&Boot::Sealed);
        assert!(boots.are_sealed());
        boots.add(&Boot::Failed("a.service".into()));
        assert!(!boots.are_sealed());
        boots.add(&Boot::Unsealed(String::new()));
        assert_eq!(boots.to_string(), "1 boots sealed and verified, 1 unsealed, 1 with failed units");
    }
}
