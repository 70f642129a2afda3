//! A bucket of tokens: what may be taken at once, and is filled up again as time goes.
//!
//! Source: Kafka 3.9 `TokenBucket`, KIP-599: it holds as much as all windows allow together, is full at first, and may
//! be taken from once it holds anything at all, so it can owe.

use crate::metrics::rate::Windows;

#[derive(Debug)]
pub(crate) struct Bucket {
    tokens: f64,
    filled_ms: i64,
}

impl Bucket {
    /// A full one.
    pub(crate) fn new(windows: Windows, limit: f64, now_ms: i64) -> Self {
        Self { tokens: holds(windows, limit), filled_ms: now_ms }
    }

    /// What it holds; below 0: what it owes.
    pub(crate) fn tokens(&mut self, windows: Windows, limit: f64, now_ms: i64) -> f64 {
        let elapsed_ms = (now_ms - self.filled_ms).max(0) as f64;
        self.tokens = (self.tokens + limit * elapsed_ms / 1000.0).min(holds(windows, limit));
        self.filled_ms = now_ms;
        self.tokens
    }

    /// Takes, whether there is as much or not.
    pub(crate) fn take(&mut self, tokens: f64) {
        self.tokens -= tokens;
    }

    /// Milliseconds until it owes nothing, if nothing more is taken.
    pub(crate) fn wait_ms(&self, limit: f64) -> f64 {
        if self.tokens < 0.0 { -self.tokens / limit * 1000.0 } else { 0.0 }
    }
}

/// As many tokens as all windows allow.
fn holds(windows: Windows, limit: f64) -> f64 {
    windows.samples as f64 * windows.window_ms as f64 / 1000.0 * limit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_filled_up_and_never_beyond_what_it_holds() {
        let windows = Windows { samples: 11, window_ms: 1000 };
        let mut bucket = Bucket::new(windows, 2.0, 0);
        assert_eq!(bucket.tokens(windows, 2.0, 100_000), 22.0);
        bucket.take(30.0);
        assert_eq!(bucket.wait_ms(2.0), 4_000.0);
        assert_eq!(bucket.tokens(windows, 2.0, 103_000), -2.0);
        assert_eq!((bucket.tokens(windows, 2.0, 104_000), bucket.wait_ms(2.0)), (0.0, 0.0));
        assert_eq!(bucket.tokens(windows, 1.0, 200_000), 11.0, "of a lower limit");
    }
}
