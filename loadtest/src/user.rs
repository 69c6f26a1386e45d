//! One virtual user: connects, gets its `initial`, and listens until it is told to stop.
//!
//! The only file that knows the websocket library.

use std::{
    collections::BTreeMap,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::{
    net::TcpStream,
    time::{sleep_until, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Error, Message,
        client::IntoClientRequest,
        http::{HeaderValue, header::COOKIE},
        protocol::WebSocketConfig,
    },
};
use tokio_util::sync::CancellationToken;

use crate::{
    board::{Board, Count},
    flags::{Plan, Target, Who},
    receipts::Receipts,
    wire::{self, Packet, Timing},
};

/// A client that reads little at a time costs the tester little.
const READ_BUFFER: usize = 4 << 10;
/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_secs(1);
/// A server with more event names than this has the rest counted together.
const MAX_NAMES: usize = 64;
/// Where those are counted.
const OTHERS: &str = "(others)";

/// What happened to one user.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What it got at first; `None` where it did not get in.
    pub initial: Option<Initial>,
    /// Events behind `initial`, by name.
    pub events: BTreeMap<String, u64>,
    /// What it noted of what was published, if it hears that feed.
    pub receipts: Option<Receipts>,
    /// What went wrong, if anything did.
    pub trouble: Option<Trouble>,
}

/// How a user got in.
#[derive(Debug, Clone, Copy)]
pub struct Initial {
    /// From the first byte to the open websocket.
    pub connected: Duration,
    /// From the first byte to the whole `initial`.
    pub got: Duration,
    /// Bytes of its frame.
    pub bytes: usize,
}

/// Why a user did not get in, or was lost.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Trouble {
    /// No TCP connection.
    #[error("connect: {0}")]
    Connect(io::ErrorKind),
    /// Another HTTP answer than that of a websocket.
    #[error("HTTP {0}")]
    Http(u16),
    /// Not let into the namespace.
    #[error("refused: {0}")]
    Refused(String),
    /// No `initial` in time.
    #[error("no initial in time")]
    NoInitial,
    /// The run ended first.
    #[error("run ended first")]
    CutOff,
    /// A subscription was not granted.
    #[error("subscribe: code {0}")]
    NotSubscribed(u64),
    /// Put out of the namespace.
    #[error("disconnected by the server")]
    Disconnected,
    /// The connection ended.
    #[error("closed by the server")]
    Closed,
    /// Nothing came for longer than a ping and its time-out.
    #[error("no ping or pong in time")]
    Deaf,
    /// The connection broke.
    #[error("connection broke: {0}")]
    Broken(io::ErrorKind),
    /// What came is not what the protocol says.
    #[error("not the protocol: {0}")]
    Protocol(String),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match error {
            Error::Http(response) => Self::Http(response.status().as_u16()),
            Error::Io(error) => Self::Broken(error.kind()),
            Error::ConnectionClosed | Error::AlreadyClosed => Self::Closed,
            Error::Protocol(
                tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
            ) => Self::Broken(io::ErrorKind::ConnectionReset),
            error => Self::Protocol(error.to_string().chars().take(80).collect()),
        }
    }
}

/// Runs one user until `stop`, and tells what happened.
pub async fn run(
    plan: Arc<Plan>,
    number: usize,
    board: Arc<Board>,
    stop: CancellationToken,
) -> Outcome {
    board.raise(Count::Started);
    let mut outcome = Outcome::default();
    let target = &plan.targets[number % plan.targets.len()];
    let who = (!plan.who.is_empty()).then(|| &plan.who[number % plan.who.len()]);
    let entering = timeout(plan.timeout, enter(&plan, target, who, &board, &mut outcome));
    let entered = tokio::select! {
        entered = entering => entered.unwrap_or(Err(Trouble::NoInitial)),
        () = stop.cancelled() => Err(Trouble::CutOff),
    };
    let mut user = match entered {
        Ok(user) => user,
        Err(trouble) => {
            board.raise(Count::Failed);
            outcome.initial = None;
            outcome.trouble = Some(trouble);
            return outcome;
        }
    };
    if outcome.receipts.is_some() {
        board.raise(Count::Hears);
    }
    board.raise(Count::In);
    tokio::select! {
        trouble = user.listen(&board, &mut outcome) => {
            board.raise(Count::Lost);
            outcome.trouble = Some(trouble);
        }
        () = stop.cancelled() => {
            let _ = timeout(FAREWELL, user.socket.close(None)).await;
        }
    }
    outcome
}

/// A user that is connected.
struct User {
    socket: WebSocketStream<TcpStream>,
    timing: Timing,
    /// Whether it is we who ping.
    pings: bool,
    heard: Instant,
}

