/*!
The kernel's crypto API: the registered algorithms, their self-tests, FIPS mode, and AF_ALG sockets.
*/
use std::collections::BTreeMap;

use crate::{
    Feature, Finding, How, Report, System, Verdict,
    af_alg::{self, Reach},
    algorithms::{Algorithms, Implementation, LIST},
    few,
};

pub(super) const FEATURE: Feature =
    Feature { id: "crypto-api", title: "Kernel crypto API", ..Feature::new(check) };

const NO_TESTS: &str = "/sys/module/cryptomgr/parameters/notests";
const FIPS: &str = "/proc/sys/crypto/fips_enabled";

/// Broken or obsolete algorithms, which protect little.
const WEAK: [&str; 12] = [
    "md4",
    "des",
    "des3_ede",
    "arc4",
    "rc4",
    "rc2",
    "tea",
    "xtea",
    "xeta",
    "khazad",
    "anubis",
    "michael_mic",
];

/// Algorithms broken for signatures that every kernel keeps for NFS, TCP-MD5, old measurements, old certificates and HMAC.
const KEPT: [&str; 2] = ["md5", "sha1"];

fn check(system: &System, report: &mut Report) {
    let algorithms = Algorithms::of(system);
    match &algorithms {
        Ok(algorithms) => {
            report.add(self_tests(system, algorithms));
            report.add(weak(system, algorithms));
        }
        Err(unread) => {
            report.add(Finding::unknown("crypto-api.self-tests", How::Read, unread));
            report.add(Finding::unknown("crypto-api.weak", How::Read, unread));
        }
    }
    report.add(fips(system));
    report.add(reach(system));
}

fn self_tests(system: &System, algorithms: &Algorithms) -> Finding {
    const ID: &str = "crypto-api.self-tests";
    let all = algorithms.0.len();
    let failed: Vec<&str> =
        algorithms.0.iter().filter(|one| !one.passed).map(|one| one.driver.as_str()).collect();
    let list = format!("{all} implementations, {} not marked as passed", failed.len());
    let finding = |verdict, found: &str| Finding::new(ID, verdict, How::Read, found).seen(LIST, &list);

    // /proc/crypto shows "passed" even where nothing is tested.
    if let Some((option, value)) = without_tests(system) {
        return finding(Verdict::Warn, "crypto self-tests off: the kernel was built without them")
            .seen(option, value);
    }
    let fips = system.text(FIPS).is_ok_and(|text| text == "1");
    match system.text(NO_TESTS) {
        Ok(value) if value == "Y" && !fips => {
            finding(Verdict::Warn, "crypto self-tests off: cryptomgr.notests is set").seen(NO_TESTS, value)
        }
        Ok(value) if matches!(value.as_str(), "Y" | "N") => {
            // FIPS mode runs the tests despite cryptomgr.notests.
            let finding = if failed.is_empty() {
                finding(Verdict::Pass, "every crypto implementation passed the kernel's self-tests")
            } else {
                finding(
                    Verdict::Warn,
                    "crypto implementations failed the kernel's self-tests; the kernel does not use them",
                )
                .seen("not passed", few(&failed))
            };
            finding.seen(NO_TESTS, value)
        }
        Ok(value) => Finding::unknown(ID, How::Read, format!("{NO_TESTS}: not understood: {value:?}")),
        Err(unread) => {
            // Without the parameter, nothing shows that tests ran.
            Finding::unknown(ID, How::Read, format!("whether crypto self-tests ran is unknown: {unread}"))
                .seen(LIST, &list)
        }
    }
}

/// Returns the option that says the tests were compiled out. Linux 6.16 replaced it by one with the opposite meaning.
fn without_tests(system: &System) -> Option<(String, &'static str)> {
    const OLD: &str = "CONFIG_CRYPTO_MANAGER_DISABLE_TESTS";
    const NEW: &str = "CONFIG_CRYPTO_SELFTESTS";
    let config = system.config().ok()?;
    if config.has(OLD) {
        return Some((format!("{OLD} in {}", config.path), "y"));
    }
    let without = system.is_at_least(6, 16) && !config.has(NEW) && config.has("CONFIG_CRYPTO");
    without.then(|| (format!("{NEW} in {}", config.path), "not set"))
}

