//! Bodies: how a request's is read within the limits, and what a response's is made of.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use farcall_core::{Code, RpcError, Stage};
use farcall_rpc::{Dispatch, Held};
use hyper::StatusCode;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::events::Events;
use crate::refusal::Refusal;

/// Bytes of a body of which this many, or the end, must come within the limit `stall`.
const PACE: usize = 16 << 10;
/// Bytes of a body that are read although it was refused.
const MOST_IGNORED: usize = 64 << 10;

/// The body of a response.
pub(crate) enum Reply {
    Whole(Bytes),
    Events(Box<Events>),
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Reply::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Reply::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Reply::Events(events) => events.poll_text(cx).map(|text| text.map(|text| Ok(Frame::data(text)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Reply::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Reply::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Reply::Events(_) => SizeHint::default(),
        }
    }
}

/// A body that comes a byte at a time is no better than one that stands still.
struct Pace {
    stall: Duration,
    since: Instant,
    bytes: usize,
}

impl Pace {
    fn left(&self, now: Instant) -> Duration {
        self.stall.saturating_sub(now.saturating_duration_since(self.since))
    }

    fn came(&mut self, bytes: usize) {
        self.bytes += bytes;
        if self.bytes >= PACE {
            (self.bytes, self.since) = (0, Instant::now());
        }
    }
}

/// Reads a request's body, within the limits `body` and `held`, before `expires`, and no slower than `stall` allows.
pub(crate) async fn read(
    mut body: Incoming,
    dispatch: &Dispatch,
    expires: Option<Instant>,
    stall: Duration,
) -> Result<(Bytes, Held), Refusal> {
    let most = dispatch.limits().body;
    let mut held = dispatch.hold();
    if body.size_hint().lower() > most as u64 {
        return Err(too_large(most));
    }
    let (mut first, mut rest) = (Bytes::new(), BytesMut::new());
    let mut pace = Pace { stall, since: Instant::now(), bytes: 0 };
    loop {
        let now = Instant::now();
        let patience = expires.map_or(Duration::MAX, |at| at.saturating_duration_since(now)).min(pace.left(now));
        let frame = tokio::time::timeout(patience, poll_fn(|cx| Pin::new(&mut body).poll_frame(cx))).await;
        let data = match frame {
            Err(_) => return Err(too_slow()),
            Ok(None) => break,
            Ok(Some(Err(e))) => return Err(Refusal::bad(format!("the body is broken: {e}"))),
            // Trailers are of no interest.
            Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
        };
        if first.len() + rest.len() + data.len() > most {
            return Err(too_large(most));
        }
        held.grow(data.len())?;
        pace.came(data.len());
        match first.is_empty() && rest.is_empty() {
            true => first = data,
            false => {
                rest.extend_from_slice(&std::mem::take(&mut first));
                rest.extend_from_slice(&data);
            }
        }
    }
    Ok((if rest.is_empty() { first } else { rest.freeze() }, held))
}

/// Reads what nobody asked for, up to a small size.
pub(crate) async fn ignore(mut body: Incoming, stall: Duration) {
    let mut room = MOST_IGNORED;
    let reading = async {
        while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            room = room.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if room == 0 {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(stall, reading).await;
}

fn too_large(most: usize) -> Refusal {
    let why = format!("the body is larger than the limit `body`, {most} bytes");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, Code::ResourceExhausted, why)
}

fn too_slow() -> Refusal {
    let why = "the request's body did not come in time: see the limit `stall`, and the call's own deadline";
    let error = RpcError::not_executed(Code::DeadlineExceeded, why).with_stage(Stage::ServerQueue);
    Refusal { status: StatusCode::REQUEST_TIMEOUT, error, allow: None }
}
