//! Stands between Node's clients and the gateways: each connection goes to any of them.
//!
//! Connections can be cut by a reset, or stall: then nothing goes on in either direction.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};
use tokio_util::task::AbortOnDropHandle;

/// Bytes that are passed on at a time.
const CHUNK: usize = 16 << 10;

/// A proxy on a port of its own; its connections end with it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    /// Held to add a connection or to find some.
    links: Arc<Mutex<Vec<watch::Sender<Order>>>>,
    _task: AbortOnDropHandle<()>,
}

/// What a connection is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Pass,
    Stall,
    Cut,
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1 and passes on to these ports.
    ///
    /// # Errors
    ///
    /// Returns why there is no port.
    pub async fn start(gateways: Vec<u16>, seed: u64) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let links = Arc::new(Mutex::new(Vec::new()));
        let known = links.clone();
        let task = tokio::spawn(async move {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                while open.try_join_next().is_some() {}
                let (order, orders) = watch::channel(Order::Pass);
                {
                    let mut known = known.lock().expect("no holder of this lock panics");
                    known.retain(|link: &watch::Sender<Order>| !link.is_closed());
                    known.push(order);
                }
                let mut gateways = gateways.clone();
                let first = rng.random_range(0..gateways.len());
                gateways.rotate_left(first);
                open.spawn(pass_on(stream, gateways, orders));
            }
        });
        Ok(Self { address, links, _task: AbortOnDropHandle::new(task) })
    }

    /// Returns where clients connect.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Cuts each connection with this probability; returns how many.
    pub fn cut(&self, share: f64, rng: &mut StdRng) -> usize {
        let links = self.some(share, rng);
        for link in &links {
            link.send_replace(Order::Cut);
        }
        links.len()
    }

    /// Lets nothing through on some connections until the answer is dropped.
    #[must_use]
    pub fn stall(&self, share: f64, rng: &mut StdRng) -> Stalled {
        let stalled = Stalled(self.some(share, rng));
        stalled.turn(Order::Pass, Order::Stall);
        stalled
    }

    fn some(&self, share: f64, rng: &mut StdRng) -> Vec<watch::Sender<Order>> {
        let links = self.links.lock().expect("no holder of this lock panics");
        links.iter().filter(|_| rng.random_bool(share)).cloned().collect()
    }
}

/// Connections on which nothing goes on; dropping it lets them.
#[derive(Debug)]
pub struct Stalled(Vec<watch::Sender<Order>>);

impl Stalled {
    fn turn(&self, from: Order, to: Order) {
        for link in &self.0 {
            // One that was cut meanwhile stays so.
            link.send_if_modified(|order| {
                let turns = *order == from;
                if turns {
                    *order = to;
                }
                turns
            });
        }
    }
}

impl Drop for Stalled {
    fn drop(&mut self) {
        self.turn(Order::Stall, Order::Pass);
    }
}

async fn pass_on(client: TcpStream, gateways: Vec<u16>, orders: watch::Receiver<Order>) {
    let mut reached = None;
    for gateway in gateways {
        if let Ok(stream) = TcpStream::connect(("127.0.0.1", gateway)).await {
            reached = Some(stream);
            break;
        }
    }
    // Without any gateway the client is refused by an end.
    let Some(gateway) = reached else { return };
    for stream in [&client, &gateway] {
        let _ = stream.set_nodelay(true);
        // Closing then is a reset.
        let _ = stream.set_zero_linger();
    }
    let (client_in, client_out) = client.into_split();
    let (gateway_in, gateway_out) = gateway.into_split();
    tokio::select! {
        () = copy(client_in, gateway_out, orders.clone()) => {}
        () = copy(gateway_in, client_out, orders) => {}
    }
}

/// Copies until either side ends or it is cut.
async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut orders: watch::Receiver<Order>) {
    let mut chunk = vec![0; CHUNK];
    loop {
        let order = *orders.borrow_and_update();
        match order {
            Order::Cut => return,
            Order::Stall => {
                if orders.changed().await.is_err() {
                    return;
                }
                continue;
            }
            Order::Pass => {}
        }
        tokio::select! {
            read = from.read(&mut chunk) => match read {
                Ok(0) | Err(_) => return,
                Ok(length) => {
                    if to.write_all(&chunk[..length]).await.is_err() {
                        return;
                    }
                }
            },
            changed = orders.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}
