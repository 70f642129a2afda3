//! The pages of a broker: `/metrics`, `/livez` and `/readyz`, on a listener of their own.
//!
//! They are there before the log directories are opened, and go when everything else has gone.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::info;

use crate::config::Config;
use crate::net::http::{self, Page, Pages, Patience, Status};
use crate::net::listener::{self, SocketSizes};
use crate::observe::watched::{CONTENT_TYPE, Watched};
use crate::task;

/// `klamm.http.listener` that could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("klamm.http.listener {host}:{port} cannot be bound: {error}")]
pub(super) struct HttpBindError {
    host: String,
    port: u16,
    error: io::Error,
}

/// The server; dropping it ends it.
#[derive(Debug)]
pub(super) struct HttpServer {
    pub(super) address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl HttpServer {
    /// Serves the pages of this broker; `None` where no address is set.
    pub(super) async fn start(config: &Config, watched: &Arc<Watched>) -> Result<Option<Self>, HttpBindError> {
        let Some(wanted) = &config.http_listener else { return Ok(None) };
        let failed = |error| HttpBindError { host: wanted.host.clone(), port: wanted.port, error };
        let sizes = SocketSizes::default();
        let listener = listener::bind(&wanted.host, wanted.port, sizes).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        info!("metrics and health are served at http://{address}/");
        let pages = pages(Arc::clone(watched));
        Ok(Some(Self { address, serving: task::spawn(http::serve(listener, pages, Patience::default())) }))
    }
}

/// How long a scrape waits for the one before it. A machine that hangs must not gather threads that hang with it.
const SCRAPE_PATIENCE: Duration = Duration::from_secs(5);

fn pages(watched: Arc<Watched>) -> Pages {
    let scraping = Arc::new(Mutex::new(()));
    Arc::new(move |path| {
        let (watched, scraping) = (Arc::clone(&watched), Arc::clone(&scraping));
        match path {
            "/metrics" => Some(metrics(watched, scraping).boxed()),
            "/livez" => Some(async { Page::line(Status::Ok, "ok") }.boxed()),
            "/readyz" => Some(readiness(watched).boxed()),
            _ => None,
        }
    })
}

async fn metrics(watched: Arc<Watched>, scraping: Arc<Mutex<()>>) -> Page {
    let Ok(alone) = timeout(SCRAPE_PATIENCE, scraping.lock_owned()).await else {
        return Page::line(Status::Unavailable, "another scrape is under way");
    };
    let scrape = move || {
        // Held until it is over, whether or not its client is still there.
        let _alone = alone;
        watched.metrics()
    };
    Page { status: Status::Ok, content_type: CONTENT_TYPE, body: task::blocking(scrape).await }
}

async fn readiness(watched: Arc<Watched>) -> Page {
    match task::blocking(move || watched.readiness()).await {
        Ok(()) => Page::line(Status::Ok, "ok"),
        Err(reason) => Page::line(Status::Unavailable, &reason),
    }
}
