//! Which files make a policy: order, masking, names, images.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use stockade_policy::{
    LoadError, Loaded, load,
    load::{Trust, Where},
    model::{LevelChoice, Mode, Verdict},
};
use tempfile::TempDir;

const VENDOR: &str = "usr/lib/stockade/policy.toml";
const HOST: &str = "etc/stockade/policy.toml";

/// An image with these files.
fn image(files: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().expect("a folder");
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
    root
}

fn system(root: &TempDir) -> Result<Loaded, LoadError> {
    load(Where::System(root.path()), Trust::Any)
}

/// The names of the files that were read, from the root on.
fn read(root: &TempDir, loaded: &Loaded) -> Vec<String> {
    let prefix = format!("{}/", root.path().display());
    loaded
        .sources
        .iter()
        .map(|s| s.name().strip_prefix(&prefix).expect("below the root").to_owned())
        .collect()
}

#[test]
fn the_hosts_files_come_after_the_distributions_and_drop_ins_after_both_by_name() {
    let root = image(&[
        (HOST, "mode = \"audit\"\n[reasons]\nperf = \"deny\"\n"),
        ("etc/stockade/policy.d/20-b.toml", "[reasons]\nkcore = \"deny\"\n"),
        ("etc/stockade/policy.d/10-a.toml", "[reasons]\nkcore = \"allow\"\n"),
        (VENDOR, "level = \"integrity\"\nmode = \"enforce\"\n[reasons]\nperf = \"allow\"\nmsr = \"audit\"\n"),
        ("usr/lib/stockade/policy.d/90-z.toml", "level = \"none\"\n"),
        ("usr/lib/stockade/policy.d/05-y.toml", "level = \"confidentiality\"\n"),
    ]);
    let loaded = system(&root).unwrap();
    assert_eq!(
        read(&root, &loaded),
        [
            VENDOR,
            "usr/lib/stockade/policy.d/05-y.toml",
            "usr/lib/stockade/policy.d/90-z.toml",
            HOST,
            "etc/stockade/policy.d/10-a.toml",
            "etc/stockade/policy.d/20-b.toml",
        ]
    );
    let policy = loaded.policy;
    assert_eq!((policy.level.value, policy.mode.value), (LevelChoice::None, Mode::Audit));
    let reasons: Vec<_> = policy.reasons.iter().map(|(id, said)| (id.as_str(), said.value)).collect();
    assert_eq!(reasons, [("kcore", Verdict::Deny), ("msr", Verdict::Audit), ("perf", Verdict::Deny)]);
    assert!(policy.level.origin.to_string().ends_with("policy.d/90-z.toml:1"), "{}", policy.level.origin);
}

#[test]
fn a_drop_in_of_the_host_takes_the_place_of_the_distributions_of_the_same_name() {
    let root = image(&[
        ("usr/lib/stockade/policy.d/10-a.toml", "level = \"none\"\nmode = \"audit\"\n"),
        ("etc/stockade/policy.d/10-a.toml", "level = \"integrity\"\n"),
    ]);
    let loaded = system(&root).unwrap();
    assert_eq!(read(&root, &loaded), ["etc/stockade/policy.d/10-a.toml"]);
    assert_eq!(loaded.policy.mode.value, Mode::Enforce, "nothing of the masked one is left");
    assert_eq!(loaded.passed_over.len(), 1);
    assert!(loaded.passed_over[0].why.starts_with("masked by /"), "{}", loaded.passed_over[0].why);
}

#[test]
fn an_empty_file_or_a_link_to_dev_null_masks() {
    let root = image(&[
        (HOST, "level = \"integrity\"\n"),
        ("usr/lib/stockade/policy.d/10-a.toml", "level = \"none\"\n"),
        ("usr/lib/stockade/policy.d/20-b.toml", "level = \"none\"\n"),
        ("etc/stockade/policy.d/10-a.toml", ""),
    ]);
    symlink("/dev/null", root.path().join("etc/stockade/policy.d/20-b.toml")).unwrap();
    let loaded = system(&root).unwrap();
    assert_eq!(read(&root, &loaded), [HOST]);
    assert_eq!(loaded.passed_over.len(), 4, "{:?}", loaded.passed_over);
}

