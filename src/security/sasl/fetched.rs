//! The token that a provider gave this broker, as it was given last; nobody who shows it waits for another.
//!
//! It is asked for once before anything is served, or the start ends. Then a task asks for the next one when most of
//! its life has passed, and every ten seconds where that fails. Source: Kafka 3.9 `HttpAccessTokenRetriever`,
//! `FileTokenRetriever`, `ExpiringCredentialRefreshingLogin`; that a file is read again is our own.
//!
//! The task ends with the [`FollowedToken`].

use std::sync::{Arc, Weak};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use parking_lot::RwLock;
use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

use super::oauth::own::{self, GivenToken};
use super::retry::retried;
use super::small_file;
use super::web::{Form, PATIENCE, Question, SharedWeb, WebError, trust};
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
        let due = followed.told();
        task::spawn_owner("own token", follow(Arc::downgrade(&followed), due));
        Ok(followed)
    }

    /// What a client says at first.
    pub(super) fn first(&self) -> Vec<u8> {
        own::first(self.now.read().text.reveal(), &self.source.extensions)
    }

    /// Asks for another one; when the next is due.
    async fn refresh(&self) -> Due {
        match given(&self.source, self.tls.as_ref(), &self.web).await {
            Ok(token) => {
                *self.now.write() = token;
                self.told()
            }
            Err(error) => {
                let again_in_s = PAUSE_MS / 1000;
                error!(%error, again_in_s, "the token that is shown to other brokers stays as it was");
                Due::after(PAUSE_MS, self.clock.now_ms())
            }
        }
    }

    /// Says in a line what was given, and answers when the next one is due.
    fn told(&self) -> Due {
        let token = self.now.read().clone();
        // Between 0 and 1.
        let chance = (self.clock.random() >> 75) as f64 / (1u64 << 53) as f64;
        let now_ms = self.clock.now_ms();
        let pause_ms = pause_ms(&self.source, &token, now_ms, chance);
        let (left_s, next_in_s) = ((token.expires_at_ms - now_ms) / 1000, pause_ms / 1000);
        let principal: String = token.principal.chars().take(PRINCIPAL_CHARS_MAX).collect();
        let at = &self.source.at;
        match left_s > 0 {
            true => info!(?principal, %at, left_s, next_in_s, "a token to show other brokers"),
            false => warn!(?principal, %at, next_in_s, "the token to show other brokers has expired already"),
        }
        Due::after(pause_ms, now_ms)
    }
}

/// When a token is asked for: by the wall clock, which goes on while a machine sleeps, or by the time that this process
/// has run, since that clock may be set back.
#[derive(Debug, Clone, Copy)]
struct Due {
    at_ms: UnixMs,
    at: Instant,
}

impl Due {
    fn after(pause_ms: i64, now_ms: UnixMs) -> Self {
        let pause = Duration::from_millis(u64::try_from(pause_ms).unwrap_or(0)).min(PAUSE_MAX);
        Self { at_ms: now_ms.saturating_add(pause_ms), at: Instant::now() + pause }
    }

    /// How long it is until then; zero: it is now.
    fn left(self, now_ms: UnixMs) -> Duration {
        let by_wall_clock = u64::try_from(self.at_ms.saturating_sub(now_ms)).unwrap_or(0);
        Duration::from_millis(by_wall_clock).min(self.at.saturating_duration_since(Instant::now()))
    }
}

/// After a failure, or where a token has expired already.
const PAUSE_MS: i64 = 10_000;
/// Longer than any token should live, and short enough for the timer.
const PAUSE_MAX: Duration = Duration::from_secs(60 * 60 * 24 * 365);
/// A machine may sleep: the wall clock is looked at so often.
const LOOKS_APART: Duration = Duration::from_secs(30);
/// What of a name is told.
const PRINCIPAL_CHARS_MAX: usize = 200;

/// See [`FollowedToken`].
async fn follow(followed: Weak<FollowedToken>, mut due: Due) {
    loop {
        let Some(clock) = followed.upgrade().map(|followed| Arc::clone(&followed.clock)) else { return };
        let left = due.left(clock.now_ms());
        if !left.is_zero() {
            sleep(left.min(LOOKS_APART)).await;
            continue;
        }
        let Some(followed) = followed.upgrade() else { return };
        due = followed.refresh().await;
    }
}

/// In how long the next token is to be asked for. `chance` is between 0 and 1.
fn pause_ms(source: &TokenSource, token: &GivenToken, now_ms: UnixMs, chance: f64) -> i64 {
    let refresh = &source.refresh;
    let (after_ms, before_ms) = (refresh.after_ms.max(0), refresh.before_ms.max(0));
    let share = refresh.window + refresh.jitter * chance;
    // What the settings are meant to be; Kafka takes others, and asks without a pause, or late.
    let share = if share.is_nan() { 1.0 } else { share.clamp(0.5, 1.0) };
    let part_of = |span_ms: i64| (span_ms as f64 * share) as i64;
    let left_ms = token.expires_at_ms.saturating_sub(now_ms);
    let pause_ms = if left_ms <= 0 {
        PAUSE_MS
    } else if after_ms + before_ms > left_ms {
        // There is no room for both pauses.
        part_of(left_ms)
    } else {
        let age_ms = token.issued_at_ms.map_or(0, |issued_at_ms| now_ms.saturating_sub(issued_at_ms));
        let pause_ms = part_of(age_ms.saturating_add(left_ms)).saturating_sub(age_ms);
        pause_ms.min(left_ms - before_ms).max(after_ms)
    };
    // A provider whose tokens hold for no time is not asked without a pause.
    pause_ms.max(1000)
}

/// A token, after some attempts.
async fn given(source: &TokenSource, tls: Option<&Arc<TowardsWeb>>, web: &SharedWeb) -> Result<GivenToken, TokenError> {
    // A provider may repeat what it was shown.
    let secret = source.client.as_ref().map_or("", |client| client.secret.reveal());
    let hidden = |why: String| if secret.is_empty() { why } else { why.replace(secret, "[hidden]") };
    let failed = |why: String, may_pass: bool| TokenError { at: source.at.to_string(), why: hidden(why), may_pass };
    let text = match &source.at {
        Place::File(path) => {
            let path = path.clone();
            let read = task::blocking(move || small_file::text(&path)).await;
            read.map_err(|error| failed(error.to_string(), false))?
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
