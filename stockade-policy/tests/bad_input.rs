//! Every kind of mistake: what is said of it, where, and what would be right.

use stockade_policy::{Problems, Source, read};

fn problems(text: &str) -> Problems {
    read(&Source::new("policy.toml", text)).expect_err(text)
}

/// One mistake: `LINE:COLUMN`, words of the message, words of the help.
#[track_caller]
fn one(text: &str, position: &str, what: &str, help: &str) {
    let problems = problems(text);
    assert_eq!(problems.list.len(), 1, "{text}\n{}", problems.render(false));
    let problem = &problems.list[0];
    let said = format!("{text}\n{}", problems.render(false));
    assert_eq!(problems.position(problem), format!("policy.toml:{position}"), "{said}");
    assert!(problem.what.contains(what), "{said}\nwanted: {what}");
    let hinted = problem.help.as_deref().unwrap_or_default();
    assert!(hinted.contains(help), "{said}\nwanted as help: {help}");
}

fn exception(rest: &str) -> String {
    format!("[[exception]]\nname = \"e\"\nreasons = [\"msr\"]\n{rest}\n")
}

fn scope(rest: &str) -> String {
    format!("[[scope]]\nname = \"s\"\n{rest}\n")
}

#[test]
fn toml_itself() {
    one("level = auto\n", "1:9", "this is not TOML: string values must be quoted", "\"auto\"");
    one("mode = \"audit\"\nlevel = \"auto\n", "2:14", "invalid basic string", "");
    one("[reasons\nperf = \"allow\"\n", "1:9", "unclosed table", "");
    one("level\n", "1:6", "key with no value", "");
    one("level = \n", "1:9", "this is not TOML", "");
}

#[test]
fn what_stands_before_a_broken_line_is_judged_and_what_comes_after_is_not() {
    let found = problems("levle = \"none\"\nmode = \"bad\"\n[[exception\nwhatever = 1\n");
    let said: Vec<_> = found.list.iter().map(|p| p.what.as_str()).collect();
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(said[0].contains("no key `levle`") && said[1].contains("`mode`") && said[2].contains("not TOML"));
}

#[test]
fn said_twice() {
    let both = |text: &str, second: &str, first: u32| {
        one(text, second, "said twice", "");
        let found = problems(text);
        assert_eq!(found.list[0].also[0].0.line, first, "{}", found.render(false));
    };
    both("level = \"none\"\nmode = \"audit\"\nlevel = \"auto\"\n", "3:1", 1);
    both("[reasons]\nperf = \"deny\"\nmsr = \"deny\"\nperf = \"allow\"\n", "4:1", 2);
    both(&exception("exe = \"/a\"\nexe = \"/b\""), "5:1", 4);
    let text =
        format!("[reasons]\nperf = \"deny\"\n{}[reasons]\nmsr = \"deny\"\n", exception("exe = \"/a\""));
    both(&text, "7:2", 1);
}

#[test]
fn versions() {
    one("version = 2\nlevle = 1\n", "1:11", "a policy of version 2", "for version 1");
    one("version = \"1\"\n", "1:11", "`version` is a number, and this is a string", "version = 1");
    one("version = 99999999999999999999999\n", "1:11", "reads version 1", "install");
}

#[test]
fn unknown_keys() {
    one("levle = \"auto\"\n", "1:1", "a policy has no key `levle`", "did you mean `level`?");
    one("unknown_reasons = \"deny\"\n", "1:1", "no key `unknown_reasons`", "did you mean `unknown-reasons`?");
    one("banana = 1\n", "1:1", "no key `banana`", "its keys are version, level, mode");
    one(
        &exception("exe = \"/a\"\nexpire = 2027-01-01T00:00:00Z"),
        "5:1",
        "an exception has no key `expire`",
        "`expires`",
    );
    one(&scope("cgroup = \"/a\"\nlose = true"), "4:1", "a scope has no key `lose`", "");
    one(
        "[[accept]]\ncode = \"SP001\"\nwhy = \"x\"\nabuot = \"e\"\n",
        "4:1",
        "an accepted finding has no key",
        "`about`",
    );
}

