//! Stands in front of every engine: judges the Origin, reads the query, and finds the session.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{ConnectInfo, Request},
    response::Response,
};
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS,
        ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE,
        ACCESS_CONTROL_REQUEST_HEADERS, CONTENT_TYPE, ORIGIN, RETRY_AFTER, VARY,
    },
};
use serde_json::{Value, json};
use tracing::{debug, warn};

use crate::{
    auth::{
        AuthError, Authenticator,
        origin::{Origins, Verdict},
    },
    identity::Session,
    limits::{Admission, Place, Refused},
    metrics::{self, Handshake},
    socket::{Protocol, Settings, stall::Peer},
};

/// Stands in front of an engine.
#[derive(Debug)]
pub struct Guard {
    origins: Origins,
    admission: Admission,
    authenticator: Arc<Authenticator>,
}

/// A client that may come in, be it to be told that it has no session.
#[derive(Debug)]
pub struct Entered {
    /// Who it is, if it is anybody.
    pub session: Option<Session>,
    /// Free again when it is dropped.
    pub place: Place,
}

/// Which transport a request uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Requests that wait for something to say.
    Polling,
    /// A websocket.
    Websocket,
}

impl Kind {
    /// Returns the name used in queries and as a metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Polling => "polling",
            Self::Websocket => "websocket",
        }
    }
}

/// What a request's query says to an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query<'a> {
    /// Which protocol its client speaks.
    pub protocol: Protocol,
    /// Which transport it uses.
    pub kind: Kind,
    /// The session that it belongs to; none is there yet where it is a handshake.
    pub sid: Option<&'a str>,
    /// Whether its client cannot read binary data.
    pub b64: bool,
    /// Whether its client asks to resume.
    pub resume: bool,
    /// Whether the request asks for another protocol on its connection.
    pub is_upgrade: bool,
    /// The query as it came.
    pub raw: &'a str,
}

/// A request that no engine understands: the code and the text of its answer.
pub type Mistake = (u8, &'static str);

impl<'a> Query<'a> {
    /// Reads a query. Whatever is not 4 is 3, as the original servers have it.
    ///
    /// # Errors
    ///
    /// Returns the [`Mistake`] that its client is to be told.
    pub fn parse(raw: &'a str) -> Result<Self, Mistake> {
        let get =
            |key: &str| raw.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
        let kind = match get("transport") {
            Some("polling") => Kind::Polling,
            Some("websocket") => Kind::Websocket,
            _ => return Err((0, "Transport unknown")),
        };
        let protocol = match get("EIO") {
            Some("4") => Protocol::Eio4,
            None | Some("1" | "2" | "3") => Protocol::Eio3,
            Some(_) => return Err((5, "Unsupported protocol version")),
        };
        if get("j").is_some() {
            return Err((3, "JSONP is not served"));
        }
        let is_set = |key| matches!(get(key), Some("1" | "true"));
        let (b64, resume) = (is_set("b64"), is_set("resume"));
        let sid = get("sid").filter(|sid| !sid.is_empty());
        Ok(Self { protocol, kind, sid, b64, resume, is_upgrade: false, raw })
    }
}

impl Query<'_> {
    /// Answers with a mistake as the original servers do; a websocket's is a bare text.
    #[must_use]
    pub fn refuse(&self, what: Mistake) -> Response {
        if !self.is_upgrade {
            return mistake(StatusCode::BAD_REQUEST, what);
        }
        let mut response = Response::new(Body::from(what.1));
        *response.status_mut() = StatusCode::BAD_REQUEST;
        let text = HeaderValue::from_static("text/html");
        response.headers_mut().insert(CONTENT_TYPE, text);
        response
    }
}

impl Guard {
    /// Makes a guard.
    #[must_use]
    pub fn new(settings: &Settings, authenticator: Arc<Authenticator>) -> Self {
        Self {
            origins: settings.origins.clone(),
            admission: settings.admission.clone(),
            authenticator,
        }
    }

