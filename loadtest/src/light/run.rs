//! The life of one light client.

use std::{
    cell::RefCell,
    future::Future,
    io,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot},
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    Command, Listener, Lost, Options,
    conversation::{Call, Conversation},
    dial,
    frames::{self, Message, Reader},
};

/// What is read at once; each thread has one such buffer for all its clients.
const READ: usize = 64 << 10;
/// How often a client reads before it lets others.
const READS: usize = 16;
/// How long a close may take to be written.
const FAREWELL: Duration = Duration::from_secs(1);

/// How long behind its time-out a silence is looked at.
const SLACK: Duration = Duration::from_millis(10);

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into());
}

/// Why a client does not go on.
enum Ended {
    /// The connection is gone; it comes back after this, or by itself where it is `None`.
    Lost(Lost, Option<Duration>),
    /// It is to leave.
    Left,
}

impl From<Lost> for Ended {
    fn from(lost: Lost) -> Self {
        Self::Lost(lost, None)
    }
}

/// Runs a client until it is told to leave or nobody has its handle.
pub(super) async fn run<L: Listener>(
    options: Options,
    commands: mpsc::Receiver<Command>,
    listener: Arc<Mutex<L>>,
    is_in: Arc<AtomicBool>,
) {
    let rng = SmallRng::seed_from_u64(options.seed);
    let (at, cookie) = (options.first, options.cookie.clone());
    let (reads, returns) = (true, false);
    let mut client = Life { options, commands, listener, is_in, rng, at, cookie, reads, returns };
    let mut failures = 0;
    loop {
        let ended = client.connection(&mut failures).await;
        client.is_in.store(false, Ordering::Relaxed);
        let Ended::Lost(why, away) = ended else { return };
        client.tell(|listener| listener.lost(&why));
        let away = match (away, why) {
            (Some(away), _) => away,
            // A refusal that was under way when it was told to come back is not the last word.
            (None, Lost::Refused(_) | Lost::Disconnected) if !client.returns => Duration::MAX,
            (None, _) => client.pause(failures),
        };
        failures += 1;
        if client.options.roams {
            client.at = client.rng.random_range(0..client.options.targets.len());
        }
        if client.offline(sleep(away)).await.is_err() {
            return;
        }
    }
}

struct Life<L> {
    options: Options,
    commands: mpsc::Receiver<Command>,
    listener: Arc<Mutex<L>>,
    is_in: Arc<AtomicBool>,
    rng: SmallRng,
    at: usize,
    cookie: String,
    reads: bool,
    /// It was told to come back while it was just trying to.
    returns: bool,
}

struct Gone;

impl<L: Listener> Life<L> {
    /// Connects, and lives until the connection is gone.
    async fn connection(&mut self, failures: &mut u32) -> Ended {
        let resume = if self.options.resumes { "&resume=1" } else { "" };
        let revision = self.options.protocol.revision();
        let path = format!("/socket.io/?EIO={revision}&transport=websocket{resume}");
        let target = self.options.targets[self.at % self.options.targets.len()];
        let (source, receive_buffer) = (self.options.source, self.options.receive_buffer);
        let cookie = self.cookie.clone();
        let limit = self.options.timeout;
        let dialled = self
            .offline(async {
                let call =
                    dial::Call { target, source, receive_buffer, path: &path, cookie: &cookie };
                timeout(limit, dial::dial(&call)).await.unwrap_or(Err(Lost::Deaf))
            })
            .await;
        let (stream, said) = match dialled {
            Ok(Some(Ok(dialled))) => dialled,
            Ok(Some(Err(lost))) => return lost.into(),
            Ok(None) => return Ended::Lost(Lost::Cut, Some(Duration::ZERO)),
            Err(Gone) => return Ended::Left,
        };
        let mut line = Line {
            stream,
            reader: Reader::default(),
            out: Vec::new(),
            conversation: Conversation::new(self.options.protocol, self.options.resumes),
            heard: Instant::now(),
        };
        let ended = match self.hear(&mut line, &said) {
            Ok(()) => self.live(&mut line, failures).await,
            Err(lost) => lost.into(),
        };
        match ended {
            Ended::Left => {
                frames::write_close(&mut line.out, self.rng.random());
                let _ = timeout(FAREWELL, line.write_all()).await;
            }
            Ended::Lost(Lost::Cut, _) => {
                let _ = line.stream.set_zero_linger();
            }
            Ended::Lost(..) => {}
        }
        ended
    }

    async fn live(&mut self, line: &mut Line, failures: &mut u32) -> Ended {
        let mut alarm = pin!(sleep_until(Instant::now() + self.options.timeout));
        let mut is_in = false;
        loop {
            if !is_in && line.conversation.is_in() {
                is_in = true;
                self.returns = false;
                *failures = 0;
                self.is_in.store(true, Ordering::Relaxed);
                alarm.as_mut().reset(line.next_alarm());
            }
            let outcome = tokio::select! {
                command = self.commands.recv() => match self.command(command, line) {
                    Some(ended) => return ended,
                    None => Ok(()),
                },
                ready = line.stream.readable(), if self.reads => match ready {
                    Ok(()) => self.read(line),
                    Err(error) => Err(error.into()),
                },
                ready = line.stream.writable(), if !line.out.is_empty() => match ready {
                    Ok(()) => line.write(),
                    Err(error) => Err(error.into()),
                },
                () = &mut alarm => {
                    let outcome = self.alarm(line, is_in);
                    alarm.as_mut().reset(line.next_alarm());
                    outcome
                }
            };
            if let Err(lost) = outcome {
                return lost.into();
            }
        }
    }

