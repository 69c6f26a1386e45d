//! How many clients are let in: at all, from one address, of one user, in a second.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use http::HeaderMap;

use crate::{config::Cidr, identity::UserId};

/// The bounds; `None` is none.
#[derive(Debug, Clone, Default)]
pub struct Bounds {
    /// Clients at a time.
    pub connections: Option<usize>,
    /// Clients at a time that have not joined their namespace yet.
    pub pending: Option<usize>,
    /// Clients of one user at a time.
    pub per_user: Option<usize>,
    /// Clients of one address at a time; of IPv6, of one network of 64 bits.
    pub per_ip: Option<usize>,
    /// New clients in a second.
    pub handshakes_per_second: Option<u32>,
    /// Who may say for whom a request is made.
    pub trusted_proxies: Vec<Cidr>,
}

/// Why a client is not let in now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// `limits.max_connections`.
    #[error("as many clients as may be are connected")]
    Connections,
    /// `limits.max_pending`.
    #[error("as many clients as may be have yet to join")]
    Pending,
    /// `limits.max_connections_per_user`.
    #[error("as many clients of this user as may be are connected")]
    PerUser,
    /// `limits.max_connections_per_ip`.
    #[error("as many clients of this address as may be are connected")]
    PerIp,
    /// The gateway stops.
    #[error("the gateway is stopping")]
    Stopping,
    /// `limits.handshakes_per_second`.
    #[error("too many clients come in one second")]
    Rate,
}

/// Counts who is in.
#[derive(Debug, Clone)]
pub struct Admission(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bounds: Bounds,
    /// Held for a few map operations: a handshake must not wait for another.
    counts: Mutex<Counts>,
}

#[derive(Debug)]
struct Counts {
    is_closed: bool,
    connections: usize,
    pending: usize,
    by_user: HashMap<UserId, usize>,
    by_ip: HashMap<IpAddr, usize>,
    rate: Rate,
}

/// Lowers the counts when dropped.
#[derive(Debug)]
pub struct Place {
    shared: Arc<Shared>,
    /// Kept only where a bound asks for it: a place is held for as long as its client stays.
    counted: Option<Box<Counted>>,
    is_pending: AtomicBool,
}

/// By what a client is counted besides.
#[derive(Debug, Default)]
struct Counted {
    user: Option<UserId>,
    ip: Option<IpAddr>,
}

impl Admission {
    /// Makes an admission where nobody is in yet.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        let rate = Rate::new(bounds.handshakes_per_second);
        let counts = Counts {
            is_closed: false,
            connections: 0,
            pending: 0,
            by_user: HashMap::new(),
            by_ip: HashMap::new(),
            rate,
        };
        Self(Arc::new(Shared { bounds, counts: Mutex::new(counts) }))
    }

    /// Returns for whom a request is made: its peer, or whom proxies that are trusted name.
    ///
    /// Each proxy appends to `X-Forwarded-For` for whom it was asked, and only what a trusted one
    /// has appended counts: the list is read from its end, up to the first who is not trusted, or
    /// to what is no address. What a client wrote itself stands before that.
    #[must_use]
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let is_trusted =
            |ip: IpAddr| self.0.bounds.trusted_proxies.iter().any(|range| range.contains(ip));
        let lines = headers.get_all("x-forwarded-for").iter().rev();
        let named = lines.flat_map(|line| line.to_str().unwrap_or("?").rsplit(','));
        let mut client = peer.to_canonical();
        for named in named.map(str::trim).filter(|named| !named.is_empty()) {
            if !is_trusted(client) {
                break;
            }
            let Some(ip) = address(named) else { break };
            client = ip.to_canonical();
        }
        client
    }

    /// Takes a place for a new client, before any other work is done for it.
    ///
    /// # Errors
    ///
    /// Returns [`Refused`] with the first bound that it would pass.
    pub fn enter(&self, ip: Option<IpAddr>) -> Result<Place, Refused> {
        let bounds = &self.0.bounds;
        let mut counts = self.lock();
        if counts.is_closed {
            return Err(Refused::Stopping);
        }
        if is_over(counts.connections, bounds.connections) {
            return Err(Refused::Connections);
        }
        if is_over(counts.pending, bounds.pending) {
            return Err(Refused::Pending);
        }
        // Where no bound asks for it, nothing is kept of an address.
        let ip = ip.filter(|_| bounds.per_ip.is_some()).map(network);
        if ip.is_some_and(|ip| is_over(count(&counts.by_ip, &ip), bounds.per_ip)) {
            return Err(Refused::PerIp);
        }
        if !counts.rate.take() {
            return Err(Refused::Rate);
        }
        counts.connections += 1;
        counts.pending += 1;
        if let Some(ip) = ip {
            *counts.by_ip.entry(ip).or_default() += 1;
        }
        let counted = ip.map(|ip| Box::new(Counted { user: None, ip: Some(ip) }));
        Ok(Place { shared: self.0.clone(), counted, is_pending: AtomicBool::new(true) })
    }

    /// Lets nobody in any more; whoever is in stays.
    pub fn close(&self) {
        self.lock().is_closed = true;
    }

    /// Counts whose place it is, once that is known.
    ///
    /// # Errors
    ///
    /// Returns [`Refused::PerUser`].
    pub fn belongs(&self, place: &mut Place, user: &UserId) -> Result<(), Refused> {
        let Some(most) = self.0.bounds.per_user else { return Ok(()) };
        let mut counts = self.lock();
        let own = counts.by_user.entry(user.clone()).or_default();
        if *own >= most {
            return Err(Refused::PerUser);
        }
        *own += 1;
        drop(counts);
        place.counted.get_or_insert_default().user = Some(user.clone());
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.0.counts.lock().expect("no holder of this lock panics")
    }
}