    /// Answers a request to `/socket.io/`; `engine` answers what comes through.
    pub async fn answer<F>(&self, request: Request, engine: impl FnOnce(Request) -> F) -> Response
    where
        F: Future<Output = Response> + Send,
    {
        let verdict = self.origins.judge(request.headers());
        let asked = request.headers().get(ACCESS_CONTROL_REQUEST_HEADERS).cloned();
        let mut response = match verdict {
            Verdict::Refused => refuse_origin(&request),
            _ if request.method() == Method::OPTIONS => preflight(asked),
            _ => engine(request).await,
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

    /// Lets a new client in: takes a place for it, and finds its session.
    ///
    /// # Errors
    ///
    /// Returns what the client is answered when there is no place for it now, or nobody can
    /// tell who it is.
    pub async fn enter(
        &self,
        headers: &HeaderMap,
        peer: Option<&Peer>,
        query: &Query<'_>,
    ) -> Result<Entered, Response> {
        let protocol = query.protocol;
        let ip = peer.map(|peer| self.admission.client(peer.addr.ip(), headers));
        let mut place = self.admission.enter(ip).map_err(|refused| crowded(protocol, refused))?;
        let session = match self.authenticator.authenticate(headers, query.raw).await {
            Ok(session) => session,
            Err(AuthError::Unauthorized(reason)) => {
                metrics::handshake(protocol, Handshake::Unauthorized);
                debug!(reason, protocol = protocol.label(), "Client is not authorized; refused.");
                return Ok(Entered { session: None, place });
            }
            Err(error @ AuthError::StoreAway(_)) => {
                metrics::handshake(protocol, Handshake::StoreAway);
                warn!(%error, "Client could not be looked up; told to come again.");
                return Err(busy());
            }
        };
        self.admission
            .belongs(&mut place, &session.identity.user)
            .map_err(|refused| crowded(protocol, refused))?;
        Ok(Entered { session: Some(session), place })
    }
}

/// Returns who made a request, where the listener tells.
#[must_use]
pub fn peer(request: &Request) -> Option<Peer> {
    request.extensions().get::<ConnectInfo<Peer>>().map(|info| info.0.clone())
}

fn refuse_origin(request: &Request) -> Response {
    let protocol = Query::parse(request.uri().query().unwrap_or_default())
        .map_or(Protocol::Eio4, |query| query.protocol);
    metrics::handshake(protocol, Handshake::BadOrigin);
    debug!(origin = ?request.headers().get(ORIGIN), "Origin is not allowed; refused.");
    mistake(StatusCode::FORBIDDEN, (4, "Origin not allowed"))
}

fn answer(status: StatusCode, body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Answers as the original servers do: a code, and what it means.
pub(super) fn mistake(status: StatusCode, (code, message): Mistake) -> Response {
    answer(status, &json!({ "code": code, "message": message }))
}

/// What makes every generation start over with a new handshake.
pub(super) fn unknown_sid() -> Response {
    mistake(StatusCode::BAD_REQUEST, (1, "Session ID unknown"))
}

/// Asks a client to come again soon.
pub(super) fn busy() -> Response {
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
    fn check(query: &str, expected: Result<(Protocol, Kind), u8>) {
        let read = Query::parse(query).map(|query| (query.protocol, query.kind));
        assert_eq!(read.map_err(|(code, _)| code), expected, "{query}");
    }

    #[test]
    fn a_query_says_which_protocol_and_which_transport() {
        check("EIO=4&transport=polling&t=x&token=y", Ok((Protocol::Eio4, Kind::Polling)));
        check("transport=websocket", Ok((Protocol::Eio3, Kind::Websocket)));
        check("EIO=2&transport=websocket", Ok((Protocol::Eio3, Kind::Websocket)));
        check("EIO=5&transport=polling", Err(5));
        check("EIO=5&transport=pigeon", Err(0));
        check("EIO=4", Err(0));
        check("EIO=4&transport=flashsocket", Err(0));
        check("EIO=3&transport=polling&j=0", Err(3));
        check("", Err(0));
    }
}
