//! What gateways and applications tell all gateways about users and rooms.
//!
//! A message is published on `gateway.control` of every shard that can be reached, so that
//! no shard is needed in particular; each gateway carries an id out once. What does not
//! arrive at all is found when sessions are looked at again.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use lru::LruCache;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shard_router::router::Router;
use tokio::sync::mpsc;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::{
    auth::Authenticator,
    hub::{Room, frame::Frame},
    identity::{SessionId, UserId},
    live::{Live, Stopped, Target},
    metrics,
    mirror::keeper::CONTROL,
    outbox::CloseReason,
    protocol,
};

/// One message.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Message {
    /// What makes it be carried out once; an application may leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What is to be done.
    pub op: Op,
    /// To all connections of this user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// To all connections of this session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// To whoever hears this room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<String>,
    /// For `disconnect`: whether the clients shall not come back by themselves.
    #[serde(default, rename = "final", skip_serializing_if = "std::ops::Not::not")]
    pub is_final: bool,
    /// For `emit`: the event's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// For `emit`: its arguments; clients get the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<Box<RawValue>>,
}

impl Message {
    /// Makes a message that says nothing yet of whom it is about.
    #[must_use]
    pub const fn new(op: Op) -> Self {
        Self {
            id: None,
            op,
            user: None,
            session: None,
            room: None,
            is_final: false,
            event: None,
            args: Vec::new(),
        }
    }
}

/// What a message wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Close connections.
    Disconnect,
    /// Look at sessions again.
    Refresh,
    /// Send an event.
    Emit,
}

/// Why a message is not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// It is not what a message is.
    #[error("control message is not understood: {0}")]
    Bad(String),
    /// The gateway stops.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Ids that are remembered; older ones would be carried out again.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(10_000).expect("is not zero");
/// Messages that wait to be carried out; behind them the shard connections wait.
const QUEUE: usize = 1_024;

/// Carries messages out here and relays them to the others.
#[derive(Debug)]
pub struct Control {
    live: Live,
    router: Arc<Router>,
    auth: Arc<Authenticator>,
    /// Held for one look-up: a message comes by every shard, and from ourselves.
    seen: Mutex<LruCache<String, ()>>,
}

/// Takes messages in as they are heard; never waits.
#[derive(Debug, Clone)]
pub struct Inbox(mpsc::Sender<Bytes>);

/// Makes the way from the shards to [`Control::run`].
#[must_use]
pub fn inbox() -> (Inbox, mpsc::Receiver<Bytes>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Inbox(sender), receiver)
}

impl Inbox {
    /// Takes a message in; one too many is dropped and counted.
    pub fn offer(&self, message: Bytes) {
        if self.0.try_send(message).is_err() {
            metrics::mirror_error("control_overflow");
            warn!(
                "Too many control messages wait; one is dropped and left to the next look at its session."
            );
        }
    }
}

impl Control {
    /// Makes the control of this gateway.
    #[must_use]
    pub fn new(live: Live, router: Arc<Router>, auth: Arc<Authenticator>) -> Self {
        Self { live, router, auth, seen: Mutex::new(LruCache::new(REMEMBERED)) }
    }

    /// Carries out what is heard, until nothing can come any more.
    pub async fn run(&self, mut heard: mpsc::Receiver<Bytes>) {
        while let Some(message) = heard.recv().await {
            let carried = match serde_json::from_slice::<Message>(&message) {
                Ok(message) if self.is_new(&message) => self.carry_out(&message).await,
                Ok(_) => continue,
                Err(error) => Err(ControlError::Bad(error.to_string())),
            };
            match carried {
                Ok(clients) => debug!(clients, "A control message was carried out."),
                Err(error) => {
                    metrics::mirror_error("control");
                    warn!(%error, "A control message was ignored.");
                }
            }
        }
    }

    fn is_new(&self, message: &Message) -> bool {
        let Some(id) = &message.id else { return true };
        self.seen.lock().expect("no holder of this lock panics").put(id.clone(), ()).is_none()
    }

    /// Carries a message out here and tells it to every shard that can be reached.
    ///
    /// Returns how many clients it concerned here.
    ///
    /// # Errors
    ///
    /// Returns [`ControlError`] when the message makes no sense or the gateway stops; shards
    /// that are away are no error.
    pub async fn tell(&self, mut message: Message) -> Result<usize, ControlError> {
        message.id = Some(Uuid::new_v4().to_string());
        self.is_new(&message);
        let clients = self.carry_out(&message).await?;
        let text = serde_json::to_vec(&message).expect("a message is JSON");
        for (shard, _) in self.router.shards() {
            if let Err(error) = self.router.relay(shard, CONTROL, text.clone()).await {
                debug!(shard, %error, "A shard did not relay a control message.");
            }
        }
        Ok(clients)
    }

    async fn carry_out(&self, message: &Message) -> Result<usize, ControlError> {
        let target = target(message)?;
        match message.op {
            Op::Disconnect => {
                self.forget(&target);
                let reason =
                    if message.is_final { CloseReason::AskedFinally } else { CloseReason::Asked };
                Ok(self.live.close(target, reason).await?)
            }
            Op::Refresh => {
                self.forget(&target);
                Ok(self.live.refresh(target).await?)
            }
            Op::Emit => {
                let (room, event) = match (target, &message.event) {
                    (Target::Room(room), Some(event)) => (room, event),
                    (Target::User(user), Some(event)) => (Room::User(user), event),
                    _ => {
                        return Err(ControlError::Bad("emit needs a room and an event".to_owned()));
                    }
                };
                protocol::check_event_name(event).map_err(ControlError::Bad)?;
                let argument = message.args.first().map_or("null", |argument| argument.get());
                self.live.emit(room, Frame::event(event, argument)).await?;
                Ok(0)
            }
        }
    }

    /// A message says that what was read before is old.
    fn forget(&self, target: &Target) {
        match target {
            Target::Session(session) => self.auth.forget(session),
            Target::User(user) => self.auth.forget_user(user),
            Target::Room(_) => {}
        }
    }
}

fn target(message: &Message) -> Result<Target, ControlError> {
    let bad = |error: String| ControlError::Bad(error);
    match (&message.user, &message.session, &message.room) {
        (Some(user), None, None) if !user.is_empty() => Ok(Target::User(UserId::new(user))),
        (None, Some(session), None) if !session.is_empty() => {
            Ok(Target::Session(SessionId::new(session)))
        }
        (None, None, Some(room)) => {
            Ok(Target::Room(room.parse().map_err(|error| bad(format!("{error}")))?))
        }
        _ => Err(bad("exactly one of `user`, `session` and `room` is wanted".to_owned())),
    }
}
