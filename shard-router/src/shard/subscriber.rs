//! The subscription connection: confirm, keep, resubscribe, tell what was heard.
//!
//! One driver serves every kind of shard; what differs is the [`Wire`] below it.
//! Wanted channels are a map under one short lock, so that asking never waits.

use std::{
    collections::VecDeque,
    convert::Infallible,
    mem,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::{
    sync::{
        Notify,
        mpsc::{self, error::TrySendError},
    },
    task::coop,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, warn};

use self::{
    channels::Channels,
    ledger::{Ledger, Mark, Step},
};
use crate::shard::backoff::Backoff;

mod channels;
mod ledger;

/// What a subscription connection tells, in the order in which the shard did it.
///
/// Between [`Heard::Lost`] and the next [`Heard::Up`], and before the first, nothing but
/// [`Heard::Refused`] is told: what is published then is lost by definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Connected, and every wanted channel is confirmed by the server (again) or refused.
    Up,
    /// The connection is gone; whatever is published until the next `Up` is lost.
    ///
    /// Comes exactly once after each `Up`, unless the link is dropped.
    Lost {
        /// What broke.
        reason: String,
    },
    /// Every channel of the [`Link::subscribe`] call with this ticket is confirmed or refused.
    ///
    /// What is published to them from now on is heard until `Lost`. A call made while
    /// disconnected is confirmed right after the following `Up`, unless all its channels are
    /// unwanted again by then: it may be forgotten.
    Confirmed {
        /// The ticket that was given.
        ticket: u64,
    },
    /// The server refuses this channel (an ACL); it stays wanted and is tried again on reconnect.
    Refused {
        /// The channel.
        channel: Bytes,
        /// What the server said.
        error: String,
    },
    /// Something was published.
    ///
    /// Both may be slices of a large read buffer: who keeps them for long copies them.
    Notice {
        /// The channel, byte for byte.
        channel: Bytes,
        /// The payload, byte for byte.
        payload: Bytes,
    },
}

/// The handle of a subscription connection; dropping it closes the connection.
///
/// No method waits for the connection, so the consumer of what is heard may call them.
#[derive(Debug)]
pub struct Link {
    shared: Arc<Shared>,
    _closed_on_drop: DropGuard,
}

/// What the handle and the driver share.
#[derive(Debug, Default)]
struct Shared {
    /// Held for at most a few thousand map operations (a copy of the map on reconnect), never
    /// across an await: asking must not wait for the driver.
    wanted: Mutex<Wanted>,
    wake: Notify,
}

/// The channels that should be subscribed, and what changed since the driver looked.
#[derive(Debug, Default)]
struct Wanted {
    /// How often each channel is wanted, and whether the connection subscribes it.
    channels: Channels,
    /// Calls that were not said to the server yet.
    asked: VecDeque<Asked>,
    /// Channels that became unwanted and were not said to the server yet.
    left: VecDeque<Bytes>,
    /// Whether there is a connection; without one, changes are forgotten but for their
    /// tickets, as the next connection starts from `channels`.
    connected: bool,
    /// How many calls may wait for a connection before those that nobody waits for are sought.
    seek_at: usize,
    reset: Option<String>,
}

/// A part of one call of [`Link::subscribe`]; its last part has the ticket.
#[derive(Debug)]
struct Asked {
    channels: Vec<Bytes>,
    ticket: Option<Ticket>,
}

/// What is to be confirmed, and the channels for which it is.
#[derive(Debug, PartialEq, Eq)]
struct Ticket {
    number: u64,
    channels: Vec<Bytes>,
}

impl Wanted {
    /// Keeps a ticket for the next connection.
    ///
    /// A shard may be away for days while feeds come and go, so those that were let go again
    /// are dropped, once there are twice as many tickets as were left the last time.
    fn keep(&mut self, ticket: Ticket) {
        self.asked.push_back(Asked { channels: Vec::new(), ticket: Some(ticket) });
        if self.asked.len() > self.seek_at.max(CHUNK) {
            let channels = &self.channels;
            self.asked.retain(|asked| {
                asked.ticket.as_ref().is_none_or(|ticket| ticket.is_wanted(channels))
            });
            self.seek_at = 2 * self.asked.len();
        }
    }
}

impl Ticket {
    fn is_wanted(&self, wanted: &Channels) -> bool {
        let mut channels = self.channels.iter();
        self.channels.is_empty() || channels.any(|channel| wanted.contains(channel))
    }
}

