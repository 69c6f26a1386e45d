//! Events that come without a pause while a client goes over from polls to a websocket.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use gateway::{hub::frame::Frame, socket::EngineKind};
use tokio_tungstenite::tungstenite::Message;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::Poller;

impl Poller {
    /// Polls; `None` where the answer was cut off.
    async fn poll_or_cut(&self) -> Option<String> {
        let mut stream = TcpStream::connect(self.stage.addr).await.unwrap();
        let head = format!("GET {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", self.path);
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(2), stream.read_to_end(&mut bytes)).await;
        let answer = String::from_utf8_lossy(&bytes);
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
        (body.len() == length.parse::<usize>().unwrap()).then(|| body.to_owned())
    }
}

/// Takes the numbers out of what was said, in order.
fn numbers(text: &str, into: &mut Vec<u64>) {
    for piece in text.split("[\"number\",").skip(1) {
        into.push(piece.split(']').next().unwrap().parse().unwrap());
    }
}

/// Whether it waits for its last poll before it goes over, as it must, or is early.
async fn goes_over(waits: bool, round: u64) {
    let query = if round.is_multiple_of(2) { "EIO=4" } else { "EIO=3&b64=1" };
    let poller = Poller::joined(EngineKind::Pneumatic, query).await;
    poller.hears(b"42[\"initial\"").await;
    let outbox = poller.guest().outbox.clone();
    let count = 400;
    let speaks = tokio::spawn(async move {
        for number in 0..count {
            outbox.offer(&Frame::event("number", number.to_string())).unwrap();
            if number % 3 == round % 3 {
                tokio::time::sleep(Duration::from_micros(round * 37 % 300)).await;
            }
        }
    });
    let mut heard = Vec::new();
    for _ in 0..round % 4 {
        numbers(&poller.poll().await.text(), &mut heard);
    }
    let upgrade = poller.path.split_once('?').unwrap().1.replace("transport=polling", "");
    let mut probe = poller.stage.websocket(&upgrade).await;
    // An early client's poll may be cut off by the hand-over: what it would have said is then
    // said on the websocket.
    let poll =
        async { if waits { Some(poller.poll().await.text()) } else { poller.poll_or_cut().await } };
    let over = async {
        probe.send(Message::text("2probe")).await.unwrap();
        assert_eq!(probe.next().await.unwrap().unwrap().into_text().unwrap().as_str(), "3probe");
        if !waits {
            probe.send(Message::text("5")).await.unwrap();
        }
    };
    let (polled, ()) = tokio::join!(poll, over);
    numbers(&polled.unwrap_or_default(), &mut heard);
    if waits {
        probe.send(Message::text("5")).await.unwrap();
    }
    while heard.len() < count as usize {
        let next = tokio::time::timeout(Duration::from_secs(5), probe.next()).await;
        let Ok(Some(Ok(message))) = next else { panic!("{round} {waits}: {next:?} {heard:?}") };
        numbers(message.into_text().unwrap().as_str(), &mut heard);
    }
    assert!(heard.iter().copied().eq(0..count), "{round} {waits}: {heard:?}");
    speaks.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_said_while_a_client_goes_over_comes_once_and_in_order() {
    for round in 0..10 {
        goes_over(true, round).await;
        goes_over(false, round).await;
    }
}

/// What comes whole on either of two polls counts as said, and nothing else does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polls_that_cross_each_other_say_nothing_twice_and_lose_nothing() {
    let poller = Poller::joined(EngineKind::Pneumatic, "EIO=4").await;
    poller.hears(b"42[\"initial\"").await;
    let outbox = poller.guest().outbox.clone();
    let count = 2_000;
    let speaks = tokio::spawn(async move {
        for number in 0..count {
            outbox.offer(&Frame::event("number", number.to_string())).unwrap();
            tokio::time::sleep(Duration::from_micros(number * 37 % 900)).await;
        }
    });
    let mut heard = Vec::new();
    for round in 0_u64.. {
        let second = async {
            tokio::time::sleep(Duration::from_micros(round * 71 % 1_500)).await;
            poller.poll_or_cut().await
        };
        let (one, two) = tokio::join!(poller.poll_or_cut(), second);
        for answer in [one, two].into_iter().flatten() {
            numbers(&answer, &mut heard);
        }
        if heard.len() >= count as usize {
            break;
        }
        if heard.last() == Some(&(count - 1)) && speaks.is_finished() {
            break;
        }
    }
    heard.sort_unstable();
    let lost = (0..count).filter(|number| heard.binary_search(number).is_err()).count();
    assert_eq!((heard.len() - (count as usize - lost), lost), (0, 0), "doubled, lost");
}
