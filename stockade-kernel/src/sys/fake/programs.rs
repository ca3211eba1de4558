/*!
The calls on programs, links and the root cgroup, and what the guards of a seal refuse of them: as stockade-ebpf's `guard.rs`.
*/
use aya_obj::generated::{bpf_insn, bpf_prog_info};
use stockade_common::{Added, Known, KnownProgram, Seal, Seen, kinds};

use super::{
    Kernel,
    calls::Attributes,
    objects::{Program, What},
};
use crate::{
    pinned::tables::bytes,
    program::{
        duty::Duty,
        object::{self, MapName},
    },
    seal::first_guards,
    sys,
};

const TRACING_LINK: u32 = 2;
const CGROUP_LINK: u32 = 3;

impl Kernel {
    /// The programs for a duty that the root cgroup holds.
    pub(super) fn guards(&self, duty: Duty) -> impl Iterator<Item = &Program> {
        let programs = self.root_cgroup.iter().filter_map(|(_, id)| self.program(*id));
        // Anybody can give a program this name.
        programs.filter(move |program| program.name == duty.shown() && !program.maps.is_empty())
    }

    fn seal_of(&self, guard: &Program) -> Seal {
        let map =
            self.map_of(guard, MapName::Seal).and_then(|id| self.map(id)).expect("guards have the seal");
        let value = map.entries.values().next().expect("an array of one");
        assert_eq!(value.len(), size_of::<Seal>());
        // SAFETY: of its size, plain data for which any bytes are a value.
        unsafe { value.as_ptr().cast::<Seal>().read_unaligned() }
    }

    /// Returns the value that a program writes into one of its maps.
    fn written<T: Copy>(&self, program: &Program, map: MapName) -> (u32, T) {
        let id = self.map_of(program, map).expect("programs of a seal have it");
        let value = self.map(id).and_then(|map| map.entries.values().next()).expect("an array of one");
        (id, super::dialogue::plain(value))
    }

    pub(super) fn write_down<T: Copy>(&mut self, map: u32, value: &T) {
        let entries = &mut self.map_mut(map).expect("found before").entries;
        entries.insert(0u32.to_ne_bytes().to_vec(), bytes(value));
    }

    /// Has the guards for a duty write down what they see.
    fn see(&mut self, duty: Duty, what: impl Fn(&Seal, &mut Seen)) {
        let seen = |guard| (self.seal_of(guard), self.written(guard, MapName::Seen));
        let found: Vec<_> = self.guards(duty).map(seen).collect();
        for (seal, (map, mut seen)) in found {
            what(&seal, &mut seen);
            self.write_down(map, &seen);
        }
    }

    /// Somebody calls bpf(2) while the last guard is there.
    pub(super) fn closes(&mut self) {
        // One of another version has no such map.
        let ours = self.guards(Duty::GuardCalls).filter(|guard| self.map_of(guard, MapName::Added).is_some());
        let found: Vec<(u32, Added)> = ours.map(|guard| self.written(guard, MapName::Added)).collect();
        for (map, added) in found.into_iter().filter(|(_, added)| added.closed == 0) {
            self.write_down(map, &Added { closed: 1, ..added });
        }
    }

    /// How many references to an object there are, and how many of them are descriptors, whoever asks included.
    fn references(&self, id: u32) -> (u64, u64) {
        let descriptors = self.descriptors(id) + 1;
        let by_programs = self.objects.values().filter(|object| match &object.what {
            What::Program(program) => program.maps.contains(&id),
            What::Link { program, .. } | What::Iterator { program } => *program == id,
            _ => false,
        });
        let attached = self.root_cgroup.iter().filter(|(_, program)| *program == id);
        let others = by_programs.count() + attached.count();
        (descriptors + others as u64, descriptors)
    }

    /// The newest object that a first guard does not keep.
    fn first_guard(&self, name: [u8; 16]) -> Option<u32> {
        let programs = self.linked().filter_map(|(_, id)| self.program(id));
        programs.filter(|program| program.name == name).map(|program| program.newest).next()
    }

