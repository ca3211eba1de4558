/*!
What it would change to put one policy in the place of another: by meaning, not by line.

Verdicts of reasons are those of the host, outside all scopes and without exceptions, and are compared with Secure Boot
on and off, since `auto` depends on it. Scopes, exceptions, trusted programs and accepted findings are compared by name.
*/
use std::collections::{BTreeSet, HashMap};

use serde::Serialize;
use stockade_reasons::Level;

use crate::{
    interpret::{KernelReason, host},
    model::{Accepted, Exception, Hold, Policy, Reasons, Said, Scope, Verdict},
    trusted::TrustedProgram,
    words::Word,
};

/// The effect of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// More is refused or reported.
    Stricter,
    /// Less is.
    Laxer,
    /// It depends on the rest of the policy.
    Depends,
}

/// The part of a policy that a change is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum About {
    /// The top of the policy.
    Host,
    /// The scope of this name.
    Scope(String),
    /// The exception of this name.
    Exception(String),
    /// The trusted program of this name.
    Trusted(String),
    /// The accepted finding of this code, and the name it is about.
    Accepted(String),
}

/// One thing that is said in one policy and not, or otherwise, in the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// About what.
    pub about: About,
    /// Its key; none where the whole of it was added or removed.
    pub key: Option<String>,
    /// The old value; none if there was none.
    pub from: Option<String>,
    /// The new value.
    pub to: Option<String>,
    /// The effect.
    pub effect: Effect,
}

/// When a verdict changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    /// On every machine.
    Always,
    /// Where EFI Secure Boot is on.
    SecureBootOn,
    /// Where it is off, or there is none.
    SecureBootOff,
}

/// A reason with another verdict, at host level.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VerdictChange {
    /// Its id.
    pub reason: String,
    /// When.
    pub when: When,
    /// The verdict it had.
    pub from: Verdict,
    /// The verdict it gets.
    pub to: Verdict,
}

impl VerdictChange {
    /// The effect.
    #[must_use]
    pub fn effect(&self) -> Effect {
        if self.to > self.from { Effect::Stricter } else { Effect::Laxer }
    }
}

/// All that is different.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Changed keys, and what was added or removed.
    pub changes: Vec<Change>,
    /// Which reasons are decided otherwise, in the order of the table.
    pub verdicts: Vec<VerdictChange>,
}

impl Difference {
    /// Whether the two mean the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.verdicts.is_empty()
    }
}

/// Compares two policies.
#[must_use]
pub fn diff(old: &Policy, new: &Policy) -> Difference {
    let mut changes = Vec::new();
    host_keys(&mut changes, old, new);
    settings(&mut changes, old, new);
    named(&mut changes, &old.scopes, &new.scopes);
    named(&mut changes, &old.exceptions, &new.exceptions);
    named(&mut changes, &old.seal.trusted, &new.seal.trusted);
    named(&mut changes, &old.accepted, &new.accepted);
    Difference { changes, verdicts: verdicts(old, new) }
}

/// Keys and values, in the order in which they are told.
type Fields = Vec<(String, String)>;

fn word_of<W: Word>(key: &str, said: &Said<W>) -> (String, String) {
    (key.to_owned(), said.value.word().to_owned())
}

fn host_keys(changes: &mut Vec<Change>, old: &Policy, new: &Policy) {
    let fields = |policy: &Policy| {
        let mut fields = vec![
            word_of("level", &policy.level),
            word_of("mode", &policy.mode),
            word_of("unknown-reasons", &policy.unknown_reasons),
        ];
        reasons(&mut fields, &policy.reasons);
        fields.extend(policy.seal.pcr.iter().map(|pcr| ("seal.pcr".to_owned(), pcr.value.to_string())));
        let seal = &policy.seal;
        for (key, said) in [("require-tpm", &seal.require_tpm), ("room-for-scopes", &seal.room_for_scopes)] {
            fields.push((format!("seal.{key}"), said.value.to_string()));
        }
        fields
    };
    fields_changed(changes, &About::Host, &fields(old), &fields(new));
}

/// Settings that are held. Frozen is stricter than a ratchet, which is stricter than nothing.
fn settings(changes: &mut Vec<Change>, old: &Policy, new: &Policy) {
    let names: BTreeSet<_> = old.settings.keys().chain(new.settings.keys()).collect();
    for name in names {
        let hold = |policy: &Policy| policy.settings.get(name).map(|said| said.value);
        let (from, to) = (hold(old), hold(new));
        if from != to {
            let word = |hold: Option<Hold>| hold.map(|hold| hold.word().to_owned());
            changes.push(Change {
                about: About::Host,
                key: Some(format!("settings.{name}")),
                from: word(from),
                to: word(to),
                effect: if to > from { Effect::Stricter } else { Effect::Laxer },
            });
        }
    }
}

