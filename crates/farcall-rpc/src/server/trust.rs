//! What a server must say about trust before it listens.

use std::sync::Arc;

use farcall_core::{Address, Code, RpcError};

use crate::server::ServerBuilder;
use crate::skeleton::Skeleton;

/// Whether TLS lets nobody in who has no certificate of an authority that the server names: they have said who they are.
pub(super) fn takes_known_clients_only(builder: &ServerBuilder) -> bool {
    #[cfg(feature = "tls")]
    return builder.tls.as_ref().is_some_and(farcall_transport::TlsServer::requires_clients);
    #[cfg(not(feature = "tls"))]
    {
        let _ = builder;
        false
    }
}

/// Whether other machines reach it by links that everybody on the way can read.
pub(super) fn is_in_clear(address: &Address, builder: &ServerBuilder) -> bool {
    #[cfg(feature = "tls")]
    let tls = builder.tls.is_some();
    #[cfg(not(feature = "tls"))]
    let tls = {
        let _ = builder;
        false
    };
    !tls && matches!(address, Address::Tcp { .. }) && !address.is_local()
}

/// What its observers are told then.
pub(super) fn in_clear(address: &Address) -> String {
    format!("listening on {address} without TLS: everybody on the way can read and change calls and replies, and read tokens")
}

/// It would serve whoever comes.
#[cold]
pub(super) fn open_to_all(address: &Address) -> RpcError {
    let why = format!(
        "cannot listen on {address}: other machines reach it, and this server does not ask who calls. Ask: \
         `.authenticate(…)` with tokens, or with TLS and client certificates (`require_clients` alone lets in all that an authority \
         certifies); or listen on this machine only, \
         tcp://127.0.0.1:… or unix:…; or let everybody in: `.allow_anonymous()`"
    );
    RpcError::not_sent(Code::FailedPrecondition, why)
}

/// A role that nobody can have is a mistake.
pub(super) fn check_roles(skeletons: &[Arc<dyn Skeleton>], describe: &[String], asks: bool) -> Result<(), RpcError> {
    let guarded = skeletons.iter().map(|s| s.descriptor()).find_map(|d| {
        let at = d.methods.iter().position(|m| !m.roles.is_empty())?;
        Some((d.full_name(at), d.methods[at].roles[0].as_str()))
    });
    let guarded = guarded.or_else(|| describe.first().map(|role| ("describe".to_owned(), role.as_str())));
    match guarded {
        Some((what, role)) if !asks => {
            let why = format!(
                "{what} needs the role {role:?}, and nobody can have it, because this server does not ask who calls: add \
                 `.authenticate(…)`"
            );
            Err(RpcError::not_sent(Code::FailedPrecondition, why))
        }
        _ => Ok(()),
    }
}
