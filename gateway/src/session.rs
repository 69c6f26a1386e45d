//! One client's life: joins, asks, is looked at again, leaves.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use shard_router::feed::names;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use crate::{
    auth::{AuthError, Authenticator},
    hub::ClientId,
    identity::{Identity, SessionId},
    limits::Rate,
    live::{Live, Stopped},
    metrics,
    outbox::{CloseReason, Outbox},
    protocol::{self, CallError, Claims, ClientMessage, Edit},
    rpc::{Rpc, edit},
    socket::{Connection, Full, Inbound, Inbox},
    tree::{Allow, Tree},
};

/// How long a client that asked to resume may take to say what it holds.
const RESUME_WITHIN: Duration = Duration::from_secs(5);
/// Calls of one client that may be open at once.
const OPEN_CALLS: usize = 64;

/// What every session uses.
#[derive(Debug)]
pub struct Parts {
    /// Where feeds are heard.
    pub live: Live,
    /// Where calls go.
    pub rpc: Arc<Rpc>,
    /// Who looks sessions up.
    pub auth: Arc<Authenticator>,
    /// What may be subscribed to by name.
    pub allow: Arc<Allow>,
    /// What hangs where, and who may edit it.
    pub tree: Arc<Tree>,
    /// How often a session is looked at again.
    pub recheck: Duration,
    /// How many feeds one client may hear by name.
    pub max_subscriptions: Option<usize>,
    /// How many messages one client may send in a second.
    pub messages_per_second: Option<u32>,
    /// Who waits for the calls that are open.
    pub tracker: TaskTracker,
    /// Cancelled when the gateway has closed its clients; who came in between goes as well.
    pub end: CancellationToken,
}

/// One client's session.
struct Session {
    parts: Arc<Parts>,
    client: ClientId,
    id: SessionId,
    identity: Identity,
    outbox: Outbox,
    open: Arc<AtomicUsize>,
    subscriptions: std::collections::HashSet<String>,
    /// Whether it is still to say what it holds, and has no state before it does.
    awaits_resume: bool,
    /// For each feed, the end of the edit that was asked for last.
    edits: HashMap<String, oneshot::Receiver<()>>,
    rate: Rate,
}

/// Hands a client's messages to its session.
struct Sender(mpsc::Sender<Inbound>);

impl Inbox for Sender {
    fn event(&self, event: Inbound) -> Result<(), Full> {
        match self.0.try_send(event) {
            Err(mpsc::error::TrySendError::Full(_)) => Err(Full),
            _ => Ok(()),
        }
    }
}

/// Takes a client over; its session runs until it has left or the gateway stops.
#[must_use]
pub fn accept(connection: Connection, parts: &Arc<Parts>, inbound: usize) -> Box<dyn Inbox> {
    let (sender, inbound) = mpsc::channel(inbound);
    parts.tracker.spawn(run(connection, inbound, parts.clone()));
    Box::new(Sender(sender))
}

async fn run(connection: Connection, inbound: mpsc::Receiver<Inbound>, parts: Arc<Parts>) {
    let Connection { session, outbox, resume, .. } = connection;
    let refresh = Arc::new(Notify::new());
    let joined = parts.live.join(session.clone(), outbox.clone(), refresh.clone(), resume).await;
    let Ok(client) = joined else { return outbox.close(CloseReason::Draining) };
    let session = Session {
        client,
        id: session.id,
        identity: session.identity,
        outbox,
        open: Arc::default(),
        subscriptions: Default::default(),
        awaits_resume: resume,
        edits: HashMap::new(),
        rate: Rate::new(parts.messages_per_second),
        parts: parts.clone(),
    };
    // A stopping gateway closes everybody anyway.
    let _ = session.serve(inbound, refresh).await;
    parts.live.leave(client).await;
}

