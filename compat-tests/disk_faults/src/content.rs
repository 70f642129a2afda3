//! A file's content twice: as programs see it, and as a loss of power would leave it.
//!
//! The backing file holds what programs see. Beside it are kept the pages of the durable content that were written over
//! since the last sync, and what was done since then, in order, so that a loss of power can keep any part of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use crate::random::Random;

pub const PAGE_BYTES: u64 = 4096;
/// A disk writes a sector whole or not at all.
pub const SECTOR_BYTES: usize = 512;

/// Something that changes a file. Positions and lengths are in bytes.
#[derive(Debug, Clone)]
pub enum Change {
    Write {
        offset: u64,
        data: Vec<u8>,
    },
    /// Zeros where the file has bytes; its length stays.
    Zero {
        offset: u64,
        length: u64,
    },
    Length(u64),
}

impl Change {
    fn range(&self, length: u64) -> (u64, u64) {
        match self {
            Self::Write { offset, data } => (*offset, offset + data.len() as u64),
            Self::Zero { offset, length } => (*offset, offset.saturating_add(*length)),
            Self::Length(new) => (*new.min(&length), u64::MAX),
        }
    }

    fn held_bytes(&self) -> u64 {
        if let Self::Write { data, .. } = self { data.len() as u64 } else { 0 }
    }
}

/// How much of what was not synced a loss of power leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    Nothing,
    /// What was done before the operation of this number; of that one, its first sectors.
    Before(u64),
    /// Each page of each write with a chance of so many in 256; some of those torn within.
    Some(u8),
}

#[derive(Debug)]
pub struct Content {
    backing: File,
    length: u64,
    durable_length: u64,
    /// Pages below `durable_length` as they are durable, where the backing file may differ.
    durable_pages: BTreeMap<u64, Box<[u8]>>,
    /// With the numbers of their operations.
    unsynced: Vec<(u64, Change)>,
    /// A sync failed: what was dirty then is never written again, and later syncs do not tell (Linux marks the pages
    /// clean).
    written_off: bool,
}

impl Content {
    pub fn new(backing: File) -> Self {
        Self {
            backing,
            length: 0,
            durable_length: 0,
            durable_pages: BTreeMap::new(),
            unsynced: Vec::new(),
            written_off: false,
        }
    }

    pub fn length(&self) -> u64 {
        self.length
    }

    pub fn durable_length(&self) -> u64 {
        self.durable_length
    }

    pub fn unsynced_bytes(&self) -> u64 {
        self.unsynced.iter().map(|(_, change)| change.held_bytes()).sum()
    }

