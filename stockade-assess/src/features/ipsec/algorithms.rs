/*!
How good the algorithms of an IPsec state are. Names are the kernel's (`net/xfrm/xfrm_algo.c`), lengths are in bits.
*/
use super::netlink::State;
use crate::Verdict;

/// Ciphers with blocks of 64 bits, of which some gigabytes under one key tell of their content, and those that are broken.
const BROKEN: [&str; 4] = ["cbc(des)", "cbc(des3_ede)", "cbc(blowfish)", "cbc(cast5)"];

/// Encapsulating security payload, and the authentication header.
pub(super) const ESP: u8 = 50;
pub(super) const AH: u8 = 51;

/// What is to be said of a state's algorithms, the worst of it, and whether they are good.
pub(super) fn grade(state: &State) -> (Verdict, &'static str) {
    if state.protocol == AH {
        return match authentication(state) {
            (Verdict::Pass, _) => (Verdict::Warn, "it protects from changes and hides nothing (AH)"),
            worse => worse,
        };
    }
    if let Some(aead) = &state.aead {
        // The key has a salt behind it, of three bytes for CCM and of four for the others.
        return match aead.name.as_str() {
            "rfc4543(gcm(aes))" => (Verdict::Fail, "it protects from changes and hides nothing (GMAC)"),
            "rfc4106(gcm(aes))" | "rfc4309(ccm(aes))" if aead.bits < 128 + 24 => {
                (Verdict::Fail, "its key is short")
            }
            "rfc4106(gcm(aes))" | "rfc4309(ccm(aes))" | "rfc7539esp(chacha20,poly1305)" => match aead.cut {
                128.. => (Verdict::Pass, "good"),
                96.. => (Verdict::Warn, "its tags are cut to 96 bits"),
                _ => (Verdict::Warn, "its tags are so short that one in many forged packets is accepted"),
            },
            _ => (Verdict::Warn, "its algorithm is not known to Stockade"),
        };
    }
    let Some(cipher) = &state.cipher else { return (Verdict::Fail, "it has no cipher") };
    let confidentiality = match cipher.name.as_str() {
        "ecb(cipher_null)" => (Verdict::Fail, "it encrypts nothing"),
        name if BROKEN.contains(&name) => (Verdict::Fail, "its cipher has blocks of 64 bits, or is broken"),
        _ if cipher.bits < 128 => (Verdict::Fail, "its key is shorter than 128 bits"),
        "cbc(aes)" | "rfc3686(ctr(aes))" | "cbc(camellia)" | "cbc(serpent)" | "cbc(twofish)" | "cbc(sm4)" => {
            (Verdict::Pass, "good")
        }
        _ => (Verdict::Warn, "its cipher is not known to Stockade"),
    };
    // In order, the worst first.
    [confidentiality, authentication(state)]
        .into_iter()
        .min_by_key(|(verdict, _)| *verdict)
        .unwrap_or(confidentiality)
}

fn authentication(state: &State) -> (Verdict, &'static str) {
    let Some(hash) = &state.authentication else {
        return (Verdict::Fail, "its packets can be changed: it has no authentication");
    };
    match hash.name.as_str() {
        "digest_null" => (Verdict::Fail, "its packets can be changed: its authentication does nothing"),
        "hmac(md5)" => (Verdict::Fail, "it relies on MD5"),
        "hmac(sha1)" => (Verdict::Warn, "it relies on SHA-1"),
        "hmac(rmd160)" => (Verdict::Warn, "it relies on RIPEMD-160"),
        "hmac(sha256)" if hash.cut < 128 => {
            (Verdict::Warn, "its tags are cut to less than the standard's 128 bits")
        }
        "hmac(sha256)" | "hmac(sha384)" | "hmac(sha512)" | "hmac(sm3)" | "xcbc(aes)" | "cmac(aes)" => {
            (Verdict::Pass, "good")
        }
        _ => (Verdict::Warn, "its authentication is not known to Stockade"),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::netlink::Algorithm, *};

    fn algorithm(name: &str, bits: u32, cut: u32) -> Algorithm {
        Algorithm { name: name.into(), bits, cut }
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
