//! Serves what a listener accepts, as HTTP/1.1.
//!
//! Knows how long a peer may take to ask for something; knows nothing of what it asks for.

use std::time::Duration;

use axum::{Router, extract::ConnectInfo, serve::Listener};
use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::timeout;
use tower::ServiceExt;
use tracing::debug;

use crate::drain::Drain;

/// How long an answer that is under way may take once everything ends.
const GRACE: Duration = Duration::from_secs(1);

/// How many bytes the head of a request may have, and how much of a body is read ahead: a peer
/// has it kept before anybody knows who it is.
const HEAD: usize = 64 << 10;

/// Serves a listener until `drain` ends; requests carry what `peer` says of their connection.
///
/// A connection on which no whole head of a request comes for as long as `silence` is closed:
/// after it was opened, and again after each answer. A request that is not answered yet and
/// an upgraded connection are not bounded here. A head of more than 64 KiB is refused.
pub fn start<L: Listener, P: Clone + Send + Sync + 'static>(
    mut listener: L,
    router: Router,
    peer: impl Fn(&L::Io, L::Addr) -> P + Send + 'static,
    silence: Duration,
    drain: &Drain,
) {
    let Drain { tracker, end, .. } = drain.clone();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(silence).max_buf_size(HEAD);
    let accept = async move {
        loop {
            let (io, addr) = listener.accept().await;
            let (peer, router) = (ConnectInfo(peer(&io, addr)), router.clone());
            let service = service_fn(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(peer.clone());
                router.clone().oneshot(request)
            });
            let connection = http.serve_connection(TokioIo::new(io), service).with_upgrades();
            let end = end.clone();
            tracker.spawn(async move {
                let mut connection = std::pin::pin!(connection);
                let ended = tokio::select! {
                    ended = connection.as_mut() => ended,
                    () = end.cancelled() => {
                        connection.as_mut().graceful_shutdown();
                        timeout(GRACE, connection).await.unwrap_or(Ok(()))
                    }
                };
                if let Err(error) = ended {
                    debug!(%error, "Connection broke.");
                }
            });
        }
    };
    let end = drain.end.clone();
    drain.tracker.spawn(async move { end.run_until_cancelled_owned(accept).await });
}
