//! An engine on a free port with an echo behind it, and raw requests to it.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{extract::Request, middleware::Next};
use bytes::Bytes;
use gateway::{
    auth::{self, Authenticator, origin::Origins},
    drain::Drain,
    hub::frame::Frame,
    identity::Session,
    limits::{Admission, Bounds},
    outbox::{CloseReason, Letter, Outbox},
    serve,
    socket::{
        self, Connection, EngineKind, Full, Inbound, Inbox, Protocol, Settings, bundle, stall,
    },
};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpListener, sync::mpsc, time::timeout};

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// The engines that there are.
pub const ENGINES: [EngineKind; 2] = [EngineKind::Pneumatic, EngineKind::Socketioxide];

/// Makes a test of each of these functions for each engine.
macro_rules! each_engine {
    ($($name:ident),* $(,)?) => {
        mod pneumatic {
            $(#[tokio::test]
            async fn $name() {
                super::$name(gateway::socket::EngineKind::Pneumatic).await;
            })*
        }

        mod socketioxide {
            $(#[tokio::test]
            async fn $name() {
                super::$name(gateway::socket::EngineKind::Socketioxide).await;
            })*
        }
    };
}
pub(crate) use each_engine;

/// The settings of a test's engine: quick where a test must wait.
pub fn settings() -> Settings {
    settings_of(ENGINES[0])
}

/// The same for one of the engines.
pub fn settings_of(engine: EngineKind) -> Settings {
    Settings {
        engine,
        node: "g1".to_owned(),
        admission: Admission::new(Bounds::default()),
        origins: Origins::new(["https://app.example.com".to_owned()], false),
        stall: Duration::from_secs(1),
        connect_timeout: Duration::from_secs(2),
        max_message_bytes: 64 << 10,
        outbox_bytes: 1 << 20,
        ping_interval: None,
        ping_timeout: None,
        drain: Drain::default(),
        client: bundle::Generation::Four,
    }
}

/// A client as the gateway's inside sees it.
#[derive(Debug, Clone)]
pub struct Guest {
    pub session: Session,
    pub protocol: Protocol,
    pub resume: bool,
    pub outbox: Outbox,
    pub has_left: Arc<AtomicBool>,
    /// What it answered to letters.
    pub answers: Answers,
}

/// Answers as they came: to which letter, what, and the binary data with it.
pub type Answers = Arc<Mutex<Vec<(u64, String, Vec<Bytes>)>>>;

/// An engine on a free port.
pub struct Stage {
    pub addr: SocketAddr,
    handshakes: Arc<AtomicUsize>,
    guests: mpsc::UnboundedReceiver<Guest>,
    /// Everyone who ever came.
    pub seen: Arc<Mutex<Vec<Guest>>>,
    /// Knows its connections.
    pub drain: Drain,
}

impl Stage {
    pub async fn start() -> Self {
        Self::start_of(ENGINES[0]).await
    }

    pub async fn start_of(engine: EngineKind) -> Self {
        Self::start_with(&settings_of(engine)).await
    }

    pub async fn start_with(settings: &Settings) -> Self {
        let authenticator = Authenticator::new(auth::Settings::Demo).unwrap();
        Self::start_for(settings, authenticator).await
    }

    pub async fn start_for(settings: &Settings, authenticator: Authenticator) -> Self {
        let (sender, guests) = mpsc::unbounded_channel();
        let seen: Arc<Mutex<Vec<Guest>>> = Arc::default();
        let all = seen.clone();
        let accept = Arc::new(move |connection: Connection| {
            let guest = Guest {
                session: connection.session.clone(),
                protocol: connection.protocol,
                resume: connection.resume,
                outbox: connection.outbox.clone(),
                has_left: Arc::default(),
                answers: Arc::default(),
            };
            let (say, inbound) = mpsc::channel(1_024);
            tokio::spawn(echo(connection, inbound, guest.has_left.clone()));
            all.lock().unwrap().push(guest.clone());
            let said = Said { say, answers: guest.answers.clone() };
            let _ = sender.send(guest);
            Box::new(said) as Box<dyn Inbox>
        });
        let handshakes: Arc<AtomicUsize> = Arc::default();
        let counter = handshakes.clone();
        let count = move |request: Request, next: Next| {
            let query = request.uri().query().unwrap_or_default();
            if request.uri().path() == "/socket.io/" && !query.contains("sid=") {
                counter.fetch_add(1, Ordering::SeqCst);
            }
            next.run(request)
        };
        let router = socket::router(settings, Arc::new(authenticator), accept)
            .layer(axum::middleware::from_fn(count));
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = tcp.local_addr().unwrap();
        let listener = stall::Listener::new(tcp, settings.stall);
        let drain = settings.drain.clone();
        serve::start(listener, router, stall::Stream::peer, settings.connect_timeout, &drain);
        Self { addr, handshakes, guests, seen, drain }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub fn handshakes(&self) -> usize {
        self.handshakes.load(Ordering::SeqCst)
    }

    pub async fn guest(&mut self) -> Guest {
        self.joins().await.expect("a client joins")
    }

    /// Waits for the next client; `None` when none comes.
    pub async fn joins(&mut self) -> Option<Guest> {
        timeout(PATIENCE, self.guests.recv()).await.ok()?
    }
}

/// Hands what a client says to the echo.
struct Said {
    say: mpsc::Sender<Inbound>,
    answers: Answers,
}

impl Inbox for Said {
    fn event(&self, event: Inbound) -> Result<(), Full> {
        self.say.try_send(event).map_err(|_| Full)
    }

