//! A seal beside foreign programs that the administrator trusts: by `--trust`, by the policy, and by id if a foreign guard hides them.

use std::{
    fs::{self, File},
    io,
    os::unix::process::CommandExt,
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::{
    enforced_unsealed,
    foreign::{Foreign, Kind},
    kcore_opens, lift_all, mem_opens, says_all, texts, verified,
};
use stockade_kernel::host;

use crate::{
    guest::Guest,
    program::{run, stockade},
    scenario::{Boot, Depends, Scenario},
};

pub(super) const SCENARIOS: &[Scenario] = &[
    // From here on the guest is sealed.
    Scenario {
        name: "seal: trusted programs stay and no others come",
        boot: Boot::SealedTrusting,
        depends: Depends::Series,
        run: trusting,
    },
    Scenario {
        name: "seal: what the policy trusts is let in after the seal",
        boot: Boot::SealedTrustingPolicy,
        depends: Depends::Series,
        run: trusting_policy,
    },
    Scenario {
        name: "seal: a program that another guard hides is named and trusted by id",
        boot: Boot::SealedHidden,
        depends: Depends::Series,
        run: hidden,
    },
];

fn trusting(_: &Guest) -> Result<()> {
    lift_all()?;
    let root = File::open("/sys/fs/cgroup")?;
    let lsm = Foreign::load(Kind::Lsm, 11)?;
    let _link = lsm.attach()?;
    let sysctl = Foreign::load(Kind::CgroupSysctl, 12)?;
    let beside = Foreign::load(Kind::LsmCgroup, 13)?;
    stockade(&["enforce", "integrity"])?.exits(0)?;
    beside.attach_to(&root).context("attach to the root cgroup")?;
    says_all(stockade(&["seal"])?.exits(2)?, &["lab_sysctl", "asked for sysctls"])?;
    let bounded = host::is_at_least(6, 12);
    let names: &[&str] =
        if bounded { &["lab_lsm_cgroup (LSM)"] } else { &["lab_lsm (LSM)", "lab_lsm_cgroup (LSM)"] };
    says_all(stockade(&["seal", "--trust", &sysctl.tag])?.exits(2)?, names)?;
    enforced_unsealed()?;

    let (id, other) = (lsm.id.to_string(), beside.id.to_string());
    let trust = ["seal", "--json", "--trust", &id, "--trust", &sysctl.tag, "--trust", &other];
    let answer = stockade(&trust)?;
    let report = answer.exits(0)?.json()?;
    ensure!(
        texts(&report["trusted"])
            == [
                format!("{id} lab_lsm {}", lsm.tag),
                format!("{} lab_sysctl {}", sysctl.id, sysctl.tag),
                format!("{other} lab_lsm_cgroup {}", beside.tag)
            ],
        "{report:#}"
    );
    ensure!(!mem_opens() && kcore_opens(), "what is refused is not what integrity refuses");
    verified(1)?;
    stockade(&["lift"])?.exits(2)?.says("sealed until it is rebooted")?;

    // A program with a trusted tag can be loaded again; another cannot, even without being attached.
    for (kind, number) in [(Kind::Lsm, 11), (Kind::CgroupSysctl, 12), (Kind::LsmCgroup, 13)] {
        Foreign::load(kind, number)?;
        if bounded && kind == Kind::Lsm {
            // Since 6.12 an LSM program can only refuse more.
            continue;
        }
        let answer = Foreign::try_load(kind, number + 100)?;
        ensure!(
            answer.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::PermissionDenied),
            "{kind:?}: {answer:?}"
        );
    }
    // A program that is attached to the root cgroup cannot be detached.
    let gone = beside.detach_from(&root);
    ensure!(gone.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::PermissionDenied), "{gone:?}");
    ensure!(!mem_opens(), "/dev/mem opens");
    Ok(())
}

fn refused(kind: Kind, number: u32) -> Result<()> {
    let answer = Foreign::try_load(kind, number)?;
    ensure!(
        answer.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::PermissionDenied),
        "{kind:?} {number}: {answer:?}"
    );
    Ok(())
}

