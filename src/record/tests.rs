//! The rules of the room as tests: produce checks, stamping, walking, rewriting, and the crate's codec as a second
//! opinion.

use std::ops::ControlFlow;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::records as crate_records;

use super::batch::{self, BatchError, Codec, HEADER_BYTES};
use super::compression;
use super::refused::{Refused, RefusedKind};
use super::*;
use crate::types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TopicPartition};

const NOW: i64 = 1_700_000_000_000;
const CODECS: [Compression; 5] =
    [Compression::None, Compression::Gzip(-1), Compression::Snappy, Compression::Lz4, Compression::Zstd(3)];

/// SplitMix64: the same numbers in every run of the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn bytes(&mut self, length_max: usize) -> Vec<u8> {
        let length = self.below(length_max + 1);
        let same = self.below(2) == 0;
        (0..length).map(|_| if same { b'x' } else { self.next() as u8 }).collect()
    }
}

type Headers = Vec<(Vec<u8>, Option<Vec<u8>>)>;

#[derive(Debug, Clone, PartialEq)]
struct Owned {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Headers,
}

fn random_records(random: &mut Random, value_bytes_max: usize) -> Vec<Owned> {
    (0..1 + random.below(20))
        .map(|_| Owned {
            timestamp: NOW - random.below(5_000_000) as i64,
            key: (random.below(4) > 0).then(|| random.bytes(300)),
            value: (random.below(4) > 0).then(|| random.bytes(value_bytes_max)),
            headers: (0..random.below(3))
                .map(|_| (random.bytes(10), (random.below(3) > 0).then(|| random.bytes(90))))
                .collect(),
        })
        .collect()
}

fn batch_of(records: &[Owned], compression: Compression) -> BytesMut {
    let mut builder = BatchBuilder::new().compressed(compression);
    for record in records {
        let headers: Vec<(&[u8], Option<&[u8]>)> =
            record.headers.iter().map(|(key, value)| (key.as_slice(), value.as_deref())).collect();
        builder.append_with_headers(record.timestamp, record.key.as_deref(), record.value.as_deref(), &headers);
    }
    builder.finish().bytes
}

fn one(key: Option<&[u8]>, timestamp: i64) -> BytesMut {
    let mut builder = BatchBuilder::new();
    builder.append(timestamp, key, Some(b"value"));
    builder.finish().bytes
}

fn read(batch: &[u8]) -> Vec<(i64, Owned)> {
    let mut records = Vec::new();
    for_each_record(batch, 1 << 26, |record| {
        records.push((
            record.offset.0,
            Owned {
                timestamp: record.timestamp,
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
                headers: record.headers.iter().map(|(k, v)| (k.to_vec(), v.map(<[u8]>::to_vec))).collect(),
            },
        ));
        ControlFlow::Continue(())
    })
    .expect("a good batch");
    records
}

