//! What went wrong in TLS, in words that say what to do.

use std::io::{Error, ErrorKind};
use std::net::IpAddr;
use std::time::Duration;

use rustls::{AlertDescription, CertificateError, Error as Tls, InvalidMessage, PeerIncompatible};

/// Which side speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Here {
    Client,
    Server,
}

/// The words for what ended a handshake.
pub(super) fn explain(e: &Error, here: Here) -> String {
    match e.get_ref().and_then(|inner| inner.downcast_ref::<Tls>()) {
        Some(tls) => words(tls, here),
        None => match (e.kind(), here) {
            (ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe, Here::Client) => {
                "the peer closed the connection in the TLS handshake: it may not speak TLS, be overloaded, or refuse this host".to_owned()
            }
            _ => format!("the connection broke in the TLS handshake: {e}"),
        },
    }
}

/// The words for a link that breaks later, if TLS has something to say about it. In TLS 1.3 a server
/// refuses a client's certificate after the client is done with its handshake.
pub(super) fn refused_by_peer(e: Error, here: Here) -> Error {
    match e.get_ref().and_then(|inner| inner.downcast_ref::<Tls>()) {
        Some(tls) => Error::new(e.kind(), words(tls, here)),
        None if e.kind() == ErrorKind::UnexpectedEof => Error::new(e.kind(), "the connection was cut off: no end of TLS was said"),
        None => e,
    }
}

pub(super) fn words(e: &Tls, here: Here) -> String {
    match e {
        Tls::InvalidCertificate(why) => certificate(why, here),
        Tls::AlertReceived(alert) => alerted(*alert, here),
        Tls::NoCertificatesPresented => match here {
            Here::Server => "the client has shown no certificate, and this server requires one".to_owned(),
            Here::Client => "the peer has shown no certificate".to_owned(),
        },
        Tls::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion | InvalidMessage::MessageTooLarge,
        ) => match here {
            Here::Client => "what answers there does not speak TLS: is the port right? If the provider has no TLS, use tcp://".to_owned(),
            Here::Server => "what came is not TLS".to_owned(),
        },
        Tls::NoApplicationProtocol => "no protocol that the client asks for (ALPN) is spoken here".to_owned(),
        Tls::PeerIncompatible(
            PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled,
        ) => "the peer does not speak TLS 1.3, the only version spoken here".to_owned(),
        e => format!("TLS: {e}"),
    }
}

/// The words for a handshake that ended with this alert, by number: the peer's, or one of this side, which then knows
/// no more of the reason.
#[cfg(feature = "quic")]
pub(crate) fn told_by_alert(alert: u8, is_ours: bool, here: Here) -> Option<String> {
    let alert = AlertDescription::from(alert);
    let why = match alert {
        _ if !is_ours => return Some(alerted(alert, here)),
        AlertDescription::CertificateRequired => return Some(words(&Tls::NoCertificatesPresented, here)),
        AlertDescription::NoApplicationProtocol => return Some(words(&Tls::NoApplicationProtocol, here)),
        AlertDescription::CertificateExpired => CertificateError::Expired,
        AlertDescription::UnknownCA => CertificateError::UnknownIssuer,
        AlertDescription::DecryptError => CertificateError::BadSignature,
        AlertDescription::UnsupportedCertificate => CertificateError::InvalidPurpose,
        _ => return None,
    };
    Some(certificate(&why, here))
}

fn certificate(why: &CertificateError, here: Here) -> String {
    let (whose, trust) = match here {
        Here::Client => ("the provider's certificate", "give its issuer's certificate: TlsClient's ca(…), or --ca"),
        Here::Server => ("the client's certificate", "let it use one that is issued by an authority of this server's list"),
    };
    match why {
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("{whose} has expired on {}: renew it, or check this machine's clock", date(not_after.as_secs()))
        }
        CertificateError::Expired => format!("{whose} has expired, or is not valid yet: renew it, or check this machine's clock"),
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("{whose} is valid only from {} on: check this machine's clock", date(not_before.as_secs()))
        }
        CertificateError::NotValidYet => format!("{whose} is not valid yet: check this machine's clock"),
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "{whose} is for {}, not for {:?}: connect by a name it is for, or give the name with server_name(…)",
            if presented.is_empty() {
                "no name at all".to_owned()
            } else {
                presented.iter().map(|name| plain(name)).collect::<Vec<_>>().join(", ")
            },
            expected.to_str(),
        ),
        CertificateError::NotValidForName => format!("{whose} is for another name: connect by a name it is for"),
        CertificateError::UnknownIssuer => format!("{whose} is issued by nobody whom this side trusts: {trust}"),
        CertificateError::BadSignature => {
            format!("{whose} is not signed by the issuer that it names, although an authority of that name is trusted: {trust}")
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            format!("{whose} is not meant for this use (its extended key usage lacks {})", usage(here, false))
        }
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            format!("{whose} is an authority's own: a provider needs one that is issued by it (CA:FALSE)")
        }
        other => format!("{whose} is refused: {other}"),
    }
}

