//! The conformance suite of registries: one set of tests, every backend, real servers.

mod embedded;
mod etcd;
mod guarded;
mod old_zookeeper;
mod several;
mod suite;
mod support;
mod zookeeper;
