//! Against a small DNS server of our own, which answers as it is told.

use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use super::*;
use crate::dns::wire::Record;
use crate::dns::wire::tests::reply;

/// What the server does with questions: records by kind, or a way to fail.
#[derive(Clone, Default)]
struct Zone {
    records: Vec<Record>,
    /// Flags of the answer: 2 SERVFAIL, 3 NXDOMAIN, 5 REFUSED.
    flags: u16,
    silent: bool,
    /// Over UDP: does not fit.
    truncates: bool,
    /// A forged answer of another id comes first.
    forges: bool,
}

struct Server {
    place: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    asked: Arc<AtomicU64>,
}

impl Server {
    async fn start(zone: Zone) -> Server {
        let (udp, tcp) = loop {
            let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let place = tcp.local_addr().unwrap();
        let (zone, asked) = (Arc::new(Mutex::new(zone)), Arc::new(AtomicU64::new(0)));
        let (of_udp, of_tcp, count) = (zone.clone(), zone.clone(), asked.clone());
        tokio::spawn(async move {
            let mut packet = [0; 512];
            while let Ok((length, from)) = udp.recv_from(&mut packet).await {
                count.fetch_add(1, Ordering::Relaxed);
                let zone = of_udp.lock().unwrap().clone();
                let answer = respond(&packet[..length], &zone);
                if zone.forges {
                    let mut forged = answer.clone();
                    forged[0] ^= 0x55;
                    udp.send_to(&forged, from).await.unwrap();
                    udp.send_to(b"junk", from).await.unwrap();
                }
                match (zone.silent, zone.truncates) {
                    (true, _) => {}
                    (_, true) => drop(udp.send_to(&reply(&packet[..length], 0x200, &[]), from).await),
                    _ => drop(udp.send_to(&answer, from).await),
                }
            }
        });
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let length = stream.read_u16().await.unwrap();
                let mut packet = vec![0; length.into()];
                stream.read_exact(&mut packet).await.unwrap();
                let zone = of_tcp.lock().unwrap().clone();
                let answer = respond(&packet, &zone);
                stream.write_all(&[&(answer.len() as u16).to_be_bytes()[..], &answer].concat()).await.unwrap();
            }
        });
        Server { place, zone, asked }
    }

    fn set(&self, change: impl FnOnce(&mut Zone)) {
        change(&mut self.zone.lock().unwrap());
    }

    fn open(&self, scheme_and_name: &str) -> Dns {
        Dns::open(&format!("{scheme_and_name}?server={}&refresh_ms=100", self.place).parse().unwrap()).unwrap()
    }
}

/// The records of the kind asked for, and what goes with them.
fn respond(question: &[u8], zone: &Zone) -> Vec<u8> {
    let kind = u16::from_be_bytes([question[question.len() - 4], question[question.len() - 3]]);
    let fits = |record: &&Record| match record.data {
        Data::Address(ip) => kind == 33 || ip.is_ipv4() == (kind == 1),
        Data::Service { .. } => kind == 33,
        Data::Alias(_) => true,
    };
    let records: Vec<Record> = zone.records.iter().filter(fits).cloned().collect();
    reply(question, zone.flags, if zone.flags == 0 { &records } else { &[] })
}

fn address(name: &str, ip: &str) -> Record {
    Record { name: name.into(), ttl: 0, data: Data::Address(ip.parse().unwrap()) }
}

fn srv(priority: u16, weight: u16, port: u16, target: &str) -> Record {
    Record { name: "_farcall._tcp.pay".into(), ttl: 60, data: Data::Service { priority, weight, port, target: target.into() } }
}

fn service() -> ServiceKey {
    ServiceKey { name: "a.Pay".into(), group: String::new(), version: String::new() }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), test).await.expect("the test took too long") })
}

async fn listed(dns: &Dns) -> Vec<String> {
    let mut list: Vec<String> =
        dns.list(&service()).await.unwrap().entries.iter().map(|e| format!("{} {}", e.addresses[0].address, e.weight)).collect();
    list.sort();
    list
}

#[test]
fn addresses_of_a_name_are_instances() {
    run(async {
        let records = vec![
            Record { name: "pay".into(), ttl: 5, data: Data::Alias("Real.shop".to_ascii_lowercase()) },
            address("real.shop", "10.0.0.1"),
            address("real.shop", "10.0.0.1"),
            address("real.shop", "fd00::2"),
            // Somebody else's, that was not asked for.
            address("evil.shop", "6.6.6.6"),
        ];
        let server = Server::start(Zone { records, forges: true, ..Zone::default() }).await;
        let dns = server.open("dns://pay:9000");
        assert_eq!(listed(&dns).await, ["tcp://10.0.0.1:9000 100", "tcp://[fd00::2]:9000 100"]);
        let entry = dns.list(&service()).await.unwrap().entries[0].clone();
        assert_eq!((entry.incarnation, &entry.service), (0, &service()));
        let e = dns.publish(entry).await.err().unwrap();
        assert!(e.code() == Code::Unimplemented && e.message().contains("DNS is only read"), "{e}");
        assert_eq!(dns.services().await.unwrap_err().code(), Code::Unimplemented);
    });
}

