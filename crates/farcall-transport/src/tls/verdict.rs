//! What a certificate was refused for. QUIC tells it as a text for programmers; with this it is known as TLS knows it.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::failure::{Here, words};

/// Judges as what is inside does, for one connection, and keeps the reason if it refuses.
#[derive(Debug)]
pub(crate) struct Verdict {
    inside: Arc<WebPkiServerVerifier>,
    refused: Mutex<Option<Error>>,
}

impl Verdict {
    pub(super) fn new(inside: Arc<WebPkiServerVerifier>) -> Verdict {
        Verdict { inside, refused: Mutex::new(None) }
    }

    /// Why it was refused, in the words that TLS has for it.
    pub(crate) fn refused(&self) -> Option<String> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|e| words(e, Here::Client))
    }
}

impl ServerCertVerifier for Verdict {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let judged = self.inside.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        if let Err(e) = &judged {
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(e.clone());
        }
        judged
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inside.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inside.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inside.supported_verify_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        self.inside.root_hint_subjects()
    }
}
