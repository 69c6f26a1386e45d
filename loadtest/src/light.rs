//! Clients that cost little: websockets framed by hand, a task each, no buffer while idle.
//!
//! A [`Client`] comes back by itself as socket.io's clients do, and says `resume` each time if it
//! is told to. It can be cut, made deaf and closed from outside. What it hears goes to its
//! [`Listener`], in order, and nowhere else: a cheap one counts, a full one keeps a
//! [`Tree`](crate::tree::Tree).

mod conversation;
mod dial;
mod frames;
mod run;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use crate::wire::Protocol;

/// Commands that wait for one client; who gives more waits.
const COMMANDS: usize = 4;
/// So many connections fit one source address with room to spare: the system has some 28,000
/// local ports for each.
const PER_SOURCE: usize = 10_000;

/// What hears a client.
pub trait Listener: Send + 'static {
    /// Returns the argument of `resume`; only asked of clients that resume.
    fn resume(&mut self) -> String;

    /// Hears an event; its argument is JSON, empty where it has none.
    fn event(&mut self, name: &str, argument: &str);

    /// Hears the answer to a call, `resume` included, where it stands among the events.
    fn answer(&mut self, event: &str, argument: &str, answer: &str) {
        let _ = (event, argument, answer);
    }

    /// Learns that the namespace is joined.
    fn connected(&mut self) {}

    /// Learns that a connection ended or could not be made.
    fn lost(&mut self, why: &Lost) {
        let _ = why;
    }
}

/// Who a client is and where it goes.
#[derive(Debug, Clone)]
pub struct Options {
    /// The servers; it begins with the one at `first`.
    pub targets: Arc<[SocketAddr]>,
    /// Where it begins.
    pub first: usize,
    /// Whether it comes back to any of the servers at random, else to the same.
    pub roams: bool,
    /// What it speaks.
    pub protocol: Protocol,
    /// The header `Cookie`; empty for none.
    pub cookie: String,
    /// Whether it connects with `resume=1` and says what it holds.
    pub resumes: bool,
    /// The address that it comes from.
    pub source: Option<IpAddr>,
    /// A small one makes a server feel soon that the client does not read.
    pub receive_buffer: Option<u32>,
    /// The first pause before it comes back by itself; it doubles each time, and is jittered.
    pub pause: Duration,
    /// The longest pause.
    pub max_pause: Duration,
    /// How long dialling and joining may take.
    pub timeout: Duration,
    /// What its choices are drawn from.
    pub seed: u64,
}

impl Options {
    /// Describes a client with the pauses of socket.io's clients.
    #[must_use]
    pub fn new(targets: Arc<[SocketAddr]>, protocol: Protocol, cookie: String) -> Self {
        Self {
            targets,
            first: 0,
            roams: false,
            protocol,
            cookie,
            resumes: false,
            source: None,
            receive_buffer: None,
            pause: Duration::from_secs(1),
            max_pause: Duration::from_secs(5),
            timeout: Duration::from_secs(20),
            seed: 0,
        }
    }
}

/// Returns the source address of the client with this number: 127.0.0.2 and its neighbours, so
/// that there are local ports for all, and none of them is one that a server listens on.
#[must_use]
pub fn source(number: usize) -> IpAddr {
    let number = u32::try_from(number / PER_SOURCE).unwrap_or(0) & 0x00ff_ffff;
    IpAddr::V4(Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits().saturating_add(1 + number)))
}

/// Why a connection ended or was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// No TCP connection.
    #[error("cannot be reached: {0}")]
    Unreachable(io::ErrorKind),
    /// Another answer than that of a websocket.
    #[error("HTTP {0}")]
    Http(u16),
    /// Not let into the namespace; it does not come back by itself.
    #[error("refused: {0}")]
    Refused(String),
    /// Put out of the namespace; it does not come back by itself.
    #[error("disconnected by the server")]
    Disconnected,
    /// The server ended the connection.
    #[error("closed by the server")]
    Closed,
    /// Nothing came for longer than a ping and its time-out, or the joining took too long.
    #[error("nothing heard in time")]
    Deaf,
    /// The connection broke.
    #[error("connection broke: {0}")]
    Broken(io::ErrorKind),
    /// What came is not what the protocol says.
    #[error("not the protocol: {0}")]
    Protocol(String),
    /// [`Client::cut`] was called.
    #[error("cut")]
    Cut,
}