#[test]
fn settings() {
    one("settings = 1\n", "1:12", "`settings` is a table", "ratchet = [\"default\"]");
    one("[settings]\nfreze = []\n", "2:1", "[settings] has no key `freze`", "`freeze`");
    one("[settings]\nfreeze = \"a.b\"\n", "2:10", "`freeze` is a list of strings", "kernel.kptr_restrict");
    one(
        "[settings]\nratchet = [\"kernel.kptr_restict\"]\n",
        "2:12",
        "it is not known which values of kernel.kptr_restict are stricter",
        "did you mean kernel.kptr_restrict?",
    );
    one(
        "[settings]\nratchet = [\"net.ipv4.tcp_rfc1337\"]\n",
        "2:12",
        "it is not known which values of net.ipv4.tcp_rfc1337 are stricter",
        "freeze it instead",
    );
    for text in ["kernel.core_pattern", "kernel/modprobe", "kernel.tainted"] {
        one(
            &format!("[settings]\nratchet = [\"{text}\"]\n"),
            "2:12",
            &format!("no value of {text} is stricter than another"),
            "freeze it instead",
        );
    }
    one("[settings]\nfreeze = [\"kptr_restrict\"]\n", "2:11", "is no setting: a name", "sysctl(8)");
    one("[settings]\nfreeze = [\"kernel..kptr\"]\n", "2:11", "is no setting: a part", "sysctl(8)");
    one(
        "[settings]\nfreeze = [\"kernel.sysrq\"]\nratchet = [\"kernel/sysrq\"]\n",
        "3:12",
        "kernel.sysrq is named twice",
        "freeze it or let it ratchet",
    );
    one(
        "[settings]\nratchet = [\"default\", \"default\"]\n",
        "2:23",
        "default is named twice",
        "freeze it or let it ratchet",
    );
    one("[seal]\nrequires-tpm = true\n", "2:1", "[seal] has no key `requires-tpm`", "`require-tpm`");
}

#[test]
fn seals() {
    one("seal = true\n", "1:8", "`seal` is a table, and this is true or false", "[seal]");
    one("[seal]\npcr = \"13\"\n", "2:7", "`pcr` is a number, and this is a string", "pcr = 13");
    one("[seal]\nrequire-tpm = 1\n", "2:15", "`require-tpm` is true or false", "");
    one("[seal]\nroom-for-scopes = \"yes\"\n", "2:19", "`room-for-scopes` is true or false", "");
    for (pcr, why) in [
        (0, "are the firmware's"),
        (7, "are the firmware's"),
        (16, "can be reset"),
        (17, "measured launch"),
        (22, "measured launch"),
        (23, "can be reset"),
        (24, "has the PCRs 0 to 23"),
        (-1, "has the PCRs 0 to 23"),
        (269, "has the PCRs 0 to 23"),
    ] {
        one(&format!("[seal]\npcr = {pcr}\n"), "2:7", why, "8 to 15");
    }
}

#[test]
fn words() {
    one(
        "level = \"integrty\"\n",
        "1:9",
        "`level` cannot be \"integrty\": it is none, integrity, confidentiality or auto",
        "did you mean \"integrity\"?",
    );
    one("level = \"high\"\n", "1:9", "cannot be \"high\"", "");
    one("mode = \"enforced\"\n", "1:8", "it is enforce or audit", "\"enforce\"");
    one("unknown-reasons = \"refuse\"\n", "1:19", "level, allow, audit or deny", "");
    one("level = 1\n", "1:9", "`level` is a string, and this is an integer", "level = \"none\"");
    one("mode = [\"audit\"]\n", "1:8", "`mode` is a string, and this is a list", "");
}

