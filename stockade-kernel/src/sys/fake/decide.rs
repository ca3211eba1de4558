/*!
What requests get, by the programs that are attached: decided by `stockade_common::decide` on their maps.
*/
use std::collections::BTreeSet;

use stockade_common::{
    Added, Exception, ExceptionKey, Label, NO_PLACE, Policy, Sets, SettingKey, Until, UntilKey, Verdict,
    Words, counter_index,
    decide::{Decision, World, decide},
};

use super::{
    Kernel,
    objects::{Program, What},
};
use crate::program::{duty::Duty, object::MapName};

/// How many reasons the machine knows at most.
const REASONS: u32 = 12;

/// Somebody who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Requester {
    /// Its name.
    pub name: &'static str,
    /// Ids of its cgroup and those above, the root aside.
    pub cgroups: Vec<u64>,
    /// Inode of the program that it is known to execute, 0 for none, and whether it inherited that.
    pub program: (u64, bool),
    pub uid: u32,
}

/// The refused requests, and the held settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    pub refused: BTreeSet<(&'static str, u32)>,
    pub settings: BTreeSet<String>,
}

struct Here<'a> {
    kernel: &'a Kernel,
    program: &'a Program,
    requester: &'a Requester,
}

impl Here<'_> {
    fn find<K: Copy, V: Copy>(&self, map: MapName, key: &K) -> Option<V> {
        let map = self.kernel.map(self.kernel.map_of(self.program, map)?)?;
        let value = map.entries.get(&crate::pinned::tables::bytes(key))?;
        assert_eq!(value.len(), size_of::<V>());
        // SAFETY: of its size; the tables' values are plain data, for which any bytes are a value.
        Some(unsafe { value.as_ptr().cast::<V>().read_unaligned() })
    }
}

impl World for Here<'_> {
    fn place(&self, generation: u64) -> Option<Sets> {
        let key = |cgroup| stockade_common::CgroupKey { generation, cgroup };
        self.requester.cgroups.iter().find_map(|&cgroup| self.find(MapName::Cgroups, &key(cgroup)))
    }

    fn label(&self) -> Option<Label> {
        let (inode, inherited) = self.requester.program;
        let flags = if inherited { Label::INHERITED } else { 0 };
        (inode != 0).then_some(Label { inode, device: 7, flags, ..Label::NONE })
    }

    fn uid(&self) -> u32 {
        self.requester.uid
    }

    fn boot_ns(&self) -> u64 {
        crate::machine::host::boot_ns()
    }

    fn exception(&self, key: &ExceptionKey) -> Option<Exception> {
        self.find(MapName::Exceptions, key)
    }

    fn until(&self, key: &UntilKey) -> Option<Until> {
        self.find(MapName::Until, key)
    }
}

impl Kernel {
    /// The programs that are asked about lockdown, in the order in which they are until one refuses: those of the cgroup, then
    /// those of links, the newest first. The kernel puts each hook's newest attachment first, and a seal is newer than what it seals.
    pub(super) fn deciders(&self) -> Vec<(u32, &Program)> {
        let mut links: Vec<u32> = self.linked().map(|(_, program)| program).collect();
        links.reverse();
        let all = self.root_cgroup.iter().map(|(_, program)| *program).chain(links);
        let programs = all.filter_map(|id| Some((id, self.program(id)?)));
        programs
            .filter(|(_, program)| {
                program.hook == self.lockdown_hook && self.map_of(program, MapName::Policy).is_some()
            })
            .collect()
    }

    pub(super) fn policy(&self, program: &Program) -> Option<Policy> {
        let map = self.map(self.map_of(program, MapName::Policy)?)?;
        let value = map.entries.values().next()?;
        assert_eq!(value.len(), size_of::<Policy>());
        // SAFETY: of its size, plain data for which any bytes are a value.
        Some(unsafe { value.as_ptr().cast::<Policy>().read_unaligned() })
    }

    fn words(&self, program: &Program) -> Words {
        let policy = self.policy(program).expect("deciders have a policy");
        policy.slots[usize::from(policy.active & 1 == 1)].words
    }

    /// Decides as one program does by these words.
    fn decides(
        &self,
        program: &Program,
        words: &Words,
        reason: u32,
        requester: &Requester,
    ) -> Option<Decision> {
        let sealed = [Duty::Sealed.shown(), Duty::SealedScoped.shown()].contains(&program.name);
        let mut decision = self.decides_as_applied(program, words, reason, requester);
        if program.name == Duty::SealedScoped.shown() {
            let slots = self.stacked().map_or_else(Vec::new, |stacked| stacked.slots.to_vec());
            let stacked = slots.iter().filter(|slot| slot.words.generation != 0);
            let all =
                stacked.filter_map(|slot| self.decides_as_applied(program, &slot.words, reason, requester));
            decision = decision.into_iter().chain(all).min_by_key(|it| it.verdict as u32);
        }
        let added = self.added().filter(|_| sealed).unwrap_or_default();
        if added.deny >> reason & 1 != 0 && decision.is_none_or(|it| it.verdict != Verdict::Refused) {
            return Some(Decision { verdict: Verdict::Refused, place: NO_PLACE, shape: 0 });
        }
        decision
    }