    /// Whether a program is of those that nobody else loads once the first guards are there.
    fn bypasses_first_guards(&self, program: &Program) -> bool {
        match program.kind {
            kinds::TRACING => program.attach_type == kinds::ATTACH_MODIFY_RETURN,
            kinds::EXT => true,
            // ptrace_access_check, bpf_prog, bpf_map and bpf.
            kinds::LSM => [3, 5, 6, 8].map(|number| self.lockdown_hook + number).contains(&program.hook),
            _ => false,
        }
    }

    /// A process is about to get a descriptor of a program.
    fn guard_program(&mut self, id: u32, program: &Program) -> Result<(), i32> {
        if self.hidden_by_others.contains(&id) {
            return Err(libc::EPERM);
        }
        let is_kept = self.is_other
            && self
                .first_guard(first_guards::OF_PROGRAMS)
                .is_some_and(|newest| id > newest || id == 0 && self.bypasses_first_guards(program));
        if id != 0 {
            let (references, _) = self.references(id);
            self.see(Duty::GuardPrograms, |seal, seen| {
                seen.asked += 1;
                if let Some((slot, _)) =
                    seal.programs.into_iter().enumerate().find(|(_, program)| *program == id)
                {
                    seen.counts[slot] = Seen::count(seen.asked, references, 0);
                }
            });
        }
        let tag = u64::from_ne_bytes(program.tag);
        let trusted = |known: &KnownProgram| {
            let kind = kinds::of(program.kind, program.attach_type);
            known.kind != 0 && known.tag == tag && known.kind == kind && known.hook == program.hook
        };
        let mut answer = if is_kept { Err(libc::EPERM) } else { Ok(()) };
        for guard in self.guards(Duty::GuardPrograms) {
            let seal = self.seal_of(guard);
            if id != 0 && seal.programs.contains(&id) {
                if self.written::<Added>(guard, MapName::Added).1.closed != 0 {
                    answer = Err(libc::ENOENT);
                }
                continue;
            }
            let hook = match program.hook {
                hook if hook == seal.dialogue_hook => kinds::Hook::Dialogue,
                hook if seal.hooks.contains(&hook) => kinds::Hook::Ours,
                _ => kinds::Hook::Another,
            };
            if kinds::reaches_us(program.kind, program.attach_type, hook, seal.flags)
                && !seal.trusted.iter().any(trusted)
            {
                answer = answer.and(Err(libc::EPERM));
            }
        }
        answer
    }

    /// A process is about to get a descriptor of a map that it does not make.
    fn guard_map(&mut self, id: u32) -> Result<(), i32> {
        let (references, users) = self.references(id);
        self.see(Duty::GuardMaps, |seal, seen| {
            seen.asked += 1;
            if let Some(at) = seal.maps.iter().position(|map| *map == id) {
                seen.counts[Known::MAPS + at] = Seen::count(seen.asked, references, users);
            }
        });
        let first = self.first_guard(first_guards::OF_MAPS);
        let kept = self.guards(Duty::GuardMaps).any(|guard| self.seal_of(guard).maps.contains(&id));
        if kept {
            return Err(libc::ENOENT);
        }
        if first.is_some_and(|newest| id > newest) { Err(libc::EPERM) } else { Ok(()) }
    }

    /// Opens an object for a process.
    pub(super) fn open(&mut self, id: u32) -> Result<i64, i32> {
        if self.denied_by_others.contains(&id) {
            return Err(libc::ENOENT);
        }
        match &self.objects.get(&id).ok_or(libc::ENOENT)?.what {
            What::Program(program) => {
                let program = program.clone();
                self.guard_program(id, &program)?;
            }
            What::Map(_) => self.guard_map(id)?,
            _ => {}
        }
        self.descriptor(id).map(i64::from)
    }

    pub(super) fn program_load(&mut self, attr: Attributes) -> Result<i64, i32> {
        let count = attr.word(4) as usize;
        // SAFETY: the caller's instructions, live for the call.
        let instructions =
            unsafe { std::slice::from_raw_parts(attr.long(8) as usize as *const bpf_insn, count) };
        let mut maps = Vec::new();
        for instruction in instructions.iter().filter(|i| i.code == 0x18 && matches!(i.src_reg(), 1 | 2)) {
            let id = self.find(instruction.imm.cast_unsigned())?;
            self.map(id).ok_or(libc::EINVAL)?;
            if !maps.contains(&id) {
                maps.push(id);
            }
        }
        let program = Program {
            kind: attr.word(0),
            attach_type: attr.word(68),
            hook: attr.word(108),
            name: attr.array(48),
            tag: object::tag(instructions, false),
            maps,
            // Where a first guard has it.
            newest: instructions.iter().find(|i| i.code == 0xb6).map_or(0, |i| i.imm.cast_unsigned()),
        };
        self.guard_program(0, &program)?;
        Ok(self.make(What::Program(program)).into())
    }

