//! Which boot of the machine a log directory was last written under.
//!
//! While the boot is the same the kernel has kept every byte that a killed process had written. After another one a log
//! may lack its end, and one that simply ends earlier cannot be told from a whole one. So each directory remembers the
//! boot in a file, `boot.klamm`, whose first line it is. It is written once the partitions led here have had time to
//! get new leader epochs: until then every start says again that ends may be lost.
//!
//! A log that has no new epoch by then, or cannot be opened, does not keep the others waiting: the lines that follow
//! name it, as one whose end is to be doubted once more (`end`), or of which what a loss of power left was not cut off
//! (`uncut`), each with the topic id and the partition. They go as soon as they have become needless: a start under
//! which a log is in doubt is slow, since it waits for the end of the sessions before. To an earlier version, which
//! expects one line, that is another boot.
//!
//! A directory that stops for a write or a sync that the disk refused loses its note, as the page cache shows things
//! then that are not on the disk. One whose write-ahead log has a hole counts as one of another boot, too.
//!
//! Not noticed: the disk of a virtual machine that is set back while the machine runs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::replica::manager::ReplicaManager;
use crate::storage::InDoubt;
use crate::storage::rocksdb::BootRecord;
use crate::task;
use crate::types::{PartitionIndex, TopicId};

const FILE: &str = "boot.klamm";
/// Linux draws it at each boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The present boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Boot(Option<String>);

impl Boot {
    /// The machine's, or the one that is given in its place (`klamm.boot.id`, for tests). Where the machine does not
    /// say, every start counts as another boot.
    pub(super) fn of(given: Option<&str>) -> Self {
        let machines = || fs::read_to_string(BOOT_ID).ok();
        let id = given.map(str::to_owned).or_else(machines);
        Self(id.map(|id| id.trim().to_owned()).filter(|id| !id.is_empty()))
    }

    /// What is in doubt of the directory, if it was written to under this boot, and no other since. `None`: all of it;
    /// so says what cannot be read.
    pub(super) fn has_written(&self, dir: &Path) -> Option<InDoubt> {
        let stored = fs::read_to_string(dir.join(FILE)).ok()?;
        let mut lines = stored.trim().lines();
        let is_same = lines.next().map(str::trim) == Some(self.0.as_deref()?);
        is_same.then(|| in_doubt(lines)).flatten()
    }

    /// From now on the directory is written to under this boot. Not synced: a power loss that takes the file is one
    /// that has to be noticed anyway.
    pub(super) fn remember(&self, dir: &Path, in_doubt: &InDoubt) -> io::Result<()> {
        let Some(id) = &self.0 else { return Ok(()) };
        if self.has_written(dir).as_ref() == Some(in_doubt) {
            return Ok(());
        }
        let mut text = format!("{id}\n");
        for (what, named) in [(END, &in_doubt.ends), (UNCUT, &in_doubt.uncut)] {
            text.extend(named.iter().map(|(topic_id, partition)| format!("{what} {topic_id} {}\n", partition.0)));
        }
        let new = dir.join(format!("{FILE}.new"));
        fs::write(&new, text)?;
        fs::rename(&new, dir.join(FILE))
    }
}

/// The first look at what is still in doubt; each later one comes after twice the time.
const FIRST_LOOK: Duration = Duration::from_secs(1);
const LOOKS_APART_MAX: Duration = Duration::from_secs(60);

/// The note of one log directory.
#[derive(Debug)]
pub(super) struct BootNote {
    boot: Boot,
    dir: PathBuf,
    state: Arc<Mutex<NoteState>>,
    /// It has begun to become void. Held until whoever began it has waited.
    is_voiding: Mutex<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NoteState {
    /// What the file says.
    Stands,
    /// Nothing, whatever the file says, until it is written.
    Forgotten,
    /// The disk has refused a write, and nothing is noted of the directory any more.
    Void,
}

/// How long whoever tells of a failed directory waits for its note to be gone.
const VOID_WAIT: Duration = Duration::from_secs(1);

impl BootNote {
    pub(super) fn new(boot: Boot, dir: &Path) -> Self {
        Self { boot, dir: dir.to_owned(), state: Arc::new(Mutex::new(NoteState::Stands)), is_voiding: Mutex::default() }
    }

