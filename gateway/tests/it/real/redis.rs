//! A real `redis-server` in a folder of its own, and how the test speaks with it.

use std::{path::Path, process::Command, time::Duration};

use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};

use super::{
    program::{Program, free_port},
    until,
};

/// How long one command may take.
const ANSWER: Duration = Duration::from_secs(5);

/// One `redis-server`, killed on drop.
#[derive(Debug)]
pub(super) struct Redis {
    name: String,
    port: u16,
    program: Program,
    folder: TempDir,
}

/// What a server replies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    Nil,
    Text(Vec<u8>),
    Number(i64),
    List(Vec<Reply>),
    Error(String),
}

impl Reply {
    /// The texts of a list.
    pub(super) fn texts(self) -> Vec<Vec<u8>> {
        let Self::List(replies) = self else { panic!("{self:?} is no list") };
        replies
            .into_iter()
            .map(|reply| match reply {
                Self::Text(text) => text,
                other => panic!("{other:?} is no text"),
            })
            .collect()
    }

    pub(super) fn text(self) -> String {
        match self {
            Self::Text(text) => String::from_utf8(text).expect("the text is UTF-8"),
            other => panic!("{other:?} is no text"),
        }
    }
}

impl Redis {
    /// Starts a server on a free port and waits until it answers.
    pub(super) async fn start(name: &str) -> Self {
        Self::start_on(name, free_port()).await
    }

