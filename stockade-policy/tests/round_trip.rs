//! What is shown reads as the same policy; what is damaged never makes the reader fall over.

use proptest::prelude::*;
use stockade_policy::{Source, load, load::Trust, merge::merge, model::Policy, read, show, show::canonical};

/// Everything the language has.
const FULL: &str = r#"
version = 1
level = "confidentiality"
mode = "audit"
unknown-reasons = "deny"
reasons.perf = "allow"

[settings]
freeze = ["net/ipv4/conf/eth0.1/forwarding", "default"]
ratchet = [
    "kernel/sysrq",
    "kernel.yama.ptrace_scope", # two
]

[[scope]]
name = "pods \"ä\" \\ of\u202Eteam"
cgroup = '/kubepods.slice/pod\x2done-*.slice'
level = "integrity"
mode = "enforce"
loosen = true
[scope.reasons]
kcore = "deny"
msr = "audit"

[[scope]]
name = "everything"
cgroup = "/"

[[scope]]
name = "getty"
unit = 'system-serial\x2dgetty.slice'

[[exception]]
name = "firmware"
reasons = [
    "dev-mem", # two
    "msr",
]
exe = "/usr/libexec/fwupd/fw upd"
digest = "sha256:00ff0000000000000000000000000000000000000000000000000000000000AA"
unit = "fwupd@a.service"
uid = 0x10
inherit = true
expires = 2027-01-31T01:00:00.5+01:00
why = """line one
line "two"\t"""

[[exception]]
name = "verity"
reasons = ["kexec"]
exe = "/usr/sbin/kexec"
digest = "verity:sha256:00ff0000000000000000000000000000000000000000000000000000000000aa"

[[exception]]
name = "place"
reasons = ["perf"]
cgroup = "/user.slice"

[[accept]]
code = "SP001"
about = "firmware"
why = "looked at"

[[accept]]
code = "SP002"
why = "looked at too"

[seal]
pcr = 13
require-tpm = true
room-for-scopes = true

[[seal.trust]]
name = "restrict_filesystems"
kind = "lsm"
hook = "file_open"
tags = [
    "6CBD744a7dc19c8d", # 6.12
    "00bd744a7dc19c8d",
]
why = "systemd"

[[seal.trust]]
name = "dispatcher"
kind = "ext"
hook = 0x0c
tags = ["1111111111111111"]

[[seal.trust]]
name = "networkd"
kind = "cgroup-sysctl"
tags = ["2222222222222222"]
"#;

fn policy(text: &str) -> Option<Policy> {
    merge([read(&Source::new("policy.toml", text)).ok()?]).ok()
}

fn same_after_show(text: &str) -> Option<Policy> {
    let policy = policy(text)?;
    let shown = show(&policy);
    let again = read(&Source::new("shown", &*shown))
        .map_err(|e| format!("{}\n{shown}", e.render(false)))
        .expect("what is shown is right");
    let again = merge([again]).expect("what is shown is right");
    assert_eq!(again.without_origins(), policy.clone().without_origins(), "{shown}");
    Some(policy)
}

#[test]
fn everything_the_language_has_is_shown() {
    let policy = same_after_show(FULL).expect("it is right");
    let shown = show(&policy);
    assert!(shown.contains("of\\u202Eteam"), "what would turn the rest of the line around is escaped");
    for line in [
        "level = \"confidentiality\" # from policy.toml:3",
        "perf = \"allow\" # from policy.toml:6",
        "ratchet = [",
        "    \"kernel.yama.ptrace_scope\", # from policy.toml:12",
        "freeze = [\"default\", \"net.ipv4.conf.eth0/1.forwarding\"] # from policy.toml:9",
        "    \"msr\", # from policy.toml:37",
        "expires = 2027-01-31T00:00:00.5Z # from policy.toml:44",
        "uid = 16 # from policy.toml:42",
        "inherit = false # default",
        "pcr = 13 # from policy.toml:69",
        "room-for-scopes = true # from policy.toml:71",
        "hook = \"file_open\" # from policy.toml:76",
        "    \"00bd744a7dc19c8d\", # from policy.toml:79",
        "hook = 12 # from policy.toml:86",
    ] {
        assert!(shown.lines().any(|l| l == line), "{line}\n{shown}");
    }
}

