//! Where what stands in Dubbo's layout: paths, rules' names, consumers' URLs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use farcall_core::{Code, RpcError};
use tokio::time::Instant;

use crate::dubbo::entry::{entry_of_node, foreign_key};
use crate::dubbo::percent;
use crate::dubbo::url::Url;
use crate::dubbo::view::MAX_NODES;
use crate::entry::ServiceKey;
use crate::registry::{Completeness, Consumer, Rule, ServiceSummary};
use crate::url::RegistryUrl;

/// Rules that are URLs, and the directory of a service in which they are.
const URL_RULES: [(&str, &str); 2] = [("configurator-url", "configurators"), ("router-url", "routers")];

/// Most rules of one service that are read.
pub(crate) const MAX_RULES: usize = 1000;

/// The paths under one root, `/dubbo` unless another is set.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: String,
}

impl Layout {
    /// As a backend's URL says: its path, if it has one (ZooKeeper's chroot), and below it what the parameter `root` names, `dubbo`
    /// unless set.
    pub(crate) fn of(url: &RegistryUrl) -> Result<Layout, RpcError> {
        let parts = [url.path.trim_matches('/'), url.param("root").unwrap_or("dubbo").trim_matches('/')];
        let path = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
        let wrong = |name: &str| name.is_empty() || name == "." || name == ".." || name.chars().any(char::is_control);
        match path.split('/').any(wrong) {
            true => Err(url.refuse(format!("{path:?} is not a path; write \"/PATH?root=NAME\""))),
            false => Ok(Layout { root: format!("/{path}") }),
        }
    }

    /// The directory of all services.
    pub(crate) fn root(&self) -> &str {
        &self.root
    }

    /// The directory of a service's instances.
    pub(crate) fn providers(&self, service: &str) -> String {
        self.category(service, "providers")
    }

    /// The directory of a service's consumers.
    pub(crate) fn consumers(&self, service: &str) -> String {
        self.category(service, "consumers")
    }

    /// The directories of a service's rules that are URLs, each with the kind of these.
    pub(crate) fn url_rules(&self, service: &str) -> [(&'static str, String); 2] {
        URL_RULES.map(|(kind, category)| (kind, self.category(service, category)))
    }

    /// The directory of the rules that are documents, of all services.
    pub(crate) fn documents(&self) -> String {
        format!("{}/config/dubbo", self.root)
    }

    fn category(&self, service: &str, category: &str) -> String {
        format!("{}/{}/{category}", self.root, percent::encode(service))
    }

    /// The service whose directory under the root has this name; `None` for what is not a service's.
    pub(crate) fn service_of(directory: &str) -> Option<String> {
        match directory {
            // Dubbo's own beside its services.
            "config" | "metadata" | "mapping" => None,
            _ => percent::decode(directory),
        }
    }
}

/// What the node of a consumer is called: as Dubbo's, so that its tools list it.
pub(crate) fn consumer_node(service: &ServiceKey, consumer: &Consumer) -> String {
    // Whoever reads it takes the host from the place of the host, and the process from `pid`.
    let (host, pid) = consumer.host.split_once('/').unwrap_or((&consumer.host, ""));
    let host = match host {
        "" => "0.0.0.0".to_owned(),
        v6 if v6.parse::<std::net::Ipv6Addr>().is_ok() => format!("[{v6}]"),
        name => percent::encode(name),
    };
    let mut url = format!("consumer://{host}/{}", percent::encode(&service.name));
    let params = [
        ("application", consumer.application.as_str()),
        ("category", "consumers"),
        ("check", "false"),
        ("group", &service.group),
        ("interface", &service.name),
        ("pid", pid),
        ("side", "consumer"),
        ("version", &service.version),
    ];
    for (n, (key, value)) in params.iter().filter(|(_, value)| !value.is_empty()).enumerate() {
        url.push(if n == 0 { '?' } else { '&' });
        url.push_str(key);
        url.push('=');
        url.push_str(&percent::encode(value));
    }
    percent::encode(&url)
}

/// What the consumer that this node stands for uses.
pub(crate) fn consumed_by_node(name: &str) -> Option<ServiceKey> {
    let url: Url = percent::decode(name)?.parse().ok()?;
    let text = |key: &str| url.param(key).and_then(percent::decode).unwrap_or_default();
    let service = ServiceKey { name: text("interface"), group: text("group"), version: text("version") };
    (url.protocol == "consumer" && !service.name.is_empty()).then_some(service)
}

/// Who the node of a consumer stands for, if it uses the service asked for.
fn consumer_of_node(service: &ServiceKey, name: &str) -> Option<Consumer> {
    let uses = consumed_by_node(name).filter(|uses| uses.name == service.name)?;
    let url: Url = percent::decode(name)?.parse().ok()?;
    let text = |key: &str| url.param(key).and_then(percent::decode).unwrap_or_default();
    if !service.covers(&uses) && !uses.covers(service) {
        return None;
    }
    let host = percent::decode(&url.host)?;
    let pid = text("pid");
    let host = if pid.is_empty() { host } else { format!("{host}/{pid}") };
    Some(Consumer { application: text("application"), host })
}

/// The consumers of a service among the nodes of these names, each once.
pub(crate) fn consumers_of_nodes<'a>(service: &ServiceKey, names: impl Iterator<Item = &'a String>) -> Vec<Consumer> {
    let mut consumers: Vec<Consumer> = names.take(MAX_NODES).filter_map(|name| consumer_of_node(service, name)).collect();
    consumers.sort();
    consumers.dedup();
    consumers
}

