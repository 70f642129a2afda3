//! `/latest_producer_id_block`: the last block of producer ids that was given out.
//!
//! `{"version":1,"broker":1,"block_start":"1000","block_end":"1999"}`, bounds inclusive and text, a block is 1000 ids.
//! A JVM broker loops for ever when the node is missing and fails when it is empty but not null, and we cannot write
//! null: so we create it with the first block already burnt. Null, which a JVM broker writes, reads as "nothing given
//! out".

use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{ZnodeError, from_json, to_json};
use crate::types::BrokerId;

pub(crate) const PATH: &str = "/latest_producer_id_block";

/// Ids per block. Source: Kafka 3.9 `ProducerIdsBlock.PRODUCER_ID_BLOCK_SIZE`.
pub(crate) const BLOCK_IDS: i64 = 1000;

#[derive(Serialize, Deserialize)]
struct Json {
    version: i32,
    broker: i32,
    block_start: String,
    block_end: String,
}

/// `block` is half-open, as everywhere in klamm; the node's end is inclusive.
pub(crate) fn encode(broker: BrokerId, block: &Range<i64>) -> Bytes {
    to_json(&Json {
        version: 1,
        broker: broker.0,
        block_start: block.start.to_string(),
        block_end: (block.end - 1).to_string(),
    })
}

/// `None`: no block was given out yet.
pub(crate) fn decode(data: &[u8]) -> Result<Option<Range<i64>>, ZnodeError> {
    if data.is_empty() {
        return Ok(None);
    }
    let json: Json = from_json(PATH, data)?;
    let number = |text: &str| text.parse::<i64>().map_err(|error| ZnodeError::new(PATH, error));
    let (start, end) = (number(&json.block_start)?, number(&json.block_end)?);
    let end = end.checked_add(1).ok_or_else(|| ZnodeError::new(PATH, "the last producer id was given out"))?;
    Ok(Some(start..end))
}

/// The block after `last`; `None` once all ids are used up.
pub(crate) fn next(last: Option<&Range<i64>>) -> Option<Range<i64>> {
    let start = last.map_or(0, |block| block.end);
    Some(start..start.checked_add(BLOCK_IDS)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let text = r#"{"version":1,"broker":1,"block_start":"1000","block_end":"1999"}"#;
        assert_eq!(encode(BrokerId(1), &(1000..2000)), text);
        assert_eq!(decode(text.as_bytes()), Ok(Some(1000..2000)));
    }

    #[test]
    fn blocks_follow_each_other_and_end() {
        assert_eq!(next(None), Some(0..1000));
        assert_eq!(next(Some(&(0..1000))), Some(1000..2000));
        assert_eq!(next(Some(&(0..i64::MAX))), None);
        assert_eq!(decode(b""), Ok(None));
    }
}