fn fips(system: &System) -> Finding {
    const ID: &str = "crypto-api.fips";
    let state = system.text(FIPS);
    let wanted = match system.parameter("fips") {
        Ok(value) => value.filter(|value| value != "0"),
        // If FIPS mode is on, the command line does not matter.
        Err(_) if state.as_deref() == Ok("1") => None,
        Err(unread) => return Finding::unknown(ID, How::Read, unread),
    };
    let asked = wanted.as_ref().map(|value| format!("fips={value}"));
    let add = |finding: Finding| match &asked {
        Some(asked) => finding.seen("/proc/cmdline", asked),
        None => finding,
    };
    match state {
        Ok(text) if text == "1" => {
            let mut finding = Finding::new(ID, Verdict::Pass, How::Read, "FIPS mode is on").seen(FIPS, &text);
            for path in ["/proc/sys/crypto/fips_name", "/proc/sys/crypto/fips_version"] {
                if let Ok(text) = system.text(path) {
                    finding = finding.seen(path, text);
                }
            }
            add(finding)
        }
        Ok(text) if text == "0" && wanted.is_some() => add(Finding::new(
            ID,
            Verdict::Fail,
            How::Read,
            "FIPS mode is off although fips=1 is on the kernel command line",
        )
        .seen(FIPS, text)),
        Ok(text) if text == "0" => Finding::not_applicable(
            ID,
            How::Read,
            "FIPS mode is off, and the kernel command line has no fips=1",
        )
        .seen(FIPS, text),
        Ok(text) => Finding::unknown(ID, How::Read, format!("{FIPS}: not understood: {text:?}")),
        Err(unread) if unread.is_missing() && system.exists("/proc/sys/kernel") => {
            let finding = if wanted.is_some() {
                let found =
                    "fips=1 has no effect: this kernel was built without FIPS mode (CONFIG_CRYPTO_FIPS)";
                Finding::new(ID, Verdict::Fail, How::Read, found)
            } else {
                Finding::not_applicable(
                    ID,
                    How::Read,
                    "this kernel has no FIPS mode, and the kernel command line has no fips=1",
                )
            };
            add(finding.seen(FIPS, "not there"))
        }
        Err(unread) => Finding::unknown(ID, How::Read, unread),
    }
}

fn weak(system: &System, algorithms: &Algorithms) -> Finding {
    const ID: &str = "crypto-api.weak";
    let rests_on = |one: &Implementation, among: &[&str]| {
        // The template `ecb(des)` uses the algorithm between the brackets.
        one.name.split(['(', ')', ',']).any(|part| among.contains(&part))
    };
    let registered = |among: &[&str]| -> Vec<String> {
        let mut used: BTreeMap<&str, bool> = BTreeMap::new();
        for one in algorithms.0.iter().filter(|one| !one.internal && rests_on(one, among)) {
            *used.entry(&one.name).or_default() |= one.users > 0;
        }
        used.into_iter()
            .map(|(name, used)| format!("{name}{}", if used { " (in use)" } else { "" }))
            .collect()
    };
    let (weak, kept) = (registered(&WEAK), registered(&KEPT));
    let mut finding = if weak.is_empty() {
        let none = "no broken crypto algorithm is registered";
        let found = if kept.is_empty() {
            none.to_owned()
        } else {
            format!("{none}, except those kept for compatibility: {}", few(&kept))
        };
        Finding::new(ID, Verdict::Pass, How::Read, found)
            .seen(LIST, "no MD4, DES, 3DES, RC4 or other broken algorithm")
    } else {
        let found = format!("broken crypto algorithms are registered: {}", few(&weak));
        Finding::new(ID, Verdict::Warn, How::Read, found).seen(LIST, few(&weak))
    };
    if !kept.is_empty() {
        finding = finding.seen("kept by the kernel for compatibility", few(&kept));
    }
    if let Ok(config) = system.config() {
        let options =
            [("CONFIG_CRYPTO_MD4", "md4"), ("CONFIG_CRYPTO_DES", "des"), ("CONFIG_CRYPTO_ARC4", "arc4")];
        let rest: Vec<&str> = options
            .into_iter()
            .filter(|(option, name)| {
                config.get(option) == Some("m") && !weak.iter().any(|weak| weak.contains(name))
            })
            .map(|(_, name)| name)
            .collect();
        if !rest.is_empty() {
            finding =
                finding.seen(format!("modules of {}", config.path), format!("loadable: {}", few(&rest)));
        }
    }
    finding
}

