//! Looks sessions up: one question to the store however many clients wait for the answer.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use lru::LruCache;
use tokio::time::Instant;
use tracing::warn;

use crate::{
    auth::{
        AuthError,
        express::{self, Pointers},
        store::{Away, Store},
    },
    identity::{Identity, SessionId, UserId},
    metrics::{self, Lookup},
};

/// How long a good answer is kept.
pub const KEPT: Duration = Duration::from_secs(2);

/// How often a bad answer is asked again, at most.
pub const ASKED_AGAIN: Duration = Duration::from_secs(1);

/// How many sessions are remembered at most; each takes a few hundred bytes.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(20_000).expect("it is not zero");

/// The look-ups of one store.
#[derive(Debug)]
pub struct Lookups {
    store: Arc<dyn Store>,
    prefix: String,
    pointers: Pointers,
    /// Held to find a slot, never across a question to the store.
    slots: Mutex<LruCache<SessionId, Arc<Slot>>>,
}

/// What is known of one session; whoever asks the store holds it, and the others wait for it.
type Slot = tokio::sync::Mutex<Option<Known>>;

#[derive(Debug)]
struct Known {
    asked: Instant,
    answer: Result<Identity, AuthError>,
}

impl Lookups {
    /// Looks sessions up under `prefix` and reads them by `pointers`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, prefix: String, pointers: Pointers) -> Self {
        Self { store, prefix, pointers, slots: Mutex::new(LruCache::new(REMEMBERED)) }
    }

    /// Finds whose session this is.
    ///
    /// A good answer is kept for [`KEPT`] unless a `fresh` one is wanted. A refusal is final for
    /// most clients, so it is only given when the store was asked after this call came; the
    /// store is asked at most once per [`ASKED_AGAIN`] about a session that it refused.
    ///
    /// # Errors
    ///
    /// Returns [`AuthError`] when there is no such session, or no answer.
    pub async fn get(&self, id: &SessionId, fresh: bool) -> Result<Identity, AuthError> {
        let came = Instant::now();
        let slot = self.slot(id);
        let mut known = slot.lock().await;
        if let Some(Known { asked, answer }) = &*known {
            let is_newer = *asked >= came;
            let is_kept = !fresh && answer.is_ok() && asked.elapsed() < KEPT;
            if is_newer || is_kept {
                metrics::session_lookup(match answer {
                    Ok(_) => Lookup::Cached,
                    Err(AuthError::Unauthorized(_)) => Lookup::Missing,
                    Err(AuthError::StoreAway(_)) => Lookup::StoreAway,
                });
                return answer.clone();
            }
            if matches!(answer, Err(AuthError::Unauthorized(_))) {
                tokio::time::sleep_until(*asked + ASKED_AGAIN).await;
            }
        }
        let asked = Instant::now();
        let answer = self.ask(id).await;
        *known = Some(Known { asked, answer: answer.clone() });
        answer
    }

    async fn ask(&self, id: &SessionId) -> Result<Identity, AuthError> {
        let value = match self.store.get(&format!("{}{}", self.prefix, id.as_str())).await {
            Ok(Some(value)) => value,
            Ok(None) => {
                metrics::session_lookup(Lookup::Missing);
                return Err(AuthError::Unauthorized("session is not in the store"));
            }
            Err(Away) => {
                metrics::session_lookup(Lookup::StoreAway);
                return Err(AuthError::StoreAway("no answer in time"));
            }
        };
        match express::read(&value, &self.pointers, SystemTime::now()) {
            Ok(identity) => {
                metrics::session_lookup(Lookup::Found);
                Ok(identity)
            }
            Err(reason) => {
                metrics::session_lookup(Lookup::Missing);
                warn!(reason, bytes = value.len(), "Session in the store is not valid; refused.");
                Err(AuthError::Unauthorized(reason))
            }
        }
    }

    fn slot(&self, id: &SessionId) -> Arc<Slot> {
        let mut slots = self.slots.lock().expect("no holder of this lock panics");
        // Two go for one that comes, so that what is too old to answer anybody does not pile up.
        for _ in 0..2 {
            if slots.peek_lru().is_some_and(|(_, slot)| is_old(slot)) {
                slots.pop_lru();
            }
        }
        slots.get_or_insert(id.clone(), Arc::default).clone()
    }

    /// Tells whether this is what the store said of a session, and is not forgotten since.
    pub fn knows(&self, id: &SessionId, identity: &Identity) -> bool {
        let slots = self.slots.lock().expect("no holder of this lock panics");
        slots.peek(id).is_some_and(|slot| {
            let known = slot.try_lock();
            known.is_ok_and(|known| {
                known.as_ref().is_some_and(|known| known.answer.as_ref() == Ok(identity))
            })
        })
    }

    /// Forgets a session; who asked before gets the answer of then.
    pub fn forget(&self, id: &SessionId) {
        self.slots.lock().expect("no holder of this lock panics").pop(id);
    }

    /// Forgets the sessions of a user, and those that are asked for right now.
    pub fn forget_user(&self, user: &UserId) {
        let mut slots = self.slots.lock().expect("no holder of this lock panics");
        let is_forgotten = |slot: &Slot| match slot.try_lock() {
            Ok(known) => match &*known {
                Some(Known { answer: Ok(identity), .. }) => identity.user == *user,
                _ => false,
            },
            Err(_) => true,
        };
        let ids: Vec<_> =
            slots.iter().filter(|(_, slot)| is_forgotten(slot)).map(|(id, _)| id.clone()).collect();
        for id in ids {
            slots.pop(&id);
        }
    }
}

