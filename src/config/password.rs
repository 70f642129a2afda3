//! How secrets lie in a ZooKeeper: encrypted, each with what it takes to decrypt it but for the one secret that brokers
//! have in their own settings.
//!
//! ```text
//! keyFactoryAlgorithm:PBKDF2WithHmacSHA512,cipherAlgorithm:AES/CBC/PKCS5Padding,keyLength:128,iterations:4096,
//! salt:…,initializationVector:…,encryptedPassword:…,passwordLength:7          (one line, in any order, base64)
//! ```
//!
//! Of Java's ciphers there is AES/CBC/PKCS5Padding, Kafka's default; of its key derivations, PBKDF2 with the usual
//! sums. Source: Kafka 3.9 `EncryptingPasswordEncoder`, `PasswordEncoder`; the tests read what it wrote.

use std::collections::HashMap;

use aes::{Aes128, Aes192, Aes256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use pbkdf2::pbkdf2_hmac;
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};

use super::ConfigError;
use super::reader::Reader;
use super::secret::Secret;

const CIPHER: &str = "AES/CBC/PKCS5Padding";
/// What Java takes where no key factory is named.
const KEY_FACTORY: &str = "PBKDF2WithHmacSHA512";
const SALT_BYTES: usize = 256;
const BLOCK_BYTES: usize = 16;
/// Of what somebody else stored.
const ITERATIONS_MAX: u32 = 10_000_000;

/// `password.encoder.*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PasswordEncoder {
    secret: Secret,
    /// The former one: what it encrypted is still read.
    old_secret: Option<Secret>,
    key_factory: String,
    key_bits: usize,
    iterations: u32,
}

/// `None`: no secret is set, and none is encrypted.
///
/// # Errors
/// A cipher or a key derivation that is not there.
pub(super) fn resolve(reader: &Reader<'_>) -> Result<Option<PasswordEncoder>, ConfigError> {
    let (secret, old) = (reader.text("password.encoder.secret"), reader.text("password.encoder.old.secret"));
    let cipher = reader.text("password.encoder.cipher.algorithm").unwrap_or_default();
    let encoder = PasswordEncoder {
        secret: Secret::new(secret.clone().unwrap_or_default()),
        old_secret: old.map(Secret::new),
        key_factory: reader.text("password.encoder.keyfactory.algorithm").unwrap_or_else(|| KEY_FACTORY.into()),
        key_bits: reader.size("password.encoder.key.length"),
        iterations: u32::try_from(reader.long("password.encoder.iterations")).unwrap_or(u32::MAX),
    };
    if secret.is_none() {
        return Ok(None);
    }
    if cipher != CIPHER {
        return Err(reader.invalid("password.encoder.cipher.algorithm", &format!("{CIPHER} is the one that is there")));
    }
    if derive(&encoder.key_factory, "", b"", 1, &mut []).is_none() {
        let why = "it is PBKDF2WithHmacSHA512, SHA384, SHA256 or SHA1";
        return Err(reader.invalid("password.encoder.keyfactory.algorithm", why));
    }
    if ![128, 192, 256].contains(&encoder.key_bits) {
        return Err(reader.invalid("password.encoder.key.length", "keys of AES have 128, 192 or 256 bits"));
    }
    if encoder.iterations > ITERATIONS_MAX {
        let why = format!("Value must be no more than {ITERATIONS_MAX}");
        return Err(reader.invalid("password.encoder.iterations", &why));
    }
    Ok(Some(encoder))
}