    pub(super) fn attach(&mut self, attr: Attributes) -> Result<i64, i32> {
        let program = self.find(attr.word(8))?;
        let attach_type = self.program(program).ok_or(libc::EINVAL)?.attach_type;
        Ok(self.make(What::Link { program, attach_type, cgroup: 0 }).into())
    }

    pub(super) fn link_create(&mut self, attr: Attributes) -> Result<i64, i32> {
        let program = self.find(attr.word(0))?;
        let attach_type = self.program(program).ok_or(libc::EINVAL)?.attach_type;
        if attach_type == sys::BPF_TRACE_ITER {
            return Ok(self.make(What::Link { program, attach_type, cgroup: 0 }).into());
        }
        self.expect_cgroup(attr.word(4))?;
        let cgroup = crate::machine::cgroups::ROOT_ID;
        Ok(self.make(What::Link { program, attach_type: attr.word(8), cgroup }).into())
    }

    /// The file keeps the program that its link has now.
    pub(super) fn iterator(&mut self, attr: Attributes) -> Result<i64, i32> {
        match self.objects[&self.find(attr.word(0))?].what {
            What::Link { program, attach_type: sys::BPF_TRACE_ITER, .. } => {
                Ok(self.make(What::Iterator { program }).into())
            }
            _ => Err(libc::EINVAL),
        }
    }

    /// Another process puts its own program into the link of each iterator.
    pub fn replace_iterators(&mut self, by: u32) -> usize {
        let links = self.objects.values_mut().filter_map(|object| match &mut object.what {
            What::Link { program, attach_type: sys::BPF_TRACE_ITER, .. } => Some(program),
            _ => None,
        });
        links.map(|program| *program = by).count()
    }

    /// Returns the text of an iterator's file, and stores what its program writes.
    pub(super) fn read_iterator(&mut self, file: u32, tasks: &str) -> Option<String> {
        let What::Iterator { program: id } = self.objects[&self.find(file).ok()?].what else { return None };
        let program = self.program(id)?.clone();
        if program.name == Duty::ListTasks.shown() {
            let (map, mut seen): (_, Seen) = self.written(&program, MapName::Seen);
            seen.asked += 1;
            seen.listed = seen.asked;
            assert_eq!(seen.lister, u64::from(std::process::id()));
            self.write_down(map, &seen);
        }
        Some(format!("{tasks}\nend\n"))
    }

    fn expect_cgroup(&self, fd: u32) -> Result<(), i32> {
        let id = self.find(fd)?;
        match self.objects[&id].what {
            What::RootCgroup => Ok(()),
            _ => Err(libc::EBADF),
        }
    }

    /// A process attaches to the root cgroup, or takes off, by BPF_PROG_ATTACH and BPF_PROG_DETACH.
    fn guard_call(&self, detaches: bool, attr: Attributes) -> Result<(), i32> {
        const BPF_F_REPLACE: u32 = 1 << 2;
        let ours = [kinds::ATTACH_LSM_CGROUP, kinds::ATTACH_CGROUP_SYSCTL].contains(&attr.word(8));
        let closed = |guard: &Program| self.seal_of(guard).flags & Seal::SYSCTL_CLOSED != 0;
        let closed = attr.word(8) == kinds::ATTACH_CGROUP_SYSCTL && self.guards(Duty::GuardCalls).any(closed);
        let meddles = closed || ours && (detaches || attr.word(12) & BPF_F_REPLACE != 0);
        if meddles && self.guards(Duty::GuardCalls).next().is_some() { Err(libc::EPERM) } else { Ok(()) }
    }

    pub(super) fn cgroup_attach(&mut self, attr: Attributes) -> Result<i64, i32> {
        self.guard_call(false, attr)?;
        let program = self.find(attr.word(4))?;
        let there = (attr.word(8), program);
        if self.program(program).ok_or(libc::EINVAL)?.attach_type != there.0 {
            return Err(libc::EINVAL);
        }
        self.expect_cgroup(attr.word(0))?;
        if self.root_cgroup.contains(&there) {
            return Err(libc::EINVAL);
        }
        self.root_cgroup.push(there);
        self.changes += 1;
        Ok(0)
    }

