//! The four codecs behind one capped wrapper: output never exceeds the cap, whatever the input claims (I-21).
//!
//! - gzip: RFC 1952, members may follow each other.
//! - snappy: Java's xerial framing (a header of 16 bytes, then blocks with a length i32), and a raw block.
//! - lz4: the frame format.
//! - zstd: frames, decompressed in one go into the output, so that the window a frame asks for costs nothing.
//!
//! Decompressed records are lent from a buffer of the thread, so that steady traffic allocates nothing.

use std::cell::RefCell;
use std::io::{self, Read, Write};

use bytes::{BufMut, BytesMut};

use super::batch::{BatchError, Codec};

/// A codec and its level. Level −1 of gzip and 0 of zstd are the libraries' defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip(i32),
    Snappy,
    Lz4,
    Zstd(i32),
}

impl Compression {
    pub(crate) fn codec(self) -> Codec {
        match self {
            Self::None => Codec::None,
            Self::Gzip(_) => Codec::Gzip,
            Self::Snappy => Codec::Snappy,
            Self::Lz4 => Codec::Lz4,
            Self::Zstd(_) => Codec::Zstd,
        }
    }
}

impl From<Codec> for Compression {
    /// With Kafka's default level.
    fn from(codec: Codec) -> Self {
        match codec {
            Codec::None => Self::None,
            Codec::Gzip => Self::Gzip(-1),
            Codec::Snappy => Self::Snappy,
            Codec::Lz4 => Self::Lz4,
            Codec::Zstd => Self::Zstd(3),
        }
    }
}

/// Topic config `compression.type` with its level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum TopicCompression {
    /// Keep what the producer chose.
    #[default]
    Producer,
    Uncompressed,
    Gzip(i32),
    Snappy,
    Lz4,
    Zstd(i32),
}

impl TopicCompression {
    /// What a batch of this codec is stored with; `None` if it stays as it is.
    pub(crate) fn rewrite_of(self, source: Codec) -> Option<Compression> {
        let target = match self {
            Self::Producer => return None,
            Self::Uncompressed => Compression::None,
            Self::Gzip(level) => Compression::Gzip(level),
            Self::Snappy => Compression::Snappy,
            Self::Lz4 => Compression::Lz4,
            Self::Zstd(level) => Compression::Zstd(level),
        };
        (target.codec() != source).then_some(target)
    }
}

/// Capacity a thread keeps for the next batch.
const SCRATCH_BYTES_KEPT: usize = 4 << 20;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static ZSTD: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Decompresses into the thread's buffer and lends it. More than `cap` bytes: [`BatchError::TooLargeDecompressed`].
pub(crate) fn with_decompressed<T>(
    codec: Codec,
    input: &[u8],
    cap: usize,
    read: impl FnOnce(&[u8]) -> T,
) -> Result<T, BatchError> {
    // Taken, not borrowed: `read` may decompress another batch.
    let mut scratch = SCRATCH.take();
    scratch.clear();
    let result = decompress(codec, input, cap, &mut scratch).map(|()| read(&scratch));
    if scratch.capacity() <= SCRATCH_BYTES_KEPT {
        SCRATCH.set(scratch);
    }
    result
}

/// Appends at most `cap` decompressed bytes to the empty `out`; never reserves more than `cap` either.
pub(crate) fn decompress(codec: Codec, input: &[u8], cap: usize, out: &mut Vec<u8>) -> Result<(), BatchError> {
    match codec {
        Codec::None if input.len() > cap => Err(BatchError::TooLargeDecompressed { cap }),
        Codec::None => {
            out.extend_from_slice(input);
            Ok(())
        }
        Codec::Gzip => read_capped(flate2::bufread::MultiGzDecoder::new(input), input.len(), cap, out),
        Codec::Snappy => snappy(input, cap, out),
        Codec::Lz4 => read_capped(lz4_flex::frame::FrameDecoder::new(input), input.len(), cap, out),
        Codec::Zstd => unzstd(input, cap, out),
    }
}

