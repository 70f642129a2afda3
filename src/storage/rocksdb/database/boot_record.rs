//! What a directory needs of the note that tells under which boot of the machine it was last written to.

use std::fmt::Debug;

use crate::storage::InDoubt;

/// Where it is noted under which boot of the machine a directory was last written to.
pub(crate) trait BootRecord: Debug + Send + Sync {
    /// What is in doubt of the directory, if it was written to under this boot, and no other since. `None`: all of it.
    fn read(&self) -> Option<InDoubt>;

    /// Not all that was written is there: until it is noted anew the directory counts as one of another boot. False:
    /// what is noted cannot be taken away, and the next start would believe it.
    fn forget(&self) -> bool;

    /// The disk has refused a write or a sync: from now on nothing is noted by this process. Blocks for a second at
    /// most, if there is a thread to be had.
    fn void(&self);
}
