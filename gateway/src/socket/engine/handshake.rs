//! Sessions by their sid, and who looks after those that have no task of their own.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::{Arc, Mutex, Weak},
    time::Instant,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use futures_util::StreamExt;
use tokio::{sync::mpsc, task::AbortHandle};
use tokio_util::time::DelayQueue;

use super::{Options, polling::Polling};

/// A session's id without the node's tag: 120 random bits, the only credential of later requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Sid(u128);

/// How many bytes an id has, a multiple of three so that base64 has no rest.
const BYTES: usize = 15;

impl Sid {
    pub(super) fn random() -> Self {
        Self(rand::random::<u128>() >> (128 - 8 * BYTES))
    }

    /// Returns it as clients say it: behind the node's tag and a dot.
    pub(super) fn text(self, node: &str) -> String {
        let bytes = self.0.to_be_bytes();
        format!("{node}.{}", BASE64_URL_SAFE_NO_PAD.encode(&bytes[16 - BYTES..]))
    }

    /// Reads what a client says; one with another node's tag is nobody's here.
    fn parse(text: &str, node: &str) -> Option<Self> {
        let text = text.strip_prefix(node)?.strip_prefix('.')?;
        let mut bytes = [0; 16];
        let length = BASE64_URL_SAFE_NO_PAD.decode_slice(text, &mut bytes[16 - BYTES..]).ok()?;
        (length == BYTES).then(|| Self(u128::from_be_bytes(bytes)))
    }
}

/// Takes an id as its own hash: it is random, and nobody else chooses it.
#[derive(Debug, Default)]
pub(super) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("an id is a number");
    }

    fn write_u128(&mut self, id: u128) {
        self.0 = (id >> 56) as u64 ^ id as u64;
    }
}

/// What carries a session.
#[derive(Debug, Clone)]
pub(super) enum Entry {
    /// Polls, and maybe a websocket that is to take over.
    Polling(Arc<Polling>),
    /// A websocket; its task ends with this.
    Websocket(AbortHandle),
}

/// A session's place in the register; dropped, it is forgotten.
#[derive(Debug)]
pub(super) struct Registered {
    pub(super) sessions: Arc<Sessions>,
    pub(super) sid: Sid,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.sessions.remove(self.sid);
    }
}

/// All sessions of an engine.
#[derive(Debug)]
pub(super) struct Sessions {
    options: Options,
    /// Held for a look or a change.
    by_sid: Mutex<HashMap<Sid, Entry, BuildHasherDefault<AsItIs>>>,
    /// Polling sessions that want to be looked at; each waits there once at most.
    care: mpsc::UnboundedSender<Arc<Polling>>,
}

impl Sessions {
    /// Makes a register without sessions, and starts the task that looks after polling ones.
    pub(super) fn start(options: Options) -> Arc<Self> {
        let (care, wanted) = mpsc::unbounded_channel();
        let drain = options.drain.clone();
        let sessions = Arc::new(Self { options, by_sid: Mutex::default(), care });
        let register = Arc::downgrade(&sessions);
        drain.tracker.spawn(async move {
            drain.end.run_until_cancelled(look_after(wanted)).await;
            if let Some(sessions) = register.upgrade() {
                sessions.end();
            }
        });
        sessions
    }

    pub(super) const fn options(&self) -> &Options {
        &self.options
    }

    pub(super) fn find(&self, sid: &str) -> Option<Entry> {
        let sid = Sid::parse(sid, &self.options.node)?;
        self.lock().get(&sid).cloned()
    }

    /// Puts a session in, or replaces what carries it; `carrier` is called under the lock, so
    /// that a task which ends at once finds itself here.
    pub(super) fn insert(&self, sid: Sid, carrier: impl FnOnce() -> Entry) {
        let mut sessions = self.lock();
        let entry = carrier();
        sessions.insert(sid, entry);
    }

    /// Does something that nobody may find half done who asks for a session.
    pub(super) fn hold(&self, work: impl FnOnce()) {
        let _held = self.lock();
        work();
    }

    /// Forgets a session.
    pub(super) fn remove(&self, sid: Sid) {
        // Bound first: what is dropped may look for itself here.
        let removed = self.lock().remove(&sid);
        drop(removed);
    }

    /// Has a polling session looked at soon.
    pub(super) fn care(&self, polling: Arc<Polling>) {
        // Nobody looks any more when everything ends.
        let _ = self.care.send(polling);
    }

    /// Ends every session that is left.
    fn end(&self) {
        let left = std::mem::take(&mut *self.lock());
        for entry in left.into_values() {
            match entry {
                Entry::Polling(polling) => polling.end(),
                Entry::Websocket(task) => task.abort(),
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Sid, Entry, BuildHasherDefault<AsItIs>>> {
        self.by_sid.lock().expect("no holder of this lock panics")
    }
}

/// Looks at polling sessions that want it, and at each again when it is due.
async fn look_after(mut wanted: mpsc::UnboundedReceiver<Arc<Polling>>) {
    let mut due: DelayQueue<Weak<Polling>> = DelayQueue::new();
    loop {
        let polling = tokio::select! {
            polling = wanted.recv() => match polling {
                Some(polling) => polling,
                None => return,
            },
            Some(expired) = due.next() => match expired.into_inner().upgrade() {
                Some(polling) => polling,
                None => continue,
            },
        };
        let now = tokio::time::Instant::now();
        if let Some(next) = polling.look(now.into_std()) {
            due.insert_at(Arc::downgrade(&polling), tokio_instant(next));
        }
    }
}

fn tokio_instant(at: Instant) -> tokio::time::Instant {
    tokio::time::Instant::from_std(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sid_is_read_as_it_was_told_and_only_with_its_own_tag() {
        let sid = Sid::random();
        let text = sid.text("g1");
        assert_eq!((text.len(), text.starts_with("g1.")), (23, true));
        assert_eq!(Sid::parse(&text, "g1"), Some(sid));
        assert_eq!(Sid::parse(&text, "g"), None);
        assert_eq!(Sid::parse(&text, "g2"), None);
        for bad in ["", "g1", "g1.", "g1.x", &text[..22], &format!("{text}A"), "g1.é"] {
            assert_eq!(Sid::parse(bad, "g1"), None, "{bad}");
        }
        assert_ne!(Sid::random(), sid);
    }
}
