//! One client's bounded mailbox.
//!
//! Knows how full it is; knows nothing of sockets or rooms.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;

use crate::hub::frame::{FRAME_OVERHEAD, Frame};

mod crowd;
mod queue;

use queue::{Overflow, Queue};

/// Why a gateway closes a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// More waits for the client than `limits.outbox_bytes`, also without superseded changes.
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
    /// What a frame cannot say.
    Letter(Box<Letter>),
    /// Nothing more: close the transport.
    Close(CloseReason),
}

/// A message for one client alone: with several arguments, binary data, or a wish for an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// The number of the call that it answers; an event where there is none.
    pub answers: Option<u64>,
    /// The text of a JSON array: its arguments, an event's behind its name. Binary data has
    /// placeholders in it.
    pub args: String,
    /// The binary data.
    pub attachments: Vec<Bytes>,
    /// The number under which the client shall answer, if it shall.
    pub call: Option<u64>,
}

impl Outgoing {
    /// Returns how many bytes it counts; an answer counts something even if its bytes are
    /// shared, because a client makes as many as it likes.
    fn weight(&self) -> usize {
        match self {
            Self::Event(frame) => frame.weight(),
            Self::Ack(_, frame) => frame.weight().max(FRAME_OVERHEAD),
            Self::Letter(letter) => {
                let bytes: usize = letter.attachments.iter().map(Bytes::len).sum();
                letter.args.len() + bytes + FRAME_OVERHEAD
            }
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
    state: Mutex<State>,
    /// Wakes the engine; one waits at a time.
    wake: AtomicWaker,
    bound: usize,
}

#[derive(Debug, Default)]
struct State {
    /// There while something waits, or a snapshot is on its way.
    queue: Option<Box<Queue>>,
    closed: Option<CloseReason>,
    /// It was closed for another reason too, or the client has left by itself: nothing of what
    /// is on its way is waited for.
    is_over: bool,
}

/// Makes a mailbox that holds at most `bound` bytes of events and acks.
///
/// While an `initial` or a `reset` waits or is on its way, and until what came meanwhile is
/// worked off, as many bytes more may wait as the largest of these has: else a client that reads
/// a large one slowly would be closed for what is said meanwhile, come back, and get it again.
#[must_use]
pub fn mailbox(bound: usize) -> (Outbox, Mailbox) {
    let shared = Arc::new(Shared { state: Mutex::default(), wake: AtomicWaker::new(), bound });
    (Outbox { shared: shared.clone() }, Mailbox { shared })
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

impl Outbox {
    /// Offers an event without waiting.
    ///
    /// A feed never waits for one of its listeners. Where the bytes that wait would pass the
    /// bound, a `change` is dropped for which a newer one of the same item waits, and the feed's
    /// events between the two lose their `v`; where that does not suffice, the client is closed.
    ///
    /// # Errors
    ///
    /// Returns [`Closed`] when even so too much would wait (the client is then closed as
    /// [`CloseReason::Slow`]), when it was closed before, or has left.
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

    /// Offers a message for this client alone.
    ///
    /// # Errors
    ///
    /// As [`Outbox::offer`].
    pub fn letter(&self, letter: Letter) -> Result<(), Closed> {
        self.push(Outgoing::Letter(Box::new(letter)))
    }

    fn push(&self, outgoing: Outgoing) -> Result<(), Closed> {
        let mut state = self.shared.state();
        if state.closed.is_some() || state.is_over {
            return Err(Closed);
        }
        let pushed = state.queue.get_or_insert_default().push(outgoing, self.shared.bound);
        if pushed == Err(Overflow) {
            state.close(CloseReason::Slow);
        }
        drop(state);
        self.shared.wake.wake();
        pushed.map_err(|Overflow| Closed)
    }

    /// Closes the client; what still waits is dropped. The first reason stays.
    pub fn close(&self, reason: CloseReason) {
        self.shared.state().close(reason);
        self.shared.wake.wake();
    }

    /// Returns how many bytes of events and acks may wait.
    #[must_use]
    pub fn bound(&self) -> usize {
        self.shared.bound
    }

    /// Returns why the client was closed, if it was.
    #[must_use]
    pub fn closed(&self) -> Option<CloseReason> {
        self.shared.state().closed
    }
}

impl State {
    fn close(&mut self, reason: CloseReason) {
        self.is_over |= reason != CloseReason::Slow;
        self.closed.get_or_insert(reason);
        self.queue = None;
    }

    /// Gives the memory of a queue back in which nothing waits: most clients are idle.
    fn give_back(&mut self) {
        self.queue.take_if(|queue| queue.is_idle());
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.is_over = true;
        state.queue = None;
    }
}

impl Mailbox {
    /// Waits for the next thing to send; after a close it is [`Outgoing::Close`] for ever.
    pub async fn next(&mut self) -> Outgoing {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Takes the next thing to send, or wakes the task when there is one.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Outgoing> {
        if let Some(outgoing) = self.try_next() {
            return Poll::Ready(outgoing);
        }
        self.shared.wake.register(cx.waker());
        // It may have come before the waker was there.
        self.try_next().map_or(Poll::Pending, Poll::Ready)
    }

    /// Takes the next thing to send, if there is one.
    ///
    /// An `initial` or a `reset` that was taken is on its way until [`Mailbox::let_go`].
    pub fn try_next(&mut self) -> Option<Outgoing> {
        let mut state = self.shared.state();
        if let Some(reason) = state.closed {
            return Some(Outgoing::Close(reason));
        }
        let outgoing = state.queue.as_mut()?.pop(self.shared.bound);
        if outgoing.is_none() {
            state.give_back();
        }
        outgoing
    }

    /// Notes that so many bytes of `initial`s and `reset`s have gone out.
    pub fn let_go(&mut self, snapshots: usize) {
        let mut state = self.shared.state();
        if state.closed.is_none()
            && let Some(queue) = &mut state.queue
        {
            queue.let_go(snapshots, self.shared.bound);
            state.give_back();
        }
    }

    /// Waits until the client is closed from inside.
    pub async fn closed(&self) -> CloseReason {
        poll_fn(|cx| self.poll_closed(cx)).await
    }

    /// Tells why the client was closed, or wakes the task when it is.
    pub fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        self.poll_until(cx, |state| state.closed)
    }

    /// Closes the client from the side of the engine; the first reason stays.
    pub fn close(&self, reason: CloseReason) {
        self.shared.state().close(reason);
        self.shared.wake.wake();
    }

    /// Waits until the client is closed for another reason than that it is slow, also after it
    /// was closed for that.
    pub async fn is_over(&self) {
        poll_fn(|cx| self.poll_over(cx)).await;
    }

    /// Tells whether it is so, or wakes the task when it is.
    pub fn poll_over(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_until(cx, |state| state.is_over.then_some(()))
    }

    fn poll_until<T>(&self, cx: &mut Context<'_>, is_so: impl Fn(&State) -> Option<T>) -> Poll<T> {
        self.shared.wake.register(cx.waker());
        is_so(&self.shared.state()).map_or(Poll::Pending, Poll::Ready)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::hub::frame::{About, Format};

    mod bench;

    fn event(bytes: usize) -> Frame {
        Frame::event("publish", format!("\"{}\"", "x".repeat(bytes)))
    }

    #[tokio::test]
    async fn a_full_mailbox_closes_its_client_and_skips_nothing_before() {
        let (outbox, mut mailbox) = mailbox(1_000);
        outbox.offer(&event(500)).unwrap();
        outbox.offer(&Frame::snapshot("initial", "{}")).unwrap();
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

    /// An event of a feed with a version that tells its place.
    fn told(verb: &str, id: &str, number: u32) -> Frame {
        let about = match verb {
            "change" => About::Change { feed: "feed".into(), id: id.into() },
            _ => About::Feed("feed".into()),
        };
        let item = "x".repeat(100);
        let json = format!(r#"{{"id":"{id}","item":"{item}","v":"{number:024x}"}}"#);
        Frame::of_feed(about, verb, json)
    }

    /// Tells what is taken out: the verb, the id, and the number, where its version is not null.
    fn taken(mailbox: &mut Mailbox) -> Vec<String> {
        let mut taken = Vec::new();
        while let Some(Outgoing::Event(frame)) = mailbox.try_next() {
            let json: Value = serde_json::from_str(frame.json(Format::Utf8)).unwrap();
            let v = json["v"].as_str().map(|v| u32::from_str_radix(v, 16).unwrap());
            let v = v.map_or("-".to_owned(), |v| v.to_string());
            taken.push(format!("{} {} {v}", frame.name(), json["id"].as_str().unwrap()));
        }
        taken
    }

    #[test]
    fn what_is_superseded_goes_first_and_what_stands_between_loses_its_version() {
        let weight = told("publish", "a", 0).weight();
        let (outbox, mut mailbox) = mailbox(6 * weight);
        let said = [
            ("change", "a"),
            ("change", "b"),
            ("publish", "c"),
            ("change", "a"),
            ("position", "b"),
            ("change", "b"),
            ("retract", "c"),
            ("change", "d"),
        ];
        for ((verb, id), number) in said.into_iter().zip(0..) {
            outbox.offer(&told(verb, id, number)).unwrap();
        }
        let expected = [
            "publish c -",
            "change a -",
            "position b -",
            "change b 5",
            "retract c 6",
            "change d 7",
        ];
        assert_eq!(taken(&mut mailbox), expected);
    }

    #[test]
    fn no_more_is_dropped_than_must_be() {
        let weight = told("publish", "a", 0).weight();
        let (outbox, mut mailbox) = mailbox(3 * weight);
        for number in 0..4 {
            outbox.offer(&told("change", "a", number)).unwrap();
        }
        assert_eq!(taken(&mut mailbox), ["change a 1", "change a 2", "change a 3"]);
    }

    #[test]
    fn one_item_that_changes_for_ever_fills_no_mailbox() {
        let weight = told("publish", "a", 0).weight();
        let (outbox, mut mailbox) = mailbox(100 * weight);
        for number in 0..100_000 {
            if number % 1_500 == 7 {
                outbox.offer(&told("publish", "b", number)).unwrap();
            }
            outbox.offer(&told("change", "a", number)).unwrap();
        }
        let taken = taken(&mut mailbox);
        let publishes = taken.iter().filter(|told| *told == "publish b -").count();
        assert_eq!((publishes, taken.last().unwrap().as_str()), (67, "change a 99999"));
        // Null is shorter than a version.
        assert!(taken.len() < 115, "{}", taken.len());
    }

    #[test]
    fn a_snapshot_makes_room_for_itself_until_what_came_meanwhile_is_worked_off() {
        let (outbox, mut mailbox) = mailbox(1_000);
        let snapshot = Frame::snapshot("initial", format!("\"{}\"", "x".repeat(2_998)));
        outbox.offer(&snapshot).unwrap();
        assert!(mailbox.try_next().is_some());
        for _ in 0..5 {
            outbox.offer(&event(550)).unwrap();
        }
        mailbox.let_go(3_000);
        outbox.offer(&event(550)).unwrap();
        for _ in 0..5 {
            assert!(mailbox.try_next().is_some());
        }
        assert_eq!(outbox.offer(&event(550)), Err(Closed));
        assert_eq!(outbox.closed(), Some(CloseReason::Slow));
    }

    #[tokio::test]
    async fn a_second_reason_ends_what_a_slow_client_is_still_given() {
        let (outbox, mailbox) = mailbox(100);
        assert_eq!(outbox.offer(&event(500)), Err(Closed));
        let is_over = tokio::time::timeout(std::time::Duration::ZERO, mailbox.is_over());
        assert!(is_over.await.is_err());
        outbox.close(CloseReason::Draining);
        mailbox.is_over().await;
        assert_eq!(outbox.closed(), Some(CloseReason::Slow));
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
