/*!
The commands that are played.
*/
use super::Command::{self, Enforce, Grant, Lift, Seal};

/// A command, and the commands before it.
#[derive(Debug)]
pub(super) struct Story {
    pub name: &'static str,
    pub before: &'static [Command],
    pub command: Command,
}

impl Story {
    /// Whether it adds a policy to what is sealed.
    pub fn stacks(&self) -> bool {
        self.before.iter().any(|command| matches!(command, Seal))
    }
}

pub(super) const INTEGRITY: &str = "level = \"integrity\"\n";
pub(super) const CONFIDENTIALITY: &str = "level = \"confidentiality\"\n";

/// Refuses dev-mem everywhere but to the tool, and kcore in the cage.
const EXCEPTING: &str = "level = \"integrity\"\n\
    [[scope]]\nname = \"cage\"\ncgroup = \"/cage\"\nlevel = \"confidentiality\"\n\
    [[exception]]\nname = \"tool\"\nreasons = [\"dev-mem\"]\nexe = \"/tool\"\ninherit = true\nwhy = \"w\"\n";

/// The other way round: the words of one with the tables of the other would answer something else.
const CAGING: &str = "level = \"none\"\n\
    [[scope]]\nname = \"cage\"\ncgroup = \"/cage\"\nlevel = \"integrity\"\n\
    [[exception]]\nname = \"tool\"\nreasons = [\"msr\"]\nexe = \"/tool\"\nuid = 1000\nwhy = \"w\"\n";

pub(super) const HOLDING: &str = "level = \"integrity\"\n[settings]\nfreeze = [\"kernel.core_pattern\"]\n";
pub(super) const HOLDING_MORE: &str =
    "level = \"confidentiality\"\n[settings]\nfreeze = [\"kernel.core_pattern\", \"kernel.modprobe\"]\n";

pub(super) const EVERYTHING: &str = "level = \"integrity\"\n\
    [[scope]]\nname = \"cage\"\ncgroup = \"/cage\"\nlevel = \"confidentiality\"\n\
    [[exception]]\nname = \"tool\"\nreasons = [\"dev-mem\"]\nexe = \"/tool\"\nwhy = \"w\"\n\
    [settings]\nfreeze = [\"kernel.core_pattern\"]\n";

const EXCEPTED: &str = "level = \"integrity\"\n\
    [[exception]]\nname = \"tool\"\nreasons = [\"dev-mem\"]\nexe = \"/tool\"\nwhy = \"w\"\n";

pub(super) const ROOM: &str = "level = \"integrity\"\n[seal]\nroom-for-scopes = true\n";

/// Refuses integrity reasons everywhere and confidentiality reasons in the cage, except kcore below the cage.
pub(super) const ROOMY: &str = "level = \"integrity\"\n[seal]\nroom-for-scopes = true\n\
    [[scope]]\nname = \"cage\"\ncgroup = \"/cage\"\nlevel = \"confidentiality\"\n\
    [[exception]]\nname = \"below\"\nreasons = [\"kcore\"]\ncgroup = \"/cage/below\"\nwhy = \"w\"\n";

/// Another place, a pattern, more reasons, and the tool of a sealed policy.
pub(super) const EVERYTHING_AND_MORE: &str = "level = \"confidentiality\"\n\
    [[scope]]\nname = \"cage\"\ncgroup = \"/cage\"\nlevel = \"confidentiality\"\n\
    [[scope]]\nname = \"below\"\ncgroup = \"/cage/be*\"\nlevel = \"confidentiality\"\n\
    [[exception]]\nname = \"tool\"\nreasons = [\"dev-mem\"]\nexe = \"/tool\"\nwhy = \"w\"\n\
    [[exception]]\nname = \"the tool's own\"\nreasons = [\"tracefs\"]\nexe = \"/tool\"\ncgroup = \"/elsewhere\"\nexpires = 2999-01-01T00:00:00Z\nwhy = \"w\"\n\
    [settings]\nfreeze = [\"kernel.core_pattern\", \"kernel.modprobe\"]\n";

/// A policy with an exception that is granted.
pub(super) const GRANTED: &str = "level = \"integrity\"\n\
    [[exception]]\nname = \"granted\"\nreasons = [\"msr\"]\nexe = \"/tool\"\nexpires = 2999-01-01T00:00:00Z\nwhy = \"w\"\n";

macro_rules! stories {
    ($($name:literal: [$($before:expr),*] => $command:expr;)+) => {
        pub(super) const STORIES: &[Story] =
            &[$(Story { name: $name, before: &[$($before),*], command: $command }),+];
    };
}

stories! {
    "enforce": [] => Enforce(INTEGRITY);
    "enforce scopes and exceptions": [] => Enforce(EXCEPTING);
    "enforce settings": [] => Enforce(HOLDING);
    "enforce everything": [] => Enforce(EVERYTHING);
    "replace": [Enforce(INTEGRITY)] => Enforce(CONFIDENTIALITY);
    "replace by scopes and exceptions": [Enforce(CONFIDENTIALITY)] => Enforce(EXCEPTING);
    "replace scopes and exceptions by others": [Enforce(EXCEPTING)] => Enforce(CAGING);
    "replace scopes and exceptions by none": [Enforce(EXCEPTING)] => Enforce(INTEGRITY);
    "replace by settings": [Enforce(CONFIDENTIALITY)] => Enforce(HOLDING);
    "replace settings by others": [Enforce(HOLDING)] => Enforce(HOLDING_MORE);
    "replace settings by none": [Enforce(HOLDING)] => Enforce(CONFIDENTIALITY);
    "replace everything by nothing": [Enforce(EVERYTHING)] => Enforce("level = \"none\"\n");
    "grant": [Enforce(INTEGRITY)] => Grant;
    "grant beside exceptions": [Enforce(EXCEPTING)] => Grant;
    "lift": [Enforce(INTEGRITY)] => Lift;
    "lift everything": [Enforce(EVERYTHING)] => Lift;
    "seal": [Enforce(INTEGRITY)] => Seal;
    "seal settings": [Enforce(HOLDING)] => Seal;
    "seal an exception": [Enforce(EXCEPTED)] => Seal;
    "seal everything": [Enforce(EVERYTHING)] => Seal;
    "stack": [Enforce(INTEGRITY), Seal] => Enforce(CONFIDENTIALITY);
    "stack settings": [Enforce(HOLDING), Seal] => Enforce(HOLDING_MORE);
    "end an exception that is sealed": [Enforce(EXCEPTED), Seal] => Enforce(INTEGRITY);
    "stack scopes and exceptions": [Enforce(ROOM), Seal] => Enforce(ROOMY);
    "stack scopes and exceptions on such": [Enforce(EVERYTHING), Seal] => Enforce(EVERYTHING_AND_MORE);
    "stack on a stack": [Enforce("level = \"none\"\n[reasons]\ndev-mem = \"deny\"\n"), Seal, Enforce(INTEGRITY)] => Enforce(CONFIDENTIALITY);
}
