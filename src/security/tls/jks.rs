//! Java's own keystores, as `keytool -storetype JKS` writes them.
//!
//! ```text
//! u32 0xFEEDFEED, u32 version (1 or 2), u32 count, then per entry:
//!   u32 1, alias, i64 when, u32 length, protected key, u32 certificates, each a certificate   a key
//!   u32 2, alias, i64 when, a certificate                                                     a trusted certificate
//! 20 bytes: SHA-1 of the password, "Mighty Aphrodite" and all of the above
//! ```
//!
//! A text is a u16 length and modified UTF-8; a certificate is, from version 2 on, its type as text, then a u32 length
//! and its DER. Numbers are big-endian, passwords UTF-16BE. A protected key is an EncryptedPrivateKeyInfo whose octets
//! are 20 of salt, the key under a stream of SHA-1 sums, and 20 of a check. Source: the OpenJDK's `JavaKeyStore` and
//! `KeyProtector`; the tests read what keytool wrote.

use sha1::{Digest, Sha1};

use super::der;

/// What begins such a file.
pub(super) const MAGIC: [u8; 4] = 0xFEED_FEED_u32.to_be_bytes();

const SUM_BYTES: usize = 20;
/// Of what an entry is counted by; more than any real one has.
const CERTIFICATES_MAX: u32 = 1000;

/// One entry.
pub(super) enum Entry {
    Key { alias: String, protected: Vec<u8>, chain: Vec<Vec<u8>> },
    Trusted { certificate: Vec<u8> },
}

/// The entries in their order. Without a password nothing tells whether the file is whole.
///
/// # Errors
/// It is no such file, or the password is not its own.
pub(super) fn entries(file: &[u8], password: Option<&str>) -> Result<Vec<Entry>, String> {
    const TRUNCATED: &str = "the file ends early";
    let length = file.len().checked_sub(SUM_BYTES).ok_or(TRUNCATED)?;
    let (body, sum) = file.split_at(length);
    if let Some(password) = password {
        let mut hash = Sha1::new();
        hash.update(utf16(password));
        hash.update(b"Mighty Aphrodite");
        hash.update(body);
        if hash.finalize().as_slice() != sum {
            return Err("keystore password was incorrect, or the file was tampered with".into());
        }
    }
    Input(body).entries().ok_or_else(|| TRUNCATED.to_owned())?
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// `None`: it ends early.
    fn entries(&mut self) -> Option<Result<Vec<Entry>, String>> {
        if self.take(4)? != MAGIC {
            return Some(Err("it is no JKS file".into()));
        }
        let version = self.number()?;
        if !(1..=2).contains(&version) {
            return Some(Err(format!("version {version} of JKS is not known")));
        }
        let count = self.number()?;
        let mut entries = Vec::new();
        for _ in 0..count {
            let kind = self.number()?;
            let alias = self.text()?;
            self.take(8)?;
            entries.push(match kind {
                1 => {
                    let protected = self.bytes()?.to_vec();
                    let certificates = self.number()?;
                    if certificates > CERTIFICATES_MAX {
                        return Some(Err(format!("a chain of {certificates} certificates")));
                    }
                    let chain = (0..certificates).map(|_| self.certificate(version)).collect::<Option<_>>()?;
                    Entry::Key { alias, protected, chain }
                }
                2 => Entry::Trusted { certificate: self.certificate(version)? },
                other => return Some(Err(format!("an entry of the unknown kind {other}"))),
            });
        }
        Some(Ok(entries))
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_be_bytes)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.take(length as usize)
    }

    fn text(&mut self) -> Option<String> {
        let length = self.take(2)?.try_into().ok().map(u16::from_be_bytes)?;
        Some(String::from_utf8_lossy(self.take(length.into())?).into_owned())
    }

    fn certificate(&mut self, version: u32) -> Option<Vec<u8>> {
        if version == 2 {
            self.text()?;
        }
        self.bytes().map(<[u8]>::to_vec)
    }
}

