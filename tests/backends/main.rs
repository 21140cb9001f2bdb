//! The conformance suite of registries: one set of tests, every backend, real servers.

mod suite;
mod support;
mod zookeeper;
