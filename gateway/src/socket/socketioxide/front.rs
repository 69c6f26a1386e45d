//! Leads requests to socketioxide: shows it no more than it reads, refuses in its place, and
//! closes transports.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::{Body, HttpBody},
    extract::Request,
    response::Response,
};
use http::{HeaderValue, StatusCode, header::SEC_WEBSOCKET_KEY};
use hyper::upgrade::OnUpgrade;
use tower::{ServiceExt, util::BoxCloneSyncService};
use tracing::warn;

use super::{
    refusal::Refusals,
    transport::{Transport, Transports},
};
use crate::{
    identity::Session,
    metrics::{self, Handshake},
    socket::{
        Protocol,
        guard::{Entered, Guard, Kind, Query, mistake, peer, unknown_sid},
    },
};

/// The library as a service.
pub(super) type Engine = BoxCloneSyncService<Request, Response, Infallible>;

/// Stands between the guard and the library.
#[derive(Debug)]
pub struct Front {
    engine: Engine,
    refusals: Refusals,
    transports: Arc<Transports>,
}

/// Who was let in; travels to the engine in the request's extensions.
#[derive(Debug, Clone)]
pub(super) struct Admitted {
    /// Who it is.
    pub(super) session: Session,
    /// Whether it asked to resume in its query.
    pub(super) resume: bool,
    /// What closes it.
    pub(super) transport: Arc<Transport>,
}

/// Writes what the engine shall see: nothing of the page's own.
fn uri(query: &Query<'_>) -> String {
    let version = match query.protocol {
        Protocol::Eio3 => 3,
        Protocol::Eio4 => 4,
    };
    let sid = query.sid.map(|sid| format!("&sid={sid}")).unwrap_or_default();
    let b64 = if query.b64 { "&b64=1" } else { "" };
    format!("/socket.io/?EIO={version}&transport={}{sid}{b64}", query.kind.label())
}

impl Front {
    pub(super) fn new(engine: Engine) -> Self {
        Self { engine, refusals: Refusals::default(), transports: Arc::default() }
    }

    /// Answers a request that the guard has let through.
    pub async fn answer(&self, guard: &Guard, request: Request, query: Query<'_>) -> Response {
        let is_post = request.method() == http::Method::POST;
        match query.sid {
            None => self.handshake(guard, request, query).await,
            Some(sid) if Refusals::owns(sid) => self.refusals.answer(sid, is_post).await,
            Some(sid) => self.follow(request, query, sid, is_post).await,
        }
    }

    /// Lets a new client in, or refuses it in the way that its generation understands.
    async fn handshake(&self, guard: &Guard, mut request: Request, query: Query<'_>) -> Response {
        let upgrade = request.extensions_mut().remove::<OnUpgrade>();
        let key = request.headers().get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
        let upgrade = match (query.kind, upgrade, key) {
            (Kind::Polling, ..) => None,
            (Kind::Websocket, Some(upgrade), Some(key)) => Some((upgrade, key.to_vec())),
            (Kind::Websocket, ..) => return mistake(StatusCode::BAD_REQUEST, (3, "Bad request")),
        };
        let peer = peer(&request);
        let headers = request.into_parts().0.headers;
        let (session, place) = match guard.enter(&headers, peer.as_ref(), &query).await {
            Ok(Entered { session: Some(session), place }) => (session, place),
            Ok(Entered { session: None, .. }) => {
                return match upgrade {
                    Some((upgrade, key)) => self.refusals.websocket(query.protocol, upgrade, &key),
                    None => self.refusals.open(query.protocol, query.b64),
                };
            }
            Err(refusal) => return refusal,
        };
        // The engine keeps the first request for as long as the client stays, and each header
        // of it is a slice of the whole read buffer: it gets a request with the little it reads.
        let transport = Arc::new(Transport::new(self.transports.clone(), place));
        let is_websocket = upgrade.is_some();
        let mut slim = Request::new(Body::empty());
        *slim.uri_mut() = uri(&query).parse().expect("it is made of plain words");
        if let Some((upgrade, key)) = upgrade {
            let Ok(key) = HeaderValue::from_bytes(&key) else {
                return mistake(StatusCode::BAD_REQUEST, (3, "Bad request"));
            };
            slim.headers_mut().insert(SEC_WEBSOCKET_KEY, key);
            slim.extensions_mut().insert(upgrade);
            transport.carried_by(peer);
        }
        let admitted = Admitted { session, resume: query.resume, transport: transport.clone() };
        slim.extensions_mut().insert(admitted);
        let response = self.call(slim).await;
        let is_open = matches!(response.status(), StatusCode::OK | StatusCode::SWITCHING_PROTOCOLS);
        if is_open {
            metrics::handshake(query.protocol, Handshake::Accepted);
        }
        if is_websocket || !is_open {
            return response;
        }
        self.remember(response, &transport).await
    }

