//! Where sessions are kept.

use std::{fmt, future::Future, pin::Pin, time::Duration};

use bytes::Bytes;
use fred::{
    clients::Client,
    interfaces::{ClientLike, KeysInterface},
    types::{
        Builder,
        config::{Config, Options, ReconnectPolicy},
    },
};
use tracing::warn;

/// The store did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("session store is away")]
pub struct Away;

/// The answer of a store: the value under a key, if there is one.
pub type Answer<'a> = Pin<Box<dyn Future<Output = Result<Option<Bytes>, Away>> + Send + 'a>>;

/// Keeps sessions by key.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Reads the value under a key; bounded in time.
    fn get<'a>(&'a self, key: &'a str) -> Answer<'a>;
}

/// The store's address cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("address of the session store cannot be read")]
pub struct BadUrl(#[source] fred::error::Error);

/// Sessions in a Redis.
pub struct Redis(fred::clients::WithOptions<Client>);

impl fmt::Debug for Redis {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Redis")
    }
}

/// How long a look-up may take: a browser waits for it.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How long to wait before tries to reach the store, in milliseconds: fred waits before the
/// first one as well, and until it is made every client is sent away.
const RETRY: (u32, u32) = (1, 3_000);
/// What is added to each, in milliseconds, so that many gateways do not come at once.
const JITTER: u32 = 10;

impl Redis {
    /// Connects in the background, again and again until it works.
    ///
    /// # Errors
    ///
    /// Returns [`BadUrl`] when the address cannot be read.
    pub fn connect(url: &str) -> Result<Self, BadUrl> {
        let mut config = Config::from_url(url).map_err(BadUrl)?;
        config.fail_fast = false;
        let mut policy = ReconnectPolicy::new_exponential(0, RETRY.0, RETRY.1, 2);
        policy.set_jitter(JITTER);
        let client = Builder::from_config(config)
            .with_connection_config(|connection| {
                connection.connection_timeout = TIMEOUT;
                connection.internal_command_timeout = TIMEOUT;
                connection.max_command_attempts = 1;
                connection.reconnect_on_auth_error = true;
            })
            .with_performance_config(|performance| performance.default_command_timeout = TIMEOUT)
            .set_policy(policy)
            .build()
            .map_err(BadUrl)?;
        client.connect();
        // A command must not wait in a queue until the store is back.
        let options = Options {
            max_attempts: Some(1),
            fail_fast: true,
            timeout: Some(TIMEOUT),
            ..Options::default()
        };
        Ok(Self(client.with_options(&options)))
    }
}

impl Store for Redis {
    fn get<'a>(&'a self, key: &'a str) -> Answer<'a> {
        Box::pin(async move {
            let answer = tokio::time::timeout(TIMEOUT, self.0.get::<Option<Bytes>, _>(key)).await;
            match answer {
                Ok(Ok(value)) => Ok(value),
                Ok(Err(error)) if error.details().starts_with("WRONGTYPE") => {
                    warn!("Key of a session does not hold a string; taken as missing.");
                    Ok(None)
                }
                Ok(Err(error)) => {
                    warn!(%error, "Session store did not answer.");
                    Err(Away)
                }
                Err(_) => {
                    warn!("Session store did not answer in time.");
                    Err(Away)
                }
            }
        })
    }
}
