//! Two engines on one port, as the suites want them.

use std::{io, sync::Arc, time::Duration};

use axum::{extract::Request, middleware::map_request};
use gateway::{
    auth::{self, Authenticator, origin::Origins},
    drain::Drain,
    limits::{Admission, Bounds},
    serve,
    socket::{
        self, Connection, EngineKind, Inbox, Settings,
        bundle::Generation,
        engine::{
            Engine, Options,
            socketio::{self, SocketIo},
            upper::Upper,
        },
        guard::Guard,
        stall::{Listener, Stream},
    },
};
use http::{HeaderValue, header::COOKIE};
use tokio::net::TcpListener;

/// Where the suites look for a server.
const LISTEN: &str = "localhost:3000";
/// What the suites want to be told.
const PING_INTERVAL: Duration = Duration::from_millis(300);
const PING_TIMEOUT: Duration = Duration::from_millis(200);
const MAX_PAYLOAD: usize = 1_000_000;
/// How long a client that joins no namespace may stay.
const CONNECT: Duration = Duration::from_secs(1);
const STALL: Duration = Duration::from_secs(10);

/// Serves engine.io at `/engine.io/` and socket.io at `/socket.io/`, until the process is ended.
///
/// # Errors
///
/// Returns an error when the port is taken.
pub(crate) async fn open(
    echo: impl Fn() -> Box<dyn Upper> + Send + Sync + 'static,
    accept: impl Fn(Connection) -> Box<dyn Inbox> + Send + Sync + 'static,
) -> io::Result<()> {
    let drain = Drain::default();
    let settings = Settings {
        engine: EngineKind::Pneumatic,
        node: "echo".to_owned(),
        origins: Origins::default(),
        admission: Admission::new(Bounds::default()),
        stall: STALL,
        connect_timeout: CONNECT,
        max_message_bytes: MAX_PAYLOAD,
        outbox_bytes: 4 * MAX_PAYLOAD,
        ping_interval: Some(PING_INTERVAL),
        ping_timeout: Some(PING_TIMEOUT),
        drain: drain.clone(),
        client: Generation::default(),
    };
    let options = Options { max_payload: MAX_PAYLOAD, ..Options::of(&settings) };
    let echo = Engine::new(options.clone(), Arc::new(move |_| echo()));
    let socketio = socketio::Settings::of(&settings, Arc::new(accept));
    let socketio = Arc::new(socketio.with_namespaces(&["/", "/custom"]));
    let run = move |opening| Box::new(SocketIo::new(socketio.clone(), opening)) as Box<dyn Upper>;
    let reference = Engine::new(options, Arc::new(run));

    let users = Authenticator::new(auth::Settings::Demo).map_err(io::Error::other)?;
    let users = Arc::new(users);
    let guard = || Guard::new(&settings, users.clone());
    let router = socket::route("/engine.io", guard(), echo)
        .merge(socket::route("/socket.io", guard(), reference))
        .layer(map_request(as_ann));
    let listener = Listener::new(TcpListener::bind(LISTEN).await?, STALL);
    serve::start(listener, router, Stream::peer, Duration::from_secs(20), &drain);
    drain.end.cancelled().await;
    Ok(())
}

/// The suites have no session.
async fn as_ann(mut request: Request) -> Request {
    request.headers_mut().insert(COOKIE, HeaderValue::from_static("demo=ann"));
    request
}
