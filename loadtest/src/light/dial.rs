//! From an address to an open websocket.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use super::Lost;

/// The answer to a request to upgrade is shorter.
const MAX_HEAD: usize = 8 << 10;
/// Any key will do, so it is the one of RFC 6455, whose answer stands there too.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// What is dialled.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) target: SocketAddr,
    pub(super) source: Option<IpAddr>,
    pub(super) receive_buffer: Option<u32>,
    pub(super) path: &'a str,
    pub(super) cookie: &'a str,
}

/// Opens a websocket; returns it with what the server said right behind its answer.
pub(super) async fn dial(call: &Call<'_>) -> Result<(TcpStream, Vec<u8>), Lost> {
    let mut stream = connect(call).await.map_err(|error| Lost::Unreachable(error.kind()))?;
    let cookie = match call.cookie {
        "" => String::new(),
        cookie => format!("Cookie: {cookie}\r\n"),
    };
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{cookie}\r\n",
        call.path, call.target
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(1024);
    loop {
        if let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
            let behind = answer.split_off(end + 4);
            check(&String::from_utf8_lossy(&answer))?;
            return Ok((stream, behind));
        }
        if answer.len() > MAX_HEAD {
            return Err(Lost::Protocol("an endless answer".to_owned()));
        }
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(Lost::Closed);
        }
    }
}

async fn connect(call: &Call<'_>) -> io::Result<TcpStream> {
    let socket = match call.target {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Some(bytes) = call.receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let Some(source) = call.source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let stream = socket.connect(call.target).await?;
    // Without it, small frames wait for the acknowledgement of the one before.
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn check(head: &str) -> Result<(), Lost> {
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3));
    match status.and_then(|status| status.parse().ok()) {
        Some(101) => {}
        Some(status) => return Err(Lost::Http(status)),
        None => return Err(Lost::Protocol(head.chars().take(60).collect())),
    }
    let accepts = |line: &str| {
        line.split_once(':').is_some_and(|(name, value)| {
            name.eq_ignore_ascii_case("sec-websocket-accept") && value.trim() == ACCEPT
        })
    };
    if lines.any(accepts) {
        return Ok(());
    }
    Err(Lost::Protocol("an upgrade without the right Sec-WebSocket-Accept".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_judged() {
        let right = format!("HTTP/1.1 101 Switching\r\nsec-websocket-accept: {ACCEPT}\r\n\r\n");
        assert_eq!(check(&right), Ok(()));
        assert_eq!(check("HTTP/1.1 503 Full\r\n\r\n"), Err(Lost::Http(503)));
        for wrong in ["HTTP/1.1 101 Switching\r\n\r\n", "SSH-2.0\r\n\r\n", "HTTP/1.1 é\r\n\r\n"] {
            assert!(matches!(check(wrong), Err(Lost::Protocol(_))), "{wrong}");
        }
    }
}
