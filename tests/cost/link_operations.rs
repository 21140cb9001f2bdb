//! Reads and writes of the link per call and side: two per call when it is alone, two per batch when many are in
//! flight.

use crate::closed_loop::{COUNTED, Runtime, undisturbed};
use crate::service::PostClient;

async fn next(client: PostClient) {
    assert_eq!(client.next(1).await.unwrap(), 2);
}

#[test]
fn calls_in_flight_share_reads_and_writes() {
    for runtime in [Runtime::CurrentThread, Runtime::OneWorker] {
        for (inflight, most) in [(1, 2.0), (16, 0.2), (256, 0.02)] {
            let per_call = |operations: u64| operations as f64 / COUNTED as f64;
            let cost = undisturbed(runtime, inflight, next, |c| per_call(c.client_operations.max(c.server_operations)) <= most);
            for (side, operations) in [("client", cost.client_operations), ("server", cost.server_operations)] {
                let per_call = per_call(operations);
                assert!(per_call <= most, "{side} on {runtime:?}: {per_call} reads and writes per call, {inflight} in flight, not {most}");
                assert!(operations > 0, "{side} on {runtime:?}: nothing was counted");
            }
        }
    }
}
