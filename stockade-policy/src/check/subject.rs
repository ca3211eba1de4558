/*!
Who is excepted, and whether root can be that.
*/
use std::path::Path;

use super::{
    Case, Finding, Program, Report, Severity, code,
    falls::{about, subject},
    tools::{self, Bidding},
};
use crate::model::Exception;

/// Set-user-id and set-group-id.
const SET_ID: u32 = 0o6000;

pub(super) fn argue(case: &Case<'_>, report: &mut Report) {
    for (exception, program) in case.policy.exceptions.iter().zip(&case.programs) {
        if super::ended(exception, case.machine) {
            continue;
        }
        let program = program.as_ref().and_then(|seen| seen.as_ref().ok());
        report.findings.extend(by_cgroup(exception));
        report.findings.extend(by_uid(exception));
        report.findings.extend(bidding(exception, program));
        report.findings.extend(inherit(exception, program));
    }
}

fn by_cgroup(exception: &Exception) -> Option<Finding> {
    let place = exception.place.as_ref().filter(|_| exception.exe.is_none())?;
    Some(
        Finding::new(
            &code::SUBJECT_BY_CGROUP,
            about(exception),
            &place.origin,
            format!("any process of root can move itself into {}", place.value),
        )
        .label("says where a process is, not what it is"),
    )
}

fn by_uid(exception: &Exception) -> Option<Finding> {
    let uid = exception.uid.as_ref()?;
    Some(Finding::new(
        &code::SUBJECT_BY_UID,
        about(exception),
        &uid.origin,
        format!("root can become user {}", uid.value),
    ))
}

fn bidding(exception: &Exception, program: Option<&Program>) -> Option<Finding> {
    let exe = exception.exe.as_ref()?;
    // By either name: /usr/bin/awk is a link to whatever interprets it here.
    let real = program.map(|program| program.real.as_path());
    let found = |path: &Path| tools::bidding(path).map(|bidding| (bidding, path.display().to_string()));
    let (bidding, name) = found(&exe.value).or_else(|| real.and_then(found))?;
    let (code, message, label) = match bidding {
        Bidding::Interpreter => (
            &code::INTERPRETER,
            format!("{name} runs whatever script or program it is handed"),
            "stands for every script",
        ),
        Bidding::LoadsCode => (
            &code::LOADS_CODE,
            format!("{name} loads plugins or scripts that its caller chooses"),
            "stands for everything it loads",
        ),
        Bidding::Arguments => (
            &code::GENERAL_TOOL,
            format!("{name} does whatever its arguments say"),
            "stands for everybody who starts it",
        ),
    };
    Some(Finding::new(code, about(exception), &exe.origin, message).label(label))
}

fn inherit(exception: &Exception, program: Option<&Program>) -> Vec<Finding> {
    let Some(exe) = exception.exe.as_ref().filter(|_| exception.inherit.value) else { return Vec::new() };
    let finding = |code, message: String| {
        Finding::new(code, about(exception), &exception.inherit.origin, message)
            .related(&exe.origin, "by this program")
    };
    let mut findings = Vec::new();
    let starter = tools::starts_others(&exe.value) || program.is_some_and(|p| tools::starts_others(&p.real));
    findings.push(if starter {
        finding(
            &code::STARTS_OTHERS,
            format!("children of {} inherit, and its work is to start them for others", exe.value.display()),
        )
    } else {
        finding(&code::INHERIT, format!("children of {} are let through too", subject(exception)))
    });
    let set_id =
        program.filter(|p| p.regular).and_then(Program::file).is_some_and(|file| file.mode & SET_ID != 0);
    if set_id {
        findings.push(
            finding(
                &code::SETUID_INHERIT,
                format!("every user can start {}, and its children inherit", exe.value.display()),
            )
            .severity(Severity::Warning),
        );
    }
    findings
}
