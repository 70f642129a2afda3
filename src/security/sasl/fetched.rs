//! The token that a provider gave this broker, as it was given last; nobody who shows it waits for another.
//!
//! It is asked for once before anything is served, or the start ends. Then a task asks for the next one when most of
//! its life has passed, and every ten seconds where that fails. Source: Kafka 3.9 `HttpAccessTokenRetriever`,
//! `FileTokenRetriever`, `ExpiringCredentialRefreshingLogin`; that a file is read again is our own.
//!
//! The task ends with the [`FollowedToken`].

use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use parking_lot::RwLock;
use tokio::time::sleep;
use tracing::{error, info};

use super::oauth::own::{self, GivenToken};
use super::retry::retried;
use super::web::{ANSWER_BYTES_MAX, Form, PATIENCE, Question, SharedWeb, WebError, trust};
use crate::clock::{SharedClock, UnixMs};
use crate::config::Secret;
use crate::config::oauth::Place;
use crate::config::token_source::{OauthClient, TokenSource};
use crate::security::tls::web::TowardsWeb;
use crate::task;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
#[error("no token to show other brokers can be had from {at}: {why}")]
pub(crate) struct TokenError {
    at: String,
    why: String,
    /// Whether the next attempt may succeed.
    may_pass: bool,
}

/// The token of one source.
#[derive(Debug)]
pub(crate) struct FollowedToken {
    source: TokenSource,
    web: SharedWeb,
    /// What is presented to the provider, and trusted.
    tls: Option<Arc<TowardsWeb>>,
    clock: SharedClock,
    now: RwLock<GivenToken>,
}

impl FollowedToken {
    /// With a token.
    ///
    /// # Errors
    /// None can be had.
    pub(super) async fn follow(
        source: TokenSource,
        web: SharedWeb,
        clock: SharedClock,
    ) -> Result<Arc<Self>, TokenError> {
        let tls = trust(&source.at).await;
        let tls = tls.map_err(|why| TokenError { at: source.at.to_string(), why, may_pass: false })?;
        let token = given(&source, tls.as_ref(), &web).await?;
        let followed = Arc::new(Self { source, web, tls, clock, now: RwLock::new(token) });
        let due_at_ms = followed.told();
        task::spawn_owner("own token", follow(Arc::downgrade(&followed), due_at_ms));
        Ok(followed)
    }

    /// What a client says at first.
    pub(super) fn first(&self) -> Vec<u8> {
        own::first(self.now.read().text.reveal(), &self.source.extensions)
    }

    /// Asks for another one; the moment at which the next is due.
    async fn refresh(&self) -> UnixMs {
        match given(&self.source, self.tls.as_ref(), &self.web).await {
            Ok(token) => {
                *self.now.write() = token;
                self.told()
            }
            Err(error) => {
                let again_in_s = PAUSE_MS / 1000;
                error!(%error, again_in_s, "the token that is shown to other brokers stays as it was");
                self.clock.now_ms().saturating_add(PAUSE_MS)
            }
        }
    }

    /// Says in a line what was given, and answers when the next one is due.
    fn told(&self) -> UnixMs {
        let token = self.now.read().clone();
        // Between 0 and 1.
        let chance = (self.clock.random() >> 75) as f64 / (1u64 << 53) as f64;
        let now_ms = self.clock.now_ms();
        let due_at_ms = due(&self.source, &token, now_ms, chance);
        let (seconds, next_in_s) = ((token.expires_at_ms - now_ms) / 1000, (due_at_ms - now_ms) / 1000);
        info!(principal = ?token.principal, at = %self.source.at, seconds, next_in_s, "a token to show other brokers");
        due_at_ms
    }
}

/// After a failure, or where a token has expired already.
const PAUSE_MS: i64 = 10_000;
/// A machine may sleep, and its clock be set: the wall clock is looked at so often.
const LOOKS_APART: Duration = Duration::from_secs(30);

/// See [`FollowedToken`].
async fn follow(followed: Weak<FollowedToken>, mut due_at_ms: UnixMs) {
    loop {
        let Some(clock) = followed.upgrade().map(|followed| Arc::clone(&followed.clock)) else { return };
        let left_ms = u64::try_from(due_at_ms.saturating_sub(clock.now_ms())).unwrap_or(0);
        if left_ms > 0 {
            sleep(Duration::from_millis(left_ms).min(LOOKS_APART)).await;
            continue;
        }
        let Some(followed) = followed.upgrade() else { return };
        due_at_ms = followed.refresh().await;
    }
}

