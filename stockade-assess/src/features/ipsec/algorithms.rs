/*!
The strength of the algorithms of an IPsec state. Names are the kernel's (`net/xfrm/xfrm_algo.c`), lengths are in bits.
*/
use super::netlink::{AH, State};
use crate::Verdict;

/// Broken ciphers, and ciphers with 64-bit blocks, which leak plaintext after some gigabytes under one key (Sweet32).
const BROKEN: [&str; 4] = ["cbc(des)", "cbc(des3_ede)", "cbc(blowfish)", "cbc(cast5)"];

/// Grades the algorithms of a state by the worst of them, and says why.
pub(super) fn grade(state: &State) -> (Verdict, &'static str) {
    if state.protocol == AH {
        return match authentication(state) {
            (Verdict::Pass, _) => (Verdict::Warn, "AH: authenticated, but not encrypted"),
            worse => worse,
        };
    }
    if let Some(aead) = &state.aead {
        // The key is followed by a salt, of three bytes for CCM and of four for the others.
        return match aead.name.as_str() {
            "rfc4543(gcm(aes))" => (Verdict::Fail, "GMAC: authenticated, but not encrypted"),
            "rfc4106(gcm(aes))" | "rfc4309(ccm(aes))" if aead.bits < 128 + 24 => {
                (Verdict::Fail, "the key is shorter than 128 bits")
            }
            "rfc4106(gcm(aes))" | "rfc4309(ccm(aes))" | "rfc7539esp(chacha20,poly1305)" => {
                match aead.tag_bits {
                    128.. => (Verdict::Pass, "strong"),
                    96.. => (Verdict::Warn, "tags are truncated to 96 bits"),
                    _ => (Verdict::Warn, "tags are so short that an attacker can guess them"),
                }
            }
            _ => (Verdict::Warn, "Stockade does not know this algorithm"),
        };
    }
    let Some(cipher) = &state.cipher else { return (Verdict::Fail, "no encryption") };
    let confidentiality = match cipher.name.as_str() {
        "ecb(cipher_null)" => (Verdict::Fail, "null encryption"),
        name if BROKEN.contains(&name) => (Verdict::Fail, "the cipher is broken or has 64-bit blocks"),
        _ if cipher.bits < 128 => (Verdict::Fail, "the key is shorter than 128 bits"),
        "cbc(aes)" | "rfc3686(ctr(aes))" | "cbc(camellia)" | "cbc(serpent)" | "cbc(twofish)" | "cbc(sm4)" => {
            (Verdict::Pass, "strong")
        }
        _ => (Verdict::Warn, "Stockade does not know this cipher"),
    };
    // Verdicts are ordered, the worst first.
    [confidentiality, authentication(state)]
        .into_iter()
        .min_by_key(|(verdict, _)| *verdict)
        .unwrap_or(confidentiality)
}

fn authentication(state: &State) -> (Verdict, &'static str) {
    let Some(hash) = &state.authentication else {
        return (Verdict::Fail, "no authentication: an attacker can change packets");
    };
    match hash.name.as_str() {
        "digest_null" => (Verdict::Fail, "null authentication: an attacker can change packets"),
        "hmac(md5)" => (Verdict::Fail, "authenticated by HMAC-MD5"),
        "hmac(sha1)" => (Verdict::Warn, "authenticated by HMAC-SHA-1"),
        "hmac(rmd160)" => (Verdict::Warn, "authenticated by HMAC-RIPEMD-160"),
        "hmac(sha256)" if hash.tag_bits < 128 => {
            (Verdict::Warn, "tags are truncated to less than the standard 128 bits")
        }
        "hmac(sha256)" | "hmac(sha384)" | "hmac(sha512)" | "hmac(sm3)" | "xcbc(aes)" | "cmac(aes)" => {
            (Verdict::Pass, "strong")
        }
        _ => (Verdict::Warn, "Stockade does not know this authentication algorithm"),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::netlink::{Algorithm, ESP},
        *,
    };

    fn algorithm(name: &str, bits: u32, cut: u32) -> Algorithm {
        Algorithm { name: name.into(), bits, tag_bits: cut }
    }

    #[test]
    fn aead_is_graded() {
        for (name, bits, cut, verdict) in [
            ("rfc4106(gcm(aes))", 288, 128, Verdict::Pass),
            ("rfc4106(gcm(aes))", 160, 128, Verdict::Pass),
            ("rfc4309(ccm(aes))", 152, 128, Verdict::Pass),
            ("rfc7539esp(chacha20,poly1305)", 288, 128, Verdict::Pass),
            ("rfc4106(gcm(aes))", 160, 96, Verdict::Warn),
            ("rfc4106(gcm(aes))", 160, 64, Verdict::Warn),
            ("rfc4106(gcm(aes))", 96, 128, Verdict::Fail),
            ("rfc4543(gcm(aes))", 160, 128, Verdict::Fail),
            ("something", 160, 128, Verdict::Warn),
        ] {
            let state = State { protocol: ESP, aead: Some(algorithm(name, bits, cut)), ..State::default() };
            assert_eq!(grade(&state).0, verdict, "{name} {bits} {cut}");
        }
    }

    #[test]
    fn ciphers_and_authentication_are_graded_together() {
        for (cipher, bits, hash, cut, verdict) in [
            ("cbc(aes)", 256, "hmac(sha256)", 128, Verdict::Pass),
            ("rfc3686(ctr(aes))", 160, "hmac(sha512)", 256, Verdict::Pass),
            ("cbc(aes)", 128, "hmac(sha256)", 96, Verdict::Warn),
            ("cbc(aes)", 128, "hmac(sha1)", 96, Verdict::Warn),
            ("cbc(rot13)", 128, "hmac(sha256)", 128, Verdict::Warn),
            ("cbc(aes)", 128, "hmac(md5)", 96, Verdict::Fail),
            ("cbc(aes)", 128, "digest_null", 0, Verdict::Fail),
            ("cbc(aes)", 64, "hmac(sha256)", 128, Verdict::Fail),
            ("cbc(des3_ede)", 192, "hmac(sha256)", 128, Verdict::Fail),
            ("cbc(des)", 64, "hmac(sha1)", 96, Verdict::Fail),
            ("ecb(cipher_null)", 0, "hmac(sha256)", 128, Verdict::Fail),
        ] {
            let state = State {
                protocol: ESP,
                cipher: Some(algorithm(cipher, bits, 0)),
                authentication: Some(algorithm(hash, 256, cut)),
                ..State::default()
            };
            assert_eq!(grade(&state).0, verdict, "{cipher} {bits} {hash} {cut}");
        }
        let without =
            State { protocol: ESP, cipher: Some(algorithm("cbc(aes)", 128, 0)), ..State::default() };
        assert_eq!(grade(&without).0, Verdict::Fail);
        let ah = |hash| State {
            protocol: AH,
            authentication: Some(algorithm(hash, 256, 128)),
            ..State::default()
        };
        assert_eq!(grade(&ah("hmac(sha256)")).0, Verdict::Warn);
        assert_eq!(grade(&ah("hmac(md5)")).0, Verdict::Fail);
    }
}
