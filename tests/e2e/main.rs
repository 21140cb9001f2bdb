//! End-to-end tests, one binary: real sockets, and real processes where it matters.

mod bad_peer;
mod cli;
mod layers;
mod styles;
mod support;
mod surface;
mod truth;