impl From<io::Error> for Lost {
    fn from(error: io::Error) -> Self {
        Self::Broken(error.kind())
    }
}

impl From<String> for Lost {
    fn from(text: String) -> Self {
        Self::Protocol(text)
    }
}

/// A call was not made or not answered: the client is not connected, or was lost meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not connected")]
pub struct NotConnected;

#[derive(Debug)]
enum Command {
    Cut { away: Duration },
    Read(bool),
    Cookie(String),
    Return,
    Call { event: Box<str>, argument: Box<str>, reply: oneshot::Sender<String> },
    Leave,
}

/// A client that runs; dropping it cuts its connection for good.
#[derive(Debug)]
pub struct Client<L> {
    commands: mpsc::Sender<Command>,
    /// Held by the client's task for one event, and by whoever looks at the account.
    listener: Arc<Mutex<L>>,
    is_in: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl<L: Listener> Client<L> {
    /// Starts a client on the runtime that this is called from.
    #[must_use]
    pub fn spawn(options: Options, listener: L) -> Self {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let listener = Arc::new(Mutex::new(listener));
        let is_in = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(run::run(options, receiver, listener.clone(), is_in.clone()));
        Self { commands, listener, is_in, task }
    }

    /// Tells whether it is connected and has joined the namespace.
    #[must_use]
    pub fn is_in(&self) -> bool {
        self.is_in.load(Ordering::Relaxed)
    }

    /// Lets somebody look at its listener, and nobody else meanwhile.
    pub fn listener(&self) -> MutexGuard<'_, L> {
        self.listener.lock().expect("no holder of this lock panics")
    }

    /// Cuts the connection by a TCP reset; the client comes back after this time.
    pub async fn cut(&self, away: Duration) {
        self.say(Command::Cut { away }).await;
    }

    /// Reads no more, so that what the server sends has to wait there.
    pub async fn stop_reading(&self) {
        self.say(Command::Read(false)).await;
    }

    /// Goes on reading, on this connection or on the next.
    pub async fn go_on_reading(&self) {
        self.say(Command::Read(true)).await;
    }

    /// Takes another cookie from the next connection on.
    pub async fn set_cookie(&self, cookie: String) {
        self.say(Command::Cookie(cookie)).await;
    }

    /// Comes back now, also where it would not come back by itself.
    pub async fn come_back(&self) {
        self.say(Command::Return).await;
    }

    /// Makes a call, and returns its answer.
    ///
    /// # Errors
    ///
    /// Returns [`NotConnected`] when it is not connected, or lost before the answer.
    pub async fn call(&self, event: &str, argument: &str) -> Result<String, NotConnected> {
        let (reply, answer) = oneshot::channel();
        self.say(Command::Call { event: event.into(), argument: argument.into(), reply }).await;
        answer.await.map_err(|_| NotConnected)
    }

    /// Closes the connection as a page does, and waits until it is closed.
    pub async fn leave(self) -> Arc<Mutex<L>> {
        self.say(Command::Leave).await;
        // A listener that panicked is told by its lock.
        let _ = self.task.await;
        self.listener
    }

    /// Cuts the connection by a TCP reset for good, and waits until that is done.
    pub async fn end(self) {
        drop(self.commands);
        // A listener that panicked is told by its lock.
        let _ = self.task.await;
    }

    async fn say(&self, command: Command) {
        // The task ends before its handle only by a listener's panic, which the lock tells.
        let _ = self.commands.send(command).await;
    }
}