impl Session {
    async fn serve(
        mut self,
        mut inbound: mpsc::Receiver<Inbound>,
        refresh: Arc<Notify>,
    ) -> Result<(), Stopped> {
        let end = self.parts.end.clone();
        // Spread evenly, so that a restart does not make all sessions be looked at in one moment.
        let first = self.parts.recheck.mul_f64(rand::random_range(0.0..1.0));
        let mut recheck =
            tokio::time::interval_at(tokio::time::Instant::now() + first, self.parts.recheck);
        recheck.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // A message about the session may have come between its look-up and the join, when
        // there was nobody here to hear it; it made what was kept of the session be forgotten.
        self.look_again(false).await?;
        let late = tokio::time::sleep(RESUME_WITHIN);
        tokio::pin!(late);
        loop {
            tokio::select! {
                message = inbound.recv() => match message {
                    Some(message) => self.on_message(message).await?,
                    None => return Ok(()),
                },
                () = &mut late, if self.awaits_resume => {
                    self.resume(Claims::default(), None).await?;
                }
                () = refresh.notified() => self.look_again(true).await?,
                _ = recheck.tick() => self.look_again(false).await?,
                () = end.cancelled() => {
                    self.outbox.close(CloseReason::Draining);
                    return Ok(());
                }
            }
        }
    }

    async fn look_again(&mut self, fresh: bool) -> Result<(), Stopped> {
        match self.parts.auth.recheck(&self.id, fresh).await {
            Ok(identity) if identity.user != self.identity.user => {
                self.outbox.close(CloseReason::SessionEnded)
            }
            Ok(identity) if identity == self.identity => {}
            Ok(identity) => {
                self.identity = identity.clone();
                self.subscriptions.retain(|feed| self.parts.allow.may(&identity, feed));
                self.parts.live.identity(self.client, identity).await?;
            }
            Err(AuthError::Unauthorized(reason)) => {
                debug!(user = %self.identity.user, %reason, "Session has ended; closing its socket.");
                self.outbox.close(CloseReason::SessionEnded);
            }
            // A store that cannot answer says nothing about a session.
            Err(AuthError::StoreAway(reason)) => debug!(%reason, "Session could not be looked at."),
        }
        Ok(())
    }

    async fn on_message(&mut self, message: Inbound) -> Result<(), Stopped> {
        let Inbound { name, args, attachments, call } = message;
        if !self.rate.take() {
            self.answer(call, Err(CallError::TooMany("too many messages in a second".to_owned())));
            return Ok(());
        }
        if !attachments.is_empty() {
            self.answer(call, Err(CallError::bad("binary arguments are not taken")));
            return Ok(());
        }
        let message = match protocol::read(&name, &args, |name| self.parts.rpc.is_job(name)) {
            Ok(message) => message,
            Err(error) => {
                self.answer(call, Err(error));
                return Ok(());
            }
        };
        match message {
            ClientMessage::Subscribe(feed) => self.subscribe(feed, call).await?,
            ClientMessage::Unsubscribe(feed) => self.unsubscribe(feed, call).await?,
            ClientMessage::Resume(claims) if self.awaits_resume => {
                self.resume(claims, call).await?;
            }
            ClientMessage::Resume(_) => {
                let late = "this client has its state already; resume comes before anything else";
                self.answer(call, Err(CallError::Conflict(late.to_owned())));
            }
            ClientMessage::Edit(edit) => self.edit(edit, call),
            ClientMessage::Job { name, data } => {
                let (rpc, identity) = (self.parts.rpc.clone(), self.identity.clone());
                self.open(call, async move { rpc.job(&name, data, &identity).await });
            }
        }
        Ok(())
    }

    /// Gets the client what it lacks of what it holds.
    async fn resume(&mut self, claims: Claims, call: Option<u64>) -> Result<(), Stopped> {
        self.awaits_resume = false;
        let held = self.subscriptions.len();
        let most =
            self.parts.max_subscriptions.map_or(usize::MAX, |most| most.saturating_sub(held));
        let subscribed = self.parts.live.resume(self.client, claims, call, most).await?;
        self.subscriptions.extend(subscribed);
        Ok(())
    }

