//! A request becomes a call, and its reply a response.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use farcall_core::{Code, CodecId, MethodDescriptor, RpcError, ServiceDescriptor};
use farcall_rpc::{Dispatch, ForeignCall, ForeignReply, Target};
use hyper::body::{Body, Incoming};
use hyper::header::{
    ACCEPT, ACCESS_CONTROL_REQUEST_METHOD, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};

use crate::body::{self, Reply};
use crate::events::Events;
use crate::refusal::{self, Refusal};
use crate::route::{self, MethodPath, Route};
use crate::serve::Activity;
use crate::{Config, headers, openapi, query};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");

/// What may be done with a path.
const READ: &str = "GET, HEAD, OPTIONS";
const CALL: &str = "POST, OPTIONS";
const READ_OR_CALL: &str = "GET, HEAD, POST, OPTIONS";

/// The door as one connection sees it.
pub(crate) struct Door {
    config: Arc<Config>,
    dispatch: Dispatch,
    activity: Activity,
}

/// A method that was found.
struct Found<'d> {
    target: Target,
    method: &'d MethodDescriptor,
}

impl Door {
    pub(crate) fn new(config: Arc<Config>, dispatch: Dispatch, activity: Activity) -> Door {
        Door { config, dispatch, activity }
    }

    /// Answers a request, whatever it is.
    pub(crate) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Reply>, Infallible> {
        let _busy = self.activity.begin();
        let asked = request.headers().clone();
        let is_preflight = request.method() == Method::OPTIONS && asked.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        let mut response = self.respond(request).await.unwrap_or_else(refused);
        match &self.config.cors {
            Some(cors) if is_preflight => cors.allow_preflight(&asked, response.headers_mut()),
            Some(cors) => cors.allow(&asked, response.headers_mut()),
            None => {}
        }
        let always = [(CACHE_CONTROL, "no-store"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
        response.headers_mut().extend(always.map(|(name, value)| (name, HeaderValue::from_static(value))));
        Ok(response)
    }

    async fn respond(&self, request: Request<Incoming>) -> Result<Response<Reply>, Refusal> {
        let arrived = Instant::now();
        match route::route(request.uri().path()).map_err(Refusal::bad)? {
            Route::Server => Ok(options(READ_OR_CALL)),
            Route::Alive => read_only(&request, || json(StatusCode::OK, "{\"alive\":true}".into())),
            Route::Ready => read_only(&request, || self.ready()),
            Route::OpenApi => {
                let document = openapi::document(self.dispatch.services()).map_err(|e| RpcError::new(Code::Internal, e.to_string()))?;
                read_only(&request, || json(StatusCode::OK, document.into()))
            }
            Route::Method(path) => self.call(&path, request, arrived).await,
            Route::Nothing => {
                let why = format!("there is nothing at {:?}: call a method as /Service/method; {}", request.uri().path(), self.services());
                Err(Refusal::new(StatusCode::NOT_FOUND, Code::Unimplemented, why))
            }
        }
    }

    /// Whether the server takes calls.
    fn ready(&self) -> Response<Reply> {
        match self.dispatch.is_draining() {
            false => json(StatusCode::OK, "{\"ready\":true}".into()),
            true => json(StatusCode::SERVICE_UNAVAILABLE, "{\"ready\":false}".into()),
        }
    }

    async fn call(&self, path: &MethodPath, request: Request<Incoming>, arrived: Instant) -> Result<Response<Reply>, Refusal> {
        let Found { target, method } = self.find(path)?;
        let traits = method.traits;
        let reads = match *request.method() {
            Method::OPTIONS => return Ok(options(allowed(method))),
            Method::POST => false,
            Method::GET | Method::HEAD if traits.idempotent && !traits.oneway => true,
            _ => return Err(not_allowed(request.method(), method)),
        };
        if traits.result_stream && !headers::takes_events(request.headers().get(ACCEPT)) {
            let why = "the method answers with a stream, which comes as `text/event-stream`: accept that";
            return Err(Refusal::new(StatusCode::NOT_ACCEPTABLE, Code::InvalidArgument, why));
        }
        let said = headers::read(request.headers()).map_err(Refusal::bad)?;
        let expires = said.timeout.or(self.dispatch.limits().default_deadline).and_then(|time| arrived.checked_add(time));
        let mut call = ForeignCall::new(target, CodecId::Json, Bytes::new());
        (call.args, call.held) = match reads {
            true => (query::arguments(method, request.uri().query().unwrap_or_default()).map_err(Refusal::bad)?.into(), None),
            false => self.arguments(request, expires).await?,
        };
        (call.expires, call.trace, call.key, call.metadata) = (expires, said.trace, said.key, said.metadata);
        self.reply(self.dispatch.call(call).await)
    }

    /// The arguments in the body of a POST.
    async fn arguments(&self, request: Request<Incoming>, expires: Option<Instant>) -> Result<(Bytes, Option<farcall_rpc::Held>), Refusal> {
        if request.uri().query().is_some_and(|query| !query.is_empty()) {
            return Err(Refusal::bad("the arguments of a POST are in its body: leave out the query"));
        }
        let (head, body) = request.into_parts();
        let is_nothing = body.is_end_stream() && !head.headers.contains_key(CONTENT_TYPE);
        if !is_nothing && !headers::is_json(&head.headers) {
            return Err(not_json(&head.headers));
        }
        let (args, held) = body::read(body, &self.dispatch, expires, self.config.limits.stall).await?;
        // Of a method without parameters.
        let args = if args.is_empty() { Bytes::from_static(b"{}") } else { args };
        Ok((args, Some(held)))
    }

    fn reply(&self, reply: ForeignReply) -> Result<Response<Reply>, Refusal> {
        Ok(match reply {
            ForeignReply::Result(result) => json(StatusCode::OK, result),
            ForeignReply::AppError(error) => json(StatusCode::UNPROCESSABLE_ENTITY, refusal::app_body(&error)),
            ForeignReply::Failed(error) => return Err(error.into()),
            ForeignReply::Started => empty(StatusCode::ACCEPTED),
            ForeignReply::Stream(items) => {
                let events = Events::new(items, self.config.limits.event_silence, self.activity.begin());
                typed(StatusCode::OK, EVENTS, Reply::Events(Box::new(events)))
            }
        })
    }

    /// The method that a path names, by its own name or the one that other protocols know it by.
    fn find(&self, path: &MethodPath) -> Result<Found<'_>, Refusal> {
        let (place, service) = self.find_service(path)?;
        let named = |m: &MethodDescriptor| m.name == path.method || m.foreign_name.as_deref() == Some(&path.method);
        let Some(row) = service.methods.iter().position(named) else {
            let known: Vec<&str> = service.methods.iter().map(|m| m.name.as_str()).collect();
            let why = format!("{} has no method {:?}; methods: {}", service.name, path.method, known.join(", "));
            return Err(Refusal::new(StatusCode::NOT_FOUND, Code::Unimplemented, why));
        };
        Ok(Found { target: Target { service: place, method: row }, method: &service.methods[row] })
    }

    fn find_service(&self, path: &MethodPath) -> Result<(usize, &ServiceDescriptor), Refusal> {
        let named = |s: &ServiceDescriptor| s.name == path.service || s.foreign_name.as_deref() == Some(&path.service);
        let wanted = |s: &ServiceDescriptor| {
            path.group.as_ref().is_none_or(|group| *group == s.group) && path.version.as_ref().is_none_or(|version| *version == s.version)
        };
        let mut all = self.dispatch.services().enumerate().filter(|(_, s)| named(s) && wanted(s));
        let (first, second) = (all.next(), all.next());
        match (first, second) {
            (Some(only), None) => Ok(only),
            (None, _) => {
                let why = format!("there is no service {:?} here; {}", path.service, self.services());
                Err(Refusal::new(StatusCode::NOT_FOUND, Code::Unimplemented, why))
            }
            (Some(first), Some(second)) => {
                let mut all = [first, second].into_iter().chain(all);
                let plain = all.find(|(_, s)| s.group.is_empty() && s.version.is_empty());
                plain.ok_or_else(|| {
                    let why = format!("{:?} is served more than once: say which in the path; {}", path.service, self.services());
                    Refusal::bad(why)
                })
            }
        }
    }

    /// The services there are, for those who look for another.
    fn services(&self) -> String {
        let all: Vec<String> = self.dispatch.services().map(route::shown).collect();
        format!("services: {}", all.join(", "))
    }
}

/// What may be done with a method.
fn allowed(method: &MethodDescriptor) -> &'static str {
    if method.traits.idempotent && !method.traits.oneway { READ_OR_CALL } else { CALL }
}