/// Changes the header and puts the checksum right.
fn with_header(bytes: &BytesMut, change: impl FnOnce(&mut BatchHeader)) -> BytesMut {
    let mut bytes = bytes.clone();
    let mut header = BatchHeader::parse(&bytes).expect("a good batch");
    change(&mut header);
    bytes[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
    header.crc = checksum::of_batch(&bytes).expect("long enough");
    bytes[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
    bytes
}

fn open_rules() -> ProduceRules {
    ProduceRules { timestamp_after_max_ms: i64::MAX, ..ProduceRules::default() }
}

fn refused(bytes: BytesMut, rules: &ProduceRules) -> (RefusedKind, Refused) {
    let refused = validate(bytes, rules, NOW).expect_err("a refusal");
    (refused.kind(), refused)
}

#[test]
fn header_reads_and_writes_every_field() {
    let bytes: Vec<u8> = (1..=61).map(|i| if i == 17 { 2 } else { i }).collect();
    let header = BatchHeader::parse(&bytes).expect("magic 2");
    assert_eq!(header.to_bytes().as_slice(), bytes);
    assert_eq!(header.base_offset, Offset(0x0102_0304_0506_0708));
    assert_eq!(header.record_count, 0x3a3b_3c3d);
}

#[test]
fn sequences_wrap_to_zero_after_two_to_the_31() {
    assert_eq!(batch::add_sequence(5, 2), 7);
    assert_eq!(batch::add_sequence(i32::MAX, 1), 0);
    assert_eq!(batch::add_sequence(i32::MAX - 1, 3), 1);
}

#[test]
fn what_is_built_is_valid_and_reads_back_in_every_codec() {
    let mut random = Random(1);
    for round in 0..300 {
        let records = random_records(&mut random, 3000);
        for compression in CODECS {
            let bytes = batch_of(&records, compression);
            let valid = validate(bytes.clone(), &open_rules(), NOW).unwrap_or_else(|e| panic!("round {round}: {e}"));
            assert_eq!(valid.bytes, bytes, "a good batch stays as it is");
            assert_eq!(valid.header.codec(), Ok(compression.codec()));
            let max = records.iter().map(|r| r.timestamp).max().expect("records");
            assert_eq!(valid.header.max_timestamp, max);
            let first_max = records.iter().position(|r| r.timestamp == max).expect("records");
            assert_eq!(valid.offset_of_max_timestamp_delta as usize, first_max);
            let expected: Vec<_> = records.iter().cloned().enumerate().map(|(i, r)| (i as i64, r)).collect();
            assert_eq!(read(&valid.bytes), expected);
        }
    }
}

#[test]
fn the_crates_decoder_reads_our_batches() {
    let mut random = Random(2);
    for _ in 0..200 {
        let records = random_records(&mut random, 200);
        for compression in CODECS {
            let mut bytes = batch_of(&records, compression).freeze();
            let set = crate_records::RecordBatchDecoder::decode_with_custom_compression(
                &mut bytes,
                Some(|compressed: &mut Bytes, _: crate_records::Compression| {
                    let mut out = Vec::new();
                    compression::decompress(compression.codec(), compressed, 1 << 26, &mut out)?;
                    Ok(Bytes::from(out))
                }),
            );
            // The crate wants header keys in UTF-8, ours are any bytes.
            if records.iter().any(|r| r.headers.iter().any(|(key, _)| std::str::from_utf8(key).is_err())) {
                continue;
            }
            let set = set.expect("the crate reads it");
            assert_eq!(set.records.len(), records.len());
            for (theirs, ours) in set.records.iter().zip(&records) {
                assert_eq!(theirs.timestamp, ours.timestamp);
                assert_eq!(theirs.key.as_deref(), ours.key.as_deref());
                assert_eq!(theirs.value.as_deref(), ours.value.as_deref());
            }
        }
    }
}

fn crate_record(offset: i64, random: &mut Random) -> crate_records::Record {
    crate_records::Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id: 7,
        producer_epoch: 1,
        timestamp_type: crate_records::TimestampType::Creation,
        offset,
        sequence: offset as i32,
        timestamp: NOW - random.below(1_000_000) as i64,
        key: (random.below(2) == 0).then(|| Bytes::from(random.bytes(100))),
        value: (random.below(2) == 0).then(|| Bytes::from(random.bytes(1000))),
        headers: [("h".into(), None), ("g".into(), Some(Bytes::from_static(b"v")))]
            .map(|(k, v): (String, _)| (k.into(), v))
            .into_iter()
            .collect(),
    }
}

#[test]
fn batches_of_the_crates_encoder_are_valid() {
    let mut random = Random(3);
    for _ in 0..100 {
        let records: Vec<_> =
            (0..1 + random.below(30) as i64).map(|offset| crate_record(offset, &mut random)).collect();
        let options = crate_records::RecordEncodeOptions { version: 2, compression: crate_records::Compression::None };
        let mut bytes = BytesMut::new();
        crate_records::RecordBatchEncoder::encode(&mut bytes, &records, &options).expect("it encodes");
        let valid = validate(bytes, &open_rules(), NOW).expect("a valid batch");
        assert_eq!(valid.header.producer_id, ProducerId(7));
        for ((offset, ours), theirs) in read(&valid.bytes).into_iter().zip(&records) {
            assert_eq!((offset, ours.timestamp), (theirs.offset, theirs.timestamp));
            assert_eq!(ours.key.as_deref(), theirs.key.as_deref());
            assert_eq!(ours.headers.len(), 2);
        }
    }
}

#[test]
fn an_empty_partition_or_a_cut_batch_is_no_batch() {
    let whole = one(None, NOW);
    for cut in 0..whole.len() {
        let (kind, error) = refused(BytesMut::from(&whole[..cut]), &open_rules());
        assert_eq!((kind, error), (RefusedKind::InvalidRecord, Refused::NoBatch), "{cut}");
    }
}

#[test]
fn a_second_batch_is_refused_and_a_partial_one_trimmed() {
    let whole = one(None, NOW);
    let mut two = whole.clone();
    two.put_slice(&whole);
    assert_eq!(refused(two.clone(), &open_rules()).1, Refused::MoreThanOneBatch);
    two.truncate(whole.len() * 2 - 1);
    assert_eq!(validate(two, &open_rules(), NOW).expect("the first is whole").bytes, whole);
}

#[test]
fn magic_other_than_2_is_refused() {
    for (magic, kind) in
        [(0, RefusedKind::InvalidRecord), (1, RefusedKind::InvalidRecord), (3, RefusedKind::CorruptMessage)]
    {
        assert_eq!(refused(with_header(&one(None, NOW), |h| h.magic = magic), &open_rules()).0, kind, "{magic}");
    }
}

#[test]
fn wrong_fields_of_the_header_are_refused_in_kafkas_order() {
    use RefusedKind::*;
    let good = one(None, NOW);
    type Break = fn(&mut BatchHeader);
    let cases: [(Break, RefusedKind); 8] = [
        (|h| h.base_offset = Offset(1), InvalidRecord),
        (|h| h.last_offset_delta = -1, InvalidRecord),
        (|h| h.record_count = 0, InvalidRecord),
        (|h| h.record_count = 2, InvalidRecord),
        (|h| h.last_offset_delta = 1, InvalidRecord),
        (|h| h.attributes |= batch::CONTROL_BIT, InvalidRecord),
        (|h| h.producer_id = ProducerId(1), InvalidRecord),
        (|h| h.attributes |= 5, InvalidRecord),
    ];
    for (change, kind) in cases {
        assert_eq!(refused(with_header(&good, change), &open_rules()).0, kind);
    }
    assert_eq!(
        refused(
            with_header(&good, |h| h.base_offset = Offset(1)),
            &ProduceRules { max_message_bytes: 1, ..open_rules() }
        )
        .1,
        Refused::BaseOffset(1)
    );
}

#[test]
fn any_flipped_bit_under_the_checksum_is_corrupt() {
    let good = one(Some(b"k"), NOW);
    for bit in 17 * 8..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let kind = refused(bytes, &open_rules()).0;
        // The codec is looked at before the checksum.
        assert!(kind == RefusedKind::CorruptMessage || (22 * 8..23 * 8).contains(&bit), "bit {bit}: {kind:?}");
    }
}