fn trusting_policy(_: &Guest) -> Result<()> {
    const TRUST: &str = "/run/trust.toml";
    lift_all()?;
    let record = ["trust", "record", "--output", TRUST];
    let mut nobody = Command::new("/bin/stockade");
    run(nobody.args(record).uid(65534).gid(65534))?.exits(2)?.says("run this as root")?;
    stockade(&["trust", "record"])?
        .exits(0)?
        .says("No program of others is loaded that a seal would keep out")?;

    // Two versions of an agent are recorded one after the other, as under two kernels.
    let root = File::open("/sys/fs/cgroup")?;
    // Not attached: the kernel reports the expected attach type of a loaded program.
    let agent = Foreign::load(Kind::LsmCgroup, 31)?;
    let report = stockade(&[&record[..], &["--json"]].concat())?.exits(0)?.json()?;
    let program = &report["programs"][0];
    ensure!(
        program["name"] == "lab_lsm_cgroup"
            && program["kind"] == "lsm-cgroup"
            && program["hook"] == "locked_down"
            && program["tag"] == agent.tag.as_str()
            && program["about"].as_str().is_some_and(|about| about.starts_with("loaded by user 0, held by ")),
        "{report:#}"
    );
    drop(agent);
    let agent = Foreign::load(Kind::LsmCgroup, 32)?;
    agent.attach_to(&root)?;
    let sysctl = Foreign::load(Kind::CgroupSysctl, 33)?;
    let answer = stockade(&record)?.exits(0)?;
    says_all(answer, &["another tag: lab_lsm_cgroup", "new: lab_sysctl"])?;
    let tags = [agent.tag.clone(), sysctl.tag.clone()];
    agent.detach_from(&root)?;
    drop((agent, sysctl));
    let text = fs::read_to_string(TRUST)?;
    ensure!(
        tags.iter().all(|tag| text.contains(tag)) && text.matches("[[seal.trust]]").count() == 2,
        "{text}"
    );
    stockade(&["trust", "record", "--output", "/run/no-such-folder/trust.toml"])?
        .exits(2)?
        .says("/run/no-such-folder/trust.toml")?;

    let level = "/run/level.toml";
    fs::write(level, "level = \"integrity\"\n")?;
    stockade(&["enforce", "--policy", level, "--policy", TRUST])?.exits(0)?;
    let answer = stockade(&["seal"])?.exits(0)?;
    says_all(
        answer,
        &["trusted by the policy: lab_lsm_cgroup: lsm-cgroup on locked_down", "lab_sysctl: cgroup-sysctl"],
    )?;
    verified(1)?;
    stockade(&["trust", "record"])?.exits(2)?.says("sealed until it is rebooted")?;

    // None of the trusted programs was loaded when the guest was sealed.
    let there = [
        Foreign::load(Kind::LsmCgroup, 31)?,
        Foreign::load(Kind::LsmCgroup, 32)?,
        Foreign::load(Kind::CgroupSysctl, 33)?,
    ];
    there[0].attach_to(&File::open("/sys/fs/cgroup")?).context("attach to the root cgroup")?;
    refused(Kind::LsmCgroup, 33)?;
    refused(Kind::CgroupSysctl, 31)?;
    // The trusted instructions as BPF_LSM_MAC instead of BPF_LSM_CGROUP: before 6.12 their return value 1 would allow the request.
    ensure!(
        Foreign::try_load(Kind::LsmCgroupForLink, 31)?.is_err(),
        "a trusted program is loaded for a link"
    );
    ensure!(!mem_opens() && kcore_opens(), "what is refused is not what integrity refuses");
    verified(1)?;
    // A policy that trusts another tag is laxer than the sealed one, and cannot be added.
    fs::write(TRUST, text.replace(&tags[0], "1111111111111111"))?;
    stockade(&["enforce", "--policy", level, "--policy", TRUST])?
        .exits(2)?
        .says("the trusted program lab_lsm_cgroup: tags is ")?;
    Ok(())
}

fn hidden(_: &Guest) -> Result<()> {
    lift_all()?;
    let unknown = Foreign::load(Kind::LsmCgroup, 41)?;
    let proven = Foreign::load(Kind::LsmElsewhere, 42)?;
    let _proven_link = proven.attach()?;
    let guard = Foreign::load(Kind::Guard, unknown.id)?;
    let other_guard = Foreign::load(Kind::Guard, proven.id)?;
    let guard_links = [guard.attach()?, other_guard.attach()?];

    stockade(&["enforce", "integrity"])?.exits(0)?;
    stockade(&["status"])?.exits(0)?;
    let answer = stockade(&["residual"])?;
    ensure!(
        (answer.out.clone() + &answer.err).contains("a guard on BPF programs (lab_guard (program "),
        "{} {}",
        answer.out,
        answer.err
    );
    let id = unknown.id.to_string();
    let guards = format!("(lab_guard (program {}), lab_guard (program {}))", guard.id, other_guard.id);
    let said = format!("program {id}: another guard on BPF programs {guards} refuses to let it be looked at");
    stockade(&["trust", "record"])?.exits(1)?.says(&format!("Not recorded: {said}"))?;
    let answer = stockade(&["seal"])?.exits(2)?;
    ensure!(!answer.err.contains(&format!("program {}:", proven.id)), "{}", answer.err);
    let holder = format!("({})", std::process::id());
    says_all(answer, &[said, holder, format!("--trust {id}")])?;
    enforced_unsealed()?;
    stockade(&["seal", "--trust", &unknown.tag])?.exits(2)?.says("name them by id")?;

    // systemd 262 hides the links of its guards as well.
    let link_guard = Foreign::load(Kind::LinkGuard, Foreign::link_id(&guard_links[0])?)?;
    let _link_guard_link = link_guard.attach()?;
    stockade(&["seal", "--trust", &id])?
        .exits(2)?
        .says(&format!("{} lab_link_guard (LSM)", link_guard.id))?;

    let mut trust = vec!["seal", "--json", "--trust", &id, "--trust", &link_guard.tag];
    // The foreign guards are on the hook of a guard of the seal. Since 6.12 they can only refuse more.
    if !host::is_at_least(6, 12) {
        trust.extend(["--trust", &guard.tag, "--trust", &other_guard.tag]);
    }
    let report = stockade(&trust)?.exits(0)?.json()?;
    ensure!(texts(&report["trusted"]).contains(&id.as_str()), "{report:#}");
    ensure!(report["verified"] == true, "{report:#}");
    verified(1)?;
    refused(Kind::LsmCgroup, 41)?;
    let sealed = verified(1)?;
    // A program that another guard hides after the seal has passed the seal's own guard: status still says verified.
    let later = Foreign::load(Kind::LsmElsewhere, 43)?;
    if host::is_at_least(6, 12) {
        let _link = Foreign::load(Kind::Guard, later.id)?.attach()?;
        // status cannot rule out that a hidden program without a link bypassed the seal's guard on programs.
        let answer = stockade(&["status"])?.exits(1)?;
        answer.says(&format!("program {} of another's is loaded", later.id))?;
        let _attached = later.attach()?;
        verified(1).with_context(|| format!("before: {sealed:#}"))?;
    }
    ensure!(!mem_opens(), "/dev/mem opens");
    Ok(())
}