/// As many rules as are read, in an order that does not depend on the server's.
pub(crate) fn in_order(mut rules: Vec<Arc<Rule>>) -> Vec<Arc<Rule>> {
    rules.truncate(MAX_RULES);
    rules.sort_by(|a, b| (&a.kind, &a.name).cmp(&(&b.kind, &b.name)));
    rules
}

/// What a server tells so long after it was connected to: until it has settled others may be on their way back, and it does not know
/// them.
pub(crate) fn completeness(connected: Instant, settle: Duration) -> Completeness {
    match connected.elapsed() < settle {
        true => Completeness::Incomplete,
        false => Completeness::Complete,
    }
}

/// Adds what is known of a service by the names of its nodes, per group and version.
pub(crate) fn summarize(name: &str, providers: &[String], consumers: &[String], into: &mut BTreeMap<ServiceKey, ServiceSummary>) {
    let mut count = |service: ServiceKey, entries: u64, consumers: u64| {
        let summary = into.entry(service.clone()).or_insert(ServiceSummary { service, entries: 0, consumers: 0 });
        (summary.entries, summary.consumers) = (summary.entries + entries, summary.consumers + consumers);
    };
    for entry in providers.iter().filter_map(|node| entry_of_node(node).ok()).filter(|entry| entry.service.name == name) {
        count(entry.service, 1, 0);
    }
    for service in consumers.iter().filter_map(|node| consumed_by_node(node)).filter(|service| service.name == name) {
        count(service, 0, 1);
    }
}

// Rules.

/// Where a rule is written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RulePlace {
    /// A document: its path, and the text in it.
    Document { path: String },
    /// A URL: the directory, the node that stands for it, the node that it takes the place of.
    Url { directory: String, node: Option<String>, instead_of: Option<String> },
}

/// Where this rule is written; fails if it has no place in the layout.
pub(crate) fn place_of_rule(layout: &Layout, rule: &Rule) -> Result<RulePlace, RpcError> {
    let bad = |why: &str| RpcError::not_sent(Code::InvalidArgument, format!("rule {:?} of {}: {why}", rule.kind, rule.service));
    if rule.service.name.is_empty() {
        return Err(bad("the service has no name"));
    }
    if let Some((_, directory)) = layout.url_rules(&rule.service.name).into_iter().find(|(kind, _)| *kind == rule.kind) {
        let node = match rule.body.is_empty() {
            true => None,
            false => {
                rule.body.parse::<Url>().map_err(|e| bad(&format!("its body is not a URL: {e}")))?;
                Some(percent::encode(&rule.body))
            }
        };
        let instead_of = Some(rule.name.clone()).filter(|name| !name.is_empty() && Some(name) != node.as_ref());
        if instead_of.as_ref().is_some_and(|name| name.contains('/')) {
            return Err(bad("its name is not a node's"));
        }
        return Ok(RulePlace::Url { directory, node, instead_of });
    }
    if rule.kind.is_empty() || !rule.kind.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
        return Err(bad("a kind is letters, digits, \"-\" and \"_\""));
    }
    Ok(RulePlace::Document { path: format!("{}/{}", layout.documents(), document_name(rule)) })
}

/// `<interface>:<version>:<group>.<kind>`, which is Dubbo's; a rule with a name is one that only farcall reads, `…@<name>`.
fn document_name(rule: &Rule) -> String {
    let mut name = format!("{}{}", document_prefix(&rule.service), suffix(&rule.kind));
    if !rule.name.is_empty() {
        name.push('@');
        name.push_str(&percent::encode(&rule.name));
    }
    name
}

/// What the names of all documents about this service begin with.
pub(crate) fn document_prefix(service: &ServiceKey) -> String {
    let plain = |text: &str| text.replace('%', "%25").replace('/', "%2F");
    format!("{}:{}:{}.", plain(&service.name), plain(&service.version), plain(&service.group))
}

fn suffix(kind: &str) -> &str {
    if kind == "configurator" { "configurators" } else { kind }
}

/// Whether the document of this name is about the service, so that it is worth reading.
pub(crate) fn is_document_of(service: &ServiceKey, name: &str) -> bool {
    rule_of_document(service, name, String::new()).is_some()
}

/// The rule that this document is, if it is about the service.
pub(crate) fn rule_of_document(service: &ServiceKey, name: &str, body: String) -> Option<Rule> {
    let rest = name.strip_prefix(&document_prefix(service))?;
    let (kind, rule_name) = rest.split_once('@').unwrap_or((rest, ""));
    // A dot: of another service, whose group begins like this one's.
    if kind.is_empty() || kind.contains('.') {
        return None;
    }
    let kind = if kind == "configurators" { "configurator" } else { kind };
    Some(Rule { service: service.clone(), kind: kind.to_owned(), name: percent::decode(rule_name)?, body })
}