#[test]
fn size_is_checked_before_the_checksum_and_segment_size_last() {
    let mut corrupt = one(None, NOW);
    let last = corrupt.len() - 1;
    corrupt[last] ^= 1;
    let max = corrupt.len() - 1;
    assert_eq!(
        refused(corrupt.clone(), &ProduceRules { max_message_bytes: max, ..open_rules() }).0,
        RefusedKind::MessageTooLarge
    );
    assert_eq!(refused(corrupt, &ProduceRules { segment_bytes: max, ..open_rules() }).0, RefusedKind::CorruptMessage);
    let good = one(None, NOW);
    assert_eq!(refused(good, &ProduceRules { segment_bytes: max, ..open_rules() }).0, RefusedKind::RecordListTooLarge);
}

#[test]
fn bytes_after_the_last_record_are_refused() {
    let mut bytes = one(None, NOW);
    bytes.put_slice(b"more");
    let length = bytes.len() as i32 - 12;
    let error = refused(with_header(&bytes, |h| h.batch_length = length), &open_rules());
    assert_eq!(error.0, RefusedKind::InvalidRecord);
    assert!(error.1.to_string().contains("records still remaining"), "{}", error.1);
}

#[test]
fn zstd_needs_produce_7() {
    let bytes = batch_of(&random_records(&mut Random(4), 10), Compression::Zstd(3));
    let rules = ProduceRules { zstd_allowed: false, ..open_rules() };
    assert_eq!(refused(bytes, &rules).0, RefusedKind::UnsupportedCompressionType);
}