#[test]
fn no_name_is_empty_and_no_answer_is_unknown() {
    run(async {
        let server = Server::start(Zone { records: vec![address("pay", "10.0.0.1")], ..Zone::default() }).await;
        let dns = server.open("dns://pay:9000");
        assert_eq!(listed(&dns).await.len(), 1);
        // No records, and no such name.
        server.set(|zone| zone.records.clear());
        assert!(listed(&dns).await.is_empty());
        server.set(|zone| zone.flags = 3);
        assert!(listed(&dns).await.is_empty());
        for (flags, why) in [(2, "SERVFAIL"), (5, "REFUSED"), (4, "code 4")] {
            server.set(|zone| zone.flags = flags);
            let e = dns.list(&service()).await.unwrap_err();
            assert!(e.code() == Code::Unavailable && e.message().contains(why), "{e}");
        }
        server.set(|zone| (zone.silent, zone.flags) = (true, 0));
        let e = dns.list(&service()).await.unwrap_err();
        assert!(e.code() == Code::Unavailable && e.message().contains("does not answer"), "{e}");
        assert!(dns.subscribe(&service(), None).await.is_err());
    });
}

#[test]
fn what_does_not_fit_is_asked_for_over_tcp() {
    run(async {
        let records = (0..200u8).map(|n| address("pay", &format!("10.0.1.{n}"))).collect();
        let server = Server::start(Zone { records, truncates: true, ..Zone::default() }).await;
        assert_eq!(listed(&server.open("dns://pay:9000")).await.len(), 200);
    });
}

#[test]
fn changes_are_told_and_the_name_is_not_asked_for_without_end() {
    run(async {
        let server = Server::start(Zone { records: vec![address("pay", "10.0.0.1")], ..Zone::default() }).await;
        let dns = server.open("dns://pay:9000");
        let mut updates = dns.subscribe(&service(), None).await.unwrap();
        assert!(matches!(updates.next().await.unwrap(), Update::All(all) if all.entries.len() == 1));
        server.set(|zone| zone.records = vec![address("pay", "10.0.0.2")]);
        assert!(matches!(updates.next().await.unwrap(), Update::Put(e) if e.addresses[0].address == "tcp://10.0.0.2:9000"));
        assert!(matches!(updates.next().await.unwrap(), Update::Gone(_, Gone::Unsaid)));
        let before = server.asked.load(Ordering::Relaxed);
        tokio::time::timeout(Duration::from_millis(500), updates.next()).await.unwrap_err();
        // A time of 0 is not believed: at most two questions each 100 ms here.
        let asked = server.asked.load(Ordering::Relaxed) - before;
        assert!((2..=14).contains(&asked), "{asked}");
        server.set(|zone| zone.flags = 2);
        assert_eq!(updates.next().await.unwrap_err().code(), Code::Unavailable);
    });
}

#[test]
fn services_have_ports_weights_and_who_is_used_last() {
    run(async {
        let records = vec![
            srv(1, 30, 9000, "a.shop"),
            srv(1, 0, 9001, "b.shop"),
            srv(9, 5, 9002, "a.shop"),
            srv(1, 1, 9003, ""),
            address("a.shop", "10.0.0.1"),
            address("b.shop", "fd00::2"),
        ];
        let server = Server::start(Zone { records, ..Zone::default() }).await;
        let dns = server.open("dns+srv://_farcall._tcp.pay");
        assert_eq!(listed(&dns).await, ["tcp://10.0.0.1:9000 30", "tcp://10.0.0.1:9002 5", "tcp://[fd00::2]:9001 1"]);
        let list = dns.list(&service()).await.unwrap();
        assert_eq!(list.suspect, [crate::Entry::at(&service(), "tcp://10.0.0.1:9002").key()]);
        // Targets whose addresses did not come along are asked for.
        server.set(|zone| zone.records.retain(|r| matches!(r.data, Data::Service { .. })));
        assert!(listed(&dns).await.is_empty());
    });
}

#[test]
fn a_wrong_url_says_what_to_write() {
    for (url, why) in [
        ("dns://pay", "write \"dns://NAME:PORT\""),
        ("dns://pay:0", "write \"dns://NAME:PORT\""),
        ("dns://pay:1/x", "write \"dns://NAME:PORT\""),
        ("dns://a:1,b:2", "one name is looked up"),
        ("dns://[::1]:5", "write \"dns://NAME:PORT\""),
        ("dns://a..b:5", "is not a name"),
        ("dns+srv://_f._tcp.pay:1", "write \"dns+srv://_SERVICE._tcp.NAME\""),
        ("dns://pay:1?server=x", "write \"server=10.0.0.2:53\""),
        ("dns://pay:1?nope=x", "no parameter \"nope\""),
    ] {
        let e = Dns::open(&url.parse().unwrap()).unwrap_err();
        assert!(e.message().contains(why), "{url}: {e}");
    }
}
