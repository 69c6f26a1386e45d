//! The live state: one task owns mirrors, views and rooms, so that their order is one.
//!
//! What the shards tell becomes events and is fanned out here; a client that joins gets
//! its snapshot and enters its rooms in one step of this task, so that nothing is missed
//! between the two and nothing comes twice. The task never waits for a client or a shard.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use shard_router::{router::Router, topology::Topology};
use tokio::sync::{mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    hub::{ClientId, Room, frame::Frame},
    identity::{Identity, Session, SessionId, UserId},
    mirror::keeper,
    outbox::{CloseReason, Outbox},
    protocol::Claims,
    tree::{Allow, Tree},
};

mod client;
mod hung;
mod links;
mod passing;
mod resume;
mod rounds;
mod shelf;
mod sorted;
mod state;
mod topology;
mod view;
mod waiting;

use resume::Asked;
use state::State;

/// How the live state behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How mirrors behave.
    pub keeper: keeper::Settings,
    /// What hangs where.
    pub tree: Arc<Tree>,
    /// What may be subscribed to by name.
    pub allow: Arc<Allow>,
    /// The logical names of the shards, in the router's order.
    pub shards: Vec<String>,
    /// How often each client's session is looked at again.
    pub recheck: Duration,
}

/// What the live state hears besides feeds; called in its task, must not block.
pub trait Listener: Send + 'static {
    /// A job of one of our queues is finished.
    fn finished(&self, queue: &str, id: &str, result: Bytes);
    /// Another gateway, or an application, says something on `gateway.control`.
    fn control(&self, message: Bytes);
    /// A shard is heard, or not any more.
    fn shard(&self, shard: usize, up: bool);
    /// A subscription connection of ours is deaf where another would hear, or none is any more.
    fn deaf(&self, is_deaf: bool);
}

/// What a client's session is told by the live state; called in its task, must not block.
pub trait Attendant: fmt::Debug + Send + Sync {
    /// The session is to be looked at again; `fresh` allows no answer older than this.
    fn look(self: Arc<Self>, fresh: bool);
    /// A client that resumes had as long as it may to say what it holds.
    fn late(self: Arc<Self>);
}

/// Commands that wait for the task.
const COMMANDS: usize = 1_024;

/// A handle of the live state.
#[derive(Debug, Clone)]
pub struct Live {
    commands: mpsc::Sender<Command>,
    next_client: Arc<AtomicU64>,
}

/// The live state has stopped, as it does when the gateway does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("gateway is stopping")]
pub struct Stopped;

/// Which clients a call is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// All connections of a user.
    User(UserId),
    /// All connections of a session.
    Session(SessionId),
    /// Whoever hears a room.
    Room(Room),
}

/// One connection of a user, as an operator sees it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Inspected {
    /// The number of the connection.
    pub client: u64,
    /// The rooms that it hears.
    pub rooms: Vec<String>,
    /// The feeds that it hears and their versions; none where it is not known.
    pub feeds: BTreeMap<String, Option<String>>,
}

#[derive(Debug)]
enum Command {
    Join {
        client: ClientId,
        session: Session,
        outbox: Outbox,
        attendant: Arc<dyn Attendant>,
        resumes: bool,
    },
    Resume {
        client: ClientId,
        most: usize,
        asked: Asked,
    },
    Leave(ClientId),
    Identity {
        client: ClientId,
        identity: Identity,
    },
    Subscribe {
        client: ClientId,
        feed: Arc<str>,
        call: Option<u64>,
    },
    Unsubscribe {
        client: ClientId,
        feed: Arc<str>,
        reply: oneshot::Sender<bool>,
    },
    Sees {
        client: ClientId,
        feed: String,
        reply: oneshot::Sender<bool>,
    },
    Close {
        target: Target,
        reason: CloseReason,
        reply: oneshot::Sender<usize>,
    },
    Refresh {
        target: Target,
        reply: oneshot::Sender<usize>,
    },
    Emit {
        room: Room,
        frame: Frame,
    },
    Inspect {
        user: UserId,
        reply: oneshot::Sender<Vec<Inspected>>,
    },
    CloseAll(CloseReason),
    Topology(Topology),
}

impl Live {
    /// Starts the live state; when `drain` is cancelled it closes whoever is left, and ends.
    #[must_use]
    pub fn start(
        settings: Settings,
        router: Arc<Router>,
        listener: impl Listener,
        tracker: &TaskTracker,
        drain: CancellationToken,
    ) -> Self {
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let state = State::new(settings, router, Box::new(listener), tracker.clone());
        tracker.spawn(state.run(inbox, drain));
        Self { commands, next_client: Arc::default() }
    }

    /// Returns a number for a client that is to join.
    #[must_use]
    pub fn next_client(&self) -> ClientId {
        ClientId(self.next_client.fetch_add(1, Ordering::Relaxed))
    }