impl Link {
    /// Wants these channels; [`Heard::Confirmed`] with `ticket` follows once the server has them all.
    ///
    /// A channel may be wanted several times and is left when it was unsubscribed as often.
    pub fn subscribe(&self, channels: Vec<Bytes>, ticket: u64) {
        let mut wanted = self.shared.lock();
        for channel in &channels {
            wanted.channels.add(channel);
        }
        let ticket = Ticket { number: ticket, channels };
        if wanted.connected {
            let mut parts = ticket.channels.chunks(CHUNK);
            let last = parts.next_back().unwrap_or_default().to_vec();
            for part in parts {
                wanted.asked.push_back(Asked { channels: part.to_vec(), ticket: None });
            }
            wanted.asked.push_back(Asked { channels: last, ticket: Some(ticket) });
        } else {
            wanted.keep(ticket);
        }
        drop(wanted);
        self.shared.wake.notify_one();
    }

    /// Wants these channels once less; those that are not wanted at all are passed over.
    pub fn unsubscribe(&self, channels: Vec<Bytes>) {
        let mut wanted = self.shared.lock();
        for channel in channels {
            if wanted.channels.remove(&channel) && wanted.connected {
                wanted.left.push_back(channel);
            }
        }
        drop(wanted);
        self.shared.wake.notify_one();
    }

    /// Gives the connection up and makes a new one: it does not deliver what it should.
    ///
    /// Nothing happens if there is none at the moment.
    pub fn reset(&self, reason: &str) {
        self.shared.lock().reset = Some(reason.to_owned());
        self.shared.wake.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().expect("no holder of this lock panics")
    }
}

/// One live connection below the driver: a socket to a Redis, or the keyspace in this process.
pub(crate) trait Wire: Send {
    /// Says SUBSCRIBE for these channels, at most [`CHUNK`] at once.
    fn subscribe<'a>(&'a mut self, channels: &'a [Bytes]) -> BoxFuture<'a, Result<(), String>>;
    /// Says UNSUBSCRIBE for these channels.
    fn unsubscribe<'a>(&'a mut self, channels: &'a [Bytes]) -> BoxFuture<'a, Result<(), String>>;
    /// Says PING, so that a half-dead connection shows.
    fn ping(&mut self) -> BoxFuture<'_, Result<(), String>>;
    /// Waits for the next thing the server says; an error is the end of the connection.
    ///
    /// Must be cancel safe: the driver drops the future when a command is due.
    fn next(&mut self) -> BoxFuture<'_, Result<Said, String>>;
}

/// What makes a [`Wire`] again and again.
pub(crate) trait Dial: Send + Sync + 'static {
    /// Connects; the error is a sentence for the log.
    fn dial(&self) -> BoxFuture<'_, Result<Box<dyn Wire>, String>>;
}

/// One thing the server said, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// The channel is subscribed.
    Subscribed(Bytes),
    /// The channel is not subscribed any more.
    Unsubscribed(Bytes),
    /// The oldest command that was not answered yet is refused as a whole.
    Refused(String),
    /// Something was published.
    Message { channel: Bytes, payload: Bytes },
    /// The answer to a ping.
    Pong,
}

/// How many channels one SUBSCRIBE names.
pub(crate) const CHUNK: usize = 1_000;

/// How long a connection attempt may take, and how long the server may not take what is said.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A connection that says nothing for so long is pinged.
const PING_AFTER: Duration = Duration::from_secs(1);

/// A connection that says nothing for so long after a ping is dead.
const DEAF_AFTER: Duration = Duration::from_secs(3);

/// Starts the driver of one subscription connection: one task, until the [`Link`] or the
/// receiving half of `heard` is dropped.
///
/// When `heard` is full the driver waits and reads no more, so that nothing is dropped and
/// nothing grows here; the server will cut the connection if that lasts, which is a
/// [`Heard::Lost`] like any other.
///
/// # Panics
///
/// Panics outside of a Tokio runtime.
pub(crate) fn drive(
    dial: impl Dial,
    name: Arc<str>,
    index: usize,
    heard: mpsc::Sender<(usize, Heard)>,
) -> Link {
    let shared = Arc::new(Shared::default());
    let closed = CancellationToken::new();
    let link = Link { shared: shared.clone(), _closed_on_drop: closed.clone().drop_guard() };
    tokio::spawn(async move {
        let receiver = heard.clone();
        let driver = Driver { shared, name, index, heard, quiet_since: Instant::now() };
        tokio::select! {
            () = closed.cancelled() => {}
            () = receiver.closed() => {}
            never = driver.run(dial) => match never {},
        }
    });
    link
}

/// The task of one link.
struct Driver {
    shared: Arc<Shared>,
    name: Arc<str>,
    index: usize,
    heard: mpsc::Sender<(usize, Heard)>,
    /// When the server last said something, or the consumer last kept us waiting.
    quiet_since: Instant,
}