#[test]
fn the_distributions_policy_can_be_masked_as_a_whole() {
    let root =
        image(&[(VENDOR, "level = \"none\"\n"), ("etc/stockade/policy.d/10-a.toml", "mode = \"audit\"\n")]);
    symlink("/dev/null", root.path().join(HOST)).unwrap();
    let loaded = system(&root).unwrap();
    assert_eq!(read(&root, &loaded), ["etc/stockade/policy.d/10-a.toml"]);
    assert_eq!(loaded.policy.level.value, LevelChoice::Auto);
}

#[test]
fn scopes_and_exceptions_are_replaced_whole_and_by_name_and_lists_add_up() {
    let accept = |why: &str| format!("[[accept]]\ncode = \"SP001\"\nwhy = \"{why}\"\n");
    let root = image(&[
        (
            VENDOR,
            &format!(
                "[[exception]]\nname = \"e\"\nreasons = [\"msr\"]\nexe = \"/a\"\nuid = 1\n\
                 [[exception]]\nname = \"f\"\nreasons = [\"msr\"]\nexe = \"/f\"\n\
                 [[scope]]\nname = \"s\"\ncgroup = \"/s\"\nlevel = \"none\"\nloosen = true\n{}",
                accept("a")
            ),
        ),
        (
            HOST,
            &format!(
                "[[exception]]\nname = \"e\"\nreasons = [\"kexec\"]\nexe = \"/b\"\n\
                 [[scope]]\nname = \"s\"\ncgroup = \"/s\"\nmode = \"audit\"\n{}",
                accept("b")
            ),
        ),
    ]);
    let policy = system(&root).unwrap().policy;
    let names: Vec<_> = policy.exceptions.iter().map(|e| e.name.value.as_str()).collect();
    assert_eq!(names, ["e", "f"]);
    let e = &policy.exceptions[0];
    assert_eq!((e.exe.as_ref().unwrap().value.as_path(), e.uid.as_ref()), (Path::new("/b"), None));
    assert_eq!(
        (policy.scopes.len(), &policy.scopes[0].level, policy.scopes[0].loosen.value),
        (1, &None, false)
    );
    assert_eq!(policy.accepted.len(), 2);
}

#[test]
fn two_scopes_at_one_place_in_two_files_are_told_with_both() {
    let scope = |name: &str| format!("[[scope]]\nname = \"{name}\"\ncgroup = \"/a\"\n");
    let root = image(&[(VENDOR, &scope("s")), (HOST, &scope("t"))]);
    let LoadError::Invalid(problems) = system(&root).unwrap_err() else { panic!("it is wrong") };
    let rendered = problems.render(false);
    assert!(rendered.contains("the scopes \"s\" and \"t\" are at the same place, /a"), "{rendered}");
    assert!(rendered.contains("usr/lib/stockade/policy.toml:3"), "{rendered}");
    assert!(rendered.contains("etc/stockade/policy.toml:3:10"), "{rendered}");
}

#[test]
fn mistakes_of_all_files_are_told_at_once() {
    let root = image(&[
        (VENDOR, "levle = 1\n"),
        (HOST, "[[scope]]\n"),
        ("etc/stockade/policy.d/a.toml", "version = 3\n"),
    ]);
    fs::write(root.path().join("etc/stockade/policy.d/b.toml"), b"level = \"\xff\"\n").unwrap();
    let LoadError::Invalid(problems) = system(&root).unwrap_err() else { panic!("they are wrong") };
    let told: Vec<_> = problems.list.iter().map(|p| problems.position(p)).collect();
    let ends = ["policy.toml:1:1", "policy.toml:1:1", "policy.toml:1:1", "a.toml:1:11", "b.toml:1:10"];
    assert_eq!(told.len(), 5, "{told:?}");
    assert!(told.iter().zip(ends).all(|(told, end)| told.ends_with(end)), "{told:?}");
    assert!(problems.to_string().contains("not UTF-8"));
}

