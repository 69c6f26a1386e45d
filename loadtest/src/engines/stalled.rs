//! What becomes of readers that stand still, and of those beside them.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::{
    Failure, Figure, Figures, Plan,
    ear::item,
    stage::{Crowd, FEED, Stage},
};
use crate::{sample, start::Engine};

/// What the socket of one that stands still keeps.
const KERNEL: u32 = 4 << 10;
/// Events that come first, and their padding: more than the sockets of both ends keep.
const FILL: u32 = 20;
const FILL_PADDING: usize = 10_000;
/// Padding of every other event, in bytes.
const PADDING: usize = 1_000;
const PAUSE: Duration = Duration::from_millis(25);
/// Those who stand still come from addresses of their own.
const APART: usize = 100_000;

/// Publishes until the stalled readers are gone, or twice as long as that may take.
pub(super) async fn measure(plan: &Plan, engine: Engine) -> Result<Figures, Failure> {
    let [heartbeat, stall] = [plan.heartbeat, plan.stall].map(humantime::format_duration);
    let server = format!("ping_interval = \"{heartbeat}\"\n");
    let config = format!("[limits]\nstall = \"{stall}\"\n");
    let users = plan.beside.max(plan.stalled);
    let stage = Stage::start(plan, engine, users, 1, &server, &config).await?;
    let (mut beside, mut still) = (Crowd::new(), Crowd::new());
    stage.let_in(&mut beside, plan.beside, 0, None).await?;
    stage.let_in(&mut still, plan.stalled, APART, Some(KERNEL)).await?;
    beside.subscribe().await?;
    still.subscribe().await?;
    let served = || sample::established(stage.gateway().port()).ok_or(Failure::Unseen);
    let all = served()?;

    for client in &still.clients {
        client.stop_reading().await;
    }
    let began = Instant::now();
    let bound = plan.stall + plan.heartbeat;
    let (mut number, mut in_time, mut last) = (0, 0, 2 * bound);
    while began.elapsed() < 2 * bound {
        let padding = if number < FILL { FILL_PADDING } else { PADDING };
        stage.router.publish(FEED, Some(&number.to_string()), item(number, padding)).await?;
        number += 1;
        if number < FILL {
            continue;
        }
        sleep(PAUSE).await;
        let gone = all.saturating_sub(served()?).min(plan.stalled);
        if began.elapsed() <= bound {
            in_time = gone;
        }
        if gone == plan.stalled {
            last = began.elapsed();
            break;
        }
    }
    let sent = u64::from(number) * plan.beside as u64;
    // What is lacking is told by the figure.
    let _ = beside.hear(sent).await;
    let lacking = sent - beside.tally.heard().min(sent);
    let harm = lacking + beside.tally.odd() + beside.tally.lost().0;
    beside.leave().await;
    still.leave().await;
    Ok(vec![
        (Figure::Gone, 100.0 * in_time as f64 / plan.stalled as f64),
        (Figure::Last, last.as_secs_f64()),
        (Figure::Harm, harm as f64),
    ])
}