#[test]
fn reasons() {
    one(
        "[reasons]\nhibernate = \"allow\"\n",
        "2:1",
        "there is no reason `hibernate`",
        "did you mean `hibernation`?",
    );
    one("[reasons]\nbanana = \"allow\"\n", "2:1", "no reason `banana`", "the reasons are module-signature");
    one("[reasons]\nLOCKDOWN_DEV_MEM = \"allow\"\n", "2:1", "no reason", "did you mean `dev-mem`?");
    one(
        "[reasons]\nperf = \"alow\"\n",
        "2:8",
        "`perf` cannot be \"alow\": it is allow, audit or deny",
        "\"allow\"",
    );
    one("[reasons]\nperf = true\n", "2:8", "`perf` is a string, and this is true or false", "");
    one("reasons = [\"perf\"]\n", "1:11", "`reasons` is a table, and this is a list", "[reasons]");
    one(&scope("cgroup = \"/a\"\nreasons = 1"), "4:11", "`reasons` is a table", "[scope.reasons]");
    one(&scope("cgroup = \"/a\"\n[scope.reasons]\nkexce = \"deny\""), "5:1", "no reason `kexce`", "`kexec`");
}

#[test]
fn names() {
    one("[[scope]]\ncgroup = \"/a\"\n", "1:1", "a scope needs `name`", "name = \"pods\"");
    one("[[exception]]\nreasons = [\"msr\"]\nexe = \"/a\"\n", "1:1", "an exception needs `name`", "name =");
    one("[[scope]]\nname = \"\"\ncgroup = \"/a\"\n", "2:8", "a name cannot be empty", "");
    one("[[scope]]\nname = \" a\"\ncgroup = \"/a\"\n", "2:8", "does not begin or end with a space", "");
    one("[[scope]]\nname = \"a\\u001b[2J\"\ncgroup = \"/a\"\n", "2:8", "no line breaks or other control", "");
    one("[[scope]]\nname = 1\ncgroup = \"/a\"\n", "2:8", "`name` is a string", "");
    let long = format!("[[scope]]\nname = \"{}\"\ncgroup = \"/a\"\n", "x".repeat(101));
    one(&long, "2:8", "at most 100 bytes, and this one has 101", "");
}

#[test]
fn the_same_name_or_place_again_points_at_both() {
    let twice = |text: &str, second: &str, what: &str, first: u32| {
        one(text, second, what, "");
        assert_eq!(problems(text).list[0].also[0].0.line, first);
    };
    let two =
        |a: &str, b: &str| format!("[[scope]]\nname = \"{a}\"\ncgroup = \"/a\"\n[[scope]]\nname = \"{b}\"\n");
    twice(&(two("s", "s") + "cgroup = \"/b\"\n"), "5:8", "two scopes named \"s\"", 2);
    twice(&(two("s", "t") + "cgroup = \"/a\"\n"), "6:10", "two scopes at /a", 3);
    let unit = "[[scope]]\nname = \"s\"\nunit = \"a.slice\"\n[[scope]]\nname = \"t\"\nunit = \"a.slice\"\n";
    twice(unit, "6:8", "two scopes at a.slice", 3);
    let text = exception("exe = \"/a\"") + &exception("exe = \"/b\"");
    twice(&text, "6:8", "two exceptions named \"e\"", 2);
    let text = "[[exception]]\nname = \"e\"\nreasons = [\"msr\",\n \"kexec\", \"msr\"]\nexe = \"/a\"\n";
    twice(text, "4:11", "`msr` is listed twice", 3);
    let text = "[[accept]]\ncode = \"SP001\"\nwhy = \"x\"\n[[accept]]\ncode = \"SP001\"\nwhy = \"y\"\n";
    twice(text, "5:8", "SP001 is accepted twice", 2);
}

#[test]
fn headings() {
    one("[scope]\nname = \"s\"\n", "1:1", "each with double brackets", "[[scope]]");
    one("[exception]\nname = \"s\"\n", "1:1", "double brackets", "[[exception]]");
    one("scope = 1\n", "1:9", "`scope` is a table", "[[scope]]");
    one("scope = [1]\n", "1:10", "`scope` is a table", "[[scope]]");
}

#[test]
fn reasons_of_an_exception() {
    let with = |reasons: &str| format!("[[exception]]\nname = \"e\"\n{reasons}\nexe = \"/a\"\n");
    one(&with(""), "1:1", "an exception needs `reasons`", "reasons = [\"dev-mem\"]");
    one(&with("reasons = []"), "3:11", "an exception for no reason", "");
    one(
        &with("reasons = \"msr\""),
        "3:11",
        "`reasons` is a list of strings, and this is a string",
        "[\"dev-mem\"]",
    );
    one(&with("reasons = [\"msr\", 1]"), "3:19", "is a list of strings, and this is an integer", "");
    one(&with("reasons = [\"kexce\"]"), "3:12", "no reason `kexce`", "`kexec`");
}

