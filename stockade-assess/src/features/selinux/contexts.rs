/*!
The contexts of processes: which run in domains that the policy leaves alone.
*/
use super::UNCONFINED;
use crate::{
    Finding, How, System, Verdict, few,
    processes::{is_kernels, name, unseen},
};

/// Domains of services and leftovers that the usual policies let do everything, or for which they were not made.
const LEFT_ALONE: [&str; 4] = ["unconfined_service_t", "initrc_t", "kernel_t", "unlabeled_t"];

/// The domain of people who have logged in.
const PEOPLE: &str = "unconfined_t";

/// Services that no domain of their own confines. People who have logged in are counted and are not to blame.
pub(super) fn unconfined(system: &System) -> Finding {
    let processes = match system.processes() {
        Ok(processes) => processes,
        Err(unread) => return Finding::unknown(UNCONFINED, How::Read, unread),
    };
    let (mut seen, mut people) = (0, 0);
    let mut found = Vec::new();
    for pid in processes {
        let Ok(context) = system.text(&format!("/proc/{pid}/attr/current")) else { continue };
        let Some(domain) = domain(&context) else { continue };
        seen += 1;
        if domain == PEOPLE {
            people += 1;
        } else if LEFT_ALONE.contains(&domain) && !is_kernels(system, pid) {
            found.push(format!("{} as {domain}", name(system, pid)));
        }
    }
    if seen == 0 {
        return Finding::unknown(
            UNCONFINED,
            How::Read,
            "no process shows its context (/proc/PID/attr/current)",
        );
    }
    if found.is_empty()
        && let Some(why) = unseen(system)
    {
        return Finding::unknown(UNCONFINED, How::Read, why);
    }
    let finding = match found.len() {
        0 => Finding::new(
            UNCONFINED,
            Verdict::Pass,
            How::Read,
            "no service runs in an unconfined SELinux domain",
        ),
        1 => Finding::new(
            UNCONFINED,
            Verdict::Warn,
            How::Read,
            "one process that nobody started by hand runs unconfined",
        ),
        n => {
            let found = format!("{n} processes that nobody started by hand run unconfined");
            Finding::new(UNCONFINED, Verdict::Warn, How::Read, found)
        }
    };
    let observed = if found.is_empty() { format!("none of {seen} processes") } else { few(&found) };
    finding
        .seen("/proc/PID/attr/current", observed)
        .seen(format!("processes of people who have logged in, as {PEOPLE}"), people.to_string())
}

/// The type in `user:role:type:level`.
fn domain(context: &str) -> Option<&str> {
    context.trim_end_matches('\0').split(':').nth(2).filter(|domain| !domain.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_without_a_domain_of_their_own_are_named_and_the_kernels_threads_are_not() {
        let with = |context| {
            unconfined(&System::fake(&[
                ("/proc/2/attr/current", "system_u:system_r:kernel_t:s0\0"),
                ("/proc/2/stat", "2 (kthreadd) S 0 0 0 0 -1 2129984 0 0\n"),
                ("/proc/7/attr/current", context),
                ("/proc/7/stat", "7 (x) S 1 7 7 0 -1 4194560 0 0\n"),
                ("/proc/7/comm", "x"),
            ]))
        };
        assert_eq!(with("system_u:system_r:sshd_t:s0-s0:c0.c1023\0").verdict, Verdict::Pass);
        assert_eq!(with("u:r:unconfined_t:s0").verdict, Verdict::Pass);
        let bad = with("system_u:system_r:kernel_t:s0\0");
        assert_eq!((bad.verdict, bad.evidence[0].observed.as_str()), (Verdict::Warn, "x (7) as kernel_t"));
        assert_eq!(with("system_u:system_r:initrc_t:s0").verdict, Verdict::Warn);
        assert_eq!(
            unconfined(&System::fake(&[("/proc/1/attr/current", "unconfined\n")])).verdict,
            Verdict::Unknown
        );
        let alone = System::fake(&[("/proc/7/attr/current", "u:r:user_t:s0")]).not_root();
        assert_eq!(unconfined(&alone).verdict, Verdict::Unknown);
    }
}
