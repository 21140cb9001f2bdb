//! Tokens that carry who they are for and until when, signed by a key that issuer and server share.
//!
//! `fct1.KEY.CLAIMS.MAC`: KEY is the key's id; CLAIMS is base64url, without padding, of a JSON object with `name`
//! (string), `roles` (strings), `from` and `until` (seconds since 1970) and, if the token is for some servers
//! only, `for` (string); MAC is base64url of the 32 bytes of BLAKE3 in keyed mode over everything before the last
//! dot. The MAC's key is `BLAKE3 derive_key("farcall 2026-11 signed token", secret)`. Members that are not known
//! are ignored. Nothing else about a token may vary, so there is no algorithm to choose and none to be talked into.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use farcall_core::{Code, RpcError, Secret, limits};
use serde::{Deserialize, Serialize};

use super::{Authenticator, Identity, Proof, Shown, at_once, unproven};
use crate::method::BoxFuture;

const PREFIX: &str = "fct1.";
const CONTEXT: &str = "farcall 2026-11 signed token";
/// Bytes of a secret below which it could be guessed from a token.
const LEAST_SECRET: usize = 32;
/// How far the clocks of issuer and server may be apart.
const SKEW: Duration = Duration::from_secs(30);

/// A key that tokens are signed with, and its id, by which they name it.
#[derive(Clone)]
pub struct TokenKey {
    id: String,
    key: [u8; 32],
}

/// What a token says.
#[derive(Serialize, Deserialize)]
struct Claims {
    name: String,
    #[serde(default)]
    roles: Vec<String>,
    from: u64,
    until: u64,
    #[serde(rename = "for", default, skip_serializing_if = "Option::is_none")]
    audience: Option<String>,
}

impl TokenKey {
    /// A key of this id (1 to 32 of `a-z A-Z 0-9 - _`) and secret (32 bytes at least, of random).
    ///
    /// ```
    /// use farcall_rpc::auth::TokenKey;
    /// assert!(TokenKey::new("2026-11", "too short").is_err());
    /// ```
    pub fn new(id: &str, secret: impl Into<Secret>) -> Result<TokenKey, RpcError> {
        let refuse = |why: String| Err(RpcError::not_sent(Code::InvalidArgument, why));
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        if !(1..=32).contains(&id.len()) || !id.bytes().all(plain) {
            return refuse(format!("the id {id:?} of a key: it is 1 to 32 of a-z, A-Z, 0-9, - and _"));
        }
        let secret = secret.into();
        if secret.len() < LEAST_SECRET {
            return refuse(format!(
                "the secret of the key {id:?} has {} bytes, and needs {LEAST_SECRET} at least: make it of random bytes",
                secret.len()
            ));
        }
        Ok(TokenKey { id: id.to_owned(), key: blake3::derive_key(CONTEXT, secret.expose()) })
    }

    /// A token for `identity` (its name and roles) from now on for `lifetime`, for any server that has the key.
    pub fn sign(&self, identity: &Identity, lifetime: Duration) -> Secret {
        self.sign_for(identity, lifetime, None)
    }

    /// As [`sign`](TokenKey::sign), for servers of this [audience](SignedTokens::audience) only.
    pub fn sign_for<'a>(&self, identity: &Identity, lifetime: Duration, audience: impl Into<Option<&'a str>>) -> Secret {
        let from = now();
        let claims = Claims {
            name: identity.name().to_owned(),
            roles: identity.roles().to_vec(),
            from,
            until: from.saturating_add(lifetime.as_secs()),
            audience: audience.into().map(str::to_owned),
        };
        self.seal(&claims)
    }

    fn seal(&self, claims: &Claims) -> Secret {
        // Strings and numbers: nothing in it can fail to be written.
        let claims = serde_json::to_vec(claims).unwrap_or_default();
        let signed = format!("{PREFIX}{}.{}", self.id, base64url(&claims));
        let mac = self.mac(&signed);
        Secret::from(format!("{signed}.{}", base64url(mac.as_bytes())))
    }

    fn mac(&self, signed: &str) -> blake3::Hash {
        blake3::keyed_hash(&self.key, signed.as_bytes())
    }
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenKey({:?})", self.id)
    }
}

