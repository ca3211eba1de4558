/*!
What the content of a program has to be.
*/
use super::{Reader, fields::Value};
use crate::model::{Digest, Said};

const EXAMPLE: &str = "digest = \"sha256:…\", with 64 digits as sha256sum prints them";

impl Reader<'_> {
    pub(super) fn digest(&mut self, value: &Value) -> Option<Said<Digest>> {
        let text = self.string("digest", value, EXAMPLE)?;
        let (digits, verity) = match text.value.strip_prefix("verity:sha256:") {
            Some(digits) => (Some(digits), true),
            None => (text.value.strip_prefix("sha256:"), false),
        };
        let (what, help) = match digits {
            Some(digits) => match bytes(digits) {
                Ok(bytes) => {
                    let digest = if verity { Digest::Verity(bytes) } else { Digest::Sha256(bytes) };
                    return Some(Said { value: digest, origin: text.origin });
                }
                Err(what) => (
                    what,
                    if verity {
                        "`fsverity measure FILE` prints them"
                    } else {
                        "`sha256sum FILE` prints them"
                    },
                ),
            },
            None if bytes(&text.value).is_ok() => (
                "a digest begins with how it was made".into(),
                "put sha256: before it, or verity:sha256: if it is fs-verity's",
            ),
            None => (
                "a digest begins with sha256: or verity:sha256:; others are not known".into(),
                "write \"sha256:\" and what sha256sum prints, or \"verity:sha256:\" and what `fsverity measure` prints",
            ),
        };
        let problem = self.wrong(what, &value.span());
        self.report(problem.help(help));
        None
    }
}

fn bytes(digits: &str) -> Result<[u8; 32], String> {
    if let Some(other) = digits.chars().find(|c| !c.is_ascii_hexdigit()) {
        return Err(format!("a digest has hexadecimal digits only, and here is `{}`", other.escape_debug()));
    }
    if digits.len() != 64 {
        return Err(format!("a digest has 64 hexadecimal digits, and here are {}", digits.len()));
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
        let value =
            |digit: u8| char::from(digit).to_digit(16).and_then(|v| u8::try_from(v).ok()).unwrap_or(0);
        *byte = value(pair[0]) << 4 | value(pair[1]);
    }
    Ok(bytes)
}