#[test]
fn keyless_records_of_a_compacted_topic_are_named_one_by_one() {
    let partition = TopicPartition::new("t", 0);
    for compression in CODECS {
        let mut builder = BatchBuilder::new().compressed(compression);
        for key in [Some(b"k".as_slice()), None, Some(b""), None] {
            builder.append(NOW, key, None);
        }
        let rules = ProduceRules { compacted: true, check_records: false, ..open_rules() };
        let (kind, error) = refused(builder.finish().bytes, &rules);
        assert_eq!(kind, RefusedKind::InvalidRecord);
        let text = "Compacted topic cannot accept message without key in topic partition t-0.";
        assert_eq!(error.record_errors(&partition), [(1, text.to_string()), (3, text.to_string())]);
        assert_eq!(
            error.error_message(&partition).expect("a message"),
            format!(
                "One or more records have been rejected due to 2 record errors in total, and only showing the first \
                 three errors at most: [RecordError(batchIndex=1, message='{text}'), RecordError(batchIndex=3, \
                 message='{text}')]"
            )
        );
    }
}

#[test]
fn timestamps_outside_the_window_are_refused_and_none_is_always_in_it() {
    let rules = ProduceRules {
        timestamp_before_max_ms: 1000,
        timestamp_after_max_ms: 500,
        check_records: false,
        ..ProduceRules::default()
    };
    for good in [NOW, NOW - 1000, NOW + 500, -1] {
        assert!(validate(one(None, good), &rules, NOW).is_ok(), "{good}");
    }
    for bad in [NOW - 1001, NOW + 501, i64::MIN, i64::MAX, 0] {
        let (kind, error) = refused(one(None, bad), &rules);
        assert_eq!(kind, RefusedKind::InvalidTimestamp, "{bad}");
        let text = format!(
            "Timestamp {bad} of message with offset 0 is out of range. The timestamp should be within [{}, {}]",
            NOW - 1000,
            NOW + 500
        );
        assert_eq!(error.record_errors(&TopicPartition::new("t", 0)), [(0, text)]);
    }
    let append_time = ProduceRules { message_timestamp_type: TimestampType::LogAppendTime, ..rules };
    assert!(validate(one(None, 0), &append_time, NOW).is_ok(), "the producer's time does not count then");
}

#[test]
fn a_producer_may_not_set_log_append_time() {
    let bytes = with_header(&one(None, NOW), |h| h.attributes |= batch::TIMESTAMP_TYPE_BIT);
    assert_eq!(refused(bytes, &open_rules()).0, RefusedKind::InvalidTimestamp);
}

#[test]
fn a_wrong_maximum_timestamp_is_put_right_with_its_checksum() {
    for records in [1, 2000] {
        let mut builder = BatchBuilder::new();
        for i in 0..records {
            builder.append(NOW - i, None, Some(b"some value of some length"));
        }
        let right = builder.finish().bytes;
        let wrong = with_header(&right, |h| h.max_timestamp = 12);
        assert_eq!(validate(wrong, &open_rules(), NOW).expect("valid").bytes, right);
    }
}

#[test]
fn stamping_keeps_the_checksum_right() {
    for size in [10, 100_000] {
        for append_time in [None, Some(NOW + 5)] {
            let mut builder = BatchBuilder::new();
            builder.append(NOW, None, Some(&vec![7; size]));
            let mut valid = validate(builder.finish().bytes, &open_rules(), NOW).expect("valid");
            stamp(&mut valid, Offset(40), LeaderEpoch(3), append_time);
            let header = BatchHeader::parse(&valid.bytes).expect("a batch");
            assert_eq!(header, valid.header);
            assert_eq!((header.base_offset, header.partition_leader_epoch), (Offset(40), LeaderEpoch(3)));
            assert_eq!(header.last_offset(), Offset(40));
            assert_eq!(Some(header.crc), checksum::of_batch(&valid.bytes));
            assert_eq!(header.timestamp_type() == TimestampType::LogAppendTime, append_time.is_some());
            assert_eq!(read(&valid.bytes)[0].1.timestamp, append_time.unwrap_or(NOW));
        }
    }
}

#[test]
fn validation_and_stamping_leave_the_bytes_where_they_are() {
    let bytes = one(Some(b"k"), NOW);
    let place = bytes.as_ptr();
    let mut valid = validate(bytes, &open_rules(), NOW).expect("valid");
    stamp(&mut valid, Offset(1), LeaderEpoch(1), Some(NOW));
    assert_eq!(valid.bytes.freeze().as_ptr(), place);
}