    fn write(&self, in_doubt: &InDoubt) -> io::Result<()> {
        let mut state = self.state.lock();
        if *state != NoteState::Void {
            self.boot.remember(&self.dir, in_doubt)?;
            *state = NoteState::Stands;
        }
        Ok(())
    }
}

impl BootRecord for BootNote {
    fn read(&self) -> Option<InDoubt> {
        let state = self.state.lock();
        if *state == NoteState::Stands { self.boot.has_written(&self.dir) } else { None }
    }

    fn forget(&self) -> bool {
        let mut state = self.state.lock();
        if *state == NoteState::Stands {
            *state = NoteState::Forgotten;
        }
        remove(&self.dir)
    }

    /// The next start is to take the directory for one of another boot: what a sync could not bring to the disk the
    /// kernel still shows, as if it had.
    fn void(&self) {
        // Who meets the next failure waits as well: the first one to go on may end the process.
        let mut is_voiding = self.is_voiding.lock();
        if std::mem::replace(&mut *is_voiding, true) {
            return;
        }
        let (state, dir) = (Arc::clone(&self.state), self.dir.clone());
        let on_a_thread = task::within("boot-note", VOID_WAIT, move || make_void(&state, &dir));
        if on_a_thread.is_err() {
            // There is none to be had. The disk may hang, and still a note that lies is worse.
            make_void(&self.state, &self.dir);
        }
    }
}

fn make_void(state: &Mutex<NoteState>, dir: &Path) {
    *state.lock() = NoteState::Void;
    remove(dir);
}

/// Answers whether there is no note any more.
fn remove(dir: &Path) -> bool {
    match fs::remove_file(dir.join(FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            warn!(
                dir = %dir.display(), %error,
                "the note of the boot is not removed; the next start may take what was not written for written"
            );
            false
        }
        _ => true,
    }
}

/// The notes of all log directories.
#[derive(Debug)]
pub(super) struct BootNotes {
    pub(super) notes: Vec<Arc<BootNote>>,
    /// Notes that could not be written were spoken of.
    pub(super) said: bool,
}

impl BootNotes {
    /// Nobody has to be told any more that logs may lack their ends, save for some. Blocking. A directory that cannot
    /// note it says so again at the next start, which costs a leader epoch, and takes what it finds damaged for the end
    /// of a log that was lost. Answers whether there is nothing left to note.
    ///
    /// `in_doubt`, for each directory: of what the next start has to say once more that the end may be lost.
    fn write(&mut self, in_doubt: &[InDoubt]) -> bool {
        let mut failed = None;
        for (note, in_doubt) in self.notes.iter().zip(in_doubt) {
            if let Err(error) = note.write(in_doubt) {
                failed = Some((&note.dir, error));
            }
        }
        match failed {
            Some((dir, error)) if !std::mem::replace(&mut self.said, true) => {
                warn!(dir = %dir.display(), %error, "the boot is not noted yet; the next start gives new leader epochs");
            }
            None if std::mem::take(&mut self.said) => info!("the boot is noted"),
            Some(_) | None => {}
        }
        !self.said && in_doubt.iter().all(|of_dir| *of_dir == InDoubt::default())
    }

    /// Notes the boot now, and in the background again whenever less is in doubt, until nothing is.
    pub(super) async fn keep(self, replicas: &Arc<ReplicaManager>, stopping: watch::Receiver<bool>) {
        let (mut notes, mut all) = self.look(Arc::clone(replicas), stopping.clone()).await;
        let (replicas, mut stops) = (Arc::downgrade(replicas), stopping.clone());
        task::spawn(async move {
            let mut pause = FIRST_LOOK;
            while !all {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    // A stop waits until nobody listens for it any more.
                    _ = stops.wait_for(|stopping| *stopping) => return,
                }
                pause = (pause * 2).min(LOOKS_APART_MAX);
                let Some(replicas) = replicas.upgrade() else { return };
                (notes, all) = notes.look(replicas, stopping.clone()).await;
            }
        });
    }

    async fn look(mut self, replicas: Arc<ReplicaManager>, stopping: watch::Receiver<bool>) -> (Self, bool) {
        task::blocking(move || {
            let in_doubt = replicas.logs_in_doubt();
            // Of a directory that is closed nothing is known.
            let all = *stopping.borrow() || self.write(&in_doubt);
            (self, all)
        })
        .await
    }
}

const END: &str = "end";
const UNCUT: &str = "uncut";