    pub fn unsynced_numbers(&self) -> impl Iterator<Item = u64> + '_ {
        self.unsynced.iter().map(|(number, _)| *number)
    }

    pub fn is_unsynced(&self) -> bool {
        !self.unsynced.is_empty() || self.length != self.durable_length
    }

    /// Fewer bytes at the end of the file.
    pub fn read(&self, offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let wanted = self.length.saturating_sub(offset).min(bytes as u64) as usize;
        let mut buffer = vec![0; wanted];
        self.backing.read_exact_at(&mut buffer, offset)?;
        Ok(buffer)
    }

    pub fn change(&mut self, number: u64, change: Change) -> io::Result<()> {
        let (from, to) = change.range(self.length);
        self.save(from, to)?;
        self.apply(&change)?;
        self.unsynced.push((number, change));
        Ok(())
    }

    /// Keeps the durable bytes of a range before they are written over.
    fn save(&mut self, from: u64, to: u64) -> io::Result<()> {
        let to = to.min(self.durable_length);
        if from >= to {
            return Ok(());
        }
        for page in from / PAGE_BYTES..to.div_ceil(PAGE_BYTES) {
            if !self.durable_pages.contains_key(&page) {
                let bytes = self.read(page * PAGE_BYTES, PAGE_BYTES as usize)?;
                self.durable_pages.insert(page, bytes.into());
            }
        }
        Ok(())
    }

    fn apply(&mut self, change: &Change) -> io::Result<()> {
        match change {
            Change::Write { offset, data } => {
                self.backing.write_all_at(data, *offset)?;
                self.length = self.length.max(offset + data.len() as u64);
            }
            Change::Zero { offset, length } => {
                let end = offset.saturating_add(*length).min(self.length);
                let zeros = vec![0; 64 << 10];
                let mut at = *offset;
                while at < end {
                    let some = (end - at).min(zeros.len() as u64);
                    self.backing.write_all_at(&zeros[..some as usize], at)?;
                    at += some;
                }
            }
            Change::Length(length) => {
                self.backing.set_len(*length)?;
                self.length = *length;
            }
        }
        Ok(())
    }

    /// What is seen becomes durable.
    pub fn sync(&mut self) {
        if self.written_off {
            return;
        }
        self.durable_pages.clear();
        self.unsynced.clear();
        self.durable_length = self.length;
    }

    /// What was not synced will never be, whatever later syncs say.
    pub fn write_off(&mut self) {
        self.written_off = true;
    }

    /// What is durable, and the part of the rest that is kept, becomes what is seen.
    pub fn lose_power(&mut self, keep: Keep, random: &mut Random) -> io::Result<()> {
        self.backing.set_len(self.durable_length)?;
        for (page, bytes) in std::mem::take(&mut self.durable_pages) {
            let offset = page * PAGE_BYTES;
            let below = self.durable_length.saturating_sub(offset).min(bytes.len() as u64) as usize;
            self.backing.write_all_at(&bytes[..below], offset)?;
        }
        self.length = self.durable_length;
        let written_off = std::mem::take(&mut self.written_off);
        for (number, change) in std::mem::take(&mut self.unsynced) {
            match keep {
                _ if written_off => {}
                Keep::Nothing => {}
                Keep::Before(end) if number < end => self.apply(&change)?,
                Keep::Before(end) if number == end => self.apply_first_sectors(change, random)?,
                Keep::Before(_) => {}
                Keep::Some(chance) => self.apply_some(change, chance, random)?,
            }
        }
        self.durable_length = self.length;
        Ok(())
    }

    /// A write that ended within; other changes do not happen.
    fn apply_first_sectors(&mut self, change: Change, random: &mut Random) -> io::Result<()> {
        let Change::Write { offset, mut data } = change else { return Ok(()) };
        let sectors = data.len().div_ceil(SECTOR_BYTES) as u64;
        data.truncate(random.below(sectors + 1) as usize * SECTOR_BYTES);
        if data.is_empty() { Ok(()) } else { self.apply(&Change::Write { offset, data }) }
    }

    /// Pages reach a disk in any order, and the last ones before the power goes perhaps in part. The length may be the
    /// new one although the bytes are not there, which then are zero.
    fn apply_some(&mut self, change: Change, chance: u8, random: &mut Random) -> io::Result<()> {
        let Change::Write { offset, data } = change else {
            return if random.happens(chance) { self.apply(&change) } else { Ok(()) };
        };
        let (mut at, end) = (offset, offset + data.len() as u64);
        while at < end {
            let next = (at - at % PAGE_BYTES + PAGE_BYTES).min(end);
            if random.happens(chance) {
                let piece = &data[(at - offset) as usize..(next - offset) as usize];
                if random.happens(32) {
                    for (index, sector) in piece.chunks(SECTOR_BYTES).enumerate() {
                        if random.happens(128) {
                            let offset = at + (index * SECTOR_BYTES) as u64;
                            self.apply(&Change::Write { offset, data: sector.to_vec() })?;
                        }
                    }
                } else {
                    self.apply(&Change::Write { offset: at, data: piece.to_vec() })?;
                }
            }
            at = next;
        }
        if end > self.length && random.happens(chance) {
            self.apply(&Change::Length(end))?;
        }
        Ok(())
    }

    /// Changes bytes on the medium: those that are seen and those that are durable alike.
    pub fn damage(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.backing.write_all_at(bytes, offset)?;
        for (at, byte) in (offset..).zip(bytes) {
            if let Some(page) = self.durable_pages.get_mut(&(at / PAGE_BYTES))
                && let Some(durable) = page.get_mut((at % PAGE_BYTES) as usize)
            {
                *durable = *byte;
            }
        }
        Ok(())
    }
}

