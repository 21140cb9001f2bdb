//! Certificates and keys as PEM, in files or in memory.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use farcall_core::{Code, RpcError};
use rustls::pki_types::pem::{Error, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey as Loaded;
use rustls::{Error as TlsError, InconsistentKeys, RootCertStore};

use super::provider;

/// A file of certificates or a key is never as large as this.
const LARGEST: u64 = 1 << 20;

/// PEM text, or where it is.
#[derive(Clone)]
pub(super) enum Pem {
    File(PathBuf),
    Text(Arc<[u8]>),
}

/// A key's text is not for logs.
impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl Pem {
    pub(super) fn file(&self) -> Option<&Path> {
        match self {
            Pem::File(path) => Some(path),
            Pem::Text(_) => None,
        }
    }

    /// As errors name it.
    fn name(&self) -> String {
        match self {
            Pem::File(path) => path.display().to_string(),
            Pem::Text(_) => "(PEM in memory)".to_owned(),
        }
    }

    fn read(&self) -> Result<Arc<[u8]>, RpcError> {
        let path = match self {
            Pem::Text(text) => return Ok(Arc::clone(text)),
            Pem::File(path) => path,
        };
        let size = std::fs::metadata(path).map_err(|e| self.wrong(format!("cannot be read: {e}")))?.len();
        if size > LARGEST {
            return Err(self.wrong(format!("has {size} bytes, which no certificate or key has; at most {LARGEST} are read")));
        }
        std::fs::read(path).map(Arc::from).map_err(|e| self.wrong(format!("cannot be read: {e}")))
    }

    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, RpcError> {
        let text = self.read()?;
        let found = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, Error>>();
        let found = found.map_err(|e| self.wrong(format!("is not right PEM: {e}")))?;
        match found.is_empty() {
            true => Err(self.wrong("has no certificate: it must have a \"BEGIN CERTIFICATE\" line".into())),
            false => Ok(found),
        }
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, RpcError> {
        PrivateKeyDer::from_pem_slice(&self.read()?).map_err(|e| {
            self.wrong(match e {
                Error::NoItemsFound => "has no private key: it must have a \"BEGIN PRIVATE KEY\" line, and must not be encrypted".into(),
                e => format!("is not right PEM: {e}"),
            })
        })
    }

    pub(super) fn wrong(&self, why: String) -> RpcError {
        RpcError::not_sent(Code::InvalidArgument, format!("TLS: {} {why}", self.name()))
    }
}

/// What one side proves its name with: a certificate, those of its issuers up to (without) the root, and
/// the private key. Keys may be RSA (2048 bits and more), ECDSA (P-256, P-384) or Ed25519.
///
/// ```no_run
/// use farcall_transport::{CertifiedKey, TlsServer};
/// let tls = TlsServer::builder(CertifiedKey::files("server.pem", "server.key")).build()?;
/// # Ok::<_, farcall_core::RpcError>(())
/// ```
#[derive(Clone, Debug)]
pub struct CertifiedKey {
    chain: Pem,
    key: Pem,
}

impl CertifiedKey {
    /// From files; `key` may be the same file as `chain`. They are read anew when they change.
    pub fn files(chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> CertifiedKey {
        CertifiedKey { chain: Pem::File(chain.into()), key: Pem::File(key.into()) }
    }

    /// From PEM in memory.
    pub fn pem(chain: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> CertifiedKey {
        CertifiedKey { chain: Pem::Text(chain.as_ref().into()), key: Pem::Text(key.as_ref().into()) }
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        [self.chain.file(), self.key.file()].into_iter().flatten()
    }

    /// Reads both and checks that they belong together.
    pub(super) fn load(&self) -> Result<Loaded, RpcError> {
        let (chain, key) = (self.chain.certificates()?, self.key.key()?);
        webpki::EndEntityCert::try_from(&chain[0]).map_err(|e| self.chain.wrong(format!("has a certificate that cannot be used: {e}")))?;
        Loaded::from_der(chain, key, &provider()).map_err(|e| match e {
            TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                self.key.wrong(format!("is not the key of the first certificate in {}", self.chain.name()))
            }
            e => self.key.wrong(format!("has a key that cannot be used: {e}")),
        })
    }

    /// That the certificate is for this name.
    pub(super) fn check_name(&self, loaded: &Loaded, name: &str) -> Result<(), RpcError> {
        // A wildcard is checked by a name that it stands for.
        let asked = name.strip_prefix('*').map_or_else(|| name.to_owned(), |rest| format!("any{rest}"));
        let asked = rustls::pki_types::ServerName::try_from(asked).map_err(|_| {
            RpcError::not_sent(Code::InvalidArgument, format!("TLS: {name:?} is not a host name that a client can ask for"))
        })?;
        let certificate = webpki::EndEntityCert::try_from(&loaded.cert[0]).map_err(|e| self.chain.wrong(e.to_string()))?;
        certificate.verify_is_valid_for_subject_name(&asked).map_err(|_| {
            let names = super::proven_names(&loaded.cert[0]).join(", ");
            self.chain.wrong(format!("is a certificate for {names}, not for {name:?}"))
        })
    }
}

/// Certificates of authorities that are trusted to prove the other side's name. A self-signed certificate
/// may be given, too, if it is its own authority (`CA:TRUE`).
#[derive(Clone, Debug, Default)]
pub struct Authorities(Vec<Pem>);

impl Authorities {
    /// All certificates of a file, which is read anew when it changes.
    pub fn file(path: impl Into<PathBuf>) -> Authorities {
        Authorities(vec![Pem::File(path.into())])
    }

    /// All certificates of PEM in memory.
    pub fn pem(text: impl AsRef<[u8]>) -> Authorities {
        Authorities(vec![Pem::Text(text.as_ref().into())])
    }

    /// These and those.
    pub fn and(mut self, others: Authorities) -> Authorities {
        self.0.extend(others.0);
        self
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().filter_map(Pem::file)
    }

    pub(super) fn add_to(&self, roots: &mut RootCertStore) -> Result<(), RpcError> {
        for pem in &self.0 {
            for certificate in pem.certificates()? {
                roots.add(certificate).map_err(|e| pem.wrong(format!("has a certificate that cannot be used: {e}")))?;
            }
        }
        Ok(())
    }
}