#[test]
fn reasons_without_a_trustworthy_subject_refuse_exceptions_and_say_why() {
    let unreliable =
        stockade_reasons::all().iter().filter(|r| r.subject == stockade_reasons::Subject::Unreliable);
    let mut count = 0;
    for reason in unreliable {
        let text = format!("[[exception]]\nname = \"e\"\nreasons = [\"{}\"]\nexe = \"/a\"\n", reason.id);
        one(
            &text,
            "3:12",
            &format!("`{}` takes no exceptions", reason.id),
            &format!("{} = \"allow\"", reason.id),
        );
        one(&text, "3:12", "takes no exceptions", reason.subject_why);
        count += 1;
    }
    assert!(count >= 7, "{count}");
}

#[test]
fn subjects() {
    one(&exception(""), "1:1", "an exception needs a subject: `exe`, `cgroup` or `unit`", "under [reasons]");
    one(&exception("uid = 0"), "4:1", "`uid` alone is no subject", "add `exe`");
    one(
        &exception("cgroup = \"/a\"\nunit = \"a.slice\""),
        "5:8",
        "one place: `cgroup` or `unit`, not both",
        "",
    );
    one(&exception("unit = \"a.slice\"\ninherit = true"), "5:1", "`inherit` is about a program", "add `exe`");
    let digest = format!("unit = \"a.slice\"\ndigest = \"sha256:{}\"", "0".repeat(64));
    one(&exception(&digest), "5:1", "`digest` is about a program", "add `exe`");
    one(&scope(""), "1:1", "a scope needs a place", "cgroup =");
    one(&scope("cgroup = \"/a\"\nunit = \"a.slice\""), "4:8", "one place", "");
    one(
        &scope("cgroup = \"/a\"\nloosen = \"yes\""),
        "4:10",
        "`loosen` is true or false, and this is a string",
        "",
    );
    one(&exception("exe = \"/a\"\ninherit = 1"), "5:11", "`inherit` is true or false", "");
}

#[test]
fn programs() {
    for (exe, what, help) in [
        ("wrmsr", "by its absolute path", "command -v wrmsr"),
        ("", "by its absolute path", "/usr/libexec"),
        ("/usr/bin/", "this is a folder", ""),
        ("/usr//bin/a", "no `.`, `..` or `//`", ""),
        ("/usr/./a", "no `.`, `..` or `//`", ""),
        ("/usr/../a", "no `.`, `..` or `//`", ""),
        ("/usr/bin/*", "patterns are not read here", ""),
        ("/a\\u0000b", "no control characters", ""),
    ] {
        one(&exception(&format!("exe = \"{exe}\"")), "4:7", what, help);
    }
    one(&exception(&format!("exe = \"/{}\"", "x".repeat(4095))), "4:7", "at most 4095 bytes", "");
    one(&exception("exe = 1"), "4:7", "`exe` is a string", "");
}

#[test]
fn digests() {
    let with = |digest: &str| exception(&format!("exe = \"/a\"\ndigest = \"{digest}\""));
    one(&with(&"0".repeat(64)), "5:10", "begins with how it was made", "sha256:");
    one(&with("sha256:12"), "5:10", "64 hexadecimal digits, and here are 2", "sha256sum");
    one(&with("verity:sha256:12"), "5:10", "here are 2", "fsverity measure");
    one(&with(&format!("sha256:{}g", "0".repeat(63))), "5:10", "here is `g`", "");
    one(&with("sha512:00"), "5:10", "others are not known", "");
    one(&with("sha256:ä"), "5:10", "here is `ä`", "");
}

#[test]
fn user_ids() {
    let with = |uid: &str| exception(&format!("exe = \"/a\"\nuid = {uid}"));
    one(&with("\"root\""), "5:7", "`uid` is a number", "uid = 1000");
    one(&with("-1"), "5:7", "from 0 to 4294967294", "");
    one(&with("4294967295"), "5:7", "from 0 to 4294967294", "");
    one(&with("1.5"), "5:7", "`uid` is a number", "");
}

