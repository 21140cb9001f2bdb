//! The way in for other protocols, through a small one: a line `Service.method {json}` is a call, a line is its reply.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use farcall::prelude::*;
use farcall::{CodecId, Dispatch, ForeignCall, ForeignItem, ForeignReply, Io, Limits, Protocol, Sniff, Target};
use farcall_tests::{PaymentServer, Till};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::support::{run, until};

/// Counts.
#[farcall::service]
trait Counting {
    /// From 1 up to `to`; fails behind it if `to` is odd.
    async fn count(&self, to: u64) -> Reply<Streaming<u64>>;
    /// Up to here.
    async fn sum(&self, numbers: Streaming<u64>) -> Reply<u64>;
}

struct Counter;

impl Counting for Counter {
    async fn count(&self, to: u64) -> Reply<Streaming<u64>> {
        Ok(Streaming::produce(move |out| async move {
            for n in 1..=to {
                out.send(n).await?;
            }
            match to % 2 {
                0 => Ok(()),
                _ => Err(RpcError::new(Code::Aborted, "odd")),
            }
        }))
    }

    async fn sum(&self, _: Streaming<u64>) -> Reply<u64> {
        Ok(0)
    }
}

struct Lines;

impl Protocol for Lines {
    fn name(&self) -> &'static str {
        "lines"
    }

    fn sniff(&self, first: &[u8]) -> Sniff {
        if first.starts_with(b"*") { Sniff::Yes } else { Sniff::No }
    }

    fn serve(&self, link: Io, first: BytesMut, dispatch: Dispatch) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + 'static>> {
        Box::pin(async move {
            let (read, mut write) = tokio::io::split(link);
            let mut lines = BufReader::new(std::io::Cursor::new(first.to_vec()).chain(read)).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let answer = answer(&dispatch, &line[1..]).await;
                if write.write_all(format!("{answer}\n").as_bytes()).await.is_err() {
                    return;
                }
            }
        })
    }
}

fn call(dispatch: &Dispatch, line: &str) -> ForeignCall {
    let mut words = line.splitn(3, ' ');
    let (name, ms, args) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap_or("{}"));
    let (service, method) = name.rsplit_once('.').unwrap();
    let place = dispatch.services().position(|s| s.name == service).unwrap_or(99);
    let row = dispatch.services().nth(place).and_then(|s| s.method(method)).map_or(99, |(row, _)| row);
    let target = Target { service: place, method: row };
    let mut call = ForeignCall::new(target, CodecId::Json, args.to_owned().into());
    call.expires = ms.parse().ok().map(|ms| Instant::now() + Duration::from_millis(ms));
    call
}

async fn answer(dispatch: &Dispatch, line: &str) -> String {
    let call = call(dispatch, line);
    match dispatch.call(call).await {
        ForeignReply::Result(bytes) => format!("ok {}", String::from_utf8_lossy(&bytes)),
        ForeignReply::AppError(bytes) => format!("app {}", String::from_utf8_lossy(&bytes)),
        ForeignReply::Failed(e) => format!("failed {e}"),
        ForeignReply::Started => "started".to_owned(),
        ForeignReply::Stream(mut items) => {
            let mut all = String::from("stream");
            loop {
                let mut item = Vec::new();
                match poll_fn(|cx| items.poll_item(cx, &mut item)).await {
                    ForeignItem::Item => all += &format!(" {}", String::from_utf8_lossy(&item)),
                    ForeignItem::End => return all + " end",
                    ForeignItem::AppError(e) => return all + &String::from_utf8_lossy(&e),
                    ForeignItem::Failed(e) => return all + &format!(" {e}"),
                }
            }
        }
    }
}

async fn listening(limits: Limits) -> (Arc<Till>, Server, String) {
    let till = Arc::new(Till::default());
    let builder = Server::builder().serve(PaymentServer::shared(till.clone())).serve(CountingServer::new(Counter));
    let server = builder.protocol(Lines).limits(limits).listen("tcp://127.0.0.1:0").await.unwrap();
    let socket = server.address().to_string().trim_start_matches("tcp://").to_owned();
    (till, server, socket)
}