fn reasons(fields: &mut Fields, reasons: &Reasons) {
    fields.extend(reasons.iter().map(|(id, verdict)| word_of(&format!("reasons.{id}"), verdict)));
}

fn fields_changed(changes: &mut Vec<Change>, about: &About, old: &Fields, new: &Fields) {
    let find =
        |fields: &Fields, key: &str| fields.iter().find(|(k, _)| k == key).map(|(_, value)| value.clone());
    let added = new.iter().filter(|(key, _)| find(old, key).is_none());
    for (key, _) in old.iter().chain(added) {
        let (from, to) = (find(old, key), find(new, key));
        if from != to {
            changes.push(Change {
                about: about.clone(),
                key: Some(key.clone()),
                from,
                to,
                effect: Effect::Depends,
            });
        }
    }
}

/// A part of a policy that has a name.
trait Named {
    fn about(&self) -> About;
    fn fields(&self) -> Fields;
    /// Returns the effect of adding this; removing it has the opposite effect.
    fn adding(&self) -> Effect;
    /// In a few words, where it was added or removed.
    fn summary(&self) -> String;
}

fn named<T: Named>(changes: &mut Vec<Change>, old: &[T], new: &[T]) {
    let index = |list| -> HashMap<About, &T> { <[T]>::iter(list).map(|item| (item.about(), item)).collect() };
    let (before, after) = (index(old), index(new));
    for item in old.iter().filter(|item| !after.contains_key(&item.about())) {
        let effect = match item.adding() {
            Effect::Laxer => Effect::Stricter,
            Effect::Stricter => Effect::Laxer,
            Effect::Depends => Effect::Depends,
        };
        changes.push(Change { about: item.about(), key: None, from: Some(item.summary()), to: None, effect });
    }
    for item in new {
        let (about, effect) = (item.about(), item.adding());
        match before.get(&about) {
            Some(there) => fields_changed(changes, &about, &there.fields(), &item.fields()),
            None => changes.push(Change { about, key: None, from: None, to: Some(item.summary()), effect }),
        }
    }
}

impl Named for Scope {
    fn about(&self) -> About {
        About::Scope(self.name.value.clone())
    }

    fn fields(&self) -> Fields {
        let mut fields = vec![("place".to_owned(), self.place.value.to_string())];
        fields.extend(self.level.iter().map(|level| word_of("level", level)));
        fields.extend(self.mode.iter().map(|mode| word_of("mode", mode)));
        fields.push(("loosen".to_owned(), self.loosen.value.to_string()));
        reasons(&mut fields, &self.reasons);
        fields
    }

    /// Without `loosen` a scope can only tighten.
    fn adding(&self) -> Effect {
        if self.loosen.value { Effect::Depends } else { Effect::Stricter }
    }

    fn summary(&self) -> String {
        let fields = self.fields().into_iter().filter(|(_, value)| value != "false");
        fields.map(|(key, value)| format!("{key} {value}")).collect::<Vec<_>>().join(", ")
    }
}

impl Named for Exception {
    fn about(&self) -> About {
        About::Exception(self.name.value.clone())
    }

    fn fields(&self) -> Fields {
        // In which order they are listed means nothing.
        let reasons: BTreeSet<_> = self.reasons.iter().map(|reason| reason.value.as_str()).collect();
        let mut fields = vec![("reasons".to_owned(), reasons.into_iter().collect::<Vec<_>>().join(", "))];
        let mut add = |key: &str, value: Option<String>| {
            fields.extend(value.map(|value| (key.to_owned(), value)));
        };
        add("exe", self.exe.as_ref().map(|exe| exe.value.display().to_string()));
        add("digest", self.digest.as_ref().map(|digest| digest.value.to_string()));
        add("place", self.place.as_ref().map(|place| place.value.to_string()));
        add("uid", self.uid.as_ref().map(|uid| uid.value.to_string()));
        add("inherit", Some(self.inherit.value.to_string()));
        add("expires", self.expires.as_ref().map(|expires| expires.value.to_string()));
        add("why", self.why.as_ref().map(|why| why.value.clone()));
        fields
    }

