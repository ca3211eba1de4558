/*!
The file of an excepted program: whether it can be the program of a process, and who can change it.
*/
use super::{Case, Finding, Keeper, Program, Report, Severity, Step, Unseen, code, falls::about};
use crate::model::{Digest, Exception, Said};

pub(super) fn argue(case: &Case<'_>, report: &mut Report) {
    for (exception, program) in case.policy.exceptions.iter().zip(&case.programs) {
        let (Some(exe), Some(program)) = (&exception.exe, program) else { continue };
        let finding = |code, message: String| Finding::new(code, about(exception), &exe.origin, message);
        let name = exe.value.display();
        let program = match program {
            Ok(program) => program,
            Err(Unseen::Missing(path)) => {
                let message = if *path == exe.value {
                    format!("there is no {name}")
                } else {
                    format!("there is no {name}: {} is missing", path.display())
                };
                report.findings.push(finding(&code::PROGRAM_MISSING, message));
                continue;
            }
            Err(Unseen::Failed(path, error)) => {
                let who = if *path == exe.value { String::new() } else { format!("{}: ", path.display()) };
                report.unseen.push(format!("the program {name}: {who}{error}"));
                continue;
            }
        };
        if let Some(why) = not_a_program(program) {
            report.findings.push(finding(&code::NOT_A_PROGRAM, format!("{name} {why}")));
        }
        if !program.regular {
            continue;
        }
        if let Some(interpreter) = &program.script {
            report.findings.push(finding(
                &code::SCRIPT,
                format!("{name} is a script: the kernel sees {interpreter} instead, so this never applies"),
            ));
        }
        report.findings.extend(others(exception, program, &finding));
        report.findings.extend(foreign(program, &finding));
        let is_measured =
            matches!(exception.digest.as_ref().map(|digest| &digest.value), Some(Digest::Verity(_)));
        if !is_measured && !program.file_system.read_only && program.script.is_none() {
            report.findings.push(
                finding(&code::FORGEABLE, format!("root can have another file executed as {name}"))
                    .label("known by a change time, which root can forge"),
            );
        }
        match &exception.digest {
            None if !program.file_system.read_only => {
                report.findings.push(
                    finding(
                        &code::REPLACEABLE,
                        format!("root can replace {name}, and the new one has the exception once the policy is applied again"),
                    )
                    .label("no digest binds its content"),
                );
            }
            None => {}
            Some(digest) => content(case, exception, &exe.value, digest, report),
        }
    }
}

fn not_a_program(program: &Program) -> Option<String> {
    if !program.regular {
        return Some("is no regular file".into());
    }
    if program.file().is_some_and(|file| file.mode & 0o111 == 0) {
        return Some("may be executed by nobody".into());
    }
    program.file_system.no_exec.then(|| "is on a file system that is mounted noexec".into())
}

/// Returns the other users who can write there, by the mode bits: an access control list shows in those of the group.
fn others(
    exception: &Exception,
    program: &Program,
    finding: &impl Fn(&'static super::Code, String) -> Finding,
) -> Option<Finding> {
    let (ways, cures): (Vec<_>, Vec<_>) =
        program.way.iter().filter_map(|step| writer(step, &program.way)).unzip();
    let first = ways.first()?;
    let message = match ways.len() {
        1 => first.clone(),
        more => format!("{first}, and {} more on the way to the program", more - 1),
    };
    let bound = exception.digest.is_some();
    let what = if bound {
        "can take the exception away from the program, though not have it"
    } else {
        "chooses the program that has the exception when the policy is applied next"
    };
    let mut remedy = cures.join("; ");
    if !bound {
        remedy.push_str("; and give a digest");
    }
    Some(
        finding(&code::WRITABLE_BY_OTHERS, message)
            .severity(if bound { Severity::Warning } else { Severity::Error })
            .label("others than root choose what this is")
            .why(format!("Whoever can write there {what}: {}.", super::list(ways.iter().map(String::as_str))))
            .remedy(remedy),
    )
}

/// Returns the other users who can write in one step, and the command that ends it.
fn writer(step: &Step, way: &[Step]) -> Option<(String, String)> {
    // What a link points to is decided by who may write in its folder.
    if step.link {
        return None;
    }
    let path = step.path.display();
    if step.uid != 0 {
        return Some((format!("{path} belongs to user {}", step.uid), format!("chown root {path}")));
    }
    let by_all = step.mode & 0o002 != 0;
    let by_group = step.mode & 0o020 != 0 && (step.gid != 0 || step.acl);
    if !by_all && !by_group {
        return None;
    }
    // In a folder with the sticky bit only the owner of a name may move it out of the way.
    let is_folder = way.last().is_some_and(|file| file.path != step.path);
    let mut names_below = way.iter().filter(|below| below.path.parent() == Some(&step.path));
    if is_folder && step.mode & 0o1000 != 0 && names_below.all(|below| below.uid == 0) {
        return None;
    }
    let who = match (by_all, step.acl) {
        (true, _) => "all".to_owned(),
        (false, true) => "its group or by an access control list".to_owned(),
        (false, false) => format!("group {}", step.gid),
    };
    let cure =
        if step.acl { format!("setfacl -b {path}; chmod go-w {path}") } else { format!("chmod go-w {path}") };
    Some((format!("{path} is writable by {who}"), cure))
}

fn foreign(program: &Program, finding: &impl Fn(&'static super::Code, String) -> Finding) -> Option<Finding> {
    let real = program.real.display();
    let (severity, message) = match program.file_system.keeper {
        Keeper::Kernel => return None,
        Keeper::Network(protocol) => {
            (Severity::Warning, format!("{real} comes over {protocol}: the server decides what it contains"))
        }
        Keeper::Process => {
            (Severity::Warning, format!("{real} is on FUSE: a process decides what it contains"))
        }
        Keeper::Memory => (Severity::Note, format!("{real} is in memory and gone after a reboot")),
        Keeper::Overlay => {
            (Severity::Note, format!("{real} is on an overlay: the same program elsewhere is another one"))
        }
    };
    Some(finding(&code::FOREIGN_FILE_SYSTEM, message).severity(severity))
}

fn content(
    case: &Case<'_>,
    exception: &Exception,
    exe: &std::path::Path,
    digest: &Said<Digest>,
    report: &mut Report,
) {
    let name = exe.display();
    let finding = |code, message: String| Finding::new(code, about(exception), &digest.origin, message);
    let (measured, wanted, kind) = match &digest.value {
        Digest::Sha256(wanted) => (case.machine.files.sha256(exe).map(Some), wanted, "sha256:"),
        Digest::Verity(wanted) => (case.machine.files.verity(exe), wanted, "verity:sha256:"),
    };
    match measured {
        Ok(Some(measured)) if measured == *wanted => {}
        Ok(Some(measured)) => report.findings.push(
            finding(
                &code::DIGEST_DIFFERS,
                format!("{name} does not have this digest: it will not be let through"),
            )
            .label("not what the file has")
            .remedy(format!("Find out why the file changed (dpkg --verify, rpm -V). If it is the right one, say digest = \"{kind}{}\".", hex(&measured))),
        ),
        Ok(None) => report.findings.push(finding(
            &code::NO_VERITY,
            format!("{name} is not under fs-verity: it will not be let through"),
        )),
        Err(error) => report.unseen.push(format!("the content of {name}: {error}")),
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
