//! One plain connection in RESP2, for what must not share one: subscriptions and waiting.

use bytes::{Buf, BytesMut};
use redis_protocol::resp2::{decode::decode_bytes_mut, types::BytesFrame};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::topology::RedisUrl;

/// How much room a read gets: a burst of notices is read with few system calls.
const READ_BYTES: usize = 64 * 1024;

/// A connection that has authenticated and has a name.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Connection {
    /// Connects, and waits for the answers that show a living server; the caller bounds the time.
    pub(super) async fn open(address: &RedisUrl, name: &str) -> Result<Self, String> {
        let stream = TcpStream::connect((address.host.as_str(), address.port))
            .await
            .map_err(|error| format!("cannot connect: {error}"))?;
        stream.set_nodelay(true).map_err(|error| format!("cannot connect: {error}"))?;
        let mut connection = Self { stream, buffer: BytesMut::with_capacity(READ_BYTES) };

        if let Some(password) = &address.password {
            let reply = match &address.username {
                Some(username) => connection.ask(&["AUTH", username, password]).await?,
                None => connection.ask(&["AUTH", password]).await?,
            };
            refuse_error(&reply)?;
        }
        if address.db != 0 {
            refuse_error(&connection.ask(&["SELECT", &address.db.to_string()]).await?)?;
        }
        // A name is for operators; a server that grants none is good all the same, but one
        // that wants a password is not.
        let reply = connection.ask(&["CLIENT", "SETNAME", name]).await?;
        match refuse_error(&reply) {
            Err(reason) if reason.starts_with("NOAUTH") => Err(reason),
            _ => Ok(connection),
        }
    }

    /// Says one command.
    pub(super) async fn say<'a>(
        &mut self,
        words: impl ExactSizeIterator<Item = &'a [u8]>,
    ) -> Result<(), String> {
        let mut command = Vec::with_capacity(64 * (words.len() + 1));
        push_head(&mut command, b'*', words.len());
        for word in words {
            push_head(&mut command, b'$', word.len());
            command.extend_from_slice(word);
            command.extend_from_slice(b"\r\n");
        }
        self.stream.write_all(&command).await.map_err(|error| format!("cannot write: {error}"))
    }

    /// Waits for the next reply; dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Result<BytesFrame, String> {
        loop {
            if self.buffer.has_remaining() {
                let decoded = decode_bytes_mut(&mut self.buffer)
                    .map_err(|error| format!("the server does not speak RESP: {error}"))?;
                if let Some((frame, ..)) = decoded {
                    return Ok(frame);
                }
            }
            if self.buffer.capacity() - self.buffer.len() < READ_BYTES / 4 {
                self.buffer.reserve(READ_BYTES);
            }
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) => return Err("the server closed the connection".to_owned()),
                Ok(_) => {}
                Err(error) => return Err(format!("cannot read: {error}")),
            }
        }
    }

    async fn ask(&mut self, words: &[&str]) -> Result<BytesFrame, String> {
        self.say(words.iter().map(|word| word.as_bytes())).await?;
        self.next().await
    }
}

fn refuse_error(reply: &BytesFrame) -> Result<(), String> {
    match reply {
        BytesFrame::Error(error) => Err(error.to_string()),
        _ => Ok(()),
    }
}

fn push_head(command: &mut Vec<u8>, kind: u8, number: usize) {
    command.push(kind);
    command.extend_from_slice(number.to_string().as_bytes());
    command.extend_from_slice(b"\r\n");
}
