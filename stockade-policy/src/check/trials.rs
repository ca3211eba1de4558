/*!
The arguments, played on the machine of `scene.rs`: each code is provoked by the policy on its page, and silent about the one
beside it.
*/
use stockade_reasons::Level;

use super::{
    Finding, Machine, Now, Report, Severity, check, code, codes,
    scene::{found, machine, policy},
};

/// The only finding with this code.
fn only<'r>(report: &'r Report, id: &str) -> &'r Finding {
    let mut all = report.findings.iter().filter(|finding| finding.code.id == id);
    let first = all.next().unwrap_or_else(|| panic!("no {id} in {:#?}", report.findings));
    assert!(all.next().is_none(), "more than one {id}: {:#?}", report.findings);
    first
}

fn silent(report: &Report, id: &str) {
    let there: Vec<_> = report.findings.iter().filter(|f| f.code.id == id).collect();
    assert!(there.is_empty(), "{there:#?}");
}

/// An exception at level integrity for efi-test, with these lines.
fn excepting(lines: &str) -> Report {
    found(&format!("level = \"integrity\"\n[[exception]]\nname = \"e\"\nreasons = [\"efi-test\"]\n{lines}\n"))
}

#[test]
fn every_code_is_provoked_by_its_page_and_silent_beside_it() {
    for code in codes() {
        let mut machine = machine();
        if code.id == code::SHADOWED_BY_NATIVE.id {
            machine.native = Some(Level::Integrity);
        }
        let wrong = check(&policy(code.wrong), &machine);
        let finding = wrong.findings.iter().find(|finding| finding.code == *code);
        let finding = finding.unwrap_or_else(|| panic!("{} is not provoked: {:#?}", code.id, wrong.findings));
        assert_eq!(finding.severity, code.severity, "{}: its page shows it at its worst", code.id);
        assert!(finding.origin.line > 0, "{}: a sentence of the policy is to blame", code.id);
        assert!(!finding.why.is_empty() && !finding.remedy.is_empty(), "{}", code.id);
        let right = check(&policy(code.right), &machine);
        assert!(
            right.findings.iter().all(|f| f.code != *code || f.accepted.is_some()),
            "{} is not silent: {:#?}",
            code.id,
            right.findings
        );
    }
}

#[test]
fn a_finding_is_never_worse_than_its_code_says() {
    for code in codes() {
        for text in [code.wrong, code.right] {
            for finding in found(text).findings {
                assert!(finding.severity <= finding.code.severity, "{}", finding.code.id);
            }
        }
    }
}

#[test]
fn the_way_to_everything_is_told_step_by_step() {
    let report = found("level = \"integrity\"\n[reasons]\ntiocsserial = \"allow\"\n");
    let finding = only(&report, "SP001");
    assert!(finding.why.contains("tiocsserial: ") && finding.why.contains("ioport: "), "{}", finding.why);
    assert!(finding.why.contains("Falls with it: module-signature, dev-mem"), "{}", finding.why);
    assert!(!finding.why.contains("xmon-wr"), "this kernel has no xmon: {}", finding.why);
    assert!(!finding.why.contains("kcore"), "the level does not refuse it: {}", finding.why);
    assert_eq!(finding.origin.line, 3);
}

#[test]
fn auditing_voids_as_well_but_is_milder() {
    let report = found("level = \"integrity\"\n[reasons]\nmsr = \"audit\"\n");
    assert_eq!(only(&report, "SP001").severity, Severity::Warning);
}

#[test]
fn a_policy_on_trial_is_argued_about_as_if_it_were_in_force() {
    let report = found("level = \"integrity\"\nmode = \"audit\"\n[reasons]\nmsr = \"allow\"\n");
    only(&report, "SP001");
}

#[test]
fn the_better_the_subject_is_known_the_milder_it_is() {
    for (subject, severity) in [
        ("unit = \"fwupd.service\"", Severity::Error),
        ("exe = \"/usr/bin/intel-undervolt\"", Severity::Warning),
        (
            &format!("exe = \"/usr/bin/intel-undervolt\"\ndigest = \"sha256:{}\"", "11".repeat(32)),
            Severity::Note,
        ),
        (
            &format!("exe = \"/usr/bin/intel-undervolt\"\ndigest = \"verity:sha256:{}\"", "11".repeat(32)),
            Severity::Note,
        ),
    ] {
        let report = found(&format!(
            "level = \"integrity\"\n[[exception]]\nname = \"e\"\nreasons = [\"msr\", \"dev-mem\", \"efi-test\"]\n{subject}\n"
        ));
        let finding = only(&report, "SP002");
        assert_eq!(finding.severity, severity, "{subject}");
        assert!(finding.message.contains("msr and dev-mem are"), "{}", finding.message);
        assert_eq!(finding.related.len(), 1, "the other reason is pointed at too");
    }
}

