//! Who is let in before a word was said: so many links per host, so many that have not said who they are.
//!
//! A link is half open until its first call may be made: by its hello, which the server has accepted, or, where another
//! protocol has no such thing, by a call that was admitted. Such links cost their sender next to nothing. Were they
//! refused when there are many, those who mean well would be refused with them; so instead one gives way to the newest: of
//! the host that has the most of them, the one that has been half open longest. Whoever says hello at once, and is not
//! one of a crowd of its host, does not meet this.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use tokio::sync::oneshot;

/// Links open per host. Of IPv6 a host is its network of 64 bits, since it may have as many numbers in it as it likes.
pub(super) struct Hosts {
    most: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// A host's link, counted for as long as this exists.
pub(super) struct Seat {
    hosts: Arc<Hosts>,
    host: IpAddr,
}

impl Hosts {
    pub(super) fn new(most: usize) -> Hosts {
        Hosts { most, open: Mutex::default() }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a link from `ip`; `None` if that host has too many.
    pub(super) fn enter(self: &Arc<Hosts>, ip: IpAddr) -> Option<Seat> {
        let host = host_of(ip);
        let mut open = self.open();
        let count = open.entry(host).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        drop(open);
        Some(Seat { hosts: Arc::clone(self), host })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.hosts.open();
        if let Some(count) = open.get_mut(&self.host) {
            *count -= 1;
            // Hosts that are gone are forgotten: there are more numbers than memory.
            if *count == 0 {
                open.remove(&self.host);
            }
        }
    }
}

fn host_of(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
    }
}

/// Links that are half open.
pub(crate) struct HalfOpen {
    most: usize,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    count: usize,
    /// By host, the oldest first. Links that are not of the network are of one host.
    hosts: HashMap<Option<IpAddr>, VecDeque<Link>>,
}

/// `stay` tells the link that it is let in; dropped, that it must go.
struct Link {
    number: u64,
    stay: oneshot::Sender<()>,
}

impl Waiting {
    /// Takes out the oldest link of the host that has the most.
    fn push_out(&mut self) -> Option<Link> {
        let host = *self.hosts.iter().max_by_key(|(_, links)| links.len())?.0;
        let oldest = self.hosts.get_mut(&host)?.front()?.number;
        self.remove(host, oldest)
    }

    fn remove(&mut self, host: Option<IpAddr>, number: u64) -> Option<Link> {
        let links = self.hosts.get_mut(&host)?;
        let at = links.binary_search_by_key(&number, |link| link.number).ok()?;
        let link = links.remove(at);
        self.count -= 1;
        if links.is_empty() {
            self.hosts.remove(&host);
        }
        link
    }
}

/// A place among the links that are half open. To drop it is to be let in.
pub(crate) struct Place {
    all: Arc<HalfOpen>,
    host: Option<IpAddr>,
    number: u64,
}

/// Tells a link whether it must go: as long as there is its [`Place`].
pub(super) struct Stay(Option<oneshot::Receiver<()>>);

impl HalfOpen {
    pub(crate) fn new(most: usize) -> HalfOpen {
        HalfOpen { most: most.max(1), waiting: Mutex::default() }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a link of the host `ip`; if there are too many, one goes.
    pub(super) fn enter(self: &Arc<HalfOpen>, ip: Option<IpAddr>) -> (Place, Stay) {
        let (host, (stay, told)) = (ip.map(host_of), oneshot::channel());
        let mut waiting = self.waiting();
        let number = waiting.next;
        (waiting.next, waiting.count) = (number + 1, waiting.count + 1);
        waiting.hosts.entry(host).or_default().push_back(Link { number, stay });
        let gone = if waiting.count > self.most { waiting.push_out() } else { None };
        drop(waiting);
        // Its task is woken without the lock.
        drop(gone);
        (Place { all: Arc::clone(self), host, number }, Stay(Some(told)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let found = self.all.waiting().remove(self.host, self.number);
        if let Some(link) = found {
            let _ = link.stay.send(());
        }
    }
}

impl Stay {
    /// The output of `future`, or `None` as soon as this link must give way.
    pub(super) async fn unless_pushed_out<F: Future>(&mut self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        poll_fn(|cx| {
            if let Some(told) = &mut self.0
                && let Poll::Ready(told) = Pin::new(told).poll(cx)
            {
                if told.is_err() {
                    return Poll::Ready(None);
                }
                // Let in: it is not asked again.
                self.0 = None;
            }
            future.as_mut().poll(cx).map(Some)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn a_host_has_so_many_links_and_others_have_theirs() {
        let hosts = Arc::new(Hosts::new(2));
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let first = hosts.enter(ip("10.0.0.1"));
        let _second = hosts.enter(ip("10.0.0.1")).unwrap();
        assert!(hosts.enter(ip("10.0.0.1")).is_none());
        let other = hosts.enter(ip("10.0.0.2"));
        assert!(other.is_some());
        drop(first);
        assert!(hosts.enter(ip("10.0.0.1")).is_some());
        drop(other);
        assert_eq!(hosts.open().len(), 1, "who is gone is forgotten");
    }

    #[test]
    fn a_host_is_its_network_in_ipv6() {
        let hosts = Arc::new(Hosts::new(1));
        let _seat = hosts.enter("2001:db8::1".parse().unwrap()).unwrap();
        assert!(hosts.enter("2001:db8::ffff:1".parse().unwrap()).is_none());
        assert!(hosts.enter("2001:db8:0:1::1".parse().unwrap()).is_some());
    }

    fn gone((_, stay): &mut (Place, Stay)) -> bool {
        let mut waiting = std::pin::pin!(stay.unless_pushed_out(std::future::pending::<()>()));
        waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(None)
    }

    #[test]
    fn the_oldest_gives_way() {
        let all = Arc::new(HalfOpen::new(2));
        let mut places: Vec<_> = (0..2).map(|_| all.enter(None)).collect();
        assert!(!gone(&mut places[0]));
        places.push(all.enter(None));
        assert!(gone(&mut places[0]) && !gone(&mut places[1]) && !gone(&mut places[2]));
        // Whoever leaves, or is let in, makes room.
        drop(places.remove(1));
        places.push(all.enter(None));
        let (place, mut stay) = places.remove(1);
        drop(place);
        places.push(all.enter(None));
        assert!(!gone(&mut places[1]) && !gone(&mut places[2]));
        let let_in = pin!(stay.unless_pushed_out(std::future::ready(7)));
        assert_eq!(let_in.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(Some(7)), "no later crowd is of interest to it");
        drop(places);
        let waiting = all.waiting();
        assert!(waiting.count == 0 && waiting.hosts.is_empty());
    }

    #[test]
    fn a_crowd_of_one_host_pushes_out_its_own() {
        let all = Arc::new(HalfOpen::new(10));
        let ip = |last| Some(IpAddr::from([10, 0, 0, last]));
        let mut other = all.enter(ip(1));
        let mut crowd: Vec<_> = (0..1000).map(|_| all.enter(ip(2))).collect();
        assert!(!gone(&mut other), "although it is the oldest");
        let left = crowd.iter_mut().map(gone).filter(|gone| !gone).count();
        assert_eq!(left, 9);
    }
}
