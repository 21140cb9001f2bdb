//! End-to-end tests, one binary: real sockets, and real processes where it matters.

mod styles;
mod support;
mod surface;
mod truth;