    fn answer(&self, call: u64, args: String, attachments: Vec<Bytes>) -> Result<(), Full> {
        self.answers.lock().unwrap().push((call, args, attachments));
        Ok(())
    }
}

/// Answers `echo` with what it was given, `tell` with an event, `mirror` with everything, binary
/// data included, and obeys the rest.
async fn echo(
    connection: Connection,
    mut inbound: mpsc::Receiver<Inbound>,
    has_left: Arc<AtomicBool>,
) {
    let outbox = connection.outbox.clone();
    let user = connection.session.identity.user.as_str();
    let welcome = json!({ "user": user, "resume": connection.resume, "text": "é 日本 🚀" });
    let _ = outbox.offer(&Frame::snapshot("initial", welcome.to_string()));
    while let Some(Inbound { name, args, attachments, call }) = inbound.recv().await {
        if name == "mirror" {
            let answers = call;
            let _ = outbox.letter(Letter { answers, args, attachments, call: None });
            continue;
        }
        if !attachments.is_empty() {
            let _ = outbox.offer(&Frame::event("binary", args.clone()));
        }
        let args: Vec<Value> = serde_json::from_str(&args).unwrap();
        let first = args.first().cloned().unwrap_or_default();
        match name.as_str() {
            "echo" => {
                let answer = Frame::event("echo", first.to_string());
                if let Some(call) = call {
                    let _ = outbox.ack(call, answer);
                }
            }
            "tell" => drop(outbox.offer(&Frame::event("told", first.to_string()))),
            "burst" => {
                for number in 0..first.as_u64().unwrap() {
                    let _ = outbox.offer(&Frame::event("number", number.to_string()));
                }
            }
            "close" => outbox.close(CloseReason::Asked),
            "kick" => outbox.close(CloseReason::AskedFinally),
            other => panic!("the echo does not know {other}"),
        }
    }
    has_left.store(true, Ordering::SeqCst);
}

/// What a plain HTTP request was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Tells whether a poll was told that its session is over, in either of the ways that make a
    /// client come back: a close packet, or a session that is unknown.
    pub fn says_closed(&self) -> bool {
        (self.status, self.text().as_str()) == (200, "1")
            || self.status == 400 && self.text().contains("Session ID unknown")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

impl Stage {
    /// Sends a request of raw header lines and reads the whole answer.
    pub async fn request(&self, start: &str, headers: &[&str], body: &[u8]) -> Answer {
        use tokio::io::AsyncReadExt;

        let mut stream = tokio::net::TcpStream::connect(self.addr).await.unwrap();
        let mut head = format!("{start} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.addr);
        for header in headers {
            head.push_str(header);
            head.push_str("\r\n");
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        let mut bytes = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("an answer");
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let status = head[9..12].parse().unwrap();
        Answer { status, head, body: bytes[end + 4..].to_vec() }
    }

    pub async fn get(&self, path: &str, headers: &[&str]) -> Answer {
        self.request(&format!("GET {path}"), headers, b"").await
    }

    pub async fn post(&self, path: &str, body: &str) -> Answer {
        let headers = ["Content-Type: text/plain;charset=UTF-8"];
        self.request(&format!("POST {path}"), &headers, body.as_bytes()).await
    }

    /// Opens a raw EIO 4 polling session and joins the namespace; returns its path.
    pub async fn poll_raw(&self) -> String {
        let path = "/socket.io/?EIO=4&transport=polling&demo_user=ann";
        let open = self.get(path, &[]).await.text();
        let open: Value = serde_json::from_str(&open[1..]).unwrap();
        let path = format!("{path}&sid={}", open["sid"].as_str().unwrap());
        assert_eq!(self.post(&path, "40").await.text(), "ok");
        path
    }

    /// Opens a raw websocket.
    pub async fn websocket(&self, query: &str) -> Websocket {
        let url = format!("ws://{}/socket.io/?transport=websocket&{query}", self.addr);
        let stream = tokio::net::TcpStream::connect(self.addr).await.unwrap();
        let (socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
        socket
    }
}

pub type Websocket = tokio_tungstenite::WebSocketStream<tokio::net::TcpStream>;

/// Waits until something is so.
pub async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let waited = timeout(PATIENCE, async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{what} never came"));
}
