/*!
AES: whether the kernel computes it correctly in each mode, with which implementation, and how fast.
*/
use std::io;

use aes::{
    Aes128, Aes192, Aes256,
    cipher::{
        BlockCipher, BlockDecrypt, BlockEncrypt, BlockEncryptMut, BlockSizeUser, KeyInit, KeyIvInit,
        StreamCipher,
        generic_array::{GenericArray, typenum::U16},
    },
};
use aes_gcm::{AeadInPlace, AesGcm, aead::consts::U12};
use xts_mode::Xts128;

use crate::{
    Feature, Finding, How, Report, System,
    acceleration::{Family, serving, speed},
    af_alg::{Algorithm, Direction, Kind, Operation, TAG},
    algorithms::Algorithms,
    answers::{Answers, random},
    vectors,
};

pub(super) const FEATURE: Feature =
    Feature { id: "aes", title: "AES", measure: Some(measure), ..Feature::new(check) };

const GCM: &str = "gcm(aes)";
const NAMES: [&str; 5] = ["ecb(aes)", "cbc(aes)", "ctr(aes)", "xts(aes)", GCM];

const FAMILIES: [Family; 1] = [Family {
    names: &["aes", "cbc(aes)", "ctr(aes)", "xts(aes)", GCM],
    instructions: &["aes"],
    option: "CONFIG_CRYPTO_LIB_AES_ARCH",
}];

/// Message lengths: one block, several blocks, a sector, a page, and a length that is no multiple of a block, for the modes that accept it.
const LENGTHS: [usize; 5] = [16, 64, 512, 4096, 1007];

/// The algorithms whose throughput is measured: name, length of the key in bytes, label. Each request has 64 KiB.
const MEASURED: [(&str, usize, &str); 4] = [
    ("xts(aes)", 64, "xts(aes) 256"),
    ("cbc(aes)", 32, "cbc(aes) 256"),
    ("ctr(aes)", 32, "ctr(aes) 256"),
    (GCM, 32, "gcm(aes) 256"),
];
const REQUEST: usize = 65536;

fn check(system: &System, report: &mut Report) {
    let algorithms = Algorithms::of(system);
    match &algorithms {
        Ok(algorithms) => report.add(answers(system, algorithms)),
        Err(unread) => report.add(Finding::unknown("aes.answers", How::Tried, unread)),
    }
    if !system.measures() {
        report.add(match algorithms {
            Ok(algorithms) => serving("aes.driver", system, &algorithms, &FAMILIES),
            Err(unread) => Finding::unknown("aes.driver", How::Read, unread),
        });
    }
}

fn measure(system: &System, report: &mut Report) {
    const ID: &str = "aes.driver";
    let algorithms = match Algorithms::of(system) {
        Ok(algorithms) => algorithms,
        Err(unread) => return report.add(Finding::unknown(ID, How::Read, unread)),
    };
    let mut finding = serving(ID, system, &algorithms, &FAMILIES);
    for (name, key, label) in MEASURED {
        let usable = algorithms.usable(name);
        let Some((one, kind)) = usable.into_iter().find_map(|one| Some((one, Kind::of(one)?))) else {
            continue;
        };
        if kind.ready(system).and_then(|()| algorithms.is_in_use(one)).is_err() {
            continue;
        }
        finding = match speed_of(kind, name, &one.driver, key) {
            Ok(speed) => finding.measured(label, speed, "MB/s", None),
            Err(error) => finding.seen(format!("measuring {}", one.driver), error.to_string()),
        };
    }
    report.add(finding);
}

fn speed_of(kind: Kind, name: &str, driver: &str, key: usize) -> io::Result<f64> {
    let algorithm = Algorithm::bind(kind, driver)?;
    algorithm.set_key(&random(key)?)?;
    let (iv, message) = (random(iv_length(name))?, vec![0; REQUEST]);
    if name == GCM {
        algorithm.set_tag()?;
        // The kernel returns the tag in the same request, so the message leaves room for it.
        let message = &message[TAG..];
        let operation = algorithm.begin()?;
        return speed(message.len(), || {
            operation.authenticated(Direction::Encrypt, &iv, &[], message).map(drop)
        });
    }
    let operation = algorithm.begin()?;
    speed(REQUEST, || operation.cipher(Direction::Encrypt, &iv, &message).map(drop))
}