impl Drop for TokenKey {
    fn drop(&mut self) {
        self.key = [0; 32];
        std::hint::black_box(&self.key);
    }
}

/// Takes bearer tokens that a [`TokenKey`] has signed. A connection takes calls until its token expires; then it is
/// drained, and its client comes back with a fresh one if it has [a way to get one](crate::Connect::credentials_from).
///
/// What it protects from: forged, changed and expired tokens. A token that was overheard is as good as one's own
/// until it expires: use TLS, and short lifetimes.
///
/// ```
/// use std::time::Duration;
/// use farcall_rpc::Identity;
/// use farcall_rpc::auth::{SignedTokens, TokenKey};
/// # fn main() -> Result<(), farcall_rpc::RpcError> {
/// // At the issuer:
/// let key = TokenKey::new("2026-11", "0123456789abcdef0123456789abcdef")?;
/// let token = key.sign(&Identity::new("shop").role("teller"), Duration::from_secs(600));
/// // At the server; while keys are being changed it has the old one and the new one:
/// let tokens = SignedTokens::new(key).key(TokenKey::new("2026-12", "fedcba9876543210fedcba9876543210")?);
/// # let _ = (tokens, token);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct SignedTokens {
    keys: Vec<TokenKey>,
    audience: Option<String>,
    skew: Duration,
}

impl SignedTokens {
    /// Tokens signed with this key.
    pub fn new(key: TokenKey) -> SignedTokens {
        SignedTokens { keys: vec![key], audience: None, skew: SKEW }
    }

    /// Or with this one. To change keys: add the new one to all servers, then let issuers use it, then take the old
    /// one away when the last token of it has expired.
    pub fn key(mut self, key: TokenKey) -> SignedTokens {
        self.keys.push(key);
        self
    }

    /// Takes only tokens that are for `audience`. Without it, only tokens that are for nobody in particular: a token
    /// that is good for one service is not for another that trusts the same key.
    pub fn audience(mut self, audience: impl Into<String>) -> SignedTokens {
        self.audience = Some(audience.into());
        self
    }

    /// How far the clocks of issuer and server may be apart. Default 30 s.
    pub fn skew(mut self, skew: Duration) -> SignedTokens {
        self.skew = skew;
        self
    }

    /// Judges a token of this form; `now` is in seconds since 1970.
    fn verify(&self, token: &str, now: u64) -> Result<Identity, RpcError> {
        let forged =
            || unproven("the token is not signed by a key that is known here: it is broken, for another server, or its key was changed");
        let (signed, mac) = token.rsplit_once('.').ok_or_else(forged)?;
        let (id, claims) = signed.strip_prefix(PREFIX).and_then(|rest| rest.split_once('.')).ok_or_else(forged)?;
        let mac: [u8; 32] = unbase64url(mac).and_then(|mac| mac.try_into().ok()).ok_or_else(forged)?;
        // `Hash` compares in constant time.
        if !self.keys.iter().any(|key| key.id == id && key.mac(signed) == blake3::Hash::from(mac)) {
            return Err(forged());
        }
        let claims: Claims = unbase64url(claims)
            .and_then(|json| serde_json::from_slice(&json).ok())
            .ok_or_else(|| unproven("the token is signed, but says nothing that can be read"))?;
        self.judge(claims, now)
    }

