/*!
Attacks on `seal` while it runs, by tight limits or by writes into its maps: afterwards everything is sealed or nothing.

The scenarios of the seal kill it at every step.
*/
use std::{
    collections::HashSet,
    fs,
    os::unix::process::CommandExt,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use stockade_kernel::btf::KernelTypes;

use super::{
    begin::is_sealed,
    bpf::{self, ObjectType},
    maps,
    proof::{Prover, opened, shut},
};
use crate::{
    guest::Guest,
    program::{Answer, lift_all, run, stockade},
    scenario::{Boot, Depends, Scenario},
    syscall::check,
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "attack-on-sealing: short of descriptors, everything or nothing",
        boot: Boot::SealStarved,
        depends: Depends::UserSide,
        run: descriptors,
    },
    Scenario {
        name: "attack-on-sealing: short of memory, everything or nothing",
        boot: Boot::SealStarved,
        depends: Depends::UserSide,
        run: memory,
    },
    Scenario {
        name: "attack-on-sealing: short of locked memory and room in files, everything or nothing",
        boot: Boot::SealStarved,
        depends: Depends::UserSide,
        run: locked,
    },
    // The seal of this one succeeds and lasts until reboot.
    Scenario {
        name: "attack-on-sealing: nobody writes into its maps meanwhile",
        boot: Boot::SealMeddled,
        depends: Depends::Series,
        run: meddled,
    },
];

fn seal_under(limits: &[(libc::__rlimit_resource_t, u64)]) -> Result<Answer> {
    let limits = limits.to_vec();
    let mut command = Command::new("/bin/stockade");
    command.arg("seal");
    // SAFETY: setrlimit is async-signal-safe, and the limits are live.
    unsafe {
        command.pre_exec(move || {
            for (what, most) in &limits {
                let limit = libc::rlimit { rlim_cur: *most, rlim_max: *most };
                check(libc::setrlimit(*what, &raw const limit))?;
            }
            Ok(())
        });
    }
    run(&mut command)
}

/// Requires that a failed seal has no effect and a successful one is complete; enforcement goes on either way. Reports whether it is
/// sealed.
fn all_or_nothing(answer: &Answer, what: &str) -> Result<bool> {
    let prover = Prover::new()?;
    let status = stockade(&["status", "--json"])?.exits(0)?.json()?;
    shut(&prover.root()?).with_context(|| format!("{what}: {answer:?}"))?;
    if answer.code == 0 {
        is_sealed(&status).with_context(|| what.to_owned())?;
        return Ok(true);
    }
    ensure!(
        status["stockade"]["sealed"].is_null(),
        "{what}: seal failed, and status says {status}; {answer:?}"
    );
    // Enforcement can be lifted only if nothing is sealed.
    let doors = shut(&prover.root()?)?;
    stockade(&["lift"])?.exits(0).with_context(|| what.to_owned())?;
    let open = opened(&doors, &prover.root()?)?;
    ensure!(!open.is_empty(), "{what}: seal failed, enforcement was lifted, and all doors are shut");
    Ok(false)
}

/// Tries limits from the lowest on. Fails if `seal` succeeds with one of them.
fn starve(limits: &[u64], what: libc::__rlimit_resource_t, name: &str) -> Result<()> {
    let already = stockade(&["status", "--json"])?.json()?["stockade"]["sealed"].is_object();
    ensure!(!already, "an earlier scenario has sealed this guest");
    let mut failed = 0;
    for &limit in limits {
        lift_all()?;
        stockade(&["enforce", "confidentiality"])?.exits(0)?;
        let answer = seal_under(&[(what, limit)])?;
        ensure!(!all_or_nothing(&answer, &format!("{name} {limit}"))?, "{name} {limit} was enough: use less");
        failed += 1;
    }
    ensure!(failed == limits.len(), "only {failed} limits made seal fail");
    Ok(())
}

