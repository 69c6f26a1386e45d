//! One client's bounded mailbox.
//!
//! Knows how full it is; knows nothing of sockets or rooms.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use tokio::sync::Notify;

use crate::hub::frame::{FRAME_OVERHEAD, Frame};

/// Why a gateway closes a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// More waits for the client than `limits.outbox_bytes`.
    Slow,
    /// Nothing could be written for `limits.stall`.
    Stalled,
    /// Its session is gone, expired or another user's.
    SessionEnded,
    /// A control message or the admin API asked for it.
    Asked,
    /// As `Asked`, and the client shall not come back by itself.
    AskedFinally,
    /// It sent more than it may.
    TooMuch,
    /// The gateway stops.
    Draining,
}

impl CloseReason {
    /// Returns the name used as a metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Stalled => "stalled",
            Self::SessionEnded => "session_ended",
            Self::Asked => "asked",
            Self::AskedFinally => "asked_finally",
            Self::TooMuch => "too_much",
            Self::Draining => "draining",
        }
    }
}

/// What an engine takes out of a mailbox.
#[derive(Debug, Clone)]
pub enum Outgoing {
    /// An event.
    Event(Frame),
    /// The answer to the call that came with this number; one argument.
    Ack(u64, Frame),
    /// Nothing more: close the transport.
    Close(CloseReason),
}

impl Outgoing {
    /// Returns how many bytes it counts; an answer counts something even if its bytes are
    /// shared, because a client makes as many as it likes.
    fn weight(&self) -> usize {
        match self {
            Self::Event(frame) => frame.weight(),
            Self::Ack(_, frame) => frame.weight().max(FRAME_OVERHEAD),
            Self::Close(_) => 0,
        }
    }
}

/// The mailbox is closed, or was closed by this offer because it was full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("client's mailbox is closed")]
pub struct Closed;

/// The sending half of one client's mailbox.
#[derive(Debug, Clone)]
pub struct Outbox {
    shared: Arc<Shared>,
}

/// The receiving half, which the engine drains.
#[derive(Debug)]
pub struct Mailbox {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Held for a push or a pop: the fan-out must never wait for a reader.
    queue: Mutex<Queue>,
    wake: Notify,
    bound: usize,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Outgoing>,
    bytes: usize,
    closed: Option<CloseReason>,
    /// The client has left by itself.
    is_abandoned: bool,
}

/// Makes a mailbox that holds at most `bound` bytes of events and acks.
#[must_use]
pub fn mailbox(bound: usize) -> (Outbox, Mailbox) {
    let shared = Arc::new(Shared { queue: Mutex::default(), wake: Notify::new(), bound });
    (Outbox { shared: shared.clone() }, Mailbox { shared })
}

impl Outbox {
    /// Offers an event without waiting.
    ///
    /// A feed never waits for one of its listeners: a full mailbox closes its client.
    ///
    /// # Errors
    ///
    /// Returns [`Closed`] when the bytes that wait would pass the bound (the client is then
    /// closed as [`CloseReason::Slow`]) or the client has left.
    pub fn offer(&self, frame: &Frame) -> Result<(), Closed> {
        self.push(Outgoing::Event(frame.clone()))
    }

    /// Offers the answer to a call.
    ///
    /// # Errors
    ///
    /// As [`Outbox::offer`].
    pub fn ack(&self, call: u64, frame: Frame) -> Result<(), Closed> {
        self.push(Outgoing::Ack(call, frame))
    }

    fn push(&self, outgoing: Outgoing) -> Result<(), Closed> {
        let weight = outgoing.weight();
        let mut queue = self.shared.queue.lock().expect("no holder of this lock panics");
        if queue.closed.is_some() || queue.is_abandoned {
            return Err(Closed);
        }
        if weight > 0 && queue.bytes + weight > self.shared.bound {
            queue.close(CloseReason::Slow);
            drop(queue);
            self.shared.wake.notify_one();
            return Err(Closed);
        }
        queue.bytes += weight;
        queue.waiting.push_back(outgoing);
        drop(queue);
        self.shared.wake.notify_one();
        Ok(())
    }

    /// Closes the client; what still waits is dropped. The first reason stays.
    pub fn close(&self, reason: CloseReason) {
        self.shared.queue.lock().expect("no holder of this lock panics").close(reason);
        self.shared.wake.notify_one();
    }

    /// Returns why the client was closed, if it was.
    #[must_use]
    pub fn closed(&self) -> Option<CloseReason> {
        self.shared.queue.lock().expect("no holder of this lock panics").closed
    }
}

impl Queue {
    fn close(&mut self, reason: CloseReason) {
        if self.closed.is_none() {
            self.closed = Some(reason);
            self.waiting.clear();
            self.bytes = 0;
        }
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        let mut queue = self.shared.queue.lock().expect("no holder of this lock panics");
        queue.is_abandoned = true;
        queue.waiting = VecDeque::new();
        queue.bytes = 0;
    }
}

impl Mailbox {
    /// Waits for the next thing to send; after a close it is [`Outgoing::Close`] for ever.
    pub async fn next(&mut self) -> Outgoing {
        loop {
            if let Some(outgoing) = self.try_next() {
                return outgoing;
            }
            self.shared.wake.notified().await;
        }
    }

    /// Takes the next thing to send, if there is one.
    pub fn try_next(&mut self) -> Option<Outgoing> {
        let mut queue = self.shared.queue.lock().expect("no holder of this lock panics");
        if let Some(reason) = queue.closed {
            return Some(Outgoing::Close(reason));
        }
        let outgoing = queue.waiting.pop_front()?;
        queue.bytes -= outgoing.weight();
        Some(outgoing)
    }

    /// Waits until the client is closed from inside.
    pub async fn closed(&self) -> CloseReason {
        loop {
            let closed = self.shared.queue.lock().expect("no holder of this lock panics").closed;
            match closed {
                Some(reason) => return reason,
                None => self.shared.wake.notified().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(bytes: usize) -> Frame {
        Frame::event("publish", format!("\"{}\"", "x".repeat(bytes)))
    }

    #[tokio::test]
    async fn a_full_mailbox_closes_its_client_and_skips_nothing_before() {
        let (outbox, mut mailbox) = mailbox(1_000);
        outbox.offer(&event(500)).unwrap();
        outbox.offer(&Frame::snapshot("initial", "{}".to_owned())).unwrap();
        assert_eq!(outbox.offer(&event(500)), Err(Closed));
        assert_eq!(outbox.closed(), Some(CloseReason::Slow));
        assert!(matches!(mailbox.next().await, Outgoing::Close(CloseReason::Slow)));
    }

    #[tokio::test]
    async fn what_was_taken_out_makes_room() {
        let (outbox, mut mailbox) = mailbox(1_000);
        for _ in 0..10 {
            outbox.offer(&event(700)).unwrap();
            assert!(matches!(mailbox.next().await, Outgoing::Event(_)));
        }
    }

    #[test]
    fn nothing_is_kept_for_a_client_that_has_left() {
        let (outbox, mailbox) = mailbox(1_000);
        outbox.offer(&event(500)).unwrap();
        drop(mailbox);
        assert_eq!(outbox.offer(&event(1)), Err(Closed));
        assert_eq!(outbox.closed(), None);
    }
}