/// Why a connection ended.
type Broken = String;

impl Driver {
    async fn run(mut self, dial: impl Dial) -> Infallible {
        let mut backoff = Backoff::new();
        let mut last_failure = String::new();
        loop {
            let dialed = timeout(CONNECT_TIMEOUT, dial.dial()).await;
            let failure = match dialed {
                Ok(Ok(wire)) => {
                    let since = Instant::now();
                    let (reason, was_up) = self.live(wire).await;
                    if was_up {
                        last_failure.clear();
                        self.tell(Heard::Lost { reason }).await;
                        backoff.lived(since.elapsed());
                        None
                    } else {
                        Some(reason)
                    }
                }
                Ok(Err(reason)) => Some(reason),
                Err(_) => Some(format!("no connection within {CONNECT_TIMEOUT:?}")),
            };
            let wait = backoff.wait();
            match failure {
                Some(reason) if reason != last_failure => {
                    warn!(shard = %self.name, %reason, "No subscription connection; will retry.");
                    last_failure = reason;
                }
                Some(reason) => debug!(shard = %self.name, %reason, "Still no connection."),
                None => {}
            }
            sleep(wait).await;
        }
    }

    /// Lives with one connection; says why it ended, and whether it had been up.
    async fn live(&mut self, mut wire: Box<dyn Wire>) -> (Broken, bool) {
        let mut ledger = Ledger::default();
        let tickets = {
            let mut wanted = self.shared.lock();
            wanted.connected = true;
            wanted.seek_at = 0;
            wanted.reset = None;
            let channels: Vec<Bytes> = wanted.channels.iter().collect();
            ledger.want(&mut wanted.channels, channels);
            wanted.asked.drain(..).filter_map(|asked| asked.ticket).collect()
        };
        ledger.due.extend([Step::Up, Step::Confirm(tickets)]);
        self.quiet_since = Instant::now();
        let Err(reason) = self.serve(&mut *wire, &mut ledger).await;

        let mut wanted = self.shared.lock();
        wanted.connected = false;
        wanted.channels.unsay_all();
        wanted.left = VecDeque::new();
        // What was asked and not confirmed will be confirmed by the next connection.
        let waiting = mem::take(&mut wanted.asked);
        let tickets = waiting.into_iter().filter_map(|asked| asked.ticket);
        let is_up = ledger.is_up;
        for ticket in ledger.into_tickets().chain(tickets) {
            wanted.keep(ticket);
        }
        (reason, is_up)
    }

    /// Says what is wanted and tells what is heard until the connection breaks.
    async fn serve(
        &mut self,
        wire: &mut dyn Wire,
        ledger: &mut Ledger,
    ) -> Result<Infallible, Broken> {
        let mut is_pinged = false;
        let mut may_want = true;
        loop {
            if may_want {
                self.check_reset()?;
            }
            while may_want && ledger.due.is_empty() {
                may_want = self.take_wants(ledger);
                coop::consume_budget().await;
            }
            say_due(wire, ledger).await?;
            while let Some(mark) = ledger.reached() {
                self.tell_mark(mark, ledger).await;
            }
            let patience = if is_pinged { DEAF_AFTER } else { PING_AFTER };
            tokio::select! {
                biased;
                () = self.shared.wake.notified() => may_want = true,
                said = wire.next() => {
                    let said = said?;
                    is_pinged = false;
                    self.quiet_since = Instant::now();
                    self.on_said(said, ledger).await?;
                }
                () = sleep_until(self.quiet_since + patience) => {
                    if is_pinged {
                        return Err(format!("nothing heard for {DEAF_AFTER:?} after a ping"));
                    }
                    is_pinged = true;
                    self.quiet_since = Instant::now();
                    in_time(wire.ping()).await?;
                    ledger.on_step_said(Step::Ping);
                }
            }
        }
    }

    fn check_reset(&self) -> Result<(), Broken> {
        self.shared.lock().reset.take().map_or(Ok(()), Err)
    }