    pub(super) fn cgroup_detach(&mut self, attr: Attributes) -> Result<i64, i32> {
        self.guard_call(true, attr)?;
        self.expect_cgroup(attr.word(0))?;
        let there = (attr.word(8), self.find(attr.word(4))?);
        let before = self.root_cgroup.len();
        self.root_cgroup.retain(|held| *held != there);
        self.changes += 1;
        if self.root_cgroup.len() == before { Err(libc::ENOENT) } else { Ok(0) }
    }

    pub(super) fn cgroup_query(&mut self, attr: Attributes) -> Result<i64, i32> {
        self.expect_cgroup(attr.word(0))?;
        let kind = attr.word(4);
        let to_cgroup = self.objects.values().filter_map(|object| match object.what {
            What::Link { program, attach_type, cgroup } if cgroup != 0 => Some((attach_type, program)),
            _ => None,
        });
        let all = to_cgroup.chain(self.root_cgroup.iter().copied());
        let ids: Vec<u32> = all.filter(|(attach_type, _)| *attach_type == kind).map(|(_, id)| id).collect();
        assert!(ids.len() <= attr.word(24) as usize, "more programs than the caller has room for");
        attr.fill(16, &ids.iter().flat_map(|id| id.to_ne_bytes()).collect::<Vec<u8>>());
        attr.set(24, u32::try_from(ids.len()).expect("a few"));
        Ok(0)
    }

    pub(super) fn next_id(&mut self, attr: Attributes, is_it: impl Fn(&What) -> bool) -> Result<i64, i32> {
        let mut after = self.objects.range(attr.word(0).saturating_add(1)..);
        let (id, _) = after.find(|(_, object)| is_it(&object.what)).ok_or(libc::ENOENT)?;
        attr.set(4, *id);
        Ok(0)
    }

    pub(super) fn info(&mut self, attr: Attributes) -> Result<i64, i32> {
        let id = self.find(attr.word(0))?;
        match &self.objects[&id].what {
            What::Map(map) => {
                let mut words = [0u32; 20];
                words[..5].copy_from_slice(&[
                    map.kind,
                    id,
                    u32::try_from(map.key_size).expect("small"),
                    u32::try_from(map.value_size).expect("small"),
                    map.room,
                ]);
                for (word, four) in words[6..].iter_mut().zip(map.name.chunks_exact(4)) {
                    *word = u32::from_ne_bytes(four.try_into().expect("four bytes"));
                }
                attr.fill(8, &words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>());
            }
            What::Link { program, attach_type, cgroup } => {
                let mut words = [0u32; 32];
                (words[1], words[2]) = (id, *program);
                let hook = self.program(*program).map_or(0, |program| program.hook);
                words[0] = if *cgroup == 0 { TRACING_LINK } else { CGROUP_LINK };
                if *cgroup == 0 {
                    (words[4], words[6]) = (*attach_type, hook);
                } else {
                    (words[4], words[6]) = (u32::try_from(*cgroup).expect("the root's"), *attach_type);
                }
                attr.fill(8, &words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>());
            }
            What::Program(program) => {
                // SAFETY: the caller asks for a program with room for what is said of one.
                let info = unsafe { &mut *(attr.long(8) as usize as *mut bpf_prog_info) };
                (info.id, info.type_, info.tag) = (id, program.kind, program.tag);
                (info.attach_btf_id, info.attach_btf_obj_id) = (program.hook, u32::from(program.hook != 0));
                info.created_by_uid = 0;
                info.name = program.name.map(u8::cast_signed);
                (info.xlated_prog_len, info.xlated_prog_insns) = (0, 0);
                let room = info.nr_map_ids as usize;
                info.nr_map_ids = u32::try_from(program.maps.len()).expect("a few");
                let ids = program.maps.iter().take(room).flat_map(|map| map.to_ne_bytes());
                super::calls::to(info.map_ids, &ids.collect::<Vec<u8>>());
            }
            _ => return Err(libc::EINVAL),
        }
        Ok(0)
    }
}