    /// Takes a client in: it gets `initial` and hears its rooms from then on.
    ///
    /// One that `resumes` is told nothing before [`Live::resume`]. Its attendant is told when
    /// that takes too long, and when its session is to be looked at again: now and then, and
    /// whenever something is said about it behind this call.
    ///
    /// # Errors
    ///
    /// Returns [`Stopped`].
    pub async fn join(
        &self,
        client: ClientId,
        session: Session,
        outbox: Outbox,
        attendant: Arc<dyn Attendant>,
        resumes: bool,
    ) -> Result<(), Stopped> {
        self.tell(Command::Join { client, session, outbox, attendant, resumes }).await
    }

    /// Tells a client what it lacks of what it says it holds; `initial` where it holds nothing.
    ///
    /// `call` is answered with how many feeds came without and with a `reset`. Returns the
    /// feeds that the client hears by their names from then on, at most `most` new ones;
    /// it takes until they are read, or 2 s.
    ///
    /// # Errors
    ///
    /// Returns [`Stopped`].
    pub async fn resume(
        &self,
        client: ClientId,
        claims: Claims,
        call: Option<u64>,
        most: usize,
    ) -> Result<Vec<Arc<str>>, Stopped> {
        self.ask(|reply| {
            let asked = Asked { claims, call, reply };
            Command::Resume { client, most, asked }
        })
        .await
    }

    /// Forgets a client.
    pub async fn leave(&self, client: ClientId) {
        // A stopped state has forgotten everybody.
        let _ = self.commands.send(Command::Leave(client)).await;
    }

    /// Brings a client's rooms in line with the teams that it is in by now.
    ///
    /// # Errors
    ///
    /// Returns [`Stopped`].
    pub async fn identity(&self, client: ClientId, identity: Identity) -> Result<(), Stopped> {
        self.tell(Command::Identity { client, identity }).await
    }

    /// Lets a client hear a feed by its name; `call` is answered with its collection.
    ///
    /// Whether the client may is for the caller to know.
    ///
    /// # Errors
    ///
    /// Returns [`Stopped`].
    pub async fn subscribe(
        &self,
        client: ClientId,
        feed: Arc<str>,
        call: Option<u64>,
    ) -> Result<(), Stopped> {
        self.tell(Command::Subscribe { client, feed, call }).await
    }

    /// Lets a client hear a feed by its name no longer; `false` if it did not.
    ///
    /// # Errors
    ///
    /// Returns [`Stopped`].
    pub async fn unsubscribe(&self, client: ClientId, feed: &str) -> Result<bool, Stopped> {
        self.ask(|reply| Command::Unsubscribe { client, feed: feed.into(), reply }).await
    }

    /// Tells whether a feed hangs in a client's tree now.
    ///
    /// # Errors
    ///
    /// Returns [`Stopped`].
    pub async fn sees(&self, client: ClientId, feed: &str) -> Result<bool, Stopped> {
        self.ask(|reply| Command::Sees { client, feed: feed.to_owned(), reply }).await
    }

    /// Closes clients; returns how many.
    ///
    /// # Errors
    ///
    /// Returns [`Stopped`].
    pub async fn close(&self, target: Target, reason: CloseReason) -> Result<usize, Stopped> {
        self.ask(|reply| Command::Close { target, reason, reply }).await
    }

    /// Has the sessions of clients looked at again; returns how many clients there are.
    ///
    /// # Errors
    ///
    /// Returns [`Stopped`].
    pub async fn refresh(&self, target: Target) -> Result<usize, Stopped> {
        self.ask(|reply| Command::Refresh { target, reply }).await
    }

    /// Sends an event to a room.
    ///
    /// # Errors
    ///
    /// Returns [`Stopped`].
    pub async fn emit(&self, room: Room, frame: Frame) -> Result<(), Stopped> {
        self.tell(Command::Emit { room, frame }).await
    }

    /// Lists the connections of a user.
    ///
    /// # Errors
    ///
    /// Returns [`Stopped`].
    pub async fn inspect(&self, user: UserId) -> Result<Vec<Inspected>, Stopped> {
        self.ask(|reply| Command::Inspect { user, reply }).await
    }

    /// Closes every client, and whoever joins from now on.
    ///
    /// # Errors
    ///
    /// Returns [`Stopped`].
    pub async fn close_all(&self, reason: CloseReason) -> Result<(), Stopped> {
        self.tell(Command::CloseAll(reason)).await
    }

    /// Goes over to another topology; clients see what differs where their feeds are now.
    ///
    /// # Errors
    ///
    /// Returns [`Stopped`].
    pub async fn topology(&self, topology: Topology) -> Result<(), Stopped> {
        self.tell(Command::Topology(topology)).await
    }

    async fn tell(&self, command: Command) -> Result<(), Stopped> {
        self.commands.send(command).await.map_err(|_| Stopped)
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.tell(command(reply)).await?;
        answer.await.map_err(|_| Stopped)
    }
}