impl Place {
    /// Notes that the client has joined its namespace; once is enough.
    pub fn joined(&self) {
        if self.is_pending.swap(false, Ordering::Relaxed) {
            self.counts().pending -= 1;
        }
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.shared.counts.lock().expect("no holder of this lock panics")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.joined();
        let mut counts = self.counts();
        counts.connections -= 1;
        let Some(Counted { user, ip }) = self.counted.as_deref() else { return };
        if let Some(user) = user {
            lower(&mut counts.by_user, user);
        }
        if let Some(ip) = ip {
            lower(&mut counts.by_ip, ip);
        }
    }
}

/// Reads an address as proxies write it, some with a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let with_port = || text.parse().map(|address: SocketAddr| address.ip());
    bare.parse().or_else(|_| with_port()).ok()
}

/// What one place of the net has: an IPv4 address, or the 2^64 IPv6 ones that it may choose from.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
        ip => ip,
    }
}

fn is_over(count: usize, most: Option<usize>) -> bool {
    most.is_some_and(|most| count >= most)
}

fn count<K: Eq + Hash>(counts: &HashMap<K, usize>, key: &K) -> usize {
    counts.get(key).copied().unwrap_or_default()
}

fn lower<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// So many in a second: a bucket of one second's worth.
#[derive(Debug)]
pub struct Rate {
    per_second: Option<f64>,
    left: f64,
    filled: Instant,
}

impl Rate {
    /// Makes a full bucket; without a number it never empties.
    #[must_use]
    pub fn new(per_second: Option<u32>) -> Self {
        let per_second = per_second.map(f64::from);
        Self { per_second, left: per_second.unwrap_or_default(), filled: Instant::now() }
    }

