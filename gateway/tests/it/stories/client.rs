//! A client of a gateway, right behind the engine.

use std::{
    collections::{HashSet, VecDeque},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use gateway::{
    hub::frame::{Format, Frame},
    outbox::{CloseReason, Mailbox, Outgoing},
    socket::{Full, Inbound, Inbox},
};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{
    gateway::{PATIENCE, TestGateway, User},
    tree::{Collection, Tree},
};

/// What an event is called that says only that nothing else is on its way.
const QUIET: &str = "quiet ";

/// One event as a client got it.
#[derive(Debug, Clone)]
pub struct Got {
    pub name: String,
    pub frame: Frame,
}

impl Got {
    pub fn text(&self) -> &str {
        self.frame.json(Format::Utf8)
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(self.text()).unwrap()
    }
}

pub struct TestClient {
    pub user: User,
    pub tree: Tree,
    /// Everything that came, in order.
    pub log: Vec<Got>,
    /// Events that were taken in and not asked for yet.
    unread: VecDeque<Got>,
    answers: Vec<(u64, Value)>,
    subscribing: Vec<u64>,
    quiets: HashSet<String>,
    mailbox: Mailbox,
    say: Option<Box<dyn Inbox>>,
    calls: u64,
    pub closed: Option<CloseReason>,
}

impl TestClient {
    pub fn new(user: User, mailbox: Mailbox, say: Box<dyn Inbox>) -> Self {
        Self {
            user,
            tree: Tree::default(),
            log: Vec::new(),
            unread: VecDeque::new(),
            answers: Vec::new(),
            subscribing: Vec::new(),
            quiets: HashSet::new(),
            mailbox,
            say: Some(say),
            calls: 0,
            closed: None,
        }
    }

    /// Takes in what the gateway says next; `false` if nothing came in time or it is closed.
    async fn take(&mut self, patience: Duration) -> bool {
        if self.closed.is_some() {
            return false;
        }
        match timeout(patience, self.mailbox.next()).await {
            Ok(outgoing) => self.took(outgoing),
            Err(_) => false,
        }
    }

    fn took(&mut self, outgoing: Outgoing) -> bool {
        match outgoing {
            Outgoing::Event(frame) if frame.name().starts_with(QUIET) => {
                self.quiets.insert(frame.name().to_owned());
            }
            Outgoing::Event(frame) => {
                self.mailbox.let_go(frame.snapshot_bytes());
                let got = Got { name: frame.name().to_owned(), frame };
                self.tree.apply(&got.name, got.text());
                self.log.push(got.clone());
                self.unread.push_back(got);
            }
            Outgoing::Ack(call, frame) => {
                let text = frame.json(Format::Utf8);
                let answer: Value = serde_json::from_str(text).unwrap();
                if self.subscribing.contains(&call) && answer["code"] == 200 {
                    self.tree.subscribed(&answer["collection"].to_string());
                    self.log.push(Got { name: "subscribed".to_owned(), frame: frame.clone() });
                }
                self.answers.push((call, answer));
            }
            Outgoing::Letter(letter) => panic!("a gateway sends no letters: {letter:?}"),
            Outgoing::Close(reason) => {
                self.closed = Some(reason);
                self.say = None;
                return false;
            }
        }
        true
    }

    /// Takes in whatever is there already.
    pub fn drain(&mut self) {
        while self.closed.is_none() {
            let Some(outgoing) = self.mailbox.try_next() else { return };
            self.took(outgoing);
        }
    }

    /// Waits for the next event, which must have this name.
    #[track_caller]
    pub fn expect<'a>(&'a mut self, name: &'a str) -> impl Future<Output = Value> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let Some(got) = self.next().await else {
                panic!("{caller}: no {name} came; closed {:?}", self.closed)
            };
            assert_eq!(got.name, name, "{caller}: {}", got.text());
            got.json()
        }
    }

    /// Waits for the next event, whatever it is.
    pub async fn next(&mut self) -> Option<Got> {
        let until = Instant::now() + PATIENCE;
        while self.unread.is_empty() {
            if !self.take(until.saturating_duration_since(Instant::now())).await {
                break;
            }
        }
        self.unread.pop_front()
    }

    /// Tells whether an event of this name comes in time; what comes before it is passed.
    pub async fn hears(&mut self, name: &str, within: Duration) -> bool {
        let until = Instant::now() + within;
        loop {
            while let Some(got) = self.unread.pop_front() {
                if got.name == name {
                    return true;
                }
            }
            if !self.take(until.saturating_duration_since(Instant::now())).await {
                return false;
            }
        }
    }

    /// Waits for an event of this name, past others.
    pub async fn until(&mut self, name: &str) -> Value {
        loop {
            let got = self.next().await.unwrap_or_else(|| panic!("no {name} came"));
            if got.name == name {
                return got.json();
            }
        }
    }

    /// Waits until what is held is as it should be.
    pub async fn follow(&mut self, what: &str, is_so: impl Fn(&mut Tree) -> bool) {
        let until = Instant::now() + PATIENCE;
        self.drain();
        while !is_so(&mut self.tree) {
            let left = until.saturating_duration_since(Instant::now());
            assert!(self.take(left).await, "{what} never came; {:?}", self.names());
        }
        self.unread.clear();
    }

    /// Waits until all that was published before is heard: nothing has been on its way since.
    pub async fn quiet(&mut self, gateway: &TestGateway) {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        for (shard, _) in gateway.feeds.shards() {
            let name = format!("{QUIET}{}", NEXT.fetch_add(1, Ordering::Relaxed));
            let message = json!({ "op": "emit", "user": self.user.name, "event": name });
            gateway.control(shard, message).await;
            let until = Instant::now() + PATIENCE;
            while !self.quiets.remove(&name) {
                let left = until.saturating_duration_since(Instant::now());
                assert!(self.take(left).await, "no shard says that it is quiet");
            }
        }
    }

    /// Lists the names of what came and was not asked for.
    pub fn names(&mut self) -> Vec<String> {
        self.drain();
        self.unread.iter().map(|got| got.name.clone()).collect()
    }

    pub fn emit_text(&mut self, name: &str, args: &str, call: Option<u64>) {
        self.say(Inbound {
            name: name.to_owned(),
            args: args.to_owned(),
            attachments: Vec::new(),
            call,
        });
    }

    /// Says something as an engine hands it over.
    fn say(&mut self, inbound: Inbound) {
        if let Some(say) = &self.say {
            let _ = say.event(inbound);
        }
    }

    /// Says something, and tells whether there was room for it.
    pub fn try_emit(&self, name: &str, data: &Value) -> Result<(), Full> {
        let args = json!([data]).to_string();
        let inbound = Inbound { name: name.to_owned(), args, attachments: Vec::new(), call: None };
        self.say.as_ref().expect("the client is there").event(inbound)
    }

    /// Says something that binary data came with.
    pub fn emit_binary(&mut self, name: &str, args: &str, call: Option<u64>) {
        self.say(Inbound {
            name: name.to_owned(),
            args: args.to_owned(),
            attachments: vec![bytes::Bytes::from_static(b"x")],
            call,
        });
    }

    /// Says something without wanting an answer.
    pub fn emit(&mut self, name: &str, data: Value) {
        self.emit_text(name, &json!([data]).to_string(), None);
    }

    /// Asks without waiting for the answer.
    pub fn ask(&mut self, name: &str, data: Value) -> u64 {
        self.ask_text(name, &json!([data]).to_string())
    }

    /// Asks with binary data.
    pub fn ask_binary(&mut self, name: &str, args: &str) -> u64 {
        self.calls += 1;
        self.emit_binary(name, args, Some(self.calls));
        self.calls
    }

    pub fn ask_text(&mut self, name: &str, args: &str) -> u64 {
        self.calls += 1;
        let call = self.calls;
        if name == "subscribe" {
            self.subscribing.push(call);
        }
        self.emit_text(name, args, Some(call));
        call
    }

    /// Waits for the answer to a call.
    pub async fn answer(&mut self, call: u64) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.answers.iter().position(|(number, _)| *number == call) {
                return self.answers.remove(at).1;
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(self.take(left).await, "call {call} got no answer; closed {:?}", self.closed);
        }
    }

    pub fn has_answer(&mut self, call: u64) -> bool {
        self.drain();
        self.answers.iter().any(|(number, _)| *number == call)
    }

    /// Calls and waits for the answer.
    pub async fn call(&mut self, name: &str, data: Value) -> Value {
        let call = self.ask(name, data);
        self.answer(call).await
    }

    /// Waits until the gateway closes this client.
    pub async fn closes(&mut self) -> CloseReason {
        let until = Instant::now() + PATIENCE;
        while self.take(until.saturating_duration_since(Instant::now())).await {}
        self.closed.expect("the gateway closes this client")
    }

    /// Comes back with what it held, and says so; the tree is as it was until the answer.
    pub fn returns(mut self, gateway: &TestGateway) -> (Self, u64) {
        self.leave();
        let claims = self.tree.claims();
        let mut back = gateway.join(self.user.clone().resuming());
        back.tree = std::mem::take(&mut self.tree);
        back.log = std::mem::take(&mut self.log);
        let call = back.ask("resume", claims);
        (back, call)
    }

    /// Leaves by itself.
    pub fn leave(&mut self) {
        self.say = None;
    }

    /// Returns what is held of a feed.
    #[track_caller]
    pub fn feed(&mut self, feed: &str) -> Collection {
        self.tree.feed(feed).unwrap_or_else(|| panic!("{feed} is not held"))
    }

    /// Complains of whatever a right gateway never does.
    #[track_caller]
    pub fn check_faults(&self) {
        assert!(self.tree.faults.is_empty(), "{:?}", self.tree.faults);
    }
}

/// Waits until something is so.
pub async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < until, "{what} never came");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
