//! Calls as spans of the crate `tracing`, with W3C trace context carried from process to process.

use farcall_core::{RpcError, Trace};
use tracing::Instrument;

use super::{CallInfo, Interceptor, Next, dropped};
use crate::connection::random_id;
use crate::method::BoxFuture;
use crate::observer::{Ended, Side};

/// Opens a span named `call` (target `farcall`, level INFO) around each call, with the fields `side`, `method`, `peer`, `caller`, `trace_id`,
/// `span_id` and `parent_id`, and says at its end how it went: at DEBUG, or at WARN if it failed or was dropped, because its deadline passed or its caller left. Given to both sides,
/// the server's span has the client's as its parent, and calls that a handler makes have the handler's.
///
/// Arguments, results and metadata are not logged.
#[derive(Debug, Clone, Copy, Default)]
pub struct Traced;

impl Traced {
    /// Around every call.
    pub fn new() -> Traced {
        Traced
    }
}

/// A span of the caller's trace, or the first of a new one.
fn child_of(parent: Option<Trace>) -> Trace {
    let random = random_id();
    let mut span_id = [0; 8];
    span_id.copy_from_slice(&random[..8]);
    match parent {
        Some(trace) => Trace { span_id, ..trace },
        // All zero is no id by the standard.
        None => Trace { trace_id: random_id(), span_id, flags: 1 },
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

impl Interceptor for Traced {
    fn intercept(&self, mut call: CallInfo, next: Next) -> BoxFuture<'static, Result<Ended, RpcError>> {
        let parent = call.trace();
        let own = child_of(parent);
        call.set_trace(own);
        let span = tracing::info_span!(
            target: "farcall",
            "call",
            side = if call.side() == Side::Server { "server" } else { "client" },
            method = call.method_name(),
            peer = call.peer().map_or("", |peer| peer.address.as_str()),
            caller = call.identity().map_or("", |caller| caller.name()),
            trace_id = hex(&own.trace_id),
            span_id = hex(&own.span_id),
            parent_id = parent.map_or_else(String::new, |parent| hex(&parent.span_id)),
        );
        if call.method().is_some_and(|m| m.traits.result_stream) {
            let span = span.clone();
            call.when_stream_ends(move |ended| span.in_scope(|| tracing::debug!(target: "farcall", ?ended, "stream ended")));
        }
        let mut running = Running { expires: call.0.context.expires, ended: false };
        let logged = async move {
            let ended = next.run(call).await;
            running.end();
            match &ended {
                Ok(Ended::Failed(code, certainty)) => tracing::warn!(target: "farcall", %code, ?certainty, "failed"),
                Ok(ended) => tracing::debug!(target: "farcall", ?ended, "ended"),
                Err(error) => tracing::warn!(target: "farcall", code = %error.code(), error = error.message(), "refused"),
            }
            ended
        };
        Box::pin(logged.instrument(span))
    }
}

/// A call of which nothing was said yet, and of which something is said also if it is dropped before its end: within its span, because
/// an instrumented future is dropped there.
struct Running {
    expires: Option<std::time::Instant>,
    ended: bool,
}

impl Running {
    fn end(&mut self) {
        self.ended = true;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            tracing::warn!(target: "farcall", code = %dropped(self.expires), "dropped");
        }
    }
}