#[test]
fn what_native_lockdown_refuses_voids_nothing() {
    let native = Machine { native: Some(Level::Integrity), ..machine() };
    let text = "level = \"integrity\"\n[reasons]\nmsr = \"allow\"\n[[exception]]\nname = \"e\"\nreasons = [\"dev-mem\"]\nunit = \"fwupd.service\"\n";
    let report = check(&policy(text), &native);
    silent(&report, "SP001");
    silent(&report, "SP002");
    let shadowed: Vec<_> =
        report.findings.iter().filter(|f| f.code.id == "SP301").map(|f| f.about.name()).collect();
    assert_eq!(shadowed, ["reasons.msr", "e"]);
    let audited = check(&policy("level = \"integrity\"\nmode = \"audit\"\n"), &native);
    assert_eq!(only(&audited, "SP301").about.name(), "mode");
    silent(&check(&policy("level = \"confidentiality\"\nmode = \"audit\"\n"), &native), "SP301");
}

#[test]
fn what_is_not_known_is_named_and_not_argued_about() {
    let dark = Machine {
        native: None,
        auto: None,
        reasons: None,
        cgroups: &|_| None,
        function: &|_| None,
        setting: &|_| Now::Unknown,
        ..machine()
    };
    let report = check(
        &policy(
            "[reasons]\nxmon-wr = \"deny\"\nhibernation = \"audit\"\n[[exception]]\nname = \"e\"\nreasons = [\"efi-test\"]\nexe = \"/root/secret\"\ncgroup = \"/gone\"\n[[seal.trust]]\nname = \"p\"\nkind = \"lsm\"\nhook = \"bpf\"\ntags = [\"1111111111111111\"]\n",
        ),
        &dark,
    );
    for code in ["SP201", "SP301", "SP302", "SP303", "SP604"] {
        silent(&report, code);
    }
    only(&report, "SP001");
    for word in
        ["hooks", "lockdown", "reasons", "Secure Boot", "cgroups", "/root/secret: /root: permission denied"]
    {
        assert!(report.unseen.iter().any(|line| line.contains(word)), "{word}: {:?}", report.unseen);
    }
}

#[test]
fn auto_without_secure_boot_refuses_nothing_and_that_is_a_note() {
    let plain = Machine { auto: Some(Level::None), ..machine() };
    let report = check(&policy("level = \"auto\"\n"), &plain);
    assert_eq!(only(&report, "SP008").severity, Severity::Note);
    silent(&check(&policy("level = \"auto\"\n"), &machine()), "SP008");
    silent(
        &check(
            &policy(
                "level = \"none\"\n[[scope]]\nname = \"s\"\ncgroup = \"/build.slice\"\nlevel = \"integrity\"\n",
            ),
            &plain,
        ),
        "SP008",
    );
}

#[test]
fn a_hole_in_a_stricter_scope_is_told_of_the_scope() {
    let report = found(
        "level = \"integrity\"\n[[scope]]\nname = \"pods\"\ncgroup = \"/kubepods.slice\"\nlevel = \"confidentiality\"\nreasons = { kprobes = \"allow\" }\n",
    );
    let finding = only(&report, "SP003");
    assert_eq!((finding.about.kind(), finding.about.name()), ("scope", "pods"));
    assert!(finding.message.contains("in scope \"pods\""), "{}", finding.message);
}

#[test]
fn loosening_is_an_error_only_where_everything_falls() {
    let scope = |lines: &str| {
        found(&format!(
            "level = \"confidentiality\"\n[[scope]]\nname = \"s\"\ncgroup = \"/build.slice\"\n{lines}\n"
        ))
    };
    let mild = scope("loosen = true\nreasons = { perf = \"allow\" }");
    assert_eq!(only(&mild, "SP006").severity, Severity::Warning);
    let grave = scope("loosen = true\nlevel = \"none\"");
    let finding = only(&grave, "SP006");
    assert_eq!((finding.severity, finding.origin.line), (Severity::Error, 6));
    silent(&grave, "SP304");
    let idle = scope("level = \"integrity\"\nmode = \"audit\"");
    silent(&idle, "SP006");
    assert!(only(&idle, "SP304").why.contains("kcore"), "{:#?}", idle.findings);
}

#[test]
fn scopes_are_measured_by_what_is_around_them() {
    let report = found(
        "level = \"integrity\"\n[[scope]]\nname = \"inner\"\ncgroup = \"/kubepods.slice/a\"\nlevel = \"integrity\"\n\
         [[scope]]\nname = \"outer\"\ncgroup = \"/kubepods.slice\"\nlevel = \"confidentiality\"\n",
    );
    assert_eq!(only(&report, "SP304").about.name(), "inner");
    silent(&report, "SP310");
}

