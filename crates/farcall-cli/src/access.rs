//! What the command shows to prove who it is: a token of the command line, of a file, or of the environment.

use farcall::{Channel, Connect, Credentials, Secret};

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
}

impl Access {
    /// A token of the command line.
    pub(crate) fn token(&mut self, token: String) {
        self.token = Some(Credentials::bearer(token));
    }

    /// The token in a file, without blanks around it.
    pub(crate) fn token_file(&mut self, path: &str) -> Result<(), Failure> {
        match std::fs::read_to_string(path) {
            Ok(text) => self.token = Some(Credentials::bearer(text.trim())),
            Err(e) => return Err(Failure::Usage(format!("--token-file {path:?}: {e}"))),
        }
        Ok(())
    }

    pub(crate) fn in_clear(&mut self) {
        self.in_clear = true;
    }

    /// Shows it on every connection that is made.
    pub(crate) fn show<C: From<Channel> + 'static>(&self, connect: Connect<C>) -> Connect<C> {
        let connect = match self.token.clone().or_else(of_environment) {
            Some(credentials) => connect.credentials(credentials),
            None => connect,
        };
        if self.in_clear { connect.credentials_in_clear() } else { connect }
    }
}

fn of_environment() -> Option<Credentials> {
    let token = std::env::var(VARIABLE).ok().filter(|token| !token.is_empty())?;
    Some(Credentials::bearer(Secret::from(token)))
}
