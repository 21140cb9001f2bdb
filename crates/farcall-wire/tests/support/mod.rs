//! What the tests of the protocol share.

#![allow(dead_code, unreachable_pub)]

use farcall_core::{MethodDescriptor, MethodTraits, Never, RpcError, ServiceDescriptor};
pub use farcall_sim::Rng;
use farcall_wire::Catalogue;

/// A service whose methods take a number and return one.
pub fn service(name: &str, methods: &[(&str, bool)]) -> ServiceDescriptor {
    let method = |&(name, oneway): &(&str, bool)| {
        MethodDescriptor::build::<(u32,), u64, Never>(name, None, "", &[], name, MethodTraits { oneway, ..Default::default() })
    };
    ServiceDescriptor {
        name: name.to_owned(),
        foreign_name: None,
        docs: String::new(),
        version: String::new(),
        group: String::new(),
        methods: methods.iter().map(method).collect(),
    }
}

/// A side that serves one service.
pub struct One(pub ServiceDescriptor);

impl Catalogue for One {
    fn get(&self, _: usize) -> Option<&ServiceDescriptor> {
        Some(&self.0)
    }

    fn find(&self, service: &str, _: &str, _: &str) -> Result<(usize, &ServiceDescriptor), RpcError> {
        match service == self.0.name {
            true => Ok((0, &self.0)),
            false => Err(RpcError::not_executed(farcall_core::Code::Unimplemented, "no such service here")),
        }
    }
}

/// Seeds to run: those from `first` on, or the one in FARCALL_SEED.
pub fn seeds(first: u64, count: u64) -> std::ops::Range<u64> {
    match std::env::var("FARCALL_SEED").ok().and_then(|s| s.parse().ok()) {
        Some(one) => one..one + 1,
        None => first..first + count,
    }
}
