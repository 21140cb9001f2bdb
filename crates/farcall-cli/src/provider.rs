//! The provider at an address, and what it says of itself.

use std::time::Duration;

use farcall::meta::{DescribeClient, ServiceInfo};
use farcall::{Limits, RpcError};

/// Connects and asks for the description. Both together may take twice `timeout`.
pub(crate) async fn ask(address: &str, timeout: Duration) -> Result<(DescribeClient, Vec<ServiceInfo>), RpcError> {
    let meta = DescribeClient::connect(address).limits(Limits { handshake: timeout, ..Limits::default() }).await?;
    let services = meta.services().deadline(timeout).await?;
    Ok((meta, services))
}
