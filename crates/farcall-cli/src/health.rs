//! `farcall health`: whether a provider is ready for calls.

use farcall::Limits;
use farcall::health::{HealthClient, Serving};

use crate::args::Health;
use crate::failure::Failure;
use crate::find::nearest;
use crate::output::Output;
use crate::text::plain;

/// Asks, and writes the answer down.
pub(crate) async fn run(options: Health) -> Result<Output, Failure> {
    let Health { address, service, timeout, access } = options;
    let connect = HealthClient::connect(address).limits(Limits { handshake: timeout, ..Limits::default() });
    let health = access.show(connect)?.await?;
    let all = health.all().deadline(timeout).await?;
    let chosen: Vec<_> = all.iter().filter(|(name, _)| service.as_ref().is_none_or(|wanted| wanted == name)).collect();
    if let (Some(wanted), true) = (&service, chosen.is_empty()) {
        let hint = nearest(wanted, all.iter().map(|(name, _)| name.as_str())).map(|name| format!(", did you mean {name:?}?"));
        return Err(Failure::Usage(format!("there is no service {wanted:?}{}", hint.unwrap_or_default())));
    }
    let width = chosen.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    let line = |(name, serving): &&(String, Serving)| format!("{:width$}  {}\n", plain(name), shown(*serving));
    let text = chosen.iter().map(line).collect();
    let ready = chosen.iter().all(|(_, serving)| *serving == Serving::Ready);
    Ok(Output { text, exit_code: u8::from(!ready) })
}

fn shown(serving: Serving) -> &'static str {
    match serving {
        Serving::Ready => "ready",
        Serving::NotReady => "not ready",
    }
}
