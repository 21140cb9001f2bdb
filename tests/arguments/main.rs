//! What a service's parameters and results may be, beyond owned types with a schema: borrowed ones, and types that only
//! serde knows.

use std::future::Future;

mod borrowed;
mod json_only;

/// On a runtime of its own.
fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}
