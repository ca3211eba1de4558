/*!
What implementations answer to questions whose answers are known, or computed by somebody else.
*/
use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

use crate::{
    Finding, How, System, Verdict,
    af_alg::{Algorithm, Kind},
    algorithms::Algorithms,
    few,
};

/// The score of all implementations that were asked.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    known: usize,
    random: usize,
    asked: Vec<String>,
    wrong: Vec<String>,
    /// Algorithms that were not tried or did not answer, and why.
    left_out: Vec<String>,
}

impl Answers {
    /// Notes an answer to a question from a document.
    pub fn known(&mut self, driver: &str, source: &str, right: bool) {
        self.known += 1;
        if !right {
            self.wrong.push(format!("{driver}: {source}"));
        }
    }

    /// Notes an answer that was computed a second time.
    pub fn computed(&mut self, driver: &str, what: &str, right: bool) {
        self.random += 1;
        if !right {
            self.wrong.push(format!("{driver}: {what}"));
        }
    }

    /// Notes one that gave at least one answer.
    pub fn asked(&mut self, driver: &str) {
        self.asked.push(driver.into());
    }

    /// Notes what was not asked.
    pub fn leave_out(&mut self, why: impl Into<String>) {
        let why = why.into();
        if !self.left_out.contains(&why) {
            self.left_out.push(why);
        }
    }

    /// Asks every registered implementation of these algorithms by sockets.
    pub fn ask(
        system: &System,
        algorithms: &Algorithms,
        names: &[&str],
        mut trial: impl FnMut(&mut Self, &str, &str, &Algorithm) -> io::Result<()>,
    ) -> Self {
        let mut answers = Self::default();
        for name in names {
            let mut any = false;
            for one in algorithms.usable(name) {
                let Some(kind) = Kind::of(one) else { continue };
                any = true;
                if let Err(why) = kind.ready(system).and_then(|()| algorithms.is_in_use(one)) {
                    answers.leave_out(why);
                    continue;
                }
                let tried = Algorithm::bind(kind, &one.driver)
                    .and_then(|algorithm| trial(&mut answers, name, &one.driver, &algorithm));
                match tried {
                    Ok(()) => answers.asked(&one.driver),
                    Err(error) => answers.leave_out(format!("{}: {error}", one.driver)),
                }
            }
            if !any {
                answers.leave_out(format!("{name} is not registered"));
            }
        }
        answers
    }

    /// Returns the finding. `reference` computed the answers to random inputs.
    pub fn finding(self, id: &'static str, what: &str, reference: &str) -> Finding {
        let finding = if !self.wrong.is_empty() {
            let found = format!("wrong answers for {what}");
            Finding::new(id, Verdict::Fail, How::Tried, found).seen("wrong", few(&self.wrong))
        } else if self.known + self.random == 0 {
            let why =
                if self.left_out.is_empty() { "nothing to ask".into() } else { several(&self.left_out) };
            return Finding::unknown(id, How::Tried, why);
        } else {
            let rest = if self.left_out.is_empty() { "" } else { "; not everything could be asked" };
            let (known, random) = (count(self.known, "known"), count(self.random, "random"));
            let found = format!("{known} and {random} of {what} right{rest}");
            Finding::new(id, Verdict::Pass, How::Tried, found)
        };
        let finding = finding
            .seen(
                "questions",
                format!("{} from documents, {} also computed by {reference}", self.known, self.random),
            )
            .seen("implementations asked", few(&self.asked));
        if self.left_out.is_empty() { finding } else { finding.seen("left out", several(&self.left_out)) }
    }
}

/// The first few reasons; they may have commas of their own.
fn several(reasons: &[String]) -> String {
    const SHOWN: usize = 4;
    let more = reasons.len().saturating_sub(SHOWN);
    let shown = reasons[..reasons.len() - more].join("; ");
    if more == 0 { shown } else { format!("{shown}; and {more} more") }
}

fn count(n: usize, which: &str) -> String {
    format!("{n} {which} answer{}", if n == 1 { "" } else { "s" })
}

/// So many random bytes.
pub(crate) fn random(length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::NONBLOCK)?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "sha.answers";

    #[test]
    fn one_wrong_answer_fails_and_is_named() {
        let mut answers = Answers::default();
        answers.known("sha256-ni", "CAVP, Len 0", true);
        answers.computed("sha256-ni", "a message of 7 bytes", true);
        answers.asked("sha256-ni");
        answers.leave_out("sha1 is not registered");
        let right = answers.finding(ID, "SHA", "RustCrypto");
        assert_eq!((right.verdict, right.evidence.len()), (Verdict::Pass, 3));

        let mut answers = Answers::default();
        answers.known("sha256-ni", "CAVP, Len 0", true);
        answers.computed("sha256-ni", "a message of 7 bytes", false);
        let wrong = answers.finding(ID, "SHA", "RustCrypto");
        assert_eq!(
            (wrong.verdict, wrong.evidence[0].observed.as_str()),
            (Verdict::Fail, "sha256-ni: a message of 7 bytes")
        );
    }

    #[test]
    fn no_answer_is_no_success() {
        let mut answers = Answers::default();
        answers.leave_out("not tried");
        answers.leave_out("not tried");
        let finding = answers.finding(ID, "SHA", "RustCrypto");
        assert_eq!((finding.verdict, finding.found.as_str()), (Verdict::Unknown, "not tried"));
        assert_eq!(Answers::default().finding(ID, "SHA", "RustCrypto").verdict, Verdict::Unknown);
    }
}