#[test]
fn only_another_codec_of_the_topic_recompresses() {
    let targets = [
        (TopicCompression::Uncompressed, Codec::None),
        (TopicCompression::Gzip(9), Codec::Gzip),
        (TopicCompression::Snappy, Codec::Snappy),
        (TopicCompression::Lz4, Codec::Lz4),
        (TopicCompression::Zstd(1), Codec::Zstd),
    ];
    let records = random_records(&mut Random(5), 2000);
    for source in CODECS {
        for (compression, codec) in targets {
            let bytes = batch_of(&records, source);
            let rules = ProduceRules { compression, check_records: false, ..open_rules() };
            let valid = validate(bytes.clone(), &rules, NOW).expect("valid");
            assert_eq!(valid.header.codec(), Ok(codec));
            assert_eq!(valid.bytes == bytes, source.codec() == codec);
            assert_eq!(BatchHeader::parse(&valid.bytes), Ok(valid.header));
            assert_eq!(Some(valid.header.crc), checksum::of_batch(&valid.bytes));
            assert_eq!(read(&valid.bytes), read(&bytes));
        }
    }
}

#[test]
fn a_batch_that_grows_past_the_limit_when_rewritten_is_too_large() {
    let mut builder = BatchBuilder::new().compressed(Compression::Gzip(-1));
    builder.append(NOW, None, Some(&[0; 10_000]));
    let rules = ProduceRules { compression: TopicCompression::Uncompressed, max_message_bytes: 9_000, ..open_rules() };
    assert_eq!(refused(builder.finish().bytes, &rules).0, RefusedKind::MessageTooLarge);
}

#[test]
fn offsets_that_are_not_0_to_n_are_put_right() {
    for compression in CODECS {
        let base = BatchHeader::parse(&one(None, NOW)).expect("a good batch");
        let mut builder = BatchBuilder::retaining(&base).expect("a codec").compressed(compression);
        for offset in [5, 5, 2] {
            builder.append_kept(&RecordView {
                offset: Offset(offset),
                timestamp: NOW + offset,
                key: None,
                value: Some(b"v"),
                headers: Default::default(),
            });
        }
        let bytes = with_header(&builder.finish().bytes, |h| h.last_offset_delta = 2);
        let valid = validate(bytes, &open_rules(), NOW).expect("valid");
        let offsets: Vec<_> = read(&valid.bytes).iter().map(|(offset, record)| (*offset, record.timestamp)).collect();
        assert_eq!(offsets, [(0, NOW + 5), (1, NOW + 5), (2, NOW + 2)]);
        assert_eq!(valid.header.codec(), Ok(compression.codec()));
        assert_eq!(Some(valid.header.crc), checksum::of_batch(&valid.bytes));
    }
}

#[test]
fn compaction_keeps_range_sequence_and_timestamps_even_without_records() {
    let mut builder = BatchBuilder::new().producer(ProducerId(9), ProducerEpoch(2), 100);
    for i in 0..5_u8 {
        builder.append(NOW + i64::from(i), Some(&[i]), Some(b"v"));
    }
    let mut original = builder.finish();
    stamp(&mut original, Offset(1000), LeaderEpoch(4), None);

    let mut kept = BatchBuilder::retaining(&original.header).expect("a codec");
    for_each_record(&original.bytes, 1 << 20, |record| {
        if record.offset.0 % 2 == 1 {
            kept.append_kept(&record);
        }
        ControlFlow::Continue(())
    })
    .expect("a good batch");
    let kept = kept.finish();
    assert_eq!(
        read(&kept.bytes).iter().map(|(o, r)| (*o, r.timestamp)).collect::<Vec<_>>(),
        [(1001, NOW + 1), (1003, NOW + 3)]
    );
    assert_eq!(kept.header.last_offset(), Offset(1004));
    assert_eq!((kept.header.base_sequence, kept.header.last_sequence()), (100, 104));
    assert_eq!(kept.header.max_timestamp, NOW + 3);

    let empty = BatchBuilder::retaining(&original.header).expect("a codec").finish();
    assert_eq!(empty.bytes.len(), HEADER_BYTES);
    assert_eq!((empty.header.last_offset(), empty.header.max_timestamp), (Offset(1004), NOW + 4));
    assert_eq!(read(&empty.bytes), []);
}

