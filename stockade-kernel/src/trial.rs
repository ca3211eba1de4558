/*!
Attaching the program with a policy that refuses nothing and reports nothing: how enforcement starts, and how `check-host` finds out
whether it could.

```text
load, policy "hear everything"  →  attach  →  self-test  →  enforce goes on: tables, policy, pins
                                                         →  a trial lets go of it
```

Nothing is pinned: the kernel takes the program off when this process lets go of it, or ends however it ends.
*/
use std::{
    collections::HashMap,
    os::fd::{AsFd, OwnedFd},
};

use stockade_common::{LAYOUT, MAGIC, Policy as KernelPolicy, Slot, Words};
use stockade_reasons::Level;

use crate::{
    Error,
    anchor::{self, Found},
    attach::Attachment,
    btf::KernelTypes,
    duty::Duty,
    elsewhere,
    enforce::{Machine, counters, step},
    lift,
    object::{MAPS, Object},
    pins::{self, Lock, Pinned},
    selftest::{self, SelfTest},
    sys::{self, Counters},
};

/// What is attached and refuses nothing.
pub(crate) struct Attached {
    pub object: Object,
    pub policy: KernelPolicy,
    pub link: OwnedFd,
    pub counters: Counters,
    pub heard: SelfTest,
}

/// Loads and attaches the program for a duty that decides, and has it hear a real request.
pub(crate) fn attach(
    types: &KernelTypes,
    decider: Duty,
    native: Level,
    attachment: Attachment,
) -> Result<Attached, Error> {
    let hear_everything = Slot {
        words: Words { watched_anywhere: u64::MAX, watched: u64::MAX, quiet: u64::MAX, ..Words::default() },
        ..Slot::default()
    };
    let policy = KernelPolicy {
        magic: MAGIC,
        layout: LAYOUT,
        pad: 0,
        active: 0,
        slots: [hear_everything, Slot::default()],
    };
    let object = Object::open(types, HashMap::new())?;
    write(&object, &policy)?;
    step("loaded");
    let link = object.attach(decider, attachment.target(types)?)?;
    step("attached");
    let counters = counters(&object)?;
    let heard =
        selftest::run(types, &selftest::counted(&counters), u64::MAX, attachment.refused_before(native))?;
    step("heard");
    Ok(Attached { object, policy, link, counters, heard })
}

pub(crate) fn write(object: &Object, policy: &KernelPolicy) -> Result<(), Error> {
    let map = object.map(MAPS[0].0)?;
    sys::update(map, &0u32, policy).map_err(|e| Error::bpf("writing the policy", e))
}

/// What a trial found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trial {
    /// The program was attached so, asked and taken off again.
    Worked(Attachment, SelfTest),
    /// Nothing was tried: a policy of Stockade's is in force.
    InForce,
    /// Nothing was tried: this machine is sealed.
    Sealed,
}

/// Attaches the program with a policy that refuses nothing, has it hear a real request, and takes it off. Where something is in force
/// or sealed, that is left alone.
///
/// # Errors
/// Whatever [`crate::enforce::enforce`] would end with before it has a policy of its own to apply; and when the kernel does not take the
/// program off again.
pub fn run() -> Result<Trial, Error> {
    let machine = Machine::look()?;
    let _lock = Lock::take()?;
    if let Found::Sealed(_) = anchor::look()? {
        return Ok(Trial::Sealed);
    }
    if let Pinned::Whole(_) = pins::open()? {
        return Ok(Trial::InForce);
    }
    elsewhere::nothing()?;
    let Machine { types, lsms, native } = machine;
    let attachment = Attachment::choose(&lsms, &types);
    let attached =
        attach(&types, Duty::Decide, native, attachment).map_err(|error| attachment.explain(error, lsms))?;
    let link = sys::link_info(attached.link.as_fd()).map_err(|e| Error::io("ask for the link", e))?;
    let heard = attached.heard.clone();
    drop(attached);
    lift::wait_until_detached(&link)?;
    Ok(Trial::Worked(attachment, heard))
}
