//! One client's life: joins, asks, is looked at again, leaves.

use std::{
    collections::BTreeSet,
    sync::Arc,
    task::{Context, Waker},
};

use serde_json::{Value, json};
use shard_router::feed::names;
use tokio::{runtime::Handle, task::coop};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use crate::{
    auth::{AuthError, Authenticator},
    identity::{Identity, SessionId},
    limits::Rate,
    live::{Live, Stopped},
    metrics,
    outbox::{CloseReason, Outbox},
    protocol::{self, CallError, Claims, ClientMessage, Edit},
    rpc::{Rpc, edit},
    socket::{Connection, Inbound, Inbox},
    tree::{Allow, Tree},
};

mod desk;

use desk::{Desk, Look, OpenCall, Seat, Task};

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
    /// How many feeds one client may hear by name.
    pub max_subscriptions: Option<usize>,
    /// How many messages one client may send in a second.
    pub messages_per_second: Option<u32>,
    /// How many messages of one client may wait to be looked at.
    pub inbound_queue: usize,
    /// Who waits for sessions at work and for the calls that are open.
    pub tracker: TaskTracker,
    /// Where they run.
    pub runtime: Handle,
    /// Cancelled when the gateway has closed its clients.
    pub end: CancellationToken,
}

/// What a session keeps while nothing is done for it.
struct Notes {
    id: SessionId,
    identity: Identity,
    subscriptions: BTreeSet<Arc<str>>,
    /// Whether it is still to say what it holds, and has no state before it does.
    awaits_resume: bool,
    rate: Rate,
}

/// One client's session while something is done for it.
struct Session {
    desk: Arc<Desk>,
    notes: Notes,
}

/// Takes a client in; what is returned takes in what it says, and drops when it leaves.
pub fn accept(connection: Connection, parts: Arc<Parts>) -> Box<dyn Inbox> {
    let Connection { session, outbox, resume, .. } = connection;
    let client = parts.live.next_client();
    let notes = Notes {
        id: session.id.clone(),
        identity: session.identity.clone(),
        subscriptions: BTreeSet::new(),
        awaits_resume: resume,
        rate: Rate::new(parts.messages_per_second),
    };
    let desk = Arc::new(Desk::new(parts, client, outbox));
    let mut begin = Box::pin(Session { desk: desk.clone(), notes }.begin(session));
    // Hardly ever anything is to be waited for.
    if begin.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
        let Parts { tracker, runtime, .. } = &*desk.parts;
        tracker.spawn_on(begin, runtime);
    }
    Box::new(Seat(desk))
}

impl Session {
    /// Joins, and does what came meanwhile.
    async fn begin(mut self, session: crate::identity::Session) {
        let Desk { parts, client, outbox, .. } = &*self.desk;
        let resumes = self.notes.awaits_resume;
        let joined = parts.live.join(*client, session, outbox.clone(), self.desk.clone(), resumes);
        let began = match joined.await {
            // A message about the session may have come between its look-up and the join, when
            // there was nobody here to hear it; it made what was kept of the session be
            // forgotten.
            Ok(()) if parts.auth.knows(&self.notes.id, &self.notes.identity) => Ok(()),
            Ok(()) => self.look_again(Look::Usual).await,
            Err(stopped) => Err(stopped),
        };
        match began {
            Ok(()) => self.work().await,
            Err(Stopped) => self.stop(),
        }
    }

    /// Does what there is to be done, and rests.
    async fn work(mut self) {
        loop {
            let Some((notes, task)) = self.desk.next(self.notes) else { return };
            self.notes = notes;
            let done = match task {
                Task::Message(message) => self.on_message(message).await,
                Task::Late if self.notes.awaits_resume => {
                    self.resume(Claims::default(), None).await
                }
                Task::Late => Ok(()),
                Task::Look(look) => self.look_again(look).await,
                Task::Leave => {
                    self.desk.end();
                    return self.desk.parts.live.leave(self.desk.client).await;
                }
            };
            if done == Err(Stopped) {
                return self.stop();
            }
            // Who talks without a pause must not keep others waiting.
            coop::consume_budget().await;
        }
    }

    /// Ends with the gateway.
    fn stop(self) {
        self.desk.outbox.close(CloseReason::Draining);
        self.desk.end();
    }

    fn parts(&self) -> &Parts {
        &self.desk.parts
    }

    async fn look_again(&mut self, look: Look) -> Result<(), Stopped> {
        let Self { desk, notes } = self;
        match desk.parts.auth.recheck(&notes.id, look == Look::Fresh).await {
            Ok(identity) if identity.user != notes.identity.user => {
                desk.outbox.close(CloseReason::SessionEnded)
            }
            Ok(identity) if identity == notes.identity => {}
            Ok(identity) => {
                notes.identity = identity.clone();
                notes.subscriptions.retain(|feed| desk.parts.allow.may(&identity, feed));
                desk.parts.live.identity(desk.client, identity).await?;
            }
            Err(AuthError::Unauthorized(reason)) => {
                let user = &notes.identity.user;
                debug!(%user, %reason, "Session has ended; closing its socket.");
                desk.outbox.close(CloseReason::SessionEnded);
            }
            // A store that cannot answer says nothing about a session.
            Err(AuthError::StoreAway(reason)) => debug!(%reason, "Session could not be looked at."),
        }
        Ok(())
    }

