//! What is stored of a SCRAM password: enough to check it, not enough to log in with.
//!
//! As text, in `/config/users/<name>` under the name of the mechanism:
//! `salt=<base64>,stored_key=<base64>,server_key=<base64>,iterations=4096`. Source: Kafka 3.9 `ScramCredentialUtils`,
//! `ScramFormatter`; RFC 5802.

use std::fmt;
use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::{digest, hmac, pbkdf2};

use crate::config::sasl::SaslMechanism;

/// The hash of a mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScramHash {
    Sha256,
    Sha512,
}

impl ScramHash {
    /// `None`: the mechanism is not SCRAM.
    pub(crate) fn of(mechanism: SaslMechanism) -> Option<Self> {
        match mechanism {
            SaslMechanism::ScramSha256 => Some(Self::Sha256),
            SaslMechanism::ScramSha512 => Some(Self::Sha512),
            SaslMechanism::Plain | SaslMechanism::OauthBearer => None,
        }
    }

    /// Kafka's name of the mechanism.
    pub(crate) fn mechanism(self) -> &'static str {
        match self {
            Self::Sha256 => SaslMechanism::ScramSha256.name(),
            Self::Sha512 => SaslMechanism::ScramSha512.name(),
        }
    }

    /// Length of its output, and so of every key.
    pub(crate) fn len(self) -> usize {
        match self {
            Self::Sha256 => digest::SHA256_OUTPUT_LEN,
            Self::Sha512 => digest::SHA512_OUTPUT_LEN,
        }
    }

    /// The `H` of RFC 5802.
    pub(super) fn digest(self, data: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha512 => &digest::SHA512,
        };
        digest::digest(algorithm, data).as_ref().to_vec()
    }

    /// The `HMAC` of RFC 5802.
    pub(super) fn hmac(self, key: &[u8], data: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        };
        hmac::sign(&hmac::Key::new(algorithm, key), data).as_ref().to_vec()
    }

    /// The `Hi` of RFC 5802: the salted password. Takes long on purpose.
    pub(super) fn salted_password(self, password: &str, salt: &[u8], iterations: NonZeroU32) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Self::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        };
        let mut salted = vec![0; self.len()];
        pbkdf2::derive(algorithm, iterations, salt, password.as_bytes(), &mut salted);
        salted
    }
}

/// Fewest iterations that Kafka takes, for both mechanisms.
pub(crate) const ITERATIONS_MIN: i32 = 4096;
/// Most iterations that AlterUserScramCredentials takes.
pub(crate) const ITERATIONS_MAX: i32 = 16_384;

/// A text that is no credential; the text itself stays secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Credentials not valid")]
pub(crate) struct NoCredential;

/// See the module.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ScramCredential {
    pub(super) salt: Vec<u8>,
    pub(super) stored_key: Vec<u8>,
    pub(super) server_key: Vec<u8>,
    pub(crate) iterations: i32,
}

impl fmt::Debug for ScramCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramCredential").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

impl ScramCredential {
    /// That of a password which was salted elsewhere, in so many iterations.
    pub(crate) fn of_salted(hash: ScramHash, salt: &[u8], salted_password: &[u8], iterations: i32) -> Self {
        let client_key = hash.hmac(salted_password, b"Client Key");
        Self {
            salt: salt.to_vec(),
            stored_key: hash.digest(&client_key),
            server_key: hash.hmac(salted_password, b"Server Key"),
            iterations,
        }
    }

    /// That of a password, in so many iterations, or one. Takes long on purpose.
    pub(crate) fn of_password(hash: ScramHash, salt: &[u8], password: &str, iterations: i32) -> Self {
        let rounds = u32::try_from(iterations).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
        Self::of_salted(hash, salt, &hash.salted_password(password, salt, rounds), iterations)
    }

    /// # Errors
    /// It is not of that form.
    pub(crate) fn parse(text: &str) -> Result<Self, NoCredential> {
        let mut parts = [None; 4];
        for part in text.split(',') {
            let (key, value) = part.split_once('=').ok_or(NoCredential)?;
            let at = KEYS.iter().position(|known| *known == key).ok_or(NoCredential)?;
            if parts[at].replace(value).is_some() {
                return Err(NoCredential);
            }
        }
        let [Some(salt), Some(stored_key), Some(server_key), Some(iterations)] = parts else {
            return Err(NoCredential);
        };
        let bytes = |text: &str| BASE64.decode(text).map_err(|_| NoCredential);
        Ok(Self {
            salt: bytes(salt)?,
            stored_key: bytes(stored_key)?,
            server_key: bytes(server_key)?,
            iterations: iterations.parse().map_err(|_| NoCredential)?,
        })
    }

    /// As it is stored.
    pub(crate) fn text(&self) -> String {
        let [salt, stored_key, server_key] =
            [&self.salt, &self.stored_key, &self.server_key].map(|bytes| BASE64.encode(bytes));
        format!("salt={salt},stored_key={stored_key},server_key={server_key},iterations={}", self.iterations)
    }
}

const KEYS: [&str; 4] = ["salt", "stored_key", "server_key", "iterations"];

#[cfg(test)]
mod tests {
    use super::*;

    /// The password and the salt of the example in RFC 7677.
    #[test]
    fn golden() {
        let hash = ScramHash::Sha256;
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").expect("base64");
        let salted = hash.salted_password("pencil", &salt, NonZeroU32::new(4096).expect("not 0"));
        let credential = ScramCredential::of_salted(hash, &salt, &salted, 4096);
        let expected = "salt=W22ZaJ0SNY7soEsUEjb6gQ==,stored_key=WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,\
                        server_key=wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=,iterations=4096";
        assert_eq!(credential.text(), expected);
        assert_eq!(ScramCredential::parse(expected), Ok(credential.clone()));
        assert_eq!(format!("{credential:?}"), "ScramCredential { iterations: 4096, .. }");
    }

    #[test]
    fn what_is_no_credential_is_refused() {
        let good = "salt=AA==,stored_key=AA==,server_key=AA==,iterations=1";
        assert!(ScramCredential::parse(good).is_ok());
        for bad in [
            "",
            "x",
            "salt=AA==,stored_key=AA==,server_key=AA==",
            "salt=AA==,salt=AA==,stored_key=AA==,server_key=AA==,iterations=1",
            "salt=A,stored_key=AA==,server_key=AA==,iterations=1",
            "salt=AA==,stored_key=AA==,server_key=AA==,iterations=x",
            "salt=AA==,stored_key=AA==,server_key=AA==,iterations=1,more=1",
        ] {
            assert_eq!(ScramCredential::parse(bad), Err(NoCredential), "{bad}");
        }
    }
}
