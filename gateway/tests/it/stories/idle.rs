//! Clients for whom nothing is to be done.

use gateway::{outbox::CloseReason, socket::Full};
use serde_json::json;

use super::{
    client::eventually,
    gateway::{TestGateway, user},
};

#[tokio::test]
async fn an_idle_client_has_no_task() {
    let gateway = TestGateway::start().await;
    gateway.heard().await;
    let tracker = &gateway.core.drain.tracker;
    eventually("the gateway is at rest", async || tracker.len() <= 4).await;
    let alone = tracker.len();
    let mut clients = Vec::new();
    for index in 0..50 {
        clients.push(gateway.connect(user(&format!("user-{index}")).in_team("red")).await);
    }
    eventually("clients are idle", async || tracker.len() <= alone).await;
    for client in &mut clients {
        assert_eq!(client.call("subscribe", json!({ "feed": "public.news" })).await["code"], 200);
    }
    eventually("clients are idle again", async || tracker.len() <= alone).await;
}

#[tokio::test]
async fn what_a_client_says_at_once_is_bounded_and_done_in_order() {
    let gateway = TestGateway::start().await;
    let mut ann = gateway.connect(user("ann").in_team("red")).await;
    // Nothing is looked at before this task waits.
    let feeds = (0..2_000).map(|number| json!({ "feed": format!("public.{}", number % 7) }));
    let said: Vec<_> = feeds.map(|feed| ann.try_emit("subscribe", &feed)).collect();
    let taken = said.iter().take_while(|said| said.is_ok()).count();
    assert_eq!(taken, 1_024);
    assert!(said[taken..].iter().all(|said| *said == Err(Full)));
    ann.leave();
    let mut bob = gateway.connect(user("bob").in_team("red")).await;
    let calls: Vec<u64> =
        (0..60).map(|_| bob.ask("unsubscribe", json!({ "feed": "public.1" }))).collect();
    bob.answer(calls[59]).await;
    assert!(calls[..59].iter().all(|call| bob.has_answer(*call)));
}

#[tokio::test]
async fn who_comes_after_all_were_closed_is_closed_too() {
    let gateway = TestGateway::start().await;
    let mut ann = gateway.connect(user("ann")).await;
    gateway.core.live.close_all(CloseReason::Draining).await.unwrap();
    assert_eq!(ann.closes().await, CloseReason::Draining);
    assert_eq!(gateway.join(user("bob")).closes().await, CloseReason::Draining);
}

#[tokio::test]
async fn who_is_there_when_the_gateway_ends_is_closed() {
    let gateway = TestGateway::start().await;
    let mut ann = gateway.connect(user("ann")).await;
    let mut bob = gateway.join(user("bob"));
    gateway.core.drain.end.cancel();
    assert_eq!(ann.closes().await, CloseReason::Draining);
    bob.closes().await;
    assert_eq!(gateway.join(user("eve")).closes().await, CloseReason::Draining);
}
