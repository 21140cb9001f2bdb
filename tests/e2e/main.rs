//! End-to-end tests, one binary: real sockets, and real processes where it matters.

mod bad_peer;
mod cli;
mod corners;
mod fair;
mod layers;
mod lifecycle;
mod pressure;
mod review;
mod streams;
mod styles;
mod support;
mod surface;
mod threads;
mod truth;
