//! What goes out to a client of socket.io.

use std::task::{Context, Poll};

use bytes::Bytes;

use super::{LINGER, MAIN, SocketIo, Stage, now};
use crate::{
    hub::frame::ascii,
    outbox::{CloseReason, Letter, Outgoing},
    socket::{
        Protocol,
        engine::{
            packet::{self, Kind},
            upper::Down,
        },
    },
};

/// How many calls of a client's own functions may be open; the oldest are forgotten.
const CALLS: usize = 256;

impl SocketIo {
    /// Makes of what was in a mailbox what goes out.
    fn down(&mut self, namespace: &str, outgoing: Outgoing, cx: &mut Context<'_>) -> Down {
        match outgoing {
            Outgoing::Event(frame) if namespace == MAIN => {
                self.on_way += frame.snapshot_bytes();
                Down::Frame(frame)
            }
            Outgoing::Event(frame) => {
                if let Some(room) = self.room(namespace) {
                    // Nobody below sees that it is a snapshot.
                    room.mailbox.let_go(frame.snapshot_bytes());
                }
                let head = packet::head(Kind::Event, 0, namespace, None);
                let body = frame.text(self.protocol.format()).slice("42".len()..);
                Down::Text { head, body, tail: "" }
            }
            Outgoing::Ack(call, frame) => {
                let head = packet::head(Kind::Ack, 0, namespace, Some(call)) + "[";
                Down::Text { head, body: frame.argument(self.protocol.format()), tail: "]" }
            }
            Outgoing::Letter(letter) => self.letter(namespace, *letter),
            Outgoing::Close(CloseReason::AskedFinally) => {
                self.main = None;
                self.rest = None;
                self.stage = Stage::Goodbye(now() + LINGER, Some(CloseReason::AskedFinally));
                let head = packet::head(Kind::Disconnect, 0, namespace, None);
                Down::Text { head, body: Bytes::new(), tail: "" }
            }
            Outgoing::Close(reason) => {
                if let Some(room) = self.room(namespace) {
                    // Another reason may end what a slow client is still given.
                    let _ = room.mailbox.poll_over(cx);
                }
                Down::Close(Some(reason))
            }
        }
    }

    fn letter(&mut self, namespace: &str, letter: Letter) -> Down {
        let Letter { answers, args, attachments, call } = letter;
        let kind = match (answers, attachments.is_empty()) {
            (None, true) => Kind::Event,
            (None, false) => Kind::BinaryEvent,
            (Some(_), true) => Kind::Ack,
            (Some(_), false) => Kind::BinaryAck,
        };
        if let (None, Some(call)) = (answers, call) {
            let calls = &mut self.rest().calls;
            calls.push_back((namespace.into(), call));
            if calls.len() > CALLS {
                calls.pop_front();
            }
        }
        let args = match self.protocol {
            Protocol::Eio3 => ascii(&args),
            Protocol::Eio4 => args,
        };
        let head = packet::head(kind, attachments.len(), namespace, answers.or(call));
        // They follow at once: what goes out before mailboxes is empty now.
        if !attachments.is_empty() {
            self.rest().out.extend(attachments.into_iter().map(Down::Binary));
        }
        Down::Text { head, body: args.into(), tail: "" }
    }

    /// Takes out what is next in any mailbox.
    pub(super) fn poll_mailboxes(&mut self, cx: &mut Context<'_>) -> Poll<Down> {
        if let Some(main) = &mut self.main
            && let Poll::Ready(outgoing) = main.mailbox.poll_next(cx)
        {
            return Poll::Ready(self.down(MAIN, outgoing, cx));
        }
        let others = self.rest.iter_mut().flat_map(|rest| &mut rest.others);
        let next = others.into_iter().find_map(|(name, room)| match room.mailbox.poll_next(cx) {
            Poll::Ready(outgoing) => Some((name.clone(), outgoing)),
            Poll::Pending => None,
        });
        match next {
            Some((name, outgoing)) => Poll::Ready(self.down(&name, outgoing, cx)),
            None => Poll::Pending,
        }
    }
}