/// Tells whether nobody is answered by what is known of a session, and nobody asks for it.
fn is_old(slot: &Arc<Slot>) -> bool {
    let is_old = |known: &Known| known.asked.elapsed() >= KEPT.max(ASKED_AGAIN);
    Arc::strong_count(slot) == 1
        && slot.try_lock().is_ok_and(|known| known.as_ref().is_none_or(is_old))
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashMap,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use bytes::Bytes;

    use super::*;
    use crate::{auth::store::Answer, identity::TeamId};

    /// A store in memory that takes 100 ms to answer and counts the questions.
    #[derive(Debug, Default)]
    struct Memory {
        values: Mutex<HashMap<String, String>>,
        away: Mutex<bool>,
        asked: AtomicUsize,
    }

    impl Memory {
        fn set(&self, key: &str, value: &str) {
            self.values.lock().unwrap().insert(key.to_owned(), value.to_owned());
        }

        fn asked(&self) -> usize {
            self.asked.swap(0, Ordering::SeqCst)
        }
    }

    impl Store for Memory {
        fn get<'a>(&'a self, key: &'a str) -> Answer<'a> {
            Box::pin(async move {
                self.asked.fetch_add(1, Ordering::SeqCst);
                let value = self.values.lock().unwrap().get(key).cloned().map(Bytes::from);
                tokio::time::sleep(Duration::from_millis(100)).await;
                if *self.away.lock().unwrap() { Err(Away) } else { Ok(value) }
            })
        }
    }

    const ANN: &str = r#"{"cookie":{},"user":{"id":"ann","teams":["red"]}}"#;

    fn lookups() -> (Arc<Memory>, Arc<Lookups>) {
        let memory = Arc::new(Memory::default());
        let pointers = Pointers { user: "/user/id".to_owned(), teams: "/user/teams".to_owned() };
        let lookups = Lookups::new(memory.clone(), "sess:".to_owned(), pointers);
        (memory, Arc::new(lookups))
    }

    async fn get_many(lookups: &Arc<Lookups>, id: &str, count: usize) -> usize {
        let ask = |_| {
            let (lookups, id) = (lookups.clone(), SessionId::new(id));
            tokio::spawn(async move { lookups.get(&id, false).await.is_ok() })
        };
        let asked: Vec<_> = (0..count).map(ask).collect();
        let mut good = 0;
        for task in asked {
            good += usize::from(task.await.unwrap());
        }
        good
    }

    #[tokio::test(start_paused = true)]
    async fn many_waiters_cost_one_question_and_a_good_answer_is_kept_for_a_while() {
        let (memory, lookups) = lookups();
        memory.set("sess:one", ANN);
        assert_eq!(get_many(&lookups, "one", 100).await, 100);
        assert_eq!(memory.asked(), 1);
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        assert_eq!(get_many(&lookups, "one", 10).await, 10);
        assert_eq!(memory.asked(), 0);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(get_many(&lookups, "one", 10).await, 10);
        assert_eq!(memory.asked(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_bad_answer_is_asked_again_before_it_refuses_but_only_once_a_second() {
        let (memory, lookups) = lookups();
        let began = Instant::now();
        assert_eq!(get_many(&lookups, "one", 10).await, 0);
        assert_eq!(memory.asked(), 1);
        memory.set("sess:one", ANN);
        assert_eq!(get_many(&lookups, "one", 10).await, 10);
        assert_eq!(memory.asked(), 1);
        assert!(began.elapsed() >= ASKED_AGAIN);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fresh_answer_is_newer_than_the_question() {
        let (memory, lookups) = lookups();
        let id = SessionId::new("one");
        memory.set("sess:one", ANN);
        lookups.get(&id, false).await.unwrap();
        memory.values.lock().unwrap().clear();
        assert!(lookups.get(&id, false).await.is_ok());
        assert!(lookups.get(&id, true).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_forgotten_is_asked_again() {
        let (memory, lookups) = lookups();
        memory.set("sess:one", ANN);
        memory.set("sess:two", &ANN.replace("ann", "bob"));
        let ask = async || {
            lookups.get(&SessionId::new("one"), false).await.unwrap();
            lookups.get(&SessionId::new("two"), false).await.unwrap();
            memory.asked()
        };
        let ann = Identity::new(UserId::new("ann"), vec![TeamId::new("red")]);
        let bob = Identity::new(UserId::new("bob"), vec![TeamId::new("red")]);
        let knows = |id, identity| lookups.knows(&SessionId::new(id), identity);
        assert!(!knows("one", &ann));
        assert_eq!(ask().await, 2);
        assert!(knows("one", &ann) && knows("two", &bob) && !knows("two", &ann));
        assert_eq!(ask().await, 0);
        lookups.forget(&SessionId::new("one"));
        assert!(!knows("one", &ann) && knows("two", &bob));
        assert_eq!(ask().await, 1);
        lookups.forget_user(&UserId::new("bob"));
        assert!(knows("one", &ann) && !knows("two", &bob));
        assert_eq!(ask().await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_away_is_no_missing_session() {
        let (memory, lookups) = lookups();
        *memory.away.lock().unwrap() = true;
        let id = SessionId::new("one");
        assert!(matches!(lookups.get(&id, false).await, Err(AuthError::StoreAway(_))));
        *memory.away.lock().unwrap() = false;
        memory.set("sess:one", ANN);
        assert!(lookups.get(&id, false).await.is_ok());
    }
}
