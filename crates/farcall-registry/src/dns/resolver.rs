//! A stub resolver: asks the servers that the system names, over UDP, and over TCP what did not fit.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use farcall_core::{Code, RpcError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::dns::wire::{Answer, Data, Kind, Record, answer, question};

/// How long one server has to answer, once.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often all servers are asked before nobody answers.
const ROUNDS: u32 = 2;
/// Most servers that are asked, as resolv.conf(5) has it; and most search domains.
const MAX_SERVERS: usize = 3;
const MAX_SEARCH: usize = 6;
/// Most aliases that are followed.
const MAX_ALIASES: usize = 8;

/// Whom to ask, and how names are completed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resolver {
    pub(crate) servers: Vec<SocketAddr>,
    search: Vec<String>,
    ndots: usize,
}

/// What a name has: addresses or services, and for how long that may be kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Found {
    pub(crate) records: Vec<Record>,
    /// Seconds.
    pub(crate) ttl: u32,
}

/// A lookup's end that is not an answer.
enum Miss {
    /// There is no such name.
    NoName,
    /// Nobody could say.
    Unknown(String),
}

impl Resolver {
    /// As `/etc/resolv.conf` says; without it, the one on this machine.
    pub(crate) fn of_system() -> Resolver {
        Resolver::parse(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
    }

    pub(crate) fn parse(text: &str) -> Resolver {
        let mut resolver = Resolver { servers: Vec::new(), search: Vec::new(), ndots: 1 };
        for line in text.lines() {
            let mut words = line.split([';', '#']).next().unwrap_or_default().split_whitespace();
            match words.next() {
                // A scope (`%eth0`) is not read by us; such servers are passed over.
                Some("nameserver") => {
                    let ip = words.next().and_then(|ip| ip.parse::<IpAddr>().ok());
                    resolver.servers.extend(ip.map(|ip| SocketAddr::new(ip, 53)));
                }
                Some("search" | "domain") => resolver.search = words.take(MAX_SEARCH).map(|d| d.trim_matches('.').to_owned()).collect(),
                Some("options") => {
                    let ndots = words.find_map(|word| word.strip_prefix("ndots:")?.parse::<usize>().ok());
                    resolver.ndots = ndots.unwrap_or(resolver.ndots).min(15);
                }
                _ => {}
            }
        }
        resolver.servers.truncate(MAX_SERVERS);
        if resolver.servers.is_empty() {
            resolver.servers.push(([127, 0, 0, 1], 53).into());
        }
        resolver
    }

    /// One server, and names as they are.
    pub(crate) fn only(server: SocketAddr) -> Resolver {
        Resolver { servers: vec![server], search: Vec::new(), ndots: 1 }
    }

    /// What the name, completed as the system does, has of these kinds. `Ok` without records: it is known to have none.
    pub(crate) async fn look(&self, name: &str, kinds: &[Kind]) -> Result<Found, RpcError> {
        let mut found = Found { records: Vec::new(), ttl: u32::MAX };
        for candidate in self.candidates(name) {
            let mut is_name = false;
            for &kind in kinds {
                match self.ask_all(&candidate, kind).await {
                    Ok(some) => {
                        is_name = true;
                        found.ttl = some.records.iter().map(|r| r.ttl).fold(found.ttl, u32::min);
                        found.records.extend(some.records);
                    }
                    Err(Miss::NoName) => {}
                    // Half an answer is none: the other half may have been all there is.
                    Err(Miss::Unknown(why)) => {
                        return Err(RpcError::new(Code::Unavailable, format!("DNS: {candidate}: {why}")));
                    }
                }
            }
            if is_name {
                return Ok(found);
            }
        }
        Ok(found)
    }

    /// The names that this one may stand for, in the order they are tried.
    fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(full) = name.strip_suffix('.') {
            return vec![full.to_owned()];
        }
        let completed = self.search.iter().filter(|domain| !domain.is_empty()).map(|domain| format!("{name}.{domain}"));
        let as_it_is = std::iter::once(name.to_owned());
        match name.matches('.').count() >= self.ndots {
            true => as_it_is.chain(completed).collect(),
            false => completed.chain(as_it_is).collect(),
        }
    }