fn not_allowed(asked: &Method, method: &MethodDescriptor) -> Refusal {
    let why = match *asked {
        Method::GET | Method::HEAD => format!("{asked} is for idempotent methods, which `{}` is not: use POST", method.name),
        _ => format!("{asked} is not a way to call a method: use POST"),
    };
    let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, Code::Unimplemented, why);
    Refusal { allow: Some(allowed(method)), ..refusal }
}

fn not_json(headers: &HeaderMap) -> Refusal {
    let why = match headers.get(CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes())) {
        Some(other) => format!("the body is {other:?}: arguments are JSON, with the header `content-type: application/json`"),
        None => "the body has no type: arguments are JSON, with the header `content-type: application/json`".to_owned(),
    };
    Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::InvalidArgument, why)
}

/// Something to be looked at, not called.
fn read_only(request: &Request<Incoming>, read: impl FnOnce() -> Response<Reply>) -> Result<Response<Reply>, Refusal> {
    match *request.method() {
        Method::GET | Method::HEAD => Ok(read()),
        Method::OPTIONS => Ok(options(READ)),
        _ => {
            let why = format!("{} is not for {}: use GET", request.method(), request.uri().path());
            let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, Code::Unimplemented, why);
            Err(Refusal { allow: Some(READ), ..refusal })
        }
    }
}

fn options(allow: &'static str) -> Response<Reply> {
    let mut response = empty(StatusCode::NO_CONTENT);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    response
}

fn refused(refusal: Refusal) -> Response<Reply> {
    let mut response = json(refusal.status, refusal::body(&refusal.error));
    if let Some(allow) = refusal.allow {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    }
    if matches!(refusal.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

fn json(status: StatusCode, body: Bytes) -> Response<Reply> {
    typed(status, JSON, Reply::Whole(body))
}

fn empty(status: StatusCode) -> Response<Reply> {
    let mut response = Response::new(Reply::Whole(Bytes::new()));
    *response.status_mut() = status;
    response
}

fn typed(status: StatusCode, content_type: HeaderValue, body: Reply) -> Response<Reply> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