fn descriptors(_: &Guest) -> Result<()> {
    // The tests of stockade-kernel make each single call of the command fail.
    let limits: Vec<u64> = (3..=14).step_by(4).collect();
    starve(&limits, libc::RLIMIT_NOFILE, "descriptors")
}

/// Limits memory to amounts from too little to start the program to almost enough.
fn memory(_: &Guest) -> Result<()> {
    let limits: Vec<u64> = (2..=7).map(|megabytes| megabytes << 20).collect();
    starve(&limits, libc::RLIMIT_AS, "bytes of memory")
}

/// Forbids locked memory and writes to files. `seal` needs neither: if it succeeds, the seal has to be complete.
fn locked(_: &Guest) -> Result<()> {
    lift_all()?;
    stockade(&["enforce", "confidentiality"])?.exits(0)?;
    let answer = seal_under(&[(libc::RLIMIT_MEMLOCK, 0), (libc::RLIMIT_FSIZE, 0)])?;
    all_or_nothing(&answer, "no locked memory, no room in files")?;
    Ok(())
}

/// Has a process remove the refusals of all but two reasons from every policy map that appears, as fast as it can, from before `seal`
/// begins until after it has ended.
fn meddled(_: &Guest) -> Result<()> {
    lift_all()?;
    stockade(&["enforce", "confidentiality"])?.exits(0)?;
    let prover = Prover::new()?;
    let doors = shut(&prover.root()?)?;
    // The reasons that a proof would try stay refused.
    let types = KernelTypes::of_running_kernel()?;
    let kept = ["LOCKDOWN_KCORE", "LOCKDOWN_IOPORT"].iter().filter_map(|name| types.number(name));
    let kept = kept.fold(0, |set, number| set | 1_u64 << number);
    let there: HashSet<u32> = bpf::ids(ObjectType::Map).into_iter().collect();
    // SAFETY: a scenario's process has one thread; the child leaves through _exit.
    let meddler = check(unsafe { libc::fork() }).context("fork")?;
    if meddler == 0 {
        let begin = Instant::now();
        let (mut tried, mut written) = (0_usize, 0_usize);
        while begin.elapsed() < Duration::from_mins(1) {
            for id in bpf::ids(ObjectType::Map).into_iter().filter(|id| !there.contains(id)) {
                tried += 1;
                if let Ok(map) = bpf::by_id(ObjectType::Map, id)
                    && maps::keep(&map, kept).is_ok()
                {
                    written += 1;
                }
                // The file is replaced whole, since this process may be killed at any moment.
                let _ = fs::write("/run/meddling", format!("{tried} {written}"))
                    .and_then(|()| fs::rename("/run/meddling", "/run/meddled"));
            }
        }
        // SAFETY: _exit takes a number; it ends the child without running the parent's exit handlers.
        unsafe { libc::_exit(0) }
    }
    std::thread::sleep(Duration::from_millis(200));
    let answer = stockade(&["seal"]);
    // SAFETY: kill takes numbers only, and waitpid takes a null pointer when no status is wanted; the child is this process's.
    unsafe {
        libc::kill(meddler, libc::SIGKILL);
        libc::waitpid(meddler, std::ptr::null_mut(), 0);
    }
    let answer = answer?;
    let counts = fs::read_to_string("/run/meddled").unwrap_or_default();
    let (tried, written) = counts.split_once(' ').context("no map was there to be tried while seal ran")?;
    println!("tried {tried} times, written {written} times; seal ended with {}", answer.code);
    ensure!(written == "0" && answer.code == 0, "a map was written {written} times: {answer:?}");
    let open = opened(&doors, &prover.root()?)?;
    ensure!(
        open.is_empty(),
        "seal ended with {}, and these doors are open: {open:?}: {answer:?}",
        answer.code
    );
    let status = stockade(&["status", "--json"])?.exits(0)?.json()?;
    is_sealed(&status)?;
    let refused = status["stockade"]["refused"].as_array().map_or(0, Vec::len);
    ensure!(refused >= 20, "sealed, and of confidentiality's reasons only {refused} are refused: {status}");
    Ok(())
}