    /// Moves a bounded part of what changed into the ledger; tells whether there is more.
    fn take_wants(&self, ledger: &mut Ledger) -> bool {
        let mut wanted = self.shared.lock();
        let Wanted { channels, asked, left, .. } = &mut *wanted;
        let mut come = Vec::new();
        let mut tickets = Vec::new();
        while come.len() < CHUNK && tickets.len() < CHUNK {
            let Some(part) = asked.pop_front() else { break };
            // What was left again meanwhile must not be subscribed: `left` may be through already.
            come.extend(part.channels.into_iter().filter(|channel| channels.contains(channel)));
            tickets.extend(part.ticket);
        }
        let gone: Vec<Bytes> = left
            .drain(..left.len().min(CHUNK))
            .filter(|channel| !channels.contains(channel))
            .collect();
        let is_more = !asked.is_empty() || !left.is_empty();
        ledger.leave(channels, gone);
        ledger.want(channels, come);
        drop(wanted);

        if !tickets.is_empty() {
            ledger.due.push_back(Step::Confirm(tickets));
        }
        is_more
    }

    async fn on_said(&mut self, said: Said, ledger: &mut Ledger) -> Result<(), Broken> {
        match said {
            Said::Message { channel, payload } => {
                if ledger.is_up {
                    self.tell(Heard::Notice { channel, payload }).await;
                }
                Ok(())
            }
            Said::Subscribed(channel) => ledger.on_subscribed(&channel),
            Said::Unsubscribed(channel) => ledger.on_unsubscribed(&channel),
            Said::Pong => ledger.on_pong(),
            Said::Refused(error) => {
                let refused = ledger.on_refused(&mut self.shared.lock().channels, &error)?;
                if let Some(channel) = refused {
                    self.tell(Heard::Refused { channel, error }).await;
                }
                Ok(())
            }
        }
    }

    async fn tell_mark(&mut self, mark: Mark, ledger: &mut Ledger) {
        match mark {
            Mark::Up => {
                ledger.is_up = true;
                self.tell(Heard::Up).await;
            }
            Mark::Confirm(tickets) => {
                for Ticket { number, .. } in tickets {
                    self.tell(Heard::Confirmed { ticket: number }).await;
                }
            }
        }
    }

    /// Tells the consumer, however long it takes; that time is not the server's silence.
    async fn tell(&mut self, heard: Heard) {
        coop::consume_budget().await;
        match self.heard.try_send((self.index, heard)) {
            // A receiver that is gone ends the whole task.
            Ok(()) | Err(TrySendError::Closed(_)) => {}
            Err(TrySendError::Full(heard)) => {
                let _ = self.heard.send(heard).await;
                self.quiet_since = Instant::now();
            }
        }
    }
}

/// Says what is due, as far as the window allows.
async fn say_due(wire: &mut dyn Wire, ledger: &mut Ledger) -> Result<(), Broken> {
    while let Some(step) = ledger.next_due() {
        match &step {
            Step::Subscribe(channels) => in_time(wire.subscribe(channels)).await?,
            Step::Unsubscribe(channels) => in_time(wire.unsubscribe(channels)).await?,
            Step::Ping => in_time(wire.ping()).await?,
            Step::Up | Step::Confirm(_) => {}
        }
        ledger.on_step_said(step);
        coop::consume_budget().await;
    }
    Ok(())
}

/// Bounds how long the server may not take what is said to it.
async fn in_time(said: impl Future<Output = Result<(), String>>) -> Result<(), Broken> {
    timeout(CONNECT_TIMEOUT, said)
        .await
        .unwrap_or_else(|_| Err(format!("nothing could be said for {CONNECT_TIMEOUT:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn away() -> Link {
        Link { shared: Arc::default(), _closed_on_drop: CancellationToken::new().drop_guard() }
    }

    fn channel(number: u64) -> Vec<Bytes> {
        vec![Bytes::from(number.to_string())]
    }

    fn tickets(link: &Link) -> Vec<u64> {
        let wanted = link.shared.lock();
        wanted.asked.iter().filter_map(|asked| Some(asked.ticket.as_ref()?.number)).collect()
    }

    #[test]
    fn tickets_of_what_was_let_go_while_the_shard_is_away_do_not_pile_up() {
        let link = away();
        link.subscribe(vec![], 0);
        link.subscribe([channel(1), channel(2)].concat(), 1);
        link.unsubscribe(channel(1));
        for number in 3..100 * CHUNK as u64 {
            link.subscribe(channel(number), number);
            link.unsubscribe(channel(number));
        }
        let kept = tickets(&link);
        assert!(kept.len() <= CHUNK + 1, "{} are kept", kept.len());
        assert_eq!(kept[..2], [0, 1], "somebody waits for these");
        assert!(link.shared.lock().channels.iter().eq(channel(2)));
    }

    #[test]
    fn tickets_that_somebody_waits_for_are_kept_in_their_order() {
        let link = away();
        let many = 10 * CHUNK as u64;
        for number in 0..many {
            link.subscribe(channel(number), number);
        }
        assert_eq!(tickets(&link), (0..many).collect::<Vec<_>>());
    }
}