impl PasswordEncoder {
    /// Encrypted under the present secret, with salt and vector from `random`.
    pub fn encode(&self, password: &str, mut random: impl FnMut() -> u128) -> String {
        let mut bytes: Vec<u8> = Vec::with_capacity(SALT_BYTES + BLOCK_BYTES);
        while bytes.len() < SALT_BYTES + BLOCK_BYTES {
            bytes.extend(random().to_be_bytes());
        }
        let (salt, vector) = (&bytes[..SALT_BYTES], &bytes[SALT_BYTES..SALT_BYTES + BLOCK_BYTES]);
        let mut key = vec![0; self.key_bits / 8];
        derive(&self.key_factory, self.secret.reveal(), salt, self.iterations, &mut key).expect("checked at the start");
        let encrypted = encrypt(&key, vector, password.as_bytes()).expect("checked at the start");
        let base64 = |bytes: &[u8]| STANDARD.encode(bytes);
        format!(
            "keyFactoryAlgorithm:{},cipherAlgorithm:{CIPHER},keyLength:{},iterations:{},salt:{},\
             initializationVector:{},encryptedPassword:{},passwordLength:{}",
            self.key_factory,
            self.key_bits,
            self.iterations,
            base64(salt),
            base64(vector),
            base64(&encrypted),
            password.encode_utf16().count()
        )
    }

    /// What was encrypted under the present secret or the former one. `None`: it was not, or in an unknown way.
    pub fn decode(&self, encoded: &str) -> Option<String> {
        let secrets = [Some(&self.secret), self.old_secret.as_ref()];
        secrets.into_iter().flatten().find_map(|secret| decode(encoded, secret))
    }
}

fn decode(encoded: &str, secret: &Secret) -> Option<String> {
    let fields: HashMap<&str, &str> =
        encoded.split(',').map(|field| field.trim().rsplit_once(':')).collect::<Option<_>>()?;
    let text = |name: &str| fields.get(name).copied();
    let number = |name: &str| text(name)?.trim().parse::<u32>().ok();
    let bytes = |name: &str| STANDARD.decode(text(name)?).ok();
    (text("cipherAlgorithm")? == CIPHER).then_some(())?;
    let iterations = number("iterations").filter(|iterations| (1..=ITERATIONS_MAX).contains(iterations))?;
    let bits = number("keyLength").filter(|bits| [128, 192, 256].contains(bits))?;
    let mut key = vec![0; bits as usize / 8];
    derive(text("keyFactoryAlgorithm")?, secret.reveal(), &bytes("salt")?, iterations, &mut key)?;
    let password = decrypt(&key, &bytes("initializationVector")?, &bytes("encryptedPassword")?)?;
    let password = String::from_utf8(password).ok()?;
    // Another secret gives rubbish, whose padding may be good by chance.
    (password.encode_utf16().count() == number("passwordLength")? as usize).then_some(password)
}

/// `None`: no such key derivation.
fn derive(factory: &str, secret: &str, salt: &[u8], iterations: u32, key: &mut [u8]) -> Option<()> {
    let derive = match factory {
        "PBKDF2WithHmacSHA1" => pbkdf2_hmac::<Sha1>,
        "PBKDF2WithHmacSHA256" => pbkdf2_hmac::<Sha256>,
        "PBKDF2WithHmacSHA384" => pbkdf2_hmac::<Sha384>,
        "PBKDF2WithHmacSHA512" => pbkdf2_hmac::<Sha512>,
        _ => return None,
    };
    derive(secret.as_bytes(), salt, iterations, key);
    Some(())
}

fn encrypt(key: &[u8], vector: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
    let mut buffer = plain.to_vec();
    buffer.resize(plain.len() + BLOCK_BYTES, 0);
    let length = match key.len() {
        16 => cbc::Encryptor::<Aes128>::new_from_slices(key, vector)
            .ok()?
            .encrypt_padded::<Pkcs7>(&mut buffer, plain.len()),
        24 => cbc::Encryptor::<Aes192>::new_from_slices(key, vector)
            .ok()?
            .encrypt_padded::<Pkcs7>(&mut buffer, plain.len()),
        _ => cbc::Encryptor::<Aes256>::new_from_slices(key, vector)
            .ok()?
            .encrypt_padded::<Pkcs7>(&mut buffer, plain.len()),
    };
    let length = length.ok()?.len();
    buffer.truncate(length);
    Some(buffer)
}

