//! The front door: a feed's name, the shard that has it, the verb.
//!
//! The verbs themselves stand in [`crate::feed`], one file a type of feed; each is one
//! script, so that a write and its notices happen together or not at all.

use std::{
    fmt,
    sync::{Arc, RwLock},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::watch;
use uuid::Uuid;

use crate::{
    feed::{FeedError, Found, names},
    shard::{Script, Shard, ShardError, Value, Waiter, memory::MemoryShard, redis::RedisShard},
    topology::{ShardSpec, ShardUrl, Topology, UNVERSIONED},
};

mod layout;

pub use layout::Adopted;
use layout::{Layout, Open};

/// Names a verb's script: the shared text, then its own.
macro_rules! verb {
    ($name:literal) => {
        $crate::shard::Script::new(
            $name,
            concat!(
                include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/shard/scripts/lib.lua")),
                include_str!(concat!(
                    env!("CARGO_MANIFEST_DIR"),
                    "/src/shard/scripts/",
                    $name,
                    ".lua"
                ))
            ),
        )
    };
}
pub(crate) use verb;

/// Carries out verbs, each on the shard that has the feed.
pub struct Router {
    /// Held to look at or to exchange what is in it, never longer: every verb looks, and
    /// a topology comes once in a while.
    layout: RwLock<Arc<Layout>>,
    open: Arc<Open>,
    instance: Arc<str>,
    /// The version of the topology, for those who follow it.
    changes: watch::Sender<u64>,
}

impl fmt::Debug for Router {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Router")
            .field("layout", &self.layout())
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

impl Router {
    /// Makes a router of these shards; `owner` gives the index of the one that has a feed.
    ///
    /// It knows nothing of a topology: were it told to adopt one, these shards would go.
    ///
    /// # Panics
    ///
    /// Verbs panic where `owner` answers an index beyond `shards`.
    #[must_use]
    pub fn new(
        shards: Vec<Arc<dyn Shard>>,
        owner: impl Fn(&str) -> usize + Send + Sync + 'static,
    ) -> Self {
        Self::of(Layout::fixed(shards, Box::new(owner)), Arc::new(open))
    }

    /// Makes a router of the shards of a topology; those that are away are tried until they are back.
    ///
    /// # Panics
    ///
    /// Panics outside of a Tokio runtime.
    #[must_use]
    pub fn open(topology: Topology) -> Self {
        Self::open_with(topology, open)
    }

    /// Makes a router of the shards of a topology, each made by `open`, as later ones will be.
    #[must_use]
    pub fn open_with(
        topology: Topology,
        open: impl Fn(&ShardSpec) -> Arc<dyn Shard> + Send + Sync + 'static,
    ) -> Self {
        Self::of(Layout::first(topology, &open), Arc::new(open))
    }

    fn of(layout: Layout, open: Arc<Open>) -> Self {
        let version = layout.topology.as_ref().map_or(UNVERSIONED, |topology| topology.version);
        Self {
            layout: RwLock::new(Arc::new(layout)),
            open,
            instance: Uuid::new_v4().simple().to_string().into(),
            changes: watch::Sender::new(version),
        }
    }

    fn layout(&self) -> Arc<Layout> {
        self.layout.read().expect("no holder of this lock panics").clone()
    }

    /// Goes over to another topology: from now on its ring says who has a feed.
    ///
    /// Shards keep their indexes by name. One whose URL is another is connected to anew; one
    /// that is gone keeps its index and is away, until its name comes back. What is under
    /// way on a shard ends there. Nothing is moved from shard to shard.
    ///
    /// # Panics
    ///
    /// Panics outside of a Tokio runtime, where the router was made by [`Router::open`].
    pub fn adopt(&self, topology: Topology) -> Adopted {
        let mut layout = self.layout.write().expect("no holder of this lock panics");
        let (next, adopted) = layout.next(topology, &*self.open);
        *layout = Arc::new(next);
        drop(layout);
        self.changes.send_replace(adopted.version);
        adopted
    }

    /// Returns the topology that it goes by, if it was opened with one.
    #[must_use]
    pub fn topology(&self) -> Option<Arc<Topology>> {
        self.layout().topology.clone()
    }

    /// Changes whenever another topology was adopted; its value is the version.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Makes a router that stays with the present shards and ring, whatever this one adopts.
    ///
    /// So that what belongs together, such as claiming a job and finishing it, is done on
    /// one shard.
    #[must_use]
    pub fn pinned(&self) -> Self {
        Self {
            layout: RwLock::new(self.layout()),
            open: self.open.clone(),
            instance: self.instance.clone(),
            changes: watch::Sender::new(*self.changes.borrow()),
        }
    }

    /// Lists the shards that there are, with their indexes.
    #[must_use]
    pub fn shards(&self) -> Vec<(usize, Arc<dyn Shard>)> {
        self.layout().shards().map(|(index, shard)| (index, shard.clone())).collect()
    }

    /// Returns the index of the shard that has this feed.
    ///
    /// It is this shard's for good; another topology may give the feed to another.
    #[must_use]
    pub fn owner(&self, feed: &str) -> usize {
        self.layout().owner(feed)
    }

    /// Returns the 32 hexadecimal digits by which this router signs `newfeed`, `delfeed` and `conffeed`.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Opens a connection on which one worker waits for a queue or a job queue to fill.
    ///
    /// It stays with the shard that has the queue now.
    ///
    /// # Errors
    ///
    /// Returns [`FeedError::BadName`] for a name that no feed may have.
    pub fn waiter(&self, queue: &str) -> Result<QueueWaiter, FeedError> {
        names::check_feed(queue)?;
        let layout = self.layout();
        let waiter = layout.shard(layout.owner(queue))?.waiter();
        Ok(QueueWaiter { waiter, key: names::ids(queue) })
    }

    /// Publishes a payload as it is on a channel of one shard.
    ///
    /// # Errors
    ///
    /// Returns [`ShardError`] when the shard is away or refuses.
    pub async fn relay(
        &self,
        shard: usize,
        channel: impl Into<Bytes>,
        payload: impl Into<Bytes>,
    ) -> Result<(), ShardError> {
        static RELAY: Script = verb!("relay");
        let args = vec![channel.into(), payload.into()];
        self.run(shard, &RELAY, Vec::new(), args).await?.ok().map(drop)
    }

    /// Publishes a mark: whoever hears `nonce` has heard everything before it.
    ///
    /// # Errors
    ///
    /// Returns [`ShardError`] when the shard is away or refuses.
    pub async fn mark(
        &self,
        shard: usize,
        channel: impl Into<Bytes>,
        nonce: impl Into<Bytes>,
    ) -> Result<(), ShardError> {
        self.relay(shard, channel, nonce).await
    }

    /// Runs one script on one shard.
    pub(crate) async fn run(
        &self,
        shard: usize,
        script: &'static Script,
        keys: Vec<Bytes>,
        args: Vec<Bytes>,
    ) -> Result<Answer, ShardError> {
        let layout = self.layout();
        let value = layout.shard(shard)?.eval(script, keys, args).await?;
        let mut answer =
            Answer { script: script.name(), shard, status: Bytes::new(), rest: [].into() };
        match value {
            Value::Array(values) => answer.rest = values.into(),
            other => return Err(answer.unexpected(&other)),
        }
        answer.status = answer.word()?;
        Ok(answer)
    }

    /// Runs one script on the shard that has the feed.
    pub(crate) async fn run_for(
        &self,
        feed: &str,
        script: &'static Script,
        keys: Vec<Bytes>,
        args: Vec<Bytes>,
    ) -> Result<Answer, FeedError> {
        names::check_feed(feed)?;
        Ok(self.run(self.owner(feed), script, keys, args).await?)
    }
}

/// Connects to a shard, or makes it where it is in this process.
fn open(spec: &ShardSpec) -> Arc<dyn Shard> {
    match &spec.url {
        ShardUrl::Redis(url) => Arc::new(RedisShard::new(&spec.name, url.clone())),
        ShardUrl::Memory => Arc::new(MemoryShard::new(spec.name.as_str())),
    }
}

/// Waits for one queue to fill.
pub struct QueueWaiter {
    waiter: Box<dyn Waiter>,
    key: Bytes,
}

impl fmt::Debug for QueueWaiter {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("QueueWaiter").field("key", &self.key).finish_non_exhaustive()
    }
}

impl QueueWaiter {
    /// Waits until the queue is not empty; `false` when `timeout` passed first.
    ///
    /// # Errors
    ///
    /// Returns [`ShardError`] when the shard is away or refuses.
    pub async fn wait(&mut self, timeout: Duration) -> Result<bool, ShardError> {
        self.waiter.wait(self.key.clone(), timeout).await
    }
}

/// What a script answered: a word for how it went, then whatever the verb says.
#[derive(Debug)]
pub(crate) struct Answer {
    script: &'static str,
    shard: usize,
    status: Bytes,
    rest: std::collections::VecDeque<Value>,
}

impl Answer {
    /// Returns the word for how it went.
    pub(crate) fn status(&self) -> &[u8] {
        &self.status
    }

    /// Lets through an answer that says `ok`.
    pub(crate) fn ok(self) -> Result<Self, ShardError> {
        if self.status == "ok" { Ok(self) } else { Err(self.unknown()) }
    }

    /// Lets through an answer that says `ok`, or tells that the feed is of another type.
    pub(crate) fn ok_for(mut self, feed: &str) -> Result<Self, FeedError> {
        if self.status == "kind" {
            let found = Found::of(&self.word()?);
            return Err(FeedError::WrongKind { feed: feed.to_owned(), found });
        }
        Ok(self.ok()?)
    }

    pub(crate) fn maybe(&mut self) -> Result<Option<Bytes>, ShardError> {
        match self.rest.pop_front() {
            Some(Value::Bytes(bytes)) => Ok(Some(bytes)),
            Some(Value::Nil) | None => Ok(None),
            Some(other) => Err(self.unexpected(&other)),
        }
    }

    pub(crate) fn word(&mut self) -> Result<Bytes, ShardError> {
        self.maybe()?.ok_or_else(|| self.unexpected(&Value::Nil))
    }

    pub(crate) fn text(&mut self) -> Result<String, ShardError> {
        Ok(String::from_utf8_lossy(&self.word()?).into_owned())
    }

    pub(crate) fn int(&mut self) -> Result<i64, ShardError> {
        match self.rest.pop_front() {
            Some(Value::Int(int)) => Ok(int),
            other => Err(self.unexpected(&other.unwrap_or(Value::Nil))),
        }
    }

    pub(crate) fn array(&mut self) -> Result<Vec<Value>, ShardError> {
        match self.rest.pop_front() {
            Some(Value::Array(values)) => Ok(values),
            other => Err(self.unexpected(&other.unwrap_or(Value::Nil))),
        }
    }

    /// Takes an array apart in which every element is a string or nothing.
    pub(crate) fn strings(&mut self) -> Result<Vec<Option<Bytes>>, ShardError> {
        let values = self.array()?;
        values
            .into_iter()
            .map(|value| match value {
                Value::Bytes(bytes) => Ok(Some(bytes)),
                Value::Nil => Ok(None),
                other => Err(self.unexpected(&other)),
            })
            .collect()
    }

    /// Makes an answer of one element of this one.
    pub(crate) fn part(&self, values: Vec<Value>) -> Self {
        Self { script: self.script, shard: self.shard, status: Bytes::new(), rest: values.into() }
    }

    /// The error for a status that the verb does not know.
    pub(crate) fn unknown(&self) -> ShardError {
        self.refused(format!("status {:?}", self.status))
    }

    fn unexpected(&self, value: &Value) -> ShardError {
        let kind = match value {
            Value::Nil => "nothing",
            Value::Int(_) => "a number",
            Value::Bytes(_) => "a string",
            Value::Array(_) => "an array",
        };
        self.refused(format!("{kind} where something else was due"))
    }

    fn refused(&self, what: String) -> ShardError {
        ShardError::Refused {
            shard: format!("#{}", self.shard).into(),
            reason: format!("script `{}` answered {what}", self.script),
        }
    }
}
