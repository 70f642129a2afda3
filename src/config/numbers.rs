//! Numbers with a point, as Java reads and writes them: what one broker stores others read, and one of Apache Kafka
//! ends its start over a number that Java does not know.

/// Reads what Java reads: digits, `NaN` and `Infinity`, perhaps with a sign or a suffix, but no hexadecimal digits.
/// Rust's other spellings (`inf`, `nan`) are none. Source: Java `Double.parseDouble`.
pub(crate) fn read_double(text: &str) -> Option<f64> {
    let text = text.trim();
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(unsigned, "NaN" | "Infinity") {
        return text.parse().ok();
    }
    let digits = text.strip_suffix(['d', 'D', 'f', 'F']).unwrap_or(text);
    let is_number = digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'.' | b'+' | b'-' | b'e' | b'E'));
    if is_number { digits.parse().ok() } else { None }
}

/// As Java's `Double.toString` writes it: plain between 0.001 and 10 million, else `1.0E-5`.
pub(crate) fn java_double(number: f64) -> String {
    if !number.is_finite() {
        return if number.is_nan() {
            "NaN".into()
        } else if number > 0.0 {
            "Infinity".into()
        } else {
            "-Infinity".into()
        };
    }
    if number == 0.0 || (1e-3..1e7).contains(&number.abs()) {
        return format!("{number:?}");
    }
    let text = format!("{number:E}");
    match text.split_once('E') {
        Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0E{exponent}"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_look_as_java_writes_them() {
        for (number, text) in [
            (0.5, "0.5"),
            (f64::MAX, "1.7976931348623157E308"),
            (1.0, "1.0"),
            (0.00001, "1.0E-5"),
            (1e7, "1.0E7"),
            (-0.0, "-0.0"),
            (f64::INFINITY, "Infinity"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(java_double(number), text);
            assert_eq!(read_double(text), Some(number));
        }
        assert!(java_double(f64::NAN) == "NaN" && read_double("NaN").is_some_and(f64::is_nan));
    }

    /// A quota of `inf`, as Rust writes it, kept brokers of Apache Kafka from starting.
    #[test]
    fn what_java_does_not_read_is_no_number() {
        for text in [" 1.5 ", "+.5", "5.", "1e3", "1.0E-3", "2d", "2.5F", "-1"] {
            assert!(read_double(text).is_some(), "{text}");
        }
        for text in ["", "inf", "-inf", "infinity", "nan", "Infinityd", "NaNf", "1_0", "0x1p3", "1.5df", "e", "d"] {
            assert_eq!(read_double(text), None, "{text}");
        }
    }
}
