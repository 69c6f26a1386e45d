//! Real socket.io clients in Node processes, driven by `gateway/tests/js/client.js`.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdout, Command},
    sync::mpsc,
    time::sleep,
};

use super::{fleet::ASKS_AGAIN, watch::Watch, world::USERS};
use crate::tree::Tree;

/// A process with several clients; killed on drop.
#[derive(Debug)]
pub struct Process {
    _child: Child,
    orders: mpsc::UnboundedSender<Value>,
    clients: Arc<[NodeClient]>,
    /// Held to take or leave what clients say they show.
    shown: Arc<Mutex<Vec<Option<String>>>>,
}

/// One client in a process.
#[derive(Debug)]
pub struct NodeClient {
    /// What it has heard on the wire.
    pub watch: Watch,
}

/// One line of a client.
#[derive(Deserialize)]
struct Said<'a> {
    #[serde(default)]
    c: usize,
    t: &'a str,
    #[serde(default)]
    name: Option<&'a str>,
    #[serde(borrow, default)]
    args: Option<Vec<&'a RawValue>>,
    #[serde(default)]
    id: Option<Value>,
    #[serde(borrow, default)]
    value: Option<&'a RawValue>,
}

/// What a client shows.
#[derive(Deserialize)]
struct Shown<'a> {
    #[serde(borrow)]
    tree: &'a RawValue,
    #[serde(borrow)]
    subscriptions: HashMap<String, Option<&'a RawValue>>,
    #[serde(borrow)]
    problems: &'a RawValue,
}

/// Between two looks for an answer, and how often that is done.
const LOOK: Duration = Duration::from_millis(50);
const LOOKS: usize = 100;

impl Process {
    /// Starts a process with a client for each spec; `folder` has `client.js`.
    ///
    /// # Errors
    ///
    /// Returns why Node cannot be started.
    pub fn start(folder: &Path, specs: &[Value], clients: Vec<NodeClient>) -> io::Result<Self> {
        let mut child = Command::new("node")
            .arg(folder.join("client.js"))
            .arg(Value::from(specs).to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut stdin = child.stdin.take().expect("stdin is piped");
        let stdout = child.stdout.take().expect("stdout is piped");
        // Only a few lines a second are ever said to it.
        let (orders, mut lines) = mpsc::unbounded_channel::<Value>();
        tokio::spawn(async move {
            while let Some(order) = lines.recv().await {
                if stdin.write_all(format!("{order}\n").as_bytes()).await.is_err() {
                    return;
                }
            }
        });
        let clients: Arc<[NodeClient]> = clients.into();
        let shown = Arc::new(Mutex::new(vec![None; clients.len()]));
        let task = listen(stdout, clients.clone(), orders.downgrade(), shown.clone());
        tokio::spawn(task);
        Ok(Self { _child: child, orders, clients, shown })
    }

    /// Returns its clients.
    #[must_use]
    pub fn clients(&self) -> &[NodeClient] {
        &self.clients
    }

    /// Asks a client what its library shows; `None` where it does not say so in time.
    ///
    /// # Errors
    ///
    /// Returns what the library itself found wrong.
    pub async fn shows(&self, client: usize) -> Result<Option<Tree>, String> {
        let take = || self.shown.lock().expect("no holder of this lock panics")[client].take();
        take();
        let _ = self.orders.send(json!({ "c": client, "cmd": "tree" }));
        for _ in 0..LOOKS {
            sleep(LOOK).await;
            let Some(line) = take() else { continue };
            let shown: Shown<'_> = serde_json::from_str(&line).map_err(|e| e.to_string())?;
            if shown.problems.get() != "[]" {
                return Err(shown.problems.get().chars().take(400).collect());
            }
            let mut tree = Tree::new(USERS);
            tree.apply("initial", shown.tree.get()).map_err(|error| error.to_string())?;
            for collection in shown.subscriptions.into_values().flatten() {
                tree.subscribed(collection.get()).map_err(|error| error.to_string())?;
            }
            return Ok(Some(tree));
        }
        Ok(None)
    }

    /// Has a client connect again that was sent away for good.
    pub fn connect(&self, client: usize) {
        // A process that has ended is found by the comparison.
        let _ = self.orders.send(json!({ "c": client, "cmd": "connect" }));
    }
}

async fn listen(
    stdout: ChildStdout,
    clients: Arc<[NodeClient]>,
    orders: mpsc::WeakUnboundedSender<Value>,
    shown: Arc<Mutex<Vec<Option<String>>>>,
) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let Ok(said) = serde_json::from_str::<Said<'_>>(&line) else { continue };
        let Some(NodeClient { watch }) = clients.get(said.c) else { continue };
        match said.t {
            "connect" => watch.connected(),
            "disconnect" => watch.lost(),
            "event" => {
                let argument = said.args.as_ref().and_then(|args| args.first());
                let (Some(name), Some(argument)) = (said.name, argument) else { continue };
                if watch.event(name, argument.get())
                    && let Some(orders) = orders.upgrade()
                {
                    for feed in watch.wanted() {
                        let _ = orders.send(subscribe(said.c, json!({ "feed": feed })));
                    }
                }
            }
            "told" => watch.told(),
            "ready" => watch.in_step(),
            "tree" => {
                let mut shown = shown.lock().expect("no holder of this lock panics");
                shown[said.c] = Some(line.clone());
            }
            "ack" => {
                let (Some(asked), Some(answer)) = (said.id, said.value) else { continue };
                let is_granted = watch.answer("subscribe", &asked.to_string(), answer.get());
                if !is_granted {
                    let (orders, client) = (orders.clone(), said.c);
                    tokio::spawn(async move {
                        sleep(ASKS_AGAIN).await;
                        if let Some(orders) = orders.upgrade() {
                            let _ = orders.send(subscribe(client, asked));
                        }
                    });
                }
            }
            _ => {}
        }
    }
}

/// Writes an order to subscribe; the answer comes with the argument.
fn subscribe(client: usize, argument: Value) -> Value {
    json!({
        "c": client, "cmd": "emit", "name": "subscribe", "args": [argument], "ack": argument,
    })
}

/// Finds the folder of the test clients, with its packages.
///
/// # Errors
///
/// Returns what is missing.
pub fn folder() -> Result<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway/tests/js");
    let packages = root.join("node_modules");
    if packages.is_dir() {
        Ok(root)
    } else {
        Err(format!("{} is missing; `make chaos` and `make test` make it", packages.display()))
    }
}