#[test]
fn a_unit_that_is_there_is_measured_by_what_is_around_it() {
    let text = "level = \"integrity\"\n[[scope]]\nname = \"system\"\ncgroup = \"/system.slice\"\nlevel = \"confidentiality\"\n\
                [[scope]]\nname = \"fwupd\"\nunit = \"fwupd.service\"\nlevel = \"integrity\"\n";
    assert_eq!(only(&found(text), "SP304").about.name(), "fwupd");
    // It is not running, and its file tells where it will be.
    let idle = text.replace("fwupd.service", "rasdaemon.service");
    assert_eq!(only(&found(&idle), "SP304").about.name(), "fwupd");
    let unknown = text.replace("fwupd.service", "gone.service");
    silent(&found(&unknown), "SP304");
}

#[test]
fn of_two_scopes_for_one_cgroup_the_general_one_is_not_around_the_other() {
    let report = found(
        "level = \"integrity\"\n[[scope]]\nname = \"all\"\ncgroup = \"/pods/*\"\nlevel = \"confidentiality\"\n\
         [[scope]]\nname = \"one\"\ncgroup = \"/pods/one\"\nlevel = \"integrity\"\n",
    );
    silent(&report, "SP304");
    silent(&report, "SP310");
    let finding = only(&report, "SP006");
    assert!(finding.about.name() == "one" && finding.message.contains("\"all\""), "{finding:#?}");
}

#[test]
fn interpreters_are_known_and_digests_do_not_help() {
    let report =
        excepting(&format!("exe = \"/usr/bin/python3.13\"\ndigest = \"sha256:{}\"", "11".repeat(32)));
    assert_eq!(only(&report, "SP103").severity, Severity::Error);
    silent(&report, "SP205");
}

#[test]
fn the_way_to_a_program_matters() {
    let report = excepting("exe = \"/opt/vendor/bin/tool\"");
    let finding = only(&report, "SP204");
    assert!(finding.why.contains("/opt/vendor belongs to user 1000"), "{}", finding.why);
    assert!(finding.why.contains("/opt/vendor/bin is writable by group 50"), "{}", finding.why);
    assert!(
        finding.remedy.starts_with("chown root /opt/vendor; chmod go-w /opt/vendor/bin"),
        "{}",
        finding.remedy
    );
    let bound =
        excepting(&format!("exe = \"/opt/vendor/bin/tool\"\ndigest = \"sha256:{}\"", "11".repeat(32)));
    assert_eq!(only(&bound, "SP204").severity, Severity::Warning);
    silent(&excepting("exe = \"/tmp/of-root\""), "SP204");
    assert!(only(&excepting("exe = \"/tmp/of-user\""), "SP204").why.contains("/tmp is writable by all"));
}

#[test]
fn who_keeps_the_file_matters() {
    for (exe, severity, word) in [
        ("/srv/nfs/tool", Severity::Warning, "NFS"),
        ("/srv/fuse", Severity::Warning, "FUSE"),
        ("/srv/overlay", Severity::Note, "overlay"),
        ("/tmp/of-root", Severity::Note, "memory"),
    ] {
        let report = excepting(&format!("exe = \"{exe}\""));
        let finding = only(&report, "SP208");
        assert!(finding.severity == severity && finding.message.contains(word), "{finding:#?}");
    }
    for (exe, word) in [("/srv/noexec", "noexec"), ("/usr/bin/not-executable", "nobody"), ("/usr", "regular")]
    {
        let report = excepting(&format!("exe = \"{exe}\""));
        assert!(only(&report, "SP202").message.contains(word));
    }
    silent(&excepting("exe = \"/srv/read-only\""), "SP205");
}

#[test]
fn digests_are_compared_and_the_right_one_is_told() {
    let report = excepting(&format!(
        "exe = \"/usr/bin/intel-undervolt\"\ndigest = \"verity:sha256:{}\"",
        "22".repeat(32)
    ));
    assert!(only(&report, "SP206").remedy.contains(&format!("verity:sha256:{}", "11".repeat(32))));
    silent(&report, "SP207");
}

#[test]
fn an_expired_exception_is_argued_about_only_as_such() {
    let report = excepting("unit = \"gone.service\"\nuid = 5\nexpires = 2020-01-01T00:00:00Z");
    assert_eq!(report.findings.len(), 1, "{:#?}", report.findings);
    assert!(only(&report, "SP401").message.contains("6 years ago"));
}

