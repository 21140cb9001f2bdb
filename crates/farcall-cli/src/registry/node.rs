//! `farcall registry`: a node, until the process is asked to end.

use std::collections::HashMap;
use std::io::Write;
use std::time::Duration;

use farcall::auth::Tokens;
use farcall::{Address, Credentials, Identity, StopSignals};
use farcall_registry::embedded::{Embedded, RegistryLimits};

use super::args::Node;
use crate::access::token_in;
use crate::failure::Failure;
use crate::is_read;
use crate::text::plain;

/// For calls that run when it is asked to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often to see whether something is wrong.
const LOOK: Duration = Duration::from_secs(1);

/// Runs it; says on the first line where it listens.
pub(crate) async fn run(options: Node) -> Result<String, Failure> {
    // Before it listens, so that no signal comes too early.
    let mut signals = StopSignals::new()?;
    let mut limits = RegistryLimits::default();
    limits.lease = options.lease.unwrap_or(limits.lease);
    if let Some(open) = options.listen.iter().find(|address| options.tokens.is_none() && !options.anonymous && is_open(address)) {
        return Err(Failure::Usage(format!(
            "--listen {open}: other machines reach it, and the node does not ask who calls: give it --tokens FILE, or let everybody in by \
             --allow-anonymous"
        )));
    }
    let mut listen = options.listen.into_iter();
    let mut builder = Embedded::builder().limits(limits);
    let first = listen.next().unwrap_or_default();
    for also in listen {
        builder = builder.also(also);
    }
    for peer in options.peers {
        builder = builder.peer(peer);
    }
    for grant in options.grants {
        builder = builder.allow(grant);
    }
    if let Some(folder) = options.data {
        builder = builder.folder(folder);
    }
    if let Some(path) = &options.tokens {
        builder = builder.authenticate(tokens(path, &read("--tokens", path)?)?);
    }
    if let Some(path) = &options.token_file {
        builder = builder.credentials(Credentials::bearer(token_in(path)?));
    }
    if options.anonymous {
        builder = builder.allow_anonymous();
    }
    let node = builder.listen(first).await?;
    let addresses: Vec<String> = node.addresses().iter().map(ToString::to_string).collect();
    is_read(&format!("listening on {}\n", addresses.join(", ")))?;
    let mut said = Vec::new();
    while tokio::time::timeout(LOOK, signals.next()).await.is_err() {
        let troubles = node.troubles();
        for trouble in troubles.iter().filter(|trouble| !said.contains(*trouble)) {
            // With stderr closed there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "farcall registry: {}", plain(trouble));
        }
        said = troubles;
    }
    node.stop(PATIENCE).await?;
    Ok(String::new())
}

/// Whether other machines reach an address. What does not read is refused when it is listened on.
fn is_open(address: &str) -> bool {
    address.parse::<Address>().is_ok_and(|address| !address.is_local())
}

fn read(option: &str, path: &str) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|e| Failure::Usage(format!("{option} {path:?}: {e}")))
}

/// A line per caller: token, name, roles. What is wrong is named by its line, never by its text, which is secret.
fn tokens(path: &str, text: &str) -> Result<Tokens, Failure> {
    let (mut tokens, mut seen) = (Tokens::new(), HashMap::new());
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let (Some(token), Some(name)) = (words.next(), words.next()) else {
            return Err(Failure::Usage(format!("--tokens {path:?}, line {}: write TOKEN NAME [ROLE…]", number + 1)));
        };
        if let Some(earlier) = seen.insert(token, number + 1) {
            return Err(Failure::Usage(format!("--tokens {path:?}, line {}: it is the token of line {earlier}", number + 1)));
        }
        tokens = tokens.token(token.to_owned(), words.fold(Identity::new(name), Identity::role));
    }
    match seen.is_empty() {
        true => {
            Err(Failure::Usage(format!("--tokens {path:?}: it names nobody, so nobody could come: write TOKEN NAME [ROLE…], a line each")))
        }
        false => Ok(tokens),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_line_is_named_without_its_secret() {
        assert!(tokens("f", "# who\n\nabc bank\ndef ann ops admin\n").is_ok());
        let e = tokens("f", "abc bank\ns3cret\n").unwrap_err().to_string();
        assert!(e.contains("line 2: write TOKEN NAME") && !e.contains("s3cret"), "{e}");
        let e = tokens("f", "s3cret bank\ndef ann\ns3cret eve\n").unwrap_err().to_string();
        assert!(e.contains("line 3: it is the token of line 1") && !e.contains("s3cret"), "{e}");
        assert!(tokens("f", "# nobody yet\n").unwrap_err().to_string().contains("nobody could come"));
    }
}