    /// Takes one out; `false` if it is empty.
    pub fn take(&mut self) -> bool {
        let Some(per_second) = self.per_second else { return true };
        let now = Instant::now();
        let earned = now.duration_since(self.filled).as_secs_f64() * per_second;
        self.left = (self.left + earned).min(per_second);
        self.filled = now;
        let may = self.left >= 1.0;
        if may {
            self.left -= 1.0;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_place_is_free_again_when_its_client_has_left() {
        let bounds = Bounds { connections: Some(2), per_user: Some(1), ..Bounds::default() };
        let admission = Admission::new(bounds);
        let mut first = admission.enter(None).unwrap();
        admission.belongs(&mut first, &UserId::new("ann")).unwrap();
        let mut second = admission.enter(None).unwrap();
        assert_eq!(admission.belongs(&mut second, &UserId::new("ann")), Err(Refused::PerUser));
        assert_eq!(admission.enter(None).unwrap_err(), Refused::Connections);
        drop(first);
        admission.belongs(&mut second, &UserId::new("ann")).unwrap();
        admission.enter(None).unwrap();
    }

    #[test]
    fn an_address_has_its_own_bound() {
        let admission = Admission::new(Bounds { per_ip: Some(1), ..Bounds::default() });
        let _first = admission.enter(Some(ip("10.0.0.1"))).unwrap();
        assert_eq!(admission.enter(Some(ip("10.0.0.1"))).unwrap_err(), Refused::PerIp);
        admission.enter(Some(ip("10.0.0.2"))).unwrap();
        assert_eq!(admission.enter(Some(ip("::ffff:10.0.0.1"))).unwrap_err(), Refused::PerIp);
        let _other = admission.enter(Some(ip("2001:db8::1"))).unwrap();
        assert_eq!(admission.enter(Some(ip("2001:db8::ffff:2"))).unwrap_err(), Refused::PerIp);
        admission.enter(Some(ip("2001:db8:0:1::1"))).unwrap();
    }

    #[test]
    fn those_who_have_yet_to_join_have_a_bound_of_their_own() {
        let admission = Admission::new(Bounds { pending: Some(2), ..Bounds::default() });
        let first = admission.enter(None).unwrap();
        let second = admission.enter(None).unwrap();
        assert_eq!(admission.enter(None).unwrap_err(), Refused::Pending);
        first.joined();
        first.joined();
        let third = admission.enter(None).unwrap();
        assert_eq!(admission.enter(None).unwrap_err(), Refused::Pending);
        drop((first, second, third));
        let places: Vec<_> = (0..3).map(|_| admission.enter(None).is_ok()).collect();
        assert_eq!(places, [true; 3], "each is dropped at once");
        let _kept = [admission.enter(None).unwrap(), admission.enter(None).unwrap()];
        assert_eq!(admission.enter(None).unwrap_err(), Refused::Pending);
    }

    #[test]
    fn handshakes_are_bounded_in_a_second() {
        let admission =
            Admission::new(Bounds { handshakes_per_second: Some(3), ..Bounds::default() });
        let places: Vec<_> = (0..10).map(|_| admission.enter(None)).collect();
        assert!((3..=4).contains(&places.iter().filter(|place| place.is_ok()).count()));
    }

    #[test]
    fn only_a_trusted_proxy_says_for_whom_it_asks() {
        let trusted_proxies = ["10.0.0.0/8", "fd00::/8"].map(|range| range.parse().unwrap());
        let bounds = Bounds { trusted_proxies: trusted_proxies.into(), ..Bounds::default() };
        let admission = Admission::new(bounds);
        #[track_caller]
        fn check(admission: &Admission, peer: &str, lines: &[&str], expected: &str) {
            let lines = lines.iter().map(|line| line.parse().unwrap());
            let name = http::HeaderName::from_static("x-forwarded-for");
            let headers: HeaderMap = lines.map(|line| (name.clone(), line)).collect();
            assert_eq!(admission.client(ip(peer), &headers), ip(expected));
        }
        let check = |peer, lines: &[&str], expected| check(&admission, peer, lines, expected);
        check("10.0.0.1", &["6.6.6.6, 1.2.3.4, 10.0.0.9"], "1.2.3.4");
        check("10.0.0.1", &["6.6.6.6", "1.2.3.4", "10.0.0.9"], "1.2.3.4");
        check("8.8.8.8", &["6.6.6.6, 1.2.3.4"], "8.8.8.8");
        check("10.0.0.1", &[], "10.0.0.1");
        check("::ffff:10.0.0.1", &["1.2.3.4"], "1.2.3.4");
        check("fd00::1", &["2001:db8::7"], "2001:db8::7");
        // Whom nobody but trusted ones speaks for is the first of them.
        check("10.0.0.1", &["10.0.0.7, 10.0.0.9"], "10.0.0.7");
        // Some name a port as well.
        check("10.0.0.1", &["6.6.6.6, 1.2.3.4:5678"], "1.2.3.4");
        check("10.0.0.1", &["[2001:db8::7]:5678"], "2001:db8::7");
        check("10.0.0.1", &["[2001:db8::7],"], "2001:db8::7");
        // What stands before something that is no address was not heard by who appended it.
        check("10.0.0.1", &["6.6.6.6, unknown"], "10.0.0.1");
        check("10.0.0.1", &["6.6.6.6, unknown, 10.0.0.9"], "10.0.0.9");
    }
}
