//! Stands in front of an engine: judges the Origin, finds the session, and closes transports.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::{Body, HttpBody},
    extract::{ConnectInfo, Request},
    response::Response,
};
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS,
        ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE,
        ACCESS_CONTROL_REQUEST_HEADERS, CONTENT_TYPE, ORIGIN, RETRY_AFTER, SEC_WEBSOCKET_KEY, VARY,
    },
};
use hyper::upgrade::OnUpgrade;
use serde_json::{Value, json};
use tower::{ServiceExt, util::BoxCloneSyncService};
use tracing::{debug, warn};

use crate::{
    auth::{
        AuthError, Authenticator,
        origin::{Origins, Verdict},
    },
    identity::Session,
    limits::{Admission, Refused},
    metrics::{self, Handshake},
    socket::{
        Protocol, Settings,
        refusal::Refusals,
        stall::Peer,
        transport::{Kind, Transport, Transports},
    },
};

/// An engine as the guard sees it.
pub type Engine = BoxCloneSyncService<Request, Response, Infallible>;

/// Stands in front of one engine.
#[derive(Debug)]
pub struct Guard {
    origins: Origins,
    admission: Admission,
    authenticator: Arc<Authenticator>,
    engine: Engine,
    refusals: Refusals,
    transports: Arc<Transports>,
}

/// Who came through the guard; travels to the engine in the request's extensions.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// Who it is.
    pub session: Session,
    /// Whether it asked to resume in its query.
    pub resume: bool,
    /// What closes it.
    pub transport: Arc<Transport>,
}

/// What a request's query says to an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Query<'a> {
    protocol: Protocol,
    kind: Kind,
    sid: Option<&'a str>,
    b64: bool,
    resume: bool,
}

