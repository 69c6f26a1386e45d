//! socket.io over one engine.io session: who joins which namespace, and what passes there.
//!
//! A client of 1.x or 2.x is in `/` at once; later ones ask for every namespace. Each that is
//! joined is a [`Connection`] of its own, with its own mailbox.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use tracing::debug;

use super::{
    Opening,
    packet::{self, BadPacket, Kind, Packet},
    upper::{Down, Fault, Message, Upper},
};
use crate::{
    identity::Session,
    limits::Place,
    metrics,
    outbox::{CloseReason, Mailbox, mailbox},
    socket::{self, Accept, Connection, Full, Inbound, Inbox, Protocol, asks_to_resume},
};

mod outgoing;

/// The namespace that every gateway has.
const MAIN: &str = "/";

/// How long a client has to close its transport after a DISCONNECT packet of either side.
const LINGER: Duration = Duration::from_secs(1);

/// How long a client that is refused may take to hear so.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a message may wait for its attachments.
const ATTACHMENTS: Duration = Duration::from_secs(10);

/// How many answers to a client's packets may wait to be sent.
const ANSWERS: usize = 128;

/// What the sessions of one engine share.
pub struct Settings {
    accept: Accept,
    /// Which namespaces may be joined.
    namespaces: Box<[Box<str>]>,
    max_message_bytes: usize,
    outbox_bytes: usize,
    connect_timeout: Duration,
}

impl Settings {
    /// Takes what is socket.io's out of all settings; a gateway offers `/` alone.
    #[must_use]
    pub fn of(settings: &socket::Settings, accept: Accept) -> Self {
        Self {
            accept,
            namespaces: Box::new([MAIN.into()]),
            max_message_bytes: settings.max_message_bytes,
            outbox_bytes: settings.outbox_bytes,
            connect_timeout: settings.connect_timeout,
        }
    }

    /// Offers other namespaces; the clients of 1.x and 2.x are in `/` all the same.
    #[must_use]
    pub fn with_namespaces(self, namespaces: &[&str]) -> Self {
        Self { namespaces: namespaces.iter().map(|name| Box::from(*name)).collect(), ..self }
    }
}

/// One client. Whoever has it take something in, or tick, polls it afterwards.
pub struct SocketIo {
    settings: Arc<Settings>,
    /// Who it is; nobody where it is to be told so.
    session: Option<Session>,
    main: Option<Room>,
    /// How many bytes of the main mailbox's snapshots are on their way.
    on_way: usize,
    rest: Option<Box<Rest>>,
    stage: Stage,
    /// Free again when it is dropped.
    place: Place,
    protocol: Protocol,
    resume: bool,
}

/// A namespace that the client has joined; dropping it says that it has left.
struct Room {
    mailbox: Mailbox,
    inbox: Box<dyn Inbox>,
}

/// What an idle client in `/` has nothing of.
#[derive(Default)]
struct Rest {
    others: Vec<(Box<str>, Room)>,
    /// What goes out before anything from a mailbox.
    out: VecDeque<Down>,
    /// An event or answer of which attachments are missing.
    assembly: Option<Assembly>,
    /// What the client was asked, by namespace and number, and has not answered.
    calls: VecDeque<(Box<str>, u64)>,
    /// Bytes on their way of snapshots from a mailbox that is no more.
    stale: usize,
}

struct Assembly {
    namespace: Box<str>,
    kind: Kind,
    id: Option<u64>,
    data: String,
    attachments: Vec<Bytes>,
    /// How many attachments it shall have.
    count: usize,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    /// It has joined nothing so far; until when it may take.
    Joining(Instant),
    Open,
    /// An attachment is missing; until when it may take.
    Assembling(Instant),
    /// It has left everything, and may join again or close until then.
    Left(Instant),
    /// It was told to go, and may close until then; nothing it says is heard any more.
    Goodbye(Instant, Option<CloseReason>),
    Over(Option<CloseReason>),
}

