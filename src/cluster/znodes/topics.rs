//! `/brokers/topics/T`: a topic's id and the assignment of its replicas.
//!
//! `{"version":3,"topic_id":"<22>","partitions":{"0":[1,2,3]},"adding_replicas":{},"removing_replicas":{}}`
//! Version 1 has partitions alone, 2 adds adding and removing replicas, 3 the topic id. During a reassignment
//! `partitions` holds the target followed by what is left of the origin. Any broker creates it and raises the partition
//! count; the controller reassigns and adds missing topic ids.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{ZnodeError, from_json, to_json};
use crate::types::{BrokerId, PartitionIndex, TopicId};

pub(crate) const TOPICS: &str = "/brokers/topics";

pub(crate) fn path(topic: &str) -> String {
    format!("{TOPICS}/{topic}")
}

/// Replicas of one partition, the preferred leader first.
pub(crate) type Assignment = BTreeMap<PartitionIndex, Vec<BrokerId>>;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct TopicNode {
    /// `None`: written by a tool that knows no topic ids.
    pub(crate) id: Option<TopicId>,
    pub(crate) partitions: Assignment,
    pub(crate) adding_replicas: Assignment,
    pub(crate) removing_replicas: Assignment,
}

#[derive(Serialize, Deserialize)]
struct Json {
    version: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    topic_id: Option<String>,
    partitions: BTreeMap<i32, Vec<i32>>,
    #[serde(default)]
    adding_replicas: BTreeMap<i32, Vec<i32>>,
    #[serde(default)]
    removing_replicas: BTreeMap<i32, Vec<i32>>,
}

/// Version 3, or 2 when there is no topic id.
pub(crate) fn encode(node: &TopicNode) -> Bytes {
    let plain = |assignment: &Assignment| {
        assignment.iter().map(|(index, ids)| (index.0, ids.iter().map(|id| id.0).collect())).collect()
    };
    to_json(&Json {
        version: if node.id.is_some() { 3 } else { 2 },
        topic_id: node.id.map(|id| id.to_string()),
        partitions: plain(&node.partitions),
        adding_replicas: plain(&node.adding_replicas),
        removing_replicas: plain(&node.removing_replicas),
    })
}

pub(crate) fn decode(topic: &str, data: &[u8]) -> Result<TopicNode, ZnodeError> {
    let path = path(topic);
    let json: Json = from_json(&path, data)?;
    let id = match &json.topic_id {
        Some(text) => Some(
            TopicId::parse(text).ok_or_else(|| ZnodeError::new(&path, format!("topic id {text:?} is malformed")))?,
        ),
        None => None,
    };
    let typed = |assignment: BTreeMap<i32, Vec<i32>>| {
        assignment
            .into_iter()
            .map(|(index, ids)| (PartitionIndex(index), ids.into_iter().map(BrokerId).collect()))
            .collect()
    };
    Ok(TopicNode {
        id,
        partitions: typed(json.partitions),
        adding_replicas: typed(json.adding_replicas),
        removing_replicas: typed(json.removing_replicas),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> TopicNode {
        let ids = |ids: [i32; 3]| ids.map(BrokerId).to_vec();
        TopicNode {
            id: TopicId::parse("Zd2VO0TtTPK4nf3QTKsWNg"),
            partitions: BTreeMap::from([(PartitionIndex(0), ids([1, 2, 3])), (PartitionIndex(1), ids([2, 3, 1]))]),
            ..TopicNode::default()
        }
    }

    #[test]
    fn golden() {
        let text = concat!(
            r#"{"version":3,"topic_id":"Zd2VO0TtTPK4nf3QTKsWNg","partitions":{"0":[1,2,3]"#,
            r#","1":[2,3,1]},"adding_replicas":{},"removing_replicas":{}}"#
        );
        assert_eq!(encode(&node()), text);
        assert_eq!(decode("T", text.as_bytes()), Ok(node()));
    }

    #[test]
    fn partitions_stand_in_numerical_order() {
        let partitions = (0..12).map(|index| (PartitionIndex(index), vec![BrokerId(1)])).collect();
        let text = String::from_utf8_lossy(&encode(&TopicNode { partitions, ..TopicNode::default() })).into_owned();
        assert!(text.find(r#""2":"#) < text.find(r#""10":"#), "{text}");
    }

    #[test]
    fn versions_1_and_2_have_no_topic_id() {
        let v1 = decode("T", br#"{"version":1,"partitions":{"0":[1,2,3],"1":[2,3,1]}}"#);
        assert_eq!(v1, Ok(TopicNode { id: None, ..node() }));
        let v2 = br#"{"version":2,"partitions":{"0":[1]},"adding_replicas":{"0":[2]},"removing_replicas":{}}"#;
        assert_eq!(decode("T", v2).unwrap().adding_replicas[&PartitionIndex(0)], [BrokerId(2)]);
    }

    #[test]
    fn rubbish_names_its_node() {
        assert_eq!(decode("T", b"").unwrap_err().path, "/brokers/topics/T");
        assert!(decode("T", br#"{"version":3,"topic_id":"short","partitions":{}}"#).is_err());
    }
}
