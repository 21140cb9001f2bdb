//! Allocations per call, client and server together: none for scalars, one for each owned field that is decoded.

use crate::closed_loop::{COUNTED, Runtime, cost};
use crate::counting::uncounted;
use crate::service::{Letter, PostClient};

/// Buffers may still grow now and then: so many allocations in all the calls together are none per call.
const STRAY: u64 = COUNTED / 1_000;

async fn scalar(client: PostClient) {
    assert_eq!(client.next(41).await.unwrap(), 42);
}

async fn letter(client: PostClient) {
    let letter = uncounted(Letter::sample);
    let answer = client.echo(letter).await.unwrap();
    assert_eq!(answer.lines.len(), 5);
}

#[test]
fn a_call_of_scalars_allocates_nothing() {
    for inflight in [1, 16, 256] {
        let allocations = cost(Runtime::CurrentThread, inflight, scalar).allocations;
        assert!(allocations <= STRAY, "{allocations} allocations in {COUNTED} calls, {inflight} in flight");
    }
}

/// Decoded by the provider and again by the caller; to encode takes none.
#[test]
fn an_owned_field_is_one_allocation_each_way() {
    for inflight in [1, 16, 256] {
        let allocations = cost(Runtime::CurrentThread, inflight, letter).allocations;
        let wanted = 2 * Letter::OWNED * COUNTED;
        assert!(
            allocations.abs_diff(wanted) <= STRAY,
            "{allocations} allocations in {COUNTED} calls, {inflight} in flight: not {} per call",
            2 * Letter::OWNED
        );
    }
}