    fn command(&mut self, command: Option<Command>, line: &mut Line) -> Option<Ended> {
        match command {
            None => return Some(Ended::Lost(Lost::Cut, None)),
            Some(Command::Leave) => return Some(Ended::Left),
            Some(Command::Cut { away }) => return Some(Ended::Lost(Lost::Cut, Some(away))),
            Some(Command::Read(reads)) => {
                self.reads = reads;
                line.heard = Instant::now();
            }
            Some(Command::Cookie(cookie)) => self.cookie = cookie,
            Some(Command::Return) => self.returns = !line.conversation.is_in(),
            Some(Command::Call { event, argument, reply }) if line.conversation.is_in() => {
                let call = Call { event, argument, reply: Some(reply) };
                let (out, rng) = (&mut line.out, &mut self.rng);
                line.conversation.call(call, &mut |text| {
                    frames::write_text(out, text, rng.random());
                });
            }
            // Who called learns by the dropped reply.
            Some(Command::Call { .. }) => {}
        }
        None
    }

    fn alarm(&mut self, line: &mut Line, is_in: bool) -> Result<(), Lost> {
        let Some((patience, pings)) = line.conversation.rhythm().filter(|_| is_in) else {
            return Err(Lost::Deaf);
        };
        if !self.reads {
            line.heard = Instant::now();
            return Ok(());
        }
        if line.heard.elapsed() > patience {
            return Err(Lost::Deaf);
        }
        if pings.is_some() {
            frames::write_text(&mut line.out, "2", self.rng.random());
        }
        Ok(())
    }

    fn read(&mut self, line: &mut Line) -> Result<(), Lost> {
        BUFFER.with_borrow_mut(|buffer| {
            for _ in 0..READS {
                match line.stream.try_read(buffer) {
                    Ok(0) => return Err(Lost::Closed),
                    Ok(count) => {
                        self.hear(line, &buffer[..count])?;
                        if count < buffer.len() {
                            break;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(())
        })
    }

    fn hear(&mut self, line: &mut Line, bytes: &[u8]) -> Result<(), Lost> {
        line.heard = Instant::now();
        let Line { reader, out, conversation, .. } = line;
        let rng = &mut self.rng;
        let mut listener = self.listener.lock().expect("no holder of this lock panics");
        reader.take(bytes, |message| {
            match message {
                Message::Text(text) => {
                    let mut say = |text: &str| frames::write_text(out, text, rng.random());
                    let answered = conversation.hear(text, &mut *listener, &mut say)?;
                    if let Some((Call { reply: Some(reply), .. }, answer)) = answered {
                        // Who asked may have given up.
                        let _ = reply.send(answer.to_owned());
                    }
                }
                Message::Ping(payload) => frames::write_pong(out, payload, rng.random()),
                Message::Close => return Err(Lost::Closed),
                Message::Other => {}
            }
            Ok(())
        })
    }

    /// Waits without a connection, and obeys meanwhile; returns `None` when told to come back.
    async fn offline<F: Future>(&mut self, wait: F) -> Result<Option<F::Output>, Gone> {
        let mut wait = pin!(wait);
        loop {
            tokio::select! {
                output = &mut wait => return Ok(Some(output)),
                command = self.commands.recv() => match command {
                    None | Some(Command::Leave) => return Err(Gone),
                    Some(Command::Read(reads)) => self.reads = reads,
                    Some(Command::Cookie(cookie)) => self.cookie = cookie,
                    Some(Command::Return) => return Ok(None),
                    Some(Command::Cut { .. } | Command::Call { .. }) => {}
                }
            }
        }
    }

    fn pause(&mut self, failures: u32) -> Duration {
        let Options { pause, max_pause, .. } = self.options;
        let pause = pause.saturating_mul(1 << failures.min(16)).min(max_pause);
        pause.mul_f64(self.rng.random_range(0.5..1.5))
    }

    fn tell(&self, tell: impl FnOnce(&mut L)) {
        tell(&mut self.listener.lock().expect("no holder of this lock panics"));
    }
}

/// One connection.
struct Line {
    stream: TcpStream,
    reader: Reader,
    /// What is not written yet.
    out: Vec<u8>,
    conversation: Conversation<oneshot::Sender<String>>,
    heard: Instant,
}

impl Line {
    fn next_alarm(&self) -> Instant {
        match self.conversation.rhythm() {
            Some((_, Some(interval))) => Instant::now() + interval,
            Some((patience, None)) => self.heard + patience + SLACK,
            None => Instant::now(),
        }
    }

    /// Writes what goes at once, and gives the buffer back when all is written.
    fn write(&mut self) -> Result<(), Lost> {
        match self.stream.try_write(&self.out) {
            Ok(count) if count == self.out.len() => self.out = Vec::new(),
            Ok(count) => drop(self.out.drain(..count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    async fn write_all(&mut self) -> Result<(), Lost> {
        while !self.out.is_empty() {
            self.stream.writable().await?;
            self.write()?;
        }
        Ok(())
    }
}