/// The rule that this node in a directory of rules is, if it is about the service.
pub(crate) fn rule_of_node(service: &ServiceKey, kind: &str, name: &str) -> Option<Arc<Rule>> {
    let body = percent::decode(name)?;
    let url: Url = body.parse().ok()?;
    let about = foreign_key(&service.name, &url);
    let any = about.group.is_empty() && about.version.is_empty();
    // Dubbo puts an `empty://` there where it means none.
    if url.protocol == "empty" || !(any || about.covers(service) || service.covers(&about)) {
        return None;
    }
    Some(Arc::new(Rule { service: service.clone(), kind: kind.to_owned(), name: name.to_owned(), body }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, group: &str, version: &str) -> ServiceKey {
        ServiceKey { name: name.into(), group: group.into(), version: version.into() }
    }

    #[test]
    fn paths_are_dubbos() {
        let layout = |url: &str| Layout::of(&url.parse().unwrap());
        assert_eq!(layout("etcd://h/shop/?root=/ns/dubbo").unwrap().root(), "/shop/ns/dubbo");
        for bad in ["etcd://h/a//b", "etcd://h/..", "etcd://h?root=.", "etcd://h?root="] {
            assert!(layout(bad).unwrap_err().message().contains("is not a path"), "{bad}");
        }
        let layout = layout("etcd://h").unwrap();
        assert_eq!(layout.providers("a.B"), "/dubbo/a.B/providers");
        assert_eq!(layout.consumers("a/B"), "/dubbo/a%2FB/consumers");
        assert_eq!(Layout::service_of("a%2FB").unwrap(), "a/B");
        assert_eq!(Layout::service_of("config"), None);
    }

    #[test]
    fn consumers_come_back() {
        let service = key("org.example.Pay", "eu", "1.0");
        for (application, host) in [("shop", "10.0.0.9/4711"), ("a&b=c", "fd00::1"), ("", "name"), ("x", "[odd]/1")] {
            let consumer = Consumer { application: application.into(), host: host.into() };
            let node = consumer_node(&service, &consumer);
            assert_eq!(consumer_of_node(&service, &node), Some(consumer));
            assert_eq!(consumer_of_node(&key("org.example.Pay", "us", "1.0"), &node), None);
        }
        // As Dubbo 3 writes one.
        let dubbo = "consumer://10.0.0.9/org.example.Pay?application=till&category=consumers&check=false&dubbo=2.0.2\
                     &interface=org.example.Pay&methods=pay&pid=12&side=consumer&timestamp=1";
        let read = consumer_of_node(&key("org.example.Pay", "", ""), &percent::encode(dubbo)).unwrap();
        assert_eq!(read, Consumer { application: "till".into(), host: "10.0.0.9/12".into() });
        assert_eq!(consumer_of_node(&service, "junk"), None);
    }

    #[test]
    fn rules_have_dubbos_places() {
        let layout = Layout::of(&"etcd://h".parse().unwrap()).unwrap();
        let rule = |kind: &str, name: &str, body: &str| Rule {
            service: key("org.example.Pay", "eu", "1.0"),
            kind: kind.into(),
            name: name.into(),
            body: body.into(),
        };
        for (kind, name, node) in [
            ("condition-router", "", "org.example.Pay:1.0:eu.condition-router"),
            ("configurator", "", "org.example.Pay:1.0:eu.configurators"),
            ("tag-router", "of/ours", "org.example.Pay:1.0:eu.tag-router@of%2Fours"),
        ] {
            let written = rule(kind, name, "text");
            assert_eq!(place_of_rule(&layout, &written).unwrap(), RulePlace::Document { path: format!("/dubbo/config/dubbo/{node}") });
            assert_eq!(rule_of_document(&written.service, node, "text".into()), Some(written));
        }
        assert!(!is_document_of(&key("org.example.Pay", "", "1.0"), "org.example.Pay:1.0:eu.tag-router"));
        assert!(!is_document_of(&key("org.example.Pay", "e", "1.0"), "org.example.Pay:1.0:e.u.tag-router"));
        let body = "override://0.0.0.0/org.example.Pay?category=configurators&dynamic=false&weight=5";
        let node = percent::encode(body);
        assert_eq!(
            place_of_rule(&layout, &rule("configurator-url", "old", body)).unwrap(),
            RulePlace::Url {
                directory: "/dubbo/org.example.Pay/configurators".into(),
                node: Some(node.clone()),
                instead_of: Some("old".into())
            }
        );
        let read = rule_of_node(&key("org.example.Pay", "eu", "1.0"), "configurator-url", &node).unwrap();
        assert_eq!((read.body.as_str(), read.name.as_str()), (body, node.as_str()));
        for bad in [rule("", "", "x"), rule("a/b", "", "x"), rule("router-url", "", "no url"), rule("router-url", "a/b", "")] {
            assert_eq!(place_of_rule(&layout, &bad).unwrap_err().code(), Code::InvalidArgument);
        }
    }
}
