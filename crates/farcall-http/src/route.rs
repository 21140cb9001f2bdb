//! What a path names: `/Service/method`, `/Service;group=g;version=v/method`, or one of the door's own.

use farcall_core::ServiceDescriptor;

use crate::percent;

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// `*`, of `OPTIONS`: the server as a whole.
    Server,
    /// `/healthz`: the process lives.
    Alive,
    /// `/readyz`: it takes calls.
    Ready,
    /// `/openapi.json`.
    OpenApi,
    /// A method of a service.
    Method(MethodPath),
    /// Nothing that could be here.
    Nothing,
}

/// A method, as a path names it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct MethodPath {
    pub(crate) service: String,
    pub(crate) group: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) method: String,
}

/// What `path` names. An error says what is wrong with it.
pub(crate) fn route(path: &str) -> Result<Route, String> {
    match path {
        "*" => return Ok(Route::Server),
        "/healthz" => return Ok(Route::Alive),
        "/readyz" => return Ok(Route::Ready),
        "/openapi.json" => return Ok(Route::OpenApi),
        _ => {}
    }
    let mut segments = path.strip_prefix('/').unwrap_or_default().split('/');
    let (Some(service), Some(method), None) = (segments.next(), segments.next(), segments.next()) else { return Ok(Route::Nothing) };
    if service.is_empty() || method.is_empty() {
        return Ok(Route::Nothing);
    }
    let mut parts = service.split(';');
    let mut found = MethodPath { method: percent::decode(method)?, ..MethodPath::default() };
    found.service = percent::decode(parts.next().unwrap_or_default())?;
    for part in parts {
        let (name, value) = part.split_once('=').ok_or_else(|| format!("{part:?} in the path is not `group=…` or `version=…`"))?;
        let place = match name {
            "group" => &mut found.group,
            "version" => &mut found.version,
            _ => return Err(format!("{name:?} in the path is neither `group` nor `version`")),
        };
        if place.replace(percent::decode(value)?).is_some() {
            return Err(format!("`{name}` is in the path twice"));
        }
    }
    Ok(Route::Method(found))
}

/// A service as a path names it.
pub(crate) fn shown(service: &ServiceDescriptor) -> String {
    let part = |name: &str, value: &str| if value.is_empty() { String::new() } else { format!(";{name}={value}") };
    format!("{}{}{}", service.name, part("group", &service.group), part("version", &service.version))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expected: Result<Route, &str>) {
        assert_eq!(route(path).map_err(|e| e.to_string()), expected.map_err(str::to_owned), "{path}");
    }

    fn method(service: &str, group: Option<&str>, version: Option<&str>, method: &str) -> Result<Route, &'static str> {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Ok(Route::Method(MethodPath { service: service.into(), group: owned(group), version: owned(version), method: method.into() }))
    }

    #[test]
    fn paths_name_methods() {
        check("/Payment/pay", method("Payment", None, None, "pay"));
        check("/org.example.Payment/pay", method("org.example.Payment", None, None, "pay"));
        check("/Payment;version=2/pay", method("Payment", None, Some("2"), "pay"));
        check("/Payment;version=2%3B1;group=/pay", method("Payment", Some(""), Some("2;1"), "pay"));
        check("/%E5%8D%83/pa%79", method("千", None, None, "pay"));
    }

    #[test]
    fn other_paths_are_the_door_s_own_or_nothing() {
        check("*", Ok(Route::Server));
        check("/readyz", Ok(Route::Ready));
        for nothing in ["", "/", "//", "/Payment", "/Payment/", "//pay", "/Payment/pay/", "/a/b/c", "Payment/pay/x"] {
            check(nothing, Ok(Route::Nothing));
        }
    }

    #[test]
    fn bad_paths_are_refused_by_name() {
        check("/Payment;v=2/pay", Err("\"v\" in the path is neither `group` nor `version`"));
        check("/Payment;2/pay", Err("\"2\" in the path is not `group=…` or `version=…`"));
        check("/Payment;group=a;group=b/pay", Err("`group` is in the path twice"));
        check("/Payment/%ff", Err("what is percent-encoded is not UTF-8"));
    }
}
