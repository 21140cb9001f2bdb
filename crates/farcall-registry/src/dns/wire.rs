//! DNS messages (RFC 1035, 2782): a question out, an answer in. No I/O.
//!
//! An answer is hostile input: names may point at themselves, counts may lie. Every loop here is bounded by what came.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest name, in bytes, as RFC 1035 has it.
const MAX_NAME: usize = 255;
/// Most records of an answer that are read.
const MAX_RECORDS: usize = 4096;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Kind {
    A = 1,
    Aaaa = 28,
    Srv = 33,
}

const CNAME: u16 = 5;
const IN: u16 = 1;

/// What a name has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Data {
    Address(IpAddr),
    Alias(String),
    Service { priority: u16, weight: u16, port: u16, target: String },
}

/// A record of an answer. Names are in lower case, without the dot at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) name: String,
    /// Seconds that it may be kept.
    pub(crate) ttl: u32,
    pub(crate) data: Data,
}

/// What a server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Answers and what was added to them, in order.
    Records(Vec<Record>),
    /// There is no such name.
    NoName,
    /// It did not fit: ask over TCP.
    Truncated,
    /// It could or would not say: its code.
    Failed(u8),
}

/// A question; `None` if the name is none.
pub(crate) fn question(id: u16, name: &str, kind: Kind) -> Option<Vec<u8>> {
    let mut message = id.to_be_bytes().to_vec();
    // Recursion desired; one question.
    message.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    let start = message.len();
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
        message.push(length);
        message.extend_from_slice(label.as_bytes());
    }
    message.push(0);
    if message.len() - start > MAX_NAME {
        return None;
    }
    message.extend_from_slice(&(kind as u16).to_be_bytes());
    message.extend_from_slice(&IN.to_be_bytes());
    Some(message)
}

