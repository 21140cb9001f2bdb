//! A server with the door open, and as much of an HTTP/1.1 client as shows every byte.

use std::sync::Arc;

use farcall::http::Http;
use farcall::prelude::*;
use farcall_tests::{PaymentServer, Till};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Counts, as a stream.
#[farcall::service]
pub(super) trait Counting {
    /// From 1 up to `to`; fails behind it if `to` is odd.
    #[farcall(idempotent)]
    async fn count(&self, to: u64) -> Reply<Streaming<u64, CountError>, CountError>;
    /// Each of its own.
    async fn sum(&self, numbers: Streaming<u64>) -> Reply<u64>;
    /// Never ends, and says nothing.
    async fn silent(&self) -> Reply<Streaming<u64>>;
    /// What arrives of several kinds of parameters.
    #[farcall(idempotent)]
    async fn mirror(&self, text: String, #[serde(default)] list: Vec<u32>, #[serde(default)] wide: u64) -> Reply<(String, Vec<u32>, u64)>;
}

/// Why it does not count.
#[farcall::error]
#[derive(Debug)]
pub(super) enum CountError {
    /// Odd.
    Odd(u64),
}

pub(super) struct Counter;

/// How many silent streams are open.
pub(super) static SILENT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

struct Counted;

impl Drop for Counted {
    fn drop(&mut self) {
        SILENT.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
    }
}

impl Counting for Counter {
    async fn count(&self, to: u64) -> Reply<Streaming<u64, CountError>, CountError> {
        if to == 0 {
            Err(CountError::Odd(0))?;
        }
        Ok(Streaming::produce(move |out| async move {
            for n in 1..=to {
                out.send(n).await?;
            }
            match to % 2 {
                0 => Ok(()),
                _ => Err(CountError::Odd(to).into()),
            }
        }))
    }

    async fn sum(&self, _: Streaming<u64>) -> Reply<u64> {
        Ok(0)
    }

    async fn silent(&self) -> Reply<Streaming<u64>> {
        SILENT.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let open = Counted;
        Ok(Streaming::produce(|out| async move {
            let _open = open;
            out.closed().await;
            Ok(())
        }))
    }

    async fn mirror(&self, text: String, list: Vec<u32>, wide: u64) -> Reply<(String, Vec<u32>, u64)> {
        Ok((text, list, wide))
    }
}

/// A server with the door open.
pub(super) struct Opened {
    pub(super) till: Arc<Till>,
    pub(super) server: Server,
    pub(super) socket: String,
}

pub(super) async fn open(door: Http) -> Opened {
    open_with(door, farcall::Limits::default()).await
}

pub(super) async fn open_with(door: Http, limits: farcall::Limits) -> Opened {
    let till = Arc::new(Till::default());
    let builder = Server::builder().serve(PaymentServer::shared(till.clone())).serve(CountingServer::new(Counter));
    let server = builder.protocol(door).limits(limits).listen("tcp://127.0.0.1:0").await.unwrap();
    let socket = server.address().to_string().trim_start_matches("tcp://").to_owned();
    Opened { till, server, socket }
}

/// A response.
#[derive(Debug, Default)]
pub(super) struct Got {
    pub(super) status: u16,
    /// Names in small letters.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Got {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// A connection.
pub(super) struct Http1(pub(super) BufReader<TcpStream>);

impl Http1 {
    pub(super) async fn connect(socket: &str) -> Http1 {
        Http1(BufReader::new(TcpStream::connect(socket).await.unwrap()))
    }

    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // A server that hung up says why in what it sent before.
        let _ = self.0.write_all(bytes.as_ref()).await;
    }

    /// The next response; `None` if there is none.
    pub(super) async fn receive(&mut self, has_body: bool) -> Option<Got> {
        let mut got = self.head().await?;
        let length = got.header("content-length").and_then(|n| n.parse().ok());
        let mut body = Vec::new();
        match length {
            _ if !has_body || matches!(got.status, 204 | 304) => {}
            Some(length) => {
                body.resize(length, 0);
                self.0.read_exact(&mut body).await.ok()?;
            }
            None if got.header("transfer-encoding") == Some("chunked") => while self.chunk(&mut body).await? > 0 {},
            None => drop(self.0.read_to_end(&mut body).await),
        }
        got.body = String::from_utf8(body).unwrap();
        Some(got)
    }

    /// The head of the next response.
    pub(super) async fn head(&mut self) -> Option<Got> {
        let mut got = Got::default();
        let status = self.line().await?;
        got.status = status.split(' ').nth(1)?.parse().ok()?;
        loop {
            let line = self.line().await?;
            let Some((name, value)) = line.split_once(": ") else { return Some(got) };
            got.headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
    }

    /// The bytes of the next chunk of a body.
    pub(super) async fn chunk(&mut self, body: &mut Vec<u8>) -> Option<usize> {
        let length = usize::from_str_radix(&self.line().await?, 16).ok()?;
        let start = body.len();
        body.resize(start + length, 0);
        self.0.read_exact(&mut body[start..]).await.ok()?;
        self.line().await?;
        Some(length)
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.0.read_line(&mut line).await {
            Ok(1..) => Some(line.trim_end().to_owned()),
            _ => None,
        }
    }

    /// Sends a request and receives its response.
    pub(super) async fn ask(&mut self, method: &str, path: &str, headers: &[&str], body: &str) -> Got {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\n");
        headers.iter().for_each(|header| head += &format!("{header}\r\n"));
        if method == "POST" || !body.is_empty() {
            head += &format!("content-length: {}\r\n", body.len());
        }
        self.send(format!("{head}\r\n{body}")).await;
        self.receive(method != "HEAD").await.unwrap_or_else(|| panic!("no response to {method} {path}"))
    }

    pub(super) async fn post(&mut self, path: &str, body: &str) -> Got {
        self.ask("POST", path, &["content-type: application/json"], body).await
    }

    pub(super) async fn get(&mut self, path: &str) -> Got {
        self.ask("GET", path, &[], "").await
    }
}
