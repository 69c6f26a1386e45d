//! What a handshake and an event take of the processor.

use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::sleep;

use super::{
    Failure, Figure, Figures, Plan,
    ear::item,
    stage::{Crowd, FEED, Stage},
};
use crate::start::Engine;

/// Waves of handshakes that count; one more goes before, so that everything is warm.
const WAVES: usize = 2;
/// Verification of mirrors would be counted in.
const QUIET: &str = "[mirror]\nverify_every = \"24h\"\n";
/// Events of one burst.
const BURST: u32 = 20;
const BURSTS: u32 = 10;
const BETWEEN_BURSTS: Duration = Duration::from_secs(1);
const SPACED: u32 = 40;
const BETWEEN_SPACED: Duration = Duration::from_millis(200);
/// Padding of an event, in bytes.
const PADDING: usize = 200;
/// How long the gateway rests before it is measured, at most.
const REST: Duration = Duration::from_secs(2);

/// Lets the same users connect again and again while each has a connection already.
pub(super) async fn handshakes(plan: &Plan, engine: Engine) -> Result<Figures, Failure> {
    let clients = plan.handshakes;
    let stage = Stage::start(plan, engine, clients, 1, "", QUIET).await?;
    let mut held = Crowd::new();
    stage.let_in(&mut held, clients, 0, None).await?;
    let mut cpu = Duration::ZERO;
    for wave in 0..=WAVES {
        sleep(plan.rest.min(REST)).await;
        let before = stage.sample()?.cpu;
        let mut crowd = Crowd::new();
        stage.let_in(&mut crowd, clients, clients, None).await?;
        if wave > 0 {
            cpu += stage.sample()?.cpu - before;
        }
        crowd.leave().await;
        stage.wait_until_left(clients).await?;
    }
    held.leave().await;
    Ok(vec![(Figure::Handshake, cpu.as_secs_f64() * 1e6 / (clients * WAVES) as f64)])
}

/// Publishes to a feed that all hear, in bursts and then one by one.
pub(super) async fn events(plan: &Plan, engine: Engine) -> Result<Figures, Failure> {
    let stage = Stage::start(plan, engine, plan.listeners, 1, "", QUIET).await?;
    let mut crowd = Crowd::new();
    stage.let_in(&mut crowd, plan.listeners, 0, None).await?;
    crowd.subscribe().await?;
    let bursts = Run { count: BURSTS, size: BURST, pause: BETWEEN_BURSTS, first: 0 };
    let burst = bursts.play(&stage, &crowd).await?;
    let first = BURSTS * BURST;
    let spaced = Run { count: SPACED, size: 1, pause: BETWEEN_SPACED, first };
    let spaced = spaced.play(&stage, &crowd).await?;
    crowd.leave().await;
    Ok(vec![(Figure::Burst, burst), (Figure::Spaced, spaced)])
}

/// Some events in one rhythm.
struct Run {
    count: u32,
    size: u32,
    pause: Duration,
    /// The number of the first event.
    first: u32,
}

impl Run {
    /// Publishes them; returns what each one took at each listener, in microseconds.
    async fn play(&self, stage: &Stage, crowd: &Crowd) -> Result<f64, Failure> {
        sleep(REST).await;
        let before = stage.sample()?.cpu;
        for count in 0..self.count {
            let first = self.first + count * self.size;
            // One connection takes them in this order, all at once.
            let burst = (first..first + self.size).map(async |number| {
                stage.router.publish(FEED, Some(&number.to_string()), item(number, PADDING)).await
            });
            try_join_all(burst).await?;
            sleep(self.pause).await;
        }
        let events = u64::from(self.count * self.size) * crowd.clients.len() as u64;
        crowd.hear(u64::from(self.first) * crowd.clients.len() as u64 + events).await?;
        let cpu = stage.sample()?.cpu - before;
        Ok(cpu.as_secs_f64() * 1e6 / events as f64)
    }
}