async fn say(socket: &str, lines: &[&str]) -> Vec<String> {
    let mut link = BufReader::new(TcpStream::connect(socket).await.unwrap());
    let mut answers = Vec::new();
    for line in lines {
        link.write_all(format!("*{line}\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        link.read_line(&mut answer).await.unwrap();
        answers.push(answer.trim().to_owned());
    }
    answers
}

#[test]
fn another_protocol_calls_the_same_services() {
    run(async {
        let (till, _server, socket) = listening(Limits::default()).await;
        let calls = [
            r#"Payment.status - {"id":7}"#,
            r#"Payment.pay - {"order":{"id":1,"lines":[],"coupon":null}}"#,
            r#"Payment.pay - {"order":3}"#,
            r#"Payment.note - {"text":"hello"}"#,
            r#"Payment.note - {"txt":1}"#,
            r#"Payment.notes -"#,
            r#"Payment.sum - {"orders":[]}"#,
            r#"Payment.panics - {"text":"oh"}"#,
            r#"Payment.nothing -"#,
            r#"Counting.count - {"to":4}"#,
            r#"Counting.count - {"to":3}"#,
            r#"Counting.sum - {}"#,
        ];
        let answers = say(&socket, &calls).await;
        let expected = [
            r#"ok {"Paid":{"cents":250}}"#,
            r#"app {"Declined":{"reason":"nothing to pay"}}"#,
            "[InvalidArgument, not executed]",
            "started",
            "[InvalidArgument, not executed]",
            r#"ok ["hello"]"#,
            "ok 0",
            "the handler panicked: oh [Internal, may have been executed]",
            "[Unimplemented, not executed]",
            "stream 1 2 3 4 end",
            "stream 1 2 3 odd [Aborted, may have been executed]",
            "farcall's own [Unimplemented, not executed]",
        ];
        for (answer, expected) in answers.iter().zip(expected) {
            assert!(answer.ends_with(expected), "{answer}, but it should be: {expected}");
        }
        assert_eq!(till.paid.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_foreign_caller_gives_up_like_any_other() {
    run(async {
        let (till, server, socket) = listening(Limits::default()).await;
        // Dropped at its deadline, for it is idempotent; the other runs on.
        for name in ["slow", "sure"] {
            let answers = say(&socket, &[&format!(r#"Payment.{name} 50 {{"ms":100}}"#)]).await;
            assert!(answers[0].ends_with("[DeadlineExceeded, may have been executed]"), "{answers:?}");
        }
        until("the sure one has ended", || till.ended.load(Ordering::SeqCst) == 1).await;
        let answers = say(&socket, &["Payment.notes 0"]).await;
        assert!(answers[0].ends_with("[DeadlineExceeded, not executed]"), "{answers:?}");
        // The link goes away under a call: the same.
        for name in ["slow", "sure"] {
            let mut link = TcpStream::connect(&socket).await.unwrap();
            let begun = till.begun.load(Ordering::SeqCst);
            link.write_all(format!("*Payment.{name} - {{\"ms\":50}}\n").as_bytes()).await.unwrap();
            until("it has begun", || till.begun.load(Ordering::SeqCst) > begun).await;
            drop(link);
        }
        server.drain(Duration::from_secs(10)).await.unwrap();
        assert!(till.ended.load(Ordering::SeqCst) >= 2);
    });
}

#[test]
fn a_foreign_call_keeps_to_the_server_s_limits() {
    run(async {
        let limits = Limits { server_in_flight: 1, streams: 0, body: 40, ..Limits::default() };
        let (till, _server, socket) = listening(limits).await;
        let mut link = TcpStream::connect(&socket).await.unwrap();
        link.write_all(b"*Payment.sure - {\"ms\":300}\n").await.unwrap();
        until("it has begun", || till.begun.load(Ordering::SeqCst) == 1).await;
        let refused = say(&socket, &["Payment.notes -"]).await;
        assert!(refused[0].contains("`server_in_flight`") && refused[0].ends_with("[ResourceExhausted, not executed]"), "{refused:?}");
        until("it has ended", || till.ended.load(Ordering::SeqCst) == 1).await;
        let echo = format!(r#"Payment.echo - {{"bytes":"{}"}}"#, "A".repeat(48));
        let answers = say(&socket, &[r#"Counting.count - {"to":3}"#, &echo]).await;
        assert!(answers[0].contains("`streams`"), "{answers:?}");
        assert!(answers[1].contains("`body` is 40"), "{answers:?}");
    });
}
