//! A TCP stream whose peer cannot hold it by not reading, and which can be cut from elsewhere.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::{Sleep, sleep},
};
use tracing::warn;

/// Accepts connections as [`Stream`]s.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    stall: Duration,
}

impl Listener {
    /// Takes a bound listener; its connections may stand still for `stall` while bytes wait.
    #[must_use]
    pub const fn new(tcp: TcpListener, stall: Duration) -> Self {
        Self { tcp, stall }
    }
}

/// How long accepting rests after an error that belongs to the process (no more descriptors).
const ACCEPT_REST: Duration = Duration::from_millis(100);

impl axum::serve::Listener for Listener {
    type Io = Stream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Stream, SocketAddr) {
        loop {
            match self.tcp.accept().await {
                Ok((tcp, addr)) => {
                    // An event is one small write; waiting for more would only delay it.
                    let _ = tcp.set_nodelay(true);
                    keep_unsent_small(&tcp);
                    return (Stream::new(tcp, self.stall), addr);
                }
                Err(error) if belongs_to_peer(&error) => {}
                Err(error) => {
                    warn!(%error, "Connection could not be accepted; will go on.");
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// How much the kernel takes of what it cannot send yet.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT: u32 = 16 << 10;

/// Has the kernel refuse what it cannot send soon.
///
/// It would take megabytes for a slow peer, and then tell of room only when a third of them is
/// gone: what counts as written would not have gone out, a peer that reads would seem to stand
/// still, and heartbeats would wait for longer than they may take.
fn keep_unsent_small(tcp: &TcpStream) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    // A kernel that does not know this only holds more.
    let _ = socket2::SockRef::from(tcp).set_tcp_notsent_lowat(UNSENT);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = tcp;
}

fn belongs_to_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

/// The other end of a connection, as requests carry it.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address.
    pub addr: SocketAddr,
    /// What cuts its connection.
    pub switch: Switch,
}

/// Cuts one TCP connection, and tells whether it stood still.
#[derive(Debug, Clone, Default)]
pub struct Switch(Arc<State>);

#[derive(Debug, Default)]
struct State {
    is: AtomicU8,
    /// How much was written; held for a write, so that who looks knows of all that went out.
    written: Mutex<u64>,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

const OPEN: u8 = 0;
const CUT: u8 = 1;
const STALLED: u8 = 2;
const GONE: u8 = 3;

impl Switch {
    /// Ends the connection: whoever reads or writes gets an error at once.
    pub fn cut(&self) {
        self.turn(CUT);
    }

    /// Tells whether the connection ended because nothing could be written for too long.
    #[must_use]
    pub fn has_stalled(&self) -> bool {
        self.0.is.load(Ordering::Acquire) == STALLED
    }

    /// Returns how many bytes were written to the connection so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        *self.0.written()
    }

    /// Ends the connection unless so many bytes were written to it; tells whether it did, and
    /// then they never will be.
    #[must_use]
    pub fn cut_short(&self, of: u64) -> bool {
        let written = self.0.written();
        let is_short = *written < of;
        if is_short {
            self.turn(CUT);
        }
        is_short
    }

    fn turn(&self, to: u8) {
        let _ = self.0.is.compare_exchange(OPEN, to, Ordering::AcqRel, Ordering::Acquire);
        self.0.reader.wake();
        self.0.writer.wake();
    }

    fn error(&self) -> Option<io::Error> {
        match self.0.is.load(Ordering::Acquire) {
            OPEN => None,
            STALLED => Some(io::Error::new(io::ErrorKind::TimedOut, "peer does not read")),
            _ => Some(io::Error::new(io::ErrorKind::ConnectionAborted, "connection was cut")),
        }
    }
}

impl State {
    fn written(&self) -> MutexGuard<'_, u64> {
        self.written.lock().expect("no holder of this lock panics")
    }
}

/// A TCP stream that ends when a write makes no progress for too long.
#[derive(Debug)]
pub struct Stream {
    tcp: TcpStream,
    stall: Duration,
    /// Runs while a write waits.
    deadline: Option<Pin<Box<Sleep>>>,
    switch: Gone,
}

/// A connection's switch; dropped with it.
#[derive(Debug)]
struct Gone(Switch);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.turn(GONE);
    }
}

impl Stream {
    fn new(tcp: TcpStream, stall: Duration) -> Self {
        Self { tcp, stall, deadline: None, switch: Gone(Switch::default()) }
    }

    /// Gives the connection up to who looks after it alone.
    #[must_use]
    pub fn into_tcp(self) -> TcpStream {
        self.tcp
    }

    /// Tells who is at its other end, for requests to carry.
    #[must_use]
    pub fn peer(&self, addr: SocketAddr) -> Peer {
        Peer { addr, switch: self.switch.0.clone() }
    }

    fn write(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        self.switch.0.0.writer.register(cx.waker());
        let mut so_far = self.switch.0.0.written();
        if let Some(error) = self.switch.0.error() {
            return Poll::Ready(Err(error));
        }
        if let Poll::Ready(written) = write(Pin::new(&mut self.tcp), cx) {
            self.deadline = None;
            *so_far += *written.as_ref().unwrap_or(&0) as u64;
            return Poll::Ready(written);
        }
        drop(so_far);
        let stall = self.stall;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(stall)));
        if deadline.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        // The reader must hear of it too: engines notice the end of a connection there.
        self.switch.0.turn(STALLED);
        Poll::Ready(Err(self.switch.0.error().expect("the switch was just turned")))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.switch.0.0.reader.register(cx.waker());
        match self.switch.0.error() {
            Some(error) => Poll::Ready(Err(error)),
            None => Pin::new(&mut self.tcp).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().write(cx, |tcp, cx| tcp.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().write(cx, |tcp, cx| tcp.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn pair(stall: Duration) -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let client = TcpStream::connect(addr).await.unwrap();
        let mut listener = Listener::new(listener, stall);
        let (stream, _) = axum::serve::Listener::accept(&mut listener).await;
        (stream, client)
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_loses_its_connection_for_reader_and_writer() {
        let (stream, _client) = pair(Duration::from_millis(200)).await;
        let switch = stream.switch.0.clone();
        let (mut reader, mut writer) = tokio::io::split(stream);
        let reader = tokio::spawn(async move { reader.read(&mut [0; 8]).await });
        let bytes = vec![0; 64 << 20];
        assert_eq!(writer.write_all(&bytes).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(reader.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(switch.has_stalled());
    }

    #[tokio::test]
    async fn a_slow_peer_that_reads_keeps_its_connection() {
        let (mut stream, mut client) = pair(Duration::from_millis(300)).await;
        let bytes = vec![7; 24 << 20];
        let total = bytes.len();
        let writer = tokio::spawn(async move { stream.write_all(&bytes).await.map(|()| stream) });
        let (mut read, mut buffer) = (0, vec![0; 1 << 20]);
        while read < total {
            read += client.read(&mut buffer).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(!writer.await.unwrap().unwrap().switch.0.has_stalled());
    }

    #[tokio::test]
    async fn a_cut_wakes_whoever_waits() {
        let (mut stream, mut client) = pair(Duration::from_secs(60)).await;
        let switch = stream.switch.0.clone();
        let reader = tokio::spawn(async move { stream.read(&mut [0; 8]).await });
        tokio::task::yield_now().await;
        switch.cut();
        assert!(reader.await.unwrap().is_err());
        assert!(!switch.has_stalled());
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
    }
}
