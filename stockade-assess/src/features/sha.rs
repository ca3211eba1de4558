/*!
Hashes: whether the kernel computes them right, by which implementation, and how fast.
*/
use std::io;

use hmac::{Hmac, Mac as _};
use sha1::Sha1;
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use sha3::{Sha3_224, Sha3_256, Sha3_384, Sha3_512};

use crate::{
    Feature, Finding, How, Report, System,
    acceleration::{Family, serving, speed},
    af_alg::{Algorithm, Kind},
    algorithms::Algorithms,
    answers::{Answers, random},
    vectors,
};

pub(super) const FEATURE: Feature =
    Feature { id: "sha", title: "SHA", measure: Some(measure), ..Feature::new(check) };

const NAMES: [&str; 14] = [
    "sha1",
    "sha224",
    "sha256",
    "sha384",
    "sha512",
    "sha3-224",
    "sha3-256",
    "sha3-384",
    "sha3-512",
    "hmac(sha1)",
    "hmac(sha224)",
    "hmac(sha256)",
    "hmac(sha384)",
    "hmac(sha512)",
];

const FAMILIES: [Family; 4] = [
    Family {
        names: &["sha1"],
        instructions: &["sha_ni", "ssse3", "sha1"],
        option: "CONFIG_CRYPTO_LIB_SHA1_ARCH",
    },
    Family {
        names: &["sha256"],
        instructions: &["sha_ni", "ssse3", "sha2"],
        option: "CONFIG_CRYPTO_LIB_SHA256_ARCH",
    },
    Family {
        names: &["sha512"],
        instructions: &["ssse3", "sha512"],
        option: "CONFIG_CRYPTO_LIB_SHA512_ARCH",
    },
    // No processor of x86 has any.
    Family { names: &["sha3-256"], instructions: &["sha3"], option: "CONFIG_CRYPTO_LIB_SHA3_ARCH" },
];

/// Around blocks of 64, 72, 104, 128, 136 and 144 bytes, and some longer ones.
const LENGTHS: [usize; 12] = [0, 1, 63, 64, 65, 127, 128, 129, 136, 144, 1000, 4096];

/// Algorithms that are measured, 64 KiB at a time.
const MEASURED: [&str; 4] = ["sha1", "sha256", "sha512", "sha3-256"];
const REQUEST: usize = 65536;

fn check(system: &System, report: &mut Report) {
    let algorithms = Algorithms::of(system);
    match &algorithms {
        Ok(algorithms) => report.add(answers(system, algorithms)),
        Err(unread) => report.add(Finding::unknown("sha.answers", How::Tried, unread)),
    }
    if !system.measures() {
        report.add(match algorithms {
            Ok(algorithms) => serving("sha.driver", system, &algorithms, &FAMILIES),
            Err(unread) => Finding::unknown("sha.driver", How::Read, unread),
        });
    }
}

fn measure(system: &System, report: &mut Report) {
    const ID: &str = "sha.driver";
    let algorithms = match Algorithms::of(system) {
        Ok(algorithms) => algorithms,
        Err(unread) => return report.add(Finding::unknown(ID, How::Read, unread)),
    };
    let mut finding = serving(ID, system, &algorithms, &FAMILIES);
    if Kind::Hash.ready(system).is_ok() {
        for name in MEASURED {
            let Some(one) = algorithms.usable(name).into_iter().next() else { continue };
            let measured = Algorithm::bind(Kind::Hash, &one.driver).and_then(|algorithm| {
                let operation = algorithm.begin()?;
                let message = vec![0; REQUEST];
                speed(REQUEST, || operation.hash(&message).map(drop))
            });
            finding = match measured {
                Ok(speed) => finding.measured(name, speed, "MB/s", None),
                Err(error) => finding.seen(format!("measuring {}", one.driver), error.to_string()),
            };
        }
    }
    report.add(finding);
}

fn answers(system: &System, algorithms: &Algorithms) -> Finding {
    Answers::ask(system, algorithms, &NAMES, trial).finding("sha.answers", "SHA", "RustCrypto")
}

fn trial(answers: &mut Answers, name: &str, driver: &str, algorithm: &Algorithm) -> io::Result<()> {
    let keyed = name.starts_with("hmac");
    for vector in vectors::SHA.iter().filter(|vector| vector.algorithm == name) {
        if keyed {
            algorithm.set_key(vector.key)?;
        }
        let digest = algorithm.begin()?.hash(vector.message)?;
        answers.known(driver, vector.source, digest == vector.digest);
    }
    let key = if keyed { random(32)? } else { Vec::new() };
    if keyed {
        algorithm.set_key(&key)?;
    }
    let operation = algorithm.begin()?;
    for length in LENGTHS {
        let message = random(length)?;
        let digest = operation.hash(&message)?;
        if let Some(right) = computed(name, &key, &message) {
            answers.computed(driver, &format!("a random message of {length} bytes"), digest == right);
        }
    }
    Ok(())
}

/// Computes the digest by another implementation.
fn computed(name: &str, key: &[u8], message: &[u8]) -> Option<Vec<u8>> {
    fn of<D: Digest>(message: &[u8]) -> Vec<u8> {
        D::digest(message).to_vec()
    }
    macro_rules! keyed {
        ($hash:ty) => {
            Hmac::<$hash>::new_from_slice(key).ok()?.chain_update(message).finalize().into_bytes().to_vec()
        };
    }
    Some(match name {
        "sha1" => of::<Sha1>(message),
        "sha224" => of::<Sha224>(message),
        "sha256" => of::<Sha256>(message),
        "sha384" => of::<Sha384>(message),
        "sha512" => of::<Sha512>(message),
        "sha3-224" => of::<Sha3_224>(message),
        "sha3-256" => of::<Sha3_256>(message),
        "sha3-384" => of::<Sha3_384>(message),
        "sha3-512" => of::<Sha3_512>(message),
        "hmac(sha1)" => keyed!(Sha1),
        "hmac(sha224)" => keyed!(Sha224),
        "hmac(sha256)" => keyed!(Sha256),
        "hmac(sha384)" => keyed!(Sha384),
        "hmac(sha512)" => keyed!(Sha512),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Verdict;

    #[test]
    fn the_known_answers_are_right_and_there_are_some_for_each() {
        for name in NAMES {
            let mut any = false;
            for vector in vectors::SHA.iter().filter(|vector| vector.algorithm == name) {
                any = true;
                assert_eq!(
                    computed(name, vector.key, vector.message).unwrap(),
                    vector.digest,
                    "{}",
                    vector.source
                );
            }
            assert!(any, "{name}");
        }
        assert!(vectors::SHA.iter().all(|vector| NAMES.contains(&vector.algorithm)));
    }

    #[test]
    fn nothing_is_tried_on_files() {
        let list = "name : sha256\ndriver : sha256-ni\nselftest : passed\ntype : shash\n";
        let findings = FEATURE.findings(&System::fake(&[("/proc/crypto", list)]));
        let answers = &findings["sha.answers"];
        assert_eq!(answers.verdict, Verdict::Unknown);
        assert!(
            answers.found.starts_with("not tried") || answers.found.contains("not tried"),
            "{}",
            answers.found
        );
        assert_eq!(findings["sha.driver"].verdict, Verdict::Pass);
        assert_eq!(FEATURE.findings(&System::fake(&[]))["sha.driver"].verdict, Verdict::Unknown);
    }
}