/// Reads the answer to a question; `None` if it is not one, or damaged.
pub(crate) fn answer(message: &[u8], id: u16, name: &str, kind: Kind) -> Option<Answer> {
    let mut reader = Reader { message, at: 0 };
    let (got, flags) = (reader.u16()?, reader.u16()?);
    let counts = [reader.u16()?, reader.u16()?, reader.u16()?, reader.u16()?];
    let is_response = flags & 0x8000 != 0;
    if got != id || !is_response || counts[0] != 1 {
        return None;
    }
    // It must be about what we asked.
    let asked = reader.name()?;
    if asked != name.trim_end_matches('.').to_ascii_lowercase() || reader.u16()? != kind as u16 || reader.u16()? != IN {
        return None;
    }
    if flags & 0x0200 != 0 {
        return Some(Answer::Truncated);
    }
    match (flags & 15) as u8 {
        0 => {}
        3 => return Some(Answer::NoName),
        code => return Some(Answer::Failed(code)),
    }
    let count = counts[1..].iter().map(|&count| usize::from(count)).sum::<usize>();
    if count > MAX_RECORDS {
        return None;
    }
    let mut records = Vec::new();
    for _ in 0..count {
        records.extend(reader.record()?);
    }
    Some(Answer::Records(records))
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = self.message.get(self.at..self.at.checked_add(N)?)?;
        self.at += N;
        bytes.try_into().ok()
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    /// A name, wherever its parts are. A pointer may only lead back, so that none leads round.
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        let mut reader = *self;
        let mut end = None;
        loop {
            let start = reader.at;
            let [length] = reader.take()?;
            match length {
                0 => break,
                1..=63 => {
                    let label = reader.message.get(reader.at..reader.at + usize::from(length))?;
                    reader.at += usize::from(length);
                    if !name.is_empty() {
                        name.push('.');
                    }
                    name.push_str(std::str::from_utf8(label).ok()?);
                    if name.len() > MAX_NAME {
                        return None;
                    }
                }
                0xc0.. => {
                    let [low] = reader.take()?;
                    end.get_or_insert(reader.at);
                    let target = usize::from(length & 0x3f) << 8 | usize::from(low);
                    if target >= start {
                        return None;
                    }
                    reader.at = target;
                }
                _ => return None,
            }
        }
        self.at = end.unwrap_or(reader.at);
        Some(name.to_ascii_lowercase())
    }

    /// A record; `Some(None)` if it is of a kind that we do not know.
    fn record(&mut self) -> Option<Option<Record>> {
        let name = self.name()?;
        let (kind, class) = (self.u16()?, self.u16()?);
        let ttl = u32::from_be_bytes(self.take()?);
        let length = usize::from(self.u16()?);
        let end = self.at.checked_add(length).filter(|&end| end <= self.message.len())?;
        // Names in it may point before it, but do not reach beyond it.
        let mut data = Reader { message: &self.message[..end], at: self.at };
        self.at = end;
        let data = match kind {
            _ if class != IN => return Some(None),
            1 => Data::Address(IpAddr::V4(Ipv4Addr::from(data.take::<4>()?))),
            28 => Data::Address(IpAddr::V6(Ipv6Addr::from(data.take::<16>()?))),
            CNAME => Data::Alias(data.name()?),
            33 => Data::Service { priority: data.u16()?, weight: data.u16()?, port: data.u16()?, target: data.name()? },
            _ => return Some(None),
        };
        Some(Some(Record { name, ttl, data }))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn put_name(message: &mut Vec<u8>, name: &str) {
        for label in name.split('.').filter(|label| !label.is_empty()) {
            message.push(label.len() as u8);
            message.extend_from_slice(label.as_bytes());
        }
        message.push(0);
    }

    /// An answer to a question, as a server makes it.
    pub(in crate::dns) fn reply(question: &[u8], flags: u16, records: &[Record]) -> Vec<u8> {
        let mut message = question.to_vec();
        message[2..4].copy_from_slice(&(0x8180 | flags).to_be_bytes());
        message[6..8].copy_from_slice(&(records.len() as u16).to_be_bytes());
        for record in records {
            put_name(&mut message, &record.name);
            let mut data = Vec::new();
            let kind: u16 = match &record.data {
                Data::Address(IpAddr::V4(v4)) => {
                    data.extend_from_slice(&v4.octets());
                    1
                }
                Data::Address(IpAddr::V6(v6)) => {
                    data.extend_from_slice(&v6.octets());
                    28
                }
                Data::Alias(name) => {
                    put_name(&mut data, name);
                    5
                }
                Data::Service { priority, weight, port, target } => {
                    [priority, weight, port].iter().for_each(|n| data.extend_from_slice(&n.to_be_bytes()));
                    put_name(&mut data, target);
                    33
                }
            };
            message.extend_from_slice(&kind.to_be_bytes());
            message.extend_from_slice(&1u16.to_be_bytes());
            message.extend_from_slice(&record.ttl.to_be_bytes());
            message.extend_from_slice(&(data.len() as u16).to_be_bytes());
            message.extend_from_slice(&data);
        }
        message
    }

    fn records() -> Vec<Record> {
        let record = |name: &str, data| Record { name: name.into(), ttl: 30, data };
        vec![
            record("pay.shop", Data::Alias("x.shop".into())),
            record("x.shop", Data::Address([10, 0, 0, 1].into())),
            record("x.shop", Data::Address(Ipv6Addr::LOCALHOST.into())),
            record("_f._tcp.pay", Data::Service { priority: 1, weight: 2, port: 3, target: "x.shop".into() }),
        ]
    }

    #[test]
    fn what_is_asked_is_answered() {
        let asked = question(7, "Pay.Shop.", Kind::A).unwrap();
        let message = reply(&asked, 0, &records());
        assert_eq!(answer(&message, 7, "pay.shop", Kind::A), Some(Answer::Records(records())));
        assert_eq!(answer(&message, 8, "pay.shop", Kind::A), None, "another's");
        assert_eq!(answer(&message, 7, "bay.shop", Kind::A), None, "about something else");
        assert_eq!(answer(&message, 7, "pay.shop", Kind::Aaaa), None);
        assert_eq!(answer(&asked, 7, "pay.shop", Kind::A), None, "our own question");
        assert_eq!(answer(&reply(&asked, 3, &[]), 7, "pay.shop", Kind::A), Some(Answer::NoName));
        assert_eq!(answer(&reply(&asked, 2, &[]), 7, "pay.shop", Kind::A), Some(Answer::Failed(2)));
        assert_eq!(answer(&reply(&asked, 0x200, &[]), 7, "pay.shop", Kind::A), Some(Answer::Truncated));
    }

    #[test]
    fn a_name_that_is_none_is_not_asked_for() {
        for name in ["", "a..b", &"x".repeat(64), &"abcdefg.".repeat(40)] {
            assert_eq!(question(1, name, Kind::A), None, "{name}");
        }
    }

    #[test]
    fn pointers_lead_back_only() {
        let asked = question(7, "a.b", Kind::A).unwrap();
        let mut message = reply(&asked, 0, &[]);
        message[7] = 1;
        let at = message.len() as u16;
        let tail = [0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 10, 0, 0, 9];
        let with = |name: &[u8]| [&message[..], name, &tail].concat();
        let found = answer(&with(&[0xc0, 12]), 7, "a.b", Kind::A);
        let record = Record { name: "a.b".into(), ttl: 9, data: Data::Address([10, 0, 0, 9].into()) };
        assert_eq!(found, Some(Answer::Records(vec![record])));
        let itself = (0xc000 | at).to_be_bytes();
        let forward = (0xc000 | (at + 4)).to_be_bytes();
        for loops in [itself, forward, [0xff, 0xff]] {
            assert_eq!(answer(&with(&loops), 7, "a.b", Kind::A), None);
        }
        assert_eq!(answer(&with(&[0x80, 0]), 7, "a.b", Kind::A), None, "a length that is none");
    }

    /// Answers cut anywhere, and with any byte changed: read or refused, never a panic or a loop.
    #[test]
    fn mutants_are_read_or_refused() {
        let asked = question(7, "pay.shop", Kind::A).unwrap();
        let message = reply(&asked, 0, &records());
        for end in 0..message.len() {
            assert_eq!(answer(&message[..end], 7, "pay.shop", Kind::A), None, "cut at {end}");
        }
        for at in 0..message.len() {
            for byte in 0..=255 {
                let mut mutant = message.clone();
                mutant[at] = byte;
                answer(&mutant, 7, "pay.shop", Kind::A);
            }
        }
    }
}
