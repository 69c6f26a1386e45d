//! Do fast clients notice slow ones in their room?
//!
//! Starts a gateway of its own for each run, in pairs of runs without and with slow readers, and
//! prints what the fast ones saw from publish to receive. `make slow-readers` builds and runs it.
//!
//! Ends with 1 where the median of the pairs is worse than 10 % and worse than 1 ms.

use std::{
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::{ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context, ensure};
use clap::Parser;
use futures_util::SinkExt;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use loadtest::{
    flags::{Flags, Plan},
    progress::Progress,
    runner,
};
use tokio::{
    io::AsyncReadExt,
    net::{TcpSocket, TcpStream},
    process::{Child, Command},
    time::{Instant, sleep},
};
use tokio_tungstenite::{client_async, tungstenite::Message};
use tokio_util::sync::CancellationToken;

const FEED: &str = "team.red.members";
/// The sockets of slow readers keep little, so that what they do not read waits in the gateway.
const KERNEL: u32 = 8 << 10;
/// How many bytes a slow reader takes a second.
const READS: usize = 2 << 10;
/// What fills the mailboxes of slow readers before the run that counts.
const WARM_UP: Duration = Duration::from_secs(10);
/// How long a gateway may take to start.
const START: Duration = Duration::from_secs(10);

#[derive(Debug, Parser)]
#[command(about)]
struct Options {
    /// The gateway to measure
    #[arg(long, default_value = "target/release/gateway")]
    gateway: PathBuf,
    /// How many fast clients
    #[arg(long, default_value_t = 200)]
    fast: usize,
    /// How many slow readers, in percent of the fast clients
    #[arg(long, default_value_t = 25)]
    slow_percent: usize,
    /// How many pairs of runs
    #[arg(long, default_value_t = 3)]
    pairs: usize,
    /// How many items are published per second
    #[arg(long, default_value_t = 40)]
    rate: usize,
    /// How long the fast clients listen, in seconds
    #[arg(long, default_value_t = 15)]
    seconds: usize,
    /// How many bytes of padding an item has
    #[arg(long, default_value_t = 1_000)]
    payload: usize,
    /// Over how many ids the items go; many make slow readers be closed and come back
    #[arg(long, default_value_t = 4)]
    ids: usize,
    /// What may wait for a client
    #[arg(long, default_value = "64KiB")]
    outbox: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    ensure!(options.pairs > 0, "--pairs is at least 1");
    let slow = options.fast * options.slow_percent / 100;
    println!(
        "{} fast clients, {slow} slow readers ({READS} bytes/s), {} items/s of {} bytes over {} ids",
        options.fast, options.rate, options.payload, options.ids
    );
    let mut pairs = Vec::new();
    for pair in 0..options.pairs {
        // By turns, so that a machine that grows warm or busy favours neither.
        let (alone, beside) = if pair % 2 == 0 {
            let alone = measure(&options, 0).await?;
            (alone, measure(&options, slow).await?)
        } else {
            let beside = measure(&options, slow).await?;
            (measure(&options, 0).await?, beside)
        };
        println!("pair {}: p99 {alone:.2} ms alone, {beside:.2} ms beside slow readers", pair + 1);
        pairs.push((beside - alone, alone, beside));
    }
    pairs.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (more, alone, beside) = pairs[pairs.len() / 2];
    println!(
        "median pair: p99 {alone:.2} ms alone, {beside:.2} ms beside, {more:+.2} ms ({:+.1} %)",
        100.0 * more / alone
    );
    let is_unnoticed = more <= 1.0 || more <= alone / 10.0;
    println!("{}", if is_unnoticed { "not noticed" } else { "NOTICED: over 10 % and over 1 ms" });
    Ok(if is_unnoticed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs one gateway with so many slow readers; returns the p99 of the fast clients in ms.
async fn measure(options: &Options, slow: usize) -> anyhow::Result<f64> {
    let (listen, admin) = (free_address()?, free_address()?);
    let mut gateway = start(options, listen, admin).await?;
    let came_back = Arc::new(AtomicU64::new(0));
    let readers = CancellationToken::new();
    for _ in 0..slow {
        let reader = read_slowly(listen, came_back.clone());
        tokio::spawn(readers.clone().run_until_cancelled_owned(reader));
    }
    let warm_up = options.rate * usize::try_from(WARM_UP.as_secs())?;
    run(options, listen, admin, 1, warm_up).await?;
    let count = options.rate * options.seconds;
    let p99 = run(options, listen, admin, options.fast, count).await?;
    readers.cancel();
    if slow > 0 {
        let dropped = dropped_changes(admin).await?;
        let came_back = came_back.load(Relaxed).saturating_sub(u64::try_from(slow)?);
        println!("  slow readers: {dropped} changes dropped, came back {came_back} times");
    }
    gateway.kill().await?;
    Ok(p99)
}

fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

async fn start(options: &Options, listen: SocketAddr, admin: SocketAddr) -> anyhow::Result<Child> {
    let gateway = Command::new(&options.gateway)
        .env("GATEWAY__SERVER__LISTEN", listen.to_string())
        .env("GATEWAY__ADMIN__LISTEN", admin.to_string())
        .env("GATEWAY__LIMITS__OUTBOX_BYTES", &options.outbox)
        .env("RUST_LOG", "error")
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}", options.gateway.display()))?;
    let began = Instant::now();
    while TcpStream::connect(listen).await.is_err() {
        ensure!(began.elapsed() < START, "the gateway does not listen");
        sleep(Duration::from_millis(50)).await;
    }
    Ok(gateway)
}

/// Publishes so many items to so many clients, which all must come; returns their p99 in ms.
async fn run(
    options: &Options,
    listen: SocketAddr,
    admin: SocketAddr,
    clients: usize,
    count: usize,
) -> anyhow::Result<f64> {
    let hold = count / options.rate + 1;
    let flags = format!(
        "loadtest --url http://{listen} --admin-url http://{admin} -n {clients} --ramp 200/s \
         --demo-user ann,bob,cleo,dai --publish --feed {FEED} --rate {} --count {count} \
         --payload {} --ids {} --hold {hold}s --quiet",
        options.rate, options.payload, options.ids
    );
    let plan = Plan::try_from(Flags::try_parse_from(flags.split_whitespace())?)?;
    let report = runner::run(plan, CancellationToken::new(), Progress::hidden()).await?;
    let shortcomings = report.shortcomings();
    ensure!(shortcomings.is_empty(), "fast clients fell short: {}", shortcomings.join("; "));
    let publishing = report.publishing.context("nothing was published")?;
    Ok(publishing.latency.millis(0.99))
}

/// Reads a little a second for ever, answers nothing, and comes back whenever it is closed.
async fn read_slowly(gateway: SocketAddr, came: Arc<AtomicU64>) {
    loop {
        came.fetch_add(1, Relaxed);
        // Whatever ends it, it comes again.
        let _ = read_until_closed(gateway).await;
        sleep(Duration::from_secs(1)).await;
    }
}

async fn read_until_closed(gateway: SocketAddr) -> anyhow::Result<()> {
    let tcp = TcpSocket::new_v4()?;
    tcp.set_recv_buffer_size(KERNEL)?;
    let stream = tcp.connect(gateway).await?;
    let url = format!("ws://{gateway}/socket.io/?EIO=4&transport=websocket&demo_user=ann");
    let (mut socket, _) = client_async(url, stream).await?;
    socket.send(Message::text("40")).await?;
    let mut buffer = vec![0; READS];
    loop {
        if socket.get_mut().read(&mut buffer).await? == 0 {
            return Ok(());
        }
        sleep(Duration::from_secs(1)).await;
    }
}

/// Reads from the gateway's metrics how many changes it dropped for slow clients.
async fn dropped_changes(admin: SocketAddr) -> anyhow::Result<u64> {
    let stream = TcpStream::connect(admin).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request =
        Request::get("/metrics").header("host", admin.to_string()).body(Empty::<&[u8]>::new())?;
    let body = sender.send_request(request).await?.into_body().collect().await?.to_bytes();
    let text = String::from_utf8(body.to_vec())?;
    let line =
        text.lines().find_map(|line| line.strip_prefix("gateway_outbox_dropped_changes_total "));
    line.context("the gateway does not count dropped changes")?.parse().context("no number")
}
