//! An engine on a free port with an echo behind it, and real clients on a leash.

use std::{
    net::SocketAddr,
    path::Path,
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{extract::Request, middleware::Next};
use gateway::{
    auth::{self, Authenticator, origin::Origins},
    drain::Drain,
    hub::frame::Frame,
    identity::Session,
    limits::{Admission, Bounds},
    outbox::{CloseReason, Outbox},
    serve,
    socket::{
        self, Connection, EngineKind, Full, Inbound, Inbox, Protocol, Settings, bundle, stall,
    },
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::TcpListener,
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::mpsc,
    time::timeout,
};

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// The settings of a test's engine: quick where a test must wait.
pub fn settings() -> Settings {
    Settings {
        engine: EngineKind::Pneumatic,
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
    pub has_left: Arc<std::sync::atomic::AtomicBool>,
}

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
        Self::start_with(&settings()).await
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
            };
            let (say, inbound) = mpsc::channel(1_024);
            tokio::spawn(echo(connection, inbound, guest.has_left.clone()));
            all.lock().unwrap().push(guest.clone());
            let _ = sender.send(guest);
            Box::new(Said(say)) as Box<dyn Inbox>
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
        let guest = timeout(PATIENCE, self.guests.recv()).await;
        guest.expect("a client joins").expect("the engine lives")
    }

    /// Starts a real client.
    pub async fn client(&self, version: &str, transports: &[&str]) -> Client {
        self.client_with(version, transports, json!({ "cookie": "demo=ann" })).await
    }

    pub async fn client_with(&self, version: &str, transports: &[&str], more: Value) -> Client {
        let mut spec = json!({ "version": version, "url": self.url(), "transports": transports });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Client::start(&spec)
    }
}

/// Hands what a client says to the echo.
struct Said(mpsc::Sender<Inbound>);

impl Inbox for Said {
    fn event(&self, event: Inbound) -> Result<(), Full> {
        self.0.try_send(event).map_err(|_| Full)
    }
}

/// Answers `echo` with what it was given, `tell` with an event, and obeys the rest.
async fn echo(
    connection: Connection,
    mut inbound: mpsc::Receiver<Inbound>,
    has_left: Arc<std::sync::atomic::AtomicBool>,
) {
    let outbox = connection.outbox.clone();
    let user = connection.session.identity.user.as_str();
    let welcome = json!({ "user": user, "resume": connection.resume, "text": "é 日本 🚀" });
    let _ = outbox.offer(&Frame::snapshot("initial", welcome.to_string()));
    while let Some(Inbound { name, args, attachments, call }) = inbound.recv().await {
        let _ =
            (!attachments.is_empty()).then(|| outbox.offer(&Frame::event("binary", args.clone())));
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

/// A real client of some generation, in a process of its own.
pub struct Client {
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    /// What was read while something else was waited for.
    passed: Vec<Value>,
    name: String,
    _child: Child,
}

impl Client {
    fn start(spec: &Value) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/js");
        let mut child = Command::new("node")
            .arg("client.js")
            .arg(spec.to_string())
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("node is installed");
        Self {
            stdin: child.stdin.take().unwrap(),
            lines: BufReader::new(child.stdout.take().unwrap()).lines(),
            passed: Vec::new(),
            name: format!("{} on {}", spec["version"], spec["transports"]),
            _child: child,
        }
    }

    pub async fn say(&mut self, command: Value) {
        self.stdin.write_all(format!("{command}\n").as_bytes()).await.unwrap();
    }

    pub async fn emit(&mut self, name: &str, arg: Value) {
        self.say(json!({ "cmd": "emit", "name": name, "args": [arg] })).await;
    }

    pub async fn call(&mut self, name: &str, arg: Value) -> Value {
        self.say(json!({ "cmd": "emit", "name": name, "args": [arg], "ack": 1 })).await;
        self.until("ack").await["value"].clone()
    }

    async fn line(&mut self) -> Option<Value> {
        let line = self.lines.next_line().await.unwrap();
        line.map(|line| serde_json::from_str(&line).unwrap())
    }

    /// Waits for a line of this kind.
    pub async fn until(&mut self, kind: &str) -> Value {
        self.until_where(kind, |_| true).await
    }

    /// Waits for an event of this name, and returns its argument.
    pub async fn event(&mut self, name: &str) -> Value {
        self.until_where("event", |line| line["name"] == name).await["args"][0].clone()
    }

    /// Tells whether an event of this name came before what was waited for.
    pub fn has_passed(&self, name: &str) -> bool {
        self.passed.iter().any(|line| line["t"] == "event" && line["name"] == name)
    }

    /// Waits for a line; what came before it can still be waited for.
    pub async fn until_where(&mut self, kind: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let fits = |line: &Value| line["t"] == kind && fits(line);
        if let Some(index) = self.passed.iter().position(fits) {
            return self.passed.remove(index);
        }
        let found = timeout(PATIENCE, async {
            while let Some(line) = self.line().await {
                if fits(&line) {
                    return Some(line);
                }
                self.passed.push(line);
            }
            None
        });
        match found.await {
            Ok(Some(line)) => line,
            other => panic!("{}: no {kind} ({other:?}) after {:?}", self.name, self.passed),
        }
    }
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
