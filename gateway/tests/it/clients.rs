//! Real clients of every generation, all in one Node process; see `tests/js/client.js`.

use std::{
    collections::HashMap,
    path::Path,
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
    sync::mpsc,
    time::timeout,
};

/// How long a client may take to say what is waited for.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A Node process and the clients in it.
#[derive(Debug, Clone)]
pub struct Herd(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    commands: mpsc::UnboundedSender<String>,
    next: AtomicU64,
    /// Held for a look: who hears what a client says; nobody once the process has ended.
    ears: Arc<Mutex<Option<Ears>>>,
    /// Ended on drop.
    _child: Child,
}

type Ears = HashMap<u64, mpsc::UnboundedSender<Value>>;

impl Herd {
    /// Starts the process.
    pub fn start() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/js");
        assert!(folder.join("node_modules").exists(), "`make test` fetches the clients");
        let mut child = Command::new("node")
            .arg("client.js")
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("`node` is installed");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let (commands, mut said) = mpsc::unbounded_channel::<String>();
        tokio::spawn(async move {
            while let Some(command) = said.recv().await {
                if stdin.write_all(command.as_bytes()).await.is_err() {
                    return;
                }
            }
        });
        let ears = Arc::new(Mutex::new(Some(Ears::new())));
        let all = ears.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let line: Value = serde_json::from_str(&line).expect("client.js says JSON");
                let Some(client) = line["c"].as_u64() else { panic!("client.js: {line}") };
                let ears = all.lock().expect("no holder panics");
                let _ = ears.as_ref().and_then(|ears| Some(ears.get(&client)?.send(line)));
            }
            // Whoever waits fails at once, and not each after its patience.
            all.lock().expect("no holder panics").take();
        });
        Self(Arc::new(Inner { commands, next: AtomicU64::new(0), ears, _child: child }))
    }

    /// Opens a client.
    pub fn open(&self, spec: Value) -> Client {
        let index = self.0.next.fetch_add(1, Ordering::Relaxed);
        let (ear, lines) = mpsc::unbounded_channel();
        if let Some(ears) = &mut *self.0.ears.lock().expect("no holder panics") {
            ears.insert(index, ear);
        }
        let client = Client { herd: self.clone(), index, lines, passed: Vec::new() };
        client.say(json!({ "cmd": "open", "spec": spec }));
        client
    }
}

/// A client on a leash; it is forgotten on drop.
#[derive(Debug)]
pub struct Client {
    herd: Herd,
    index: u64,
    lines: mpsc::UnboundedReceiver<Value>,
    /// What was read while something else was waited for.
    passed: Vec<Value>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.say(json!({ "cmd": "forget" }));
        if let Some(ears) = &mut *self.herd.0.ears.lock().expect("no holder panics") {
            ears.remove(&self.index);
        }
    }
}

impl Client {
    /// Says a command to it.
    pub fn say(&self, mut command: Value) {
        command["c"] = self.index.into();
        // Without the process, the next wait fails and says so.
        let _ = self.herd.0.commands.send(format!("{command}\n"));
    }

    /// Lets it emit.
    pub fn emit(&self, name: &str, args: Value) {
        self.say(json!({ "cmd": "emit", "name": name, "args": args }));
    }

    /// Lets it ask and waits for the answer.
    pub async fn call(&mut self, name: &str, arg: Value) -> Result<Value> {
        let args = [arg];
        self.say(json!({ "cmd": "emit", "name": name, "args": args, "ack": name }));
        let answer = self.until_where("ack", |line| line["id"] == name).await;
        Ok(answer.with_context(|| format!("answer to {name}"))?["value"].take())
    }

    /// Waits for a line of this kind.
    pub async fn until(&mut self, kind: &str) -> Result<Value> {
        self.until_where(kind, |_| true).await
    }

    /// Waits for an event of this name, and returns its arguments.
    pub async fn args(&mut self, name: &str) -> Result<Value> {
        Ok(self.until_where("event", |line| line["name"] == name).await?["args"].take())
    }

    /// Waits for an event of this name, and returns its one argument.
    pub async fn event(&mut self, name: &str) -> Result<Value> {
        match self.args(name).await?.as_array_mut().map(Vec::as_mut_slice) {
            Some([one]) => Ok(one.take()),
            other => bail!("{name} has not one argument: {other:?}"),
        }
    }

    /// Waits for a line; what came before it can still be waited for.
    pub async fn until_where(
        &mut self,
        kind: &str,
        fits: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let fits = |line: &Value| line["t"] == kind && fits(line);
        if let Some(index) = self.passed.iter().position(fits) {
            return Ok(self.passed.remove(index));
        }
        let found = timeout(PATIENCE, async {
            while let Some(line) = self.lines.recv().await {
                if fits(&line) {
                    return Some(line);
                }
                self.passed.push(line);
            }
            None
        });
        match found.await {
            Ok(Some(line)) => Ok(line),
            Ok(None) => bail!("the Node process ended"),
            Err(_) => bail!("no {kind} came after {}", self.tail()),
        }
    }

    /// Everything of this kind that came and was not waited for.
    pub fn left(&mut self, kind: &str) -> Vec<Value> {
        while let Ok(line) = self.lines.try_recv() {
            self.passed.push(line);
        }
        self.passed.iter().filter(|line| line["t"] == kind).cloned().collect()
    }

    /// The last of what came besides, as short as a report wants it.
    fn tail(&self) -> String {
        let from = self.passed.len().saturating_sub(6);
        let short = |line: &Value| line.to_string().chars().take(160).collect::<String>();
        self.passed[from..].iter().map(short).collect::<Vec<_>>().join(" ")
    }
}
