//! What a server proves itself with, whom it lets in, and what it does about plaintext.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use farcall_core::{Code, RpcError};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey as Loaded;
use rustls::{RootCertStore, ServerConfig};

use super::failure::{Here, explain};
use super::link::{ReadAhead, TlsLink};
use super::pem::{Authorities, CertifiedKey};
use super::provider;
use super::watched::Watched;
use crate::io::Io;

/// Files are looked at this often unless told otherwise.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// What a server's TLS is made of. Cheap to clone; clones are the same: keep one to
/// [`reload`](TlsServer::reload) it.
///
/// With it, a server's TCP addresses speak TLS and nothing else, whether they are written `tcp://` or
/// `tls://`; [`accept_plaintext`](TlsServerBuilder::accept_plaintext) is the way to serve both. Unix sockets
/// and memory stay as they are.
///
/// ```no_run
/// use farcall_transport::{Authorities, CertifiedKey, TlsServer};
/// let tls = TlsServer::builder(CertifiedKey::files("server.pem", "server.key"))
///     .require_clients(Authorities::file("clients-ca.pem"))
///     .build()?;
/// tls.reload()?; // after the files were renewed; they are also looked at every 10 s
/// # Ok::<_, farcall_core::RpcError>(())
/// ```
#[derive(Clone)]
pub struct TlsServer {
    config: Arc<Watched<ServerConfig>>,
    plaintext: bool,
    requires_clients: bool,
}

impl fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsServer").field("plaintext", &self.plaintext).finish_non_exhaustive()
    }
}

/// See [`TlsServer::builder`].
#[derive(Debug, Clone)]
pub struct TlsServerBuilder {
    certificate: CertifiedKey,
    names: Vec<(String, CertifiedKey)>,
    clients: Option<(Authorities, Asked)>,
    plaintext: bool,
    look_every: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    MayShow,
    MustShow,
}

impl TlsServer {
    /// A server that proves itself with `certificate` to clients that ask for no name or one that no
    /// [`name`](TlsServerBuilder::name) is for. Any client may come.
    pub fn builder(certificate: CertifiedKey) -> TlsServerBuilder {
        TlsServerBuilder { certificate, names: Vec::new(), clients: None, plaintext: false, look_every: LOOK_EVERY }
    }

    /// Reads all files anew, for connections to come; those that are open go on. An error names the file that
    /// is not right, and everything stays as it was.
    pub fn reload(&self) -> Result<(), RpcError> {
        self.config.reload()
    }

    /// Whether nobody is let in but [clients with a certificate](TlsServerBuilder::require_clients), also not in plaintext.
    pub fn requires_clients(&self) -> bool {
        self.requires_clients && !self.plaintext
    }

    /// Whether plaintext is served on the same port.
    pub fn accepts_plaintext(&self) -> bool {
        self.plaintext
    }
}

impl TlsServerBuilder {
    /// Proves itself with `certificate` to clients that ask for this host name (SNI). `*.shop.example` stands
    /// for any one label. An error of [`build`](TlsServerBuilder::build) if the certificate is for another.
    pub fn name(mut self, name: impl Into<String>, certificate: CertifiedKey) -> Self {
        self.names.push((name.into().to_ascii_lowercase(), certificate));
        self
    }

    /// Only clients with a certificate that these authorities have issued are let in. What it proves is in
    /// the handler's `context().peer()`.
    pub fn require_clients(mut self, authorities: Authorities) -> Self {
        self.clients = Some((authorities, Asked::MustShow));
        self
    }

    /// As [`require_clients`](TlsServerBuilder::require_clients), but clients without a certificate are let
    /// in, too, as nobody in particular. One with a wrong certificate is not.
    pub fn ask_clients(mut self, authorities: Authorities) -> Self {
        self.clients = Some((authorities, Asked::MayShow));
        self
    }

    /// Serves plaintext on the same port, too: for the time of a move to TLS. Handlers see which it is
    /// (`context().peer()`, `facts.tls`). Default: plaintext is refused with a text that says why.
    pub fn accept_plaintext(mut self) -> Self {
        self.plaintext = true;
        self
    }

    /// How old the last look at the files may be when a connection comes. Default 10 s.
    pub fn look_every(mut self, time: Duration) -> Self {
        self.look_every = time;
        self
    }

