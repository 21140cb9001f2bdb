//! Bytes that must not be seen: tokens, keys; and credentials, which hold some.

use std::fmt;
use std::hint::black_box;

use crate::error::{Code, RpcError};
use crate::limits;

/// A token or key. It can be neither printed nor compared with `==`: `Debug` shows that there is one, no text of
/// ours shows it, and its memory is overwritten when it is dropped. Copies that its owner made before are his
/// own affair.
///
/// ```
/// use farcall_core::Secret;
/// let token = Secret::from("correct horse battery staple");
/// assert_eq!(format!("{token:?}"), "Secret(..)");
/// assert!(token.matches(&Secret::from("correct horse battery staple")));
/// ```
#[derive(Clone, Default)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// The bytes. Do not print them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether both are the same, in a time that does not tell how much of them is. It does tell whether they
    /// are of one length.
    pub fn matches(&self, other: &Secret) -> bool {
        let differ = |sum: u8, (a, b): (&u8, &u8)| black_box(sum | (a ^ b));
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).fold(0, differ) == 0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Secret {
        Secret(text.as_bytes().to_vec())
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Secret {
        Secret(text.into_bytes())
    }
}

impl From<Vec<u8>> for Secret {
    fn from(bytes: Vec<u8>) -> Secret {
        Secret(bytes)
    }
}

impl From<&[u8]> for Secret {
    fn from(bytes: &[u8]) -> Secret {
        Secret(bytes.to_vec())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.fill(0);
        // Looked at, or the compiler might leave out what nobody reads.
        black_box(&self.0);
    }
}

/// What a caller shows to prove who it is: a scheme, and what that scheme asks for.
///
/// ```
/// use farcall_core::Credentials;
/// let shown = Credentials::bearer("correct horse battery staple");
/// assert_eq!(shown.scheme(), "bearer");
/// assert!(!format!("{shown:?}").contains("horse"));
/// ```
#[derive(Debug, Clone)]
pub struct Credentials {
    scheme: String,
    secret: Secret,
}

/// The longest name of a scheme, in bytes.
const SCHEME: usize = 32;

impl Credentials {
    /// A bearer token: whoever has it is taken for its owner.
    pub fn bearer(token: impl Into<Secret>) -> Credentials {
        Credentials { scheme: "bearer".to_owned(), secret: token.into() }
    }

    /// Of another scheme: 1 to 32 of `a-z 0-9 -`, and at most 16 KiB.
    pub fn new(scheme: &str, secret: impl Into<Secret>) -> Result<Credentials, RpcError> {
        let refuse = |why: String| Err(RpcError::not_sent(Code::InvalidArgument, why));
        let plain = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-');
        if !(1..=SCHEME).contains(&scheme.len()) || !scheme.bytes().all(plain) {
            return refuse(format!("the scheme of credentials is 1 to {SCHEME} of a-z, 0-9 and -"));
        }
        let credentials = Credentials { scheme: scheme.to_owned(), secret: secret.into() };
        match credentials.secret.len() > limits::CREDENTIALS {
            true => refuse(format!("credentials of {} bytes, the limit is {}", credentials.secret.len(), limits::CREDENTIALS)),
            false => Ok(credentials),
        }
    }

    /// Which kind of proof it is.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The proof.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }
}

impl PartialEq for Credentials {
    fn eq(&self, other: &Credentials) -> bool {
        self.scheme == other.scheme && self.secret.matches(&other.secret)
    }
}

impl Eq for Credentials {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_matches_itself_alone_and_shows_nothing() {
        let secret = Secret::from("abc");
        assert!(secret.matches(&Secret::from(b"abc".to_vec())) && Secret::default().matches(&Secret::from("")));
        for other in ["", "ab", "abd", "xbc", "abcd"] {
            assert!(!secret.matches(&Secret::from(other)), "{other}");
        }
        assert_eq!(format!("{:?} {:#?}", secret, Some(&secret)), "Secret(..) Some(\n    Secret(..),\n)");
    }

    #[test]
    fn credentials_have_a_plain_scheme_and_a_bounded_secret() {
        assert_eq!(Credentials::new("bearer", "x").unwrap(), Credentials::bearer("x"));
        assert_ne!(Credentials::bearer("y"), Credentials::bearer("x"));
        for scheme in ["", "Bearer", "a b", "a\u{e9}", &"a".repeat(33)] {
            assert!(Credentials::new(scheme, "x").is_err(), "{scheme}");
        }
        let e = Credentials::new("bearer", vec![b'x'; limits::CREDENTIALS + 1]).unwrap_err();
        assert!(e.message().contains("16385 bytes") && !e.message().contains("xxx"), "{e}");
    }
}
