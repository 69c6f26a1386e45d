//! A session whose client polls: no task, an entry in a register.
//!
//! What is to be said is taken out of the mailbox when a poll asks for it. A poll that is
//! aborted while it waits has taken nothing; what an answer held that never went out is said
//! again in the next.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use axum::{body::Body, extract::Request, response::Response};
use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::{
    HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use tokio::{task::AbortHandle, time::timeout};
use tracing::debug;

use super::{
    Life,
    eio::{Bounds, Form, Packet, Writer},
    eio3, eio4,
    handshake::{Entry, Sessions, Sid},
    heartbeat::Beat,
    upper::{Down, Ended, Message},
};
use crate::{
    outbox::CloseReason,
    socket::{
        Protocol,
        guard::{self, mistake},
        stall::{Peer, Switch},
    },
};

/// How much one answer may have before what follows waits for the next.
const ANSWER_BYTES: usize = 256 << 10;

/// How many packets one request may bring.
const PACKETS: usize = 8_192;

/// How much of an answer a proxy passes on to the slowest client while it may stand still.
const PROXY_BYTES: usize = 128 << 10;

/// Between two empty answers to a client that upgrades, as the original servers have it: each
/// makes it look whether it may go on.
const NOOP_EVERY: Duration = Duration::from_millis(100);

/// Says that the session has ended.
const CLOSE: &str = "1";

/// Says nothing.
const NOOP: &str = "6";

/// How long the end of a session is kept for a client that does not poll just now.
const FAREWELL: Duration = Duration::from_secs(5);

/// A session whose client polls.
#[derive(Debug)]
pub(super) struct Polling {
    sid: Sid,
    protocol: Protocol,
    /// Said at the handshake that it cannot read binary data; not all say it again.
    b64: bool,
    sessions: Weak<Sessions>,
    /// The poll that waits, if one does.
    poll: AtomicWaker,
    /// Whether it waits to be looked at.
    cared: AtomicBool,
    /// Whether a request brings something.
    brings: AtomicBool,
    /// Held for one request's work without waiting for anything.
    state: Mutex<State>,
}

struct State {
    /// `None` once the session has ended, or a websocket has it.
    life: Option<Life>,
    phase: Phase,
    /// When its first poll has to have come.
    first_poll: Instant,
    /// The number of the newest poll.
    newest: u64,
    /// Whether it waits for something to say.
    is_waiting: bool,
    /// Packets of engine.io itself that are to be said: one of a type, so that a client that
    /// does not poll cannot have them pile up.
    control: Vec<String>,
    /// What was taken out, and is to be said first.
    first: VecDeque<Down>,
    /// The last answer, until the next poll shows that it came.
    answer: Option<Answered>,
    /// Since when something waits for a poll.
    waits: Option<Instant>,
    /// When the session is looked at next.
    armed: Option<Instant>,
    upgrade: Upgrading,
    /// The task of the websocket that may take over.
    probe: Option<Task>,
}

/// A websocket's own task, once it was started.
pub(super) type Task = Arc<OnceLock<AbortHandle>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// It has ended, and its client shall hear so from its next poll, by this packet; until then.
    Farewell(Instant, &'static str),
    /// It has ended.
    Gone,
    /// A websocket carries it now.
    Upgraded,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Upgrading {
    No,
    /// A websocket is open that may take over.
    Opened,
    /// It was probed: polls are answered at once, but not faster than this.
    Probed {
        noop_at: Instant,
    },
}

/// What an answer held, and how to tell whether it went out.
struct Answered {
    control: Vec<String>,
    downs: Vec<Down>,
    snapshots: usize,
    bytes: usize,
    carrier: Option<Switch>,
    /// How much its connection will have written with it.
    until: u64,
    /// How much it had written when that was looked at last.
    seen: u64,
}

impl Answered {
    /// Ends it unless it went out whole; tells whether it did not, and never will.
    ///
    /// A client makes its next poll when it has the answer, or has given it up.
    fn is_lost(&self) -> bool {
        self.carrier.as_ref().is_some_and(|carrier| carrier.cut_short(self.until))
    }

    /// Tells whether it did not go out yet.
    fn is_on_its_way(&self) -> bool {
        self.carrier.as_ref().is_some_and(|carrier| carrier.written() < self.until)
    }

    /// Tells whether some of it went out since this was asked.
    fn moves(&mut self) -> bool {
        let written = self.carrier.as_ref().map_or(0, Switch::written);
        std::mem::replace(&mut self.seen, written) != written
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("State").field("phase", &self.phase).finish_non_exhaustive()
    }
}

/// What a websocket takes over.
pub(super) struct HandedOver {
    pub(super) sessions: Arc<Sessions>,
    pub(super) sid: Sid,
    pub(super) life: Life,
    /// What is to be said before anything else.
    pub(super) first: VecDeque<Down>,
}

/// What a poll is answered.
enum Say {
    Packets(Writer),
    /// There is no such session.
    Unknown,
}

impl Polling {
    /// Opens a session and answers its handshake.
    pub(super) fn open(sessions: &Arc<Sessions>, sid: Sid, life: Life, open: &str) -> Response {
        let (protocol, b64) = (life.protocol, life.b64);
        let state = State {
            life: Some(life),
            phase: Phase::Open,
            first_poll: now() + sessions.options().patience,
            newest: 0,
            is_waiting: false,
            control: Vec::new(),
            first: VecDeque::new(),
            answer: None,
            waits: None,
            armed: None,
            upgrade: Upgrading::No,
            probe: None,
        };
        let polling = Arc::new(Self {
            sid,
            protocol,
            b64,
            sessions: Arc::downgrade(sessions),
            poll: AtomicWaker::new(),
            cared: AtomicBool::new(false),
            brings: AtomicBool::new(false),
            state: Mutex::new(state),
        });
        sessions.insert(sid, || Entry::Polling(polling.clone()));
        polling.want_care();
        let mut writer = Writer::new(form(protocol, b64));
        writer.text(&[open.as_bytes()]);
        respond(writer)
    }

    /// Answers a poll, as soon as there is something to say.
    pub(super) async fn poll(self: Arc<Self>, peer: Option<Peer>, b64: bool) -> Response {
        let carrier = peer.map(|peer| peer.switch);
        let number = self.begin();
        // A client that goes away has its request dropped.
        let waiting = Waiting { polling: &self, number };
        let form = form(self.protocol, b64 || self.b64);
        let say = loop {
            // A client that has gone by now is seen first, and its request dropped, before
            // anything is taken out for it.
            tokio::task::yield_now().await;
            let say = poll_fn(|cx| Poll::Ready(self.say(cx, number, form, carrier.as_ref())));
            match say.await {
                Poll::Ready(say) => break say,
                Poll::Pending => woken().await,
            }
        };
        drop(waiting);
        match say {
            Say::Packets(writer) => respond(writer),
            Say::Unknown => guard::unknown_sid(),
        }
    }

    /// Notes that a poll came, which the client makes when it has the answer to the one before.
    fn begin(&self) -> u64 {
        let mut state = self.lock();
        state.newest += 1;
        let now = now();
        state.settle();
        if let Some(life) = &mut state.life {
            life.heartbeat.heard(now);
        }
        state.waits = None;
        let number = state.newest;
        drop(state);
        // The one before is answered with nothing.
        self.poll.wake();
        number
    }

    /// Says what there is to say, or has the poll wait.
    fn say(
        self: &Arc<Self>,
        cx: &Context<'_>,
        number: u64,
        form: Form,
        carrier: Option<&Switch>,
    ) -> Poll<Say> {
        let mut state = self.lock();
        let mut writer = Writer::new(form);
        if state.newest != number {
            writer.text(&[NOOP.as_bytes()]);
            return Poll::Ready(Say::Packets(writer));
        }
        match state.phase {
            Phase::Open => {}
            Phase::Farewell(_, packet) => {
                writer.text(&[packet.as_bytes()]);
                state.phase = Phase::Gone;
                drop(state);
                self.forget();
                return Poll::Ready(Say::Packets(writer));
            }
            Phase::Gone => return Poll::Ready(Say::Unknown),
            Phase::Upgraded => {
                writer.text(&[NOOP.as_bytes()]);
                return Poll::Ready(Say::Packets(writer));
            }
        }
        self.poll.register(cx.waker());
        state.is_waiting = true;
        let now = now();
        let control = std::mem::take(&mut state.control);
        for packet in &control {
            writer.text(&[packet.as_bytes()]);
        }
        let (mut downs, mut snapshots, mut ended) = (Vec::new(), 0, None);
        let waker = Waker::from(self.clone());
        let mut own = Context::from_waker(&waker);
        while writer.len() < ANSWER_BYTES {
            let down = match state.next(&mut own) {
                Poll::Ready(Down::Close(reason)) => {
                    ended = Some(reason);
                    break;
                }
                Poll::Ready(down) => down,
                Poll::Pending => break,
            };
            snapshots += write(&mut writer, &down, self.protocol);
            downs.push(down);
        }
        if let Some(reason) = ended {
            if writer.is_empty() {
                state.phase = Phase::Gone;
                writer.text(&[CLOSE.as_bytes()]);
            } else {
                state.phase = Phase::Farewell(now + FAREWELL, CLOSE);
            }
            state.is_waiting = false;
            let life = state.life.take();
            let is_gone = state.phase == Phase::Gone;
            drop(state);
            if let Some(life) = life {
                life.end(Ended::of(reason));
            }
            if is_gone {
                self.forget();
            } else {
                self.want_care();
            }
            return Poll::Ready(Say::Packets(writer));
        }
        if writer.is_empty() {
            let Upgrading::Probed { noop_at } = state.upgrade else { return Poll::Pending };
            if now < noop_at {
                drop(state);
                self.want_care();
                return Poll::Pending;
            }
            state.upgrade = Upgrading::Probed { noop_at: now + NOOP_EVERY };
            writer.text(&[NOOP.as_bytes()]);
        }
        state.is_waiting = false;
        let before = carrier.map_or(0, Switch::written);
        state.answer = Some(Answered {
            control,
            downs,
            snapshots,
            bytes: writer.len(),
            carrier: carrier.cloned(),
            until: before + writer.len() as u64,
            seen: before,
        });
        drop(state);
        self.want_care();
        Poll::Ready(Say::Packets(writer))
    }

    /// Takes in what a client sends.
    pub(super) async fn post(self: Arc<Self>, request: Request) -> Response {
        let Some(sessions) = self.sessions.upgrade() else { return guard::unknown_sid() };
        let options = sessions.options();
        let Some(_brings) = Brings::begin(&self) else {
            // As the original servers do: a page that closes says so beside what it said before.
            self.close(Ended::Fault("overlapping_post"));
            return mistake(StatusCode::BAD_REQUEST, (3, "Bad request"));
        };
        let is_binary = request
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/octet-stream"));
        let body = axum::body::to_bytes(request.into_body(), options.max_payload);
        let body = match timeout(options.patience, body).await {
            Ok(Ok(body)) => body,
            Ok(Err(error)) => {
                let is_too_large = std::error::Error::source(&error)
                    .is_some_and(|source| source.is::<http_body_util::LengthLimitError>());
                if !is_too_large {
                    debug!(%error, "Body of a request did not come.");
                    return mistake(StatusCode::BAD_REQUEST, (3, "Bad request"));
                }
                self.close(Ended::Fault("body_too_large"));
                return mistake(StatusCode::PAYLOAD_TOO_LARGE, (3, "Payload too large"));
            }
            Err(_) => return mistake(StatusCode::REQUEST_TIMEOUT, (3, "Body did not come")),
        };
        let bounds = Bounds { packets: PACKETS, packet_bytes: options.max_payload };
        let packets = match self.protocol {
            Protocol::Eio3 => eio3::decode(&body, is_binary, bounds),
            Protocol::Eio4 => eio4::decode(&body, bounds),
        };
        let taken = match packets {
            Ok(packets) => self.take(packets),
            Err(error) => Err(Ended::Fault(error.label())),
        };
        match taken {
            Ok(true) => text_answer("ok"),
            Ok(false) => guard::unknown_sid(),
            Err(ended @ Ended::Left) => {
                self.close(ended);
                text_answer("ok")
            }
            Err(ended) => {
                self.close(ended);
                mistake(StatusCode::BAD_REQUEST, (3, "Bad request"))
            }
        }
    }

    /// Takes packets in; tells whether the session is still there.
    fn take(self: &Arc<Self>, packets: Vec<Packet<'_>>) -> Result<bool, Ended> {
        let mut state = self.lock();
        match state.phase {
            Phase::Open => {}
            // Its client is told with its poll; what it said crossed that on the way.
            Phase::Farewell(..) => return Ok(true),
            Phase::Gone | Phase::Upgraded => return Ok(false),
        }
        let State { life: Some(life), control, .. } = &mut *state else { return Ok(false) };
        let now = now();
        life.heartbeat.heard(now);
        for packet in packets {
            match packet {
                Packet::Message(text) => life.upper.take(Message::Text(text.into_owned()))?,
                Packet::Binary(data) => {
                    life.upper.take(Message::Binary(Bytes::copy_from_slice(&data)))?;
                }
                Packet::Ping(text) if self.protocol == Protocol::Eio3 => {
                    put(control, format!("3{text}"));
                }
                Packet::Pong(_) => life.heartbeat.pong(now),
                Packet::Close => return Err(Ended::Left),
                Packet::Noop | Packet::Upgrade => {}
                Packet::Open(_) | Packet::Ping(_) => return Err(Ended::Fault("packet_type")),
            }
        }
        drop(state);
        // There may be an answer to it, and another time to look again.
        self.poll.wake();
        self.want_care();
        Ok(true)
    }

    /// Does what is due; returns when the session is to be looked at again, unless that is
    /// arranged already.
    pub(super) fn look(self: &Arc<Self>, now: Instant) -> Option<Instant> {
        self.cared.store(false, Ordering::Release);
        let stall = self.sessions.upgrade()?.options().stall;
        let mut state = self.lock();
        if state.armed.is_some_and(|armed| armed <= now) {
            state.armed = None;
        }
        let mut has_something = false;
        let due = match state.phase {
            Phase::Gone | Phase::Upgraded => return None,
            Phase::Farewell(until, _) if until <= now => {
                state.phase = Phase::Gone;
                drop(state);
                self.forget();
                return None;
            }
            Phase::Farewell(until, _) => until,
            Phase::Open => match self.look_at(&mut state, now, stall) {
                Ok((due, has)) => {
                    has_something = has;
                    due
                }
                Err(ended) => {
                    drop(state);
                    self.close(ended);
                    return self.look(now);
                }
            },
        };
        let is_arranged = state.armed.is_some_and(|armed| armed <= due);
        if !is_arranged {
            state.armed = Some(due);
        }
        let is_waiting = state.is_waiting;
        drop(state);
        if is_waiting && has_something {
            self.poll.wake();
        }
        (!is_arranged).then_some(due)
    }

    /// Looks at an open session; returns when it is due next, and whether there may be
    /// something to say now.
    fn look_at(
        self: &Arc<Self>,
        state: &mut State,
        now: Instant,
        stall: Duration,
    ) -> Result<(Instant, bool), Ended> {
        let is_waiting = state.is_waiting;
        let Some(life) = &mut state.life else { return Err(Ended::Left) };
        match life.heartbeat.beat(now) {
            Some(Beat::Ping) => put(&mut state.control, "2".to_owned()),
            Some(Beat::Dead) => return Err(Ended::Silent),
            None => {}
        }
        let mut due = life.heartbeat.next();
        if state.newest == 0 {
            // Who made a handshake and nothing of it has no claim to a heartbeat's time.
            if state.first_poll <= now {
                return Err(Ended::Fault("never_polled"));
            }
            due = due.min(state.first_poll);
        }
        let mut has_something = !state.control.is_empty();
        if life.upper.deadline().is_some_and(|deadline| deadline <= now) {
            life.upper.tick(now);
            has_something = true;
        }
        if let Some(deadline) = life.upper.deadline() {
            due = due.min(deadline);
        }
        if let Upgrading::Probed { noop_at } = state.upgrade
            && is_waiting
        {
            has_something |= noop_at <= now;
            due = due.min(if noop_at <= now { now + NOOP_EVERY } else { noop_at });
        }
        if is_waiting {
            return Ok((due, has_something));
        }
        // Nobody polls: an end is found here, and whatever waits has its time.
        if state.first.is_empty() {
            let waker = Waker::from(self.clone());
            match state.next(&mut Context::from_waker(&waker)) {
                Poll::Ready(Down::Close(reason)) => return Err(Ended::of(reason)),
                Poll::Ready(down) => state.first.push_back(down),
                Poll::Pending => {}
            }
        }
        let is_on_its_way = state.answer.as_ref().is_some_and(Answered::is_on_its_way);
        let moves = state.answer.as_mut().is_some_and(Answered::moves);
        if moves || state.first.is_empty() && !is_on_its_way {
            state.waits = None;
        }
        if state.first.is_empty() && !is_on_its_way {
            return Ok((due, false));
        }
        // A proxy may have taken a large answer long before its client has it, and that would
        // come back for the same one.
        let whole = state.answer.as_ref().filter(|_| !is_on_its_way);
        let large = whole.map_or(0, |answer| answer.bytes / PROXY_BYTES);
        let patience = stall.saturating_mul(u32::try_from(large).unwrap_or(u32::MAX) + 1);
        let since = *state.waits.get_or_insert(now);
        if since + patience <= now {
            return Err(Ended::Closed(CloseReason::Stalled));
        }
        Ok((due.min(since + patience), false))
    }

    /// Lets a websocket try to take over; `false` where one tries already.
    pub(super) fn begin_upgrade(&self, task: &Task) -> bool {
        let mut state = self.lock();
        let may = state.phase == Phase::Open && state.upgrade == Upgrading::No;
        if may {
            state.upgrade = Upgrading::Opened;
            state.probe = Some(task.clone());
        }
        may
    }

    /// Notes that the websocket was probed: from now on no poll is held back.
    pub(super) fn probed(self: &Arc<Self>) {
        self.lock().upgrade = Upgrading::Probed { noop_at: now() };
        self.poll.wake();
        self.want_care();
    }

    /// Notes that the websocket did not take over.
    pub(super) fn end_upgrade(&self) {
        let mut state = self.lock();
        state.upgrade = Upgrading::No;
        state.probe = None;
    }

    /// Hands everything over to a websocket and its task, if the session is still there.
    pub(super) fn hand_over(&self, task: &Task) -> Option<HandedOver> {
        let sessions = self.sessions.upgrade()?;
        let mut state = self.lock();
        if state.phase != Phase::Open {
            return None;
        }
        state.settle();
        let life = state.life.take()?;
        state.phase = Phase::Upgraded;
        let mut first = std::mem::take(&mut state.first);
        for packet in std::mem::take(&mut state.control) {
            first.push_front(Down::Text { head: packet, body: Bytes::new(), tail: "" });
        }
        drop(state);
        self.poll.wake();
        sessions.insert(self.sid, || {
            Entry::Websocket(task.get().expect("it is set before anybody gets the lock").clone())
        });
        Some(HandedOver { sessions, sid: self.sid, life, first })
    }

    /// Ends the session from this side or for its client's fault.
    fn close(self: &Arc<Self>, ended: Ended) {
        let mut state = self.lock();
        if state.phase != Phase::Open {
            return;
        }
        let life = state.life.take();
        let is_waiting = state.is_waiting;
        state.phase = match ended {
            Ended::Closed(_) => Phase::Farewell(now() + FAREWELL, CLOSE),
            // Its last poll may be on the way on another connection.
            Ended::Left => Phase::Farewell(now() + FAREWELL, NOOP),
            // Nobody comes who would wait for it, but who is there is told.
            Ended::Silent | Ended::Fault(_) if is_waiting => {
                Phase::Farewell(now() + FAREWELL, CLOSE)
            }
            Ended::Silent | Ended::Fault(_) => Phase::Gone,
        };
        let is_gone = state.phase == Phase::Gone;
        drop(state);
        if let Some(life) = life {
            life.end(ended);
        }
        if is_gone {
            self.forget();
        } else if is_waiting {
            self.poll.wake();
        } else {
            self.want_care();
        }
    }

    /// Ends at once, because everything does.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.phase = Phase::Gone;
        let (life, probe) = (state.life.take(), state.probe.take());
        drop(state);
        drop(life);
        // It belongs to nobody now.
        if let Some(task) = probe.as_ref().and_then(|task| task.get()) {
            task.abort();
        }
        self.poll.wake();
    }

    fn forget(&self) {
        if let Some(sessions) = self.sessions.upgrade() {
            sessions.remove(self.sid);
        }
    }

    /// Has the session looked at by whoever looks after those without a task.
    fn want_care(self: &Arc<Self>) {
        if !self.cared.swap(true, Ordering::AcqRel)
            && let Some(sessions) = self.sessions.upgrade()
        {
            sessions.care(self.clone());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

impl State {
    /// Looks what became of the last answer: what did not go out is to be said again.
    fn settle(&mut self) {
        let Some(answer) = self.answer.take() else { return };
        if answer.is_lost() {
            // What waits is newer than what was lost.
            for packet in std::mem::replace(&mut self.control, answer.control) {
                put(&mut self.control, packet);
            }
            for down in answer.downs.into_iter().rev() {
                self.first.push_front(down);
            }
        } else if let Some(life) = &mut self.life
            && answer.snapshots > 0
        {
            life.upper.let_go(answer.snapshots);
        }
    }

    /// Takes out what is to be said next.
    fn next(&mut self, cx: &mut Context<'_>) -> Poll<Down> {
        if let Some(down) = self.first.pop_front() {
            return Poll::Ready(down);
        }
        match &mut self.life {
            Some(life) => life.upper.poll_next(cx),
            None => Poll::Pending,
        }
    }
}

/// Something waits to be said: a poll that is there says it, and if none is, its time runs.
impl Wake for Polling {
    fn wake(self: Arc<Self>) {
        match self.poll.take() {
            Some(poll) => poll.wake(),
            None => self.want_care(),
        }
    }
}

/// A poll that waits; dropped, it was aborted, and the session has none.
struct Waiting<'a> {
    polling: &'a Arc<Polling>,
    number: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.polling.lock();
        if state.newest == self.number {
            state.is_waiting = false;
            self.polling.poll.take();
            drop(state);
            self.polling.want_care();
        }
    }
}

/// Waits until the task is woken.
async fn woken() {
    let mut is_woken = false;
    poll_fn(
        |_| if std::mem::replace(&mut is_woken, true) { Poll::Ready(()) } else { Poll::Pending },
    )
    .await;
}

/// A request that brings something; a client has one at a time.
struct Brings<'a>(&'a Polling);

impl<'a> Brings<'a> {
    fn begin(polling: &'a Polling) -> Option<Self> {
        (!polling.brings.swap(true, Ordering::AcqRel)).then_some(Self(polling))
    }
}

impl Drop for Brings<'_> {
    fn drop(&mut self) {
        self.0.brings.store(false, Ordering::Release);
    }
}