fn answers(system: &System, algorithms: &Algorithms) -> Finding {
    Answers::ask(system, algorithms, &NAMES, trial).finding("aes.answers", "AES", "RustCrypto")
}

fn iv_length(name: &str) -> usize {
    match name {
        "ecb(aes)" => 0,
        GCM => 12,
        _ => 16,
    }
}

fn takes(name: &str, length: usize) -> bool {
    length.is_multiple_of(16) || matches!(name, "ctr(aes)" | "xts(aes)" | GCM)
}

fn trial(answers: &mut Answers, name: &str, driver: &str, algorithm: &Algorithm) -> io::Result<()> {
    if name == GCM {
        algorithm.set_tag()?;
    }
    for vector in vectors::AES.iter().filter(|vector| vector.algorithm == name) {
        algorithm.set_key(vector.key)?;
        let question = Question {
            iv: vector.iv,
            associated: vector.associated,
            plain: vector.plain,
            cipher: [vector.cipher, vector.tag].concat(),
        };
        let outcome = question.ask(name, &algorithm.begin()?)?;
        answers.known(driver, &format!("{} {}", outcome.operation(), vector.source), outcome.is_right());
    }
    for length in if name == "xts(aes)" { &[32, 64][..] } else { &[16, 24, 32] } {
        let key = random(*length)?;
        algorithm.set_key(&key)?;
        let operation = algorithm.begin()?;
        for length in LENGTHS.into_iter().filter(|length| takes(name, *length)) {
            let (iv, plain) = (random(iv_length(name))?, random(length)?);
            let associated = random(if name == GCM { 20 } else { 0 })?;
            let Some(cipher) = computed(name, &key, &iv, &associated, &plain) else { continue };
            let outcome =
                Question { iv: &iv, associated: &associated, plain: &plain, cipher }.ask(name, &operation)?;
            let what =
                format!("{} {length} random bytes with a {}-bit key", outcome.operation(), key.len() * 8);
            answers.computed(driver, &what, outcome.is_right());
        }
    }
    Ok(())
}

/// A message, plain and encrypted, with the tag at its end.
struct Question<'a> {
    iv: &'a [u8],
    associated: &'a [u8],
    plain: &'a [u8],
    cipher: Vec<u8>,
}

/// The result of one [`Question`].
struct Outcome {
    encrypted: bool,
    decrypted: bool,
    /// Whether a changed tag was refused; none for modes without a tag.
    refused: Option<bool>,
}

impl Question<'_> {
    fn ask(&self, name: &str, operation: &Operation) -> io::Result<Outcome> {
        let ask = |direction, message: &[u8]| {
            if name == GCM {
                operation.authenticated(direction, self.iv, self.associated, message)
            } else {
                operation.cipher(direction, self.iv, message)
            }
        };
        let is_refusal = |answer: &io::Result<Vec<u8>>| matches!(answer, Err(error) if error.raw_os_error() == Some(libc::EBADMSG));
        let encrypted = ask(Direction::Encrypt, self.plain)? == self.cipher;
        let answer = ask(Direction::Decrypt, &self.cipher);
        // Refusing a correct tag is a wrong answer too.
        let decrypted = if is_refusal(&answer) { false } else { answer? == self.plain };
        let refused = (name == GCM).then(|| {
            let mut forged = self.cipher.clone();
            if let Some(last) = forged.last_mut() {
                *last ^= 1;
            }
            is_refusal(&ask(Direction::Decrypt, &forged))
        });
        Ok(Outcome { encrypted, decrypted, refused })
    }
}

impl Outcome {
    fn is_right(&self) -> bool {
        self.encrypted && self.decrypted && self.refused != Some(false)
    }

    /// Names the operation whose result was wrong.
    fn operation(&self) -> &'static str {
        match (self.encrypted, self.decrypted) {
            (false, _) => "encrypting",
            (true, false) => "decrypting",
            (true, true) => "accepting a changed tag",
        }
    }
}

