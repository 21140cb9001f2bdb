//! Certificates made for a test, by an authority that lives as long.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use farcall::{Authorities, CertifiedKey, TlsClient, TlsServer};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType, date_time_ymd};

/// Issues certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate.
    pub pem: String,
}

/// A certificate and its key, as PEM.
pub struct Issued {
    /// The certificate.
    pub chain: String,
    /// Its key.
    pub key: String,
}

impl Issued {
    /// What a server or client proves itself with.
    pub fn identity(&self) -> CertifiedKey {
        CertifiedKey::pem(&self.chain, &self.key)
    }
}

fn params(names: &[&str]) -> CertificateParams {
    let (uris, names): (Vec<&str>, Vec<&str>) = names.iter().partition(|n| n.contains("://"));
    let mut params = CertificateParams::new(names.iter().map(|n| n.to_string()).collect::<Vec<_>>()).unwrap();
    params.subject_alt_names.extend(uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())));
    params
}

impl Authority {
    /// An authority with a name of its own.
    #[expect(clippy::new_without_default, reason = "each is another")]
    pub fn new() -> Authority {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        Authority::named(&format!("authority {}", NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    /// Several may have the same.
    pub fn named(name: &str) -> Authority {
        let mut params = params(&[]);
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// What to trust it by.
    pub fn trusted(&self) -> Authorities {
        Authorities::pem(&self.pem)
    }

    fn sign(&self, params: &CertificateParams) -> Issued {
        let key = KeyPair::generate().unwrap();
        Issued { chain: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }

    /// A certificate for these host names, addresses and URIs.
    pub fn issue(&self, names: &[&str]) -> Issued {
        self.sign(&params(names))
    }

    /// One that is valid only between these days.
    pub fn issue_between(&self, names: &[&str], from: (i32, u8, u8), to: (i32, u8, u8)) -> Issued {
        let mut params = params(names);
        (params.not_before, params.not_after) = (date_time_ymd(from.0, from.1, from.2), date_time_ymd(to.0, to.1, to.2));
        self.sign(&params)
    }

    /// One that may be used for clients alone.
    pub fn issue_for_clients(&self, names: &[&str]) -> Issued {
        let mut params = params(names);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params)
    }

    /// A server that proves to be `localhost` to whom [`trusting`](Authority::trusting) trusts.
    pub fn server(&self) -> TlsServer {
        TlsServer::builder(self.issue(&LOCAL).identity()).build().unwrap()
    }

    /// Writes what a provider process proves itself with, and what its consumers trust.
    pub fn write_to(&self, folder: &Path) {
        let issued = self.issue(&LOCAL);
        for (name, text) in [("chain.pem", &issued.chain), ("key.pem", &issued.key), ("ca.pem", &self.pem)] {
            std::fs::write(folder.join(name), text).unwrap();
        }
    }

    /// A client that trusts this authority and no other.
    pub fn trusting(&self) -> TlsClient {
        TlsClient::builder().ca(self.trusted()).build().unwrap()
    }
}

/// What this machine is called.
pub const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// A certificate that nobody has issued but itself.
pub fn self_signed(names: &[&str]) -> Issued {
    let key = KeyPair::generate().unwrap();
    Issued { chain: params(names).self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
}