#[test]
fn times() {
    let with = |time: &str| exception(&format!("exe = \"/a\"\nexpires = {time}"));
    one(
        &with("2027-01-31T00:00:00"),
        "5:11",
        "no time zone",
        "add Z for UTC or an offset: 2027-01-31T00:00:00Z",
    );
    one(&with("2027-01-31"), "5:11", "a date without a time of day", "2027-01-31T00:00:00Z");
    one(&with("07:30:00"), "5:11", "a time of day without a date", "");
    one(&with("\"2027-01-31T00:00:00Z\""), "5:11", "without quotes", "");
    one(&with("\"tomorrow\""), "5:11", "`expires` is a time, and this is a string", "");
    one(&with("1"), "5:11", "`expires` is a time, and this is an integer", "");
    one(&with("1969-12-31T23:59:59Z"), "5:11", "between 1970 and 9999", "");
    one(&with("9999-12-31T23:59:59-23:00"), "5:11", "between 1970 and 9999", "");
}

#[test]
fn cgroups() {
    for (cgroup, what, help) in [
        ("", "begins with /", "/kubepods.slice"),
        ("system.slice", "begins with /", "\"/system.slice\""),
        ("/sys/fs/cgroup/system.slice", "not at /sys/fs/cgroup", "\"/system.slice\""),
        ("/sys/fs/cgroup", "not at /sys/fs/cgroup", "\"/\""),
        ("/a//b", "no empty components", "\"/a/b\""),
        ("/a/", "does not end with /", "\"/a\""),
        ("/a/../b", "no components `..`", ""),
        ("/a/./b", "no components `.`", "\"/a/b\""),
        ("/a\\nb", "no control characters", ""),
        ("/a/b[0-9]", "`[` means nothing", "one *"),
        ("/a/b?", "`?` means nothing", "one *"),
        ("/a/*b*", "has one *", "within one component"),
        ("/a*/b", "in the last component", "\"/…*…\""),
    ] {
        one(&scope(&format!("cgroup = \"{cgroup}\"")), "3:10", what, help);
    }
    let long = "x".repeat(255);
    one(&scope(&format!("cgroup = \"/{long}\"")), "3:10", "at most 255 bytes here, and this one has 256", "");
    one(
        &scope(&format!("cgroup = \"{}\"", "/x".repeat(64))),
        "3:10",
        "at most 63 deep here, and this one is 64",
        "",
    );
    let part = "x".repeat(33);
    one(
        &scope(&format!("cgroup = \"/a/{part}*\"")),
        "3:10",
        "32 bytes before its *, and this one has 33",
        "",
    );
    one(&scope(&format!("cgroup = \"/a/*{part}\"")), "3:10", "32 bytes after its *", "");
    one(&scope("cgroup = \"/a/b\\x2dc.slice\""), "3:10", "TOML replaces \\x", "single quotes");
}

#[test]
fn units() {
    for (unit, what, help) in [
        ("", "ends with its type", "fwupd.service"),
        ("fwupd", "ends with its type", "\"fwupd.service\""),
        (".service", "ends with its type", ""),
        ("a.timer", "a timer has no cgroup", "\"a.service\""),
        ("multi-user.target", "a target has no cgroup", ""),
        ("a.servce", "no units of type `servce`", "\"a.service\""),
        ("a.b", "no units of type `b`", "service, slice, scope"),
        ("/system.slice", "has no `/`", "use `cgroup`"),
        ("docker-*.scope", "has no `*`", "a pattern goes with `cgroup`"),
        ("a b.service", "has no ` `", "systemd-escape"),
        ("@a.service", "does not begin with @", ""),
        ("getty@.service", "a template", "\"getty@main.service\""),
        ("-a.slice", "single dashes", ""),
        ("a--b.slice", "single dashes", ""),
        ("a-.slice", "single dashes", ""),
    ] {
        one(&scope(&format!("unit = \"{unit}\"")), "3:8", what, help);
    }
    one(
        &scope(&format!("unit = \"{}.service\"", "x".repeat(248))),
        "3:8",
        "at most 255 bytes, and this one has 256",
        "",
    );
    one(&scope("unit = \"system-serial\\x2dgetty.slice\""), "3:8", "TOML replaces \\x", "single quotes");
}