    fn decides_as_applied(
        &self,
        program: &Program,
        words: &Words,
        reason: u32,
        requester: &Requester,
    ) -> Option<Decision> {
        let bit = 1u64 << reason;
        if words.watched_anywhere & bit == 0 {
            return None;
        }
        let whole = [Duty::DecideScoped.shown(), Duty::SealedScoped.shown()].contains(&program.name);
        if whole {
            return decide(words, reason, bit, &Here { kernel: self, program, requester });
        }
        let verdict = if words.deny & bit != 0 { Verdict::Refused } else { Verdict::Audited };
        Some(Decision { verdict, place: NO_PLACE, shape: 0 })
    }

    /// This process asks: whether it is refused. What is decided is counted.
    pub fn asks(&mut self, reason: u32) -> bool {
        if self.unasked.contains(&reason) {
            return false;
        }
        let own = self.own();
        let mut counted = Vec::new();
        let (mut refused, mut heard) = (false, 0);
        for (_, program) in self.deciders() {
            if let Some(decision) = self.decides(program, &self.words(program), reason, &own) {
                counted.extend(self.map_of(program, MapName::Counters).map(|map| (map, decision.verdict)));
                refused = decision.verdict == Verdict::Refused;
                heard += u64::from(self.map_of(program, MapName::Added).is_some());
            }
            if refused {
                break;
            }
        }
        if let Some(added) = self.added() {
            self.write_added(&Added { heard: added.heard + heard, ..added });
        }
        for (map, verdict) in counted {
            let index = counter_index(reason, verdict).to_ne_bytes();
            let cells = self.map_mut(map).and_then(|map| map.entries.get_mut(&index[..])).expect("an array");
            cells[0] += 1;
        }
        refused
    }

    /// The process that plays: the program is not known for an exception, and its cgroup is what its file says.
    fn own(&self) -> Requester {
        let file = self.at(std::path::Path::new("/proc/self/cgroup"));
        let caged = std::fs::read_to_string(file).is_ok_and(|text| text.starts_with("0::/cage"));
        let cgroups = if caged { self.cgroup_ids()[..1].to_vec() } else { Vec::new() };
        Requester { cgroups, ..Requester::default() }
    }

    /// The one who asks, as this machine has them.
    pub fn requesters(&self) -> Vec<Requester> {
        let cage = self.cgroup_ids();
        let below = [cage[1], cage[0]].to_vec();
        let cage = cage[..1].to_vec();
        let tool = 1000 + "/tool".len() as u64;
        let nobody = Requester { name: "nobody", ..Requester::default() };
        vec![
            Requester { name: "caged", cgroups: cage.clone(), ..nobody.clone() },
            Requester { name: "below the cage", cgroups: below, ..nobody.clone() },
            Requester { name: "the tool", program: (tool, false), ..nobody.clone() },
            Requester { name: "a child of the tool", program: (tool, true), ..nobody.clone() },
            Requester { name: "the caged tool of a user", program: (tool, false), uid: 1000, cgroups: cage },
            nobody,
        ]
    }

    /// Returns the decisions about all requests.
    pub fn table(&self) -> Table {
        let mut table = Table::default();
        let requesters = self.requesters();
        for (_, program) in self.deciders() {
            self.refusals(program, &self.words(program), &requesters, &mut table);
        }
        let linked = self.linked().map(|(_, id)| id).chain(self.root_cgroup.iter().map(|(_, id)| *id));
        for program in linked.filter_map(|id| self.program(id)).filter(|p| p.name == Duty::Settings.shown()) {
            let generation = self.words(program).generation;
            let Some(map) = self.map_of(program, MapName::Settings).and_then(|id| self.map(id)) else {
                continue;
            };
            for key in map.entries.keys() {
                // SAFETY: of its size, plain data.
                let key = unsafe { key.as_ptr().cast::<SettingKey>().read_unaligned() };
                if key.generation == generation {
                    let end = key.name.iter().position(|&byte| byte == 0).expect("padded");
                    table.settings.insert(String::from_utf8_lossy(&key.name[..end]).into_owned());
                }
            }
        }
        table
    }

