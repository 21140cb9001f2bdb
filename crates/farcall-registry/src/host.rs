//! Which machine this is, and which of its addresses others reach.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use crate::entry::Host;

/// This machine, and the network namespace of this process; none where the system does not say.
pub fn this_host() -> Option<Host> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let digits: String = boot.trim().chars().filter(|c| *c != '-').collect();
    let boot = u128::from_str_radix(&digits, 16).ok()?.to_be_bytes();
    Some(Host { boot, network: network_namespace().unwrap_or(0) })
}

/// The number in `net:[4026531840]`.
fn network_namespace() -> Option<u64> {
    let link = std::fs::read_link("/proc/self/ns/net").ok()?;
    link.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

/// The address from which packets to `there` leave: the one of the right interface, whatever others there are. Nothing is sent.
pub(crate) fn address_towards(there: SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr = if there.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(there).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified()).then_some(address)
}

/// A name of this machine for people.
pub(crate) fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "?".to_owned() } else { name.to_owned() }
}

/// The name of the program that runs, for those who give none: `$FARCALL_APPLICATION`, or that of its file.
pub fn application() -> String {
    let set = std::env::var("FARCALL_APPLICATION").ok().filter(|name| !name.is_empty());
    let file = || std::env::current_exe().ok().and_then(|exe| Some(exe.file_stem()?.to_str()?.to_owned()));
    set.or_else(file).unwrap_or_else(|| "unnamed".to_owned())
}
