//! What the tests of the protocol share.

#![allow(dead_code, unreachable_pub)]

use farcall_core::{MethodDescriptor, MethodTraits, Never, RpcError, ServiceDescriptor};
use farcall_wire::Catalogue;

/// Numbers that look random and are the same for a seed on every machine: splitmix64.
#[derive(Debug, Clone)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// True once in `n`.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

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
