//! Readers of the assessment: the firmware's event log, its signature lists, and the kernel's answers about IPsec. An attacker who ran before the
//! kernel may have written the first two.

use stockade_assess::features::fuzzed::{count_signatures, judge_answer, replay_log};

/// Replays an event log or refuses it. Every register has the size of its bank.
pub fn event_log_is_replayed(bytes: &[u8]) {
    match replay_log(bytes) {
        Ok((banks, secure_boot)) => {
            for (bank, registers) in &banks {
                let size = match *bank {
                    "sha1" => 20,
                    "sha256" => 32,
                    "sha384" => 48,
                    "sha512" => 64,
                    other => panic!("there is no bank {other}"),
                };
                assert!(registers.iter().all(|register| register.len() == size));
            }
            // Records are read in order, so a log that an event follows says of Secure Boot what it said before.
            if let Some(on) = secure_boot {
                let more = [bytes, &unmeasured(&banks)].concat();
                if let Ok((_, again)) = replay_log(&more) {
                    assert_eq!(again, Some(on));
                }
            }
        }
        Err(why) => assert!(!why.is_empty() && !why.contains(char::is_control)),
    }
}

/// Returns an event without digests (crypto agile) or with an empty one (SHA-1 format) that is not measured.
fn unmeasured(banks: &[(&'static str, Vec<Vec<u8>>)]) -> Vec<u8> {
    let mut event = [0_u32.to_le_bytes(), 3_u32.to_le_bytes()].concat();
    event.resize(if banks.len() == 1 { 28 } else { 12 }, 0);
    event.extend([0; 4]);
    event
}

/// Counts the entries of signature lists or refuses the variable. Twice the lists have twice the entries.
pub fn signatures_are_counted(file: &[u8]) {
    /// The attributes before the lists.
    const ATTRIBUTES: usize = 4;
    /// The owner before each entry; no entry is empty.
    const OWNER: usize = 16;
    match count_signatures(file) {
        Ok((entries, words)) => {
            assert!(!words.contains(char::is_control));
            assert!(entries <= file.len() / (OWNER + 1), "{entries} entries in {} bytes", file.len());
            let twice = [file, &file[ATTRIBUTES..]].concat();
            assert_eq!(count_signatures(&twice).map(|(entries, _)| entries), Ok(2 * entries));
        }
        Err(why) => assert!(!why.is_empty() && !why.contains(char::is_control)),
    }
}

/// Judges a netlink answer or returns the kernel's error. Each of the four findings is reported once, fit for a terminal.
pub fn ipsec_is_judged(answer: &[u8]) {
    let Ok(findings) = judge_answer(answer) else { return };
    let mut ids: Vec<&str> = findings.iter().map(|finding| finding.id.as_ref()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["ipsec.algorithms", "ipsec.replay", "ipsec.secrets", "ipsec.states"]);
    for finding in &findings {
        assert!(!finding.found.is_empty() && !finding.found.contains(char::is_control), "{}", finding.found);
    }
}