#[test]
fn the_canonical_form_says_the_same_and_not_where() {
    let policy_of = |name: &str, text: &str| merge([read(&Source::new(name, text)).unwrap()]).unwrap();
    let one = canonical(&policy_of("policy.toml", FULL));
    assert_eq!(one, canonical(&policy_of("/elsewhere # from here", &format!("\n# first\n{FULL}"))));
    assert!(!one.contains("# from") && one.lines().all(|line| line == line.trim_end()), "{one}");
    assert_eq!(policy(&one).unwrap().without_origins(), policy(FULL).unwrap().without_origins());
    assert_ne!(one, canonical(&policy(&FULL.replace("pcr = 13", "pcr = 12")).unwrap()));
    // What stands at the end of a value is no place.
    let tricky = "[[accept]]\ncode = \"SP001\"\nwhy = \"it is # from \"\n";
    assert!(canonical(&policy(tricky).unwrap()).contains("why = \"it is # from \"\n"));
}

#[test]
fn an_empty_file_shows_the_defaults() {
    let shown = show(&policy("").unwrap());
    let defaults = "version = 1\nlevel = \"auto\" # default\nmode = \"enforce\" # default\nunknown-reasons = \"level\" # default\n";
    assert_eq!(shown, defaults);
    assert!(same_after_show("").is_some());
}

#[test]
fn the_heading_is_toml_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a\nlevel = 1\n.toml");
    std::fs::write(&path, "level = \"none\"\n").unwrap();
    let loaded = load(load::Where::Named(&[path]), Trust::Any).unwrap();
    let text = stockade_policy::show::heading(&loaded) + &show(&loaded.policy);
    assert_eq!(policy(&text).unwrap().without_origins(), loaded.policy.without_origins());
}

#[test]
fn cut_anywhere_it_is_read_or_refused() {
    for end in (0..FULL.len()).filter(|end| FULL.is_char_boundary(*end)) {
        judge(&FULL[..end]);
        judge(&FULL[end..]);
    }
}