fn reach(system: &System) -> Finding {
    const ID: &str = "crypto-api.af-alg";
    match af_alg::reach(system) {
        Reach::Registered { restrict, tried } => {
            let restrict = restrict.as_deref();
            let found = match restrict {
                Some("1") => {
                    "any user can run some of the kernel's ciphers and hashes through AF_ALG sockets"
                }
                _ => "any user can run the kernel's ciphers and hashes through AF_ALG sockets",
            };
            let how = if tried.is_some() { How::Tried } else { How::Read };
            let (verdict, found) = match (&tried, restrict) {
                (Some(Err(_)) | None, Some("2")) => {
                    (Verdict::Pass, "AF_ALG is off (crypto.af_alg_restrict = 2)")
                }
                (Some(Err(_)), _) => (
                    Verdict::Unknown,
                    "an unprivileged child could not open an AF_ALG socket; whether other users can is not known",
                ),
                (Some(Ok(())) | None, _) => (Verdict::Warn, found),
            };
            let mut finding =
                Finding::new(ID, verdict, how, found).seen(af_alg::PROTOCOLS, "ALG is registered");
            if let Some(restrict) = restrict {
                finding = finding.seen(af_alg::RESTRICT, restrict);
            }
            match tried {
                Some(Ok(())) => finding.seen("unprivileged child: socket(AF_ALG)", "opened"),
                Some(Err(error)) => finding.seen("unprivileged child: socket(AF_ALG)", error),
                None => finding,
            }
        }
        Reach::Loadable { option } => {
            let found = "AF_ALG is not loaded, but any user can load it by opening an AF_ALG socket";
            Finding::new(ID, Verdict::Warn, How::Derived, found)
                .seen(af_alg::PROTOCOLS, "ALG is not registered")
                .seen(option.0, option.1)
        }
        Reach::Closed { source, observed } => {
            Finding::new(ID, Verdict::Pass, How::Derived, "AF_ALG sockets cannot be opened")
                .seen(af_alg::PROTOCOLS, "ALG is not registered")
                .seen(source, observed)
        }
        Reach::Unknown(why) => Finding::unknown(ID, How::Read, why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "name : sha256\ndriver : sha256-generic\nmodule : kernel\npriority : 100\nrefcnt : 1\n\
                       selftest : passed\ninternal : no\ntype : shash\n\n";

    fn finding(id: &str, files: &[(&str, &str)]) -> Finding {
        FEATURE.findings(&System::fake(files)).remove(id).unwrap()
    }

    fn verdict(id: &str, files: &[(&str, &str)]) -> Verdict {
        finding(id, files).verdict
    }

    #[test]
    fn the_mark_passed_counts_only_where_tests_are_on() {
        const ID: &str = "crypto-api.self-tests";
        let broken = ONE.replace("passed", "unknown");
        assert_eq!(verdict(ID, &[(LIST, ONE), (NO_TESTS, "N\n")]), Verdict::Pass);
        assert_eq!(verdict(ID, &[(LIST, ONE), (NO_TESTS, "Y\n")]), Verdict::Warn);
        assert_eq!(verdict(ID, &[(LIST, ONE), (NO_TESTS, "Y\n"), (FIPS, "1")]), Verdict::Pass);
        assert_eq!(verdict(ID, &[(LIST, &broken), (NO_TESTS, "N\n")]), Verdict::Warn);
        assert_eq!(verdict(ID, &[(LIST, ONE)]), Verdict::Unknown);
        assert_eq!(verdict(ID, &[(NO_TESTS, "N\n")]), Verdict::Unknown);
        let built = |release: &str, config: &str| {
            let at = format!("/boot/config-{release}");
            let files =
                [(LIST, ONE), (NO_TESTS, "N"), ("/proc/sys/kernel/osrelease", release), (&at, config)];
            verdict(ID, &files)
        };
        assert_eq!(built("6.1.0", "CONFIG_CRYPTO=y\nCONFIG_CRYPTO_MANAGER_DISABLE_TESTS=y\n"), Verdict::Warn);
        assert_eq!(built("6.1.0", "CONFIG_CRYPTO=y\n"), Verdict::Pass);
        assert_eq!(built("6.18.0", "CONFIG_CRYPTO=y\n"), Verdict::Warn);
        assert_eq!(built("6.18.0", "CONFIG_CRYPTO=y\nCONFIG_CRYPTO_SELFTESTS=y\n"), Verdict::Pass);
    }

    #[test]
    fn fips_mode_is_wanted_by_who_asked_for_it() {
        const ID: &str = "crypto-api.fips";
        const ASKED: (&str, &str) = ("/proc/cmdline", "quiet fips=1");
        assert_eq!(verdict(ID, &[(FIPS, "1\n"), ASKED]), Verdict::Pass);
        assert_eq!(verdict(ID, &[(FIPS, "0\n"), ASKED]), Verdict::Fail);
        assert_eq!(verdict(ID, &[("/proc/sys/kernel/x", ""), ASKED]), Verdict::Fail);
        assert_eq!(verdict(ID, &[(FIPS, "0\n"), ("/proc/cmdline", "fips=0")]), Verdict::NotApplicable);
        assert_eq!(verdict(ID, &[(FIPS, "2\n")]), Verdict::Unknown);
        assert_eq!(
            [verdict(ID, &[(FIPS, "0")]), verdict(ID, &[(FIPS, "1")])],
            [Verdict::Unknown, Verdict::Pass]
        );
        assert_eq!(verdict(ID, &[]), Verdict::Unknown);
    }

    #[test]
    fn weak_algorithms_are_seen_inside_brackets_too() {
        const ID: &str = "crypto-api.weak";
        let with =
            |name: &str| format!("{ONE}{}", ONE.replace("sha256", name).replace("refcnt : 1", "refcnt : 2"));
        assert_eq!(verdict(ID, &[(LIST, ONE)]), Verdict::Pass);
        let des = finding(ID, &[(LIST, &with("cbc(des)"))]);
        assert_eq!((des.verdict, des.evidence[0].observed.as_str()), (Verdict::Warn, "cbc(des) (in use)"));
        let twice = finding(ID, &[(LIST, &format!("{}{}", ONE.replace("sha256", "md4"), with("md4")))]);
        assert_eq!(twice.evidence[0].observed, "md4 (in use)");
        assert_eq!(verdict(ID, &[(LIST, &with("ecdh-nist-p256"))]), Verdict::Pass);
        let md5 = finding(ID, &[(LIST, &with("hmac(md5)"))]);
        assert_eq!(md5.verdict, Verdict::Pass);
        assert!(md5.found.contains("hmac(md5)"), "{}", md5.found);
    }

    #[test]
    fn af_alg_can_be_restricted_and_switched_off() {
        let with = |value| {
            let files = [(af_alg::PROTOCOLS, "protocol size\nALG 1\n"), (af_alg::RESTRICT, value)];
            finding("crypto-api.af-alg", &files)
        };
        assert_eq!((with("2\n").verdict, with("1\n").verdict), (Verdict::Pass, Verdict::Warn));
        assert!(with("1").found.contains("some of") && !with("0").found.contains("some of"));
    }

    #[test]
    fn af_alg_counts_when_it_is_not_loaded_yet() {
        const ID: &str = "crypto-api.af-alg";
        const NONE: (&str, &str) = (af_alg::PROTOCOLS, "protocol size\nTCP 1\n");
        const RELEASE: (&str, &str) = ("/proc/sys/kernel/osrelease", "6.1.0");
        const AS_MODULE: (&str, &str) =
            ("/boot/config-6.1.0", "CONFIG_CRYPTO_USER_API=m\nCONFIG_MODULES=y\n");
        assert_eq!(verdict(ID, &[(af_alg::PROTOCOLS, "protocol size\nALG 1\n")]), Verdict::Warn);
        assert_eq!(verdict(ID, &[NONE, RELEASE, AS_MODULE]), Verdict::Warn);
        assert_eq!(verdict(ID, &[NONE, RELEASE, ("/boot/config-6.1.0", "CONFIG_NET=y\n")]), Verdict::Pass);
        let closed = ("/proc/sys/kernel/modules_disabled", "1\n");
        assert_eq!(verdict(ID, &[NONE, RELEASE, AS_MODULE, closed]), Verdict::Pass);
        let blocked = ("/etc/modprobe.d/x.conf", "# no\ninstall af_alg /bin/false\n");
        assert_eq!(verdict(ID, &[NONE, RELEASE, AS_MODULE, blocked]), Verdict::Pass);
        let commented = ("/etc/modprobe.d/x.conf", "#install af_alg /bin/false\n");
        assert_eq!(verdict(ID, &[NONE, RELEASE, AS_MODULE, commented]), Verdict::Warn);
        let masked = [blocked, ("/run/modprobe.d/x.conf", "")];
        assert_eq!(verdict(ID, &[NONE, RELEASE, AS_MODULE, masked[0], masked[1]]), Verdict::Pass);
        let masked = [("/etc/modprobe.d/x.conf", ""), ("/lib/modprobe.d/x.conf", "blacklist af-alg\n")];
        assert_eq!(verdict(ID, &[NONE, RELEASE, AS_MODULE, masked[0], masked[1]]), Verdict::Warn);
        assert_eq!(verdict(ID, &[NONE, RELEASE, AS_MODULE, masked[1]]), Verdict::Pass);
        let folder = ("/etc/modprobe.d/x.conf/", "");
        assert_eq!(verdict(ID, &[NONE, RELEASE, AS_MODULE, folder]), Verdict::Unknown);
        let line = ("/proc/cmdline", "quiet module_blacklist=x,af_alg");
        assert_eq!(verdict(ID, &[NONE, RELEASE, AS_MODULE, folder, line]), Verdict::Pass);
        let installed =
            |list| verdict(ID, &[NONE, RELEASE, AS_MODULE, ("/lib/modules/6.1.0/modules.dep", list)]);
        assert_eq!(installed("kernel/fs/ext4/ext4.ko:\n"), Verdict::Pass);
        assert_eq!(installed("kernel/crypto/af_alg.ko.xz:\n"), Verdict::Warn);
        assert_eq!(installed(""), Verdict::Warn);
        assert_eq!(verdict(ID, &[NONE, RELEASE]), Verdict::Unknown);
        assert_eq!(verdict(ID, &[]), Verdict::Unknown);
    }
}
