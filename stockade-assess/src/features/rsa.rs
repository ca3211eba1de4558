/*!
RSA, with which the kernel verifies signatures of modules, images and certificates: whether it does so right, and by which implementation.
*/
use std::{ffi::CStr, io};

use crypto_bigint::{
    Encoding, U64, U2048,
    modular::runtime_mod::{DynResidue, DynResidueParams},
};
use sha2::{Digest, Sha256, Sha512};

use crate::{
    Feature, Finding, How, Report, System, Verdict,
    algorithms::{Algorithms, LIST},
    answers::{Answers, random},
    few,
    keys::PublicKey,
    vectors,
};

pub(super) const FEATURE: Feature = Feature { id: "rsa", title: "RSA", ..Feature::new(check) };

/// Of the modulus, in bytes.
const SIZE: usize = 256;

/// How many random numbers are raised.
const TURNS: usize = 4;

fn check(system: &System, report: &mut Report) {
    match Algorithms::of(system) {
        Ok(algorithms) => {
            report.add(answers(system, &algorithms));
            report.add(driver(&algorithms));
        }
        Err(unread) => {
            report.add(Finding::unknown("rsa.answers", How::Tried, &unread));
            report.add(Finding::unknown("rsa.driver", How::Read, unread));
        }
    }
}

fn driver(algorithms: &Algorithms) -> Finding {
    const ID: &str = "rsa.driver";
    let usable = algorithms.usable("rsa");
    let all: Vec<String> =
        usable.iter().map(|one| format!("{} (priority {})", one.driver, one.priority)).collect();
    let Some(one) = usable.first() else {
        return if algorithms.0.iter().any(|one| one.name == "rsa") {
            let found =
                "no implementation of RSA passed the kernel's self-test, so it verifies no signatures";
            Finding::new(ID, Verdict::Fail, How::Read, found).seen(LIST, "rsa, not marked as passed")
        } else {
            Finding::not_applicable(ID, How::Read, "this kernel has no RSA, or nothing has asked for it yet")
                .seen(LIST, "no rsa")
        };
    };
    Finding::new(ID, Verdict::Pass, How::Read, format!("{} serves", one.driver)).seen(LIST, few(&all))
}

fn answers(system: &System, algorithms: &Algorithms) -> Finding {
    const ID: &str = "rsa.answers";
    if !system.is_live() {
        return Finding::unknown(ID, How::Tried, "not tried");
    }
    let usable = algorithms.usable("rsa");
    // Asking for what is not registered would register it, or load its module.
    let Some(one) = usable.first() else {
        return Finding::unknown(ID, How::Tried, "rsa is not registered");
    };
    if algorithms.usable("sha256").is_empty() {
        return Finding::unknown(
            ID,
            How::Tried,
            "sha256 is not registered, which reading a certificate needs",
        );
    }
    let key = match PublicKey::of_certificate(vectors::RSA_KEY.certificate) {
        Ok(key) => key,
        Err(error) => {
            return Finding::unknown(ID, How::Tried, format!("adding a certificate to a keyring: {error}"));
        }
    };
    let mut answers = Answers::default();
    match raise(&mut answers, &one.driver, &key) {
        Ok(()) => answers.asked(&one.driver),
        Err(error) => answers.leave_out(format!("raising numbers with {}: {error}", one.driver)),
    }
    for (hash, name) in [("sha256", c"sha256"), ("sha512", c"sha512")] {
        let scheme = schemes(hash).into_iter().find_map(|scheme| algorithms.usable(&scheme).first().copied());
        let Some(scheme) = scheme else {
            answers.leave_out(format!("signatures with {hash}: {} is not registered", schemes(hash)[0]));
            continue;
        };
        match verify(&mut answers, &scheme.driver, &key, hash, name) {
            Ok(()) => answers.asked(&scheme.driver),
            Err(error) => answers.leave_out(format!("{}: {error}", scheme.driver)),
        }
    }
    answers.finding(ID, "RSA", "RustCrypto")
}

/// The padded scheme's names, since 6.13 and before.
fn schemes(hash: &str) -> [String; 2] {
    [format!("pkcs1(rsa,{hash})"), format!("pkcs1pad(rsa,{hash})")]
}

