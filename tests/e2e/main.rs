//! End-to-end tests, one binary: real sockets, and real processes where it matters.

mod bad_peer;
mod cli;
mod codecs;
mod compat;
mod corners;
mod dispatch;
mod edges;
mod fair;
mod keys;
mod layers;
mod lifecycle;
mod limits;
mod pressure;
mod registry_nodes;
mod schema;
mod streams;
mod styles;
mod support;
mod surface;
mod threads;
mod trust;
mod truth;