/// Reads to the end in steps, so that the buffer follows what was really produced.
fn read_capped(mut from: impl Read, input_bytes: usize, cap: usize, out: &mut Vec<u8>) -> Result<(), BatchError> {
    let mut step = out.capacity().max(input_bytes.saturating_mul(4)).max(4 << 10);
    loop {
        let room = cap.saturating_sub(out.len()).min(step);
        if room == 0 {
            // Full: only the end of the stream is still acceptable.
            return match from.read(&mut [0]) {
                Ok(0) => Ok(()),
                Ok(_) => Err(BatchError::TooLargeDecompressed { cap }),
                Err(_) => Err(BatchError::Decompression),
            };
        }
        out.reserve_exact(room);
        let read = (&mut from).take(room as u64).read_to_end(out).map_err(|_| BatchError::Decompression)?;
        if read < room {
            return Ok(());
        }
        step = if out.len() < REST_AT_ONCE_FROM_BYTES { out.len() } else { cap };
    }
}

/// From here on a buffer has room up to the cap: growing would copy it and hold it twice meanwhile, while pages that
/// nothing was written to cost nothing.
const REST_AT_ONCE_FROM_BYTES: usize = 8 << 20;

/// First bytes of Java's snappy stream; two version numbers i32 follow.
const XERIAL_MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
const XERIAL_HEADER_BYTES: usize = 16;
/// Block length of Java's writer.
const XERIAL_BLOCK_BYTES: usize = 32 << 10;
/// No snappy block grows by more: its densest element writes 64 bytes from three.
const SNAPPY_RATIO_MAX: usize = 64;

fn snappy(input: &[u8], cap: usize, out: &mut Vec<u8>) -> Result<(), BatchError> {
    if !input.starts_with(XERIAL_MAGIC) {
        return snappy_block(input, cap, out);
    }
    let mut rest = input;
    while !rest.is_empty() {
        // Streams may follow each other, so the header may come again.
        if rest.starts_with(XERIAL_MAGIC) {
            rest = rest.get(XERIAL_HEADER_BYTES..).ok_or(BatchError::Decompression)?;
            continue;
        }
        let (length, after) = rest.split_first_chunk::<4>().ok_or(BatchError::Decompression)?;
        let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| BatchError::Decompression)?;
        let (block, after) = after.split_at_checked(length).ok_or(BatchError::Decompression)?;
        snappy_block(block, cap, out)?;
        rest = after;
    }
    Ok(())
}

fn snappy_block(block: &[u8], cap: usize, out: &mut Vec<u8>) -> Result<(), BatchError> {
    let length = snap::raw::decompress_len(block).map_err(|_| BatchError::Decompression)?;
    if length > block.len().saturating_mul(SNAPPY_RATIO_MAX) {
        return Err(BatchError::Decompression);
    }
    if length > cap.saturating_sub(out.len()) {
        return Err(BatchError::TooLargeDecompressed { cap });
    }
    let start = out.len();
    out.reserve_exact(length);
    out.resize(start + length, 0);
    let written =
        snap::raw::Decoder::new().decompress(block, &mut out[start..]).map_err(|_| BatchError::Decompression)?;
    out.truncate(start + written);
    Ok(())
}

