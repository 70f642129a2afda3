//! A text that is never shown: passwords, keys, JAAS.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// What a setting of type password holds. Its memory is overwritten when it goes; that of the settings that it was read
/// from is not.
#[derive(Clone)]
pub struct Secret(String);

/// In a time that tells of nothing but the length.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for Secret {}

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for whoever uses it. It goes into no line, no error and no answer.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CVE-2021-38153. Whoever compares passwords, keys and proofs does it by `subtle`, or by the digest of both.
    #[test]
    fn secrets_are_compared_without_haste() {
        let secret = Secret::new("hunter2");
        assert!(secret == Secret::new("hunter2"));
        assert!(secret != Secret::new("hunter3") && secret != Secret::new("hunter") && secret != Secret::new(""));
        let sources = [
            ("plain", include_str!("../security/sasl/plain.rs")),
            ("scram", include_str!("../security/sasl/scram.rs")),
            ("secret", include_str!("secret.rs")),
        ];
        for (name, text) in sources {
            assert!(text.contains(concat!(".ct_", "eq(")), "{name}");
        }
    }

    #[test]
    fn it_is_not_shown() {
        let secret = Secret::new("hunter2");
        assert_eq!((format!("{secret:?} {secret}").as_str(), secret.reveal()), ("[hidden] [hidden]", "hunter2"));
    }
}
