//! What the socket.io project's protocol suites talk to; `make official-suites` runs them.

use std::{collections::VecDeque, task::Context, task::Poll, task::Waker};

use bytes::Bytes;
use gateway::{
    outbox::{Letter, Outbox},
    socket::{Connection, Full, Inbound, Inbox, engine::upper},
};
use upper::{Down, Fault, Message, Upper};

mod door;

/// Over engine.io alone, it says every message back.
#[derive(Default)]
struct Echo(VecDeque<Down>, Option<Waker>);

impl Upper for Echo {
    fn take(&mut self, message: Message) -> Result<(), Fault> {
        let text = |text| Down::Text { head: format!("4{text}"), body: Bytes::new(), tail: "" };
        self.0.push_back(match message {
            Message::Text(said) => text(said),
            Message::Binary(bytes) => Down::Binary(bytes),
        });
        self.1.take().into_iter().for_each(Waker::wake);
        Ok(())
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Down> {
        self.1 = Some(cx.waker().clone());
        self.0.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

/// Over socket.io, it says with what a client has joined, and every `message` back.
struct Reference(Outbox);

impl Inbox for Reference {
    fn event(&self, Inbound { name, args, attachments, call }: Inbound) -> Result<(), Full> {
        let (answers, args) = match (&*name, call) {
            ("message", _) => (None, args.replacen('[', "[\"message-back\",", 1)),
            (_, Some(call)) => (Some(call), args),
            _ => return Ok(()),
        };
        self.0.letter(Letter { answers, args, attachments, call: None }).map_err(|_| Full)
    }
}

fn accept(Connection { outbox, auth, .. }: Connection) -> Box<dyn Inbox> {
    let args = format!("[\"auth\",{}]", auth.as_deref().unwrap_or("{}"));
    // One that has left already hears nothing.
    let _ = outbox.letter(Letter { answers: None, args, attachments: Vec::new(), call: None });
    Box::new(Reference(outbox))
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    door::open(|| Box::<Echo>::default(), accept).await
}
