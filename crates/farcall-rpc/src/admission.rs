//! Who comes in and what they may call: one piece of code for every protocol on a server's port.
//!
//! farcall's own driver asks it once per connection ([`authenticate`](Admission::authenticate)) and once per call
//! ([`admit`](Admission::admit)); a door to another protocol must do the same, at the latest for each request.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use farcall_core::{Code, Credentials, Limits, RpcError, ServiceDescriptor, Stage};
use farcall_transport::PeerFacts;
use tokio::sync::Semaphore;

use crate::auth::{Authenticator, Identity, Shown};
use crate::meta::DescribeClient;
use crate::observer::Observer;

/// See the module's text.
pub struct Admission {
    authenticators: Vec<Arc<dyn Authenticator>>,
    /// Who proves nothing is let in all the same.
    anonymous: bool,
    /// Roles of which a caller needs one to be told what is served here.
    describe: Vec<String>,
    /// A method of some service asks for a role.
    guarded: bool,
    /// Time for all authenticators together.
    verify: Duration,
    verifying: Semaphore,
    observers: Vec<Arc<dyn Observer>>,
}

impl Admission {
    /// Lets everybody in: the side of a client, which serves nothing.
    pub(crate) fn open() -> Admission {
        Admission::new(Vec::new(), true, Vec::new(), &Limits::default(), Vec::new())
    }

    pub(crate) fn new(
        authenticators: Vec<Arc<dyn Authenticator>>,
        anonymous: bool,
        describe: Vec<String>,
        limits: &Limits,
        observers: Vec<Arc<dyn Observer>>,
    ) -> Admission {
        let verifying = Semaphore::new(limits.verifying.clamp(1, Semaphore::MAX_PERMITS));
        let guarded = !describe.is_empty();
        Admission { authenticators, anonymous, describe, guarded, verify: limits.verify, verifying, observers }
    }

