/*!
The policy in the kernel, asked what it would decide. Nothing is attempted, and nothing is logged.
*/
use std::{
    fs::OpenOptions,
    io::{self, Read, Write},
};

use super::{DENIAL, FOLDER};
use crate::{Finding, How, System, Unread, Verdict, child};

/// Whether the kernel denies what no policy grants: that something without a proper label switches SELinux off.
pub(super) fn denial(system: &System, enforces: Option<i64>) -> Finding {
    if !system.is_live() {
        return Finding::unknown(DENIAL, How::Tried, child::NOT_TRIED);
    }
    match ask(system) {
        Ok(answer) => judge(&answer, enforces),
        Err(missing) => Finding::unknown(DENIAL, How::Tried, missing),
    }
}

struct Answer {
    who: String,
    whom: String,
    /// The bits of what is allowed.
    allowed: u32,
    /// The bit of what was asked for.
    asked: u32,
}

fn ask(system: &System) -> Result<Answer, String> {
    let text = |path: String| {
        let text = system.text(&path).map_err(|unread: Unread| unread.to_string())?;
        Ok::<_, String>(text.trim_end_matches('\0').to_owned())
    };
    let who = text(format!("{FOLDER}/initial_contexts/unlabeled"))?;
    let whom = text(format!("{FOLDER}/initial_contexts/security"))?;
    let class = text(format!("{FOLDER}/class/security/index"))?;
    let number = text(format!("{FOLDER}/class/security/perms/setenforce"))?;
    let asked = number.parse::<u32>().ok().and_then(|number| 1_u32.checked_shl(number.checked_sub(1)?));
    let asked = asked.ok_or(format!("the permission setenforce has the number {number}"))?;
    let reply = exchange(&format!("{who} {whom} {class}")).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!("{FOLDER}/access: this process may not ask the policy (security:compute_av)")
        }
        _ => format!("{FOLDER}/access: {error}"),
    })?;
    let allowed = reply.split_whitespace().next().and_then(|word| u32::from_str_radix(word, 16).ok());
    let allowed = allowed.ok_or(format!("{FOLDER}/access answered {reply:?}"))?;
    Ok(Answer { who, whom, allowed, asked })
}

/// A question in one write, the answer in one read.
fn exchange(question: &str) -> io::Result<String> {
    let mut file = OpenOptions::new().read(true).write(true).open(format!("{FOLDER}/access"))?;
    file.write_all(question.as_bytes())?;
    let mut reply = [0; 256];
    let length = file.read(&mut reply)?;
    Ok(String::from_utf8_lossy(&reply[..length]).into_owned())
}

fn judge(answer: &Answer, enforces: Option<i64>) -> Finding {
    let Answer { who, whom, allowed, asked } = answer;
    let denied = allowed & asked == 0;
    let finding = match (denied, enforces) {
        (false, _) => {
            let found = "the policy lets even what has no proper label switch SELinux off";
            Finding::new(DENIAL, Verdict::Fail, How::Tried, found)
        }
        (true, Some(1)) => {
            Finding::new(DENIAL, Verdict::Pass, How::Tried, "the kernel denies what no policy grants")
        }
        (true, Some(_)) => {
            let found = "the policy denies what it should, and the kernel lets it pass all the same, being permissive";
            Finding::new(DENIAL, Verdict::Fail, How::Tried, found)
        }
        (true, None) => {
            let missing = "the policy denies what it should; whether that is enforced could not be read";
            Finding::unknown(DENIAL, How::Tried, missing)
        }
    };
    finding.seen(
        format!("{FOLDER}/access: may {who} setenforce {whom}?"),
        format!("{}, allowed {allowed:x}", if denied { "no" } else { "yes" }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_denied_has_to_be_enforced() {
        let verdict = |allowed, enforces| {
            let answer = Answer { who: "u:r:a_t".into(), whom: "u:r:b_t".into(), allowed, asked: 0x20 };
            judge(&answer, enforces).verdict
        };
        assert_eq!(verdict(0x1f, Some(1)), Verdict::Pass);
        assert_eq!(verdict(0x1f, Some(0)), Verdict::Fail);
        assert_eq!(verdict(u32::MAX, Some(1)), Verdict::Fail);
        assert_eq!(verdict(0, None), Verdict::Unknown);
        assert_eq!(denial(&System::fake(&[]), Some(1)).verdict, Verdict::Unknown);
    }
}
