//! SEAM: what servers on the web answer. The far end is `peer::web`.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::config::Secret;
use crate::config::oauth::Place;
use crate::config::web_url::WebUrl;
use crate::security::tls::web::TowardsWeb;
use crate::task;

/// What is asked of a server, and how.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) url: WebUrl,
    /// What is presented and trusted; needed where the URL is one of TLS.
    pub(crate) tls: Option<Arc<TowardsWeb>>,
    /// `None`: what lies there is got; else this is posted.
    pub(crate) form: Option<Form>,
    /// How long the server may take to let this one in, hands shaken, and then to answer.
    pub(crate) patience: (Duration, Duration),
}

/// What is posted.
#[derive(Debug, Clone)]
pub(crate) struct Form {
    /// Value of the header of this name.
    pub(crate) authorization: Secret,
    /// Encoded as for a URL.
    pub(crate) fields: String,
}

/// Longest answer, in bytes. Source: that of Kafka 3.9's client of JWKS, jose4j's `Get`.
pub(crate) const ANSWER_BYTES_MAX: usize = 512 * 1024;
/// For both parts, where nothing is set. Source: as [`ANSWER_BYTES_MAX`].
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WebError {
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    #[error("it gave no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// Also where it sends elsewhere: nobody follows.
    #[error("it answers with the status {status}{said}")]
    Status { status: u16, said: String },
    #[error("its answer is longer than {ANSWER_BYTES_MAX} bytes")]
    TooLong,
    #[error("its answer cannot be read: {0}")]
    Malformed(String),
}

/// Asks servers on the web.
pub(crate) trait Web: Debug + Send + Sync {
    /// The body of the answer, if its status says that all is well. Bounded in length and time.
    ///
    /// # Errors
    /// See [`WebError`].
    fn ask(&self, question: Question) -> BoxFuture<'_, Result<Vec<u8>, WebError>>;
}

/// As it is handed around.
pub(crate) type SharedWeb = Arc<dyn Web>;

/// What is presented at this place, and trusted; `None`: nothing, as it is not reached over TLS. Reads files.
///
/// # Errors
/// The setting, its file, and why it cannot be used.
pub(super) async fn trust(at: &Place) -> Result<Option<Arc<TowardsWeb>>, String> {
    let Place::Web { tls: Some(settings), .. } = at else { return Ok(None) };
    let settings = settings.clone();
    task::blocking(move || TowardsWeb::open(&settings)).await.map(Some)
}
