//! Under which addresses a server is registered: those that others can connect to.

use std::net::{IpAddr, SocketAddr};

use farcall_core::{Address, Code, RpcError, Stage};

use crate::backends::sockets;
use crate::entry::Advertised;
use crate::host::address_towards;
use crate::watcher::{Event, Watcher};

/// Where the default route leads: an address of the block for documentation, to which nothing is sent.
const ANYWHERE: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 9),
    SocketAddr::new(IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 9),
];

/// The addresses to register: those that were set, or those of `$FARCALL_ADVERTISE`, or found from what the server listens on.
pub(crate) fn addresses(
    set: &[String],
    listened: &[Address],
    registries: &[String],
    watcher: &dyn Watcher,
) -> Result<Vec<Advertised>, RpcError> {
    let env = std::env::var("FARCALL_ADVERTISE").unwrap_or_default();
    let from_env: Vec<String> = env.split(',').map(str::trim).filter(|a| !a.is_empty()).map(str::to_owned).collect();
    let (set, whose) = if set.is_empty() { (&from_env[..], "FARCALL_ADVERTISE") } else { (set, "advertise") };
    let found = match set {
        [] => found(listened, &sockets(registries), watcher),
        set => set.iter().map(|text| given(text, listened, whose)).collect::<Result<Vec<_>, _>>()?,
    };
    let advertised = |address: Address| Advertised { protocol: "farcall".to_owned(), address: address.to_string() };
    Ok(found.into_iter().map(advertised).collect())
}

fn given(text: &str, listened: &[Address], whose: &str) -> Result<Address, RpcError> {
    let bad = |why: &str| RpcError::not_sent(Code::InvalidArgument, format!("{whose}({text:?}): {why}")).with_stage(Stage::Resolve);
    let address: Address = text.parse().map_err(|e: RpcError| bad(e.message()))?;
    match place(&address) {
        Some((host, _)) if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified()) => {
            Err(bad("nobody can connect to \"all addresses\": name one"))
        }
        Some((host, 0)) => {
            // Of what is spoken there, if it listens to that.
            let same = |listened: &&Address| std::mem::discriminant(*listened) == std::mem::discriminant(&address);
            let port = listened.iter().filter(same).chain(listened).find_map(|listened| place(listened).map(|(_, port)| port));
            let port = port.ok_or_else(|| bad("port 0 stands for the one that the server listens on, and it listens on none"))?;
            Ok(at(&address, host.to_owned(), port))
        }
        _ => Ok(address),
    }
}

/// Host and port, of addresses that have them.
fn place(address: &Address) -> Option<(&str, u16)> {
    match address {
        Address::Tcp { host, port } | Address::Tls { host, port } | Address::Quic { host, port } => Some((host, *port)),
        _ => None,
    }
}

/// The same elsewhere.
fn at(address: &Address, host: String, port: u16) -> Address {
    match address {
        Address::Tls { .. } => Address::Tls { host, port },
        Address::Quic { .. } => Address::Quic { host, port },
        _ => Address::Tcp { host, port },
    }
}

/// From what the server listens on: of "all addresses" the one that routes to the registries.
fn found(listened: &[Address], registries: &[SocketAddr], watcher: &dyn Watcher) -> Vec<Address> {
    let remote = registries.iter().any(|registry| !registry.ip().is_loopback());
    let mut found = Vec::new();
    for address in listened {
        let address = match place(address) {
            Some((host, port)) => match host.parse::<IpAddr>() {
                Ok(ip) if ip.is_unspecified() => at(address, own_address(ip, registries, watcher).to_string(), port),
                _ => {
                    if remote && address.is_local() {
                        watcher.tell(&Event::Warning(&format!(
                            "registered at a remote registry as {address}, which only this host can connect to: listen on another \
                             address, or set advertise"
                        )));
                    }
                    address.clone()
                }
            },
            None => address.clone(),
        };
        if !found.contains(&address) {
            found.push(address);
        }
    }
    // What is reached from everywhere first.
    found.sort_by_key(|address| matches!(address, Address::Unix(_) | Address::Memory(_)));
    found
}

/// The address of this host that others reach, if it listens on all of them.
fn own_address(listened: IpAddr, registries: &[SocketAddr], watcher: &dyn Watcher) -> IpAddr {
    let usable = |ip: &IpAddr| !ip.is_loopback() && (listened.is_ipv6() || ip.is_ipv4());
    // A registry on this very host says nothing of where consumers are: then as to anywhere.
    let remote = registries.iter().filter(|registry| !registry.ip().is_loopback());
    let towards = remote.chain(&ANYWHERE).copied();
    if let Some(ip) = towards.filter_map(address_towards).find(usable) {
        return ip;
    }
    if registries.iter().any(|registry| !registry.ip().is_loopback()) {
        watcher.tell(&Event::Warning(
            "no address of this host was found that leads to the registry: registered as loopback, which only this host can connect to; \
             set advertise",
        ));
    }
    if listened.is_ipv6() { IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]) } else { IpAddr::from([127, 0, 0, 1]) }
}
