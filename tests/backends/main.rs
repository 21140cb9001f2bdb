//! The conformance suite of registries: one set of tests, every backend, real servers.
//!
//! What published client crates did to their users in our trials, and the tests that ours do not meet it:
//!
//! | crate | what it did | test |
//! |---|---|---|
//! | etcd-client | its keep-alive ended with the server and was never made anew: 12 s later all keys were gone | `etcd::leases_are_renewed_after_a_crash_of_the_server`, `etcd::a_revoked_lease_is_lost_and_replaced` |
//! | etcd-client | its watch ended with the connection and was never made anew | `etcd::watches_are_made_anew_after_a_crash_of_the_server` |
//! | etcd-client | a compacted watch was a success that says cancelled | `etcd::a_compacted_watch_reads_all_anew` |
//! | etcd-client | a call to a server cut off from the others, or stopped, hung | `a_partition_heals`, on every backend |
//! | zookeeper-client | asked for the next change after the end of its session it panicked | `zookeeper::the_end_of_a_session_is_no_panic_and_no_end` |
//! | zookeeper-client | it declared its session over while the server kept it and its nodes | `zookeeper::only_the_server_ends_a_session` |
//! | zookeeper-client | nothing was read anew after a reconnect | `zookeeper::what_changed_during_an_outage_shows_after_it` |
//! | any of ZooKeeper | a node that one's own dead session left vanished under the new one | `what_a_dead_session_left_is_replaced`, on every backend |
//! | zookeeper, zookeeper-async, etcd-rs | watches were lost | `flapping_ends_in_the_truth`, on every backend; `what_no_push_told_is_pulled_when_it_is_time` (guard) |
//! | nacos-sdk | no jitter in its pauses | `pauses_after_failures_double_to_their_cap_and_differ` (guard) |
//! | nacos-sdk | a new consumer saw nobody for 13 s after an outage; a question in the outage hung | `empty_is_not_unknown`, `through_the_guard_an_outage_fails_no_call`, on every backend |
//! | nacos-sdk | a withdrawn last instance stayed | `through_the_guard_what_is_withdrawn_is_gone_at_once`, on every backend |

mod embedded;
mod etcd;
mod guarded;
mod old_zookeeper;
mod several;
mod suite;
mod support;
mod zookeeper;
