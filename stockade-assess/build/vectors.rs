/*!
The known answers in `vectors/`, checked and compiled into tables.
*/
use std::{fmt::Write as _, fs, path::Path};

use data_encoding::HEXLOWER;
use serde::Deserialize;

const FOLDER: &str = "vectors";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AesFile {
    aes: Vec<Aes>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Aes {
    algorithm: String,
    source: String,
    key: String,
    #[serde(default)]
    iv: String,
    plain: String,
    cipher: String,
    #[serde(default)]
    associated: String,
    #[serde(default)]
    tag: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ShaFile {
    sha: Vec<Sha>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sha {
    algorithm: String,
    source: String,
    #[serde(default)]
    key: String,
    message: String,
    digest: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RsaFile {
    rsa_key: RsaKey,
    rsa: Vec<Rsa>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RsaKey {
    modulus: String,
    exponent: String,
    certificate: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rsa {
    hash: String,
    source: String,
    message: String,
    signature: String,
    valid: bool,
}

/// The tables as Rust code.
pub fn compile(errors: &mut Vec<String>) -> String {
    println!("cargo::rerun-if-changed={FOLDER}");
    let mut code = String::new();
    let mut bytes = |file: &str, text: &str| match hexadecimal(text) {
        Ok(bytes) => format!("&{bytes:?}"),
        Err(what) => {
            errors.push(format!("{FOLDER}/{file}: {what}"));
            "&[]".into()
        }
    };
    match load::<AesFile>("aes.toml") {
        Ok(file) => {
            code.push_str("pub(crate) static AES: &[Aes] = &[\n");
            for one in file.aes {
                let mut b = |text: &str| bytes("aes.toml", text);
                line(
                    &mut code,
                    format_args!(
                        "Aes {{ algorithm: {:?}, source: {:?}, key: {}, iv: {}, plain: {}, cipher: {}, associated: {}, tag: {} }},",
                        one.algorithm,
                        one.source,
                        b(&one.key),
                        b(&one.iv),
                        b(&one.plain),
                        b(&one.cipher),
                        b(&one.associated),
                        b(&one.tag)
                    ),
                );
            }
            code.push_str("];\n");
        }
        Err(error) => return fail(errors, error),
    }
    match load::<ShaFile>("sha.toml") {
        Ok(file) => {
            code.push_str("pub(crate) static SHA: &[Sha] = &[\n");
            for one in file.sha {
                let mut b = |text: &str| bytes("sha.toml", text);
                line(
                    &mut code,
                    format_args!(
                        "Sha {{ algorithm: {:?}, source: {:?}, key: {}, message: {}, digest: {} }},",
                        one.algorithm,
                        one.source,
                        b(&one.key),
                        b(&one.message),
                        b(&one.digest)
                    ),
                );
            }
            code.push_str("];\n");
        }
        Err(error) => return fail(errors, error),
    }
    match load::<RsaFile>("rsa.toml") {
        Ok(file) => {
            let mut b = |text: &str| bytes("rsa.toml", text);
            let key = file.rsa_key;
            line(
                &mut code,
                format_args!(
                    "pub(crate) static RSA_KEY: RsaKey = RsaKey {{ modulus: {}, exponent: {}, certificate: {} }};",
                    b(&key.modulus),
                    b(&key.exponent),
                    b(&key.certificate)
                ),
            );
            code.push_str("pub(crate) static RSA: &[Rsa] = &[\n");
            for one in file.rsa {
                line(
                    &mut code,
                    format_args!(
                        "Rsa {{ hash: {:?}, source: {:?}, message: {}, signature: {}, valid: {} }},",
                        one.hash,
                        one.source,
                        b(&one.message),
                        b(&one.signature),
                        one.valid
                    ),
                );
            }
            code.push_str("];\n");
        }
        Err(error) => return fail(errors, error),
    }
    code
}

fn fail(errors: &mut Vec<String>, error: String) -> String {
    errors.push(error);
    String::new()
}

fn line(code: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(code, "{line}").expect("writing to a String cannot fail");
}

fn load<T: for<'a> Deserialize<'a>>(name: &str) -> Result<T, String> {
    let path = Path::new(FOLDER).join(name);
    println!("cargo::rerun-if-changed={}", path.display());
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// White space may stand anywhere.
fn hexadecimal(text: &str) -> Result<Vec<u8>, String> {
    let digits: String = text.split_whitespace().collect();
    HEXLOWER.decode(digits.as_bytes()).map_err(|error| format!("{error}: {text:?}"))
}