    async fn on_message(&mut self, message: Inbound) -> Result<(), Stopped> {
        let Inbound { name, args, attachments, call } = message;
        if !self.notes.rate.take() {
            self.answer(call, Err(CallError::TooMany("too many messages in a second".to_owned())));
            return Ok(());
        }
        if !attachments.is_empty() {
            self.answer(call, Err(CallError::bad("binary arguments are not taken")));
            return Ok(());
        }
        let message = match protocol::read(&name, &args, |name| self.parts().rpc.is_job(name)) {
            Ok(message) => message,
            Err(error) => {
                self.answer(call, Err(error));
                return Ok(());
            }
        };
        match message {
            ClientMessage::Subscribe(feed) => self.subscribe(feed, call).await?,
            ClientMessage::Unsubscribe(feed) => self.unsubscribe(feed, call).await?,
            ClientMessage::Resume(claims) if self.notes.awaits_resume => {
                self.resume(claims, call).await?;
            }
            ClientMessage::Resume(_) => {
                let late = "this client has its state already; resume comes before anything else";
                self.answer(call, Err(CallError::Conflict(late.to_owned())));
            }
            ClientMessage::Edit(edit) => self.edit(edit, call),
            ClientMessage::Job { name, data } => {
                let Some(open) = self.may_open(call) else { return Ok(()) };
                let (rpc, identity) = (self.parts().rpc.clone(), self.notes.identity.clone());
                self.carry_out(open, call, async move { rpc.job(&name, data, &identity).await });
            }
        }
        Ok(())
    }

    /// Gets the client what it lacks of what it holds.
    async fn resume(&mut self, claims: Claims, call: Option<u64>) -> Result<(), Stopped> {
        let Self { desk, notes } = self;
        notes.awaits_resume = false;
        let held = notes.subscriptions.len();
        let most =
            desk.parts.max_subscriptions.map_or(usize::MAX, |most| most.saturating_sub(held));
        let subscribed = desk.parts.live.resume(desk.client, claims, call, most).await?;
        notes.subscriptions.extend(subscribed);
        Ok(())
    }

    async fn subscribe(&mut self, feed: String, call: Option<u64>) -> Result<(), Stopped> {
        let Self { desk, notes } = self;
        let refused = match names::check_feed(&feed) {
            Err(error) => Some(CallError::bad(error.to_string())),
            Ok(()) if !desk.parts.allow.may(&notes.identity, &feed) => {
                Some(CallError::Forbidden("you may not hear this feed".to_owned()))
            }
            Ok(()) => None,
        };
        if let Some(error) = refused {
            self.answer(call, Err(error));
            return Ok(());
        }
        let is_new = !notes.subscriptions.contains(feed.as_str());
        let most = desk.parts.max_subscriptions;
        if is_new && most.is_some_and(|most| notes.subscriptions.len() >= most) {
            self.answer(call, Err(CallError::TooMany("too many subscriptions".to_owned())));
            return Ok(());
        }
        metrics::call(200);
        let feed: Arc<str> = feed.into();
        desk.parts.live.subscribe(desk.client, feed.clone(), call).await?;
        notes.subscriptions.insert(feed);
        Ok(())
    }

    async fn unsubscribe(&mut self, feed: String, call: Option<u64>) -> Result<(), Stopped> {
        self.notes.subscriptions.remove(feed.as_str());
        let answer = match self.parts().live.unsubscribe(self.desk.client, &feed).await? {
            true => Ok(json!({ "code": 200 })),
            false => Err(CallError::Unknown("you do not hear this feed by its name".to_owned())),
        };
        self.answer(call, answer);
        Ok(())
    }

    /// Puts an edit behind the one before it of the same feed, so that they keep their order.
    fn edit(&mut self, edit: Edit, call: Option<u64>) {
        if let Err(error) = edit::may(&self.parts().tree, &edit, &self.notes.identity) {
            return self.answer(call, Err(error));
        }
        // One that is refused must not stand between others.
        let Some(open) = self.may_open(call) else { return };
        let (before, done) = open.turn(&edit.feed);
        let (rpc, identity) = (self.parts().rpc.clone(), self.notes.identity.clone());
        let (live, client) = (self.parts().live.clone(), self.desk.client);
        self.carry_out(open, call, async move {
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

    /// Opens a call; one too many is refused.
    fn may_open(&self, call: Option<u64>) -> Option<OpenCall> {
        let open = self.desk.open_call();
        if open.is_none() {
            self.answer(call, Err(CallError::TooMany("too many calls are open".to_owned())));
        }
        open
    }

    /// Carries a call out beside the session and answers it.
    fn carry_out(
        &self,
        open: OpenCall,
        call: Option<u64>,
        work: impl Future<Output = Result<Value, CallError>> + Send + 'static,
    ) {
        let outbox = self.desk.outbox.clone();
        let end = self.parts().end.clone();
        self.parts().tracker.spawn(async move {
            // The client of a gateway that ends is closed already, and its job stays queued.
            let Some(answered) = end.run_until_cancelled(work).await else { return };
            drop(open);
            answer(&outbox, call, answered);
        });
    }

    fn answer(&self, call: Option<u64>, answered: Result<Value, CallError>) {
        answer(&self.desk.outbox, call, answered);
    }
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