#[test]
fn accepted_findings() {
    one("[[accept]]\ncode = \"SP001\"\n", "1:1", "an accepted finding needs `why`", "why =");
    one("[[accept]]\nwhy = \"x\"\n", "1:1", "needs `code`", "SP001");
    one("[[accept]]\ncode = \"SP1\"\nwhy = \"x\"\n", "2:8", "\"SP1\" is no code", "SP001");
    one("[[accept]]\ncode = \"SP001\"\nwhy = \" \"\n", "3:7", "`why` is empty", "");
    one("[[accept]]\ncode = \"SP001\"\nabout = \"\"\nwhy = \"x\"\n", "3:9", "`about` is empty", "");
    one(&exception("exe = \"/a\"\nwhy = \"\\u001b[2J\""), "5:7", "control characters", "");
}

fn trusted(rest: &str) -> String {
    format!("[[seal.trust]]\nname = \"p\"\n{rest}\n")
}

#[test]
fn trusted_programs() {
    const TAGS: &str = "tags = [\"1111111111111111\"]";
    let lsm = |rest: &str| trusted(&format!("kind = \"lsm\"\n{rest}"));
    one("[seal]\ntrust = [\"1\"]\n", "2:10", "`trust` is a table, and this is a string", "[[seal.trust]]");
    one("[seal.trust]\nname = \"p\"\n", "1:1", "several tables `trust`", "write [[seal.trust]]");
    one("[seal]\ntrust = 1\n", "2:9", "`trust` is a table, and this is an integer", "[[seal.trust]]");
    one(&trusted(&format!("tag = 1\nkind = \"cgroup-sysctl\"\n{TAGS}")), "3:1", "no key `tag`", "`tags`");
    one(
        &trusted(&format!("hook = \"bpf\"\n{TAGS}")),
        "1:1",
        "a trusted program needs `kind`",
        "kind = \"lsm\"",
    );
    let kinds = "`kind` cannot be \"lsm_cgroup\": it is lsm, lsm-cgroup, modify-return, ext or cgroup-sysctl";
    one(&trusted(&format!("kind = \"lsm_cgroup\"\nhook = \"bpf\"\n{TAGS}")), "3:8", kinds, "");
    one(&lsm("hook = \"bpf\""), "1:1", "a trusted program needs `tags`", "tags = [");
    one(&lsm("hook = \"bpf\"\ntags = []"), "5:8", "`tags` is empty", "stockade trust record");
    one(&lsm("hook = \"bpf\"\ntags = [\"11111111111111\"]"), "5:9", "16 hexadecimal digits", "bpftool");
    one(&lsm("hook = \"bpf\"\ntags = [\"+111111111111111\"]"), "5:9", "16 hexadecimal digits", "bpftool");
    one(&lsm("hook = \"bpf\"\ntags = [17]"), "5:9", "a list of strings", "tags = [");
    one(&lsm(TAGS), "1:1", "a trusted program needs `hook`", "hook = \"file_open\"");
    one(&lsm(&format!("hook = 12\n{TAGS}")), "4:8", "`hook` is a string", "file_open");
    one(&lsm(&format!("hook = \"file open\"\n{TAGS}")), "4:8", "the kernel has no such name", "file_open");
    one(&lsm(&format!("hook = \"bpf_lsm_bpf\"\n{TAGS}")), "4:8", "the hook's name alone", "hook = \"bpf\"");
    one(&trusted(&format!("kind = \"modify-return\"\n{TAGS}")), "1:1", "needs `hook`", "security_");
    one(
        &trusted(&format!("kind = \"ext\"\nhook = \"f\"\n{TAGS}")),
        "4:8",
        "a number where `kind` is \"ext\"",
        "12",
    );
    one(&trusted(&format!("kind = \"ext\"\nhook = 0\n{TAGS}")), "4:8", "1 to 4294967295", "trust record");
    one(&trusted(&format!("kind = \"cgroup-sysctl\"\nhook = \"a\"\n{TAGS}")), "4:1", "has no hook", "remove");
    let twice = "\"1111111111111111\", \"1111111111111111\"";
    one(&lsm(&format!("hook = \"bpf\"\ntags = [{twice}]")), "5:29", "lsm on bpf is trusted twice", "one of");
    let two = lsm(&format!("hook = \"bpf\"\n{TAGS}")).repeat(2);
    assert_eq!(problems(&two).list.len(), 2, "the name and the tag");
}

