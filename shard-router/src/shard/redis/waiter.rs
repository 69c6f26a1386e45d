//! A connection on which one worker blocks until a list fills.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use redis_protocol::resp2::types::BytesFrame;
use tokio::time::timeout;

use super::{CONNECT_TIMEOUT, connection::Connection, server_error};
use crate::shard::{ShardError, Waiter};
use crate::topology::RedisUrl;

/// The name of the connection in CLIENT LIST.
const NAME: &str = "pneumatic-wait";

/// How much longer than the server we wait for its answer.
///
/// A client that gives up first leaves a command behind that the server still serves, so this
/// is only for a server that is dead.
const GRACE: Duration = Duration::from_secs(5);

/// Waits on a connection of its own, made when it is needed.
#[derive(Debug)]
pub(super) struct RedisWaiter {
    shard: Arc<str>,
    address: Arc<RedisUrl>,
    /// Taken out while in use, so that a call that is dropped midway leaves no connection on
    /// which an answer is still to come.
    connection: Option<Connection>,
}

impl RedisWaiter {
    pub(super) const fn new(shard: Arc<str>, address: Arc<RedisUrl>) -> Self {
        Self { shard, address, connection: None }
    }

    async fn run(&mut self, key: &[u8], patience: Duration) -> Result<bool, ShardError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => timeout(CONNECT_TIMEOUT, Connection::open(&self.address, NAME))
                .await
                .unwrap_or_else(|_| Err(format!("no connection within {CONNECT_TIMEOUT:?}")))
                .map_err(|reason| self.away(reason))?,
        };
        // Zero would mean for ever.
        let patience = patience.max(Duration::from_millis(1));
        let seconds = format!("{:.3}", patience.as_secs_f64());
        let words: [&[u8]; 6] = [b"BLMOVE", key, key, b"RIGHT", b"RIGHT", seconds.as_bytes()];
        let asked = async {
            connection.say(words.into_iter()).await?;
            connection.next().await
        };
        let after = patience + GRACE;
        let reply = timeout(after, asked)
            .await
            .map_err(|_| ShardError::Timeout { shard: self.shard.clone(), after })?
            .map_err(|reason| self.away(reason))?;
        match reply {
            BytesFrame::BulkString(_) => {
                self.connection = Some(connection);
                Ok(true)
            }
            BytesFrame::Null => {
                self.connection = Some(connection);
                Ok(false)
            }
            BytesFrame::Error(error) => {
                let error = server_error(&self.shard, &error);
                // A server that is not in order may be another one when dialed again.
                if !error.is_away() {
                    self.connection = Some(connection);
                }
                Err(error)
            }
            _ => Err(ShardError::Refused {
                shard: self.shard.clone(),
                reason: "BLMOVE was answered with something else than an element".to_owned(),
            }),
        }
    }

    fn away(&self, reason: String) -> ShardError {
        ShardError::Away { shard: self.shard.clone(), reason }
    }
}

impl Waiter for RedisWaiter {
    fn wait<'a>(
        &'a mut self,
        key: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<bool, ShardError>> {
        Box::pin(async move { self.run(&key, timeout).await })
    }
}
