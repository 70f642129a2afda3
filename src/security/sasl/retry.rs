//! Trying again what may go well later.
//!
//! Source: Kafka 3.9 `Retry` (of `oauthbearer.internals.secured`).

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use tokio::time::sleep;
use tracing::warn;

use crate::config::oauth::RetryMs;

/// The first success of `attempt`, or its last failure: when all pauses together have taken as long as is set, or when
/// `may_pass` says that nothing would change. Pauses double. What the attempts take does not count, unlike in Kafka: a
/// server that is slow to fail would never be asked again.
///
/// # Errors
/// Those of `attempt`.
pub(super) async fn retried<T, E, F: Future<Output = Result<T, E>> + Send>(
    pauses: RetryMs,
    may_pass: impl Fn(&E) -> bool + Send,
    mut attempt: impl FnMut() -> F + Send,
) -> Result<T, E>
where
    T: Send,
    E: Display + Send,
{
    let duration = |ms: i64| Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    let (mut pause, mut left) = (duration(pauses.first), duration(pauses.all));
    loop {
        let failure = match attempt().await {
            Ok(done) => return Ok(done),
            Err(failure) => failure,
        };
        let next = pause.min(left);
        if next.is_zero() || !may_pass(&failure) {
            return Err(failure);
        }
        warn!(error = %failure, again_in_ms = next.as_millis(), "it is tried again");
        sleep(next).await;
        left -= next;
        pause = pause.saturating_mul(2);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    async fn attempts(pauses: RetryMs, succeeds_at: u32, may_pass: bool) -> (Result<u32, u32>, u128) {
        let (began, mut count) = (Instant::now(), 0);
        let done = retried(
            pauses,
            |_| may_pass,
            || {
                count += 1;
                std::future::ready(if count >= succeeds_at { Ok(count) } else { Err(count) })
            },
        );
        (done.await, began.elapsed().as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_double_until_all_of_them_have_taken_as_long_as_is_set() {
        let pauses = RetryMs { first: 100, all: 1000 };
        assert_eq!(attempts(pauses, 1, true).await, (Ok(1), 0));
        assert_eq!(attempts(pauses, 3, true).await, (Ok(3), 300));
        // 100, 200, 400, and what is left.
        assert_eq!(attempts(pauses, 9, true).await, (Err(5), 1000));
        assert_eq!(attempts(pauses, 9, false).await, (Err(1), 0));
        assert_eq!(attempts(RetryMs { first: 100, all: 0 }, 2, true).await, (Err(1), 0));
        assert_eq!(attempts(RetryMs { first: -1, all: 1000 }, 2, true).await, (Err(1), 0));
    }
}
