//! Light clients against a server in this process whose websockets are a library's.

use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::{SinkExt, StreamExt};
use loadtest::{
    light::{Client, Listener, Lost, Options, source},
    wire::Protocol,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
        protocol::frame::{
            Frame,
            coding::{Data, OpCode},
        },
    },
};

const PATIENCE: Duration = Duration::from_secs(10);

/// The server's end of one connection.
struct Served {
    socket: WebSocketStream<TcpStream>,
    request: String,
}

struct Server {
    listener: TcpListener,
}

impl Server {
    async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    /// A client that has to do with this server alone.
    fn client(&self, protocol: Protocol) -> (Options, Tap, mpsc::UnboundedReceiver<String>) {
        let target = self.listener.local_addr().unwrap();
        let mut options = Options::new(Arc::new([target]), protocol, "a=b".to_owned());
        options.source = Some(source(0));
        options.pause = Duration::from_millis(10);
        let (sender, notes) = mpsc::unbounded_channel();
        (options, Tap(sender), notes)
    }

    async fn accept(&self) -> Served {
        let (stream, peer) = timeout(PATIENCE, self.listener.accept()).await.unwrap().unwrap();
        assert_eq!(peer.ip(), source(0));
        let mut request = String::new();
        #[expect(clippy::result_large_err, reason = "the library's signature")]
        let look = |asked: &Request, response: Response| -> Result<Response, ErrorResponse> {
            let cookie = asked.headers()["cookie"].to_str().unwrap();
            request = format!("{} {cookie}", asked.uri());
            Ok(response)
        };
        let socket = accept_hdr_async(stream, look).await.unwrap();
        let mut served = Served { socket, request };
        served.say(r#"0{"sid":"x","upgrades":[],"pingInterval":100,"pingTimeout":5000}"#).await;
        served
    }

    /// Accepts a client of 3.x or 4.x and lets it in.
    async fn let_in(&self) -> Served {
        let mut served = self.accept().await;
        served.hears("40").await;
        served.say(r#"40{"sid":"y"}"#).await;
        served
    }
}

impl Served {
    async fn say(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    async fn next(&mut self) -> Option<Message> {
        timeout(PATIENCE, self.socket.next()).await.unwrap().and_then(Result::ok)
    }

    async fn hears(&mut self, expected: &str) {
        assert_eq!(self.next().await.unwrap().to_text().unwrap(), expected);
    }
}

/// A listener that passes all on.
struct Tap(mpsc::UnboundedSender<String>);

impl Listener for Tap {
    fn resume(&mut self) -> String {
        "{}".to_owned()
    }

    fn event(&mut self, name: &str, argument: &str) {
        let _ = match argument.len() {
            0..100 => self.0.send(format!("{name} {argument}")),
            length => self.0.send(format!("{name} of {length}")),
        };
    }

    fn answer(&mut self, event: &str, _: &str, answer: &str) {
        let _ = self.0.send(format!("{event} = {answer}"));
    }

    fn lost(&mut self, why: &Lost) {
        let _ = self.0.send(why.to_string());
    }
}

async fn note(notes: &mut mpsc::UnboundedReceiver<String>) -> String {
    timeout(PATIENCE, notes.recv()).await.unwrap().unwrap()
}

#[tokio::test]
async fn both_generations_are_let_in_and_keep_the_connection_alive() {
    let server = Server::start().await;
    let (options, tap, mut notes) = server.client(Protocol::Eio4);
    let eio4 = Client::spawn(options, tap);
    let mut served = server.let_in().await;
    assert_eq!(served.request, "/socket.io/?EIO=4&transport=websocket a=b");
    served.say("2").await;
    served.hears("3").await;
    served.socket.send(Message::Ping("here?".into())).await.unwrap();
    assert_eq!(served.next().await, Some(Message::Pong("here?".into())));
    served.say(r#"42["tick",{"a":1}]"#).await;
    assert_eq!(note(&mut notes).await, r#"tick {"a":1}"#);
    assert!(eio4.is_in());
    eio4.leave().await;
    assert!(matches!(served.next().await, Some(Message::Close(_))));

    let (options, tap, mut notes) = server.client(Protocol::Eio3);
    let eio3 = Client::spawn(options, tap);
    let mut served = server.accept().await;
    assert_eq!(served.request, "/socket.io/?EIO=3&transport=websocket a=b");
    served.say("40").await;
    served.hears("2").await;
    served.say("3").await;
    served.hears("2").await;
    served.say(r#"42["tick",{"a":1}]"#).await;
    assert_eq!(note(&mut notes).await, r#"tick {"a":1}"#);
    drop(eio3);
    assert_eq!(served.next().await, None, "a dropped client is gone");
}

#[tokio::test]
async fn a_cut_client_comes_back_and_says_what_it_holds() {
    let server = Server::start().await;
    let (mut options, tap, mut notes) = server.client(Protocol::Eio4);
    options.resumes = true;
    let client = Client::spawn(options, tap);
    for _ in 0..3 {
        let mut served = server.let_in().await;
        assert!(served.request.contains("&resume=1 "));
        served.hears(r#"420["resume",{}]"#).await;
        served.say(r#"42["reset",{}]"#).await;
        served.say(r#"430[{"code":200}]"#).await;
        assert_eq!(note(&mut notes).await, "reset {}");
        assert_eq!(note(&mut notes).await, r#"resume = {"code":200}"#);

        let call = client.call("subscribe", r#"{"feed":"x"}"#);
        let answer = async {
            served.hears(r#"421["subscribe",{"feed":"x"}]"#).await;
            served.say(r#"431[{"code":403}]"#).await;
        };
        assert_eq!(tokio::join!(call, answer).0.unwrap(), r#"{"code":403}"#);
        assert_eq!(note(&mut notes).await, r#"subscribe = {"code":403}"#);

        client.cut(Duration::ZERO).await;
        assert_eq!(note(&mut notes).await, "cut");
        assert_eq!(served.next().await, None);
    }
}

#[tokio::test]
async fn long_and_broken_up_messages_arrive() {
    let server = Server::start().await;
    let (options, tap, mut notes) = server.client(Protocol::Eio4);
    let _client = Client::spawn(options, tap);
    let mut served = server.let_in().await;
    let long = "x".repeat(3 << 20);
    served.say(&format!(r#"42["initial","{long}"]"#)).await;
    assert_eq!(note(&mut notes).await, format!("initial of {}", long.len() + 2));
    for (kind, text, is_last) in [
        (Data::Text, r#"42["tick""#, false),
        (Data::Continue, ",", false),
        (Data::Continue, "7]", true),
    ] {
        let frame = Frame::message(text.as_bytes().to_vec(), OpCode::Data(kind), is_last);
        served.socket.send(Message::Frame(frame)).await.unwrap();
    }
    served.socket.send(Message::binary(vec![4, 1])).await.unwrap();
    assert_eq!(note(&mut notes).await, "tick 7");
}

#[tokio::test]
async fn a_client_that_does_not_read_lets_the_server_wait() {
    let server = Server::start().await;
    let (mut options, tap, mut notes) = server.client(Protocol::Eio4);
    options.receive_buffer = Some(4096);
    let client = Client::spawn(options, tap);
    let mut served = server.let_in().await;
    served.say(r#"42["tick",1]"#).await;
    assert_eq!(note(&mut notes).await, "tick 1");
    client.stop_reading().await;
    // Larger than what the system holds for both ends.
    let long = format!(r#"42["long","{}"]"#, "x".repeat(16 << 20));
    let mut sending = pin!(served.socket.send(Message::text(long)));
    assert!(timeout(Duration::from_millis(300), &mut sending).await.is_err());
    assert!(notes.try_recv().is_err());
    client.go_on_reading().await;
    timeout(PATIENCE, sending).await.unwrap().unwrap();
    assert_eq!(note(&mut notes).await, format!("long of {}", (16 << 20) + 2));
}

#[tokio::test]
async fn who_is_refused_stays_away_until_told_to_come_back() {
    let server = Server::start().await;
    let (options, tap, mut notes) = server.client(Protocol::Eio4);
    let client = Client::spawn(options, tap);
    let mut served = server.accept().await;
    served.hears("40").await;
    served.say(r#"44{"message":"unauthorized"}"#).await;
    assert_eq!(note(&mut notes).await, "refused: unauthorized");
    assert!(client.call("none", "{}").await.is_err());

    client.set_cookie("c=d".to_owned()).await;
    client.come_back().await;
    let served = server.let_in().await;
    assert!(served.request.ends_with(" c=d"));
    drop(served);
    assert!(note(&mut notes).await.contains("closed by the server"));
    server.let_in().await;
    assert!(note(&mut notes).await.contains("closed by the server"));
}
