//! A caller, and the services as far as it may see them: those that it may call.

use std::sync::Arc;

use farcall_core::{Code, MethodDescriptor, ServiceDescriptor};
use farcall_rpc::meta::DescribeClient;
use farcall_rpc::{Dispatch, Peer, Target};
use hyper::StatusCode;

use crate::refusal::Refusal;
use crate::route::{MethodPath, shown};

/// See the module's text.
pub(crate) struct Caller<'d> {
    pub(crate) dispatch: &'d Dispatch,
    pub(crate) peer: Arc<Peer>,
}

impl<'d> Caller<'d> {
    /// The method that a path names, by its own name or the one that other protocols know it by.
    pub(crate) fn find(&self, path: &MethodPath) -> Result<(Target, &'d MethodDescriptor), Refusal> {
        let (place, service) = self.find_service(path)?;
        let named = |m: &MethodDescriptor| m.name == path.method || m.foreign_name.as_deref() == Some(&path.method);
        let Some(row) = service.methods.iter().position(named) else {
            let known: Vec<&str> = self.methods(service).map(|m| m.name.as_str()).collect();
            let why = format!("{} has no method {:?}; methods: {}", path.service, path.method, known.join(", "));
            return Err(Refusal::new(StatusCode::NOT_FOUND, Code::Unimplemented, why));
        };
        Ok((Target { service: place, method: row }, &service.methods[row]))
    }

    fn find_service(&self, path: &MethodPath) -> Result<(usize, &'d ServiceDescriptor), Refusal> {
        let named = |s: &ServiceDescriptor| s.name == path.service || s.foreign_name.as_deref() == Some(&path.service);
        let wanted = |s: &ServiceDescriptor| {
            path.group.as_ref().is_none_or(|group| *group == s.group) && path.version.as_ref().is_none_or(|version| *version == s.version)
        };
        let all: Vec<_> = self.dispatch.services().enumerate().filter(|(_, s)| named(s) && wanted(s)).collect();
        match all[..] {
            [only] => Ok(only),
            [] => {
                let why = format!("there is no service {:?} here; {}", path.service, self.services());
                Err(Refusal::new(StatusCode::NOT_FOUND, Code::Unimplemented, why))
            }
            _ => all.into_iter().find(|(_, s)| s.group.is_empty() && s.version.is_empty()).ok_or_else(|| {
                let why = format!("{:?} is served more than once: say which in the path; {}", path.service, self.services());
                Refusal::bad(why)
            }),
        }
    }

    /// The services there are, for those who look for another.
    pub(crate) fn services(&self) -> String {
        let all: Vec<String> = self.visible().map(shown).collect();
        format!("services: {}", if all.is_empty() { "none that you may call".to_owned() } else { all.join(", ") })
    }

    /// The services of which the caller may call something.
    pub(crate) fn visible(&self) -> impl Iterator<Item = &'d ServiceDescriptor> {
        self.dispatch.services().filter(|s| self.methods(s).next().is_some())
    }

    /// The methods of a service that the caller may call.
    pub(crate) fn methods(&self, service: &'d ServiceDescriptor) -> impl Iterator<Item = &'d MethodDescriptor> {
        // To be told at all may take a role of its own.
        let told = self.may(DescribeClient::descriptor(), 0);
        service.methods.iter().enumerate().filter(move |(row, _)| told && self.may(service, *row)).map(|(_, m)| m)
    }

    /// Whether this server asks callers who they are.
    pub(crate) fn is_asked(&self) -> bool {
        self.dispatch.admission().asks()
    }

    fn may(&self, service: &ServiceDescriptor, row: usize) -> bool {
        self.dispatch.admission().may(service, row, self.peer.identity.as_deref())
    }
}
