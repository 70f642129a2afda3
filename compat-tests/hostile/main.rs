//! Hostile input over every decoder that a stranger's bytes meet: truncation at each byte, absurd counts, floods of
//! tags and of elements, trailing bytes, mutations, bombs. Nothing may panic or abort, and memory is counted and
//! bounded.
//!
//! Bodies are made by the decoder itself: it runs on a buffer that invents what it is asked for and keeps it
//! (`generator`), so every message, version and nested field is reached without a description of the schemas.
//! `KLAMM_SEED=n` repeats a run; the seed is printed.

mod counting;
mod generator;
mod rows;

use bytes::{Bytes, BytesMut};
use counting::peak_of;
use generator::Random;
use klamm::probe;
use rows::Row;

/// What an error and its text may take, beside what grows with the frame.
const CONSTANT_BYTES: usize = 256 << 10;

fn seed() -> u64 {
    let seed = std::env::var("KLAMM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_250_101);
    eprintln!("KLAMM_SEED={seed}");
    seed
}

/// Runs `check` with every row, version and a few good bodies of it.
fn for_each_body(seed: u64, bodies_max: usize, mut check: impl FnMut(&Row, i16, &[u8])) {
    let mut random = Random(seed);
    for row in rows::all() {
        for version in row.versions.clone() {
            let bodies = generator::bodies(&mut random, bodies_max, |invented| (row.generate)(invented, version));
            assert!(!bodies.is_empty(), "{} {version}: no body was found", row.name);
            for body in bodies {
                check(&row, version, &body);
            }
        }
    }
}

/// Decodes and holds memory to `factor` times the body.
fn bounded(row: &Row, version: i16, body: &[u8], factor: usize) -> Result<(), String> {
    let body = Bytes::copy_from_slice(body);
    let bytes = body.len();
    let (result, peak) = peak_of(|| (row.decode)(body, version));
    assert!(peak <= factor * bytes + CONSTANT_BYTES, "{} {version}: {peak} bytes for {bytes}", row.name);
    result
}

#[test]
fn the_guard_changes_nothing_for_good_bodies() {
    for_each_body(seed(), 8, |row, version, body| {
        let body = Bytes::copy_from_slice(body);
        assert!((row.agrees)(body.clone(), version), "{} {version}: {body:?}", row.name);
    });
}

#[test]
fn every_truncation_is_refused_and_what_follows_is_ignored() {
    for_each_body(seed(), 3, |row, version, body| {
        for cut in 0..body.len() {
            assert!(bounded(row, version, &body[..cut], 16).is_err(), "{} {version} cut at {cut}: {body:?}", row.name);
        }
        let longer = [body, &[0]].concat();
        assert!((row.decode)(Bytes::from(longer), version).is_ok(), "{} {version}: trailing byte", row.name);
    });
}

#[test]
fn absurd_counts_reserve_nothing() {
    let lies: [&[u8]; 6] = [
        &[0x7f, 0xff, 0xff, 0xff],
        &[0x7f, 0xff],
        &[0x00, 0x10, 0x00, 0x00],
        &[0xff, 0xff, 0xff, 0xff, 0x07],
        &[0xff, 0xff, 0xff, 0xff, 0xff],
        &[0xff, 0xff, 0x7f],
    ];
    for_each_body(seed(), 2, |row, version, body| {
        for at in 0..body.len() {
            for lie in lies {
                let mut replaced = body.to_vec();
                replaced.splice(at..(at + lie.len()).min(body.len()), lie.iter().copied());
                let _ = bounded(row, version, &replaced, 16);
                let mut inserted = body.to_vec();
                inserted.splice(at..at + 1, lie.iter().copied());
                let _ = bounded(row, version, &inserted, 16);
            }
        }
    });
}

#[test]
fn a_count_of_all_bytes_left_costs_what_its_elements_may_be_at_most() {
    // Every place becomes, in turn, a count of the bytes that are left, and those are zeros: either the count is a lie,
    // or the elements are the smallest there are.
    const FRAME_BYTES: usize = 32 << 10;
    for_each_body(seed(), 1, |row, version, body| {
        for at in 0..body.len().min(60) {
            for bytes_per_element in [1, 6] {
                let count = (FRAME_BYTES - at - 8) as u32 / bytes_per_element;
                let mut plain = body[..at].to_vec();
                plain.extend_from_slice(&count.to_be_bytes());
                plain.resize(FRAME_BYTES, 0);
                let _ = bounded(row, version, &plain, ELEMENT_FACTOR);
                let mut compact = body[..at].to_vec();
                put_uvarint(&mut compact, count);
                compact.resize(FRAME_BYTES, 0);
                let _ = bounded(row, version, &compact, ELEMENT_FACTOR);
            }
        }
    });
}

#[test]
fn a_flood_of_tagged_fields_costs_a_small_multiple_of_its_bytes() {
    // The last byte of a flexible body is its count of tagged fields.
    for_each_body(seed(), 1, |row, version, body| {
        let Some((0, front)) = body.split_last() else { return };
        // One tag takes its number and its length. Else it is another field, and a flood is what follows and is ignored.
        let decodes = |end: &[u8]| (row.decode)(Bytes::from([front, end].concat()), version).is_ok();
        if decodes(&[1, 100]) || !decodes(&[1, 100, 0]) {
            return;
        }
        let mut flooded = front.to_vec();
        const TAGS: u32 = 30_000;
        put_uvarint(&mut flooded, TAGS);
        for tag in 0..TAGS {
            put_uvarint(&mut flooded, 200_000 + tag);
            flooded.push(0);
        }
        let refused = bounded(row, version, &flooded, 16);
        assert!(refused.is_err(), "such tag numbers exceed the frame");
        flooded = front.to_vec();
        put_uvarint(&mut flooded, TAGS);
        for tag in 0..TAGS {
            put_uvarint(&mut flooded, 20_000 + tag);
            flooded.push(0);
        }
        let _ = bounded(row, version, &flooded, 24);
    });
}

#[test]
fn mutated_bodies_never_panic_and_stay_bounded() {
    let seed = seed();
    let mut random = Random(seed ^ 1);
    for_each_body(seed, 2, |row, version, body| {
        for _ in 0..100 {
            let mut mutated = body.to_vec();
            for _ in 0..1 + random.below(4) {
                mutate(&mut mutated, &mut random);
            }
            let _ = bounded(row, version, &mutated, ELEMENT_FACTOR);
        }
    });
}

#[test]
fn the_hand_written_produce_decoder_agrees_with_the_crate_and_stays_bounded() {
    let seed = seed();
    let mut random = Random(seed ^ 2);
    let all = rows::all();
    let row = all.iter().find(|row| row.name == "ProduceRequest").expect("a row");
    for version in row.versions.clone() {
        for body in generator::bodies(&mut random, 30, |invented| (row.generate)(invented, version)) {
            probe::decode_produce(BytesMut::from(&body[..]), version)
                .unwrap_or_else(|e| panic!("{version}: {e}: {body:?}"));
            for cut in 0..body.len() {
                assert!(probe::decode_produce(BytesMut::from(&body[..cut]), version).is_err());
            }
            for _ in 0..100 {
                let mut mutated = body.clone();
                mutate(&mut mutated, &mut random);
                let frame = BytesMut::from(&mutated[..]);
                let (ours, peak) = peak_of(|| probe::decode_produce(frame, version).is_ok());
                assert!(peak <= 16 * mutated.len() + CONSTANT_BYTES, "{version}: {peak}");
                // The guard also refuses large tag numbers, which ours skips.
                let theirs = bounded(row, version, &mutated, ELEMENT_FACTOR).is_ok();
                assert!(ours || !theirs, "{version}: {mutated:?}");
            }
        }
        for size in [1 << 10, 1 << 20] {
            for at in 0..40 {
                let mut flood = vec![1; at];
                flood.extend_from_slice(&((size / 8) as u32).to_be_bytes());
                flood.resize(size, 0);
                let (_, peak) = peak_of(|| probe::decode_produce(BytesMut::from(&flood[..]), version).is_ok());
                // The frame itself is one of them: it is copied inside.
                assert!(peak <= 17 * size + CONSTANT_BYTES, "{version}: {peak} for {size}");
            }
        }
    }
}

#[test]
fn headers_of_random_bytes_are_refused_or_read() {
    let mut random = Random(seed() ^ 3);
    for _ in 0..20_000 {
        let length = random.below(40);
        let mut frame: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        if random.below(2) == 0 && length > 2 {
            frame[0] = 0;
            frame[1] = random.below(93) as u8;
            frame[2] = 0;
        }
        let (_, peak) = peak_of(|| probe::decode_header(BytesMut::from(&frame[..])).is_ok());
        assert!(peak <= CONSTANT_BYTES);
    }
}

#[test]
fn mutated_batches_never_panic_and_stay_below_the_cap() {
    const CAP: usize = 1 << 20;
    let mut random = Random(seed() ^ 4);
    for round in 0..10_000 {
        let value = vec![b'v'; random.below(2000)];
        let values: Vec<&[u8]> = (0..1 + random.below(5)).map(|_| &value[..]).collect();
        let mut batch = probe::build_batch(round % 5, &values).expect("a codec");
        for _ in 0..1 + random.below(4) {
            let at = random.below(batch.len());
            batch[at] = random.next() as u8;
        }
        batch.truncate(batch.len() - random.below(2) * random.below(batch.len()));
        probe::mend_checksum(&mut batch);
        let (_, peak) = peak_of(|| {
            let _ = probe::read_batch(&batch, CAP);
            let _ = probe::check_batch(batch, CAP);
        });
        assert!(peak <= CAP + CODEC_BYTES, "round {round}: {peak}");
    }
}

#[test]
fn bombs_and_lying_windows_stop_at_the_cap() {
    const CAP: usize = 4 << 20;
    let bomb = vec![0; 256 << 20];
    for codec in 1..=4 {
        let packed = probe::compress(codec, &bomb).expect("a codec");
        let (result, peak) = peak_of(|| probe::decompress(codec, &packed, CAP));
        assert!(result.is_err(), "codec {codec}");
        assert!(peak <= CAP + CODEC_BYTES, "codec {codec}: {peak}");
    }
    // zstd: a window of 2 GiB, then one block of 100 equal bytes.
    let window = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x23, 0x03, 0x00, b'x'];
    // snappy: a raw block that claims 2 GiB; xerial blocks of length −1 and of more than there is.
    let raw = [0xff, 0xff, 0xff, 0xff, 0x07, 0x00];
    let negative = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01\xff\xff\xff\xff";
    let beyond = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01\x7f\xff\xff\xff";
    for (codec, input) in [(4, &window[..]), (2, &raw), (2, &negative), (2, &beyond), (2, &beyond[..12]), (3, &raw)] {
        let (_, peak) = peak_of(|| probe::decompress(codec, input, CAP));
        assert!(peak <= CODEC_BYTES, "codec {codec}: {peak}");
    }
}