    fn judge(&self, claims: Claims, now: u64) -> Result<Identity, RpcError> {
        if claims.audience != self.audience {
            return Err(unproven("the token is for other servers than this one: get one for this"));
        }
        let skew = self.skew.as_secs();
        let end = claims.until.saturating_add(skew);
        if now >= end {
            return Err(unproven(format!("the token expired {} s ago: get a fresh one", now.saturating_sub(claims.until))));
        }
        if now.saturating_add(skew) < claims.from {
            return Err(unproven(format!(
                "the token is good only in {} s: do the clocks of its issuer and this server agree?",
                claims.from - now
            )));
        }
        let named = Identity::new(claims.name).proven_by(Proof::SignedToken);
        let identity = claims.roles.into_iter().fold(named, Identity::role);
        // A time that the clock cannot show is never reached.
        Ok(match UNIX_EPOCH.checked_add(Duration::from_secs(end)) {
            Some(end) => identity.until(end),
            None => identity,
        })
    }
}

impl Authenticator for SignedTokens {
    fn authenticate<'a>(&'a self, shown: Shown<'a>) -> BoxFuture<'a, Result<Option<Identity>, RpcError>> {
        let token = shown.bearer().and_then(|token| std::str::from_utf8(token.expose()).ok());
        // A token of another form is somebody else's.
        let own = token.filter(|token| token.starts_with(PREFIX) && token.len() <= limits::CREDENTIALS);
        at_once(own.map(|token| self.verify(token, now())).transpose())
    }

    fn asks_for(&self) -> String {
        "a signed token".into()
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// RFC 4648, section 5, without padding.
fn base64url(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, &b| bits << 8 | u32::from(b)) << (8 * (3 - chunk.len()));
        out.extend((0..=chunk.len()).map(|i| char::from(ALPHABET[(bits >> (18 - 6 * i) & 63) as usize])));
    }
    out
}

