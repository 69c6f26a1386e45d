//! What an offer costs: `cargo test --release -p gateway --lib outbox::tests::bench -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use crate::{
    hub::frame::{About, Frame},
    outbox::{Mailbox, Outbox, mailbox},
};

const OFFERS: u32 = 1_000_000;

fn change(id: u32) -> Frame {
    let about = About::Change { feed: "team.red.members".into(), id: id.to_string().into() };
    let (item, v) = ("x".repeat(100), "0".repeat(24));
    Frame::of_feed(about, "change", format!(r#"{{"id":"{id}","item":"{item}","v":"{v}"}}"#))
}

fn print(what: &str, took: Duration, offers: u32) {
    println!("{what}: {} ns an offer", took.as_nanos() / u128::from(offers));
}

/// A mailbox at its bound, with a change of each item and nothing superfluous.
fn at_the_brink(frames: &[Frame]) -> (Outbox, Mailbox) {
    let (outbox, mailbox) = mailbox(frames.iter().map(Frame::weight).sum());
    for frame in frames {
        outbox.offer(frame).expect("they just fit");
    }
    (outbox, mailbox)
}

#[test]
#[ignore = "it measures"]
fn offers_within_the_bound_and_at_it() {
    let frames: Vec<_> = (0..4_000).map(change).collect();

    let (outbox, mut mailbox) = mailbox(1 << 20);
    let began = Instant::now();
    for number in 0..OFFERS {
        outbox.offer(&frames[number as usize % frames.len()]).expect("it is read");
        mailbox.try_next();
    }
    print("within the bound, offered and taken", began.elapsed(), OFFERS);

    for items in [1, 100, 4_000] {
        let (outbox, _mailbox) = at_the_brink(&frames);
        let began = Instant::now();
        for number in 0..OFFERS {
            outbox.offer(&frames[number as usize % items]).expect("an older one can go");
        }
        print(&format!("at the bound of 4,000 events, {items} items"), began.elapsed(), OFFERS);
    }
}