fn decrypt(key: &[u8], vector: &[u8], encrypted: &[u8]) -> Option<Vec<u8>> {
    let mut buffer = encrypted.to_vec();
    let length = match key.len() {
        16 => cbc::Decryptor::<Aes128>::new_from_slices(key, vector).ok()?.decrypt_padded::<Pkcs7>(&mut buffer),
        24 => cbc::Decryptor::<Aes192>::new_from_slices(key, vector).ok()?.decrypt_padded::<Pkcs7>(&mut buffer),
        _ => cbc::Decryptor::<Aes256>::new_from_slices(key, vector).ok()?.decrypt_padded::<Pkcs7>(&mut buffer),
    };
    let length = length.ok()?.len();
    buffer.truncate(length);
    Some(buffer)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{config, error};
    use super::*;

    fn encoder(given: &[(&str, &str)]) -> PasswordEncoder {
        config(given).password_encoder.expect("a secret")
    }

    /// `EncryptingPasswordEncoder` of Kafka 3.9.1, with its defaults, and with SHA-1 and 256 bits.
    #[test]
    fn what_kafka_encrypted_is_read() {
        let ours = encoder(&[("password.encoder.secret", "encoder-secret")]);
        for line in include_str!("testdata/passwords.txt").lines() {
            assert_eq!(ours.decode(line).as_deref(), Some("höunter2"));
        }
        let moved = [("password.encoder.secret", "new"), ("password.encoder.old.secret", "encoder-secret")];
        let line = include_str!("testdata/passwords.txt").lines().next().expect("one");
        assert_eq!(encoder(&moved).decode(line).as_deref(), Some("höunter2"));
        assert_eq!(encoder(&moved[..1]).decode(line), None);
    }

    #[test]
    fn what_is_encrypted_is_read_again_and_shows_nothing() {
        for (bits, factory) in [("128", KEY_FACTORY), ("192", "PBKDF2WithHmacSHA384"), ("256", "PBKDF2WithHmacSHA256")]
        {
            let encoder = encoder(&[
                ("password.encoder.secret", "s"),
                ("password.encoder.key.length", bits),
                ("password.encoder.keyfactory.algorithm", factory),
                ("password.encoder.iterations", "1024"),
            ]);
            for password in ["", "hunter2", &"ä€😀".repeat(40)] {
                let mut drawn = 0;
                let encoded = encoder.encode(password, || {
                    drawn += 1;
                    drawn
                });
                assert!(encoded.contains("iterations:1024,") && !encoded.contains("hunter2"));
                assert_eq!(encoder.decode(&encoded).as_deref(), Some(password));
            }
            assert!(!format!("{encoder:?}").contains("\"s\""));
        }
    }

    #[test]
    fn what_is_something_else_is_none() {
        let ours = encoder(&[("password.encoder.secret", "encoder-secret")]);
        let line = include_str!("testdata/passwords.txt").lines().next().expect("one");
        for broken in [
            "",
            "plain",
            &line.replace("CBC", "GCM"),
            &line.replace("SHA512", "MD5"),
            &line.replace("iterations:4096", "iterations:4294967295"),
            &line.replace("keyLength:128", "keyLength:0"),
            &line.replace("passwordLength:8", "passwordLength:9"),
            &line.replace("encryptedPassword:", "encryptedPassword:AAAA"),
            &line.replace("initializationVector:", "initializationVector:AAAA"),
            &line.replace("salt:", "salt:%"),
        ] {
            assert_eq!(ours.decode(broken), None, "{broken}");
        }
    }

    #[test]
    fn what_is_not_there_ends_the_start() {
        let of = |name, value| error(&[("password.encoder.secret", "hunter2"), (name, value)]);
        for (name, value) in [
            ("password.encoder.cipher.algorithm", "DES"),
            ("password.encoder.keyfactory.algorithm", "PBE"),
            ("password.encoder.key.length", "64"),
            ("password.encoder.iterations", "2000000000"),
        ] {
            let error = of(name, value);
            assert!(error.contains(&format!("Invalid value {value} for configuration {name}")), "{error}");
            assert!(!error.contains("hunter2"));
        }
    }
}
