/*!
How good a cipher of dm-crypt is, by its name: `aes-xts-plain64`, or in the crypto API's own words `capi:authenc(hmac(sha256),xts(aes))-random`.
*/
use crate::Verdict;

/// Ciphers with blocks of 64 bits or known to be broken: after some gigabytes, blocks repeat and tell of their content.
const BROKEN: [&str; 8] = ["des", "des3_ede", "blowfish", "cast5", "arc4", "tea", "xtea", "khazad"];

/// Sound as far as anybody knows, and seldom looked at or used.
const RARE: [&str; 9] =
    ["serpent", "twofish", "camellia", "aria", "sm4", "anubis", "cast6", "kuznyechik", "seed"];

/// Modes of which one use of a key and a number gives away what another hides: numbers of sectors come again with each write.
const ONCE: [&str; 5] = ["ctr", "gcm", "ccm", "poly1305", "aegis128"];

/// Whether it is a cipher in name only.
pub(super) fn encrypts_nothing(spec: &str) -> bool {
    spec.to_ascii_lowercase().contains("cipher_null")
}

/// What is to be said of a cipher, and whether it is good.
pub(super) fn grade(spec: &str) -> (Verdict, &'static str) {
    if encrypts_nothing(spec) {
        return (Verdict::Fail, "it encrypts nothing");
    }
    let spec = spec.to_ascii_lowercase();
    let (plain, spec) = match spec.strip_prefix("capi:") {
        Some(rest) => (false, rest),
        None => (true, spec.as_str()),
    };
    let words: Vec<&str> = spec
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| !word.is_empty())
        .collect();
    let has = |word: &str| words.contains(&word);
    let vector = spec.rsplit_once('-').map_or("", |(_, vector)| vector);
    let vector = vector.split(':').next().unwrap_or_default();
    if BROKEN.iter().any(|cipher| has(cipher)) {
        return (Verdict::Fail, "its blocks are too short or it is broken");
    }
    if has("ecb") {
        return (Verdict::Fail, "equal blocks stay equal");
    }
    if ONCE.iter().any(|mode| has(mode)) && vector != "random" {
        return (Verdict::Fail, "a sector that is written twice gives both contents away");
    }
    if vector == "null" {
        return (Verdict::Fail, "equal sectors stay equal");
    }
    if has("gcm") || has("ccm") || has("poly1305") || has("authenc") || has("aegis128") {
        return (Verdict::Pass, "encrypted, and protected from changes");
    }
    if has("cbc") || has("pcbc") {
        return match vector {
            "essiv" | "eboiv" => (Verdict::Warn, "changes to a sector can be aimed at"),
            _ if has("essiv") => (Verdict::Warn, "changes to a sector can be aimed at"),
            "lmk" | "tcw" | "elephant" => (Verdict::Warn, "made to read volumes of other programs"),
            _ => (Verdict::Fail, "prepared files can be recognised without the key"),
        };
    }
    if has("adiantum") || has("hctr2") {
        return (Verdict::Pass, "good");
    }
    if has("lrw") {
        return (Verdict::Warn, "its mode has been superseded by XTS");
    }
    if has("xts") {
        return if RARE.iter().any(|cipher| has(cipher)) {
            (Verdict::Warn, "its cipher is seldom looked at or used")
        } else if !has("aes") {
            (Verdict::Warn, "its cipher is not known to Stockade")
        } else if vector == "plain" {
            (Verdict::Warn, "sector numbers repeat after 2 TiB")
        } else {
            (Verdict::Pass, "good")
        };
    }
    if plain && matches!(words[..], [_] | [_, "plain"]) {
        // The kernel's own default for a cipher without a mode: cbc-plain.
        return (Verdict::Fail, "prepared files can be recognised without the key");
    }
    (Verdict::Warn, "its mode is not known to Stockade")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ciphers_are_graded() {
        for (spec, verdict) in [
            ("aes-xts-plain64", Verdict::Pass),
            ("capi:xts(aes)-plain64", Verdict::Pass),
            ("capi:xts-aes-aesni-plain64", Verdict::Pass),
            ("capi:adiantum(xchacha12,aes)-plain64", Verdict::Pass),
            ("xchacha12,aes-adiantum-plain64", Verdict::Pass),
            ("capi:authenc(hmac(sha256),xts(aes))-random", Verdict::Pass),
            ("capi:gcm(aes)-random", Verdict::Pass),
            ("capi:authenc(hmac(sha256),ctr(aes))-random", Verdict::Pass),
            ("capi:rfc7539(chacha20,poly1305)-random", Verdict::Pass),
            ("capi:essiv(cbc(aes),sha256)-plain64", Verdict::Warn),
            ("aes-cbc-elephant", Verdict::Warn),
            ("seed-xts-plain64", Verdict::Warn),
            ("capi:gcm(aes)-plain64", Verdict::Fail),
            ("aes-xts-null", Verdict::Fail),
            ("aes-plain", Verdict::Fail),
            ("aes-xts-plain", Verdict::Warn),
            ("aes-cbc-essiv:sha256", Verdict::Warn),
            ("capi:cbc(aes)-essiv:sha256", Verdict::Warn),
            ("aes:64-cbc-lmk", Verdict::Warn),
            ("serpent-xts-plain64", Verdict::Warn),
            ("twofish-xts-plain64", Verdict::Warn),
            ("aes-lrw-benbi", Verdict::Warn),
            ("something-new-plain64", Verdict::Warn),
            ("aes-cbc-plain", Verdict::Fail),
            ("aes-cbc-plain64", Verdict::Fail),
            ("aes-cbc-null", Verdict::Fail),
            ("aes", Verdict::Fail),
            ("aes-ecb", Verdict::Fail),
            ("aes-ctr-plain64", Verdict::Fail),
            ("cipher_null-ecb", Verdict::Fail),
            ("capi:ecb(cipher_null)-plain", Verdict::Fail),
            ("des3_ede-cbc-essiv:sha256", Verdict::Fail),
            ("blowfish-cbc-essiv:sha256", Verdict::Fail),
        ] {
            assert_eq!(grade(spec).0, verdict, "{spec}");
        }
    }
}
