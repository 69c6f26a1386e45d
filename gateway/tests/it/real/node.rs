//! Real socket.io clients, all of a test in one Node process; see `tests/js/client.js`.

use std::{
    process::Stdio,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
};

use super::{
    program::{prepared, tests},
    until,
};

/// The clients of a test.
#[derive(Debug)]
pub(super) struct Clients {
    /// Ended on drop.
    _child: Child,
    stdin: ChildStdin,
    /// Held for a look: everything that was said, in order, of each client.
    heard: Arc<Mutex<Vec<Vec<Value>>>>,
    calls: u64,
    trees: Vec<usize>,
}

/// Reaches `url` as a client of this version and transport would.
pub(super) fn spec(version: &str, transport: &str, url: &str, cookie: &str) -> Value {
    json!({
        "version": version,
        "url": url,
        "transports": [transport],
        "cookie": cookie,
        "userFeed": "users",
    })
}

impl Clients {
    /// Starts a client for each spec.
    pub(super) fn start(specs: Vec<Value>) -> Self {
        prepared(tests("js/node_modules"));
        let mut child = Command::new("node")
            .arg(tests("js/client.js"))
            .arg(Value::Array(specs.clone()).to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("`node` is installed");
        let stdin = child.stdin.take().expect("stdin is piped");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let heard = Arc::new(Mutex::new(vec![Vec::new(); specs.len()]));
        let into = heard.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let said: Value = serde_json::from_str(&line).expect("client.js says JSON");
                let Some(client) = said["c"].as_u64() else { panic!("client.js: {said}") };
                let mut heard = into.lock().expect("no holder of this lock panics");
                heard[usize::try_from(client).expect("a small number")].push(said);
            }
        });
        Self { _child: child, stdin, heard, calls: 0, trees: vec![0; specs.len()] }
    }

    /// How many clients there are.
    pub(super) fn len(&self) -> usize {
        self.trees.len()
    }

    /// Everything that a client has said.
    pub(super) fn said(&self, client: usize) -> Vec<Value> {
        self.heard.lock().expect("no holder of this lock panics")[client].clone()
    }

    /// How often a client has said this.
    pub(super) fn count(&self, client: usize, kind: &str) -> usize {
        self.said(client).iter().filter(|said| said["t"] == kind).count()
    }

    /// The events that a client has heard, as `(name, argument)`.
    pub(super) fn events(&self, client: usize) -> Vec<(String, Value)> {
        let events = self.said(client).into_iter().filter(|said| said["t"] == "event");
        events.map(|mut said| (text(&said["name"]), said["args"][0].take())).collect()
    }

    /// Waits until what a client has said holds what is looked for, and returns that.
    pub(super) async fn hears<T>(
        &self,
        client: usize,
        what: &str,
        find: impl Fn(&[Value]) -> Option<T>,
    ) -> T {
        until(&format!("client {client} hears {what}"), async || {
            let said = self.said(client);
            find(&said).ok_or_else(|| {
                let last = said.len().saturating_sub(8);
                let last: Vec<String> = said[last..].iter().map(short).collect();
                format!("it has heard\n{}", last.join("\n"))
            })
        })
        .await
    }

    /// Waits until a client says something of this kind for the `nth` time.
    pub(super) async fn says(&self, client: usize, kind: &str, nth: usize) -> Value {
        let wanted = kind.to_owned();
        self.hears(client, &format!("{kind} for the {nth}. time"), move |said| {
            said.iter().filter(|said| said["t"] == *wanted).nth(nth - 1).cloned()
        })
        .await
    }

    /// Waits until a client hears an event of this name that fits.
    pub(super) async fn hears_event(
        &self,
        client: usize,
        name: &str,
        fits: impl Fn(&Value) -> bool,
    ) -> Value {
        let wanted = name.to_owned();
        self.hears(client, &format!("a fitting {name}"), move |said| {
            let mut events = said.iter().filter(|said| said["t"] == "event");
            let found = events.find(|said| said["name"] == *wanted && fits(&said["args"][0]));
            found.map(|said| said["args"][0].clone())
        })
        .await
    }

    /// The name of the gateway that a client is at now, by its session's id; empty if none is told.
    pub(super) fn gateway(&self, client: usize) -> String {
        let said = self.said(client);
        let sid = said.iter().rev().find_map(|said| said["sid"].as_str());
        let (node, _) = sid.and_then(|sid| sid.split_once('.')).unwrap_or_default();
        node.to_owned()
    }

    /// Waits until every client has its state.
    pub(super) async fn ready(&self) {
        for client in 0..self.len() {
            self.hears_event(client, "initial", |_| true).await;
        }
    }

    /// Says a command to one client.
    pub(super) async fn tell(&mut self, client: usize, mut command: Value) {
        command["c"] = client.into();
        let line = format!("{command}\n");
        self.stdin.write_all(line.as_bytes()).await.expect("client.js runs");
        self.stdin.flush().await.expect("client.js runs");
    }

    /// Lets a client ask, and returns the number of its call.
    pub(super) async fn ask(&mut self, client: usize, name: &str, argument: Value) -> u64 {
        self.calls += 1;
        let call = self.calls;
        let command = json!({ "cmd": "emit", "name": name, "args": [argument], "ack": call });
        self.tell(client, command).await;
        call
    }

    /// Waits for the answer to a call.
    pub(super) async fn answer(&self, client: usize, call: u64) -> Value {
        self.hears(client, "its answer", move |said| {
            let mut acks = said.iter().filter(|said| said["t"] == "ack");
            acks.find(|said| said["id"] == call).map(|said| said["value"].clone())
        })
        .await
    }

    /// Lets a client ask and waits for the answer.
    pub(super) async fn call(&mut self, client: usize, name: &str, argument: Value) -> Value {
        let call = self.ask(client, name, argument).await;
        self.answer(client, call).await
    }

    /// What a client holds: its tree, its subscriptions, what did not fit.
    pub(super) async fn held(&mut self, client: usize) -> Value {
        self.trees[client] += 1;
        self.tell(client, json!({ "cmd": "tree" })).await;
        self.says(client, "tree", self.trees[client]).await
    }
}

/// A line of a report that can be read.
fn short(said: &Value) -> String {
    said.to_string().chars().take(300).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
