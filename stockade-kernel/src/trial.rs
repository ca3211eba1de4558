/*!
Attaches the deciding program with a policy that refuses nothing and reports nothing. `enforce` starts so, and `check-host` tests so whether a
policy could be enforced.

```text
load, policy "watch everything, refuse nothing"  →  attach  →  self-test  →  enforce goes on: tables, policy, pins
                                                                             →  a trial detaches the program
```

Nothing is pinned: the kernel detaches the program when this process ends or closes the link.
*/
use std::{
    collections::HashMap,
    os::fd::{AsFd, OwnedFd},
};

use stockade_common::{LAYOUT, MAGIC, Policy as KernelPolicy, Slot, Words};
use stockade_reasons::Level;

use crate::{
    Error,
    machine::{Machine, btf::KernelTypes},
    pinned::{
        elsewhere,
        pins::{self, Lock, Pinned},
    },
    program::{
        attach::{Attachment, wait_until_detached},
        duty::Duty,
        object::{MapName, Object},
    },
    sealed::anchor::{self, Found},
    selftest::{self, SelfTest},
    sys::{self, Counters, step},
};

/// The attached program and its maps.
pub(crate) struct Attached {
    pub object: Object,
    pub policy: KernelPolicy,
    pub link: OwnedFd,
    pub counters: Counters,
    pub heard: SelfTest,
}

/// Loads and attaches a deciding program, and proves that a real request reaches it.
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
    let counters = object.counters()?;
    let heard =
        selftest::run(types, &selftest::counted(&counters), u64::MAX, attachment.refused_before(native))?;
    step("heard");
    Ok(Attached { object, policy, link, counters, heard })
}

pub(crate) fn write(object: &Object, policy: &KernelPolicy) -> Result<(), Error> {
    let map = object.map(MapName::Policy)?;
    sys::update(map, &0u32, policy).map_err(|e| Error::bpf("writing the policy", e))
}

/// The result of a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trial {
    /// The program was attached in this way, tested and detached.
    Worked(Attachment, SelfTest),
    /// Nothing was tried: a policy of Stockade is in force.
    InForce,
    /// Nothing was tried: the machine is sealed.
    Sealed,
}

/// Attaches the deciding program with a policy that refuses nothing, proves that a real request reaches it, and detaches it. Changes nothing if a
/// policy is in force or sealed.
///
/// # Errors
/// Those of [`crate::enforce::enforce`] before it applies a policy; and if the kernel does not detach the program.
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
    wait_until_detached(&link)?;
    Ok(Trial::Worked(attachment, heard))
}