    async fn subscribe(&mut self, feed: String, call: Option<u64>) -> Result<(), Stopped> {
        if let Err(error) = names::check_feed(&feed) {
            self.answer(call, Err(CallError::bad(error.to_string())));
            return Ok(());
        }
        if !self.parts.allow.may(&self.identity, &feed) {
            self.answer(call, Err(CallError::Forbidden("you may not hear this feed".to_owned())));
            return Ok(());
        }
        let is_new = !self.subscriptions.contains(&feed);
        if is_new
            && self.parts.max_subscriptions.is_some_and(|most| self.subscriptions.len() >= most)
        {
            self.answer(call, Err(CallError::TooMany("too many subscriptions".to_owned())));
            return Ok(());
        }
        metrics::call(200);
        self.parts.live.subscribe(self.client, &feed, call).await?;
        self.subscriptions.insert(feed);
        Ok(())
    }

    async fn unsubscribe(&mut self, feed: String, call: Option<u64>) -> Result<(), Stopped> {
        self.subscriptions.remove(&feed);
        let answer = match self.parts.live.unsubscribe(self.client, &feed).await? {
            true => Ok(json!({ "code": 200 })),
            false => Err(CallError::Unknown("you do not hear this feed by its name".to_owned())),
        };
        self.answer(call, answer);
        Ok(())
    }

    /// Puts an edit behind the one before it of the same feed, so that they keep their order.
    fn edit(&mut self, edit: Edit, call: Option<u64>) {
        if let Err(error) = edit::may(&self.parts.tree, &edit, &self.identity) {
            return self.answer(call, Err(error));
        }
        // One that is refused must not stand between others.
        if self.is_full() {
            return self.answer(call, Err(too_many_open()));
        }
        self.edits
            .retain(|_, before| before.try_recv() == Err(oneshot::error::TryRecvError::Empty));
        let (done, turn) = oneshot::channel();
        let before = self.edits.insert(edit.feed.clone(), turn);
        let (rpc, identity) = (self.parts.rpc.clone(), self.identity.clone());
        let (live, client) = (self.parts.live.clone(), self.client);
        self.open(call, async move {
            // It is known when the client has its state. The session does not wait for that:
            // a client that comes back sends what it kept before it says what it holds.
            let sees = live.sees(client, &edit.feed).await;
            if let Some(before) = before {
                // It ends when the edit before has ended, however it has.
                let _ = before.await;
            }
            let answer = match sees {
                Ok(true) => rpc.edit(&edit, &identity).await,
                Ok(false) => Err(CallError::Forbidden("you may not see this feed".to_owned())),
                Err(stopped) => Err(CallError::Unavailable(stopped.to_string())),
            };
            drop(done);
            answer
        });
    }

    /// Carries a call out beside the session and answers it; one too many is refused.
    fn open(
        &self,
        call: Option<u64>,
        work: impl Future<Output = Result<Value, CallError>> + Send + 'static,
    ) {
        if self.is_full() {
            return self.answer(call, Err(too_many_open()));
        }
        self.open.fetch_add(1, Ordering::Relaxed);
        let (open, outbox) = (self.open.clone(), self.outbox.clone());
        let end = self.parts.end.clone();
        self.parts.tracker.spawn(async move {
            // The client of a gateway that ends is closed already, and its job stays queued.
            let Some(answered) = end.run_until_cancelled(work).await else { return };
            open.fetch_sub(1, Ordering::Relaxed);
            answer(&outbox, call, answered);
        });
    }

    /// Tells whether no further call may be opened; calls are opened by this task alone.
    fn is_full(&self) -> bool {
        self.open.load(Ordering::Relaxed) >= OPEN_CALLS
    }

    fn answer(&self, call: Option<u64>, answered: Result<Value, CallError>) {
        answer(&self.outbox, call, answered);
    }
}

fn too_many_open() -> CallError {
    CallError::TooMany("too many calls are open".to_owned())
}

fn answer(outbox: &Outbox, call: Option<u64>, answered: Result<Value, CallError>) {
    let answer = answered.unwrap_or_else(|error| error.to_json());
    let code = answer.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
    metrics::call(code.filter(|code| (200..600).contains(code)).unwrap_or(200));
    if let Some(call) = call {
        // A client that has left wants no answer.
        let _ = outbox.ack(call, protocol::ack(&answer));
    }
}