/// Which pages of a file have a place on the disk: ranges, apart from each other, by where they begin.
#[derive(Debug, Default)]
pub struct Allocation {
    ranges: BTreeMap<u64, u64>,
    pages: u64,
}

impl Allocation {
    pub fn bytes(&self) -> u64 {
        self.pages * PAGE_BYTES
    }

    /// Bytes that a write to this range needs besides.
    pub fn missing_bytes(&self, offset: u64, length: u64) -> u64 {
        let (from, to) = (offset / PAGE_BYTES, (offset + length).div_ceil(PAGE_BYTES));
        (to - from - self.within(from, to).map(|(from, to)| to - from).sum::<u64>()) * PAGE_BYTES
    }

    fn within(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let first = self.ranges.range(..=from).next_back().map_or(from, |(begin, _)| *begin);
        let some = self.ranges.range(first..to).map(move |(begin, end)| (from.max(*begin), to.min(*end)));
        some.filter(|(begin, end)| begin < end)
    }

    pub fn add(&mut self, offset: u64, length: u64) {
        let (mut from, mut to) = (offset / PAGE_BYTES, (offset + length).div_ceil(PAGE_BYTES));
        if from == to {
            return;
        }
        self.pages += self.missing_bytes(offset, length) / PAGE_BYTES;
        let first = self.ranges.range(..=from).next_back().filter(|(_, end)| **end >= from).map(|(begin, _)| *begin);
        let touching: Vec<u64> = self.ranges.range(first.unwrap_or(from)..=to).map(|(begin, _)| *begin).collect();
        for begin in touching {
            let end = self.ranges.remove(&begin).unwrap_or(begin);
            (from, to) = (from.min(begin), to.max(end));
        }
        self.ranges.insert(from, to);
    }

