//! Whole runs against a server in this process that loses, repeats and swaps on purpose.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use clap::Parser;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use loadtest::{
    flags::{Flags, Plan},
    progress::Progress,
    receipts::Account,
    runner::{self, Failure},
    stamp::Stamp,
    summary::Report,
};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::broadcast,
};
use tokio_tungstenite::{
    accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request as Upgrade, Response as Upgraded},
    },
};
use tokio_util::sync::CancellationToken;

const FEED: &str = "team.red.members";

/// What a server does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// Each client misses the second, hears the fourth twice, and the sixth behind the seventh.
    Careless,
    /// Nobody is let in.
    Refuses,
    /// Everybody is put out at the third.
    PutsOut,
}

struct FakeServer {
    clients: SocketAddr,
    admin: SocketAddr,
}

impl FakeServer {
    async fn start(fault: Fault) -> Self {
        let (events, _) = broadcast::channel::<String>(1000);
        let clients = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server =
            Self { clients: clients.local_addr().unwrap(), admin: admin.local_addr().unwrap() };
        let sender = events.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = clients.accept().await {
                tokio::spawn(serve_client(stream, sender.subscribe(), fault));
            }
        });
        let held_back = Arc::new(Mutex::new(None));
        tokio::spawn(async move {
            while let Ok((stream, _)) = admin.accept().await {
                let (events, held_back) = (events.clone(), held_back.clone());
                let service = service_fn(move |request| {
                    publish(request, events.clone(), held_back.clone(), fault)
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        server
    }

    fn plan(&self, more: &[&str]) -> Plan {
        let (url, admin) = (format!("http://{}", self.clients), format!("http://{}", self.admin));
        let args = ["loadtest", "--url", &url, "--admin-url", &admin, "--ramp", "1000"];
        let flags = Flags::try_parse_from(args.into_iter().chain(more.iter().copied())).unwrap();
        Plan::try_from(flags).unwrap()
    }

    async fn run(&self, more: &[&str]) -> Report {
        run(self.plan(more), CancellationToken::new()).await.unwrap()
    }
}

async fn run(plan: Plan, stop: CancellationToken) -> Result<Report, Failure> {
    runner::run(plan, stop, Progress::hidden()).await
}

/// Speaks the least of either protocol, and closes whoever does not keep it.
async fn serve_client(stream: TcpStream, mut events: broadcast::Receiver<String>, fault: Fault) {
    let mut query = String::new();
    #[expect(clippy::result_large_err, reason = "the library's signature")]
    let look = |request: &Upgrade, response: Upgraded| -> Result<Upgraded, ErrorResponse> {
        query = request.uri().query().unwrap_or("").to_owned();
        Ok(response)
    };
    let Ok(mut socket) = accept_hdr_async(stream, look).await else { return };
    let is_eio4 = query.contains("EIO=4");
    let open = json!({"sid": "x", "upgrades": [], "pingInterval": 40, "pingTimeout": 200});
    socket.send(Message::text(format!("0{open}"))).await.unwrap();
    if is_eio4 {
        let asked = socket.next().await.unwrap().unwrap();
        assert_eq!(asked.to_text().unwrap(), "40");
    }
    if fault == Fault::Refuses {
        let refusal =
            if is_eio4 { r#"44{"message":"unauthorized"}"# } else { r#"44"unauthorized""# };
        let _ = socket.send(Message::text(refusal)).await;
        return;
    }
    let connected = if is_eio4 { r#"40{"sid":"y"}"# } else { "40" };
    socket.send(Message::text(connected)).await.unwrap();
    let user = query.split_once("demo_user=").map_or("nobody", |(_, user)| user);
    let initial = json!(["initial", { "attrs": { "id": user }, "models": {}, "collections": {
        "teams": { "id": "teams", "models": [{ "id": "red", "attrs": {}, "collections": {
            "members": { "id": FEED, "v": "0".repeat(24), "models": [] } } }] } } }]);
    socket.send(Message::text(format!("42{initial}"))).await.unwrap();

    let mut ping = tokio::time::interval(Duration::from_millis(40));
    let mut unanswered = 0;
    loop {
        tokio::select! {
            _ = ping.tick() => {
                unanswered += 1;
                if unanswered > 20 {
                    return;
                }
                if is_eio4 && socket.send(Message::text("2")).await.is_err() {
                    return;
                }
            }
            frame = socket.next() => match frame {
                Some(Ok(Message::Text(text))) => {
                    unanswered = 0;
                    match text.as_str() {
                        "3" if is_eio4 => {}
                        "2" if !is_eio4 => socket.send(Message::text("3")).await.unwrap(),
                        call => {
                            let number = call.strip_prefix("42").unwrap().split('[').next().unwrap();
                            let code = if call.contains("secret") { 403 } else { 200 };
                            let ack = format!(r#"43{number}[{{"code":{code}}}]"#);
                            socket.send(Message::text(ack)).await.unwrap();
                        }
                    }
                }
                Some(Ok(_)) => {}
                _ => return,
            },
            event = events.recv() => {
                let event = event.unwrap();
                let is_third = Stamp::find(&event).is_some_and(|stamp| stamp.number == 2);
                if fault == Fault::PutsOut && is_third {
                    let _ = socket.send(Message::text("41")).await;
                    return;
                }
                if socket.send(Message::text(event)).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn publish(
    request: Request<Incoming>,
    events: broadcast::Sender<String>,
    held_back: Arc<Mutex<Option<String>>>,
    fault: Fault,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let is_right = request.headers().get("authorization").is_some_and(|it| it == "Bearer token");
    assert_eq!(request.uri().path().split('/').nth(3), Some("team%2Ered%2Emembers"));
    let is_post = request.method() == "POST";
    let body = request.into_body().collect().await?.to_bytes();
    let answer = |status| Response::builder().status(status).body(Full::default()).unwrap();
    if !is_right {
        return Ok(answer(401));
    }
    if !is_post {
        return Ok(answer(204));
    }
    let body: Value = serde_json::from_slice(&body).unwrap();
    let event = json!(["change", { "feed": FEED, "id": body["id"], "item": body["item"] }]);
    let event = format!("42{event}");
    let number = Stamp::find(&event).unwrap().number;
    let mut held_back = held_back.lock().unwrap();
    match (fault, number) {
        (Fault::Careless, 1) => {}
        (Fault::Careless, 3) => {
            let _ = events.send(event.clone());
            let _ = events.send(event);
        }
        (Fault::Careless, 5) => *held_back = Some(event),
        (Fault::Careless, 6) => {
            let _ = events.send(event);
            let _ = events.send(held_back.take().unwrap());
        }
        _ => {
            let _ = events.send(event);
        }
    }
    Ok(answer(201))
}

const PUBLISH: &[&str] =
    &["--publish", "--feed", FEED, "--token", "token", "--rate", "500", "--count", "20"];

#[tokio::test]
async fn everybody_gets_initial_and_everything_that_is_published() {
    let server = FakeServer::start(Fault::None).await;
    for protocol in ["eio4", "eio3"] {
        let flags = ["-n", "30", "--hold", "300ms", "--protocol", protocol, "--demo-user", "ann"];
        let report = server.run(&[&flags, PUBLISH].concat()).await;
        assert_eq!(report.shortcomings(), Vec::<String>::new(), "{report}");
        let publishing = report.publishing.as_ref().unwrap();
        assert_eq!(publishing.latency.count(), 600);
        let json = report.to_json();
        assert_eq!(json["got_initial"], 30);
        assert_eq!(json["events"]["change"], 600);
        assert_eq!(json["publishing"]["received"], 600);
    }
}

#[tokio::test]
async fn what_a_careless_server_does_is_found_exactly() {
    let server = FakeServer::start(Fault::Careless).await;
    let flags = ["-n", "10", "--hold", "10ms", "--grace", "200ms"];
    let report = server.run(&[&flags, PUBLISH].concat()).await;
    let expected = Account { expected: 200, received: 190, missing: 10, twice: 10, disordered: 10 };
    assert_eq!(report.publishing.unwrap().account, expected);
}

#[tokio::test]
async fn who_is_refused_or_put_out_is_told_by_kind() {
    let server = FakeServer::start(Fault::Refuses).await;
    for protocol in ["eio4", "eio3"] {
        let report = server.run(&["-n", "5", "--protocol", protocol]).await;
        assert_eq!(report.to_json()["failed"]["refused: unauthorized"], 5);
        assert_eq!(report.shortcomings(), ["5 clients without `initial`"]);
    }
    let server = FakeServer::start(Fault::PutsOut).await;
    let flags = ["-n", "5", "--hold", "10ms", "--grace", "200ms"];
    let report = server.run(&[&flags, PUBLISH].concat()).await;
    assert_eq!(report.to_json()["lost"]["disconnected by the server"], 5);
    assert_eq!(report.publishing.unwrap().account.missing, 5 * 18);
}

#[tokio::test]
async fn a_feed_is_subscribed_where_that_is_granted() {
    let server = FakeServer::start(Fault::None).await;
    let report = server.run(&["-n", "3", "--hold", "10ms", "--listen-feed", "public.x"]).await;
    assert_eq!(report.shortcomings(), Vec::<String>::new());
    let report = server.run(&["-n", "3", "--listen-feed", "secret"]).await;
    assert_eq!(report.to_json()["failed"]["subscribe: code 403"], 3);
}

#[tokio::test]
async fn publishes_that_are_not_confirmed_are_told() {
    let server = FakeServer::start(Fault::None).await;
    let flags = ["-n", "3", "--hold", "10ms", "--publish", "--feed", FEED, "--rate", "1000"];
    let report = server.run(&flags).await;
    let json = report.to_json();
    assert_eq!(
        (&json["publishing"]["tried"], &json["publishing"]["confirmed"]),
        (&10.into(), &0.into())
    );
    assert!(!report.shortcomings().is_empty());
}

#[tokio::test]
async fn a_run_that_is_ended_early_still_reports() {
    let server = FakeServer::start(Fault::None).await;
    let stop = CancellationToken::new();
    let plan = server.plan(&["-n", "5", "--hold", "1h"]);
    let running = tokio::spawn(run(plan, stop.clone()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.cancel();
    let report = running.await.unwrap().unwrap();
    assert_eq!(report.clients.got_initial, 5);
    assert_eq!(report.shortcomings(), ["ended early"]);
}

#[tokio::test]
async fn a_target_that_is_away_is_told_at_once() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let url = format!("http://{free}");
    let plan = Plan::try_from(Flags::parse_from(["loadtest", "--url", &url])).unwrap();
    let failure = run(plan, CancellationToken::new()).await.unwrap_err();
    assert!(matches!(failure, Failure::Unreachable { target, .. } if target == url));
}
