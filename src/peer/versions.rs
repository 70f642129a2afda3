//! The versions in which this broker speaks to others, by `inter.broker.protocol.version`: nobody is asked what it
//! takes. The control requests, markers, epochs and blocks of producer ids are the same from 3.4 to 3.9.
//! Source: Kafka 3.9 `MetadataVersion`, `ControllerChannelManager`.

use crate::config::ProtocolVersion;

/// Versions of the requests whose version depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Versions {
    /// By topic id.
    pub(super) fetch: i16,
    pub(super) list_offsets: i16,
    /// 3 has the epochs of the ISR's members (KIP-903); 2 brought topic ids. Kafka asks the controller for what it
    /// takes; those of 3.4 take 2.
    pub(super) alter_partition: i16,
    /// Whether all brokers can say what is in a transaction (AddPartitionsToTxn 4, KIP-890). Kafka asks each.
    pub(super) verification: bool,
}

impl Versions {
    /// Those of a cluster at this version.
    pub(crate) fn of(protocol: ProtocolVersion) -> Self {
        let fetch = [
            (ProtocolVersion::V3_9Iv0, 17),
            (ProtocolVersion::V3_7Iv4, 16),
            (ProtocolVersion::V3_5Iv1, 15),
            (ProtocolVersion::V3_5Iv0, 14),
            (ProtocolVersion::V3_4Iv0, 13),
        ];
        let list_offsets =
            [(ProtocolVersion::V3_9Iv0, 9), (ProtocolVersion::V3_5Iv0, 8), (ProtocolVersion::V3_4Iv0, 7)];
        let latest = |since: &[(ProtocolVersion, i16)]| {
            let found = since.iter().find(|(from, _)| protocol >= *from);
            found.map(|(_, version)| *version).expect("the last one is since the first of all")
        };
        Self {
            fetch: latest(&fetch),
            list_offsets: latest(&list_offsets),
            alter_partition: if protocol >= ProtocolVersion::V3_5Iv0 { 3 } else { 2 },
            verification: protocol >= ProtocolVersion::V3_5Iv0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `MetadataVersion` of Kafka 3.9 answers for each of them.
    #[test]
    fn the_versions_are_those_of_kafkas_table() {
        use ProtocolVersion::*;
        let table = [
            (V3_4Iv0, 13, 7, 2, false),
            (V3_5Iv0, 14, 8, 3, true),
            (V3_5Iv1, 15, 8, 3, true),
            (V3_5Iv2, 15, 8, 3, true),
            (V3_6Iv0, 15, 8, 3, true),
            (V3_6Iv1, 15, 8, 3, true),
            (V3_6Iv2, 15, 8, 3, true),
            (V3_7Iv0, 15, 8, 3, true),
            (V3_7Iv1, 15, 8, 3, true),
            (V3_7Iv2, 15, 8, 3, true),
            (V3_7Iv3, 15, 8, 3, true),
            (V3_7Iv4, 16, 8, 3, true),
            (V3_8Iv0, 16, 8, 3, true),
            (V3_9Iv0, 17, 9, 3, true),
        ];
        for (protocol, fetch, list_offsets, alter_partition, verification) in table {
            let expected = Versions { fetch, list_offsets, alter_partition, verification };
            assert_eq!(Versions::of(protocol), expected, "{protocol:?}");
        }
    }
}