    fn refusals(&self, program: &Program, words: &Words, requesters: &[Requester], table: &mut Table) {
        for reason in 0..REASONS {
            for requester in requesters {
                let decision = self.decides(program, words, reason, requester);
                if decision.is_some_and(|decision| decision.verdict == Verdict::Refused) {
                    table.refused.insert((requester.name, reason));
                }
            }
        }
    }

    fn refused_by(&self, program: &Program, words: &Words) -> Table {
        let mut table = Table::default();
        self.refusals(program, words, &self.requesters(), &mut table);
        table
    }

    /// A decision begins with every program, and those that began before the last grace period go on: they read the words at
    /// their beginning and the tables later, and may come to nothing else. Those of programs that are gone have ended, since
    /// the kernel waits for them.
    pub fn decisions_go_on(&mut self) {
        let mut under_way = std::mem::take(&mut self.under_way);
        under_way.retain(|(id, ..)| self.objects.contains_key(id));
        for (id, words, expected) in &under_way {
            let program = self.program(*id).expect("kept above");
            let mut now = self.refused_by(program, words);
            if self.map_of(program, MapName::Added).is_some() {
                // What is added counts from the moment on that it is there, and only refuses more.
                now.refused.retain(|refused| expected.refused.contains(refused));
            }
            assert_eq!(now, *expected, "a decision under way by {words:?} has come to something else");
        }
        for (id, program) in self.deciders() {
            let words = self.words(program);
            if !under_way.iter().any(|(by, began, _)| (*by, *began) == (id, words)) {
                let expected = self.refused_by(program, &words);
                under_way.push((id, words, expected));
            }
        }
        self.under_way = under_way;
    }

    /// Ends all decisions under way.
    pub fn grace_period(&mut self) {
        self.under_way.clear();
    }

    /// Returns the inventory, with the policies of the deciding programs.
    pub fn fingerprint(&self) -> Vec<String> {
        let mut all = self.inventory();
        for (_, program) in self.deciders() {
            let mut policy = self.policy(program).expect("deciders have a policy");
            for slot in &mut policy.slots {
                slot.applied_boot_ns = 0;
            }
            all.push(format!("{policy:?}"));
        }
        if let Some(mut added) = self.added() {
            // How often somebody asked makes no difference.
            (added.heard, added.closed, added.told.applied_boot_ns) = (0, 0, 0);
            all.push(format!("{added:?}"));
        }
        if let Some(mut stacked) = self.stacked() {
            stacked.slots.iter_mut().for_each(|slot| slot.applied_boot_ns = 0);
            all.push(format!("{stacked:?}"));
        }
        all
    }

    /// Returns the parts of Stockade on a machine, in words that are equal for equal machines: programs, attachments, pins, descriptions, and the
    /// generations of which the tables have entries.
    pub fn inventory(&self) -> Vec<String> {
        let text = |name: &[u8]| String::from_utf8_lossy(name).trim_end_matches('\0').to_owned();
        let (mut all, mut maps) = (Vec::new(), BTreeSet::new());
        for object in self.objects.values() {
            match &object.what {
                What::Program(program) => all.push(format!("program {}", text(&program.name))),
                What::Map(map) => {
                    // Programs that were loaded one after the other have constants of their own.
                    maps.insert(format!(
                        "map {}{}",
                        text(&map.name),
                        if map.frozen { ", frozen" } else { "" }
                    ));
                }
                What::Link { program, .. } => {
                    all.push(format!(
                        "link of {}",
                        self.program(*program).map_or_else(String::new, |p| text(&p.name))
                    ));
                }
                What::Types | What::Iterator { .. } => all.push("types".into()),
                What::Process(_) | What::RootCgroup => {}
            }
        }
        for (_, id) in &self.root_cgroup {
            all.push(format!(
                "root cgroup holds {}",
                self.program(*id).map_or_else(String::new, |p| text(&p.name))
            ));
        }
        for folder in [crate::pinned::pins::FOLDER, crate::pinned::description::FOLDER] {
            for entry in
                std::fs::read_dir(self.at(std::path::Path::new(folder))).into_iter().flatten().flatten()
            {
                let name = entry.file_name().to_string_lossy().into_owned();
                // Generations differ with the number of commands.
                all.push(format!("{folder}/{}", name.trim_end_matches(|c: char| c.is_ascii_digit())));
            }
        }
        for (_, program) in self.deciders() {
            let generation = self.words(program).generation;
            for name in MapName::TABLES {
                let Some(map) = self.map_of(program, name).and_then(|id| self.map(id)) else { continue };
                for key in map.entries.keys() {
                    let of = u64::from_ne_bytes(key[..8].try_into().expect("keys begin with the generation"));
                    all.push(format!(
                        "{name}: an entry of {}",
                        if of == generation { "now" } else { "another policy" }
                    ));
                }
            }
        }
        all.extend(maps);
        all.sort();
        all
    }
}
