//! A websocket, and the one task that serves it.
//!
//! The task is a future written by hand: while nothing happens it holds the socket, one timer
//! and what runs above, and no buffer at all.

use std::{
    cell::RefCell,
    io::IoSlice,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep_until},
};
use tracing::warn;

use super::{
    Life, Upgrade,
    eio::{BadPayload, Packet},
    eio3, eio4,
    handshake::{Entry, Registered, Sessions, Sid},
    heartbeat::Beat,
    out::Out,
    polling::HandedOver,
    upgrade::{self, Probe},
    upper::{Down, Ended, Message},
    wire::{Decoder, Frame, Opcode},
};
use crate::{
    metrics,
    outbox::CloseReason,
    socket::{
        Protocol,
        guard::{Kind, Query},
        stall,
    },
};

/// How much is taken out of the mailbox before it is written.
const BATCH: usize = 64 << 10;

/// How many pieces are written at once.
const SLICES: usize = 64;

/// How often a client may be read from before others have their turn.
const READS: usize = 16;

/// How much is read at once.
const READ: usize = 16 << 10;

/// How long the end of a connection may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// Codes of a close frame (RFC 6455, 7.4.1): all is said.
const NORMAL: u16 = 1000;

/// This side goes away, or gives its peer up.
const GOING_AWAY: u16 = 1001;

/// The peer broke the protocol.
const PROTOCOL_ERROR: u16 = 1002;

thread_local! {
    /// What was read, until it is decoded: one for all sockets of a thread.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into());
}

/// A websocket that serves a session, or is about to, and its task: it ends with the connection.
pub(super) struct Websocket {
    io: Io,
    decoder: Decoder,
    out: Out,
    protocol: Protocol,
    /// Its client cannot read binary data.
    b64: bool,
    stall: Duration,
    stage: Stage,
    /// Since when nothing could be written.
    blocked: Option<Instant>,
    /// What its client said may still be answered before anything is written.
    waits: Wait,
    timer: Pin<Box<Sleep>>,
}

/// Whether others have had their turn between what a client said and what it is told.
///
/// A client that joins is answered twice, by the engine and with its state, and what it calls
/// for is often answered at once: after one turn of the others both go out in one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    No,
    /// It has said something since they had.
    Heard,
    /// They have it now.
    Yielded,
}

enum Io {
    /// The answer to its request is not written yet.
    Upgrading(OnUpgrade),
    Open(TcpStream),
}

/// What a websocket is there for.
enum Stage {
    /// It may take a polling session over, until then.
    Probe(Probe, Instant),
    Open(Open),
    /// What waits is written, until then; its session has ended.
    Farewell(Instant),
}

/// A session that a websocket carries.
struct Open {
    life: Life,
    /// It is closed for being slow, and still given the snapshot that is on its way.
    is_slow: bool,
    /// Takes it out of the register.
    _registered: Registered,
}

/// The connection is over.
struct Over;

impl Websocket {
    /// Opens a session on a websocket of its own.
    pub(super) fn open(
        sessions: &Arc<Sessions>,
        sid: Sid,
        life: Life,
        open: &str,
        upgrade: Upgrade,
    ) {
        let (protocol, b64) = (life.protocol, life.b64);
        let registered = Registered { sessions: sessions.clone(), sid };
        let session = Open { life, is_slow: false, _registered: registered };
        let mut websocket = Self::new(sessions, Stage::Open(session), protocol, b64, upgrade);
        websocket.out.text(open.as_bytes());
        let tracker = &sessions.options().drain.tracker;
        sessions.insert(sid, || Entry::Websocket(tracker.spawn(websocket).abort_handle()));
    }

    /// Opens a websocket that may take a polling session over.
    pub(super) fn probe(
        sessions: &Arc<Sessions>,
        probe: Probe,
        query: Query<'_>,
        upgrade: Upgrade,
    ) {
        let task = probe.task();
        let stage = Stage::Probe(probe, now() + upgrade::TIMEOUT);
        let websocket = Self::new(sessions, stage, query.protocol, query.b64, upgrade);
        let tracker = &sessions.options().drain.tracker;
        sessions.hold(|| drop(task.set(tracker.spawn(websocket).abort_handle())));
    }

