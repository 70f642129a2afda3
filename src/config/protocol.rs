//! `inter.broker.protocol.version`: what the brokers of a cluster may say to each other, so that the oldest of them
//! understands it. Source: Kafka 3.9 `MetadataVersion`.

use super::ConfigError;
use super::reader::Reader;

/// A version between 3.4 and 3.9, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProtocolVersion {
    V3_4Iv0,
    V3_5Iv0,
    V3_5Iv1,
    V3_5Iv2,
    V3_6Iv0,
    V3_6Iv1,
    V3_6Iv2,
    V3_7Iv0,
    V3_7Iv1,
    V3_7Iv2,
    V3_7Iv3,
    V3_7Iv4,
    V3_8Iv0,
    V3_9Iv0,
}

use ProtocolVersion::*;

/// Kafka's names. A release without a step is its last one.
const NAMES: [(&str, ProtocolVersion); 20] = [
    ("3.4-IV0", V3_4Iv0),
    ("3.4", V3_4Iv0),
    ("3.5-IV0", V3_5Iv0),
    ("3.5-IV1", V3_5Iv1),
    ("3.5-IV2", V3_5Iv2),
    ("3.5", V3_5Iv2),
    ("3.6-IV0", V3_6Iv0),
    ("3.6-IV1", V3_6Iv1),
    ("3.6-IV2", V3_6Iv2),
    ("3.6", V3_6Iv2),
    ("3.7-IV0", V3_7Iv0),
    ("3.7-IV1", V3_7Iv1),
    ("3.7-IV2", V3_7Iv2),
    ("3.7-IV3", V3_7Iv3),
    ("3.7-IV4", V3_7Iv4),
    ("3.7", V3_7Iv4),
    ("3.8-IV0", V3_8Iv0),
    ("3.8", V3_8Iv0),
    ("3.9-IV0", V3_9Iv0),
    ("3.9", V3_9Iv0),
];

impl ProtocolVersion {
    /// What a broker says that was told nothing.
    pub const LATEST: Self = V3_9Iv0;

    /// What follows the second point counts for nothing, as in `3.9.1`.
    fn parse(text: &str) -> Option<Self> {
        let key = text.split('.').take(2).collect::<Vec<_>>().join(".");
        NAMES.iter().find(|(name, _)| *name == key).map(|(_, version)| *version)
    }
}

/// The version that is set. A broker that is `alone` says nothing to others, so whatever Kafka knows will do.
///
/// # Errors
/// It is none of 3.4 to 3.9: brokers of before speak in ways that are not there, and later ones know no ZooKeeper.
pub(crate) fn resolve(reader: &Reader<'_>, alone: bool) -> Result<ProtocolVersion, ConfigError> {
    const NAME: &str = "inter.broker.protocol.version";
    match ProtocolVersion::parse(&reader.text(NAME).unwrap_or_default()) {
        Some(version) => Ok(version),
        None if alone => Ok(ProtocolVersion::LATEST),
        None => Err(reader.invalid(NAME, "brokers of a cluster speak versions 3.4-IV0 to 3.9-IV0")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{config, error};
    use super::*;

    #[test]
    fn a_release_is_its_last_step_and_patches_do_not_count() {
        let of = |version| config(&[("zookeeper.connect", "a:1"), ("inter.broker.protocol.version", version)]);
        for (version, expected) in
            [("3.4", V3_4Iv0), ("3.5", V3_5Iv2), ("3.5-IV1", V3_5Iv1), ("3.7.2", V3_7Iv4), ("3.9.1", V3_9Iv0)]
        {
            assert_eq!(of(version).inter_broker_protocol, expected, "{version}");
        }
        assert_eq!(config(&[("zookeeper.connect", "a:1")]).inter_broker_protocol, ProtocolVersion::LATEST);
        assert!(NAMES.iter().zip(&NAMES[1..]).all(|((_, one), (_, next))| one <= next));
    }

    #[test]
    fn outside_of_those_that_a_cluster_speaks_a_start_is_refused() {
        for version in ["2.8", "3.3-IV3", "3.3", "0.11.0", "3.5-IV9"] {
            let refused = error(&[("zookeeper.connect", "a:1"), ("inter.broker.protocol.version", version)]);
            let line = format!("Invalid value {version} for configuration inter.broker.protocol.version: brokers of");
            assert!(refused.starts_with(&line) && !refused.contains('\n'), "{refused}");
        }
        assert!(error(&[("inter.broker.protocol.version", "4.0")]).contains("Version 4.0 is not a valid version"));
        assert_eq!(config(&[("inter.broker.protocol.version", "2.8")]).inter_broker_protocol, ProtocolVersion::LATEST);
    }
}
