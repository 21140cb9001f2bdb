//! Pages of other origins: who may call, and how a browser is told (the Fetch standard's CORS protocol).

use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, HeaderValue, ORIGIN, VARY,
};

use crate::headers;

/// Which pages of other origins may call: none, unless they are named. A browser asks on a page's behalf; other
/// programs do not ask, so this is no protection against them.
///
/// ```
/// use farcall_http::Cors;
/// use std::time::Duration;
/// let cors = Cors::new().origin("https://shop.example").header("x-tenant").max_age(Duration::from_secs(3600));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    origins: Vec<String>,
    any: bool,
    methods: Vec<String>,
    headers: Vec<String>,
    max_age: Duration,
    credentials: bool,
}

impl Default for Cors {
    fn default() -> Cors {
        Cors {
            origins: Vec::new(),
            any: false,
            methods: ["GET", "POST"].map(str::to_owned).into(),
            headers: ["content-type", "authorization", headers::TIMEOUT, headers::TRACEPARENT, headers::KEY].map(str::to_owned).into(),
            max_age: Duration::from_secs(600),
            credentials: false,
        }
    }
}

impl Cors {
    /// No origin yet; GET and POST with the headers that the door knows (metadata excepted, whose names are yours: add
    /// them with [`header`](Cors::header)); browsers remember the answer for 10 min; no credentials.
    pub fn new() -> Cors {
        Cors::default()
    }

    /// Lets pages of this origin in: `https://shop.example`, with its port if it has one, without a path.
    pub fn origin(mut self, origin: impl Into<String>) -> Cors {
        self.origins.push(origin.into());
        self
    }

    /// Lets pages of every origin in. They get no credentials, whatever [`credentials`](Cors::credentials) says.
    pub fn any_origin(mut self) -> Cors {
        self.any = true;
        self
    }

    /// Only these methods, of `GET` and `POST`.
    pub fn methods<'m>(mut self, methods: impl IntoIterator<Item = &'m str>) -> Cors {
        self.methods = methods.into_iter().map(str::to_ascii_uppercase).collect();
        self
    }

    /// A further header that pages may send: `farcall-meta-tenant`.
    pub fn header(mut self, name: impl AsRef<str>) -> Cors {
        self.headers.push(name.as_ref().to_ascii_lowercase());
        self
    }

    /// How long a browser may remember the answer. Default 10 min.
    pub fn max_age(mut self, max_age: Duration) -> Cors {
        self.max_age = max_age;
        self
    }

    /// Whether pages may send what the browser keeps for this server: cookies (which the door does not read) and
    /// client certificates. Default: not.
    pub fn credentials(mut self, credentials: bool) -> Cors {
        self.credentials = credentials;
        self
    }

    /// What a response to a page says; nothing if its origin is not let in.
    pub(crate) fn allow(&self, request: &HeaderMap, response: &mut HeaderMap) {
        if !self.any {
            // The answer depends on who asks, also for those who keep it.
            response.append(VARY, HeaderValue::from_static("origin"));
        }
        let Some(origin) = request.get(ORIGIN).filter(|origin| self.lets_in(origin)) else { return };
        let shown = if self.any { HeaderValue::from_static("*") } else { origin.clone() };
        response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, shown);
        if self.credentials && !self.any {
            response.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }

    /// The same for a browser that asks before it calls.
    pub(crate) fn allow_preflight(&self, request: &HeaderMap, response: &mut HeaderMap) {
        self.allow(request, response);
        if !response.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
            return;
        }
        let listed = |items: &[String]| HeaderValue::from_str(&items.join(", ")).ok();
        let pairs = [
            (ACCESS_CONTROL_ALLOW_METHODS, listed(&self.methods)),
            (ACCESS_CONTROL_ALLOW_HEADERS, listed(&self.headers)),
            (ACCESS_CONTROL_MAX_AGE, HeaderValue::from_str(&self.max_age.as_secs().to_string()).ok()),
        ];
        response.extend(pairs.into_iter().filter_map(|(name, value)| Some((name, value?))));
    }

    fn lets_in(&self, origin: &HeaderValue) -> bool {
        self.any || self.origins.iter().any(|known| known.as_bytes() == origin.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(cors: &Cors, origin: &'static str, preflight: bool) -> String {
        let (mut request, mut response) = (HeaderMap::new(), HeaderMap::new());
        request.insert(ORIGIN, HeaderValue::from_static(origin));
        match preflight {
            true => cors.allow_preflight(&request, &mut response),
            false => cors.allow(&request, &mut response),
        }
        let mut lines: Vec<String> = response
            .iter()
            .map(|(name, value)| format!("{}: {}", name.as_str().trim_start_matches("access-control-"), value.to_str().unwrap()))
            .collect();
        lines.sort();
        lines.join("\n")
    }

    #[test]
    fn an_origin_is_let_in_by_its_whole_name() {
        let cors = Cors::new().origin("https://shop.example");
        assert_eq!(told(&cors, "https://shop.example", false), "allow-origin: https://shop.example\nvary: origin");
        for other in ["https://shop.example.evil", "http://shop.example", "https://shop.example:444", "null", ""] {
            assert_eq!(told(&cors, other, true), "vary: origin", "{other}");
        }
    }

    #[test]
    fn any_origin_gets_no_credentials() {
        let cors = Cors::new().any_origin().credentials(true);
        assert_eq!(told(&cors, "https://a.example", false), "allow-origin: *");
        let named = Cors::new().origin("https://a.example").credentials(true);
        assert!(told(&named, "https://a.example", false).contains("allow-credentials: true"));
    }

    #[test]
    fn a_preflight_is_told_all() {
        let cors = Cors::new().origin("https://a.example").methods(["get"]).header("X-Tenant").max_age(Duration::from_secs(60));
        let expected = "allow-headers: content-type, authorization, farcall-timeout-ms, traceparent, idempotency-key, x-tenant\n\
                        allow-methods: GET\nallow-origin: https://a.example\nmax-age: 60\nvary: origin";
        assert_eq!(told(&cors, "https://a.example", true), expected);
    }
}
