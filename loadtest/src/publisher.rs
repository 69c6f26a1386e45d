//! Publishes through a gateway's HTTP API; the only file that knows the HTTP library.

use std::{
    collections::BTreeMap,
    io,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::{
    net::TcpStream,
    time::{sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{board::Board, flags::Publish, receipts::Numbers};

/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(10);
/// So many failures in a row end it: the target is away or refuses everything.
const MAX_FAILURES: usize = 10;

/// What came of publishing.
#[derive(Debug, Default)]
pub struct Published {
    /// The numbers of those that the gateway confirmed.
    pub confirmed: Numbers,
    /// How many were tried.
    pub tried: u64,
    /// What went wrong, and how often.
    pub troubles: BTreeMap<String, u64>,
    /// How long it took in all.
    pub took: Duration,
}

/// One kept-alive connection to an admin listener.
#[derive(Debug)]
pub struct Publisher<'a> {
    publish: &'a Publish,
    sender: Option<http1::SendRequest<Full<Bytes>>>,
}

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("connect: {0}")]
    Connect(io::ErrorKind),
    #[error("connection broke")]
    Broken(#[from] hyper::Error),
    #[error("no answer in time")]
    Slow,
    #[error("HTTP {status}: {body}")]
    Status { status: u16, body: String },
}

impl<'a> Publisher<'a> {
    /// Makes a publisher; it connects when it has something to say.
    #[must_use]
    pub const fn new(publish: &'a Publish) -> Self {
        Self { publish, sender: None }
    }

    /// Publishes at the given rate, one after the other, until all are out or `stop`.
    ///
    /// One that is late does not delay the ones behind it: those follow at once.
    pub async fn run(&mut self, board: &Board, stop: &CancellationToken) -> Published {
        let began = Instant::now();
        let mut published = Published {
            confirmed: Numbers::below(self.publish.count),
            tried: 0,
            troubles: BTreeMap::new(),
            took: Duration::ZERO,
        };
        let mut failures = 0;
        for number in 0..self.publish.count {
            let due = began + Duration::from_secs_f64(number as f64 / self.publish.rate);
            tokio::select! {
                () = sleep_until(due.into()) => {}
                () = stop.cancelled() => break,
            }
            let id = number % self.publish.ids;
            published.tried += 1;
            let item = board.stamp(number).item(self.publish.payload);
            let body = format!(r#"{{"id":"loadtest-{id}","item":{item}}}"#);
            match self.request(Method::POST, self.path(None), body).await {
                Ok(()) => {
                    failures = 0;
                    published.confirmed.insert(number);
                }
                Err(trouble) => {
                    failures += 1;
                    *published.troubles.entry(trouble.to_string()).or_default() += 1;
                    if failures == MAX_FAILURES {
                        break;
                    }
                }
            }
        }
        published.took = began.elapsed();
        published
    }

    /// Takes its items out again.
    pub async fn clean_up(&mut self) {
        for id in 0..self.publish.ids.min(self.publish.count) {
            let path = self.path(Some(&format!("loadtest-{id}")));
            if self.request(Method::DELETE, path, String::new()).await.is_err() {
                return;
            }
        }
    }

    fn path(&self, id: Option<&str>) -> String {
        let feed = utf8_percent_encode(&self.publish.feed, NON_ALPHANUMERIC);
        match id {
            None => format!("/api/feeds/{feed}"),
            Some(id) => format!("/api/feeds/{feed}/{}", utf8_percent_encode(id, NON_ALPHANUMERIC)),
        }
    }

    async fn request(&mut self, method: Method, path: String, body: String) -> Result<(), Trouble> {
        let result = timeout(REQUEST, self.exchange(method, path, body)).await;
        let result = result.unwrap_or(Err(Trouble::Slow));
        if !matches!(result, Ok(()) | Err(Trouble::Status { .. })) {
            self.sender = None;
        }
        result
    }

    async fn exchange(
        &mut self,
        method: Method,
        path: String,
        body: String,
    ) -> Result<(), Trouble> {
        let authority = &self.publish.admin.authority;
        let sender = match &mut self.sender {
            Some(sender) if !sender.is_closed() => sender,
            slot => {
                let stream = TcpStream::connect(authority)
                    .await
                    .map_err(|error| Trouble::Connect(error.kind()))?;
                let _ = stream.set_nodelay(true);
                let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
                // Ends by itself when the sender is dropped.
                tokio::spawn(connection);
                slot.insert(sender)
            }
        };
        sender.ready().await?;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", authority)
            .header("content-type", "application/json");
        if let Some(token) = &self.publish.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request
            .body(Full::from(body))
            .map_err(|error| Trouble::Status { status: 0, body: error.to_string() })?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if status.is_success() {
            return Ok(());
        }
        let body = String::from_utf8_lossy(&body).chars().take(120).collect();
        Err(Trouble::Status { status: status.as_u16(), body })
    }
}
