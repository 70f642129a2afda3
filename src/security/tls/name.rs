//! Distinguished names as Java writes them: `X500Principal.getName()`, RFC 2253.
//!
//! The last part of the name comes first. Kafka's principals, mapping rules and ACLs are written in this form. Known
//! attributes have their keywords; the value of any other is `#` and its DER in hexadecimal, and so is one that is no
//! text. Source: the OpenJDK's `X500Name.getRFC2253Name`, `AVA.toRFC2253String`; the tests hold against Java's output.

use super::der;

const SET: u8 = 0x31;

/// Attributes that RFC 2253 has a keyword for, by the contents of their OIDs.
const KEYWORDS: [(&[u8], &str); 9] = [
    (&[0x55, 4, 3], "CN"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (&[0x55, 4, 9], "STREET"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25], "DC"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1], "UID"),
];

/// A name by its DER. `None`: it is no name.
pub(super) fn rfc2253(name: &[u8]) -> Option<String> {
    let mut parts = Vec::new();
    let mut rest = der::whole(name, der::SEQUENCE)?;
    while !rest.is_empty() {
        let (part, after) = der::first(rest, SET)?;
        parts.push(one_part(part)?);
        rest = after;
    }
    parts.reverse();
    Some(parts.join(","))
}

fn one_part(mut attributes: &[u8]) -> Option<String> {
    let mut shown = Vec::new();
    while !attributes.is_empty() {
        let (attribute, after) = der::first(attributes, der::SEQUENCE)?;
        let (oid, value) = der::first(attribute, der::OID)?;
        let (whole, rest) = der::any(value)?;
        rest.is_empty().then_some(())?;
        let keyword = KEYWORDS.iter().find(|(known, _)| *known == oid).map(|(_, keyword)| *keyword);
        shown.push(match (keyword, text(whole)) {
            (Some(keyword), Some(text)) => format!("{keyword}={}", escaped(&text)),
            (keyword, _) => format!("{}=#{}", keyword.map_or_else(|| dotted(oid), str::to_owned), hex(whole)),
        });
        attributes = after;
    }
    Some(shown.join("+"))
}

/// The common names of a name, in its order.
pub(super) fn common_names(name: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = der::whole(name, der::SEQUENCE).unwrap_or_default();
    while let Some((part, after)) = der::first(rest, SET) {
        let mut attributes = part;
        while let Some((attribute, following)) = der::first(attributes, der::SEQUENCE) {
            let named = der::first(attribute, der::OID).filter(|(oid, _)| *oid == KEYWORDS[0].0);
            found.extend(named.and_then(|(_, value)| text(value)));
            attributes = following;
        }
        rest = after;
    }
    found
}

/// What an element holds, if that is text.
fn text(element: &[u8]) -> Option<String> {
    const UTF8: u8 = 0x0c;
    const PRINTABLE: u8 = 0x13;
    const T61: u8 = 0x14;
    const IA5: u8 = 0x16;
    const GENERAL: u8 = 0x1b;
    const BMP: u8 = 0x1e;
    let tag = *element.first()?;
    let contents = der::whole(element, tag)?;
    match tag {
        UTF8 => Some(String::from_utf8_lossy(contents).into_owned()),
        PRINTABLE | IA5 | GENERAL | T61 => Some(contents.iter().copied().map(char::from).collect()),
        BMP => {
            let units: Vec<u16> = contents.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
            Some(String::from_utf16_lossy(&units))
        }
        _ => None,
    }
}

fn escaped(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let is_blank = |c: &char| *c == ' ' || *c == '\r';
    let first = chars.iter().position(|c| !is_blank(c)).unwrap_or(chars.len());
    let last = chars.iter().rposition(|c| !is_blank(c));
    let mut out = String::with_capacity(text.len());
    for (at, &c) in chars.iter().enumerate() {
        match c {
            '\0' => out.push_str("\\00"),
            _ if ",=+<>#;\"\\".contains(c) || at < first || last.is_none_or(|last| at > last) => out.extend(['\\', c]),
            _ => out.push(c),
        }
    }
    out
}

/// The contents of an OID as numbers.
fn dotted(oid: &[u8]) -> String {
    let mut numbers: Vec<u64> = Vec::new();
    let mut number = 0_u64;
    for byte in oid {
        number = number.wrapping_shl(7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            if numbers.is_empty() {
                let first = (number / 40).min(2);
                numbers.extend([first, number - 40 * first]);
            } else {
                numbers.push(number);
            }
            number = 0;
        }
    }
    numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(".")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::pem;
    use super::*;

    /// Made by openssl with everything that is escaped, several attributes in one part, and such without a keyword;
    /// the expected text is what Java 17 prints for it.
    #[test]
    fn a_name_looks_as_java_writes_it() {
        let odd = pem::entries(include_str!("testdata/odd.pem"), "CERTIFICATE").expect("one");
        let certificate = der::certificate(&odd[0].der).expect("a certificate");
        let expected = r#"2.5.4.5=#13023737,1.2.840.113549.1.9.1=#16056140622e63,CN=\#lead\ \ ,2.5.4.12=#0c0154,STREET=S 1,OU=x+UID=u1,O=A\, B \"q\" \\ \<x\>\;\=,L=Köln,ST=Bayern,C=DE,DC=org"#;
        assert_eq!(rfc2253(certificate.subject).as_deref(), Some(expected));
        assert_eq!(common_names(certificate.subject), ["#lead  "]);
    }

    #[test]
    fn blanks_at_either_end_are_escaped_and_others_not() {
        assert_eq!(escaped(" two  spaces "), "\\ two  spaces\\ ");
        assert_eq!(escaped("  "), "\\ \\ ");
        assert_eq!(escaped(""), "");
    }

    #[test]
    fn what_is_no_name_is_none() {
        assert_eq!(rfc2253(&[der::SEQUENCE, 0]).as_deref(), Some(""));
        assert_eq!(
            [rfc2253(&[]), rfc2253(&[der::SEQUENCE, 1, 0]), rfc2253(&[der::SEQUENCE, 2, SET, 9])],
            [None, None, None]
        );
    }
}