impl SocketIo {
    /// Begins with a client.
    #[must_use]
    pub fn new(settings: Arc<Settings>, opening: Opening) -> Self {
        let Opening { session, protocol, resume, place } = opening;
        let is_refused = session.is_none();
        let stage = Stage::Joining(now() + settings.connect_timeout);
        let (main, rest, on_way) = (None, None, 0);
        let mut socket =
            Self { settings, session, main, on_way, rest, stage, place, protocol, resume };
        match (protocol, is_refused) {
            (Protocol::Eio3, false) => socket.join(MAIN, None, false),
            (Protocol::Eio3, true) => socket.turn_away(MAIN),
            (Protocol::Eio4, _) => {}
        }
        socket
    }

    fn room(&mut self, namespace: &str) -> Option<&mut Room> {
        if namespace == MAIN {
            return self.main.as_mut();
        }
        let others = self.rest.iter_mut().flat_map(|rest| &mut rest.others);
        others.into_iter().find_map(|(name, room)| (**name == *namespace).then_some(room))
    }

    fn rooms(&self) -> impl Iterator<Item = &Room> {
        let others = self.rest.iter().flat_map(|rest| &rest.others).map(|(_, room)| room);
        self.main.iter().chain(others)
    }

    fn rest(&mut self) -> &mut Rest {
        self.rest.get_or_insert_default()
    }

    /// Gives back what an idle client does not need.
    fn tidy(&mut self) {
        self.rest.take_if(|rest| rest.is_empty());
    }

    fn take_text(&mut self, text: &str) -> Result<(), Fault> {
        if self.rest.as_ref().is_some_and(|rest| rest.assembly.is_some()) {
            return Err(Fault("attachment_missing"));
        }
        let packet = packet::parse(text)?;
        if packet.data.len() > self.settings.max_message_bytes {
            self.close(CloseReason::TooMuch);
            return Ok(());
        }
        match packet.kind {
            Kind::Connect => self.connect(&packet),
            Kind::Disconnect => self.leave(packet.namespace),
            Kind::Error => Err(Fault("error_from_client")),
            Kind::Event | Kind::Ack | Kind::BinaryEvent | Kind::BinaryAck => self.hear(&packet),
        }
    }

    /// Answers a client that wants to join a namespace.
    fn connect(&mut self, packet: &Packet<'_>) -> Result<(), Fault> {
        if self.rest.as_ref().is_some_and(|rest| rest.out.len() >= ANSWERS) {
            return Err(Fault("too_many_connects"));
        }
        let Packet { namespace, query, data, .. } = *packet;
        // From 3.x on a query is a part of the name.
        let full = match (self.protocol, query) {
            (Protocol::Eio4, Some(query)) => &format!("{namespace}?{query}"),
            _ => namespace,
        };
        if self.session.is_none() {
            self.turn_away(full);
        } else if !self.settings.namespaces.iter().any(|offered| **offered == *full) {
            self.refuse(full, "Invalid namespace");
        } else if self.room(full).is_none() {
            let resume = query.is_some_and(|query| query.split('&').any(|pair| pair == "resume=1"));
            self.join(full, (!data.is_empty()).then_some(data), resume);
        } else if self.protocol == Protocol::Eio4 || full != MAIN {
            return Err(Fault("joined_twice"));
        }
        Ok(())
    }