/// A request that no engine understands: the code and the text of its answer.
type Mistake = (u8, &'static str);

impl<'a> Query<'a> {
    /// Reads a query. Whatever is not 4 is 3, as the original servers have it.
    fn parse(query: &'a str) -> Result<Self, Mistake> {
        let get =
            |key: &str| query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
        let protocol = match get("EIO") {
            Some("4") => Protocol::Eio4,
            None | Some("1" | "2" | "3") => Protocol::Eio3,
            Some(_) => return Err((5, "Unsupported protocol version")),
        };
        let kind = match get("transport") {
            Some("polling") => Kind::Polling,
            Some("websocket") => Kind::Websocket,
            _ => return Err((0, "Transport unknown")),
        };
        if get("j").is_some() {
            return Err((3, "JSONP is not served by this engine"));
        }
        let is_set = |key| matches!(get(key), Some("1" | "true"));
        Ok(Self { protocol, kind, sid: get("sid"), b64: is_set("b64"), resume: is_set("resume") })
    }

    /// Writes what the engine shall see: nothing of the page's own.
    fn uri(&self) -> String {
        let version = match self.protocol {
            Protocol::Eio3 => 3,
            Protocol::Eio4 => 4,
        };
        let sid = self.sid.map(|sid| format!("&sid={sid}")).unwrap_or_default();
        let b64 = if self.b64 { "&b64=1" } else { "" };
        format!("/socket.io/?EIO={version}&transport={}{sid}{b64}", self.kind.label())
    }
}

impl Guard {
    /// Puts a guard before an engine.
    #[must_use]
    pub fn new(settings: &Settings, authenticator: Arc<Authenticator>, engine: Engine) -> Self {
        Self {
            origins: settings.origins.clone(),
            admission: settings.admission.clone(),
            authenticator,
            engine,
            refusals: Refusals::default(),
            transports: Arc::default(),
        }
    }

    /// Answers a request to `/socket.io/`.
    pub async fn answer(&self, request: Request) -> Response {
        let verdict = self.origins.judge(request.headers());
        let asked = request.headers().get(ACCESS_CONTROL_REQUEST_HEADERS).cloned();
        let mut response = match verdict {
            Verdict::Refused => self.refuse_origin(&request),
            _ if request.method() == Method::OPTIONS => preflight(asked),
            _ => self.admit(request).await,
        };
        let headers = response.headers_mut();
        headers.insert(VARY, HeaderValue::from_static("Origin"));
        if let Verdict::Page(origin) = verdict {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            let yes = HeaderValue::from_static("true");
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        }
        response
    }

    fn refuse_origin(&self, request: &Request) -> Response {
        let protocol = Query::parse(request.uri().query().unwrap_or_default())
            .map_or(Protocol::Eio4, |query| query.protocol);
        metrics::handshake(protocol, Handshake::BadOrigin);
        debug!(origin = ?request.headers().get(ORIGIN), "Origin is not allowed; refused.");
        mistake(StatusCode::FORBIDDEN, (4, "Origin not allowed"))
    }

    async fn admit(&self, request: Request) -> Response {
        let raw = request.uri().query().unwrap_or_default().to_owned();
        let query = match Query::parse(&raw) {
            Ok(query) => query,
            Err(what) => return mistake(StatusCode::BAD_REQUEST, what),
        };
        let is_post = match (query.kind, request.method()) {
            (_, &Method::GET) => false,
            (Kind::Polling, &Method::POST) if query.sid.is_some() => true,
            _ => return mistake(StatusCode::BAD_REQUEST, (2, "Bad handshake method")),
        };
        match query.sid {
            None => self.handshake(request, query, &raw).await,
            Some(sid) if Refusals::owns(sid) => self.refusals.answer(sid, is_post).await,
            Some(sid) => self.follow(request, query, sid, is_post).await,
        }
    }

    /// Lets a new client in, or refuses it in the way that its generation understands.
    async fn handshake(&self, mut request: Request, query: Query<'_>, raw: &str) -> Response {
        let upgrade = request.extensions_mut().remove::<OnUpgrade>();
        let key = request.headers().get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
        let upgrade = match (query.kind, upgrade, key) {
            (Kind::Polling, ..) => None,
            (Kind::Websocket, Some(upgrade), Some(key)) => Some((upgrade, key.to_vec())),
            (Kind::Websocket, ..) => return mistake(StatusCode::BAD_REQUEST, (3, "Bad request")),
        };
        let protocol = query.protocol;
        let peer = request.extensions().get::<ConnectInfo<Peer>>().map(|info| info.0.clone());
        let ip = peer.as_ref().map(|peer| self.admission.client(peer.addr.ip(), request.headers()));
        let mut place = match self.admission.enter(ip) {
            Ok(place) => place,
            Err(refused) => return crowded(protocol, refused),
        };
        let session = match self.authenticator.authenticate(request.headers(), raw).await {
            Ok(session) => session,
            Err(AuthError::Unauthorized(reason)) => {
                metrics::handshake(protocol, Handshake::Unauthorized);
                debug!(reason, protocol = protocol.label(), "Client is not authorized; refused.");
                return match upgrade {
                    Some((upgrade, key)) => self.refusals.websocket(protocol, upgrade, &key),
                    None => self.refusals.open(protocol, query.b64),
                };
            }
            Err(error @ AuthError::StoreAway(_)) => {
                metrics::handshake(protocol, Handshake::StoreAway);
                warn!(%error, "Client could not be looked up; told to come again.");
                return busy();
            }
        };
        if let Err(refused) = self.admission.belongs(&mut place, &session.identity.user) {
            return crowded(protocol, refused);
        }
        // The engine keeps the first request for as long as the client stays, and each header
        // of it is a slice of the whole read buffer: it gets a request with the little it reads.
        let transport = Arc::new(Transport::new(self.transports.clone(), place));
        let is_websocket = upgrade.is_some();
        let mut slim = Request::new(Body::empty());
        *slim.uri_mut() = query.uri().parse().expect("it is made of plain words");
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
        drop(request);
        let response = self.call(slim).await;
        let is_open = matches!(response.status(), StatusCode::OK | StatusCode::SWITCHING_PROTOCOLS);
        if is_open {
            metrics::handshake(protocol, Handshake::Accepted);
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
        *request.uri_mut() = match query.uri().parse() {
            Ok(uri) => uri,
            Err(_) => return unknown_sid(),
        };
        let peer = request.extensions().get::<ConnectInfo<Peer>>().map(|info| info.0.clone());
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

fn answer(status: StatusCode, body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn mistake(status: StatusCode, (code, message): Mistake) -> Response {
    answer(status, &json!({ "code": code, "message": message }))
}

/// What makes every generation start over with a new handshake.
pub(crate) fn unknown_sid() -> Response {
    mistake(StatusCode::BAD_REQUEST, (1, "Session ID unknown"))
}

/// Asks a client to come again soon.
pub(crate) fn busy() -> Response {
    let mut response =
        answer(StatusCode::SERVICE_UNAVAILABLE, &json!({ "message": "try again later" }));
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("2"));
    response
}

/// Tells a client to come again later, because too many are here.
fn crowded(protocol: Protocol, refused: Refused) -> Response {
    metrics::handshake(protocol, Handshake::Refused);
    debug!(%refused, "Client is told to come again later.");
    busy()
}

fn preflight(asked: Option<HeaderValue>) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers: &mut HeaderMap = response.headers_mut();
    let methods = HeaderValue::from_static("GET,POST,OPTIONS");
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    if let Some(asked) = asked {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(query: &str, expected: Result<&str, u8>) {
        let read = Query::parse(query).map(|query| query.uri()).map_err(|(code, _)| code);
        assert_eq!(read.as_deref().map_err(|code| *code), expected, "{query}");
    }

    #[test]
    fn the_engine_sees_only_what_it_reads() {
        check("EIO=4&transport=polling&t=x&token=y", Ok("/socket.io/?EIO=4&transport=polling"));
        check(
            "token=y&EIO=3&transport=polling&b64=1&sid=abc",
            Ok("/socket.io/?EIO=3&transport=polling&sid=abc&b64=1"),
        );
        check("transport=websocket", Ok("/socket.io/?EIO=3&transport=websocket"));
        check("EIO=2&transport=websocket", Ok("/socket.io/?EIO=3&transport=websocket"));
        check("EIO=5&transport=polling", Err(5));
        check("EIO=4", Err(0));
        check("EIO=4&transport=flashsocket", Err(0));
        check("EIO=3&transport=polling&j=0", Err(3));
        check("", Err(0));
    }

    #[test]
    fn the_sid_is_found_in_both_framings() {
        assert_eq!(sid(br#"0{"sid":"abc","upgrades":[]}"#), Some("abc"));
        assert_eq!(sid(br#"28:0{"sid":"abc","upgrades":[]}"#), Some("abc"));
        assert_eq!(sid(b"ok"), None);
    }
}
