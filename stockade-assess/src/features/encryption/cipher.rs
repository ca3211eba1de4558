/*!
The strength of a dm-crypt cipher by its name: `aes-xts-plain64`, or in the notation of the crypto API `capi:authenc(hmac(sha256),xts(aes))-random`.
*/
use crate::Verdict;

/// Broken ciphers, and ciphers with 64-bit blocks, whose blocks collide after some gigabytes and leak plaintext.
const BROKEN: [&str; 8] = ["des", "des3_ede", "blowfish", "cast5", "arc4", "tea", "xtea", "khazad"];

/// Ciphers without known attacks, but rarely analysed or used.
const RARE: [&str; 9] =
    ["serpent", "twofish", "camellia", "aria", "sm4", "anubis", "cast6", "kuznyechik", "seed"];

/// Modes that must never use an IV twice with one key. Sector numbers repeat with each write of a sector.
const ONCE: [&str; 5] = ["ctr", "gcm", "ccm", "poly1305", "aegis128"];

/// Reports whether the cipher is `cipher_null`, which does not encrypt.
pub(super) fn encrypts_nothing(spec: &str) -> bool {
    spec.to_ascii_lowercase().contains("cipher_null")
}

/// Grades a cipher and says why.
pub(super) fn grade(spec: &str) -> (Verdict, &'static str) {
    if encrypts_nothing(spec) {
        return (Verdict::Fail, "cipher_null does not encrypt");
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
        return (Verdict::Fail, "the cipher is broken or has 64-bit blocks");
    }
    if has("ecb") {
        return (Verdict::Fail, "ECB mode: equal blocks have equal ciphertext");
    }
    if ONCE.iter().any(|mode| has(mode)) && vector != "random" {
        return (Verdict::Fail, "the IV repeats: a sector that is written twice reveals both contents");
    }
    if vector == "null" {
        return (Verdict::Fail, "null IV: equal sectors have equal ciphertext");
    }
    if has("gcm") || has("ccm") || has("poly1305") || has("authenc") || has("aegis128") {
        return (Verdict::Pass, "authenticated encryption");
    }
    if has("cbc") || has("pcbc") {
        return match vector {
            "essiv" | "eboiv" => {
                (Verdict::Warn, "CBC mode: an attacker can make targeted changes without the key")
            }
            _ if has("essiv") => {
                (Verdict::Warn, "CBC mode: an attacker can make targeted changes without the key")
            }
            "lmk" | "tcw" | "elephant" => (
                Verdict::Warn,
                "a legacy mode for volumes of other programs (loop-AES, TrueCrypt, BitLocker)",
            ),
            _ => (Verdict::Fail, "predictable IV: an attacker can recognise prepared files (watermarking)"),
        };
    }
    if has("adiantum") || has("hctr2") {
        return (Verdict::Pass, "good");
    }
    if has("lrw") {
        return (Verdict::Warn, "LRW mode is superseded by XTS");
    }
    if has("xts") {
        return if RARE.iter().any(|cipher| has(cipher)) {
            (Verdict::Warn, "the cipher is rarely analysed and used")
        } else if !has("aes") {
            (Verdict::Warn, "Stockade does not know this cipher")
        } else if vector == "plain" {
            (Verdict::Warn, "32-bit IV (plain): IVs repeat after 2 TiB")
        } else {
            (Verdict::Pass, "good")
        };
    }
    if plain && matches!(words[..], [_] | [_, "plain"]) {
        // The kernel's default for a cipher without a mode is cbc-plain.
        return (Verdict::Fail, "predictable IV: an attacker can recognise prepared files (watermarking)");
    }
    (Verdict::Warn, "Stockade does not know this mode")
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