#[test]
fn mutated_streams_of_every_codec_stay_below_the_cap() {
    const CAP: usize = 1 << 20;
    let mut random = Random(seed() ^ 5);
    let text: Vec<u8> = (0..200_000).map(|i| (i / 100 % 251) as u8).collect();
    for codec in 1..=4 {
        let packed = probe::compress(codec, &text).expect("a codec");
        for _ in 0..500 {
            let mut mutated = packed.to_vec();
            for _ in 0..1 + random.below(5) {
                mutate(&mut mutated, &mut random);
            }
            let (_, peak) = peak_of(|| probe::decompress(codec, &mutated, CAP));
            assert!(peak <= CAP + CODEC_BYTES, "codec {codec}: {peak}");
        }
    }
}

/// What a decompressor holds for itself: lz4's largest blocks in and out.
const CODEC_BYTES: usize = 16 << 20;

/// Most bytes that one byte on the wire may reserve: a count may claim an element per byte left, and the largest
/// element of these messages has 232 bytes in memory. A lie is given back at once, and its pages were never touched;
/// the frame's own limit is what bounds it.
const ELEMENT_FACTOR: usize = 240;

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    if bytes.is_empty() {
        return;
    }
    let at = random.below(bytes.len());
    match random.below(6) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = random.next() as u8,
        2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
        3 => bytes.truncate(at),
        4 => bytes.insert(at, random.next() as u8),
        _ => {
            let from = random.below(bytes.len());
            let piece: Vec<u8> = bytes[from..].iter().take(8).copied().collect();
            bytes.splice(at..at, piece);
        }
    }
}

fn put_uvarint(out: &mut Vec<u8>, value: u32) {
    let mut left = value;
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}
