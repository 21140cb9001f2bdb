//! Certificates for the peers that speak TLS: made by the scenario, found by its processes through the environment.
use ::farcall::{Authorities, CertifiedKey, TlsClient, TlsServer};
use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::path::PathBuf;

/// Names the folder with `chain.pem`, `key.pem` and `ca.pem`.
pub(crate) const VARIABLE: &str = "FARCALL_BENCH_TLS";

/// The folder of this process's children.
pub(crate) fn folder() -> PathBuf {
    std::env::temp_dir().join(format!("farcall-bench-{}.tls", std::process::id()))
}

/// Makes an authority and a certificate for loopback.
pub(crate) fn make() -> Result<()> {
    let mut authority = CertificateParams::new([])?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate()?;
    let ca = authority.self_signed(&authority_key)?.pem();
    let key = KeyPair::generate()?;
    let chain =
        CertificateParams::new(["localhost".into(), "127.0.0.1".into()])?.signed_by(&key, &Issuer::new(authority, authority_key))?;
    std::fs::create_dir_all(folder())?;
    for (name, text) in [("chain.pem", chain.pem()), ("key.pem", key.serialize_pem()), ("ca.pem", ca)] {
        std::fs::write(folder().join(name), text)?;
    }
    Ok(())
}

fn file(name: &str) -> Result<PathBuf> {
    let folder = std::env::var_os(VARIABLE).with_context(|| format!("{VARIABLE} names no folder with certificates"))?;
    Ok(PathBuf::from(folder).join(name))
}

pub(crate) fn server() -> Result<TlsServer> {
    Ok(TlsServer::builder(CertifiedKey::files(file("chain.pem")?, file("key.pem")?)).build()?)
}

pub(crate) fn client() -> Result<TlsClient> {
    Ok(TlsClient::builder().ca(Authorities::file(file("ca.pem")?)).build()?)
}