    fn adding(&self) -> Effect {
        Effect::Laxer
    }

    fn summary(&self) -> String {
        let fields = self.fields().into_iter().filter(|(key, value)| key != "why" && value != "false");
        fields.map(|(key, value)| format!("{key} {value}")).collect::<Vec<_>>().join(", ")
    }
}

impl Named for TrustedProgram {
    fn about(&self) -> About {
        About::Trusted(self.name.value.clone())
    }

    fn fields(&self) -> Fields {
        // In which order they are listed means nothing.
        let tags: BTreeSet<_> = self.tags.iter().map(|tag| tag.value.to_string()).collect();
        let mut fields = vec![word_of("kind", &self.kind)];
        fields.extend(self.hook.iter().map(|hook| ("hook".to_owned(), hook.value.to_string())));
        fields.push(("tags".to_owned(), tags.into_iter().collect::<Vec<_>>().join(", ")));
        fields.extend(self.why.iter().map(|why| ("why".to_owned(), why.value.clone())));
        fields
    }

    fn adding(&self) -> Effect {
        Effect::Laxer
    }

    fn summary(&self) -> String {
        let fields = self.fields().into_iter().filter(|(key, _)| key != "why");
        fields.map(|(key, value)| format!("{key} {value}")).collect::<Vec<_>>().join(", ")
    }
}

impl Named for Accepted {
    fn about(&self) -> About {
        let about = self.about.as_ref().map(|about| format!(" about {}", about.value));
        About::Accepted(format!("{}{}", self.code.value, about.unwrap_or_default()))
    }

    fn fields(&self) -> Fields {
        vec![("why".to_owned(), self.why.value.clone())]
    }

    /// Accepting a finding changes nothing that is in force.
    fn adding(&self) -> Effect {
        Effect::Depends
    }

    fn summary(&self) -> String {
        format!("why {}", self.why.value)
    }
}

