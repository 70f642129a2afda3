//! The one thing the coordinator reads in a member's metadata: the topics of a consumer's subscription, so that offsets
//! of topics still subscribed do not expire.
//!
//! Layout (version 0 is the prefix of all versions): version i16, topics (i32 count of int16-length strings), user
//! data.
//! Source: Kafka `ConsumerProtocol`, `ConsumerProtocolSubscription.json`.

/// The topics of a subscription; `None` when it does not parse, and then nothing is known.
pub(crate) fn topics(metadata: &[u8]) -> Option<Vec<&str>> {
    let (version, rest) = metadata.split_first_chunk::<2>()?;
    if i16::from_be_bytes(*version) < 0 {
        return None;
    }
    let (count, mut rest) = rest.split_first_chunk::<4>()?;
    let count = i32::from_be_bytes(*count);
    let mut topics = Vec::new();
    for _ in 0..count {
        let (length, tail) = rest.split_first_chunk::<2>()?;
        let length = usize::try_from(i16::from_be_bytes(*length)).ok()?;
        let (name, tail) = tail.split_at_checked(length)?;
        topics.push(std::str::from_utf8(name).ok()?);
        rest = tail;
    }
    (count >= 0).then_some(topics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_read_and_what_follows_is_ignored() {
        let metadata = b"\0\x03\0\0\0\x02\0\x01a\0\x02bc\xff\xff\xff\xff\0\0\0\0";
        assert_eq!(topics(metadata), Some(vec!["a", "bc"]));
    }

    #[test]
    fn what_does_not_parse_is_unknown() {
        for bad in [&b""[..], b"\0", b"\xff\xff\0\0\0\0", b"\0\0\x7f\xff\xff\xff\0\x01a", b"\0\0\xff\xff\xff\xff"] {
            assert_eq!(topics(bad), None, "{bad:?}");
        }
    }
}
