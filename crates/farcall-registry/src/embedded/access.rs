//! Who may do what at a node: read, register, write rules, for which services.

use std::str::FromStr;

use farcall_core::{Code, RpcError};
use farcall_rpc::Identity;

use crate::entry::ServiceKey;

/// What a caller wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// List, subscribe, see consumers and rules.
    Read,
    /// Register and withdraw entries.
    Register,
    /// Write rules.
    Rules,
    /// Be another node of this registry: read and bring everything.
    Peer,
}

impl Action {
    fn word(self) -> &'static str {
        match self {
            Action::Read => "read",
            Action::Register => "register",
            Action::Rules => "rules",
            Action::Peer => "peer",
        }
    }
}

/// One line of a node's policy, written `WHO:ACTIONS:SERVICES` or `WHO:ACTIONS:SERVICES@NAMESPACES`.
///
/// WHO is a caller's name, `role=ROLE`, or `*` for everybody, those without a name included. ACTIONS are `read`, `register`, `rules` and
/// `peer`, separated by commas, or `*` for all of them but `peer`. In SERVICES and NAMESPACES `*` stands for anything; without
/// NAMESPACES, for all.
///
/// ```
/// use farcall_registry::embedded::Grant;
/// assert!("bank:register,read:org.example.pay.*@prod".parse::<Grant>().is_ok());
/// let e = "bank:write:*".parse::<Grant>().unwrap_err();
/// assert!(e.message().contains("there is no action \"write\""));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    who: Who,
    actions: Vec<Action>,
    services: String,
    namespaces: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Who {
    Everybody,
    Name(String),
    Role(String),
}

impl FromStr for Grant {
    type Err = RpcError;

    fn from_str(text: &str) -> Result<Grant, RpcError> {
        let bad = |why: &str| {
            let why = format!("grant {text:?}: {why}; write WHO:ACTIONS:SERVICES or WHO:ACTIONS:SERVICES@NAMESPACES");
            RpcError::not_sent(Code::InvalidArgument, why)
        };
        let mut parts = text.splitn(3, ':');
        let (Some(who), Some(actions), Some(services)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(bad("a part is missing"));
        };
        let who = match (who, who.strip_prefix("role=")) {
            ("", _) | (_, Some("")) => return Err(bad("who is missing")),
            ("*", _) => Who::Everybody,
            (_, Some(role)) => Who::Role(role.to_owned()),
            (name, None) => Who::Name(name.to_owned()),
        };
        let all = [Action::Read, Action::Register, Action::Rules, Action::Peer];
        let mut allowed = Vec::new();
        for word in actions.split(',') {
            match all.iter().find(|action| action.word() == word) {
                Some(action) => allowed.push(*action),
                None if word == "*" => allowed.extend([Action::Read, Action::Register, Action::Rules]),
                None => return Err(bad(&format!("there is no action {word:?}; there are read, register, rules, peer"))),
            }
        }
        let (services, namespaces) = services.split_once('@').unwrap_or((services, "*"));
        if services.is_empty() {
            return Err(bad("services are missing"));
        }
        Ok(Grant { who, actions: allowed, services: services.to_owned(), namespaces: namespaces.to_owned() })
    }
}

impl Grant {
    fn covers(&self, caller: Option<&Identity>, action: Action, namespace: &str, service: &str) -> bool {
        let who = match &self.who {
            Who::Everybody => true,
            Who::Name(name) => caller.is_some_and(|caller| caller.name() == name),
            Who::Role(role) => caller.is_some_and(|caller| caller.has_role(role)),
        };
        who && self.actions.contains(&action) && matches(&self.namespaces, namespace) && matches(&self.services, service)
    }
}

/// A node's policy: without grants whoever is let in may do everything, with grants what one of them says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Access(pub(crate) Vec<Grant>);

impl Access {
    /// Refuses what nobody granted, by name.
    pub(crate) fn check(&self, caller: Option<&Identity>, action: Action, namespace: &str, service: &ServiceKey) -> Result<(), RpcError> {
        if self.may(caller, action, namespace, &service.name) {
            return Ok(());
        }
        let of = if service.name.is_empty() { String::new() } else { format!(" for {service}") };
        Err(refused(caller, action, &of, namespace))
    }

