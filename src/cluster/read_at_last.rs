//! Reading what a note says has changed, until that works: whoever follows the tree has nothing better to do meanwhile.

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::sleep;
use tracing::{info, warn};

/// Pause after a failed read.
pub(super) const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What `read` finds at last from `from`; `None`: the store was closed. One line says that `what`, a plural, cannot be
/// read, and another that it can be again.
///
/// The pause comes before the line: watches fire before a session shows that it was closed, and an orderly stop is
/// nothing to warn of.
pub(crate) async fn read_at_last<S, T, E: fmt::Display>(
    what: &'static str,
    from: &mut S,
    is_closed: impl Fn(&S) -> bool,
    read: impl for<'a> Fn(&'a mut S) -> BoxFuture<'a, Result<T, E>>,
) -> Option<T> {
    let mut failures = 0_u32;
    loop {
        let error = match read(from).await {
            Ok(found) => {
                if failures > 0 {
                    info!(failures, "{what} are read again");
                }
                return Some(found);
            }
            Err(error) => error,
        };
        sleep(RETRY_PAUSE).await;
        if is_closed(from) {
            return None;
        }
        if failures == 0 {
            warn!(%error, "{what} cannot be read; trying until they can");
        }
        failures = failures.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use futures_util::FutureExt;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_read_until_that_works_or_the_store_is_closed() {
        let began = Instant::now();
        let mut left = 3;
        let found = read_at_last(
            "things",
            &mut left,
            |_| false,
            |left| {
                *left -= 1;
                ready(if *left == 0 { Ok(7) } else { Err("not now") }).boxed()
            },
        );
        assert_eq!(found.await, Some(7));
        assert_eq!(began.elapsed(), 2 * RETRY_PAUSE);
        let mut tries = 0;
        let found = read_at_last(
            "things",
            &mut tries,
            |_| true,
            |tries| {
                *tries += 1;
                ready(Err::<(), _>("gone")).boxed()
            },
        );
        assert_eq!(found.await, None);
        assert_eq!(tries, 1, "nobody asks a store that is closed");
    }
}
