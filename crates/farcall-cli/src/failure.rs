//! Why a command failed, as the user sees it.

use std::fmt;
use std::process::ExitCode;

use farcall::RpcError;

use crate::text::plain;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What was asked for is wrong. Nothing was sent but the question what there is.
    Usage(String),
    /// The call failed, or there is no connection.
    Rpc {
        error: RpcError,
        /// It was called with a key.
        keyed: bool,
    },
    /// One of two versions could not be asked, so nothing was compared. Not exit code 1, which is the answer no.
    NotCompared(RpcError),
    /// The method answered with its own error: JSON.
    App(String),
    /// Reading stdin or writing stdout failed.
    Io(std::io::Error),
}

impl Failure {
    /// Scripts tell by it whose fault it was.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::Rpc { .. } | Failure::Io(_) => 1,
            Failure::Usage(_) | Failure::NotCompared(_) => 2,
            Failure::App(_) => 3,
        })
    }
}

impl From<RpcError> for Failure {
    fn from(error: RpcError) -> Failure {
        Failure::Rpc { error, keyed: false }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(why) => writeln!(f, "farcall: {}", plain(why)),
            Failure::Rpc { error, keyed } => rpc(f, error, *keyed),
            Failure::NotCompared(error) => rpc(f, error, false),
            Failure::App(json) => writeln!(f, "{json}"),
            Failure::Io(e) => writeln!(f, "farcall: {e}"),
        }
    }
}

fn rpc(f: &mut fmt::Formatter<'_>, e: &RpcError, keyed: bool) -> fmt::Result {
    let method = e.method().map(|m| format!("{m}: ")).unwrap_or_default();
    writeln!(f, "farcall: {}{}", plain(&method), plain(e.message()))?;
    writeln!(f, "  code       {}", e.code())?;
    let advice = match (e.certainty().is_safe_to_retry(), keyed) {
        (true, _) => "calling again cannot run it twice",
        (false, false) => "calling again may run it twice",
        (false, true) => "calling again with this key cannot run it twice while the provider remembers it",
    };
    writeln!(f, "  certainty  {} ({advice})", e.certainty())?;
    if let Some(stage) = e.stage() {
        writeln!(f, "  stage      {stage}")?;
    }
    if let Some(peer) = e.peer() {
        writeln!(f, "  peer       {}", plain(peer))?;
    }
    Ok(())
}