fn verdicts(old: &Policy, new: &Policy) -> Vec<VerdictChange> {
    let mut changes = Vec::new();
    for reason in stockade_reasons::all() {
        let id = reason.id;
        let reason = KernelReason::from(reason);
        let change = |auto| (host(old, auto, &reason).verdict, host(new, auto, &reason).verdict);
        let (on, off) = (change(Level::Integrity), change(Level::None));
        let mut add = |when, (from, to)| {
            if from != to {
                changes.push(VerdictChange { reason: id.to_owned(), when, from, to });
            }
        };
        if on == off {
            add(When::Always, on);
        } else {
            add(When::SecureBootOn, on);
            add(When::SecureBootOff, off);
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{merge, read, source::Source};

    fn policy(text: &str) -> Policy {
        merge::merge([read(&Source::new("f", text)).unwrap()]).unwrap()
    }

    fn between(old: &str, new: &str) -> Difference {
        diff(&policy(old), &policy(new))
    }

    #[test]
    fn what_means_the_same_is_no_difference() {
        let old = "level = \"auto\"\n[[exception]]\nname=\"e\"\nreasons=[\"msr\",\"kexec\"]\nexe=\"/a\"\n";
        let new = "# another\nmode = \"enforce\"\n[[exception]]\nexe='/a'\nreasons=[\"kexec\",\"msr\"]\nname=\"e\"\ninherit=false\n";
        assert_eq!(between(old, new), Difference::default());
    }

    #[test]
    fn how_a_seal_is_recorded_is_told_by_key() {
        let changes = between("", "[seal]\npcr = 13\nrequire-tpm = true\n").changes;
        let told: Vec<_> =
            changes.iter().map(|c| (c.key.as_deref(), c.from.as_deref(), c.to.as_deref())).collect();
        let require = (Some("seal.require-tpm"), Some("false"), Some("true"));
        assert_eq!(told, [require, (Some("seal.pcr"), None, Some("13"))]);
    }

    #[test]
    fn a_later_file_replaces_one_key_of_a_seal_and_not_the_other() {
        let files =
            ["[seal]\npcr = 12\nrequire-tpm = true\n", "[seal]\npcr = 13\n", "level = \"integrity\"\n"];
        let read = |text: &str| read(&Source::new("f", text)).unwrap();
        let seal = merge::merge(files.map(read)).unwrap().seal;
        assert_eq!((seal.pcr.unwrap().value, seal.require_tpm.value), (13, true));
    }

    #[test]
    fn trusted_programs_are_told_by_name() {
        let trust = |tags: &str| {
            format!("[[seal.trust]]\nname = \"p\"\nkind = \"lsm\"\nhook = \"bpf\"\ntags = [{tags}]\n")
        };
        let (one, both) = ("\"1111111111111111\"", "\"2222222222222222\", \"1111111111111111\"");
        let changes = between("", &trust(one)).changes;
        assert_eq!(changes[0].about, About::Trusted("p".into()));
        assert_eq!(changes[0].to.as_deref(), Some("kind lsm, hook bpf, tags 1111111111111111"));
        assert_eq!((changes.len(), changes[0].effect), (1, Effect::Laxer));
        let changes = between(&trust(one), &trust(both)).changes;
        assert_eq!((changes[0].key.as_deref(), changes.len()), (Some("tags"), 1));
        assert!(between(&trust(both), &trust("\"1111111111111111\", \"2222222222222222\"")).is_empty());
    }

    #[test]
    fn a_later_file_replaces_a_trusted_program_of_the_same_name() {
        let trust = |name: &str, tag: char| {
            let tag = tag.to_string().repeat(16);
            format!("[[seal.trust]]\nname = \"{name}\"\nkind = \"lsm\"\nhook = \"bpf\"\ntags = [\"{tag}\"]\n")
        };
        let read = |text: String| read(&Source::new("f", text)).unwrap();
        let files = [trust("a", '1'), trust("b", '2'), trust("a", '3')];
        let trusted = merge::merge(files.map(read)).unwrap().seal.trusted;
        let told: Vec<_> = trusted.iter().map(|p| format!("{} {}", p.name.value, p.tags[0].value)).collect();
        assert_eq!(told, ["a 3333333333333333", "b 2222222222222222"]);
    }

    #[test]
    fn a_level_is_told_by_the_reasons_it_changes() {
        let found =
            between("level = \"integrity\"", "level = \"confidentiality\"\n[reasons]\nmsr = \"allow\"\n");
        let stricter: Vec<_> = found.verdicts.iter().filter(|v| v.effect() == Effect::Stricter).collect();
        assert_eq!(stricter.len(), 8);
        let laxer: Vec<_> = found.verdicts.iter().filter(|v| v.effect() == Effect::Laxer).collect();
        assert_eq!(laxer[0].reason, "msr");
        assert_eq!((laxer.len(), laxer[0].from, laxer[0].to), (1, Verdict::Deny, Verdict::Allow));
        let keys: Vec<_> = found.changes.iter().filter_map(|c| c.key.as_deref()).collect();
        assert_eq!(keys, ["level", "reasons.msr"]);
    }

    #[test]
    fn auto_is_compared_with_secure_boot_on_and_off() {
        let found = between("level = \"auto\"", "level = \"integrity\"");
        assert_eq!(found.verdicts.len(), 20);
        assert!(found.verdicts.iter().all(|v| v.when == When::SecureBootOff && v.from == Verdict::Allow));
        let found = between("level = \"auto\"", "level = \"auto\"\nmode = \"audit\"\n");
        assert!(found.verdicts.iter().all(|v| v.when == When::SecureBootOn && v.to == Verdict::Audit));
        let found = between("", "[reasons]\nkcore = \"deny\"\n");
        assert_eq!(found.verdicts[0].when, When::Always);
    }

    #[test]
    fn scopes_and_exceptions_are_told_by_name() {
        let old = "[[scope]]\nname=\"a\"\ncgroup=\"/a\"\n[[scope]]\nname=\"b\"\ncgroup=\"/b\"\n";
        let new = "[[scope]]\nname=\"b\"\ncgroup=\"/c\"\nlevel=\"none\"\nloosen=true\n[[exception]]\nname=\"e\"\nreasons=[\"msr\"]\nunit=\"a.service\"\n";
        let changes = between(old, new).changes;
        let told: Vec<_> = changes.iter().map(|c| (c.about.clone(), c.key.as_deref(), c.effect)).collect();
        let b = || About::Scope("b".into());
        assert_eq!(
            told,
            [
                (About::Scope("a".into()), None, Effect::Laxer),
                (b(), Some("place"), Effect::Depends),
                (b(), Some("loosen"), Effect::Depends),
                (b(), Some("level"), Effect::Depends),
                (About::Exception("e".into()), None, Effect::Laxer),
            ]
        );
        assert_eq!(changes[4].to.as_deref(), Some("reasons msr, place a.service"));
    }
}
