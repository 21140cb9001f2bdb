//! What the command shows to prove who it is, and whom it believes: a token of the command line, of a file, or of the
//! environment; certificates of files.

use farcall::{Authorities, CertifiedKey, Channel, Code, Connect, Credentials, RpcError, Secret, TlsClient};

use crate::failure::Failure;

/// The environment variable that holds the token where the command line says none: other users of the machine can
/// read a command line, not an environment.
const VARIABLE: &str = "FARCALL_TOKEN";

/// What is shown.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    token: Option<Secret>,
    /// It may be sent where others can read it.
    pub(crate) in_clear: bool,
}

/// Not by its secret.
impl PartialEq for Shown {
    fn eq(&self, other: &Shown) -> bool {
        (self.token.is_some(), self.in_clear) == (other.token.is_some(), other.in_clear)
    }
}

impl Shown {
    /// The options that set it.
    pub(crate) const OPTIONS: &[&'static str] = &["token", "token-file", "token-in-clear"];

    /// Takes one of its options, and its value if it has one.
    pub(crate) fn take(&mut self, option: &str, value: impl FnOnce() -> Result<String, Failure>) -> Result<(), Failure> {
        match option {
            "token" => self.token = Some(token("--token", &value()?)?),
            "token-file" => self.token = Some(token_in(&value()?)?),
            _ => self.in_clear = true,
        }
        Ok(())
    }

    /// The token that was given, or that of the environment.
    pub(crate) fn token(&self) -> Option<Secret> {
        self.token.clone().or_else(of_environment)
    }
}

/// See the module's text.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Access {
    shown: Shown,
    /// A file of authorities, or `system`.
    ca: Option<String>,
    certificate: Option<String>,
    certificate_key: Option<String>,
    server_name: Option<String>,
}

impl Access {
    /// The options that set it.
    pub(crate) const OPTIONS: &[&'static str] = &["token", "token-file", "token-in-clear", "ca", "cert", "cert-key", "server-name"];

    pub(crate) fn takes(option: &str) -> bool {
        Access::OPTIONS.contains(&option)
    }

    /// Takes one of its options, and its value if it has one.
    pub(crate) fn take(&mut self, option: &str, value: impl FnOnce() -> Result<String, Failure>) -> Result<(), Failure> {
        match option {
            name if Shown::OPTIONS.contains(&name) => self.shown.take(name, value)?,
            "ca" => self.ca = Some(value()?),
            "cert" => self.certificate = Some(value()?),
            "cert-key" => self.certificate_key = Some(value()?),
            _ => self.server_name = Some(value()?),
        }
        Ok(())
    }

    /// Shows it on every connection that is made.
    pub(crate) fn show<C: From<Channel> + 'static>(&self, connect: Connect<C>) -> Result<Connect<C>, RpcError> {
        let connect = match self.shown.token() {
            Some(token) => connect.credentials(Credentials::bearer(token)),
            None => connect,
        };
        let connect = match self.tls()? {
            Some(tls) => connect.tls(&tls),
            None => connect,
        };
        Ok(if self.shown.in_clear { connect.credentials_in_clear() } else { connect })
    }

    /// Whom to believe; `None` if nothing was said of that.
    fn tls(&self) -> Result<Option<TlsClient>, RpcError> {
        let given = [("--cert", &self.certificate), ("--cert-key", &self.certificate_key), ("--server-name", &self.server_name)];
        let mut tls = match (self.ca.as_deref(), given.iter().find(|(_, value)| value.is_some())) {
            (None, None) => return Ok(None),
            (None, Some((option, _))) => {
                return Err(unfit(format!("{option} is for TLS: say whom to believe, too, by --ca FILE or --ca system")));
            }
            (Some("system"), _) => TlsClient::builder().system_roots(),
            (Some(file), _) => TlsClient::builder().ca(Authorities::file(file)),
        };
        if self.certificate.is_none() && self.certificate_key.is_some() {
            return Err(unfit("--cert-key is the key of a certificate: give that, too, by --cert FILE"));
        }
        if let Some(file) = &self.certificate {
            tls = tls.certificate(CertifiedKey::files(file, self.certificate_key.as_ref().unwrap_or(file)));
        }
        if let Some(name) = &self.server_name {
            tls = tls.server_name(name);
        }
        tls.build().map(Some)
    }
}

fn unfit(why: impl Into<String>) -> RpcError {
    RpcError::not_sent(Code::InvalidArgument, why)
}

/// The token in a file, without blanks around it.
pub(crate) fn token_in(path: &str) -> Result<Secret, Failure> {
    let text = std::fs::read_to_string(path).map_err(|e| Failure::Usage(format!("--token-file {path:?}: {e}")))?;
    token(&format!("--token-file {path:?}"), text.trim())
}

/// Nobody has given out an empty one: a variable was not set, or a file not written.
fn token(option: &str, text: &str) -> Result<Secret, Failure> {
    match text.is_empty() {
        true => Err(Failure::Usage(format!("{option}: the token is empty"))),
        false => Ok(Secret::from(text.to_owned())),
    }
}

fn of_environment() -> Option<Secret> {
    std::env::var(VARIABLE).ok().filter(|token| !token.is_empty()).map(Secret::from)
}
