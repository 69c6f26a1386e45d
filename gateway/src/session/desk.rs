//! Where a session lies while nothing is to be done for it.
//!
//! An idle client has no task. Whoever brings its session something puts it down here; if the
//! session lies here too, a task takes it, does what there is in the order in which it came,
//! lays the session down again and ends.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::oneshot::{self, error::TryRecvError};

use super::{Notes, OPEN_CALLS, Parts, Session};
use crate::{
    hub::ClientId,
    live::Attendant,
    outbox::Outbox,
    socket::{Full, Inbound, Inbox},
};

/// What is shared by all who bring a session something.
pub(super) struct Desk {
    pub(super) parts: Arc<Parts>,
    pub(super) client: ClientId,
    pub(super) outbox: Outbox,
    /// Held for a push or a pop: neither the engine nor the live state waits for a session.
    state: Mutex<State>,
}

struct State {
    /// The session, while no task has it.
    resting: Option<Notes>,
    /// What came and is not looked at yet.
    queue: VecDeque<Task>,
    /// Whether the session is to be looked at again.
    look: Option<Look>,
    calls: Option<Box<Calls>>,
    stage: Stage,
}

/// How far a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Here,
    /// It has left; what it said before is done all the same.
    Left,
    /// Nothing is done for it any more.
    Over,
}

/// One thing to be done for a client.
#[derive(Debug)]
pub(super) enum Task {
    /// The client says something.
    Message(Inbound),
    /// The client was to say what it holds, and its time is over.
    Late,
    /// Its session is to be looked at again.
    Look(Look),
    /// It has left.
    Leave,
}

/// How new the answer must be when a session is looked at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Look {
    /// As new as for anybody who asks.
    Usual,
    /// Newer than the question.
    Fresh,
}

/// The calls of a client that are open.
#[derive(Debug, Default)]
pub(super) struct Calls {
    open: usize,
    /// For each feed, the end of the edit that was asked for last.
    edits: HashMap<String, oneshot::Receiver<()>>,
}

impl Desk {
    /// Makes the desk of a client whose session a task has.
    pub(super) fn new(parts: Arc<Parts>, client: ClientId, outbox: Outbox) -> Self {
        let state = State {
            resting: None,
            queue: VecDeque::new(),
            look: None,
            calls: None,
            stage: Stage::Here,
        };
        Self { parts, client, outbox, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    /// Puts something down and has it done, unless all is over.
    fn put<T>(self: &Arc<Self>, put: impl FnOnce(&mut State) -> T) -> Option<T> {
        let mut state = self.state();
        if state.stage == Stage::Over {
            return None;
        }
        let done = put(&mut state);
        let notes = if state.is_idle() { None } else { state.resting.take() };
        drop(state);
        if let Some(notes) = notes {
            let session = Session { desk: self.clone(), notes };
            let Parts { tracker, runtime, .. } = &*self.parts;
            tracker.spawn_on(session.work(), runtime);
        }
        Some(done)
    }

    /// Returns what is to be done next; without that the session lies here again.
    pub(super) fn next(&self, notes: Notes) -> Option<(Notes, Task)> {
        let mut state = self.state();
        if let Some(look) = state.look.take() {
            return Some((notes, Task::Look(look)));
        }
        if let Some(task) = state.queue.pop_front() {
            return Some((notes, task));
        }
        if state.stage == Stage::Left {
            return Some((notes, Task::Leave));
        }
        state.queue = VecDeque::new();
        state.resting = Some(notes);
        None
    }

    /// Says that nothing is done for this client any more.
    pub(super) fn end(&self) {
        let mut state = self.state();
        state.stage = Stage::Over;
        state.queue = VecDeque::new();
    }

    /// Counts a call more, until what is returned is dropped; `None` if it is one too many.
    pub(super) fn open_call(self: &Arc<Self>) -> Option<OpenCall> {
        let mut state = self.state();
        let calls = state.calls.get_or_insert_default();
        if calls.open >= OPEN_CALLS {
            return None;
        }
        calls.open += 1;
        Some(OpenCall(self.clone()))
    }
}

impl fmt::Debug for Desk {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Desk").field("client", &self.client).finish_non_exhaustive()
    }
}

impl State {
    /// Tells whether there is nothing to be done.
    fn is_idle(&self) -> bool {
        self.look.is_none() && self.queue.is_empty() && self.stage == Stage::Here
    }
}

impl Attendant for Desk {
    fn look(self: Arc<Self>, fresh: bool) {
        let look = if fresh { Look::Fresh } else { Look::Usual };
        self.put(|state| state.look = state.look.max(Some(look)));
    }

    fn late(self: Arc<Self>) {
        self.put(|state| state.queue.push_back(Task::Late));
    }
}

/// A call that is open, for as long as it is kept.
pub(super) struct OpenCall(Arc<Desk>);

impl OpenCall {
    /// Puts an edit behind the one before it of the same feed: returns what it waits for, and
    /// what it drops when it has ended.
    pub(super) fn turn(&self, feed: &str) -> (Option<oneshot::Receiver<()>>, oneshot::Sender<()>) {
        let (done, turn) = oneshot::channel();
        let mut state = self.0.state();
        let edits = &mut state.calls.get_or_insert_default().edits;
        edits.retain(|_, before| before.try_recv() == Err(TryRecvError::Empty));
        (edits.insert(feed.to_owned(), turn), done)
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if let Some(calls) = &mut state.calls {
            calls.open -= 1;
            // An edit is an open call, so no edit waits for another any more.
            if calls.open == 0 {
                state.calls = None;
            }
        }
    }
}

/// What an engine has of a session; dropped when the client leaves.
pub(super) struct Seat(pub(super) Arc<Desk>);

impl Inbox for Seat {
    fn event(&self, event: Inbound) -> Result<(), Full> {
        let most = self.0.parts.inbound_queue;
        let taken = self.0.put(|state| {
            if state.queue.len() >= most {
                return Err(Full);
            }
            state.queue.push_back(Task::Message(event));
            Ok(())
        });
        // What is said after the end is said to nobody.
        taken.unwrap_or(Ok(()))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.put(|state| state.stage = Stage::Left);
    }
}