fn unzstd(input: &[u8], cap: usize, out: &mut Vec<u8>) -> Result<(), BatchError> {
    let mut decoder = match ZSTD.take() {
        Some(decoder) => decoder,
        None => zstd::bulk::Decompressor::new().map_err(|_| BatchError::Decompression)?,
    };
    let announced = zstd::zstd_safe::get_frame_content_size(input).ok().flatten();
    if announced.is_some_and(|bytes| bytes > cap as u64) {
        return Err(BatchError::TooLargeDecompressed { cap });
    }
    // Java's producer announces nothing: then try what the buffer has, or a usual ratio, and grow by the factor 4.
    let guess = out.capacity().max(input.len().saturating_mul(4)).max(16 << 10);
    let mut room = announced.map_or(guess, |bytes| bytes as usize).min(cap);
    if zstd_window_bytes(input).is_some_and(|bytes| bytes > ZSTD_WINDOW_BYTES_MAX) {
        return Err(BatchError::Decompression);
    }
    loop {
        out.clear();
        out.reserve_exact(room);
        // The library writes into the vector's spare capacity and tells "too small" only as text, so try the cap before
        // calling anything else an error.
        match decoder.decompress_to_buffer(input, out) {
            Ok(bytes) if bytes > cap => return Err(BatchError::TooLargeDecompressed { cap }),
            Ok(_) => break,
            Err(error) if is_too_small(&error) && room < cap => room = room.saturating_mul(4).min(cap),
            Err(error) if is_too_small(&error) => return Err(BatchError::TooLargeDecompressed { cap }),
            Err(_) => return Err(BatchError::Decompression),
        }
    }
    ZSTD.set(Some(decoder));
    Ok(())
}

/// The window that every streaming decoder accepts, hence every client. Source: zstd `ZSTD_WINDOWLOG_LIMIT_DEFAULT`.
const ZSTD_WINDOW_BYTES_MAX: u64 = 1 << 27;

/// The window that the frame at the start asks for, if it names one (RFC 8878, 3.1.1.1.2).
fn zstd_window_bytes(input: &[u8]) -> Option<u64> {
    const SINGLE_SEGMENT_BIT: u8 = 0x20;
    let (&[_, _, _, _, descriptor, window], _) = input.split_first_chunk()?;
    if descriptor & SINGLE_SEGMENT_BIT != 0 {
        return None;
    }
    let base = 1_u64 << (10 + (window >> 3));
    Some(base + base / 8 * u64::from(window & 7))
}

/// The library's error as `io::Error` carries its name only.
fn is_too_small(error: &io::Error) -> bool {
    error.to_string().contains("buffer is too small")
}

/// Appends the compressed form of `records`. The settings' own ranges keep levels legal; memory does not refuse bytes.
pub(crate) fn compress(compression: Compression, records: &[u8], out: &mut BytesMut) {
    match compression {
        Compression::None => out.put_slice(records),
        Compression::Gzip(level) => {
            let level = u32::try_from(level)
                .map_or_else(|_| flate2::Compression::default(), |level| flate2::Compression::new(level.min(9)));
            let mut encoder = flate2::write::GzEncoder::new(out.writer(), level);
            encoder.write_all(records).expect(MEMORY_TAKES_BYTES);
            encoder.finish().expect(MEMORY_TAKES_BYTES);
        }
        Compression::Snappy => compress_snappy(records, out),
        Compression::Lz4 => {
            // Independent blocks are all that Kafka's reader knows.
            let info = lz4_flex::frame::FrameInfo::new()
                .block_size(lz4_flex::frame::BlockSize::Max64KB)
                .block_mode(lz4_flex::frame::BlockMode::Independent);
            let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, out.writer());
            encoder.write_all(records).expect(MEMORY_TAKES_BYTES);
            encoder.finish().expect(MEMORY_TAKES_BYTES);
        }
        Compression::Zstd(level) => {
            let compressed =
                zstd::bulk::compress(records, level).expect("zstd clamps its level and has a bounded output");
            out.put_slice(&compressed);
        }
    }
}

const MEMORY_TAKES_BYTES: &str = "writing to memory does not fail";

fn compress_snappy(records: &[u8], out: &mut BytesMut) {
    out.put_slice(XERIAL_MAGIC);
    out.put_i32(1);
    out.put_i32(1);
    let mut encoder = snap::raw::Encoder::new();
    let mut block = vec![0; snap::raw::max_compress_len(XERIAL_BLOCK_BYTES)];
    for chunk in records.chunks(XERIAL_BLOCK_BYTES) {
        let length = encoder.compress(chunk, &mut block).expect("the block has snappy's own upper bound of room");
        out.put_i32(length as i32);
        out.put_slice(&block[..length]);
    }
}
