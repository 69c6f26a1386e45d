//! A subscription connection to a Redis, below the driver.

use std::{iter, sync::Arc};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use redis_protocol::resp2::types::BytesFrame;

use super::connection::Connection;
use crate::shard::subscriber::{Dial, Said, Wire};
use crate::topology::RedisUrl;

/// The name of the connection in CLIENT LIST.
const NAME: &str = "pneumatic-sub";

/// Dials subscription connections.
#[derive(Debug)]
pub(super) struct RedisDial(pub(super) Arc<RedisUrl>);

impl Dial for RedisDial {
    fn dial(&self) -> BoxFuture<'_, Result<Box<dyn Wire>, String>> {
        Box::pin(async {
            let connection = Connection::open(&self.0, NAME).await?;
            let wire: Box<dyn Wire> = Box::new(RedisWire(connection));
            Ok(wire)
        })
    }
}

#[derive(Debug)]
struct RedisWire(Connection);

impl RedisWire {
    async fn say(&mut self, verb: &'static [u8], channels: &[Bytes]) -> Result<(), String> {
        let words: Vec<&[u8]> =
            iter::once(verb).chain(channels.iter().map(|channel| &channel[..])).collect();
        self.0.say(words.into_iter()).await
    }
}

impl Wire for RedisWire {
    fn subscribe<'a>(&'a mut self, channels: &'a [Bytes]) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(self.say(b"SUBSCRIBE", channels))
    }

    fn unsubscribe<'a>(&'a mut self, channels: &'a [Bytes]) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(self.say(b"UNSUBSCRIBE", channels))
    }

    fn ping(&mut self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(self.say(b"PING", &[]))
    }

    fn next(&mut self) -> BoxFuture<'_, Result<Said, String>> {
        Box::pin(async { parse(self.0.next().await?) })
    }
}

/// Parses what a server says on a subscription connection.
fn parse(frame: BytesFrame) -> Result<Said, String> {
    let unknown = || "the server said something that no subscriber asked for".to_owned();
    match frame {
        BytesFrame::Error(error) => Ok(Said::Refused(error.to_string())),
        BytesFrame::SimpleString(text) if &text[..] == b"PONG" => Ok(Said::Pong),
        BytesFrame::Array(parts) => {
            let mut parts = parts.into_iter();
            let Some(BytesFrame::BulkString(kind)) = parts.next() else { return Err(unknown()) };
            match (&kind[..], parts.next(), parts.next()) {
                (
                    b"message",
                    Some(BytesFrame::BulkString(channel)),
                    Some(BytesFrame::BulkString(payload)),
                ) => Ok(Said::Message { channel, payload }),
                (b"subscribe", Some(BytesFrame::BulkString(channel)), _) => {
                    Ok(Said::Subscribed(channel))
                }
                (b"unsubscribe", Some(BytesFrame::BulkString(channel)), _) => {
                    Ok(Said::Unsubscribed(channel))
                }
                (b"pong", ..) => Ok(Said::Pong),
                _ => Err(unknown()),
            }
        }
        _ => Err(unknown()),
    }
}