    /// Gives back whole pages of a range.
    pub fn remove(&mut self, offset: u64, length: u64) {
        let (from, to) = (offset.div_ceil(PAGE_BYTES), offset.saturating_add(length) / PAGE_BYTES);
        let gone: Vec<(u64, u64)> = if from < to { self.within(from, to).collect() } else { Vec::new() };
        for (begin, end) in gone {
            let (&at, &until) = self.ranges.range(..=begin).next_back().expect("it lies within");
            self.ranges.remove(&at);
            self.pages -= end - begin;
            for (from, to) in [(at, begin), (end, until)] {
                if from < to {
                    self.ranges.insert(from, to);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against a set of pages.
    #[test]
    fn allocation_counts_each_page_once() {
        let mut random = Random::new(7);
        let (mut allocation, mut model) = (Allocation::default(), std::collections::BTreeSet::new());
        for _ in 0..20_000 {
            let (offset, length) = (random.below(300_000), random.below(60_000));
            let (from, to) = (offset / PAGE_BYTES, (offset + length).div_ceil(PAGE_BYTES));
            let missing = (from..to).filter(|page| !model.contains(page)).count() as u64 * PAGE_BYTES;
            assert_eq!(allocation.missing_bytes(offset, length), missing);
            if random.happens(128) {
                allocation.add(offset, length);
                model.extend(if length > 0 { from..to } else { 0..0 });
            } else {
                allocation.remove(offset, length);
                let (from, to) = (offset.div_ceil(PAGE_BYTES), (offset + length) / PAGE_BYTES);
                model.retain(|page| *page < from || *page >= to);
            }
            assert_eq!(allocation.bytes(), model.len() as u64 * PAGE_BYTES);
        }
    }

    fn content() -> Content {
        let path = std::env::temp_dir().join(format!(
            "fault-fs-test-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        let file = File::options().create(true).truncate(true).read(true).write(true).open(&path).expect("create");
        std::fs::remove_file(path).expect("remove");
        Content::new(file)
    }

    fn change(random: &mut Random, length: u64) -> Change {
        match random.below(8) {
            0 => Change::Length(random.below(length + 10_000)),
            1 => Change::Zero { offset: random.below(length + 1), length: random.below(10_000) },
            _ => {
                let data = (0..random.below(9000) + 1).map(|_| random.below(255) as u8 + 1).collect();
                Change::Write { offset: random.below(length + 5000), data }
            }
        }
    }

    fn do_to(model: &mut Vec<u8>, change: &Change) {
        match change {
            Change::Write { offset, data } => {
                let end = *offset as usize + data.len();
                model.resize(model.len().max(end), 0);
                model[*offset as usize..end].copy_from_slice(data);
            }
            Change::Zero { offset, length } => {
                let end = (offset + length).min(model.len() as u64) as usize;
                if (*offset as usize) < end {
                    model[*offset as usize..end].fill(0);
                }
            }
            Change::Length(length) => model.resize(*length as usize, 0),
        }
    }

    /// Against two vectors: one that is seen and one that is durable.
    #[test]
    fn a_loss_of_power_leaves_what_was_synced_and_a_beginning_of_the_rest() {
        let (mut random, mut content) = (Random::new(11), content());
        let (mut seen, mut durable, mut since) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..4000 {
            let one = change(&mut random, content.length());
            do_to(&mut seen, &one);
            since.push((number, one.clone()));
            content.change(number, one).expect("change");
            assert_eq!(content.length(), seen.len() as u64);
            match random.below(20) {
                0 => {
                    content.sync();
                    (durable, since) = (seen.clone(), Vec::new());
                }
                1 => {
                    let keep = if random.happens(128) { Keep::Nothing } else { Keep::Before(number - 3) };
                    content.lose_power(keep, &mut random).expect("lose");
                    if let Keep::Before(end) = keep {
                        let kept = since.iter().filter(|(number, _)| *number < end);
                        kept.for_each(|(_, change)| do_to(&mut durable, change));
                        // The torn one is checked below.
                        if let Some((_, Change::Write { offset, data })) =
                            since.iter().find(|(number, _)| *number == end)
                        {
                            let now = content.read(0, 1 << 20).expect("read");
                            let torn = (0..=data.len().div_ceil(SECTOR_BYTES)).any(|sectors| {
                                let mut model = durable.clone();
                                let data = data[..data.len().min(sectors * SECTOR_BYTES)].to_vec();
                                if !data.is_empty() {
                                    do_to(&mut model, &Change::Write { offset: *offset, data });
                                }
                                model == now
                            });
                            assert!(torn, "neither whole nor torn at a sector");
                            durable = now;
                        }
                    }
                    (seen, since) = (durable.clone(), Vec::new());
                }
                _ => {}
            }
            assert!(content.read(0, 1 << 20).expect("read") == seen, "operation {number}");
        }
    }

    #[test]
    fn what_a_failed_sync_left_is_lost_whatever_later_ones_say() {
        let (mut random, mut content) = (Random::new(1), content());
        content.change(1, Change::Write { offset: 0, data: b"old".into() }).expect("write");
        content.sync();
        content.change(2, Change::Write { offset: 0, data: b"new".into() }).expect("write");
        content.write_off();
        content.sync();
        assert_eq!(content.read(0, 10).expect("read"), b"new");
        content.lose_power(Keep::Some(255), &mut random).expect("lose");
        assert_eq!(content.read(0, 10).expect("read"), b"old");
    }
}
