//! Dubbo's interface-level layout, which ZooKeeper and etcd share: where what stands, and what it says.
//!
//! ```text
//! /dubbo/<service>/providers/<url>       an instance; gone with its provider's session or lease
//! /dubbo/<service>/consumers/<url>       who uses the service
//! /dubbo/<service>/configurators/<url>   rules as URLs, as Dubbo 2.6 writes them
//! /dubbo/<service>/routers/<url>
//! /dubbo/config/dubbo/<key>.<kind>       rules as documents, as Dubbo 2.7 and later write them
//! ```
//!
//! `<url>` is percent-encoded. Nothing here does I/O.

mod entry;
#[cfg(any(feature = "zookeeper", feature = "etcd"))]
pub(crate) mod layout;
mod percent;
mod prints;
mod url;
#[cfg(any(feature = "zookeeper", feature = "etcd"))]
pub(crate) mod view;

pub use entry::{MAX_NAME, PROTOCOL, entry_of_node, node_name};
pub use url::{BadUrl, MAX_URL, Url};
