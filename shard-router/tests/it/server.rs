//! A real `redis-server` in a folder of its own, ended with the test.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use bytes::BytesMut;
use redis_protocol::resp2::{decode::decode_bytes_mut, types::BytesFrame};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

/// How long a server may take to start or to answer before the test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// One `redis-server`, killed on drop.
#[derive(Debug)]
pub(crate) struct RedisServer {
    port: u16,
    child: Child,
    folder: TempDir,
}

impl RedisServer {
    /// Starts a server on a free port and waits until it answers.
    pub(crate) async fn start() -> Self {
        for _ in 0..20 {
            let port = free_port();
            let folder = tempfile::tempdir().expect("a temporary folder can be made");
            let child = spawn(port, &folder);
            let mut server = Self { port, child, folder };
            if server.answers().await {
                return server;
            }
        }
        panic!("redis-server could not be started on any of 20 ports");
    }

    /// The port it listens on, at 127.0.0.1.
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// Its address as a URL.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Kills it the hard way; its data stay.
    pub(crate) fn kill(&mut self) {
        // It may be dead already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Kills it if it runs, starts it on the same port with the same data, and waits for it.
    pub(crate) async fn restart(&mut self) {
        self.kill();
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            self.child = spawn(self.port, &self.folder);
            if self.answers().await {
                return;
            }
            self.kill();
        }
        panic!("redis-server did not come back on port {}", self.port);
    }

    /// Stops it without closing anything, as a machine that hangs.
    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on after [`Self::pause`].
    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    /// Says one command on a connection of its own; the reply as text, arrays line by line.
    ///
    /// # Panics
    ///
    /// Panics if the server is away or answers with an error.
    pub(crate) async fn cli(&self, words: &[&str]) -> String {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        match timeout(PATIENCE, ask(self.port, &words)).await {
            Ok(Some(BytesFrame::Error(error))) => panic!("server refuses: {error}"),
            Ok(Some(reply)) => text(&reply),
            Ok(None) => panic!("{} is away", self.url()),
            Err(_) => panic!("{} did not answer", self.url()),
        }
    }

    /// Waits until it answers; `false` when it ended, for example because the port was taken.
    async fn answers(&mut self) -> bool {
        let process = format!("process_id:{}\r\n", self.child.id());
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if self.child.try_wait().expect("a child can be asked").is_some() {
                return false;
            }
            // Another test's server may hold the port, so this one must say who it is.
            let reply =
                timeout(Duration::from_secs(1), ask(self.port, &[b"INFO", b"server"])).await;
            let is_ours = matches!(&reply, Ok(Some(reply)) if text(reply).contains(&process));
            if is_ours && !self.loads().await {
                return true;
            }
            sleep(Duration::from_millis(10)).await;
        }
        false
    }

    /// Tells whether it is still reading its data.
    async fn loads(&self) -> bool {
        !matches!(ask(self.port, &[b"DBSIZE"]).await, Some(BytesFrame::Integer(_)))
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status()
            .expect("`kill` can be run");
        assert!(status.success(), "`kill {signal}` failed");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Finds a port that nobody listens on.
///
/// It is below the range from which the system takes local ports: there, a client that dials
/// a server that is away could be connected to itself.
fn free_port() -> u16 {
    loop {
        let port = rand::random_range(20_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn spawn(port: u16, folder: &TempDir) -> Child {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .args(["--appendonly", "yes", "--daemonize", "no", "--dir"])
        .arg(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("`redis-server` is installed")
}

/// Says one command; nothing if the server is away.
async fn ask(port: u16, words: &[&[u8]]) -> Option<BytesFrame> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let mut command = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        command.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        command.extend_from_slice(word);
        command.extend_from_slice(b"\r\n");
    }
    stream.write_all(&command).await.ok()?;
    let mut buffer = BytesMut::new();
    loop {
        if let Some((reply, ..)) = decode_bytes_mut(&mut buffer).expect("the server speaks RESP") {
            return Some(reply);
        }
        if stream.read_buf(&mut buffer).await.ok()? == 0 {
            return None;
        }
    }
}

fn text(reply: &BytesFrame) -> String {
    match reply {
        BytesFrame::SimpleString(bytes) | BytesFrame::BulkString(bytes) => {
            String::from_utf8_lossy(bytes).into_owned()
        }
        BytesFrame::Error(error) => error.to_string(),
        BytesFrame::Integer(number) => number.to_string(),
        BytesFrame::Array(items) => items.iter().map(text).collect::<Vec<_>>().join("\n"),
        BytesFrame::Null => String::new(),
    }
}
