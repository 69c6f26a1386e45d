//! Who listens to which channel, and what was not read yet.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use crate::shard::subscriber::Said;

/// What one message takes in a buffer besides its bytes.
const OVERHEAD: usize = 64;

/// The channels of one shard.
#[derive(Debug)]
pub(super) struct Broker {
    listeners: BTreeMap<u64, Listener>,
    channels: HashMap<Bytes, BTreeSet<u64>>,
    next: u64,
    pub(super) denied: HashSet<Bytes>,
    pub(super) lag: Duration,
    pub(super) limit: usize,
    pub(super) muted: bool,
}

#[derive(Debug)]
struct Listener {
    mailbox: Arc<Mailbox>,
    channels: HashSet<Bytes>,
    deaf: bool,
}

impl Default for Broker {
    fn default() -> Self {
        Self {
            listeners: BTreeMap::new(),
            channels: HashMap::new(),
            next: 0,
            denied: HashSet::new(),
            lag: Duration::ZERO,
            limit: super::BUFFER_LIMIT,
            muted: false,
        }
    }
}

impl Broker {
    pub(super) fn connect(&mut self) -> (u64, Arc<Mailbox>) {
        let mailbox = Arc::<Mailbox>::default();
        let listener = Listener { mailbox: mailbox.clone(), channels: HashSet::new(), deaf: false };
        self.next += 1;
        self.listeners.insert(self.next, listener);
        (self.next, mailbox)
    }

    pub(super) fn disconnect(&mut self, number: u64) {
        let Some(listener) = self.listeners.remove(&number) else { return };
        for channel in listener.channels {
            self.leave(number, &channel);
        }
    }

    /// Subscribes, or refuses all of them where one is denied, as Redis does.
    pub(super) fn subscribe(&mut self, number: u64, channels: &[Bytes]) {
        if channels.iter().any(|channel| self.denied.contains(channel)) {
            let error = "NOPERM No permissions to access a channel".to_owned();
            return self.tell(number, Said::Refused(error));
        }
        for channel in channels {
            if let Some(listener) = self.listeners.get_mut(&number) {
                listener.channels.insert(channel.clone());
                self.channels.entry(channel.clone()).or_default().insert(number);
                self.tell(number, Said::Subscribed(channel.clone()));
            }
        }
    }

    pub(super) fn unsubscribe(&mut self, number: u64, channels: &[Bytes]) {
        for channel in channels {
            if let Some(listener) = self.listeners.get_mut(&number) {
                listener.channels.remove(channel);
                self.leave(number, channel);
                self.tell(number, Said::Unsubscribed(channel.clone()));
            }
        }
    }

    pub(super) fn pong(&mut self, number: u64) {
        self.tell(number, Said::Pong);
    }

    /// Tells everybody who listens; returns how many.
    pub(super) fn publish(&mut self, channel: &Bytes, payload: &Bytes) -> usize {
        if self.muted {
            return 0;
        }
        let numbers: Vec<u64> = self.channels.get(channel).into_iter().flatten().copied().collect();
        let mut heard = 0;
        for number in numbers {
            if self.listeners.get(&number).is_some_and(|listener| !listener.deaf) {
                let (channel, payload) = (channel.clone(), payload.clone());
                self.tell(number, Said::Message { channel, payload });
                heard += 1;
            }
        }
        heard
    }

    pub(super) fn deafen_all(&mut self) {
        for listener in self.listeners.values_mut() {
            listener.deaf = true;
        }
    }

    pub(super) fn drop_all(&mut self, reason: &str) {
        self.channels.clear();
        for (_, listener) in std::mem::take(&mut self.listeners) {
            listener.mailbox.cut(reason);
        }
    }

    fn leave(&mut self, number: u64, channel: &Bytes) {
        if let Some(numbers) = self.channels.get_mut(channel) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.channels.remove(channel);
            }
        }
    }

    fn tell(&mut self, number: u64, said: Said) {
        let Some(listener) = self.listeners.get(&number) else { return };
        let waiting = listener.mailbox.put(Instant::now() + self.lag, said);
        if waiting > self.limit {
            listener.mailbox.cut("the connection did not read what it was told");
            self.disconnect(number);
        }
    }
}

/// What one connection was told and has not read.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    /// Held for one push or pop.
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    said: VecDeque<(Instant, Said)>,
    bytes: usize,
    cut: Option<String>,
}

impl Mailbox {
    /// Reads the next thing that was said, when it is due; the error is the end.
    pub(super) async fn next(&self) -> Result<Said, String> {
        loop {
            let due = {
                let mut queue = self.lock();
                if let Some(reason) = &queue.cut {
                    return Err(reason.clone());
                }
                match queue.said.front() {
                    Some((due, _)) if *due <= Instant::now() => {
                        let (_, said) = queue.said.pop_front().expect("the front was seen");
                        queue.bytes -= size(&said);
                        return Ok(said);
                    }
                    Some((due, _)) => Some(*due),
                    None => None,
                }
            };
            match due {
                // Either way it is looked at again.
                Some(due) => drop(timeout_at(due, self.wake.notified()).await),
                None => self.wake.notified().await,
            }
        }
    }

    /// Appends what is said; returns how many bytes wait.
    fn put(&self, due: Instant, said: Said) -> usize {
        let mut queue = self.lock();
        queue.bytes += size(&said);
        queue.said.push_back((due, said));
        let waiting = queue.bytes;
        drop(queue);
        self.wake.notify_one();
        waiting
    }

    /// Ends the connection; what was not read is lost.
    fn cut(&self, reason: &str) {
        *self.lock() = Queue { cut: Some(reason.to_owned()), ..Queue::default() };
        self.wake.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no holder of this lock panics")
    }
}

fn size(said: &Said) -> usize {
    OVERHEAD
        + match said {
            Said::Message { channel, payload } => channel.len() + payload.len(),
            Said::Subscribed(channel) | Said::Unsubscribed(channel) => channel.len(),
            Said::Refused(error) => error.len(),
            Said::Pong => 0,
        }
}
