//! End-to-end tests, one binary: real sockets, and real processes where it matters.

mod bad_peer;
mod cli;
mod codecs;
mod corners;
mod layers;
mod pressure;
mod schema;
mod styles;
mod support;
mod surface;
mod truth;
