//! Who a client is: from its cookie, through the session store, to an identity.

use std::sync::Arc;

use http::HeaderMap;

use crate::{
    identity::{Identity, Session, SessionId, UserId},
    metrics::{self, Lookup},
};

pub mod demo;
pub mod express;
pub mod lookup;
pub mod origin;
pub mod store;

/// How sessions are found; the secrets and the store belong to the format that needs them.
#[derive(Debug, Clone)]
pub enum Settings {
    /// The embedded default's own users.
    Demo,
    /// A cookie signed by express-session, its session kept by connect-redis.
    Express {
        /// The cookie's name.
        cookie: String,
        /// The secrets that may have signed it, the newest first.
        secrets: Vec<String>,
        /// Where the sessions are: a `redis:` URL.
        store: String,
        /// What stands before a session's id in its key.
        prefix: String,
        /// What is read from a session.
        pointers: express::Pointers,
    },
}

/// Why a client is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// It has no valid session; the text says why, for the log only.
    #[error("no valid session: {0}")]
    Unauthorized(&'static str),
    /// Nobody can tell now.
    #[error("session store could not answer: {0}")]
    StoreAway(&'static str),
}

/// Finds the session of a request, and looks at it again while its client is connected.
#[derive(Debug)]
pub struct Authenticator {
    scheme: Scheme,
}

#[derive(Debug)]
enum Scheme {
    Demo,
    Express(Box<Express>),
}

#[derive(Debug)]
struct Express {
    cookie: String,
    secrets: express::Secrets,
    sessions: lookup::Lookups,
}

impl Authenticator {
    /// Makes an authenticator; a store that is away is tried again until it is there.
    ///
    /// Must be called within a tokio runtime, where the store's connection lives.
    ///
    /// # Errors
    ///
    /// Returns [`store::BadUrl`] when the store's address cannot be read.
    pub fn new(settings: Settings) -> Result<Self, store::BadUrl> {
        let scheme = match settings {
            Settings::Demo => Scheme::Demo,
            Settings::Express { cookie, secrets, store, prefix, pointers } => {
                let store = store::Redis::connect(&store)?;
                return Ok(Self::express(cookie, &secrets, prefix, pointers, Arc::new(store)));
            }
        };
        Ok(Self { scheme })
    }

    /// Makes an authenticator for express-session on any store.
    #[must_use]
    pub fn express(
        cookie: String,
        secrets: &[String],
        prefix: String,
        pointers: express::Pointers,
        store: Arc<dyn store::Store>,
    ) -> Self {
        let sessions = lookup::Lookups::new(store, prefix, pointers);
        let express = Express { cookie, secrets: express::Secrets::new(secrets), sessions };
        Self { scheme: Scheme::Express(Box::new(express)) }
    }

    /// Finds whose request this is. The Origin is judged before.
    ///
    /// # Errors
    ///
    /// Returns [`AuthError::Unauthorized`] for a cookie that is missing, unsigned or forged,
    /// without asking the store, and for a session that is missing, expired or names no user;
    /// [`AuthError::StoreAway`] when the store does not answer.
    pub async fn authenticate(
        &self,
        headers: &HeaderMap,
        query: &str,
    ) -> Result<Session, AuthError> {
        let Express { cookie, secrets, sessions } = match &self.scheme {
            Scheme::Demo => {
                let session = demo::session(headers, query);
                count(session.is_some());
                return session.ok_or(AuthError::Unauthorized("not a demo user"));
            }
            Scheme::Express(express) => &**express,
        };
        let cookies = express::cookies(headers, cookie);
        let signed: Vec<_> = cookies.iter().filter_map(|value| secrets.open(value)).collect();
        if signed.is_empty() {
            metrics::session_lookup(Lookup::BadCookie);
            return Err(AuthError::Unauthorized(if cookies.is_empty() {
                "no session cookie"
            } else {
                "session cookie is unsigned or forged"
            }));
        }
        // A browser sends a cookie of each path and domain that fits; any of them may be it.
        let mut refusal = AuthError::Unauthorized("no session cookie");
        for id in signed {
            match sessions.get(&id, false).await {
                Ok(identity) => return Ok(Session { id, identity }),
                Err(error @ AuthError::StoreAway(_)) => return Err(error),
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }

    /// Looks at a session again; `fresh` allows no answer that is older than this question.
    ///
    /// # Errors
    ///
    /// As [`Authenticator::authenticate`].
    pub async fn recheck(&self, session: &SessionId, fresh: bool) -> Result<Identity, AuthError> {
        match &self.scheme {
            Scheme::Demo => {
                demo::recheck(session).ok_or(AuthError::Unauthorized("not a demo user"))
            }
            Scheme::Express(express) => express.sessions.get(session, fresh).await,
        }
    }

    /// Tells whether this was found of a session and is known by now: nothing was said about the
    /// session since. `false` says nothing but that it is to be looked at again.
    #[must_use]
    pub fn knows(&self, session: &SessionId, identity: &Identity) -> bool {
        match &self.scheme {
            Scheme::Demo => demo::recheck(session).is_some_and(|found| found == *identity),
            Scheme::Express(express) => express.sessions.knows(session, identity),
        }
    }

    /// Forgets what is known of a session.
    pub fn forget(&self, session: &SessionId) {
        if let Scheme::Express(express) = &self.scheme {
            express.sessions.forget(session);
        }
    }

    /// Forgets what is known of a user's sessions.
    pub fn forget_user(&self, user: &UserId) {
        if let Scheme::Express(express) = &self.scheme {
            express.sessions.forget_user(user);
        }
    }
}

fn count(is_found: bool) {
    metrics::session_lookup(if is_found { Lookup::Found } else { Lookup::BadCookie });
}