    pub(crate) fn may(&self, caller: Option<&Identity>, action: Action, namespace: &str, service: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|grant| grant.covers(caller, action, namespace, service))
    }

    /// For the calls between nodes, which concern all services.
    pub(crate) fn check_peer(&self, caller: Option<&Identity>) -> Result<(), RpcError> {
        let granted = |grant: &Grant| grant.covers(caller, Action::Peer, "", "");
        match self.0.is_empty() || self.0.iter().any(granted) {
            true => Ok(()),
            false => Err(refused(caller, Action::Peer, "", "")),
        }
    }
}

fn refused(caller: Option<&Identity>, action: Action, of: &str, namespace: &str) -> RpcError {
    let who = caller.map_or_else(|| "a caller without a name".to_owned(), |caller| format!("{:?}", caller.name()));
    let within = if namespace.is_empty() { String::new() } else { format!(" in namespace {namespace:?}") };
    let why = format!("{who} may not {}{of}{within} at this registry: no grant covers it", words(action));
    RpcError::not_executed(Code::PermissionDenied, why)
}

fn words(action: Action) -> &'static str {
    match action {
        Action::Read => "read entries",
        Action::Register => "register",
        Action::Rules => "write rules",
        Action::Peer => "act as a node",
    }
}

/// Whether `*` in a pattern can be filled so that it is the text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(grants: &[&str]) -> Access {
        Access(grants.iter().map(|grant| grant.parse().unwrap()).collect())
    }

    fn service(name: &str) -> ServiceKey {
        ServiceKey { name: name.into(), group: String::new(), version: String::new() }
    }

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, text, fits) in [
            ("*", "", true),
            ("*", "a.b", true),
            ("a.*", "a.b", true),
            ("a.*", "b.a.b", false),
            ("*.b", "a.b", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abde", false),
            ("ab*b", "ab", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn only_what_is_granted_is_allowed() {
        let (bank, ops) = (Identity::new("bank"), Identity::new("ann").role("ops"));
        let access = access(&["bank:register:org.pay.*@prod", "*:read:*", "role=ops:*:*"]);
        let may =
            |who: Option<&Identity>, action, namespace: &str, name: &str| access.check(who, action, namespace, &service(name)).is_ok();
        assert!(may(Some(&bank), Action::Register, "prod", "org.pay.Till"));
        assert!(!may(Some(&bank), Action::Register, "test", "org.pay.Till"));
        assert!(!may(Some(&bank), Action::Register, "prod", "org.ship.Dock"));
        assert!(!may(Some(&bank), Action::Rules, "prod", "org.pay.Till"));
        assert!(may(None, Action::Read, "prod", "org.pay.Till"));
        assert!(may(Some(&ops), Action::Rules, "", "x"));
        assert!(access.check_peer(Some(&ops)).is_err(), "to be a node is never granted by a star");
        let e = access.check(None, Action::Register, "prod", &service("org.pay.Till")).unwrap_err();
        assert_eq!(e.code(), Code::PermissionDenied);
        let said = "a caller without a name may not register for org.pay.Till in namespace \"prod\" at this registry: no grant covers it";
        assert_eq!(e.message(), said);
    }

    #[test]
    fn without_grants_everybody_may() {
        assert!(Access::default().check(None, Action::Register, "", &service("x")).is_ok());
        assert!(Access::default().check_peer(None).is_ok());
    }

    #[test]
    fn wrong_grants_say_what_to_write() {
        for (text, why) in [
            ("", "a part is missing"),
            ("a:read", "a part is missing"),
            (":read:*", "who is missing"),
            ("a:read:", "services"),
            ("role=:read:*", "who"),
        ] {
            let e = text.parse::<Grant>().unwrap_err();
            assert!(e.message().contains(why) && e.message().contains("WHO:ACTIONS:SERVICES"), "{e}");
        }
    }
}
