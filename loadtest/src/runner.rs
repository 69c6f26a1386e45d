//! A run from the first client to the last figure.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    board::{Board, Count},
    flags::{Plan, Publish},
    progress::Progress,
    publisher::{Published, Publisher},
    receipts::Account,
    sample::{self, Sample},
    summary::{Clients, Publishing, Report, Use},
    user,
};

/// Descriptors beside those of the clients: files, the runtime, the publisher.
const SPARE_DESCRIPTORS: u64 = 64;
/// How long a target may take to be reached at all.
const REACH: Duration = Duration::from_secs(5);
/// How often the bar moves, and how often a state is looked for.
const LOOK: Duration = Duration::from_millis(50);

/// Why nothing was run.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failure {
    /// This process may not open enough.
    #[error(
        "{connections} connections need {needed} file descriptors and this process may have \
         {granted}: raise them (`ulimit -n {needed}`) or ask for at most {possible} connections"
    )]
    Descriptors {
        /// What was asked for.
        connections: usize,
        /// What that needs.
        needed: u64,
        /// What there is.
        granted: u64,
        /// What would go.
        possible: u64,
    },
    /// Nobody listens.
    #[error("{target} cannot be reached: {reason}")]
    Unreachable {
        /// The target.
        target: String,
        /// Why not.
        reason: String,
    },
}

/// Lets the clients in, holds them, publishes meanwhile, lets them go, and adds up.
///
/// When `stop` is cancelled, whatever is under way ends, and what there is is reported.
///
/// # Errors
///
/// Returns [`Failure`] when it cannot begin: too few descriptors, or a target that is away.
pub async fn run(
    plan: Plan,
    stop: CancellationToken,
    progress: Progress,
) -> Result<Report, Failure> {
    check_descriptors(plan.connections)?;
    for target in &plan.targets {
        reach(&target.authority, target.to_string()).await?;
    }
    if let Some(publish) = &plan.publish {
        reach(&publish.admin.authority, publish.admin.to_string()).await?;
    }
    let plan = Arc::new(plan);
    let began = Instant::now();
    let board = Arc::new(Board::new(run_number()));
    let leave = CancellationToken::new();
    let before = Sample::of(&plan.pids);

    let mut users = JoinSet::new();
    let show = async {
        loop {
            progress.show(if stop.is_cancelled() { "ending" } else { "running" }, &board);
            sleep(LOOK).await;
        }
    };
    let work = async {
        let_in(&plan, &board, &leave, &stop, &mut users).await;
        let settled = began.elapsed();
        let inside = Sample::of(&plan.pids);
        let events_inside = board.get(Count::Events);
        let published = hold(&plan, &board, &stop).await;
        let held = Sample::of(&plan.pids);
        let events_held = board.get(Count::Events) - events_inside;
        (settled, inside, published, held, events_held)
    };
    let (settled, inside, published, held, events_held) = tokio::select! {
        work = work => work,
        () = show => unreachable!("it is shown for ever"),
    };
    let lost = board.get(Count::Lost);
    let interrupted = stop.is_cancelled();

    leave.cancel();
    let mut clients = Clients::default();
    let mut receipts = Vec::new();
    while let Some(outcome) = users.join_next().await {
        let mut outcome = outcome.expect("a user does not panic");
        receipts.extend(outcome.receipts.take());
        clients.add(outcome);
    }
    progress.finish();

    let publishing = match (&plan.publish, published) {
        (Some(publish), Some((published, hears))) => {
            Publisher::new(publish).clean_up().await;
            Some(Publishing {
                account: Account::of(&published.confirmed, &receipts),
                published,
                hears,
                latency: board.deliveries(),
            })
        }
        _ => None,
    };
    let server = before.zip(inside).zip(held).filter(|_| !plan.pids.is_empty());
    Ok(Report {
        asked: plan.connections,
        targets: plan.targets.iter().map(ToString::to_string).collect(),
        protocol: plan.protocol.label(),
        clients,
        lost,
        settled,
        events_held,
        publishing,
        server: server.map(|((before, inside), held)| Use { before, inside, held }),
        unseen: !plan.pids.is_empty() && server.is_none(),
        tester: Sample::of(&[std::process::id()]),
        interrupted,
    })
}

/// Raises the number of descriptors as far as this many connections need it.
///
/// # Errors
///
/// Returns [`Failure::Descriptors`] when it may not be raised so far.
pub fn check_descriptors(connections: usize) -> Result<(), Failure> {
    let needed = connections as u64 + SPARE_DESCRIPTORS;
    let granted = sample::raise_descriptors(needed);
    if granted >= needed {
        return Ok(());
    }
    let possible = granted.saturating_sub(SPARE_DESCRIPTORS);
    Err(Failure::Descriptors { connections, needed, granted, possible })
}

async fn reach(authority: &str, target: String) -> Result<(), Failure> {
    let reason = match timeout(REACH, TcpStream::connect(authority)).await {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer in {} s", REACH.as_secs()),
    };
    Err(Failure::Unreachable { target, reason })
}

/// Another number for each run, so that nobody takes another's stamps for his own.
fn run_number() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.as_millis() as u64 * 100_000 + u64::from(std::process::id() % 100_000)
}

/// Starts the users one by one and waits until each is in or has failed.
async fn let_in(
    plan: &Arc<Plan>,
    board: &Arc<Board>,
    leave: &CancellationToken,
    stop: &CancellationToken,
    users: &mut JoinSet<user::Outcome>,
) {
    let began = Instant::now();
    for number in 0..plan.connections {
        let due = began + Duration::from_secs_f64(number as f64 / plan.ramp);
        tokio::select! {
            () = sleep_until(due.into()) => {}
            () = stop.cancelled() => return,
        }
        users.spawn(user::run(plan.clone(), number, board.clone(), leave.clone()));
    }
    let all = plan.connections as u64;
    // Each user's own time-out ends this.
    while !(board.get(Count::Started) == all && board.is_settled()) {
        tokio::select! {
            () = sleep(LOOK) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Holds the users, and publishes if that is asked for; returns to how many it was told.
async fn hold(plan: &Plan, board: &Board, stop: &CancellationToken) -> Option<(Published, u64)> {
    let hold = async {
        if board.get(Count::In) == 0 {
            return;
        }
        tokio::select! {
            () = sleep(plan.hold) => {}
            () = stop.cancelled() => {}
        }
    };
    let Some(publish) = &plan.publish else {
        hold.await;
        return None;
    };
    let publishing = async {
        let hears = board.get(Count::Hears);
        if hears == 0 {
            return (Published::default(), hears);
        }
        let published = Publisher::new(publish).run(board, stop).await;
        arrive(publish, board, published.confirmed.len() * hears, stop).await;
        (published, hears)
    };
    Some(tokio::join!(publishing, hold).0)
}

/// Waits until everything that is expected has come, or for as long as it may take.
async fn arrive(publish: &Publish, board: &Board, expected: u64, stop: &CancellationToken) {
    let arrived = async {
        while board.get(Count::Stamped) < expected {
            sleep(LOOK).await;
        }
    };
    tokio::select! {
        _ = timeout(publish.grace, arrived) => {}
        () = stop.cancelled() => {}
    }
}
