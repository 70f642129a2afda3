//! As much of DER as finding one's way in certificates and keys takes. Lengths are checked, and allocate nothing.

pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const OID: u8 = 0x06;
pub(super) const OCTETS: u8 = 0x04;
pub(super) const BITS: u8 = 0x03;
/// `[0]` of a certificate: its version.
pub(super) const VERSION: u8 = 0xa0;

/// Contents of the first element, which has this tag, and what follows it.
pub(super) fn first(input: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, whole, contents) = element(input)?;
    (found == tag).then(|| (contents, &input[whole.len()..]))
}

/// Contents of an input that is one element of this tag.
pub(super) fn whole(input: &[u8], tag: u8) -> Option<&[u8]> {
    first(input, tag).filter(|(_, rest)| rest.is_empty()).map(|(contents, _)| contents)
}

/// The first element whatever it is, with its head, and what follows it.
pub(super) fn any(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (_, whole, _) = element(input)?;
    Some((whole, &input[whole.len()..]))
}

/// Tag, the element with its head, and its contents.
fn element(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&short, rest) = rest.split_first()?;
    let (length, rest) = match short {
        0..=0x7f => (usize::from(short), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(short & 0x7f))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let contents = rest.get(..length)?;
    let head = input.len() - rest.len();
    Some((tag, &input[..head + length], contents))
}

/// A certificate's parts, with their heads unless said otherwise.
pub(super) struct Certificate<'a> {
    /// 1 to 3.
    pub(super) version: u8,
    /// What is signed.
    pub(super) signed: &'a [u8],
    /// Contents.
    pub(super) signature_algorithm: &'a [u8],
    pub(super) signature: &'a [u8],
    pub(super) issuer: &'a [u8],
    pub(super) subject: &'a [u8],
    /// Contents of the algorithm of its key.
    pub(super) key_algorithm: &'a [u8],
    pub(super) key: &'a [u8],
}

/// `None`: it is no certificate.
pub(super) fn certificate(der: &[u8]) -> Option<Certificate<'_>> {
    let outer = whole(der, SEQUENCE)?;
    let (signed, rest) = any(outer)?;
    let (signature_algorithm, rest) = first(rest, SEQUENCE)?;
    let signature = bits(whole(rest, BITS)?)?;
    let fields = whole(signed, SEQUENCE)?;
    let (version, fields) = match first(fields, VERSION) {
        Some((contents, rest)) => (contents.last()?.checked_add(1)?, rest),
        None => (1, fields),
    };
    let (_serial, fields) = any(fields)?;
    let (_algorithm, fields) = any(fields)?;
    let (issuer, fields) = any(fields)?;
    let (_validity, fields) = any(fields)?;
    let (subject, fields) = any(fields)?;
    let (key_info, _extensions) = first(fields, SEQUENCE)?;
    let (key_algorithm, key) = first(key_info, SEQUENCE)?;
    let key = bits(whole(key, BITS)?)?;
    Some(Certificate { version, signed, signature_algorithm, signature, issuer, subject, key_algorithm, key })
}

/// A key on an elliptic curve in PKCS#8, with this public half where it has none. `None`: it is another key.
///
/// ```text
/// SEQUENCE { version, algorithm, OCTET STRING { SEQUENCE { version, scalar, [0] curve?, [1] { BIT STRING }? } } }
/// ```
///
/// Source: RFC 5958, RFC 5915.
pub(super) fn with_public_half(pkcs8: &[u8], public: &[u8]) -> Option<Vec<u8>> {
    /// 1.2.840.10045.2.1
    const EC: [u8; 7] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
    const PUBLIC: u8 = 0xa1;
    let (version, rest) = any(whole(pkcs8, SEQUENCE)?)?;
    let (algorithm, rest) = any(rest)?;
    let (oid, _) = first(whole(algorithm, SEQUENCE)?, OID)?;
    (oid == EC).then_some(())?;
    let (octets, _attributes) = first(rest, OCTETS)?;
    let (own_version, rest) = any(whole(octets, SEQUENCE)?)?;
    let (scalar, _) = any(rest)?;
    let bits = put(BITS, &[&[0], public]);
    let own = put(SEQUENCE, &[own_version, scalar, &put(PUBLIC, &[&bits])]);
    Some(put(SEQUENCE, &[version, algorithm, &put(OCTETS, &[&own])]))
}

fn put(tag: u8, contents: &[&[u8]]) -> Vec<u8> {
    let contents = contents.concat();
    let digits = contents.len().to_be_bytes();
    let digits = &digits[digits.iter().position(|digit| *digit != 0).unwrap_or(digits.len() - 1)..];
    let mut out = vec![tag];
    if contents.len() > 0x7f {
        out.push(0x80 | digits.len() as u8);
    }
    out.extend_from_slice(digits);
    out.extend_from_slice(&contents);
    out
}

/// A bit string of whole octets.
fn bits(contents: &[u8]) -> Option<&[u8]> {
    contents.strip_prefix(&[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_those_of_der_and_never_beyond_the_input() {
        assert_eq!(first(&[OCTETS, 1, 7, 9], OCTETS), Some((&[7][..], &[9][..])));
        assert_eq!(first(&[OCTETS, 0x81, 1, 7], OCTETS), Some((&[7][..], &[][..])));
        for broken in [
            &[][..],
            &[4],
            &[4, 2, 7],
            &[4, 0x80, 0, 0],
            &[4, 0x84, 0xff, 0xff, 0xff, 0xff, 1],
            &[4, 0x85, 0, 0, 0, 0, 0],
        ] {
            assert_eq!(first(broken, OCTETS), None, "{broken:?}");
        }
        assert_eq!(whole(&[OCTETS, 0, 1], OCTETS), None);
    }

    #[test]
    fn no_bytes_are_taken_for_a_certificate_with_a_panic() {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("made");
        let der = made.cert.der();
        let certificate = super::certificate(der).expect("one");
        assert_eq!((certificate.version, certificate.issuer), (3, certificate.subject));
        for at in 0..der.len() {
            assert!(super::certificate(&der[..at]).is_none());
            let mut broken = der.to_vec();
            broken[at] ^= 0x55;
            assert!(super::certificate(&broken).is_none_or(|certificate| certificate.version > 0));
        }
    }
}