/// The bytes; `None` if it is not what [`base64url`] writes, bit by bit: a token has one form only.
fn unbase64url(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for chunk in text.as_bytes().chunks(4) {
        let mut bits = 0u32;
        for &c in chunk {
            bits = bits << 6 | ALPHABET.iter().position(|&a| a == c)? as u32;
        }
        bits <<= 6 * (4 - chunk.len());
        out.extend_from_slice(bits.to_be_bytes().get(1..chunk.len())?);
    }
    (base64url(&out) == text).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn key(id: &str) -> TokenKey {
        TokenKey::new(id, SECRET).unwrap()
    }

    fn text(token: &Secret) -> String {
        String::from_utf8(token.expose().to_vec()).unwrap()
    }

    fn claims(from: u64, until: u64) -> Claims {
        Claims { name: "shop".into(), roles: vec!["teller".into()], from, until, audience: None }
    }

    #[test]
    fn base64url_is_that_of_the_rfc() {
        for (bytes, expected) in
            [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foob", "Zm9vYg"), ("fooba", "Zm9vYmE"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64url(bytes.as_bytes()), expected);
            assert_eq!(unbase64url(expected).unwrap(), bytes.as_bytes());
        }
        assert_eq!(base64url(&[0xfb, 0xff]), "-_8");
        for bad in ["Z", "Zh", "Zg==", "Zm9", "Zg ", "Z\u{e9}"] {
            assert_eq!(unbase64url(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_format_is_pinned() {
        let token = text(&key("k1").seal(&claims(1000, 2000)));
        let signed = "fct1.k1.eyJuYW1lIjoic2hvcCIsInJvbGVzIjpbInRlbGxlciJdLCJmcm9tIjoxMDAwLCJ1bnRpbCI6MjAwMH0";
        assert_eq!(token.rsplit_once('.').unwrap().0, signed);
        let mac = blake3::keyed_hash(&blake3::derive_key("farcall 2026-11 signed token", SECRET.as_bytes()), signed.as_bytes());
        assert_eq!(unbase64url(token.rsplit_once('.').unwrap().1).unwrap(), mac.as_bytes());
    }

    #[test]
    fn a_token_is_good_in_its_time_and_the_skew_around_it() {
        let tokens = SignedTokens::new(key("k1"));
        let token = text(&key("k1").seal(&claims(1000, 2000)));
        for (now, good) in
            [(0, false), (969, false), (970, true), (1000, true), (1999, true), (2029, true), (2030, false), (u64::MAX, false)]
        {
            assert_eq!(tokens.verify(&token, now).is_ok(), good, "at {now}");
        }
        let identity = tokens.verify(&token, 1500).unwrap();
        assert_eq!((identity.name(), identity.roles(), identity.proof()), ("shop", &["teller".to_owned()][..], Proof::SignedToken));
        assert_eq!(identity.expires(), Some(UNIX_EPOCH + Duration::from_secs(2030)));
        assert!(tokens.verify(&token, 2100).unwrap_err().message().contains("expired 100 s ago"));
        let strict = SignedTokens::new(key("k1")).skew(Duration::ZERO);
        assert!(strict.verify(&token, 2000).is_err() && strict.verify(&token, 1000).is_ok());
        let endless = text(&key("k1").seal(&claims(0, u64::MAX)));
        assert!(tokens.verify(&endless, 1).unwrap().expires().is_none());
    }

    #[test]
    fn keys_change_by_their_ids() {
        let (old, new) = (key("old"), TokenKey::new("new", "fedcba9876543210fedcba9876543210").unwrap());
        let both = SignedTokens::new(old.clone()).key(new.clone());
        for key in [&old, &new] {
            assert!(both.verify(&text(&key.seal(&claims(0, 100))), 50).is_ok());
        }
        assert!(SignedTokens::new(new).verify(&text(&old.seal(&claims(0, 100))), 50).is_err());
        // The id counts as much as the secret.
        assert!(SignedTokens::new(key("other")).verify(&text(&old.seal(&claims(0, 100))), 50).is_err());
    }

    #[test]
    fn a_token_for_another_audience_is_refused() {
        let sealed = |audience: Option<&str>| text(&key("k").seal(&Claims { audience: audience.map(str::to_owned), ..claims(0, 100) }));
        let (open, bank) = (SignedTokens::new(key("k")), SignedTokens::new(key("k")).audience("bank"));
        assert!(open.verify(&sealed(None), 1).is_ok() && bank.verify(&sealed(Some("bank")), 1).is_ok());
        for (tokens, audience) in [(&open, Some("bank")), (&bank, None), (&bank, Some("shop"))] {
            assert!(tokens.verify(&sealed(audience), 1).unwrap_err().message().contains("other servers"));
        }
    }

    #[test]
    fn every_changed_bit_and_every_cut_is_refused() {
        let tokens = SignedTokens::new(key("k1"));
        let token = text(&key("k1").seal(&claims(1000, 2000))).into_bytes();
        assert!(tokens.verify(std::str::from_utf8(&token).unwrap(), 1500).is_ok());
        for at in 0..token.len() {
            for bit in 0..8 {
                let mut other = token.clone();
                other[at] ^= 1 << bit;
                if let Ok(other) = std::str::from_utf8(&other) {
                    let e = tokens.verify(other, 1500).unwrap_err();
                    assert_eq!(e.code(), Code::Unauthenticated);
                    assert!(!e.message().contains(other));
                }
            }
            assert!(tokens.verify(std::str::from_utf8(&token[..at]).unwrap(), 1500).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn keys_and_tokens_do_not_show_themselves() {
        let key = key("k1");
        let shown = format!("{key:?} {:?} {:?}", SignedTokens::new(key.clone()), key.sign(&Identity::new("a"), Duration::from_secs(1)));
        assert!(!shown.contains("0123") && !shown.contains("fct1"), "{shown}");
        for (id, secret) in [("", SECRET), ("a b", SECRET), ("a.b", SECRET), ("k", "short")] {
            assert!(!TokenKey::new(id, secret).unwrap_err().message().contains(secret));
        }
    }
}
