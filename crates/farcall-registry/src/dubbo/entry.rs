//! An [`Entry`] as the name of a node in Dubbo's layout, and back.
//!
//! Our own instances are `farcall://host:port/service?…`: what Dubbo knows under Dubbo's names (application, interface, group,
//! version, methods, side, timestamp, weight, enabled), the rest under names of ours. Values are escaped once more inside the URL,
//! as dubbo-go does.
//!
//! Other people's providers keep everything they say: their parameters are in [`Entry::params`], and where the name of the node
//! cannot be made again from these (a key that comes twice, another order, Go's escapes) the name itself is kept beside them.

use std::collections::BTreeMap;

use farcall_core::{Code, RpcError};

use crate::derived;
use crate::dubbo::url::{BadUrl, Url};
use crate::dubbo::{percent, prints};
use crate::entry::{Advertised, Entry, Host, InstanceId, ServiceKey};

/// The protocol of our own instances' URLs.
pub const PROTOCOL: &str = "farcall";

/// Longest name of a node that is published, in bytes. Beyond it the method table is left out; beyond it even so, it is refused.
/// ZooKeeper answers a list of nodes with all their names at once, and its Java client reads no more than 4 MiB.
pub const MAX_NAME: usize = 16 * 1024;

/// Where [`Entry::params`] keeps another people's URL up to its parameters.
const BASE: &str = "farcall.base";
/// Where it keeps the name of the node, if that cannot be made from the rest.
const NODE: &str = "farcall.node";

/// Parameters of ours that Dubbo has no name for.
mod own {
    pub(super) const INSTANCE: &str = "farcall.instance";
    pub(super) const INCARNATION: &str = "farcall.incarnation";
    pub(super) const HOST: &str = "farcall.host";
    pub(super) const PRINTS: &str = "farcall.prints";
    pub(super) const ADDRESSES: &str = "farcall.addresses";
    pub(super) const LABEL: &str = "label.";
    pub(super) const FURTHER: &str = "param.";
}

/// A URL in the words of the node's name.
pub fn node_name(entry: &Entry) -> Result<String, RpcError> {
    if entry.params.contains_key(BASE) {
        return foreign_node(entry);
    }
    let full = percent::encode(&own_url(entry, true));
    if full.len() <= MAX_NAME {
        return Ok(full);
    }
    let short = percent::encode(&own_url(entry, false));
    if short.len() <= MAX_NAME {
        return Ok(short);
    }
    let text = format!(
        "{}: its entry is {} bytes as a URL, more than {MAX_NAME}: shorten its labels, addresses and parameters",
        entry.service,
        short.len()
    );
    Err(RpcError::not_sent(Code::ResourceExhausted, text))
}

/// What the name of a node says. Fails on what is not a URL or has no host.
pub fn entry_of_node(name: &str) -> Result<Entry, BadUrl> {
    if name.len() > 3 * crate::dubbo::url::MAX_URL {
        return Err(BadUrl(format!("a name of {} bytes", name.len())));
    }
    let text = percent::decode(name).ok_or_else(|| BadUrl(format!("badly escaped: {:?}", name.chars().take(100).collect::<String>())))?;
    let url: Url = text.parse()?;
    match url.protocol == PROTOCOL {
        true => own_entry(&url),
        false => foreign_entry(name, &url),
    }
}

// Our own.

fn own_url(entry: &Entry, with_table: bool) -> String {
    let mut params = BTreeMap::new();
    for (key, value) in own_params(entry, with_table) {
        params.insert(key, value);
    }
    let mut url = format!("{PROTOCOL}://{}/{}", authority(entry), percent::encode(&entry.service.name));
    for (n, (key, value)) in params.iter().enumerate() {
        url.push(if n == 0 { '?' } else { '&' });
        url.push_str(&percent::encode(key));
        url.push('=');
        url.push_str(&percent::encode(value));
    }
    url
}

fn own_params(entry: &Entry, with_table: bool) -> Vec<(String, String)> {
    let mut params: Vec<(String, String)> = Vec::new();
    let mut put = |key: &str, value: String| params.push((key.to_owned(), value));
    put("application", entry.application.clone());
    put("interface", entry.service.name.clone());
    put("side", "provider".to_owned());
    put("timestamp", (entry.incarnation / 1000).to_string());
    put(own::INSTANCE, percent::to_base64(&entry.instance.0));
    put(own::INCARNATION, entry.incarnation.to_string());
    if !entry.service.group.is_empty() {
        put("group", entry.service.group.clone());
    }
    if !entry.service.version.is_empty() {
        put("version", entry.service.version.clone());
    }
    if entry.weight != DEFAULT_WEIGHT {
        put("weight", entry.weight.to_string());
    }
    if !entry.enabled {
        put("enabled", "false".to_owned());
    }
    if let Some(host) = &entry.host {
        put(own::HOST, percent::to_base64(&[&host.boot[..], &host.network.to_be_bytes()].concat()));
    }
    if with_table && !entry.methods.is_empty() {
        put("methods", join(entry.methods.iter().map(|m| m.name.as_str())));
        put(own::PRINTS, prints::to_text(&entry.methods));
    }
    if entry.addresses != implied_addresses(&authority(entry)) {
        put(own::ADDRESSES, join(entry.addresses.iter().flat_map(|a| [a.protocol.as_str(), a.address.as_str()])));
    }
    for (key, value) in &entry.labels {
        put(&format!("{}{key}", own::LABEL), value.clone());
    }
    // So that Dubbo's tag routers see it.
    if let Some(tag) = entry.labels.get("tag") {
        put("dubbo.tag", tag.clone());
    }
    for (key, value) in &entry.params {
        put(&format!("{}{key}", own::FURTHER), value.clone());
    }
    params
}