    fn join(&mut self, namespace: &str, auth: Option<&str>, resume: bool) {
        let Some(session) = self.session.clone() else { return };
        let (outbox, mailbox) = mailbox(self.settings.outbox_bytes);
        let connection = Connection {
            session,
            outbox,
            protocol: self.protocol,
            resume: self.resume || resume || auth.is_some_and(asks_to_resume),
            namespace: namespace.into(),
            auth: auth.map(Box::from),
        };
        self.place.joined();
        let inbox = (self.settings.accept)(connection);
        let room = Room { mailbox, inbox };
        match namespace {
            MAIN => self.main = Some(room),
            other => self.rest().others.push((other.into(), room)),
        }
        self.stage = Stage::Open;
        let mut answer = packet::head(Kind::Connect, 0, namespace, None);
        if self.protocol == Protocol::Eio4 {
            let sid = BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 15]>());
            answer += &format!(r#"{{"sid":"{sid}"}}"#);
        }
        self.answer(answer);
    }

    /// Tells a client that it may not join, in the way of its generation.
    fn refuse(&mut self, namespace: &str, message: &str) {
        let head = packet::head(Kind::Error, 0, namespace, None);
        match self.protocol {
            // The oldest ones break at a name that is not ASCII; without an answer they live on.
            Protocol::Eio3 if !namespace.is_ascii() => {}
            Protocol::Eio3 => self.answer(format!(r#"{head}"{message}""#)),
            Protocol::Eio4 => self.answer(format!(r#"{head}{{"message":"{message}"}}"#)),
        }
    }

    /// Refuses a client without a session so that it does not come back by itself.
    fn turn_away(&mut self, namespace: &str) {
        self.refuse(namespace, "unauthorized");
        self.answer(packet::head(Kind::Disconnect, 0, namespace, None));
        self.stage = Stage::Goodbye(now() + PATIENCE, None);
    }

    fn answer(&mut self, text: String) {
        self.rest().out.push_back(Down::Text { head: text, body: Bytes::new(), tail: "" });
    }

    /// Takes a client out of a namespace that it leaves.
    fn leave(&mut self, namespace: &str) -> Result<(), Fault> {
        let left = match (namespace, &mut self.rest) {
            (MAIN, _) => self.main.take(),
            (_, Some(rest)) => {
                let at = rest.others.iter().position(|(name, _)| **name == *namespace);
                at.map(|at| rest.others.swap_remove(at).1)
            }
            (_, None) => None,
        };
        if left.is_none() {
            return self.is_unknown_here();
        }
        if namespace == MAIN && self.on_way > 0 {
            self.rest().stale += std::mem::take(&mut self.on_way);
        }
        if let Some(rest) = &mut self.rest {
            rest.calls.retain(|(name, _)| **name != *namespace);
        }
        if self.rooms().next().is_none() {
            self.stage = Stage::Left(now() + LINGER);
        }
        Ok(())
    }

    /// Judges a packet of a namespace that its client has not joined.
    const fn is_unknown_here(&self) -> Result<(), Fault> {
        match self.protocol {
            // The original servers ignore it, and close on it from 3.x on.
            Protocol::Eio3 => Ok(()),
            Protocol::Eio4 => Err(Fault("not_joined")),
        }
    }

    /// Takes an event or an answer in, or waits for its attachments.
    fn hear(&mut self, packet: &Packet<'_>) -> Result<(), Fault> {
        let Packet { kind, namespace, id, data, attachments: count, .. } = *packet;
        if self.room(namespace).is_none() {
            self.is_unknown_here()?;
        }
        if count == 0 {
            return self.deliver(namespace, kind, id, data, Vec::new());
        }
        self.rest().assembly = Some(Assembly {
            namespace: namespace.into(),
            kind,
            id,
            data: data.to_owned(),
            attachments: Vec::new(),
            count,
        });
        if let Stage::Open = self.stage {
            self.stage = Stage::Assembling(now() + ATTACHMENTS);
        }
        Ok(())
    }

    fn take_attachment(&mut self, data: Bytes) -> Result<(), Fault> {
        let Some(rest) = &mut self.rest else { return Err(Fault("attachment_unasked")) };
        let Some(assembly) = &mut rest.assembly else { return Err(Fault("attachment_unasked")) };
        assembly.attachments.push(data);
        let bytes: usize = assembly.attachments.iter().map(Bytes::len).sum();
        if assembly.data.len() + bytes > self.settings.max_message_bytes {
            self.close(CloseReason::TooMuch);
            return Ok(());
        }
        let is_whole = assembly.attachments.len() == assembly.count;
        let Some(whole) = rest.assembly.take_if(|_| is_whole) else { return Ok(()) };
        if let Stage::Assembling(_) = self.stage {
            self.stage = Stage::Open;
        }
        let Assembly { namespace, kind, id, data, attachments, .. } = whole;
        self.deliver(&namespace, kind, id, &data, attachments)
    }

    /// Hands a whole event or answer over.
    fn deliver(
        &mut self,
        namespace: &str,
        kind: Kind,
        id: Option<u64>,
        data: &str,
        attachments: Vec<Bytes>,
    ) -> Result<(), Fault> {
        let is_event = matches!(kind, Kind::Event | Kind::BinaryEvent);
        let is_asked = is_event || id.is_some_and(|id| self.end_call(namespace, id));
        let Some(room) = self.room(namespace).filter(|_| is_asked) else { return Ok(()) };
        let heard = if is_event {
            let (name, args) = packet::event(data)?;
            room.inbox.event(Inbound { name, args, attachments, call: id })
        } else {
            room.inbox.answer(id.unwrap_or_default(), data.to_owned(), attachments)
        };
        if heard == Err(Full) {
            room.mailbox.close(CloseReason::TooMuch);
        }
        Ok(())
    }

    /// Tells whether a call is open, and ends it.
    fn end_call(&mut self, namespace: &str, id: u64) -> bool {
        let Some(rest) = &mut self.rest else { return false };
        let at = rest.calls.iter().position(|(name, call)| **name == *namespace && *call == id);
        at.is_some_and(|at| rest.calls.remove(at).is_some())
    }
}

impl Rest {
    fn is_empty(&self) -> bool {
        let Self { others, out, assembly, calls, stale } = self;
        others.is_empty() && out.is_empty() && assembly.is_none() && calls.is_empty() && *stale == 0
    }
}

impl Upper for SocketIo {
    fn take(&mut self, message: Message) -> Result<(), Fault> {
        if matches!(self.stage, Stage::Goodbye(..) | Stage::Over(_)) {
            return Ok(());
        }
        let taken = match message {
            Message::Text(text) => self.take_text(&text),
            Message::Binary(data) => self.take_attachment(data),
        };
        self.tidy();
        taken
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Down> {
        if let Stage::Over(reason) = self.stage {
            return Poll::Ready(Down::Close(reason));
        }
        let first = self.rest.as_mut().and_then(|rest| rest.out.pop_front());
        self.tidy();
        if let (Some(_), None, Stage::Goodbye(_, reason)) = (&first, &self.rest, self.stage) {
            self.stage = Stage::Goodbye(now() + LINGER, reason);
        }
        let next = match first {
            Some(first) => first,
            None => ready!(self.poll_mailboxes(cx)),
        };
        Poll::Ready(next)
    }

    fn let_go(&mut self, snapshots: usize) {
        let stale = self.rest.as_mut().map_or(0, |rest| {
            let stale = rest.stale.min(snapshots);
            rest.stale -= stale;
            stale
        });
        let own = (snapshots - stale).min(self.on_way);
        self.on_way -= own;
        if let Some(main) = &mut self.main {
            main.mailbox.let_go(own);
        }
        self.tidy();
    }

    fn deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Joining(at)
            | Stage::Assembling(at)
            | Stage::Left(at)
            | Stage::Goodbye(at, _) => Some(at),
            Stage::Open | Stage::Over(_) => None,
        }
    }

    fn tick(&mut self, now: Instant) {
        if self.deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        let (fault, reason) = match self.stage {
            Stage::Joining(_) => (Some("connect_timeout"), None),
            Stage::Assembling(_) => (Some("attachment_timeout"), None),
            Stage::Goodbye(_, reason) => (None, reason),
            Stage::Left(_) | Stage::Open | Stage::Over(_) => (None, None),
        };
        if let Some(fault) = fault {
            debug!(fault, "Client did not say in time what it had to; closed.");
            metrics::bad_input(fault);
        }
        self.stage = Stage::Over(reason);
    }

    fn close(&mut self, reason: CloseReason) {
        let mut is_joined = false;
        for room in self.rooms() {
            room.mailbox.close(reason);
            is_joined = true;
        }
        if !is_joined && !matches!(self.stage, Stage::Over(_)) {
            self.stage = Stage::Over(Some(reason));
        }
        if let Some(rest) = &mut self.rest {
            rest.assembly = None;
        }
    }

    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<Option<CloseReason>> {
        if let Stage::Over(reason) = self.stage {
            return Poll::Ready(reason);
        }
        let closed = self.rooms().find_map(|room| match room.mailbox.poll_closed(cx) {
            // It is still to be told, in its turn.
            Poll::Ready(CloseReason::AskedFinally) | Poll::Pending => None,
            Poll::Ready(reason) => Some(reason),
        });
        closed.map_or(Poll::Pending, |reason| Poll::Ready(Some(reason)))
    }

    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let waits = self.rooms().any(|room| room.mailbox.poll_over(cx).is_pending());
        if waits { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl From<BadPacket> for Fault {
    fn from(bad: BadPacket) -> Self {
        Self(bad.label())
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