    /// Reads all files. An error names the one that is not right.
    pub fn build(self) -> Result<TlsServer, RpcError> {
        let all = std::iter::once(&self.certificate).chain(self.names.iter().map(|(_, certificate)| certificate));
        let files = all.flat_map(CertifiedKey::paths).chain(self.clients.iter().flat_map(|(ca, _)| ca.paths()));
        let files: Vec<PathBuf> = files.map(Into::into).collect();
        let (plaintext, every) = (self.plaintext, self.look_every);
        let requires_clients = self.clients.as_ref().is_some_and(|(_, asked)| *asked == Asked::MustShow);
        let config = Watched::new(files, every, move || self.load())?;
        Ok(TlsServer { config: Arc::new(config), plaintext, requires_clients })
    }

    fn load(&self) -> Result<ServerConfig, RpcError> {
        let unusable = |e: &dyn fmt::Display| RpcError::not_sent(Code::InvalidArgument, format!("TLS: {e}"));
        let mut certificates = Certificates { default: Arc::new(self.certificate.load()?), named: HashMap::new() };
        for (name, certificate) in &self.names {
            let loaded = certificate.load()?;
            certificate.check_name(&loaded, name)?;
            certificates.named.insert(name.clone(), Arc::new(loaded));
        }
        let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&rustls::version::TLS13]);
        let builder = builder.map_err(|e| unusable(&e))?;
        let builder = match &self.clients {
            None => builder.with_no_client_auth(),
            Some((authorities, asked)) => {
                let mut roots = RootCertStore::empty();
                authorities.add_to(&mut roots)?;
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
                let verifier = if *asked == Asked::MayShow { verifier.allow_unauthenticated() } else { verifier };
                builder.with_client_cert_verifier(verifier.build().map_err(|e| unusable(&e))?)
            }
        };
        Ok(builder.with_cert_resolver(Arc::new(certificates)))
    }
}

/// Which certificate is shown to whom.
#[derive(Debug)]
struct Certificates {
    default: Arc<Loaded>,
    named: HashMap<String, Arc<Loaded>>,
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<Loaded>> {
        let named = hello.server_name().and_then(|name| {
            let name = name.to_ascii_lowercase();
            let any = || name.split_once('.').map(|(_, rest)| format!("*.{rest}"));
            self.named.get(&name).or_else(|| self.named.get(&any()?))
        });
        Some(Arc::clone(named.unwrap_or(&self.default)))
    }
}

/// Tells whoever wants to know that a changed file was not taken.
type OnFailure = Box<dyn Fn(&RpcError) + Send + Sync>;

/// One server's use of a [`TlsServer`]: with the protocols that it speaks.
pub(crate) struct TlsAcceptor {
    tls: TlsServer,
    alpn: Vec<Vec<u8>>,
    on_failure: OnFailure,
    /// With the protocols filled in, and of which generation it is.
    made: Mutex<Option<(u64, Arc<ServerConfig>)>>,
}

impl TlsAcceptor {
    pub(crate) fn new(tls: TlsServer, alpn: &[&str], on_failure: OnFailure) -> TlsAcceptor {
        let alpn = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsAcceptor { tls, alpn, on_failure, made: Mutex::new(None) }
    }

    pub(crate) fn accepts_plaintext(&self) -> bool {
        self.tls.plaintext
    }

    /// The configuration as it is now, and a number that grows when it changes.
    pub(crate) fn config(&self) -> (u64, Arc<ServerConfig>) {
        let now = self.tls.config.now();
        if let Some(e) = &now.failed {
            (self.on_failure)(e);
        }
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((generation, config)) = &*made
            && *generation == now.generation
        {
            return (*generation, Arc::clone(config));
        }
        let mut config = ServerConfig::clone(&now.current);
        config.alpn_protocols = self.alpn.clone();
        let config = Arc::new(config);
        *made = Some((now.generation, Arc::clone(&config)));
        (now.generation, config)
    }

    /// Shakes hands on a link that begins with the bytes `first`.
    pub(crate) async fn accept(&self, link: Io, first: BytesMut) -> Result<Io, Refused> {
        let acceptor = tokio_rustls::TlsAcceptor::from(self.config().1);
        match acceptor.accept(ReadAhead::new(link, first)).into_fallible().await {
            Ok(stream) => {
                let sni = stream.get_ref().1.server_name().map(str::to_owned);
                Ok(Io::Tls(Box::new(TlsLink::new(stream.into(), sni))))
            }
            Err((e, link)) => Err(Refused { why: explain(&e, Here::Server), link: link.into_inner() }),
        }
    }
}

/// A client that was not let in, and was told so by an alert. The link must be kept until it has read it.
pub(crate) struct Refused {
    pub(crate) why: String,
    pub(crate) link: Io,
}