/// Never panics, and what is wrong can be told.
fn judge(text: &str) {
    if same_after_show(text).is_some() {
        return;
    }
    if let Err(problems) = read(&Source::new("policy.toml", text)) {
        assert!(!problems.list.is_empty());
        assert!(!problems.render(false).is_empty() && !problems.to_string().is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        judge(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn changed_bytes_are_read_or_refused(changes in proptest::collection::vec((0..FULL.len(), any::<u8>()), 1..4)) {
        let mut bytes = FULL.as_bytes().to_vec();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        judge(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn shuffled_lines_are_read_or_refused(order in proptest::collection::vec(0..FULL.lines().count(), 0..40)) {
        let lines: Vec<_> = FULL.lines().collect();
        let text: Vec<_> = order.into_iter().map(|n| lines[n]).collect();
        judge(&text.join("\n"));
    }

    #[test]
    fn right_policies_come_back(text in right::policy()) {
        prop_assert!(same_after_show(&text).is_some(), "{}\n{}", text, read(&Source::new("p", &*text)).expect_err("wrong").render(false));
    }
}

/// Policies that are right, whatever they say.
mod right {
    use proptest::{collection::vec, option, prelude::*, sample::select};
    use stockade_reasons::Subject;

    fn key(name: &'static str, value: impl Strategy<Value = String> + 'static) -> BoxedStrategy<String> {
        option::of(value).prop_map(move |v| v.map_or(String::new(), |v| format!("{name} = {v}\n"))).boxed()
    }

    fn words(words: &'static [&'static str]) -> impl Strategy<Value = String> {
        select(words).prop_map(|word| format!("\"{word}\""))
    }

    fn level() -> BoxedStrategy<String> {
        key("level", words(&["none", "integrity", "confidentiality", "auto"]))
    }

    fn mode() -> BoxedStrategy<String> {
        key("mode", words(&["enforce", "audit"]))
    }

    fn ids(trustworthy: bool) -> Vec<&'static str> {
        let all = stockade_reasons::all().iter();
        all.filter(|r| !trustworthy || r.subject == Subject::Trustworthy).map(|r| r.id).collect()
    }

    fn reasons(heading: &'static str) -> impl Strategy<Value = String> {
        vec((select(ids(false)), select(&["allow", "audit", "deny"][..])), 0..4).prop_map(move |mut said| {
            said.sort_unstable();
            said.dedup_by_key(|(id, _)| *id);
            let lines: Vec<_> = said.iter().map(|(id, verdict)| format!("{id} = \"{verdict}\"\n")).collect();
            format!("{heading}\n{}", lines.concat())
        })
    }

    /// In single quotes: what TOML leaves as it is.
    fn cgroup(n: usize) -> impl Strategy<Value = String> {
        ("(/[a-zA-Z0-9 _.:\\\\@é-]{1,8}x){1,4}", any::<bool>()).prop_map(move |(path, star)| {
            format!("cgroup = '{path}{n}{}'\n", if star { "*.scope" } else { "" })
        })
    }

    fn unit(n: usize) -> impl Strategy<Value = String> {
        "[a-z0-9:_.@\\\\-]{0,10}x".prop_map(move |name| format!("unit = 'u{name}{n}.service'\n"))
    }

    fn scope(n: usize) -> impl Strategy<Value = String> {
        let place = prop_oneof![cgroup(n), unit(n)];
        (place, level(), mode(), key("loosen", words_bare()), reasons("[scope.reasons]")).prop_map(
            move |(place, level, mode, loosen, reasons)| {
                format!("[[scope]]\nname = \"scope {n}\"\n{place}{level}{mode}{loosen}{reasons}")
            },
        )
    }

    fn words_bare() -> impl Strategy<Value = String> {
        select(&["true", "false"][..]).prop_map(str::to_owned)
    }

    fn exception(n: usize) -> impl Strategy<Value = String> {
        let reasons =
            proptest::sample::subsequence(ids(true), 1..4).prop_map(|ids| format!("reasons = {ids:?}\n"));
        let digest = key("digest", "(verity:)?sha256:[0-9a-fA-F]{64}".prop_map(|d| format!("\"{d}\"")));
        let exe = ("(/[a-zA-Z0-9 _.:\\\\é\\[-]{1,8}x){1,3}", digest, key("inherit", words_bare()))
            .prop_map(|(exe, digest, inherit)| format!("exe = '{exe}'\n{digest}{inherit}"));
        let place = prop_oneof![Just(String::new()), cgroup(n), unit(n)];
        let subject = prop_oneof![(exe, place).prop_map(|(exe, place)| exe + &place), cgroup(n), unit(n)];
        let time =
            (1970..9999u32, 1..13u32, 1..29u32, 0..24u32, 0..60u32, select(&["Z", ".25Z", "-07:30"][..]))
                .prop_map(|(y, m, d, h, min, zone)| format!("{y:04}-{m:02}-{d:02}T{h:02}:{min:02}:59{zone}"));
        let why = "[ -~é\n\t]{0,20}x".prop_map(|why| toml::Value::String(why).to_string());
        let uid = (0..u32::MAX).prop_map(|uid| uid.to_string());
        (reasons, subject, key("uid", uid), key("expires", time), key("why", why)).prop_map(
            move |(reasons, subject, uid, expires, why)| {
                format!("[[exception]]\nname = \"exception {n}\"\n{reasons}{subject}{uid}{expires}{why}")
            },
        )
    }

    fn settings() -> impl Strategy<Value = String> {
        let known: Vec<_> = stockade_policy::settings::all()
            .iter()
            .filter(|setting| setting.values.have_an_order())
            .flat_map(|setting| [setting.name, setting.kernel_name])
            .chain(["default"])
            .collect();
        let free = "[a-z]{2,8}([./][a-z0-9_-]{1,8}){1,3}".prop_map(|name| format!("x{name}"));
        (proptest::sample::subsequence(known, 0..5), vec(free, 0..3)).prop_map(|(mut ratchet, mut freeze)| {
            let canonical = stockade_policy::settings::canonical;
            ratchet.sort_unstable_by_key(|name| canonical(name));
            ratchet.dedup_by_key(|name| canonical(name));
            freeze.sort_unstable_by_key(|name| canonical(name));
            freeze.dedup_by_key(|name| canonical(name));
            format!("[settings]\nratchet = {ratchet:?}\nfreeze = {freeze:?}\n")
        })
    }

    pub fn policy() -> impl Strategy<Value = String> {
        let unknown = key("unknown-reasons", words(&["level", "allow", "audit", "deny"]));
        let scopes = (0..4usize).prop_flat_map(|n| (0..n).map(|n| scope(n).boxed()).collect::<Vec<_>>());
        let exceptions =
            (0..4usize).prop_flat_map(|n| (0..n).map(|n| exception(n).boxed()).collect::<Vec<_>>());
        (level(), mode(), unknown, reasons("[reasons]"), settings(), scopes, exceptions).prop_map(
            |(level, mode, unknown, reasons, settings, scopes, exceptions)| {
                format!("{level}{mode}{unknown}{reasons}{settings}{}{}", scopes.concat(), exceptions.concat())
            },
        )
    }
}