#[test]
fn without_any_file_it_is_said_where_to_write_one() {
    for files in [&[][..], &[(HOST, "")][..], &[("etc/stockade/policy.d/readme", "")][..]] {
        let root = image(files);
        let said = system(&root).unwrap_err().to_string();
        assert!(said.starts_with("there is no policy: none of /"), "{said}");
        assert!(
            said.contains(&format!("write {}/etc/stockade/policy.toml", root.path().display())),
            "{said}"
        );
    }
}

#[test]
fn what_is_there_and_cannot_be_read_is_an_error() {
    let root = image(&[(VENDOR, "level = \"none\"\n"), ("etc/stockade/policy.d/x/y", "")]);
    symlink("nowhere", root.path().join(HOST)).unwrap();
    let said = system(&root).unwrap_err().to_string();
    assert!(said.contains("etc/stockade/policy.toml: No such file"), "{said}");
    fs::remove_file(root.path().join(HOST)).unwrap();
    fs::create_dir(root.path().join(HOST)).unwrap();
    assert!(system(&root).unwrap_err().to_string().contains("not a regular file"));
}

#[test]
fn links_of_an_image_stay_in_the_image() {
    let root = image(&[("usr/share/there.toml", "level = \"none\"\n")]);
    fs::create_dir_all(root.path().join("etc/stockade")).unwrap();
    symlink("/usr/share/there.toml", root.path().join(HOST)).unwrap();
    assert_eq!(system(&root).unwrap().policy.level.value, LevelChoice::None);
    fs::remove_file(root.path().join(HOST)).unwrap();
    // Of the host, where it exists; not of the image.
    symlink("../../../../../../../../etc/hostname", root.path().join(HOST)).unwrap();
    assert!(system(&root).unwrap_err().to_string().contains("No such file"));
}

#[test]
fn files_and_folders_can_be_named() {
    let root = image(&[
        ("a/policy.toml", "level = \"none\"\n"),
        ("a/policy.d/1.toml", "mode = \"audit\"\n"),
        ("a/policy.d/.hidden.toml", "levle = 1\n"),
        ("a/policy.d/2.toml.rpmsave", "levle = 1\n"),
        ("b.toml", "level = \"integrity\"\n"),
        ("empty/x", ""),
        ("empty.toml", ""),
    ]);
    let at = |name: &str| root.path().join(name);
    let named = |paths: &[PathBuf]| load(Where::Named(paths), Trust::Any);
    let loaded = named(&[at("a"), at("b.toml")]).unwrap();
    assert_eq!(read(&root, &loaded), ["a/policy.toml", "a/policy.d/1.toml", "b.toml"]);
    assert_eq!((loaded.policy.level.value, loaded.policy.mode.value), (LevelChoice::Integrity, Mode::Audit));
    assert_eq!(loaded.passed_over.len(), 2);
    assert!(named(&[at("empty")]).unwrap_err().to_string().contains("this folder has no policy.toml"));
    assert!(named(&[at("empty.toml")]).unwrap_err().to_string().contains("empty.toml: this file is empty"));
    assert!(named(&[at("nothing.toml")]).unwrap_err().to_string().contains("nothing.toml: No such file"));
}

#[test]
fn to_be_applied_a_policy_has_to_be_roots_alone() {
    use std::os::unix::fs::PermissionsExt;
    let root = image(&[("p.toml", "level = \"none\"\n")]);
    let path = root.path().join("p.toml");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let error = load(Where::Named(std::slice::from_ref(&path)), Trust::RootOnly).unwrap_err();
    assert!(matches!(error, LoadError::Untrusted(_)), "{error}");
    assert!(load(Where::Named(&[path]), Trust::Any).is_ok());
}