/// What stands as host and port: the first TCP address. An instance without one (a unix socket) has no port that Dubbo could show.
fn authority(entry: &Entry) -> String {
    let first = |own_only: bool| {
        entry.addresses.iter().filter(|a| !own_only || a.protocol == PROTOCOL).find_map(|a| {
            // Of exactly this form, or it would not come back.
            let place = a.address.strip_prefix("tcp://")?;
            let url: Url = format!("{PROTOCOL}://{place}").parse().ok()?;
            (url.port.is_some() && url.user.is_none() && url.authority() == place).then(|| place.to_owned())
        })
    };
    first(true).or_else(|| first(false)).unwrap_or_else(|| "127.0.0.1:0".to_owned())
}

fn implied_addresses(authority: &str) -> [Advertised; 1] {
    [Advertised { protocol: PROTOCOL.to_owned(), address: format!("tcp://{authority}") }]
}

fn own_entry(url: &Url) -> Result<Entry, BadUrl> {
    let bad = |what: &str| BadUrl(format!("a {PROTOCOL} URL: {what}"));
    let params = decoded_params(url).ok_or_else(|| bad("a parameter is badly escaped"))?;
    let text = |key: &str| params.get(key).cloned().unwrap_or_default();
    let instance = percent::from_base64(&text(own::INSTANCE)).and_then(|id| id.try_into().ok());
    let methods = own_methods(&params);
    let addresses = match params.get(own::ADDRESSES) {
        Some(list) => split_pairs(list).ok_or_else(|| bad("its addresses do not read"))?,
        None => implied_addresses(&url.authority()).to_vec(),
    };
    let with_prefix = |prefix: &str| -> BTreeMap<String, String> {
        params.iter().filter_map(|(k, v)| Some((k.strip_prefix(prefix)?.to_owned(), v.clone()))).collect()
    };
    Ok(Entry {
        service: ServiceKey { name: required(text("interface"), || bad("no interface"))?, group: text("group"), version: text("version") },
        instance: InstanceId(instance.ok_or_else(|| bad("its instance is not 16 bytes"))?),
        incarnation: text(own::INCARNATION).parse().map_err(|_| bad("its incarnation is not a number"))?,
        application: text("application"),
        addresses,
        labels: with_prefix(own::LABEL),
        weight: weight(params.get("weight").map(String::as_str)),
        enabled: params.get("enabled").is_none_or(|v| v != "false"),
        host: percent::from_base64(&text(own::HOST)).and_then(|bytes| host(&bytes)),
        methods,
        params: with_prefix(own::FURTHER),
    })
}

fn required(text: String, error: impl FnOnce() -> BadUrl) -> Result<String, BadUrl> {
    match text.is_empty() {
        true => Err(error()),
        false => Ok(text),
    }
}

/// A table that does not read is as none: unknown.
fn own_methods(params: &BTreeMap<String, String>) -> Vec<crate::entry::MethodPrints> {
    let names = params.get("methods").and_then(|list| split(list));
    names.zip(params.get(own::PRINTS)).and_then(|(names, text)| prints::from_text(&names, text)).unwrap_or_default()
}

fn decoded_params(url: &Url) -> Option<BTreeMap<String, String>> {
    let mut params = BTreeMap::new();
    for (key, value) in url.params.iter().flatten() {
        params.insert(percent::decode(key)?, percent::decode(value.as_deref().unwrap_or_default())?);
    }
    Some(params)
}

fn host(bytes: &[u8]) -> Option<Host> {
    let (boot, network) = bytes.split_first_chunk::<16>()?;
    Some(Host { boot: *boot, network: u64::from_be_bytes(network.try_into().ok()?) })
}

/// Texts as one, apart by commas; a comma in one is escaped.
fn join<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    let escape = |text: &str| match text.contains([',', '%', '+']) {
        true => percent::encode(text),
        false => text.to_owned(),
    };
    texts.map(escape).collect::<Vec<_>>().join(",")
}

fn split(list: &str) -> Option<Vec<String>> {
    list.split(',').map(percent::decode).collect()
}

