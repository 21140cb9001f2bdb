//! Calls again what was cut off. Safe for what is done once however often it is called, which here is everything.

use std::time::Duration;

use farcall::prelude::*;
use farcall::{Fault, Method};

/// How often a call is made while connections are being cut and providers die.
const ATTEMPTS: usize = 100;
/// What a lost provider is given to come back.
const PAUSE: Duration = Duration::from_millis(10);

/// Calls for as long as there is no connection, or it is cut before the reply; `failed` is told why. A provider that has no record of an
/// earlier attempt refuses one with a key; if `failed` has it forgotten, the next one may be made.
pub(super) async fn again<M: Method>(call: impl Fn() -> Call<M> + Send, failed: impl Fn(&RpcError) + Send) -> Reply<M::Out, M::Err> {
    for _ in 1..ATTEMPTS {
        match call().await.map_err(M::Err::split) {
            Ok(out) => return Ok(out),
            Err(Ok(app)) => return Err(app.lift()),
            Err(Err(e)) if !matches!(e.code(), Code::Unavailable | Code::FailedPrecondition) => return Err(e.into()),
            Err(Err(e)) => {
                failed(&e);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    call().await
}