/// Encrypts with a second implementation, RustCrypto, to compare with the kernel.
fn computed(name: &str, key: &[u8], iv: &[u8], associated: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
    match (name, key.len()) {
        ("xts(aes)", 32) => xts::<Aes128>(key, iv, plain),
        ("xts(aes)", 64) => xts::<Aes256>(key, iv, plain),
        (GCM, 16) => gcm::<Aes128>(key, iv, associated, plain),
        (GCM, 24) => gcm::<Aes192>(key, iv, associated, plain),
        (GCM, 32) => gcm::<Aes256>(key, iv, associated, plain),
        (_, 16) => simple::<Aes128>(name, key, iv, plain),
        (_, 24) => simple::<Aes192>(name, key, iv, plain),
        (_, 32) => simple::<Aes256>(name, key, iv, plain),
        _ => None,
    }
}

fn xts<C: BlockCipher + BlockEncrypt + BlockDecrypt + KeyInit>(
    key: &[u8],
    iv: &[u8],
    plain: &[u8],
) -> Option<Vec<u8>> {
    let (first, second) = key.split_at(key.len() / 2);
    let cipher = Xts128::new(C::new_from_slice(first).ok()?, C::new_from_slice(second).ok()?);
    let mut text = plain.to_vec();
    cipher.encrypt_sector(&mut text, iv.try_into().ok()?);
    Some(text)
}

fn gcm<C>(key: &[u8], iv: &[u8], associated: &[u8], plain: &[u8]) -> Option<Vec<u8>>
where
    C: BlockCipher + BlockSizeUser<BlockSize = U16> + BlockEncrypt + KeyInit,
{
    let cipher = AesGcm::<C, U12>::new_from_slice(key).ok()?;
    let mut text = plain.to_vec();
    let nonce: [u8; 12] = iv.try_into().ok()?;
    let tag = cipher.encrypt_in_place_detached(&nonce.into(), associated, &mut text).ok()?;
    text.extend_from_slice(&tag);
    Some(text)
}

fn simple<C>(name: &str, key: &[u8], iv: &[u8], plain: &[u8]) -> Option<Vec<u8>>
where
    C: BlockCipher + BlockSizeUser<BlockSize = U16> + BlockEncryptMut + BlockEncrypt + KeyInit,
{
    let mut text = plain.to_vec();
    match name {
        "ecb(aes)" => {
            let cipher = C::new_from_slice(key).ok()?;
            text.chunks_exact_mut(16)
                .for_each(|block| cipher.encrypt_block(GenericArray::from_mut_slice(block)));
        }
        "cbc(aes)" => {
            let mut cipher = cbc::Encryptor::<C>::new_from_slices(key, iv).ok()?;
            text.chunks_exact_mut(16)
                .for_each(|block| cipher.encrypt_block_mut(GenericArray::from_mut_slice(block)));
        }
        "ctr(aes)" => ctr::Ctr128BE::<C>::new_from_slices(key, iv).ok()?.apply_keystream(&mut text),
        _ => return None,
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Verdict;

    #[test]
    fn the_known_answers_are_right_and_there_are_some_for_each() {
        for name in NAMES {
            let mut any = false;
            for vector in vectors::AES.iter().filter(|vector| vector.algorithm == name) {
                any = true;
                let cipher = computed(name, vector.key, vector.iv, vector.associated, vector.plain).unwrap();
                assert_eq!(cipher, [vector.cipher, vector.tag].concat(), "{}", vector.source);
            }
            assert!(any, "{name}");
        }
        assert!(vectors::AES.iter().all(|vector| NAMES.contains(&vector.algorithm)));
    }

    #[test]
    fn tables_in_place_of_instructions_are_seen() {
        let verdict = |driver: &str| {
            let list = format!("name : aes\ndriver : {driver}\nselftest : passed\ntype : cipher\n");
            let files = [("/proc/crypto", list.as_str()), ("/proc/cpuinfo", "flags : aes\n")];
            FEATURE.findings(&System::fake(&files))["aes.driver"].verdict
        };
        assert_eq!(verdict("aes-aesni"), Verdict::Pass);
        assert_eq!(verdict("aes-generic"), Verdict::Warn);
        assert_eq!(verdict("aes-fixed-time"), Verdict::Warn);
        let findings = FEATURE.findings(&System::fake(&[]));
        assert_eq!(findings["aes.driver"].verdict, Verdict::Unknown);
        assert_eq!(findings["aes.answers"].verdict, Verdict::Unknown);
    }
}