/// When the next token is to be asked for; later than `now_ms`. `chance` is between 0 and 1.
fn due(source: &TokenSource, token: &GivenToken, now_ms: UnixMs, chance: f64) -> UnixMs {
    let refresh = &source.refresh;
    let share = refresh.window + refresh.jitter * chance;
    let after = |from_ms: UnixMs| from_ms + (token.expires_at_ms.saturating_sub(from_ms) as f64 * share) as i64;
    let left_ms = token.expires_at_ms - now_ms;
    let due_at_ms = if left_ms <= 0 {
        now_ms + PAUSE_MS
    } else if refresh.after_ms + refresh.before_ms > left_ms {
        // There is no room for both pauses.
        after(now_ms)
    } else {
        let latest_ms = token.expires_at_ms - refresh.before_ms;
        after(token.issued_at_ms.unwrap_or(now_ms)).min(latest_ms).max(now_ms + refresh.after_ms)
    };
    // A provider whose tokens hold for no time is not asked without a pause.
    due_at_ms.max(now_ms + 1000)
}

/// A token, after some attempts.
async fn given(source: &TokenSource, tls: Option<&Arc<TowardsWeb>>, web: &SharedWeb) -> Result<GivenToken, TokenError> {
    let failed = |why: String, may_pass: bool| TokenError { at: source.at.to_string(), why, may_pass };
    let text = match &source.at {
        Place::File(path) => {
            let path = path.clone();
            task::blocking(move || read(&path)).await.map_err(|why| failed(why, false))?
        }
        Place::Web { url, .. } => {
            let ask = || async {
                let (connect, answer) = source.patience;
                let question = Question {
                    url: url.clone(),
                    tls: tls.cloned(),
                    form: source.client.as_ref().map(form),
                    patience: (connect.unwrap_or(PATIENCE), answer.unwrap_or(PATIENCE)),
                };
                web.ask(question).await.map_err(|error| failed(error.to_string(), may_pass(&error)))
            };
            let answer = retried(source.retry, |error: &TokenError| error.may_pass, ask).await?;
            token_of(&answer).ok_or_else(|| failed("its answer has no access_token".into(), false))?
        }
    };
    GivenToken::read(&text, source).map_err(|why| failed(format!("what it gives is no token: {why}"), false))
}

/// Blocks.
fn read(path: &Path) -> Result<String, String> {
    let length = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > ANSWER_BYTES_MAX as u64 {
        return Err(format!("it is longer than {ANSWER_BYTES_MAX} bytes"));
    }
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

/// What is posted. Source: Kafka 3.9 `HttpAccessTokenRetriever.formatAuthorizationHeader`, `formatRequestBody`.
fn form(client: &OauthClient) -> Form {
    let shown = BASE64.encode(format!("{}:{}", client.id, client.secret.reveal()));
    let scope = client.scope.as_deref().map(str::trim).filter(|scope| !scope.is_empty());
    let scope = scope.map(|scope| format!("&scope={}", encoded(scope))).unwrap_or_default();
    Form {
        authorization: Secret::new(format!("Basic {shown}")),
        fields: format!("grant_type=client_credentials{scope}"),
    }
}

/// As Java's `URLEncoder` writes it.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for b in text.bytes() {
        match b {
            b' ' => encoded.push('+'),
            b if b.is_ascii_alphanumeric() || b".-*_".contains(&b) => encoded.push(char::from(b)),
            b => encoded.push_str(&format!("%{b:02X}")),
        }
    }
    encoded
}

/// Whether it is asked again. Source: Kafka 3.9 `HttpAccessTokenRetriever.UNRETRYABLE_HTTP_CODES`.
fn may_pass(error: &WebError) -> bool {
    match error {
        WebError::Status { status, .. } => !matches!(status, 400..=407 | 409..=415 | 501 | 505),
        WebError::Unreachable(_) | WebError::TimedOut(_) | WebError::TooLong | WebError::Malformed(_) => true,
    }
}

fn token_of(answer: &[u8]) -> Option<String> {
    let answer: serde_json::Value = serde_json::from_slice(answer).ok()?;
    answer.get("access_token")?.as_str().map(str::to_owned)
}

#[cfg(test)]
#[path = "fetched_tests.rs"]
mod tests;
