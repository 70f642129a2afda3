//! PEM as Kafka reads it: also on one line, with spaces for line breaks, as a properties file has it, and with text
//! around and between its entries.
//!
//! Source: Kafka 3.9 `DefaultSslEngineFactory.PemParser`.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// One entry.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// What stands behind BEGIN, such as `ENCRYPTED PRIVATE KEY`.
    pub(super) label: String,
    pub(super) der: Vec<u8>,
}

/// The entries whose label has these words, in their order.
///
/// # Errors
/// There is none, or one is not base64.
pub(super) fn entries(pem: &str, words: &str) -> Result<Vec<Entry>, String> {
    let mut found = Vec::new();
    let mut rest = pem;
    while let Some((label, after)) = header(rest, "BEGIN") {
        let Some(end) = after.find("-END") else { break };
        let body = after[..end].trim_end_matches('-');
        rest = &after[end..];
        if label.contains(words) {
            let der = BASE64.decode(base64_of(body)).map_err(|_| format!("the {label} is not base64"))?;
            found.push(Entry { label, der });
        }
    }
    match found.is_empty() {
        true => Err(format!("No matching {words} entries in PEM file")),
        false => Ok(found),
    }
}

/// The label behind the next `-----BEGIN`, with single spaces, and what follows its dashes.
fn header<'a>(text: &'a str, word: &str) -> Option<(String, &'a str)> {
    let at = text.find(&format!("-{word}"))?;
    let behind = &text[at + 1 + word.len()..];
    let (label, rest) = behind.split_once('-')?;
    Some((label.split_whitespace().collect::<Vec<_>>().join(" "), rest.trim_start_matches('-')))
}

/// Without blanks, and without the lines of headers such as `Proc-Type: 4,ENCRYPTED`.
fn base64_of(body: &str) -> String {
    let lines = body.lines().filter(|line| !line.contains(':'));
    lines.flat_map(str::chars).filter(|c| !c.is_whitespace()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_may_stand_on_one_line_and_among_other_text() {
        let lines =
            "Bag Attributes\n    friendlyName: a\n-----BEGIN CERTIFICATE-----\nAQID\nBAU=\n-----END CERTIFICATE-----\n";
        let one_line = "-----BEGIN CERTIFICATE----- AQID BAU= -----END CERTIFICATE-----";
        for pem in [lines, one_line, &lines.replace('\n', "\r\n"), &lines.replace("=\n", "\n")] {
            let found = entries(pem, "CERTIFICATE").expect("one");
            assert_eq!((found.len(), found[0].der.as_slice()), (1, &[1, 2, 3, 4, 5][..]), "{pem}");
        }
        let both = format!(
            "{one_line}\n-----BEGIN  ENCRYPTED PRIVATE KEY-----\nAQ==\n-----END ENCRYPTED PRIVATE KEY-----{lines}"
        );
        assert_eq!(entries(&both, "CERTIFICATE").expect("two").len(), 2);
        let keys = entries(&both, "PRIVATE KEY").expect("one");
        assert_eq!((keys.len(), keys[0].label.as_str()), (1, "ENCRYPTED PRIVATE KEY"));
    }

    #[test]
    fn headers_of_an_entry_are_passed_over() {
        let pem = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,AB\n\nAQ==\n-----END RSA PRIVATE KEY-----";
        assert_eq!(entries(pem, "PRIVATE KEY").expect("one")[0].der, [1]);
    }

    #[test]
    fn what_is_no_entry_is_told() {
        for pem in
            ["", "-----BEGIN", "-----BEGIN CERTIFICATE-----", "-----BEGIN CERTIFICATE-----\nAQ==", "-END", "ä-BEGINä-ä"]
        {
            assert_eq!(
                entries(pem, "CERTIFICATE").err().as_deref(),
                Some("No matching CERTIFICATE entries in PEM file")
            );
        }
        let broken = "-----BEGIN CERTIFICATE-----\nA%==\n-----END CERTIFICATE-----";
        assert!(entries(broken, "CERTIFICATE").is_err_and(|why| why.contains("not base64")));
    }
}
