//! The road between a client and an engine, and what happens on roads.
//!
//! It knows enough of HTTP to tell polls from probes. It does to an engine what networks, proxies
//! and browsers do: a probe that nobody answers, a poll that breaks and is asked again, a reader
//! that stands still.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream, tcp::OwnedReadHalf},
    sync::watch,
    time::sleep,
};

/// What is wrong with a road.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing, until something is asked for.
    None,
    /// Everything on a websocket takes this long, each way.
    Slow(Duration),
    /// A probing websocket is opened, and nothing passes.
    Silent,
    /// A probing websocket is opened and closed.
    Closed,
    /// A probing websocket is closed when the engine has answered the probe, before the client
    /// has the answer.
    Unanswered,
}

/// How a poll that waits is asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    Never,
    /// The first one was broken off a moment before.
    Aborted,
    /// The first one still waits.
    Overlapping,
}

/// One road; it ends with its test.
#[derive(Debug, Clone)]
pub struct Link {
    addr: SocketAddr,
    road: Arc<Road>,
}

#[derive(Debug)]
struct Road {
    server: SocketAddr,
    trouble: Trouble,
    stands: watch::Sender<bool>,
    again: watch::Sender<(u64, Again)>,
    forgets_cookies: AtomicBool,
    waiting: AtomicUsize,
    polls: AtomicUsize,
}

/// From opening to closing, and from breaking off to asking again: long enough to be noticed.
const PAUSE: Duration = Duration::from_millis(100);

/// What the kernel keeps for a reader that stands still.
const KERNEL: u32 = 16 << 10;

impl Link {
    /// Opens a road to a server.
    pub async fn to(server: SocketAddr, trouble: Trouble) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback is there");
        let addr = listener.local_addr().expect("it is bound");
        let road = Arc::new(Road {
            server,
            trouble,
            stands: watch::Sender::new(false),
            again: watch::Sender::new((0, Again::Never)),
            forgets_cookies: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            polls: AtomicUsize::new(0),
        });
        let all = road.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let road = all.clone();
                tokio::spawn(async move { road.carry(client).await });
            }
        });
        Self { addr, road }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Stops carrying what the engine says, and goes on.
    pub fn stand_still(&self, stands: bool) {
        self.road.stands.send_replace(stands);
    }

    /// Takes every Cookie off from now on: the client has logged out.
    pub fn forget_cookies(&self) {
        self.road.forgets_cookies.store(true, Ordering::SeqCst);
    }

    /// How many polls wait for their answer.
    pub fn waiting(&self) -> usize {
        self.road.waiting.load(Ordering::SeqCst)
    }

    /// How many polls there were.
    pub fn polls(&self) -> usize {
        self.road.polls.load(Ordering::SeqCst)
    }

    /// Breaks the polls off that wait, and asks again a moment later, as a browser does by itself
    /// when a connection breaks that was used before.
    pub fn abort_polls(&self) {
        self.road.again.send_modify(|(count, how)| (*count, *how) = (*count + 1, Again::Aborted));
    }

    /// Asks again while the first poll still waits, as a proxy does that lost sight of it.
    pub fn overlap_polls(&self) {
        let how = Again::Overlapping;
        self.road.again.send_modify(|again| *again = (again.0 + 1, how));
    }
}

/// A request as far as a road reads it.
struct Request {
    bytes: Vec<u8>,
    is_poll: bool,
    is_websocket: bool,
    is_probe: bool,
}

impl Road {
    /// Reads one request, and lets the engine see it as the only one of its connection.
    async fn read(&self, client: &mut TcpStream) -> Option<Request> {
        let mut bytes = Vec::new();
        let end = loop {
            if client.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
            if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let lines: Vec<&str> = head.trim_end().lines().collect();
        let header = |line: &str, name: &str| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        };
        let find = |name| lines.iter().find_map(|line| header(line, name));
        let length = find("content-length").map_or(0, |text| text.parse().expect("a number"));
        while bytes.len() < end + length {
            if client.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
        }
        let is_websocket = find("upgrade").is_some();
        let forgets = self.forgets_cookies.load(Ordering::SeqCst);
        let mut out = String::new();
        for line in &lines {
            let is_connection = header(line, "connection").is_some() && !is_websocket;
            let is_cookie = header(line, "cookie").is_some() && forgets;
            if !is_connection && !is_cookie {
                out.push_str(line);
                out.push_str("\r\n");
            }
        }
        out.push_str(if is_websocket { "\r\n" } else { "Connection: close\r\n\r\n" });
        let mut out = out.into_bytes();
        out.extend_from_slice(&bytes[end..]);
        let has_sid = lines[0].contains("sid=");
        let is_poll = !is_websocket && has_sid && lines[0].starts_with("GET ");
        Some(Request { bytes: out, is_poll, is_websocket, is_probe: is_websocket && has_sid })
    }

