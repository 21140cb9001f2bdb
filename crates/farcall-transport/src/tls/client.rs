//! What a client trusts, and what it proves itself with.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use farcall_core::{Address, Code, RpcError, Stage};
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use super::failure::{Here, explain};
use super::link::{ReadAhead, TlsLink};
use super::pem::{Authorities, CertifiedKey};
#[cfg(feature = "quic")]
use super::verdict::Verdict;
use super::watched::Watched;
use super::{FARCALL_ALPN, provider};
use crate::io::Io;

/// Files are looked at this often, when a connection is made.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Whom a client believes, for `tls://` and `quic://` addresses. Cheap to clone.
///
/// ```no_run
/// use farcall_transport::{Authorities, CertifiedKey, TlsClient};
/// let tls = TlsClient::builder()
///     .ca(Authorities::file("ca.pem"))
///     .certificate(CertifiedKey::files("client.pem", "client.key")) // if the provider asks for one
///     .build()?;
/// # Ok::<_, farcall_core::RpcError>(())
/// ```
#[derive(Clone)]
pub struct TlsClient {
    trust: Arc<Watched<Trust>>,
    server_name: Option<ServerName<'static>>,
}

struct Trust {
    config: Arc<ClientConfig>,
    #[cfg(feature = "quic")]
    verifier: Arc<WebPkiServerVerifier>,
}

impl std::fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsClient").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

/// See [`TlsClient::builder`].
#[derive(Debug, Clone, Default)]
pub struct TlsClientBuilder {
    ca: Option<Authorities>,
    system_roots: bool,
    certificate: Option<CertifiedKey>,
    server_name: Option<String>,
}

impl TlsClient {
    /// Trusts nobody yet.
    pub fn builder() -> TlsClientBuilder {
        TlsClientBuilder::default()
    }

    /// Reads all files anew. An error names the file that is not right; connections are then made with what
    /// was read before. Changed files are also found without this, at the next connection.
    pub fn reload(&self) -> Result<(), RpcError> {
        self.trust.reload()
    }

    /// The rustls configuration as it is now.
    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.trust.now().current.config)
    }

    /// The same for one connection, and what becomes of the provider's certificate in it.
    #[cfg(feature = "quic")]
    pub(crate) fn config_with_verdict(&self) -> (Arc<ClientConfig>, Arc<Verdict>) {
        let trust = self.trust.now().current;
        let verdict = Arc::new(Verdict::new(Arc::clone(&trust.verifier)));
        let mut config = ClientConfig::clone(&trust.config);
        config.dangerous().set_certificate_verifier(Arc::clone(&verdict) as _);
        (Arc::new(config), verdict)
    }

    /// The name that the provider at `host` must prove.
    pub(crate) fn name_for(&self, address: &Address, host: &str) -> Result<ServerName<'static>, RpcError> {
        match &self.server_name {
            Some(name) => Ok(name.clone()),
            None => server_name(host).ok_or_else(|| failed(address, format!("{host:?} is not a name that a certificate can be for"))),
        }
    }

    /// Shakes hands over `link`, which is not TLS yet.
    pub(crate) async fn connect(&self, address: &Address, host: &str, link: Io) -> Result<Io, RpcError> {
        let name = self.name_for(address, host)?;
        let sni = match &name {
            ServerName::DnsName(name) => Some(name.as_ref().to_owned()),
            _ => None,
        };
        let connector = TlsConnector::from(self.config());
        match connector.connect(name, ReadAhead::new(link, BytesMut::new())).await {
            Ok(stream) => Ok(Io::Tls(Box::new(TlsLink::new(stream.into(), sni)))),
            Err(e) => Err(failed(address, explain(&e, Here::Client)).with_source(e)),
        }
    }
}

/// A host name or address as certificates know it: without the zone of a link-local address.
fn server_name(host: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(host.split('%').next()?.to_owned()).ok()
}

fn failed(address: &Address, why: String) -> RpcError {
    RpcError::not_sent(Code::Unavailable, format!("{address}: {why}")).with_stage(Stage::Connect)
}

impl TlsClientBuilder {
    /// Trusts providers whose certificates these authorities have issued.
    pub fn ca(mut self, ca: Authorities) -> Self {
        self.ca = Some(match self.ca {
            Some(others) => others.and(ca),
            None => ca,
        });
        self
    }

    /// Trusts the authorities that this machine's system trusts, too (feature `system-roots`).
    #[cfg(feature = "system-roots")]
    pub fn system_roots(mut self) -> Self {
        self.system_roots = true;
        self
    }

    /// Proves itself with this to providers that ask for a client's certificate.
    pub fn certificate(mut self, certificate: CertifiedKey) -> Self {
        self.certificate = Some(certificate);
        self
    }

    /// The name that the provider must prove, instead of the host of its address: for providers that are
    /// reached by a number or through a tunnel.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Reads all files. An error names the one that is not right.
    pub fn build(self) -> Result<TlsClient, RpcError> {
        if self.ca.is_none() && !self.system_roots {
            let why = "TLS: nobody is trusted to prove a provider's name: give its authority's certificate with ca(…), or system_roots() with \
                       the feature system-roots";
            return Err(RpcError::not_sent(Code::InvalidArgument, why));
        }
        let wrong =
            |name: &str| RpcError::not_sent(Code::InvalidArgument, format!("TLS: server_name({name:?}) is not a host name or address"));
        let server_name = match &self.server_name {
            Some(name) => Some(server_name(name).ok_or_else(|| wrong(name))?),
            None => None,
        };
        let files = self.ca.iter().flat_map(Authorities::paths).chain(self.certificate.iter().flat_map(CertifiedKey::paths));
        let files = files.map(Into::into).collect();
        let trust = Watched::new(files, LOOK_EVERY, move || self.load())?;
        Ok(TlsClient { trust: Arc::new(trust), server_name })
    }

    fn load(&self) -> Result<Trust, RpcError> {
        let mut roots = RootCertStore::empty();
        if let Some(ca) = &self.ca {
            ca.add_to(&mut roots)?;
        }
        if self.system_roots {
            add_system_roots(&mut roots)?;
        }
        let unusable = |e: &dyn std::fmt::Display| RpcError::not_sent(Code::InvalidArgument, format!("TLS: {e}"));
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build().map_err(|e| unusable(&e))?;
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&rustls::version::TLS13]);
        let builder = builder.map_err(|e| unusable(&e))?.with_webpki_verifier(Arc::clone(&verifier));
        let mut config = match &self.certificate {
            Some(certificate) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certificate.load()?))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![FARCALL_ALPN.to_vec()];
        Ok(Trust {
            config: Arc::new(config),
            #[cfg(feature = "quic")]
            verifier,
        })
    }
}

#[cfg(feature = "system-roots")]
fn add_system_roots(roots: &mut RootCertStore) -> Result<(), RpcError> {
    let found = rustls_native_certs::load_native_certs();
    // Some systems keep a few that are not to be used.
    let (added, _) = roots.add_parsable_certificates(found.certs);
    match (added, found.errors.first()) {
        (0, Some(e)) => Err(RpcError::not_sent(Code::FailedPrecondition, format!("TLS: this system's authorities cannot be read: {e}"))),
        (0, None) => Err(RpcError::not_sent(Code::FailedPrecondition, "TLS: this system has no list of trusted authorities")),
        _ => Ok(()),
    }
}

#[cfg(not(feature = "system-roots"))]
fn add_system_roots(_: &mut RootCertStore) -> Result<(), RpcError> {
    Err(RpcError::not_sent(Code::Unimplemented, "TLS: this build cannot use the system's authorities: enable the feature system-roots"))
}
