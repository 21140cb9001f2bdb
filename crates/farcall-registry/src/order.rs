//! Which instance first: by whether it is doubted, by its method table, by zone; among equals at random, by weight.
//!
//! Every consumer draws for itself, so that not all of them take the first; to balance by load is not this module's.

use farcall_core::{Address, Endpoint};

use crate::entry::{Entry, Host, InstanceId};
use crate::fit::Fit;
use crate::guard::{Instance, Random};

/// The label of an endpoint that says which instance it is of, and the one with its incarnation.
const INSTANCE: &str = "farcall.instance";
const INCARNATION: &str = "farcall.incarnation";

/// Where farcall is spoken, as far as this program understands the addresses.
pub(crate) fn addresses(entry: &Entry) -> impl Iterator<Item = Address> + '_ {
    entry.addresses.iter().filter(|a| a.protocol == "farcall").filter_map(|a| a.address.parse().ok())
}

/// The addresses that lead to an entry from this host: the local path first if it is on this host, no local ones if it is not.
fn reachable(entry: &Entry, here: Option<&Host>) -> Vec<Address> {
    // One that does not say where it is may be anywhere.
    let elsewhere = entry.host.as_ref().is_some_and(|host| here != Some(host));
    let same = entry.host.is_some() && !elsewhere;
    let mut found: Vec<Address> = addresses(entry).filter(|address| !(elsewhere && is_local(address, entry, here))).collect();
    if same {
        found.sort_by_key(|address| !matches!(address, Address::Unix(_) | Address::Memory(_)));
    }
    found
}

/// Whether an address means something on its own machine, or in its own network namespace, only.
fn is_local(address: &Address, entry: &Entry, here: Option<&Host>) -> bool {
    match address {
        Address::Unix(_) | Address::Memory(_) => true,
        // In another network namespace of this machine it is another loopback.
        _ => address.is_local() && here != entry.host.as_ref(),
    }
}

/// Who asks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place {
    pub(crate) host: Option<Host>,
    pub(crate) zone: Option<String>,
}

/// All endpoints of these instances, the best first.
pub(crate) fn endpoints<'a>(instances: impl Iterator<Item = (&'a Instance, &'a Fit)>, place: &Place, random: &mut Random) -> Vec<Endpoint> {
    let mut ranked: Vec<_> = instances
        .map(|(instance, fit)| {
            let entry = &instance.entry;
            let far = place.zone.as_ref().is_some_and(|zone| entry.labels.get("zone") != Some(zone));
            // Whose exponential clock rings first: each is first as often as its weight is of all weights.
            let draw = -(1.0 - random.unit()).ln() / f64::from(entry.weight.max(1));
            ((instance.suspect, fit.rank(), far), draw, entry)
        })
        .collect();
    ranked.sort_by(|(a, x, _), (b, y, _)| a.cmp(b).then(x.total_cmp(y)));
    ranked.into_iter().flat_map(|(_, _, entry)| of_entry(entry, place)).collect()
}

fn of_entry(entry: &Entry, place: &Place) -> Vec<Endpoint> {
    let mut labels: Vec<(String, String)> = entry.labels.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    labels.push((INSTANCE.to_owned(), entry.instance.to_string()));
    labels.push((INCARNATION.to_owned(), entry.incarnation.to_string()));
    let endpoint = |address| Endpoint { address, labels: labels.clone() };
    reachable(entry, place.host.as_ref()).into_iter().map(endpoint).collect()
}

/// Whether anything of an entry can be tried from here.
pub(crate) fn is_reachable(entry: &Entry, place: &Place) -> bool {
    !reachable(entry, place.host.as_ref()).is_empty()
}

/// Which instance and incarnation an endpoint is of.
pub(crate) fn instance_of(endpoint: &Endpoint) -> Option<(InstanceId, u64)> {
    let label = |wanted: &str| endpoint.labels.iter().rev().find(|(name, _)| name == wanted).map(|(_, value)| value);
    let instance = u128::from_str_radix(label(INSTANCE)?, 16).ok()?;
    Some((InstanceId(instance.to_be_bytes()), label(INCARNATION)?.parse().ok()?))
}