/// `None`: they are not what was written.
fn in_doubt<'l>(lines: impl Iterator<Item = &'l str>) -> Option<InDoubt> {
    let mut in_doubt = InDoubt::default();
    for line in lines {
        let mut words = line.split(' ');
        let named = match words.next()? {
            END => &mut in_doubt.ends,
            UNCUT => &mut in_doubt.uncut,
            _ => return None,
        };
        named.insert((TopicId::parse(words.next()?)?, PartitionIndex(words.next()?.parse().ok()?)));
    }
    Some(in_doubt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_knows_the_boot_it_was_written_under() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other, nothing) = (Boot::of(Some("one")), Boot::of(Some(" other\n")), InDoubt::default());
        assert_eq!(one.has_written(dir.path()), None, "nobody has");
        one.remember(dir.path(), &nothing).unwrap();
        assert_eq!((one.has_written(dir.path()), other.has_written(dir.path())), (Some(nothing.clone()), None));
        other.remember(dir.path(), &nothing).unwrap();
        assert_eq!((one.has_written(dir.path()), other.has_written(dir.path())), (None, Some(nothing.clone())));
        assert_eq!(fs::read_to_string(dir.path().join(FILE)).unwrap(), "other\n");
        fs::write(dir.path().join(FILE), "").unwrap();
        let unknown = Boot::of(Some(""));
        unknown.remember(dir.path(), &nothing).unwrap();
        assert_eq!(unknown.has_written(dir.path()), None, "a machine that does not say has written nothing");
    }

    #[test]
    fn what_is_in_doubt_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let (boot, file) = (Boot::of(Some("one")), dir.path().join(FILE));
        let of = |number| (TopicId(uuid::Uuid::from_u128(number)), PartitionIndex(number as i32));
        let some = InDoubt { ends: [of(1), of(2)].into(), uncut: [of(2)].into() };
        boot.remember(dir.path(), &some).unwrap();
        assert_eq!(boot.has_written(dir.path()), Some(some));
        boot.remember(dir.path(), &InDoubt::default()).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "one\n", "nothing is any more");
        for bad in ["one\nend", "one\nend x 1", "one\nmaybe AAAAAAAAAAAAAAAAAAAABw 3"] {
            fs::write(&file, bad).unwrap();
            assert_eq!(boot.has_written(dir.path()), None, "{bad}");
        }
    }

    #[test]
    fn a_note_that_cannot_be_written_is_owed() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("data");
        let boot = Boot::of(Some("one"));
        let mut notes = BootNotes { notes: vec![Arc::new(BootNote::new(boot.clone(), &dir))], said: false };
        let nothing = [InDoubt::default()];
        assert!(!notes.write(&nothing) && !notes.write(&nothing), "there is no such directory");
        fs::create_dir(&dir).unwrap();
        let ends = [(TopicId(uuid::Uuid::from_u128(1)), PartitionIndex(1))].into();
        let some = [InDoubt { ends, ..InDoubt::default() }];
        assert!(!notes.write(&some), "one is in doubt");
        assert_eq!(boot.has_written(&dir).as_ref(), Some(&some[0]));
        assert!(notes.write(&nothing));
        assert_eq!(boot.has_written(&dir), Some(InDoubt::default()));
        notes.notes[0].forget();
        assert_eq!((boot.has_written(&dir), notes.notes[0].read()), (None, None), "until it is written");
        assert!(notes.write(&nothing));
        assert_eq!(
            (boot.has_written(&dir), notes.notes[0].read()),
            (Some(nothing[0].clone()), Some(nothing[0].clone()))
        );
        for _ in 0..2 {
            notes.notes[0].void();
            assert_eq!(boot.has_written(&dir), None, "it has failed");
            assert!(notes.write(&nothing));
        }
    }

    /// The second failure of a directory ended the process while the first still waited for the note to be gone.
    #[test]
    fn whoever_voids_a_note_waits_until_it_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let boot = Boot::of(Some("one"));
        boot.remember(dir.path(), &InDoubt::default()).unwrap();
        let note = BootNote::new(boot.clone(), dir.path());
        let slow = note.state.lock();
        let begun = std::time::Instant::now();
        std::thread::scope(|scope| {
            let voiding = [(); 2].map(|()| {
                scope.spawn(|| {
                    note.void();
                    boot.has_written(dir.path())
                })
            });
            std::thread::sleep(VOID_WAIT / 10);
            let waiting = voiding.iter().all(|voiding| !voiding.is_finished());
            drop(slow);
            let found = voiding.map(|voiding| voiding.join().unwrap());
            // Neither waits without an end, so a machine that stood still for that long shows nothing.
            assert!((waiting && found == [None, None]) || begun.elapsed() >= VOID_WAIT, "{waiting} {found:?}");
        });
    }
}
