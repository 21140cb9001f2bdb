//! The provider at an address, and what it says of itself.

use std::time::Duration;

use farcall::meta::{DescribeClient, MethodSchemas, ServiceInfo};
use farcall::{Code, Limits, RpcError};

use crate::access::Access;
use crate::description::{Description, Service};

/// Connects and asks for the description. Both together may take twice `timeout`.
pub(crate) async fn ask(address: &str, access: &Access, timeout: Duration) -> Result<(DescribeClient, Vec<ServiceInfo>), RpcError> {
    let connect = DescribeClient::connect(address).limits(Limits { handshake: timeout, ..Limits::default() });
    let meta = access.show(connect)?.await?;
    let services = meta.services().deadline(timeout).await?;
    Ok((meta, services))
}

/// Connects and asks for everything there is to know.
pub(crate) async fn describe(address: &str, access: &Access, timeout: Duration) -> Result<Description, RpcError> {
    let (meta, all) = ask(address, access, timeout).await?;
    let services = with_schemas(&meta, &all.iter().collect::<Vec<_>>(), timeout).await?;
    Ok(Description { address: address.to_owned(), services })
}

/// These services with the schemas of their methods. Each may take `timeout`.
pub(crate) async fn with_schemas(meta: &DescribeClient, services: &[&ServiceInfo], timeout: Duration) -> Result<Vec<Service>, RpcError> {
    let mut described = Vec::with_capacity(services.len());
    for service in services {
        described.push(with_its_schemas(meta, service, timeout).await?);
    }
    Ok(described)
}

/// One service with the schemas of its methods.
pub(crate) async fn with_its_schemas(meta: &DescribeClient, service: &ServiceInfo, timeout: Duration) -> Result<Service, RpcError> {
    Ok(Service::of(service, schemas(meta, service, timeout).await?))
}

/// None if the provider is too old to tell.
async fn schemas(meta: &DescribeClient, service: &ServiceInfo, timeout: Duration) -> Result<Option<Vec<MethodSchemas>>, RpcError> {
    let ServiceInfo { name, group, version, .. } = service.clone();
    match meta.schemas(name, group, version).deadline(timeout).await {
        Ok(schemas) => Ok(Some(schemas)),
        Err(error) if error.code() == Code::Unimplemented => Ok(None),
        Err(error) => Err(error),
    }
}