#[test]
fn a_zstd_window_that_no_client_accepts_is_refused() {
    // One raw block of one byte behind a window of 128 MiB, of a little more, and of 2 GiB.
    for (window, accepted) in [(17 << 3, true), (17 << 3 | 1, false), (21 << 3, false)] {
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0, window, 0x09, 0, 0, b'x'];
        let mut out = Vec::new();
        assert_eq!(compression::decompress(Codec::Zstd, &frame, 100, &mut out).is_ok(), accepted, "{window}");
    }
}

/// CVE-2023-34455 among others.
#[test]
fn bombs_stop_at_the_cap() {
    const CAP: usize = 1 << 20;
    let bomb = vec![0; 32 << 20];
    for compression in CODECS {
        let mut packed = BytesMut::new();
        compression::compress(compression, &bomb, &mut packed);
        let mut out = Vec::new();
        let error = compression::decompress(compression.codec(), &packed, CAP, &mut out).expect_err("too large");
        assert_eq!(error, BatchError::TooLargeDecompressed { cap: CAP }, "{compression:?}");
        assert!(out.capacity() <= CAP, "{compression:?} reserved {}", out.capacity());

        let mut exact = BytesMut::new();
        compression::compress(compression, &bomb[..CAP], &mut exact);
        out.clear();
        assert_eq!(compression::decompress(compression.codec(), &exact, CAP, &mut out), Ok(()), "{compression:?}");
        assert_eq!(out.len(), CAP);
    }
    let mut builder = BatchBuilder::new().compressed(Compression::Zstd(3));
    builder.append(NOW, None, Some(&bomb));
    let rules = ProduceRules { decompressed_bytes_max: CAP, ..open_rules() };
    assert_eq!(refused(builder.finish().bytes, &rules).0, RefusedKind::MessageTooLarge);
}

#[test]
fn snappy_is_read_raw_framed_and_concatenated() {
    let text = b"the same words, the same words, the same words".repeat(2000);
    let raw = snap::raw::Encoder::new().compress_vec(&text).expect("it compresses");
    let mut framed = BytesMut::new();
    compression::compress(Compression::Snappy, &text, &mut framed);
    assert_eq!(&framed[..16], b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01");
    let mut twice = framed.clone();
    twice.put_slice(&framed);
    for (input, times) in [(raw.as_slice(), 1), (&framed, 1), (&twice, 2)] {
        let mut out = Vec::new();
        assert_eq!(compression::decompress(Codec::Snappy, input, 1 << 20, &mut out), Ok(()));
        assert_eq!(out, text.repeat(times));
    }
    // A length that no block of five bytes can have is not even reserved.
    let mut out = Vec::new();
    assert!(compression::decompress(Codec::Snappy, &[0xff, 0xff, 0xff, 0x0f, 0], 1 << 26, &mut out).is_err());
    assert!(out.capacity() < 1 << 10);
}

#[test]
fn mutated_batches_never_panic() {
    let seed = std::env::var("KLAMM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(6);
    eprintln!("KLAMM_SEED={seed}");
    let mut random = Random(seed);
    let rules = ProduceRules { decompressed_bytes_max: 1 << 20, compacted: true, ..ProduceRules::default() };
    for round in 0..4000 {
        let compression = CODECS[round % CODECS.len()];
        let mut bytes = batch_of(&random_records(&mut random, 100), compression);
        for _ in 0..1 + random.below(4) {
            let at = random.below(bytes.len());
            bytes[at] = random.next() as u8;
        }
        if random.below(4) == 0 {
            bytes.truncate(random.below(bytes.len()));
        }
        // With a right checksum the mutation gets past it.
        if let Some(crc) = checksum::of_batch(&bytes) {
            bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        }
        let _ = for_each_record(&bytes, 1 << 20, |_| ControlFlow::Continue(()));
        let _ = validate(bytes, &rules, NOW);
    }
}

#[test]
fn absurd_header_counts_end_at_once() {
    let mut builder = BatchBuilder::new();
    builder.append(NOW, None, None);
    let good = builder.finish().bytes;
    let record = [0x0e, 0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f];
    let mut bytes = BytesMut::from(&good[..HEADER_BYTES]);
    bytes.put_slice(&record);
    bytes[HEADER_BYTES] = ((record.len() as u8) - 1) * 2;
    let length = bytes.len() as i32 - 12;
    let (kind, error) = refused(with_header(&bytes, |h| h.batch_length = length), &open_rules());
    assert_eq!(kind, RefusedKind::InvalidRecord);
    assert!(error.to_string().contains("number of record headers"), "{error}");
}
