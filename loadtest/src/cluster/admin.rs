//! The admin listener of a gateway, asked over connections that are used again.

use std::{io, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::{net::TcpStream, sync::Mutex, time::timeout};

use super::{ClusterError, TOKEN};

/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(5);
/// Connections that are kept; more are closed after their request.
const KEPT: usize = 8;

/// One admin listener.
#[derive(Debug)]
pub struct Admin {
    port: u16,
    /// Held to take or give back a connection, never while a request runs.
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

/// What it answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: String,
}

impl Admin {
    /// Names the listener on a port of 127.0.0.1.
    #[must_use]
    pub fn new(port: u16) -> Self {
        Self { port, idle: Mutex::default() }
    }

    /// Carries out one request; a connection that broke since its last use is not told.
    ///
    /// # Errors
    ///
    /// Returns [`ClusterError::Admin`] when nobody answers in time.
    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        body: Option<String>,
    ) -> Result<Answer, ClusterError> {
        let asked = timeout(REQUEST, self.exchange(method, path, body.unwrap_or_default())).await;
        let asked = asked.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        asked.map_err(ClusterError::Admin)
    }

    async fn exchange(&self, method: &str, path: &str, body: String) -> Result<Answer, String> {
        let mut sender = match self.take().await {
            Some(sender) => sender,
            None => self.connect().await.map_err(|error| error.to_string())?,
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", format!("127.0.0.1:{}", self.port))
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {TOKEN}"))
            .body(Full::from(body))
            .map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(|error| error.to_string())?;
        let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        let mut idle = self.idle.lock().await;
        if idle.len() < KEPT {
            idle.push(sender);
        }
        Ok(Answer { status, body })
    }

    async fn take(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.lock().await;
        loop {
            let sender = idle.pop()?;
            if sender.is_ready() {
                return Some(sender);
            }
        }
    }

    async fn connect(&self) -> io::Result<SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        stream.set_nodelay(true)?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(io::Error::other)?;
        // Ends by itself when the sender is dropped.
        tokio::spawn(connection);
        Ok(sender)
    }
}

/// Writes a text as one part of a path.
#[must_use]
pub fn escape(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}