    /// Starts a server on this port and waits until it answers.
    pub(super) async fn start_on(name: &str, port: u16) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let program = spawn(name, port, folder.path());
        let mut redis = Self { name: name.to_owned(), port, program, folder };
        redis.ready().await;
        redis
    }

    pub(super) const fn port(&self) -> u16 {
        self.port
    }

    /// Its address as a URL.
    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Kills it the hard way; its data stay.
    pub(super) fn kill(&mut self) {
        self.program.kill();
    }

    /// Stops it where it is: its connections stay and nothing answers.
    pub(super) fn freeze(&self) {
        self.program.signal("STOP");
    }

    /// Lets it go on, after [`Self::freeze`].
    pub(super) fn thaw(&self) {
        self.program.signal("CONT");
    }

    /// Starts it again, after [`Self::kill`], with its data.
    pub(super) async fn restart(&mut self) {
        self.program = spawn(&self.name, self.port, self.folder.path());
        self.ready().await;
    }

    /// Starts it again, after [`Self::kill`], as a new one that holds nothing.
    pub(super) async fn restart_empty(&mut self) {
        self.folder = tempfile::tempdir().expect("a temporary folder can be made");
        self.restart().await;
    }

    /// Becomes a replica of another server, and waits until it has what that one has.
    pub(super) async fn replicate(&self, primary: &Self) {
        self.text(&["REPLICAOF", "127.0.0.1", &primary.port.to_string()]).await;
        until("the replica is in step", async || {
            let offset = async |redis: &Self| {
                let info = redis.text(&["INFO", "replication"]).await.text();
                let field = |name: &str| {
                    Some(info.lines().find_map(|line| line.strip_prefix(name))?.trim().to_owned())
                };
                let is_linked = field("master_link_status:").is_none_or(|status| status == "up");
                is_linked.then(|| field("master_repl_offset:")).flatten()
            };
            let (there, here) = (offset(primary).await, offset(self).await);
            if there.is_some() && there == here {
                Ok(())
            } else {
                Err(format!("{here:?} of {there:?}"))
            }
        })
        .await;
    }

    /// Dies and comes back with its data at the address of another server, which has died.
    pub(super) async fn take_over(&mut self, dead: &Self) {
        self.text(&["REPLICAOF", "NO", "ONE"]).await;
        self.program.kill();
        self.port = dead.port;
        self.restart().await;
    }

    async fn ready(&mut self) {
        let process = format!("process_id:{}\r\n", self.program.id());
        let name = self.name.clone();
        until(&format!("{name} answers"), async || {
            let ended = self.program.ended();
            assert!(ended.is_none(), "redis-server ended: {ended:?}");
            let info = self.try_say(&[b"INFO", b"server"]).await.map_err(|e| e.to_string())?;
            let is_ours = matches!(&info, Reply::Text(text)
                if String::from_utf8_lossy(text).contains(&process));
            if is_ours { Ok(()) } else { Err(format!("{info:?}")) }
        })
        .await;
        until(&format!("{name} has read its data"), async || {
            match self.try_say(&[b"DBSIZE"]).await {
                Ok(Reply::Number(_)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    /// Says one command.
    ///
    /// # Panics
    ///
    /// Panics if the server is away or answers with an error.
    pub(super) async fn say(&self, words: &[&[u8]]) -> Reply {
        match self.try_say(words).await {
            Ok(Reply::Error(error)) => panic!("{} refuses: {error}", self.name),
            Ok(reply) => reply,
            Err(error) => panic!("{}: {error}", self.name),
        }
    }

    /// Says one command of texts.
    pub(super) async fn text(&self, words: &[&str]) -> Reply {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        self.say(&words).await
    }

    /// Says one command to a server that may be away.
    pub(super) async fn try_say(&self, words: &[&[u8]]) -> std::io::Result<Reply> {
        say_to(self.port, words).await
    }

    /// Says several commands in one MULTI, as other writers do.
    pub(super) async fn transaction(&self, commands: &[&[&[u8]]]) {
        let whole = [&[&[b"MULTI" as &[u8]] as &[&[u8]]], commands, &[&[b"EXEC"]]].concat();
        let replies = ask(self.port, &whole).await.unwrap_or_else(|e| panic!("{}: {e}", self.name));
        let done = replies.last().expect("EXEC has a reply");
        assert!(matches!(done, Reply::List(_)), "{replies:?}");
    }
}

fn spawn(name: &str, port: u16, folder: &Path) -> Program {
    let mut command = Command::new("redis-server");
    command
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .args(["--appendonly", "yes", "--appendfsync", "always", "--daemonize", "no", "--dir"])
        .arg(folder);
    Program::start(name, folder, &mut command)
}

/// Says one command to whoever listens on a port.
pub(super) async fn say_to(port: u16, words: &[&[u8]]) -> std::io::Result<Reply> {
    let replies = ask(port, &[words]).await?;
    Ok(replies.into_iter().next().expect("a command has a reply"))
}

/// Says commands on a connection of its own.
async fn ask(port: u16, commands: &[&[&[u8]]]) -> std::io::Result<Vec<Reply>> {
    let exchange = async {
        let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", port)).await?);
        let mut text = Vec::new();
        for words in commands {
            text.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
            for word in *words {
                text.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
                text.extend_from_slice(word);
                text.extend_from_slice(b"\r\n");
            }
        }
        stream.write_all(&text).await?;
        let mut replies = Vec::new();
        for _ in commands {
            replies.push(read(&mut stream).await?);
        }
        Ok(replies)
    };
    timeout(ANSWER, exchange).await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}

async fn read(stream: &mut BufReader<TcpStream>) -> std::io::Result<Reply> {
    let mut line = Vec::new();
    stream.read_until(b'\n', &mut line).await?;
    let line = String::from_utf8_lossy(&line);
    let Some((kind, rest)) = line.trim_end().split_at_checked(1) else {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    };
    let count = || rest.parse::<i64>().expect("the server speaks RESP");
    Ok(match kind {
        "+" => Reply::Text(rest.as_bytes().to_vec()),
        "-" => Reply::Error(rest.to_owned()),
        ":" => Reply::Number(count()),
        "$" | "*" if count() < 0 => Reply::Nil,
        "$" => {
            let length = usize::try_from(count()).expect("was looked at above");
            let mut text = vec![0; length + 2];
            stream.read_exact(&mut text).await?;
            text.truncate(length);
            Reply::Text(text)
        }
        "*" => {
            let mut replies = Vec::new();
            for _ in 0..count() {
                replies.push(Box::pin(read(stream)).await?);
            }
            Reply::List(replies)
        }
        other => panic!("the server said {other:?}"),
    })
}