    /// Asks the engine.
    async fn ask(&self, request: &Request) -> Option<TcpStream> {
        let tcp = TcpSocket::new_v4().ok()?;
        tcp.set_recv_buffer_size(KERNEL).ok()?;
        let mut server = tcp.connect(self.server).await.ok()?;
        server.write_all(&request.bytes).await.ok()?;
        Some(server)
    }

    async fn carry(&self, mut client: TcpStream) -> Option<()> {
        let request = self.read(&mut client).await?;
        let server = self.ask(&request).await?;
        if request.is_websocket {
            return self.carry_websocket(&request, client, server).await;
        }
        if !request.is_poll {
            return self.answer(client, server).await;
        }
        self.polls.fetch_add(1, Ordering::SeqCst);
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let answered = self.carry_poll(&request, &mut client, server).await;
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        let (begin, server) = answered?;
        client.write_all(&begin).await.ok()?;
        self.answer(client, server).await
    }

    /// Waits for an answer to begin, and asks again meanwhile where that is wanted.
    async fn carry_poll(
        &self,
        request: &Request,
        client: &mut TcpStream,
        mut server: TcpStream,
    ) -> Option<(Vec<u8>, TcpStream)> {
        let mut again = self.again.subscribe();
        let mut begin = Vec::new();
        loop {
            let mut nothing = [0; 1];
            tokio::select! {
                read = server.read_buf(&mut begin) => {
                    return (read.ok()? > 0).then_some((begin, server));
                }
                // The client never says two things over one connection: it is gone.
                _ = client.read(&mut nothing) => return None,
                changed = again.changed() => {
                    changed.ok()?;
                    let how = again.borrow_and_update().1;
                    if how == Again::Aborted {
                        drop(server);
                        sleep(PAUSE).await;
                        server = self.ask(request).await?;
                    } else {
                        let mut older = std::mem::replace(&mut server, self.ask(request).await?);
                        tokio::spawn(async move {
                            let mut unheard = Vec::new();
                            let _ = older.read_to_end(&mut unheard).await;
                        });
                    }
                }
            }
        }
    }

    /// Carries an answer to its end.
    async fn answer(&self, mut client: TcpStream, server: TcpStream) -> Option<()> {
        let (mut from, _to) = server.into_split();
        loop {
            let chunk = self.hear(&mut from).await?;
            client.write_all(&chunk).await.ok()?;
        }
    }

    /// Reads what the engine says next, unless the road stands still.
    async fn hear(&self, from: &mut OwnedReadHalf) -> Option<Vec<u8>> {
        let mut stands = self.stands.subscribe();
        stands.wait_for(|stands| !stands).await.ok()?;
        let mut chunk = Vec::with_capacity(usize::try_from(KERNEL).ok()?);
        let count = from.read_buf(&mut chunk).await.ok()?;
        (count > 0).then_some(chunk)
    }

    async fn carry_websocket(
        &self,
        request: &Request,
        client: TcpStream,
        server: TcpStream,
    ) -> Option<()> {
        let (mut asks, mut answers) = client.into_split();
        let (mut from, mut to) = server.into_split();
        let trouble = if request.is_probe { self.trouble } else { Trouble::None };
        let opened = self.hear(&mut from).await?;
        answers.write_all(&opened).await.ok()?;
        match trouble {
            Trouble::Closed => {
                // Long enough for the engine to have begun with it.
                sleep(PAUSE).await;
                return None;
            }
            Trouble::Silent => {
                let mut unheard = Vec::new();
                asks.read_to_end(&mut unheard).await.ok()?;
                return None;
            }
            _ => {}
        }
        let pace = match trouble {
            Trouble::Slow(pace) => pace,
            _ => Duration::ZERO,
        };
        let up = async {
            loop {
                let mut chunk = Vec::new();
                if asks.read_buf(&mut chunk).await.ok()? == 0 {
                    return None::<()>;
                }
                sleep(pace).await;
                to.write_all(&chunk).await.ok()?;
            }
        };
        let down = async {
            loop {
                let chunk = self.hear(&mut from).await?;
                if trouble == Trouble::Unanswered {
                    return None::<()>;
                }
                sleep(pace).await;
                answers.write_all(&chunk).await.ok()?;
            }
        };
        tokio::select! { _ = up => None, _ = down => None }
    }
}