/// What a certificate of this side, or of the peer, is to be good for.
fn usage(here: Here, ours: bool) -> &'static str {
    match (here, ours) {
        (Here::Client, true) | (Here::Server, false) => "clientAuth",
        (Here::Server, true) | (Here::Client, false) => "serverAuth",
    }
}

/// A name as people write it; rustls has `DnsName("a.example")` and `IpAddress(0::1)`.
fn plain(name: &str) -> String {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name).trim_matches('"');
    inner.parse::<IpAddr>().map_or_else(|_| inner.to_owned(), |ip| ip.to_string())
}

fn alerted(alert: AlertDescription, here: Here) -> String {
    let ours = match here {
        Here::Client => "the provider refuses this side's certificate",
        Here::Server => "the client refuses this server's certificate",
    };
    match alert {
        AlertDescription::CertificateRequired => {
            "the provider requires a certificate of its clients, and this side has shown none: give one with certificate(…), or --cert and --cert-key".to_owned()
        }
        AlertDescription::UnknownCA => format!("{ours}: it does not trust the issuer"),
        AlertDescription::CertificateExpired => format!("{ours}: it has expired, or is not valid yet"),
        AlertDescription::UnsupportedCertificate => {
            format!("{ours}: it is not meant for this use (its extended key usage lacks {})", usage(here, true))
        }
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::CertificateRevoked
        | AlertDescription::DecryptError
        | AlertDescription::AccessDenied => format!("{ours} ({alert:?})"),
        AlertDescription::NoApplicationProtocol => "the peer speaks TLS, but not farcall (no protocol in common by ALPN): is the port right?".to_owned(),
        AlertDescription::ProtocolVersion => "the peer does not speak TLS 1.3, the only version spoken here".to_owned(),
        AlertDescription::UnrecognisedName => "the peer has no certificate for the name it was asked for".to_owned(),
        AlertDescription::InternalError => "the peer gave up in the TLS handshake: it may be overloaded, or refuse this host".to_owned(),
        other => format!("the peer gave up TLS: {other:?}"),
    }
}

/// The day, in UTC, of so many seconds after 1970.
fn date(secs: u64) -> String {
    // Counted from March 1st of year 0, so that a leap day ends its year; eras of 400 years.
    let days = Duration::from_secs(secs).as_secs() / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let march = (5 * day + 2) / 153;
    let month = if march < 10 { march + 3 } else { march - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{:02}", day - (153 * march + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_as_people_write_them() {
        let shown =
            [("DnsName(\"a.example\")", "a.example"), ("IpAddress(0::1)", "::1"), ("IpAddress(127.0.0.1)", "127.0.0.1"), ("x", "x")];
        for (name, expected) in shown {
            assert_eq!(plain(name), expected);
        }
    }

    #[test]
    fn a_certificate_for_another_use_is_named() {
        let refused = |here| alerted(AlertDescription::UnsupportedCertificate, here);
        assert!(refused(Here::Client).contains("this side's certificate") && refused(Here::Client).contains("lacks clientAuth"));
        assert!(refused(Here::Server).contains("this server's certificate") && refused(Here::Server).contains("lacks serverAuth"));
    }

    #[test]
    fn days_are_right() {
        for (secs, day) in [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_735_689_599, "2024-12-31"),
            (1_735_689_600, "2025-01-01"),
            (4_107_542_400, "2100-03-01"),
        ] {
            assert_eq!(date(secs), day, "{secs}");
        }
    }
}
