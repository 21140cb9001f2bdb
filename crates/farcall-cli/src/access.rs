//! What the command shows to prove who it is, and whom it believes: a token of the command line, of a file, or of the
//! environment; certificates of files.

use farcall::{Authorities, CertifiedKey, Channel, Connect, Credentials, RpcError, Secret, TlsClient};

use crate::failure::Failure;

/// The environment variable that holds the token where the command line says none: other users of the machine can
/// read a command line, not an environment.
const VARIABLE: &str = "FARCALL_TOKEN";

/// See the module's text.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Access {
    token: Option<Credentials>,
    /// It may be sent where others can read it.
    in_clear: bool,
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
            "token" => self.token = Some(Credentials::bearer(value()?)),
            "token-file" => self.token = Some(token_in(&value()?)?),
            "token-in-clear" => self.in_clear = true,
            "ca" => self.ca = Some(value()?),
            "cert" => self.certificate = Some(value()?),
            "cert-key" => self.certificate_key = Some(value()?),
            _ => self.server_name = Some(value()?),
        }
        Ok(())
    }

    /// Shows it on every connection that is made.
    pub(crate) fn show<C: From<Channel> + 'static>(&self, connect: Connect<C>) -> Result<Connect<C>, RpcError> {
        let connect = match self.token.clone().or_else(of_environment) {
            Some(credentials) => connect.credentials(credentials),
            None => connect,
        };
        let connect = match self.tls()? {
            Some(tls) => connect.tls(&tls),
            None => connect,
        };
        Ok(if self.in_clear { connect.credentials_in_clear() } else { connect })
    }

    /// Whom to believe; `None` if nothing was said of that.
    fn tls(&self) -> Result<Option<TlsClient>, RpcError> {
        let mut tls = TlsClient::builder();
        match (self.ca.as_deref(), &self.certificate, &self.server_name) {
            (None, None, None) => return Ok(None),
            (Some("system"), ..) => tls = tls.system_roots(),
            (Some(file), ..) => tls = tls.ca(Authorities::file(file)),
            // That is an error, which says what to give.
            (None, ..) => {}
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

/// The token in a file, without blanks around it.
fn token_in(path: &str) -> Result<Credentials, Failure> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Credentials::bearer(text.trim())),
        Err(e) => Err(Failure::Usage(format!("--token-file {path:?}: {e}"))),
    }
}

fn of_environment() -> Option<Credentials> {
    let token = std::env::var(VARIABLE).ok().filter(|token| !token.is_empty())?;
    Some(Credentials::bearer(Secret::from(token)))
}