#[test]
fn patterns_and_idle_units_that_match_nothing_are_notes() {
    for (place, severity) in [
        ("cgroup = \"/gone\"", Severity::Warning),
        ("unit = \"gone.service\"", Severity::Error),
        ("unit = \"rasdaemon.service\"", Severity::Note),
        ("cgroup = \"/system.slice/gone-*.scope\"", Severity::Note),
    ] {
        assert_eq!(only(&excepting(place), "SP303").severity, severity, "{place}");
    }
    silent(&excepting("unit = \"fwupd.service\""), "SP303");
}

#[test]
fn of_two_equal_exceptions_the_later_is_superfluous() {
    let exception = |name: &str, more: &str| {
        format!(
            "[[exception]]\nname = \"{name}\"\nreasons = [\"efi-test\"]\nexe = \"/usr/libexec/fwupd/fwupd\"\n{more}\n"
        )
    };
    let two = |a: &str, b: &str| {
        found(&format!("level = \"integrity\"\n{}{}", exception("a", a), exception("b", b)))
    };
    assert_eq!(only(&two("", ""), "SP306").about.name(), "b");
    assert_eq!(only(&two("uid = 0", ""), "SP306").about.name(), "a");
    assert_eq!(
        only(&two("expires = 2027-02-01T00:00:00Z", "expires = 2027-01-01T00:00:00Z"), "SP306").about.name(),
        "b"
    );
    silent(&two("uid = 0", "unit = \"fwupd.service\""), "SP306");
    assert_eq!(only(&two("", "inherit = true"), "SP306").about.name(), "a");
}

#[test]
fn some_needless_reasons_are_milder_than_all() {
    let report = found(
        "level = \"integrity\"\n[[exception]]\nname = \"e\"\nreasons = [\"efi-test\", \"perf\"]\nexe = \"/usr/libexec/fwupd/fwupd\"\n",
    );
    let finding = only(&report, "SP305");
    assert!(finding.severity == Severity::Note && finding.message.starts_with("perf"), "{finding:#?}");
}

#[test]
fn a_holder_of_user_memory_takes_the_exceptions_of_others() {
    let report = found(
        "level = \"integrity\"\n[[exception]]\nname = \"tracer\"\nreasons = [\"bpf-write-user\"]\nexe = \"/usr/bin/vendor-profiler\"\n\
         [[exception]]\nname = \"firmware\"\nreasons = [\"dev-mem\"]\nexe = \"/usr/libexec/fwupd/fwupd\"\n",
    );
    let finding = only(&report, "SP005");
    assert!(finding.about.name() == "tracer" && finding.why.contains("firmware"), "{finding:#?}");
}

#[test]
fn what_is_accepted_does_not_count_and_keeps_its_why() {
    let text = "level = \"integrity\"\n[reasons]\nmsr = \"allow\"\ndev-mem = \"allow\"\n\
                [[accept]]\ncode = \"SP001\"\nabout = \"reasons.msr\"\nwhy = \"until the driver is there\"\n";
    let report = found(text);
    assert_eq!((report.accepted(), report.count(Severity::Error)), (1, 1));
    let accepted = report.findings.last().unwrap();
    assert_eq!(accepted.accepted.as_deref(), Some("until the driver is there"));
    let all = found(&text.replace("about = \"reasons.msr\"\n", ""));
    assert_eq!((all.accepted(), all.worst()), (2, None));
    let slip = found(&text.replace("reasons.msr", "msr"));
    let finding = only(&slip, "SP501");
    assert!(finding.label.contains("reasons.msr"), "{finding:#?}");
    // What is said against accepting cannot be accepted.
    let circular = found("level = \"integrity\"\n[[accept]]\ncode = \"SP501\"\nwhy = \"quiet\"\n");
    assert!(only(&circular, "SP501").accepted.is_none());
}

#[test]
fn the_worst_comes_first_and_the_same_twice() {
    let text = "level = \"integrity\"\n[reasons]\nperf = \"allow\"\nmsr = \"allow\"\n[[exception]]\nname = \"e\"\nreasons = [\"efi-test\"]\nexe = \"/usr/bin/python3.13\"\n";
    let order = |report: &Report| report.findings.iter().map(|f| (f.code.id, f.severity)).collect::<Vec<_>>();
    let report = found(text);
    assert!(report.findings.is_sorted_by(|a, b| a.severity >= b.severity));
    assert_eq!(order(&report), order(&found(text)));
}

#[test]
fn names_that_systemd_can_nest_in_a_circle_end() {
    let mut text = String::from("level = \"integrity\"\n");
    for (n, place) in [
        "cgroup = \"/x/web-1.service/web-*\"",
        "unit = \"web-1.service\"",
        "cgroup = \"/x/web-1.service\"",
        "cgroup = \"/\"",
    ]
    .iter()
    .enumerate()
    {
        text.push_str(&format!("[[scope]]\nname = \"s{n}\"\n{place}\nlevel = \"confidentiality\"\n"));
    }
    let _ = found(&text);
}