async fn enter(
    plan: &Plan,
    target: &Target,
    who: Option<&Who>,
    board: &Board,
    outcome: &mut Outcome,
) -> Result<User, Trouble> {
    let began = Instant::now();
    let socket = connect(plan, target, who).await?;
    let connected = began.elapsed();
    let pings = plan.protocol == wire::Protocol::Eio3;
    let timing = Timing { interval: plan.timeout, timeout: plan.timeout };
    let mut user = User { socket, timing, pings, heard: Instant::now() };
    let open = user.next().await?;
    let Some(Packet::Open(timing)) = Packet::read(&open) else {
        return Err(protocol(&open));
    };
    user.timing = timing;
    if !pings {
        user.send("40".to_owned()).await?;
    }
    loop {
        let frame = user.next().await?;
        if let Some(Packet::Event { name: "initial", array }) = user.packet(&frame).await? {
            let initial = Initial { connected, got: began.elapsed(), bytes: frame.len() };
            outcome.initial = Some(initial);
            if let Some(publish) = &plan.publish {
                let hears = publish.everybody
                    || plan.listen.contains(&publish.feed)
                    || wire::shows_feed(array, &publish.feed);
                outcome.receipts = hears.then(|| Receipts::of(publish.count));
            }
            break;
        }
    }
    for (call, feed) in (0..).zip(&plan.listen) {
        user.send(wire::call(call, "subscribe", &json!({ "feed": feed }))).await?;
        loop {
            let frame = user.next().await?;
            match user.packet(&frame).await? {
                Some(Packet::Ack { call: answered, array }) if answered == call => {
                    match wire::ack_code(array) {
                        Some(200) => break,
                        code => return Err(Trouble::NotSubscribed(code.unwrap_or(0))),
                    }
                }
                Some(Packet::Event { name, array }) => note(name, array, board, outcome),
                _ => {}
            }
        }
    }
    Ok(user)
}

async fn connect(
    plan: &Plan,
    target: &Target,
    who: Option<&Who>,
) -> Result<WebSocketStream<TcpStream>, Trouble> {
    let Target { authority } = target;
    let revision = plan.protocol.revision();
    let mut url = format!("ws://{authority}{}?EIO={revision}&transport=websocket", plan.path);
    if let Some(Who::Demo(user)) = who {
        url.push_str("&demo_user=");
        url.push_str(user);
    }
    let mut request = url.into_client_request()?;
    if let Some(Who::Cookie(cookie)) = who {
        let cookie = HeaderValue::from_str(cookie).expect("cookies were checked with the flags");
        request.headers_mut().insert(COOKIE, cookie);
    }
    let stream =
        TcpStream::connect(authority).await.map_err(|error| Trouble::Connect(error.kind()))?;
    // Without it, small frames wait for the acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER).write_buffer_size(0);
    Ok(client_async_with_config(request, stream, Some(config)).await?.0)
}

impl User {
    /// Reads until the connection ends, and tells how it did.
    async fn listen(&mut self, board: &Board, outcome: &mut Outcome) -> Trouble {
        let mut alarm = Box::pin(sleep_until(self.next_alarm().into()));
        loop {
            tokio::select! {
                frame = self.next() => {
                    let frame = match frame {
                        Ok(frame) => frame,
                        Err(trouble) => return trouble,
                    };
                    match self.packet(&frame).await {
                        Ok(Some(Packet::Event { name, array })) => {
                            note(name, array, board, outcome);
                        }
                        Ok(_) => {}
                        Err(trouble) => return trouble,
                    }
                }
                () = &mut alarm => {
                    if self.heard.elapsed() > self.timing.interval + self.timing.timeout {
                        return Trouble::Deaf;
                    }
                    if self.pings && let Err(trouble) = self.send("2".to_owned()).await {
                        return trouble;
                    }
                    alarm.as_mut().reset(self.next_alarm().into());
                }
            }
        }
    }

    fn next_alarm(&self) -> Instant {
        Instant::now() + self.timing.interval
    }

    /// Waits for a text frame.
    async fn next(&mut self) -> Result<String, Trouble> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => {
                    self.heard = Instant::now();
                    return Ok(text.as_str().to_owned());
                }
                Some(Ok(Message::Close(_))) | None => return Err(Trouble::Closed),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
            }
        }
    }

    /// Reads a frame and does what the protocol wants; what is left is for the caller.
    async fn packet<'a>(&mut self, frame: &'a str) -> Result<Option<Packet<'a>>, Trouble> {
        match Packet::read(frame) {
            None => Err(protocol(frame)),
            Some(Packet::Ping) => self.send("3".to_owned()).await.map(|()| None),
            Some(Packet::Refused(reason)) => Err(Trouble::Refused(reason)),
            Some(Packet::Disconnected) => Err(Trouble::Disconnected),
            Some(Packet::Close) => Err(Trouble::Closed),
            Some(packet) => Ok(Some(packet)),
        }
    }

    async fn send(&mut self, frame: String) -> Result<(), Trouble> {
        Ok(self.socket.send(Message::text(frame)).await?)
    }
}

fn protocol(frame: &str) -> Trouble {
    Trouble::Protocol(frame.chars().take(40).collect())
}

fn note(name: &str, array: &str, board: &Board, outcome: &mut Outcome) {
    board.raise(Count::Events);
    match outcome.events.get_mut(name) {
        Some(count) => *count += 1,
        None => {
            let name = if outcome.events.len() < MAX_NAMES { name } else { OTHERS };
            *outcome.events.entry(name.to_owned()).or_default() += 1;
        }
    }
    if let Some(receipts) = &mut outcome.receipts
        && let Some(number) = board.arrived(array)
    {
        receipts.note(number);
    }
}