/// Puts a packet of engine.io itself to those that wait, in the place of one of its type.
fn put(control: &mut Vec<String>, packet: String) {
    control.retain(|waits| waits.as_bytes().first() != packet.as_bytes().first());
    control.push(packet);
}

const fn form(protocol: Protocol, b64: bool) -> Form {
    match (protocol, b64) {
        (Protocol::Eio4, _) => Form::Eio4,
        (Protocol::Eio3, true) => Form::Eio3Text,
        (Protocol::Eio3, false) => Form::Eio3Binary,
    }
}

/// Writes a packet; returns how many bytes of a snapshot it has.
fn write(writer: &mut Writer, down: &Down, protocol: Protocol) -> usize {
    match down {
        Down::Frame(frame) => {
            writer.text(&[&frame.text(protocol.format())]);
            return frame.snapshot_bytes();
        }
        Down::Text { head, body, tail } => {
            writer.text(&[head.as_bytes(), body, tail.as_bytes()]);
        }
        Down::Binary(data) => writer.binary(data),
        Down::Close(_) => {}
    }
    0
}

fn respond(writer: Writer) -> Response {
    let (body, kind) = writer.finish();
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn text_answer(text: &'static str) -> Response {
    let mut response = Response::new(Body::from(text));
    let kind = HeaderValue::from_static("text/plain; charset=UTF-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
