//! How many families are being written to.

use crate::storage::Family;

/// Counts the families that are being written to, for the memory budget.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// By family number: the window in which it was last written to.
    last_window: Vec<u32>,
    window: u32,
    window_bytes: usize,
    active: usize,
}

/// A window: long enough that every active partition shows up in it.
const WINDOW_BYTES: usize = 32 << 20;

impl Activity {
    pub(super) fn wrote(&mut self, family: Family, bytes: usize) {
        let index = family.0 as usize;
        if self.last_window.len() <= index {
            self.last_window.resize(index + 1, u32::MAX);
        }
        if self.last_window[index] != self.window {
            self.last_window[index] = self.window;
            self.active += 1;
        }
        self.window_bytes += bytes;
    }

    /// At the end of a window, how many families were active in it.
    pub(super) fn window_ended(&mut self) -> Option<usize> {
        if self.window_bytes < WINDOW_BYTES {
            return None;
        }
        self.window_bytes = 0;
        self.window = (self.window + 1) % u32::MAX;
        Some(std::mem::take(&mut self.active))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_counts_each_family_once() {
        let mut activity = Activity::default();
        for family in [0, 5, 0] {
            activity.wrote(Family(family), 1);
        }
        assert_eq!(activity.window_ended(), None);
        activity.wrote(Family(0), WINDOW_BYTES);
        assert_eq!(activity.window_ended(), Some(2));
        activity.wrote(Family(0), WINDOW_BYTES);
        assert_eq!(activity.window_ended(), Some(1));
    }
}
