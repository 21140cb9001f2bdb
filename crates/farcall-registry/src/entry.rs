//! What a registry knows: an instance that serves a service.

use std::collections::BTreeMap;
use std::fmt;

use farcall_core::{Fingerprint, ServiceDescriptor, data};

/// A service as registries tell them apart: providers and consumers must agree in all three.
#[data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    /// Service name: the trait's, or the one it is given.
    pub name: String,
    /// Group, empty if none.
    pub group: String,
    /// Version, empty if none.
    pub version: String,
}

impl ServiceKey {
    /// Of a service that is known by its trait.
    pub fn of(service: &ServiceDescriptor) -> ServiceKey {
        ServiceKey { name: service.name.clone(), group: service.group.clone(), version: service.version.clone() }
    }

    /// The same by the name under which others know it (a Java interface), if it has one.
    pub fn foreign(service: &ServiceDescriptor) -> ServiceKey {
        let name = service.foreign_name.as_ref().unwrap_or(&service.name).clone();
        ServiceKey { name, ..ServiceKey::of(service) }
    }

    /// Whether an entry of the service `key` is among those that are asked for by this one: in its group and version `*` is any, and
    /// several groups may be named, apart by commas.
    pub fn covers(&self, key: &ServiceKey) -> bool {
        let group = self.group == "*" || self.group == key.group || self.group.split(',').any(|group| group.trim() == key.group);
        self.name == key.name && group && (self.version == "*" || self.version == key.version)
    }
}

/// As people write it: `group/name:version`, without what is empty.
impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.group.is_empty() {
            write!(f, "{}/", self.group)?;
        }
        f.write_str(&self.name)?;
        if !self.version.is_empty() {
            write!(f, ":{}", self.version)?;
        }
        Ok(())
    }
}

/// An instance's name: 16 random bytes that it keeps for its life. In registries whose layout has no place for it, it is derived
/// from the address, so that the same instance has the same name for everybody who reads it there.
#[data(crate = farcall_core)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceId(pub [u8; 16]);

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InstanceId({self})")
    }
}

/// One address of an instance and what is spoken there.
#[data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Advertised {
    /// `farcall`, `http`; of other people's providers `tri`, `dubbo` and the like. A reader passes over what it does not speak.
    pub protocol: String,
    /// As text, since readers must not fail over forms that they do not know: `tcp://10.0.0.7:9000`, `unix:/run/pay.sock`.
    pub address: String,
}

/// The machine an instance runs on, so that one on the same machine may take a local path.
#[data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Host {
    /// The kernel's boot id: equal only on one machine, until it is started again.
    pub boot: [u8; 16],
    /// The network namespace, where the system has one; two containers of one machine differ in it.
    pub network: u64,
}

/// The row that a method has in its provider's method table: what must be equal, or be translated, for a call.
#[data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MethodPrints {
    /// Method name.
    pub name: String,
    /// Fingerprint of the arguments.
    pub args: [u8; 16],
    /// Fingerprint of the result.
    pub result: [u8; 16],
    /// Fingerprint of the application error.
    pub error: [u8; 16],
    /// As in a row of the protocol's Bind: 1 one-way, 2 a stream of arguments, 4 a stream of results.
    pub bits: u8,
}

/// Which entry: a service at one start of one instance.
#[data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryKey {
    /// The service.
    pub service: ServiceKey,
    /// The instance.
    pub instance: InstanceId,
    /// Grows with every start of the instance: of two entries of one instance the greater counts.
    pub incarnation: u64,
}

/// An instance that serves a service, as its provider registers it and consumers read it.
#[data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The service.
    pub service: ServiceKey,
    /// The instance.
    pub instance: InstanceId,
    /// Grows with every start of the instance (microseconds since 1970 where nothing better is known).
    pub incarnation: u64,
    /// The application it belongs to, for people and rules.
    pub application: String,
    /// Where it listens, best first. At least one.
    pub addresses: Vec<Advertised>,
    /// Zone, tag and the like, by name.
    pub labels: BTreeMap<String, String>,
    /// Its share of the calls relative to others'; 100 unless set, 0 = none.
    pub weight: u32,
    /// Off = known, but not to be called.
    pub enabled: bool,
    /// Its machine, if it says so.
    pub host: Option<Host>,
    /// Its method table, in order of names; empty if unknown (other people's providers).
    pub methods: Vec<MethodPrints>,
    /// What else other people's registries say of it, as it was found there: nothing is lost on the way through.
    pub params: BTreeMap<String, String>,
}

impl Entry {
    /// An instance of which no more than an address is known. Its name is made from that, so that all who read it find the same.
    pub fn at(service: &ServiceKey, address: impl Into<String>) -> Entry {
        let address = address.into();
        Entry {
            service: service.clone(),
            instance: crate::derived::id(&address),
            incarnation: 0,
            application: String::new(),
            addresses: vec![Advertised { protocol: "farcall".to_owned(), address }],
            labels: BTreeMap::new(),
            weight: 100,
            enabled: true,
            host: None,
            methods: Vec::new(),
            params: BTreeMap::new(),
        }
    }

    /// Which one it is.
    pub fn key(&self) -> EntryKey {
        EntryKey { service: self.service.clone(), instance: self.instance, incarnation: self.incarnation }
    }

    /// Whether calls may go there at all.
    pub fn is_callable(&self) -> bool {
        self.enabled && self.weight > 0
    }

    /// The first address of a protocol.
    pub fn address(&self, protocol: &str) -> Option<&str> {
        self.addresses.iter().find(|a| a.protocol == protocol).map(|a| a.address.as_str())
    }
}

impl MethodPrints {
    /// The method table of a service, in order of names.
    pub fn table(service: &ServiceDescriptor) -> Vec<MethodPrints> {
        let print = |f: Fingerprint| f.0;
        let mut table: Vec<MethodPrints> = service
            .methods
            .iter()
            .map(|m| MethodPrints {
                name: m.name.clone(),
                args: print(m.prints.args),
                result: print(m.prints.result),
                error: print(m.prints.error),
                bits: u8::from(m.traits.oneway) | u8::from(m.traits.args_stream) << 1 | u8::from(m.traits.result_stream) << 2,
            })
            .collect();
        table.sort_by(|a, b| a.name.cmp(&b.name));
        table
    }
}
