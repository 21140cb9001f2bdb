//! What a call costs, counted instead of timed, so that a busy machine changes nothing: allocations, reads and writes
//! of the link, and system calls of a provider process.
//!
//! A binary of its own, because its allocator counts. Client and server share one thread: whatever either of them
//! allocates is counted, whatever a neighbouring test does is not.

mod allocations;
mod closed_loop;
mod counted_link;
mod counting;
mod link_operations;
mod service;
mod system_calls;
