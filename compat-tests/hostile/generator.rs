//! Good bodies without a schema: a decoder is run on a buffer that invents every value it is asked for, and remembers
//! it. If the decoder is content, what was invented is a body that it accepts.

use bytes::{Buf, Bytes, TryGetError};
use kafka_protocol::protocol::buf::{ByteBuf, NotEnoughBytesError};

/// SplitMix64: the same numbers in every run of the same seed.
#[derive(Debug, Clone)]
pub(crate) struct Random(pub u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// More than this and a body is given up: some count was too bold.
const BODY_BYTES_MAX: usize = 600;

#[derive(Debug)]
pub(crate) struct Invented {
    random: Random,
    bytes: Vec<u8>,
    /// Of a hundred varints, how many are 0: null, or no tagged field.
    zeros: usize,
    /// Of a hundred i32, how many are larger than any count can be.
    large: usize,
}

/// Up to `bodies_max` different bodies that `decode` accepts, the longest of many tries.
pub(crate) fn bodies(
    random: &mut Random,
    bodies_max: usize,
    decode: impl Fn(&mut Invented) -> Result<(), String>,
) -> Vec<Vec<u8>> {
    let mut found: Vec<Vec<u8>> = Vec::new();
    for _ in 0..400 {
        let (zeros, large) = (10 + random.below(85), random.below(20));
        let mut invented = Invented { random: Random(random.next()), bytes: Vec::new(), zeros, large };
        if decode(&mut invented).is_ok() && !found.contains(&invented.bytes) {
            found.push(invented.bytes);
        }
    }
    found.sort_by_key(|body| std::cmp::Reverse(body.len()));
    // The longest, and the shortest as a plain one.
    let shortest = found.last().cloned();
    found.truncate(bodies_max.saturating_sub(1).max(1));
    found.extend(shortest.filter(|shortest| !found.contains(shortest)));
    found
}

impl Invented {
    fn put(&mut self, bytes: &[u8]) -> Result<(), TryGetError> {
        if self.bytes.len() + bytes.len() > BODY_BYTES_MAX {
            return Err(TryGetError { requested: bytes.len(), available: 0 });
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

impl Buf for Invented {
    fn remaining(&self) -> usize {
        usize::MAX / 4
    }

    fn chunk(&self) -> &[u8] {
        &[]
    }

    fn advance(&mut self, _: usize) {
        unreachable!("every read is answered below");
    }

    fn try_get_u8(&mut self) -> Result<u8, TryGetError> {
        let value = if self.random.below(100) < self.zeros { 0 } else { 1 + self.random.below(4) as u8 };
        self.put(&[value])?;
        Ok(value)
    }

    fn try_get_i8(&mut self) -> Result<i8, TryGetError> {
        let value = self.random.below(7) as i8 - 1;
        self.put(&value.to_be_bytes())?;
        Ok(value)
    }

    fn try_get_i16(&mut self) -> Result<i16, TryGetError> {
        let value = self.random.below(7) as i16 - 1;
        self.put(&value.to_be_bytes())?;
        Ok(value)
    }

    fn try_get_u16(&mut self) -> Result<u16, TryGetError> {
        let value = self.random.next() as u16;
        self.put(&value.to_be_bytes())?;
        Ok(value)
    }

    fn try_get_i32(&mut self) -> Result<i32, TryGetError> {
        let large = self.random.below(100) < self.large;
        // Bounded, since no guard stands before this run.
        let value = if large { self.random.below(200_000) } else { self.random.below(3) } as i32;
        self.put(&value.to_be_bytes())?;
        Ok(value)
    }

    fn try_get_u32(&mut self) -> Result<u32, TryGetError> {
        let value = self.random.next() as u32;
        self.put(&value.to_be_bytes())?;
        Ok(value)
    }

    fn try_get_i64(&mut self) -> Result<i64, TryGetError> {
        let value = self.random.next() as i64;
        self.put(&value.to_be_bytes())?;
        Ok(value)
    }

    fn try_get_f64(&mut self) -> Result<f64, TryGetError> {
        let value = self.random.below(1000) as f64;
        self.put(&value.to_be_bytes())?;
        Ok(value)
    }

    fn try_copy_to_slice(&mut self, out: &mut [u8]) -> Result<(), TryGetError> {
        out.fill_with(|| self.random.next() as u8);
        self.put(out)
    }
}

impl ByteBuf for Invented {
    fn peek_bytes(&mut self, _: std::ops::Range<usize>) -> Bytes {
        unreachable!("only record decoding looks ahead");
    }

    fn get_bytes(&mut self, size: usize) -> Bytes {
        self.try_get_bytes(size).unwrap_or_default()
    }

    fn try_get_bytes(&mut self, size: usize) -> Result<Bytes, NotEnoughBytesError> {
        let text: Vec<u8> = (0..size.min(BODY_BYTES_MAX + 1)).map(|_| b'a' + self.random.below(26) as u8).collect();
        self.put(&text).map_err(|_| NotEnoughBytesError)?;
        Ok(Bytes::from(text))
    }
}