#[test]
fn more_trusted_tags_than_a_seal_has_room_for() {
    let entry = |name: &str, tags: std::ops::Range<u32>| {
        let tags: Vec<_> = tags.map(|tag| format!("\"{tag:016x}\"")).collect();
        format!(
            "[[seal.trust]]\nname = \"{name}\"\nkind = \"cgroup-sysctl\"\ntags = [\n{},\n]\n",
            tags.join(",\n")
        )
    };
    let room = read(&Source::new("policy.toml", entry("p", 0..32))).expect("there is room");
    one(
        &entry("p", 0..33),
        "37:1",
        "more programs than a seal has room for: 32 different tags",
        "trust record",
    );
    let more = read(&Source::new("more.toml", entry("q", 31..40))).expect("there is room");
    let found = stockade_policy::merge::merge([room.clone(), more]).expect_err("together there is not");
    assert!(found[0].what.contains("room for: 32") && found[0].at.line == 6, "{found:?}");
    // The same tag twice takes one place.
    let same = read(&Source::new("same.toml", entry("q", 31..32))).expect("there is room");
    stockade_policy::merge::merge([room, same]).expect("there is room");
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_lines() {
    let text = "levle = \"auto\"\nmode = \"enforced\"\n[reasons]\nhibernate = \"alow\"\n\
                [[exception]]\nname = \"e\"\nreasons = [\"kexce\", \"xmon-rw\"]\nexe = \"wrmsr\"\ndigest = \"12\"\n\
                uid = \"root\"\nexpires = 2027-01-31\n[[scope]]\nname = \"s\"\ncgroup = \"a\"\nlevel = 3\n";
    let found = problems(text);
    let lines: Vec<_> = found.list.iter().map(|p| p.at.line).collect();
    assert_eq!(lines, [1, 2, 4, 4, 7, 7, 8, 9, 10, 11, 14, 15], "{}", found.render(false));
}

#[test]
fn carets_stand_below_what_is_meant() {
    let found = problems("# ä\nlevel = \"integrty\"\n");
    let rendered = found.render(false);
    assert!(rendered.contains("--> policy.toml:2:9"), "{rendered}");
    let lines: Vec<_> = rendered.lines().collect();
    let at = lines.iter().position(|l| l.contains("level = \"integrty\"")).expect("the line is shown");
    assert_eq!(lines[at].find("\"integrty\""), lines[at + 1].find("^^^^^^^^^^"), "{rendered}");
    assert!(rendered.contains("help: did you mean \"integrity\"?"), "{rendered}");
    assert!(
        !rendered.contains('\u{1b}') && found.render(true).contains('\u{1b}'),
        "colour only where asked for"
    );
}

#[test]
fn a_policy_cannot_drive_the_terminal_of_who_reads_its_errors() {
    for text in [
        "\"a\\u001b[2J\" = 1\nmode = \"x\\u001b[2J\"\n'\u{1b}[31m' = 1\nlevel = \"\u{1b}[31m\"\n",
        "[[scope]]\nname = 'a'\nunit = 'a\u{1b}'\n",
        "level = a\u{1b}[2J\n",
        "level = '\u{9b}2J' # \u{85}\n",
        "\"a\u{1b}\" = 1\n\"a\u{1b}\" = 1\n",
        "[[accept]]\ncode = \"\\u001b\"\nwhy = \"x\"\n",
    ] {
        let found = problems(text);
        for said in [found.render(false), found.to_string()] {
            assert!(!said.contains(|c: char| c.is_control() && c != '\n'), "{said:?}");
        }
    }
}

#[test]
fn a_file_without_end_is_not_read() {
    let text = "#".repeat(stockade_policy::read::LARGEST + 1);
    let found = problems(&text);
    assert!(found.list[0].what.contains("more than 16 MiB"));
    assert!(found.render(false).len() < 4096, "the file is not repeated");
}
