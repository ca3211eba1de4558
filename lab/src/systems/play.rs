/*!
Plays the story in each system, two at a time, and counts the outcomes.
*/
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Mutex,
    thread,
};

use anyhow::Context;

use super::{
    Release,
    packages::{self, Repository},
    root::{self, Root},
    story::{STEPS, Step, Story},
    system::System,
};
use crate::{protocol::Outcome, report::Counts};

/// Systems that run at once: emulation is limited by the processor.
pub(super) const GUESTS: usize = 2;

/// A run of the story: the releases, the steps and the package.
#[derive(Clone, Debug)]
pub struct Session<'a> {
    /// The releases.
    pub releases: &'a [Release],
    /// Plays only the steps whose names contain this, and the setup steps before them.
    pub only: Option<&'a str>,
    /// The package to install.
    pub package: &'a Path,
    /// Whether roots are made again.
    pub refresh: bool,
    /// The folder for disks and console logs.
    pub folder: PathBuf,
}

/// Returns the names of all steps.
#[must_use]
pub fn names() -> Vec<&'static str> {
    STEPS.iter().map(|step| step.name).collect()
}

impl Session<'_> {
    /// Plays everything, and prints a line for each step. A root that cannot be made is a failure.
    pub fn play(&self) -> anyhow::Result<Counts> {
        let _lock = self.lock()?;
        let packages = packages::write(self.package, &self.folder.join("packages"))?;
        let left = Mutex::new(self.releases.iter().copied());
        let total = Mutex::new(Counts::default());
        thread::scope(|scope| {
            for _ in 0..GUESTS.min(self.releases.len()) {
                scope.spawn(|| {
                    loop {
                        let next = left.lock().expect("no thread panics with the list").next();
                        let Some(release) = next else { break };
                        let counts = self.system(release, &packages);
                        *total.lock().expect("no thread panics while counting") += counts;
                    }
                });
            }
        });
        Ok(total.into_inner().expect("no thread panics while counting"))
    }

    /// Locks the folder: two runs would write to each other's disks.
    pub(super) fn lock(&self) -> anyhow::Result<File> {
        fs::create_dir_all(&self.folder)
            .with_context(|| format!("making the folder {}", self.folder.display()))?;
        let lock = self.folder.join(".lock");
        let lock = File::create(&lock).with_context(|| format!("creating {}", lock.display()))?;
        lock.try_lock().with_context(|| {
            format!("{} is in use: another run of the systems has to end before", self.folder.display())
        })?;
        Ok(lock)
    }

    /// Returns the steps that are asked for, and the setup steps before them.
    fn steps(&self) -> impl Iterator<Item = &'static Step> {
        let only = self.only.unwrap_or_default();
        let end = STEPS.iter().rposition(|step| step.name.contains(only)).map_or(0, |last| last + 1);
        STEPS[..end].iter().filter(move |step| step.is_setup || step.name.contains(only))
    }

    fn system(&self, release: Release, packages: &Repository) -> Counts {
        let mut counts = Counts::default();
        let result = root::get(release, self.refresh).and_then(|root| {
            if let Some(seconds) = root.made_in {
                println!("note {:<12} its root was made in {seconds} s", release.id);
            }
            self.story(&root, packages, &mut counts)
        });
        if let Err(error) = result {
            println!("FAIL {:<12} {error:#}", release.id);
            counts.add(Outcome::Failed);
        }
        counts
    }

    fn story(&self, root: &Root, packages: &Repository, counts: &mut Counts) -> anyhow::Result<()> {
        let system = System::new(root, packages, &self.folder)?;
        let mut story = Story::new(system, packages);
        let mut stopped = None;
        for step in self.steps() {
            let (outcome, line) = match (stopped, (step.skipped_on)(root.release)) {
                (Some(at), _) => (Outcome::Failed, format!("FAIL {{}}: not played, since this failed: {at}")),
                (None, Some(why)) => (Outcome::Skipped, format!("skip {{}}: {why}")),
                (None, None) => {
                    let before = story.system.processor_seconds();
                    let result = (step.play)(&mut story);
                    let spent = story.system.processor_seconds() - before;
                    let (outcome, line) = judge(result);
                    if outcome == Outcome::Failed && step.is_setup {
                        stopped = Some(step.name);
                    }
                    (outcome, format!("{line} ({spent:.0} processor s)"))
                }
            };
            println!("{}", line.replacen("{}", &format!("{:<12} {}", root.release.id, step.name), 1));
            counts.add(outcome);
        }
        println!(
            "note {:<12} {} boots, {:.0} processor seconds",
            root.release.id,
            story.system.boots().len(),
            story.system.processor_seconds()
        );
        Ok(())
    }
}

/// Returns the outcome of a step, and its line with a `{}` for the name.
fn judge(result: anyhow::Result<String>) -> (Outcome, String) {
    match result {
        Ok(detail) if detail.is_empty() => (Outcome::Passed, "ok   {}".into()),
        Ok(detail) => (Outcome::Passed, format!("ok   {{}}: {detail}")),
        Err(error) => (Outcome::Failed, format!("FAIL {{}}: {error:#}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::systems::RELEASES;

    #[test]
    fn a_step_is_played_with_those_before_it_that_it_needs() {
        let named = |only| {
            let (releases, package) = (&RELEASES, Path::new(""));
            let session =
                Session { releases, only: Some(only), package, refresh: false, folder: PathBuf::new() };
            session.steps().map(|step| step.name).collect::<Vec<_>>()
        };
        assert_eq!(named("apt installs the package, and nothing"), &names()[..1]);
        assert_eq!(named("once enabled"), &names()[..2]);
        assert_eq!(named("soft-reboot").len(), 3);
        assert_eq!(named(""), names());
    }

    #[test]
    fn names_of_steps_are_their_own() {
        let names = names();
        let unique: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(unique.len(), names.len());
    }
}