    /// Notes under which sid a polling client will come again.
    async fn remember(&self, response: Response, transport: &Arc<Transport>) -> Response {
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, OPEN_PACKET_BYTES).await.unwrap_or_default();
        match sid(&body) {
            Some(sid) => self.transports.insert(sid, transport),
            None => warn!("Engine's open packet has no sid; client will not get far."),
        }
        Response::from_parts(parts, Body::from(body))
    }

    /// Passes a later request of a living session on.
    async fn follow(
        &self,
        mut request: Request,
        query: Query<'_>,
        sid: &str,
        is_post: bool,
    ) -> Response {
        let Some(transport) = self.transports.get(sid) else {
            return unknown_sid();
        };
        *request.uri_mut() = match uri(&query).parse() {
            Ok(uri) => uri,
            Err(_) => return unknown_sid(),
        };
        let peer = peer(&request);
        let has_key = request.headers().contains_key(SEC_WEBSOCKET_KEY);
        let can_upgrade = has_key && request.extensions().get::<OnUpgrade>().is_some();
        if query.kind == Kind::Websocket && !can_upgrade {
            return mistake(StatusCode::BAD_REQUEST, (3, "Bad request"));
        }
        // A closed client learns it from the request that it holds open, whatever that is.
        let response = tokio::select! {
            biased;
            () = transport.closed.cancelled() => return unknown_sid(),
            response = self.call(request) => response,
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            transport.carried_by(peer);
        } else if !is_post {
            transport.answers(peer, response.body().size_hint().lower());
            if transport.has_websocket() {
                // The engine answers every poll of an upgrading client at once, and the client
                // asks again at once: hundreds of times a second until the upgrade is over.
                tokio::time::sleep(UPGRADE_PAUSE).await;
            }
        }
        response
    }

    async fn call(&self, request: Request) -> Response {
        match self.engine.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// How long a poll is held back while its client upgrades; the original servers take twice that.
const UPGRADE_PAUSE: Duration = Duration::from_millis(50);

/// How large an engine's open packet may be.
const OPEN_PACKET_BYTES: usize = 4_096;

/// Finds the sid in an open packet, with or without the length that stands before it.
fn sid(open: &[u8]) -> Option<&str> {
    let json = &open[open.iter().position(|byte| *byte == b'{')?..];
    #[derive(serde::Deserialize)]
    struct Open<'a> {
        sid: &'a str,
    }
    serde_json::from_slice::<Open<'_>>(json).ok().map(|open| open.sid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(query: &str, expected: &str) {
        assert_eq!(uri(&Query::parse(query).unwrap()), expected, "{query}");
    }

    #[test]
    fn the_engine_sees_only_what_it_reads() {
        check("EIO=4&transport=polling&t=x&token=y", "/socket.io/?EIO=4&transport=polling");
        check(
            "token=y&EIO=3&transport=polling&b64=1&sid=abc",
            "/socket.io/?EIO=3&transport=polling&sid=abc&b64=1",
        );
        check("transport=websocket", "/socket.io/?EIO=3&transport=websocket");
        check("EIO=2&transport=websocket", "/socket.io/?EIO=3&transport=websocket");
    }

    #[test]
    fn the_sid_is_found_in_both_framings() {
        assert_eq!(sid(br#"0{"sid":"abc","upgrades":[]}"#), Some("abc"));
        assert_eq!(sid(br#"28:0{"sid":"abc","upgrades":[]}"#), Some("abc"));
        assert_eq!(sid(b"ok"), None);
    }
}
