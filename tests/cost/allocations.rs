//! Allocations per call, client and server together: none for scalars, one for each owned field that is decoded.

use farcall::plan::decode_with;
use farcall::{Plan, Schema, TypeSchema, compact};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::closed_loop::{COUNTED, Cost, Runtime, undisturbed};
use crate::counting::{allocations, uncounted};
use crate::service::{Letter, PostClient, newer};

/// Buffers may still grow now and then: so many allocations in all the calls together are none per call.
const STRAY: u64 = COUNTED / 1_000;

async fn scalar(client: PostClient) {
    assert_eq!(client.next(41).await.unwrap(), 42);
}

async fn borrowed(client: PostClient) {
    assert_eq!(client.measure("Gao Ming of the thousand miles", &[7; 100]).await.unwrap(), 130);
}

async fn letter(client: PostClient) {
    let letter = uncounted(Letter::sample);
    let answer = client.echo(letter).await.unwrap();
    assert_eq!(answer.lines.len(), 5);
}

#[test]
fn a_call_of_scalars_allocates_nothing() {
    for inflight in [1, 16, 256] {
        let allocations = undisturbed(Runtime::CurrentThread, inflight, scalar, |c| c.allocations <= STRAY).allocations;
        assert!(allocations <= STRAY, "{allocations} allocations in {COUNTED} calls, {inflight} in flight");
    }
}

/// The call keeps what it was lent in one piece until it is sent; the handler borrows from the message.
#[test]
fn all_that_is_borrowed_is_one_allocation() {
    for inflight in [1, 16, 256] {
        let fine = |c: &Cost| c.allocations.abs_diff(COUNTED) <= STRAY;
        let allocations = undisturbed(Runtime::CurrentThread, inflight, borrowed, fine).allocations;
        assert!(
            allocations.abs_diff(COUNTED) <= STRAY,
            "{allocations} allocations in {COUNTED} calls, {inflight} in flight: not 1 per call"
        );
    }
}

/// Decoded by the provider and again by the caller; to encode takes none.
#[test]
fn an_owned_field_is_one_allocation_each_way() {
    for inflight in [1, 16, 256] {
        let wanted = 2 * Letter::OWNED * COUNTED;
        let fine = |c: &Cost| c.allocations.abs_diff(wanted) <= STRAY;
        let allocations = undisturbed(Runtime::CurrentThread, inflight, letter, fine).allocations;
        assert!(
            allocations.abs_diff(wanted) <= STRAY,
            "{allocations} allocations in {COUNTED} calls, {inflight} in flight: not {} per call",
            2 * Letter::OWNED
        );
    }
}

/// Read by a plan, in both directions: one allocation for each owned field, as where the types are the same.
#[test]
fn another_version_costs_no_allocation() {
    fn read<W: Schema + Serialize, R: Schema + DeserializeOwned>(written: &W) -> (R, u64) {
        let plan = Plan::compile(&TypeSchema::of::<W>(), &TypeSchema::of::<R>()).unwrap();
        assert!(!plan.is_same());
        let bytes = compact::encode(written).unwrap();
        let before = allocations();
        let value = decode_with(&plan, &bytes).unwrap();
        (value, allocations() - before)
    }
    let newer = newer::Letter { stamp: None, ..newer::Letter::sample() };
    assert_eq!(read(&Letter::sample()), (newer, Letter::OWNED));
    assert_eq!(read(&newer::Letter::sample()), (Letter::sample(), Letter::OWNED));
}