fn split_pairs(list: &str) -> Option<Vec<Advertised>> {
    if list.is_empty() {
        return Some(Vec::new());
    }
    let texts = split(list)?;
    let pairs = texts.chunks_exact(2);
    pairs
        .remainder()
        .is_empty()
        .then(|| texts.chunks_exact(2).map(|pair| Advertised { protocol: pair[0].clone(), address: pair[1].clone() }).collect())
}

// Other people's.

/// Weight that is meant where none is named.
const DEFAULT_WEIGHT: u32 = 100;

fn weight(text: Option<&str>) -> u32 {
    text.and_then(|text| text.parse().ok()).unwrap_or(DEFAULT_WEIGHT)
}

fn foreign_entry(name: &str, url: &Url) -> Result<Entry, BadUrl> {
    if url.host.is_empty() {
        return Err(BadUrl(format!("a {} URL without a host", url.protocol)));
    }
    let interface = url.param("interface").or(url.path.as_deref()).filter(|name| !name.is_empty());
    let interface = interface.ok_or_else(|| BadUrl(format!("a {} URL without an interface", url.protocol)))?;
    let mut entry = Entry {
        service: foreign_key(interface, url),
        instance: derived_id(url),
        incarnation: url.param("timestamp").and_then(|ms| ms.parse::<u64>().ok()).unwrap_or(0).saturating_mul(1000),
        application: url.param("application").unwrap_or_default().to_owned(),
        addresses: foreign_addresses(url),
        labels: foreign_labels(url),
        weight: weight(url.param("weight")),
        enabled: url.param("enabled") != Some("false") && url.param("disabled") != Some("true"),
        host: None,
        methods: Vec::new(),
        params: BTreeMap::new(),
    };
    for (key, value) in url.params.iter().flatten() {
        entry.params.entry(key.clone()).or_insert_with(|| value.clone().unwrap_or_default());
    }
    entry.params.insert(BASE.to_owned(), url.base());
    if percent::encode(&foreign_text(&entry)) != name {
        entry.params.insert(NODE.to_owned(), name.to_owned());
    }
    Ok(entry)
}

pub(super) fn foreign_key(interface: &str, url: &Url) -> ServiceKey {
    // Dubbo writes 0.0.0 where there is none.
    let version = url.param("version").filter(|version| *version != "0.0.0").unwrap_or_default();
    ServiceKey { name: interface.to_owned(), group: url.param("group").unwrap_or_default().to_owned(), version: version.to_owned() }
}

/// Dubbo's layout has no place for an instance's name.
fn derived_id(url: &Url) -> InstanceId {
    derived::id(&format!("{}://{}", url.protocol, url.authority()))
}

/// One port may serve several protocols there (`ext.protocol`).
fn foreign_addresses(url: &Url) -> Vec<Advertised> {
    let further = url.param("ext.protocol").into_iter().flat_map(|list| list.split(',')).filter(|p| !p.is_empty() && *p != url.protocol);
    let protocols = std::iter::once(url.protocol.as_str()).chain(further);
    protocols.map(|p| Advertised { protocol: p.to_owned(), address: format!("tcp://{}", url.authority()) }).collect()
}

fn foreign_labels(url: &Url) -> BTreeMap<String, String> {
    let known = [("dubbo.tag", "tag"), ("tag", "tag"), ("zone", "zone"), ("region", "region")];
    let mut labels = BTreeMap::new();
    for (param, label) in known {
        if let Some(value) = url.param(param) {
            labels.entry(label.to_owned()).or_insert_with(|| value.to_owned());
        }
    }
    labels
}

/// The URL that the parameters make, in their order, which is Dubbo's.
fn foreign_text(entry: &Entry) -> String {
    let mut url = entry.params.get(BASE).cloned().unwrap_or_default();
    for (n, (key, value)) in entry.params.iter().filter(|(key, _)| *key != BASE && *key != NODE).enumerate() {
        url.push(if n == 0 { '?' } else { '&' });
        url.push_str(key);
        url.push('=');
        url.push_str(value);
    }
    url
}

/// As it was found, unless somebody changed what Dubbo has a parameter for.
fn foreign_node(entry: &Entry) -> Result<String, RpcError> {
    let mut changed = entry.clone();
    let bad = |e: BadUrl| RpcError::not_sent(Code::InvalidArgument, format!("{}: {e}", entry.service));
    let found = match entry.params.get(NODE) {
        Some(node) => node.clone(),
        None => percent::encode(&foreign_text(entry)),
    };
    let said = entry_of_node(&found).map_err(bad)?;
    if said == *entry {
        return Ok(found);
    }
    changed.params.remove(NODE);
    if said.weight != entry.weight {
        changed.params.insert("weight".to_owned(), entry.weight.to_string());
    }
    if said.enabled != entry.enabled {
        changed.params.insert("enabled".to_owned(), entry.enabled.to_string());
        changed.params.remove("disabled");
    }
    if said.application != entry.application {
        changed.params.insert("application".to_owned(), entry.application.clone());
    }
    Ok(percent::encode(&foreign_text(&changed)))
}

#[cfg(test)]
mod tests;
