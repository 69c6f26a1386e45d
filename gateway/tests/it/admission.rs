//! Who is let in, and what the others are told, through the door.

use std::{sync::atomic::Ordering, time::Duration};

use futures_util::SinkExt;
use gateway::{
    limits::{Admission, Bounds},
    socket::Settings,
};
use tokio_tungstenite::tungstenite::Message;

use crate::stage::{Answer, PATIENCE, Stage, settings};

const PATH: &str = "/socket.io/?EIO=4&transport=polling&demo_user=ann";

async fn stage(bounds: Bounds) -> Stage {
    Stage::start_with(&Settings { admission: Admission::new(bounds), ..settings() }).await
}

#[track_caller]
fn is_told_to_come_again(answer: &Answer) {
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("2")), "{answer:?}");
}

#[tokio::test]
async fn clients_that_do_not_join_take_the_places_of_no_others() {
    let mut stage = stage(Bounds { pending: Some(2), ..Bounds::default() }).await;
    // These two join, and do not count any more.
    let mut joined = Vec::new();
    for _ in 0..2 {
        let mut websocket = stage.websocket("EIO=4&demo_user=bob").await;
        websocket.send(Message::text("40")).await.unwrap();
        let guest = stage.guest().await;
        joined.push((websocket, guest.has_left));
    }
    let waiting = [stage.get(PATH, &[]).await, stage.get(PATH, &[]).await];
    assert_eq!([waiting[0].status, waiting[1].status], [200, 200]);
    is_told_to_come_again(&stage.get(PATH, &[]).await);
    // Who has not joined in time is forgotten, and its place is free.
    tokio::time::sleep(settings().connect_timeout).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while stage.get(PATH, &[]).await.status != 200 {
        assert!(tokio::time::Instant::now() < deadline, "no place is free again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(joined.iter().all(|(_, has_left)| !has_left.load(Ordering::SeqCst)));
}

#[tokio::test]
async fn an_address_is_whom_the_balancer_names_and_nobody_else_may() {
    let per_ip = Bounds { per_ip: Some(1), ..Bounds::default() };
    let trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    let behind = stage(Bounds { trusted_proxies, ..per_ip.clone() }).await;
    let ask = async |stage: &Stage, named: &str| {
        stage.get(PATH, &[&format!("X-Forwarded-For: {named}")]).await
    };
    assert_eq!(ask(&behind, "1.2.3.4").await.status, 200);
    is_told_to_come_again(&ask(&behind, "1.2.3.4").await);
    is_told_to_come_again(&ask(&behind, "6.6.6.6, 1.2.3.4").await);
    is_told_to_come_again(&ask(&behind, "6.6.6.6, 1.2.3.4:5678").await);
    assert_eq!(ask(&behind, "1.2.3.5").await.status, 200);
    // The balancer itself is an address as well.
    assert_eq!(behind.get(PATH, &[]).await.status, 200);
    is_told_to_come_again(&behind.get(PATH, &[]).await);

    let open = stage(per_ip).await;
    assert_eq!(ask(&open, "1.2.3.4").await.status, 200);
    is_told_to_come_again(&ask(&open, "1.2.3.5").await);
}