/// The key in an entry, as PKCS#8.
///
/// # Errors
/// The password is not its own, or the protection is none of JKS.
pub(super) fn unprotect(protected: &[u8], password: &str) -> Result<Vec<u8>, String> {
    /// 1.3.6.1.4.1.42.2.17.1.1, Sun's.
    const ALGORITHM: [u8; 10] = [0x2b, 0x06, 0x01, 0x04, 0x01, 0x2a, 0x02, 0x11, 0x01, 0x01];
    let parts = || {
        let info = der::whole(protected, der::SEQUENCE)?;
        let (algorithm, rest) = der::first(info, der::SEQUENCE)?;
        let (oid, _) = der::first(algorithm, der::OID)?;
        let (octets, _) = der::first(rest, der::OCTETS)?;
        Some((oid, octets))
    };
    let (oid, octets) = parts().ok_or("the key's protection cannot be read")?;
    if oid != ALGORITHM {
        return Err("the key's protection is none of JKS".into());
    }
    let body = octets.len().checked_sub(2 * SUM_BYTES).ok_or("the protected key is too short")?;
    let (salt, rest) = octets.split_at(SUM_BYTES);
    let (hidden, check) = rest.split_at(body);
    let password = utf16(password);
    let sum = |data: &[u8]| {
        let mut hash = Sha1::new();
        hash.update(&password);
        hash.update(data);
        hash.finalize()
    };
    let mut key = Vec::with_capacity(body);
    let mut stream = sum(salt);
    for piece in hidden.chunks(SUM_BYTES) {
        key.extend(piece.iter().zip(&stream).map(|(hidden, mask)| hidden ^ mask));
        stream = sum(&stream);
    }
    match sum(&key).as_slice() == check {
        true => Ok(key),
        false => Err("Cannot recover key: its password is another one".into()),
    }
}

fn utf16(password: &str) -> Vec<u8> {
    password.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `keytool -genkeypair -alias broker -storetype JKS -storepass storepass -keypass keypass` with an EC key, then
    /// `-importcert -alias ca` of another certificate.
    const KEYSTORE: &[u8] = include_bytes!("testdata/keystore.jks");

    #[test]
    fn what_keytool_wrote_is_read() {
        let entries = entries(KEYSTORE, Some("storepass")).expect("read");
        let shown: Vec<_> = entries
            .iter()
            .map(|entry| match entry {
                Entry::Key { alias, chain, .. } => format!("key {alias}, {} certificate(s)", chain.len()),
                Entry::Trusted { certificate } => {
                    let subject = der::certificate(certificate).expect("one").subject;
                    format!("trusted {}", super::super::name::rfc2253(subject).expect("a name"))
                }
            })
            .collect();
        assert_eq!(shown.len(), 2);
        assert!(
            shown.contains(&"key broker, 1 certificate(s)".into()) && shown.contains(&"trusted CN=ca".into()),
            "{shown:?}"
        );
        let protected = entries.iter().find_map(|entry| match entry {
            Entry::Key { protected, .. } => Some(protected),
            Entry::Trusted { .. } => None,
        });
        let protected = protected.expect("a key");
        let key = unprotect(protected, "keypass").expect("its password");
        assert!(der::whole(&key, der::SEQUENCE).is_some());
        assert!(unprotect(protected, "storepass").is_err());
    }

    #[test]
    fn another_password_and_every_broken_file_are_refused() {
        assert!(entries(KEYSTORE, Some("wrong")).is_err_and(|why| why.contains("incorrect")));
        assert!(entries(KEYSTORE, None).is_ok());
        for length in 0..KEYSTORE.len() {
            assert!(entries(&KEYSTORE[..length], Some("storepass")).is_err(), "{length}");
            // Without a password the sum tells nothing: it must not panic, nor take memory by a count.
            drop(entries(&KEYSTORE[..length], None));
        }
        for at in 0..KEYSTORE.len() {
            let mut broken = KEYSTORE.to_vec();
            broken[at] ^= 0xff;
            drop(entries(&broken, None));
        }
    }
}
