/*!
The compiled kernel side, loaded. Aya's object crate reads the ELF file and relocates it, Aya makes the
maps; the program itself is loaded by [`crate::sys`], against the hook that [`crate::btf`] found.
*/
use std::{
    collections::{HashMap, HashSet},
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use aya::maps::{Array, Map, MapData, PerCpuArray};
use aya_obj::{EbpfSectionKind, Object};
use stockade_common::Policy;

use crate::{
    Error,
    btf::KernelTypes,
    pins::{self, PolicyValue},
    sys,
};

/// Rebuilt by `cargo xtask bpf` from the folder stockade-ebpf.
static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/stockade.bpf.o"));

/// Maps and program, loaded and not yet attached. Dropping it unloads everything.
pub struct Loaded {
    pub policy: Array<MapData, PolicyValue>,
    pub counters: PerCpuArray<MapData, u64>,
    /// The maps once more, by the names that pins give them: Aya's typed maps keep theirs.
    pub to_pin: [(&'static str, OwnedFd); 3],
    program: OwnedFd,
}

/// The program's name in the kernel, as `bpftool prog` shows it.
pub(crate) const PROGRAM_NAME: &[u8; 16] = b"stockade\0\0\0\0\0\0\0\0";

/// Makes the maps with this policy in force, and loads the program for this kernel and target.
pub fn load(types: &KernelTypes, policy: &Policy, target: sys::Target) -> Result<Loaded, Error> {
    let broken = |e: &dyn std::fmt::Display| Error::Object(e.to_string());
    let mut object = Object::parse(OBJECT).map_err(|e| broken(&e))?;

    let offsets: Vec<u8> = types.offsets.words().iter().flat_map(|word| word.to_ne_bytes()).collect();
    object.patch_map_data(HashMap::from([("OFFSETS", (&offsets[..], true))])).map_err(|e| broken(&e))?;

    let mut maps = HashMap::new();
    let mut plan = Vec::new();
    for (name, map) in object.maps.drain() {
        let data = MapData::create(map.clone(), &name, None).map_err(|e| match e {
            aya::maps::MapError::CreateError { io_error, .. } => Error::bpf("creating a BPF map", io_error),
            other => broken(&other),
        })?;
        plan.push((name.clone(), data.fd().as_fd().as_raw_fd(), map));
        maps.insert(name, data);
    }
    let text: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    object
        .relocate_maps(plan.iter().map(|(name, fd, map)| (name.as_str(), *fd, map)), &text)
        .map_err(|e| broken(&e))?;
    object.relocate_calls(&text).map_err(|e| broken(&e))?;

    for (name, _, map) in &plan {
        if map.section_kind() == EbpfSectionKind::Rodata {
            sys::fill_and_freeze(maps[name].fd().as_fd(), map.data())
                .map_err(|e| Error::bpf("writing the program's constants", e))?;
        }
    }
    // The program names the maps by these descriptors, so it is loaded before they change hands.
    let program = object
        .programs
        .get("locked_down")
        .ok_or_else(|| Error::Object("it has no program locked_down".into()))?;
    let instructions = &object.functions[&program.function_key()].instructions;
    let load = |log: &mut [u8]| sys::load(instructions, &object.license, PROGRAM_NAME, target, log);
    let program = load(&mut []).map_err(|first| {
        if first.raw_os_error() == Some(libc::EPERM) {
            return Error::bpf("loading the BPF program", first);
        }
        // Once more, for the verifier's words.
        let mut log = vec![0; 1 << 20];
        match load(&mut log) {
            Ok(_) => Error::Rejected { source: first, log: "the second try succeeded".into() },
            Err(source) => Error::Rejected { source, log: last_lines(&log) },
        }
    })?;

    let mut take = |name: &str| {
        let data = maps.remove(name).ok_or_else(|| Error::Object(format!("it has no map {name}")))?;
        let fd = data.fd().as_fd().try_clone_to_owned().map_err(|e| Error::io("keep a map", e))?;
        Ok((Map::from_map_data(data).map_err(|e| broken(&e))?, fd))
    };
    let (policy_map, policy_fd) = take(".data.policy")?;
    let (counters, counters_fd) = take("COUNTS")?;
    let (_, events_fd) = take("EVENTS")?;
    let mut policy_map: Array<_, PolicyValue> = Array::try_from(policy_map).map_err(|e| broken(&e))?;
    policy_map.set(0, PolicyValue(*policy), 0).map_err(|e| broken(&e))?;
    let counters = PerCpuArray::try_from(counters).map_err(|e| broken(&e))?;
    let to_pin = [(pins::POLICY, policy_fd), (pins::COUNTS, counters_fd), (pins::EVENTS, events_fd)];
    Ok(Loaded { policy: policy_map, counters, to_pin, program })
}

impl Loaded {
    /// Attaches the program. It decides from here on, as long as the link lives.
    pub fn attach(&self) -> Result<OwnedFd, Error> {
        sys::attach(self.program.as_fd()).map_err(|e| Error::bpf("attaching the BPF program", e))
    }
}

fn last_lines(log: &[u8]) -> String {
    let end = log.iter().position(|&b| b == 0).unwrap_or(log.len());
    let text = String::from_utf8_lossy(&log[..end]);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
