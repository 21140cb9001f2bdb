//! The conformance suite of registries: one set of tests, every backend, real servers.

mod etcd;
mod suite;
mod support;
mod zookeeper;