    async fn ask_all(&self, name: &str, kind: Kind) -> Result<Found, Miss> {
        let mut why = String::new();
        for _ in 0..ROUNDS {
            for &server in &self.servers {
                match timeout(PATIENCE, ask(server, name, kind)).await {
                    Ok(Ok(Answer::Records(records))) => return Ok(Found { ttl: 0, records: relevant(name, kind, records) }),
                    Ok(Ok(Answer::NoName)) => return Err(Miss::NoName),
                    Ok(Ok(Answer::Failed(code))) => why = format!("{server} answers with {}", failure(code)),
                    Ok(Ok(Answer::Truncated)) => why = format!("{server} cuts its answer off over TCP too"),
                    Ok(Err(e)) => why = format!("{server}: {e}"),
                    Err(_) => why = format!("{server} does not answer within {PATIENCE:?}"),
                }
            }
        }
        Err(Miss::Unknown(why))
    }
}

fn failure(code: u8) -> String {
    match code {
        1 => "FORMERR (1)".to_owned(),
        2 => "SERVFAIL (2)".to_owned(),
        5 => "REFUSED (5)".to_owned(),
        code => format!("code {code}"),
    }
}

/// The records of the name itself or of what it is an alias of; for services, also the addresses that came along.
fn relevant(name: &str, kind: Kind, records: Vec<Record>) -> Vec<Record> {
    let mut names = BTreeSet::from([name.trim_end_matches('.').to_ascii_lowercase()]);
    for _ in 0..MAX_ALIASES {
        let aliases = records.iter().filter(|r| names.contains(&r.name)).filter_map(|r| match &r.data {
            Data::Alias(target) => Some(target.clone()),
            Data::Service { target, .. } => Some(target.clone()),
            Data::Address(_) => None,
        });
        let aliases: Vec<String> = aliases.collect();
        let before = names.len();
        names.extend(aliases);
        if names.len() == before {
            break;
        }
    }
    let wanted = |record: &Record| match &record.data {
        Data::Address(IpAddr::V4(_)) => kind != Kind::Aaaa,
        Data::Address(IpAddr::V6(_)) => kind != Kind::A,
        Data::Service { .. } => kind == Kind::Srv,
        Data::Alias(_) => false,
    };
    records.into_iter().filter(|record| names.contains(&record.name) && wanted(record)).collect()
}

async fn ask(server: SocketAddr, name: &str, kind: Kind) -> std::io::Result<Answer> {
    let id = crate::random::number() as u16;
    let Some(asked) = question(id, name, kind) else {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is not a name"));
    };
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0u16; 8], 0).into(),
    };
    // A port of its own for each question, and only that server's packets: others' guesses do not get in.
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(&asked).await?;
    let mut packet = vec![0; 4096];
    loop {
        let length = socket.recv(&mut packet).await?;
        match answer(&packet[..length], id, name, kind) {
            Some(Answer::Truncated) => return ask_by_tcp(server, &asked, id, name, kind).await,
            Some(answer) => return Ok(answer),
            // Not the answer to this question: it may still come.
            None => {}
        }
    }
}

async fn ask_by_tcp(server: SocketAddr, asked: &[u8], id: u16, name: &str, kind: Kind) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(asked.len()).map_err(|_| std::io::ErrorKind::InvalidInput)?;
    stream.write_all(&[&length.to_be_bytes(), asked].concat()).await?;
    let mut packet = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut packet).await?;
    answer(&packet, id, name, kind).ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidData, "its answer does not read"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_read() {
        let text = "# c\nnameserver 10.0.0.2\nnameserver fe80::1%eth0\nnameserver ::1 ; x\nsearch default.svc.cluster.local svc.\noptions \
                    timeout:1 ndots:5\n";
        let resolver = Resolver::parse(text);
        assert_eq!(resolver.servers, ["10.0.0.2:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
        assert_eq!(resolver.candidates("pay"), ["pay.default.svc.cluster.local", "pay.svc", "pay"]);
        assert_eq!(resolver.candidates("pay.shop."), ["pay.shop"]);
        assert_eq!(resolver.candidates("a.b.c.d.e.f")[0], "a.b.c.d.e.f");
        assert_eq!(Resolver::parse("").servers, ["127.0.0.1:53".parse().unwrap()]);
    }
}