/// The bare computation: of documents' signatures, and of random numbers.
fn raise(answers: &mut Answers, driver: &str, key: &PublicKey) -> io::Result<()> {
    for vector in vectors::RSA {
        let answer = key.raise(vector.signature, SIZE)?;
        // What a signature holds is the padded digest, or it is none.
        let holds = padded(vector.hash, vector.message).is_some_and(|padded| padded == answer);
        answers.known(driver, vector.source, holds == vector.valid);
    }
    for _ in 0..TURNS {
        let mut number = random(SIZE)?;
        // Below the modulus, whose first bit is set.
        number[0] &= 0x7f;
        let answer = key.raise(&number, SIZE)?;
        answers.computed(driver, "a random number", computed(&number) == Some(answer));
    }
    Ok(())
}

fn verify(answers: &mut Answers, driver: &str, key: &PublicKey, hash: &str, name: &CStr) -> io::Result<()> {
    let vectors = || vectors::RSA.iter().filter(|vector| vector.hash == hash);
    for vector in vectors().filter(|vector| vector.valid) {
        let Some(mut digest) = digest(hash, vector.message) else { continue };
        answers.known(driver, vector.source, key.verifies(name, &digest, vector.signature)?);
        digest[0] ^= 1;
        answers.known(driver, "another digest", !key.verifies(name, &digest, vector.signature)?);
    }
    for vector in vectors().filter(|vector| !vector.valid) {
        let Some(digest) = digest(hash, vector.message) else { continue };
        let refused = match key.verifies(name, &digest, vector.signature) {
            Ok(verified) => !verified,
            // Kernels before 6.13 say so of padding that is wrong. That the call itself is valid, the right signature has shown.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => true,
            Err(error) => return Err(error),
        };
        answers.known(driver, vector.source, refused);
    }
    Ok(())
}

fn digest(hash: &str, message: &[u8]) -> Option<Vec<u8>> {
    match hash {
        "sha256" => Some(Sha256::digest(message).to_vec()),
        "sha512" => Some(Sha512::digest(message).to_vec()),
        _ => None,
    }
}

/// A digest as RFC 8017, section 9.2, pads it.
fn padded(hash: &str, message: &[u8]) -> Option<Vec<u8>> {
    // The algorithm's identifier in DER, from the notes of that section: all but its last number and the digest's length are the same.
    let digest = digest(hash, message)?;
    let length = u8::try_from(digest.len()).ok()?;
    let number = if hash == "sha256" { 1 } else { 3 };
    let prefix = [
        [0x30, 0x11 + length, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01].as_slice(),
        &[0x65, 0x03, 0x04, 0x02, number, 0x05, 0x00, 0x04, length],
    ]
    .concat();
    let filling = SIZE.checked_sub(3 + prefix.len() + digest.len())?;
    Some([&[0, 1], vec![0xff; filling].as_slice(), &[0], &prefix, &digest].concat())
}

/// The number raised to the exponent, by another implementation.
fn computed(number: &[u8]) -> Option<Vec<u8>> {
    let of = |bytes: &[u8]| Some(U2048::from_be_bytes(<[u8; SIZE]>::try_from(bytes).ok()?));
    let modulus = of(vectors::RSA_KEY.modulus)?;
    let exponent = vectors::RSA_KEY
        .exponent
        .iter()
        .try_fold(0u64, |sum, byte| Some(sum.checked_mul(256)? + u64::from(*byte)))?;
    let residue = DynResidue::new(&of(number)?, DynResidueParams::new(&modulus));
    Some(residue.pow(&U64::from(exponent)).retrieve().to_be_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_answers_are_right() {
        assert!(vectors::RSA_KEY.certificate.windows(SIZE).any(|part| part == vectors::RSA_KEY.modulus));
        for vector in vectors::RSA {
            let holds = computed(vector.signature) == padded(vector.hash, vector.message);
            assert_eq!(holds, vector.valid, "{}", vector.source);
        }
        for valid in [true, false] {
            assert!(vectors::RSA.iter().any(|vector| vector.valid == valid));
        }
    }

    #[test]
    fn this_machine_raises_numbers_right_or_says_why_not() {
        let answers = &FEATURE.findings(&System::live(false))["rsa.answers"];
        assert_ne!(answers.verdict, Verdict::Fail, "{answers:?}");
    }

    #[test]
    fn what_did_not_pass_its_test_serves_nobody() {
        let verdict = |list: &str| FEATURE.findings(&System::fake(&[(LIST, list)]))["rsa.driver"].verdict;
        assert_eq!(verdict("name : rsa\ndriver : rsa-generic\nselftest : passed\n"), Verdict::Pass);
        assert_eq!(verdict("name : rsa\ndriver : rsa-generic\nselftest : unknown\n"), Verdict::Fail);
        assert_eq!(verdict("name : dh\ndriver : dh-generic\nselftest : passed\n"), Verdict::NotApplicable);
    }
}