    /// Opens a websocket and closes it.
    pub(super) fn turn_away(sessions: &Sessions, query: Query<'_>, upgrade: Upgrade) {
        let stage = Stage::Farewell(now() + FAREWELL);
        let mut websocket = Self::new(sessions, stage, query.protocol, query.b64, upgrade);
        websocket.out.first(Opcode::Close, &NORMAL.to_be_bytes());
        sessions.options().drain.tracker.spawn(websocket);
    }

    fn new(
        sessions: &Sessions,
        stage: Stage,
        protocol: Protocol,
        b64: bool,
        upgrade: Upgrade,
    ) -> Self {
        let options = sessions.options();
        let mut websocket = Self {
            io: Io::Upgrading(upgrade.on),
            decoder: Decoder::new(options.max_message),
            out: Out::default(),
            protocol,
            b64,
            stall: options.stall,
            stage,
            blocked: None,
            waits: Wait::No,
            timer: Box::pin(sleep_until(tokio::time::Instant::now())),
        };
        let due = websocket.due();
        websocket.timer.as_mut().reset(due.into());
        websocket
    }

    /// Waits for the answer to be written; what the client said behind its request is taken in.
    fn poll_upgrade(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Over>> {
        let Io::Upgrading(upgrade) = &mut self.io else { return Poll::Ready(Ok(())) };
        let Ok(upgraded) = ready!(Pin::new(upgrade).poll(cx)) else {
            self.stop(Ended::Left);
            return Poll::Ready(Err(Over));
        };
        let Ok(parts) = upgraded.downcast::<TokioIo<stall::Stream>>() else {
            warn!("Websocket did not come through the stall listener; closed.");
            return Poll::Ready(Err(Over));
        };
        self.io = Io::Open(parts.io.into_inner().into_tcp());
        self.take_in(&parts.read_buf);
        Poll::Ready(Ok(()))
    }

    /// Reads, looks at the time, and writes, as far as it goes.
    fn step(&mut self, cx: &mut Context<'_>) -> Result<(), Over> {
        let has_yielded = self.waits == Wait::Yielded;
        self.waits = Wait::No;
        self.read(cx)?;
        if self.waits == Wait::Heard && !has_yielded {
            self.waits = Wait::Yielded;
            cx.waker().wake_by_ref();
            return Ok(());
        }
        let now = now();
        if let Err(ended) = self.look(now) {
            self.end(ended)?;
        }
        loop {
            let is_more = match self.pull(cx) {
                Ok(is_more) => is_more,
                Err(ended) => {
                    self.end(ended)?;
                    false
                }
            };
            let is_written = self.write(cx, now)?;
            if self.is_slow_to_its_end(cx) {
                self.end(Ended::Closed(CloseReason::Slow))?;
            } else if !(is_more && is_written) {
                return self.leave(cx, now);
            }
        }
    }

    /// Says that nothing more comes, once all is said; the peer closes when it has read that.
    fn leave(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), Over> {
        match (&self.stage, &mut self.io) {
            (Stage::Farewell(until), _) if *until <= now => Err(Over),
            (Stage::Farewell(_), Io::Open(tcp)) if self.out.is_empty() => {
                let _ = Pin::new(tcp).poll_shutdown(cx);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Tells when there is something to do at the latest.
    fn due(&self) -> Instant {
        let due = match &self.stage {
            Stage::Probe(_, until) | Stage::Farewell(until) => *until,
            Stage::Open(Open { life, .. }) => {
                let beat = life.heartbeat.next();
                life.upper.deadline().map_or(beat, |deadline| deadline.min(beat))
            }
        };
        self.blocked.map_or(due, |blocked| due.min(blocked + self.stall))
    }

    /// Does what is due.
    fn look(&mut self, now: Instant) -> Result<(), Ended> {
        if self.blocked.is_some_and(|blocked| blocked + self.stall <= now) {
            return Err(Ended::Closed(CloseReason::Stalled));
        }
        match &mut self.stage {
            Stage::Probe(_, until) if *until <= now => return Err(Ended::Silent),
            Stage::Probe(..) | Stage::Farewell(_) => {}
            Stage::Open(Open { life, .. }) => {
                match life.heartbeat.beat(now) {
                    Some(Beat::Ping) => self.out.first(Opcode::Text, b"2"),
                    Some(Beat::Dead) => return Err(Ended::Silent),
                    None => {}
                }
                if life.upper.deadline().is_some_and(|deadline| deadline <= now) {
                    life.upper.tick(now);
                }
            }
        }
        Ok(())
    }

    /// Reads what has come.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<(), Over> {
        BUFFER.with_borrow_mut(|buffer| {
            for _ in 0..READS {
                let Io::Open(tcp) = &mut self.io else { return Ok(()) };
                let mut read = ReadBuf::new(buffer);
                match Pin::new(tcp).poll_read(cx, &mut read) {
                    Poll::Pending => return Ok(()),
                    Poll::Ready(Ok(())) if !read.filled().is_empty() => self.take_in(read.filled()),
                    Poll::Ready(_) => {
                        self.stop(Ended::Left);
                        return Err(Over);
                    }
                }
            }
            cx.waker().wake_by_ref();
            Ok(())
        })
    }

    /// Takes in what was read.
    fn take_in(&mut self, mut input: &[u8]) {
        // What comes behind the end is read so that it does not cut the end off.
        while !matches!(self.stage, Stage::Farewell(_)) {
            let ended = match self.decoder.next(&mut input) {
                Ok(Some(frame)) => {
                    self.waits = Wait::Heard;
                    self.on_frame(frame)
                }
                Ok(None) => return,
                Err(bad) => {
                    self.farewell(Ended::Fault(bad.label()), bad.close_code());
                    return;
                }
            };
            if let Err(ended) = ended {
                self.farewell(ended, code(ended));
            }
        }
    }

    fn on_frame(&mut self, frame: Frame) -> Result<(), Ended> {
        match frame {
            Frame::Text(text) => {
                let base64 = match self.protocol {
                    Protocol::Eio3 => text.strip_prefix("b4"),
                    Protocol::Eio4 => text.strip_prefix('b'),
                };
                let packet = match (base64, self.protocol) {
                    (Some(base64), _) => Packet::of_base64(base64),
                    (None, Protocol::Eio3) => eio3::text_frame(&text),
                    (None, Protocol::Eio4) => eio4::text_frame(&text),
                };
                self.on_packet(packet.map_err(fault)?)
            }
            Frame::Binary(data) => {
                let data = match self.protocol {
                    Protocol::Eio3 => data.slice_ref(eio3::binary_frame(&data).map_err(fault)?),
                    Protocol::Eio4 => data,
                };
                let Stage::Open(Open { life, .. }) = &mut self.stage else {
                    return Err(Ended::Fault("probe"));
                };
                life.heartbeat.heard(now());
                Ok(life.upper.take(Message::Binary(data))?)
            }
            Frame::Ping(data) => {
                self.out.first(Opcode::Pong, &data);
                Ok(())
            }
            Frame::Pong(_) => Ok(()),
            Frame::Close(_) => Err(Ended::Left),
        }
    }

    fn on_packet(&mut self, packet: Packet<'_>) -> Result<(), Ended> {
        let life = match &mut self.stage {
            Stage::Open(Open { life, .. }) => life,
            Stage::Probe(probe, _) => {
                match packet {
                    Packet::Ping(text) if text == "probe" => {
                        self.out.first(Opcode::Text, b"3probe");
                        probe.probed();
                    }
                    Packet::Upgrade if probe.is_probed() => {
                        let taken = probe.hand_over().ok_or(Ended::Left)?;
                        self.take_over(taken);
                    }
                    _ => return Err(Ended::Fault("probe")),
                }
                return Ok(());
            }
            Stage::Farewell(_) => return Ok(()),
        };
        let now = now();
        life.heartbeat.heard(now);
        match packet {
            Packet::Message(text) => life.upper.take(Message::Text(text.into_owned()))?,
            Packet::Binary(data) => life.upper.take(Message::Binary(data.into_owned().into()))?,
            Packet::Ping(text) if self.protocol == Protocol::Eio3 => {
                self.out.first(Opcode::Text, format!("3{text}").as_bytes());
            }
            Packet::Pong(_) => life.heartbeat.pong(now),
            Packet::Close => return Err(Ended::Left),
            Packet::Noop | Packet::Upgrade => {}
            Packet::Open(_) | Packet::Ping(_) => return Err(Ended::Fault("packet_type")),
        }
        Ok(())
    }

    /// Makes a session this websocket's that was a polling one.
    fn take_over(&mut self, taken: HandedOver) {
        let HandedOver { sessions, sid, mut life, first } = taken;
        if let Some(connected) = &mut life.connected {
            *connected = metrics::connected(life.protocol, Kind::Websocket.label());
        }
        for down in first {
            self.out.push(down, self.protocol, self.b64);
        }
        let _registered = Registered { sessions, sid };
        self.stage = Stage::Open(Open { life, is_slow: false, _registered });
    }

    /// Takes out what is to be said; tells whether there may be more.
    fn pull(&mut self, cx: &mut Context<'_>) -> Result<bool, Ended> {
        let Stage::Open(open) = &mut self.stage else { return Ok(false) };
        if open.is_slow {
            return Ok(false);
        }
        let reason = loop {
            if self.out.bytes() >= BATCH {
                // Nothing more fits, but its end is heard.
                match open.life.upper.poll_closed(cx) {
                    Poll::Pending => return Ok(true),
                    Poll::Ready(reason) => break reason,
                }
            }
            match open.life.upper.poll_next(cx) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Down::Close(reason)) => break reason,
                Poll::Ready(down) => self.out.push(down, self.protocol, self.b64),
            }
        };
        // Cut off in the middle of a large `initial`, it would come back for the same one, and
        // again; with it, it knows its versions and resumes.
        if reason == Some(CloseReason::Slow) && self.out.has_snapshot() {
            open.is_slow = true;
            return Ok(false);
        }
        Err(Ended::of(reason))
    }

    /// Tells whether a client that is too slow is given nothing more.
    fn is_slow_to_its_end(&mut self, cx: &mut Context<'_>) -> bool {
        let Stage::Open(Open { is_slow: true, life, .. }) = &mut self.stage else { return false };
        !self.out.has_snapshot() || life.upper.poll_over(cx).is_ready()
    }

    /// Writes what waits; tells whether all has gone out.
    fn write(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<bool, Over> {
        while !self.out.is_empty() {
            let Io::Open(tcp) = &mut self.io else { return Ok(false) };
            let mut slices = [IoSlice::new(&[]); SLICES];
            let count = self.out.slices(&mut slices);
            match Pin::new(tcp).poll_write_vectored(cx, &slices[..count]) {
                Poll::Pending => {
                    self.blocked.get_or_insert(now);
                    return Ok(false);
                }
                Poll::Ready(Ok(written)) if written > 0 => {
                    let snapshots = self.out.advance(written);
                    let was_blocked = self.blocked.take().is_some();
                    if let Stage::Open(Open { life, .. }) = &mut self.stage {
                        if was_blocked {
                            life.heartbeat.heard(now);
                        }
                        if snapshots > 0 {
                            life.upper.let_go(snapshots);
                        }
                    }
                }
                Poll::Ready(_) => {
                    self.stop(Ended::Left);
                    return Err(Over);
                }
            }
        }
        Ok(true)
    }

    /// Ends the session; its client is told so if it can be.
    fn end(&mut self, ended: Ended) -> Result<(), Over> {
        if ended == Ended::Closed(CloseReason::Stalled) || matches!(self.stage, Stage::Farewell(_))
        {
            self.stop(ended);
            return Err(Over);
        }
        self.farewell(ended, code(ended));
        Ok(())
    }

    /// Ends the session, and says so behind the frame that is on its way.
    fn farewell(&mut self, ended: Ended, code: u16) {
        self.stop(ended);
        self.out.cut();
        self.out.first(Opcode::Close, &code.to_be_bytes());
    }

    /// Ends the session.
    fn stop(&mut self, ended: Ended) {
        let stage = std::mem::replace(&mut self.stage, Stage::Farewell(now() + FAREWELL));
        if let Stage::Open(Open { life, .. }) = stage {
            life.end(ended);
        }
    }
}

impl Future for Websocket {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if ready!(self.poll_upgrade(cx)).is_err() {
            return Poll::Ready(());
        }
        loop {
            if self.step(cx).is_err() {
                return Poll::Ready(());
            }
            let due = self.due().into();
            // What is due later is found out when the time has come.
            if due < self.timer.deadline() || self.timer.is_elapsed() {
                self.timer.as_mut().reset(due);
            }
            ready!(self.timer.as_mut().poll(cx));
        }
    }
}

fn fault(bad: BadPayload) -> Ended {
    Ended::Fault(bad.label())
}

/// Returns the code of a close frame.
const fn code(ended: Ended) -> u16 {
    match ended {
        Ended::Left => NORMAL,
        Ended::Closed(_) | Ended::Silent => GOING_AWAY,
        Ended::Fault(_) => PROTOCOL_ERROR,
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_task_of_an_idle_websocket_is_small() {
        assert!(size_of::<Websocket>() <= 240, "{}", size_of::<Websocket>());
    }
}