    /// Takes the services into account that it guards.
    pub(crate) fn guarding<'a>(mut self, services: impl Iterator<Item = &'a ServiceDescriptor>) -> Admission {
        self.guarded |= services.flat_map(|s| &s.methods).any(|m| !m.roles.is_empty());
        self
    }

    /// Whether callers are asked who they are.
    pub fn asks(&self) -> bool {
        !self.authenticators.is_empty()
    }

    /// Whether callers that prove nothing are let in.
    pub fn takes_anonymous(&self) -> bool {
        self.anonymous || self.authenticators.is_empty()
    }

    /// Whether a method asks for a role, so that calls must be looked at one by one.
    pub(crate) fn is_guarded(&self) -> bool {
        self.guarded
    }

    /// Who the caller is, by what its link tells and what it shows itself; `None` = anybody, and let in. Without an
    /// authenticator nobody is asked, and what is shown is not looked at.
    ///
    /// # Errors
    ///
    /// [`Code::Unauthenticated`] with a text for the caller; [`Code::Unavailable`] if it could not be found out, by the
    /// limit `verify` or because an authenticator failed. Neither text has the secret in it.
    pub async fn authenticate(&self, facts: &PeerFacts, shown: Option<&Credentials>) -> Result<Option<Arc<Identity>>, RpcError> {
        if !self.asks() {
            return Ok(None);
        }
        let asking = async {
            // Closed never; if it were, nobody would be asked.
            let _place = self.verifying.acquire().await.map_err(|_| unchecked())?;
            self.ask(Shown::new(facts, shown)).await
        };
        let known = match tokio::time::timeout(self.verify, asking).await {
            Ok(known) => known.map_err(|error| self.refused(facts, shown, error))?,
            Err(_) => return Err(self.refused(facts, shown, too_slow(self.verify))),
        };
        match (known, shown) {
            (Some(identity), _) if is_over(&identity) => Err(lapsed()),
            (Some(identity), _) => Ok(Some(Arc::new(identity))),
            // Credentials that are worth nothing are a mistake that should not stay unseen.
            (None, Some(_)) => Err(unknown()),
            (None, None) if self.anonymous => Ok(None),
            (None, None) => Err(self.nothing_shown()),
        }
    }

    async fn ask(&self, shown: Shown<'_>) -> Result<Option<Identity>, RpcError> {
        for authenticator in &self.authenticators {
            if let Some(identity) = authenticator.authenticate(shown).await? {
                return Ok(Some(identity));
            }
        }
        Ok(None)
    }

    /// What the caller is told of an authenticator's error. What it is not told, observers are.
    #[cold]
    fn refused(&self, facts: &PeerFacts, shown: Option<&Credentials>, error: RpcError) -> RpcError {
        let message = shown.map_or_else(|| error.message().to_owned(), |shown| without(shown, error.message()));
        match error.code() {
            Code::Unauthenticated => RpcError::not_executed(Code::Unauthenticated, message),
            code => {
                let real = RpcError::not_executed(code, format!("an authenticator failed: {message}"));
                self.observers.iter().for_each(|o| o.refused(&facts.address, &real));
                unchecked()
            }
        }
    }

    #[cold]
    fn nothing_shown(&self) -> RpcError {
        let mut asked: Vec<String> = self.authenticators.iter().map(|a| a.asks_for()).collect();
        asked.dedup();
        let why = format!(
            "this server asks who calls, and nothing was shown that it knows: it takes {}; a client shows a token by `.credentials(…)`, \
             the command line by --token or FARCALL_TOKEN",
            asked.join(", or ")
        );
        RpcError::not_executed(Code::Unauthenticated, why)
    }

    /// Whether `caller` may call this method now: its roles, and that its proof still holds. To be asked before
    /// arguments are decoded. The error is for the caller; nothing has run.
    pub fn admit(&self, service: &ServiceDescriptor, method: usize, caller: Option<&Identity>) -> Result<(), RpcError> {
        match caller {
            Some(caller) if is_over(caller) => return Err(lapsed()),
            // A door that did not ask does not let anybody in either.
            None if !self.takes_anonymous() => return Err(self.nothing_shown()),
            _ => {}
        }
        match self.may(service, method, caller) {
            true => Ok(()),
            false => Err(self.forbidden(service, method, caller)),
        }
    }

    /// Whether `caller`'s roles are enough for this method. What it may not call it is not told of either.
    pub fn may(&self, service: &ServiceDescriptor, method: usize, caller: Option<&Identity>) -> bool {
        let roles = self.needed(service, method);
        roles.is_empty() || caller.is_some_and(|caller| roles.iter().any(|role| caller.has_role(role)))
    }

    /// The roles of which a caller needs one.
    fn needed<'a>(&'a self, service: &'a ServiceDescriptor, method: usize) -> &'a [String] {
        if !self.describe.is_empty() && service.name == DescribeClient::descriptor().name {
            return &self.describe;
        }
        service.methods.get(method).map_or(&[], |m| &m.roles)
    }

    #[cold]
    fn forbidden(&self, service: &ServiceDescriptor, method: usize, caller: Option<&Identity>) -> RpcError {
        let needed: Vec<String> = self.needed(service, method).iter().map(|role| format!("{role:?}")).collect();
        let (method, needed) = (service.full_name(method), needed.join(" or "));
        let (code, why) = match caller {
            Some(caller) => {
                let why =
                    format!("{method} needs the role {needed}, which {caller} does not have: ask whoever gives out roles here for it");
                (Code::PermissionDenied, why)
            }
            None => {
                let why =
                    format!("{method} needs the role {needed}, and this caller has not said who it is: show credentials that have it");
                (Code::Unauthenticated, why)
            }
        };
        RpcError::not_executed(code, why).with_stage(Stage::ServerQueue)
    }
}

fn is_over(identity: &Identity) -> bool {
    identity.expires().is_some_and(|end| end <= SystemTime::now())
}

/// The caller's proof has ended.
#[cold]
pub(crate) fn lapsed() -> RpcError {
    let why = "what proved who calls has expired: connect again with fresh credentials";
    RpcError::not_executed(Code::Unauthenticated, why).with_stage(Stage::ServerQueue)
}

#[cold]
fn unknown() -> RpcError {
    let why = "the credentials that were shown are not known here: check that they are whole, and for this server";
    RpcError::not_executed(Code::Unauthenticated, why)
}

#[cold]
fn unchecked() -> RpcError {
    let why = "who calls could not be found out just now: call again later; this server's observers know more";
    RpcError::not_executed(Code::Unavailable, why)
}

#[cold]
fn too_slow(time: Duration) -> RpcError {
    RpcError::not_executed(Code::DeadlineExceeded, format!("no decision within {} ms, the limit `verify`", time.as_millis()))
}

/// `text` without the secret, should an authenticator have put it there.
fn without(shown: &Credentials, text: &str) -> String {
    match std::str::from_utf8(shown.secret().expose()) {
        Ok(secret) if !secret.is_empty() => text.replace(secret, "(secret)"),
        _ => text.to_owned(),
    }
}
