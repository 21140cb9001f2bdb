//! A request becomes a call, and its reply a response.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use farcall_core::{Code, CodecId, MethodDescriptor, RpcError};
use farcall_rpc::{Dispatch, ForeignCall, ForeignReply, Held, Peer};
use hyper::body::{Body, Incoming};
use hyper::header::{
    ACCEPT, ACCESS_CONTROL_REQUEST_METHOD, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, EXPECT, HeaderValue, RETRY_AFTER,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};

use crate::body::{self, Reply};
use crate::caller::Caller;
use crate::events::Events;
use crate::refusal::{self, Refusal};
use crate::route::{self, MethodPath, Route};
use crate::serve::Activity;
use crate::{Config, headers, hosts, openapi, query};

/// The arguments of a method without parameters.
const NOTHING: &[u8] = b"{}";
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

impl Door {
    pub(crate) fn new(config: Arc<Config>, dispatch: Dispatch, activity: Activity) -> Door {
        Door { config, dispatch, activity }
    }

    /// Answers a request, whatever it is.
    pub(crate) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Reply>, Infallible> {
        let _busy = self.activity.begin();
        let (head, body) = request.into_parts();
        let mut body = Some(body);
        let is_framed = headers::is_framed(&head.headers);
        let responded = match is_framed {
            true => self.respond(&head, &mut body).await,
            false => Err(Refusal::bad("the body's only transfer encoding may be `chunked`, and that once")),
        };
        if let (Some(body), None) = (body, head.headers.get(EXPECT)) {
            // What is answered while its rest is on the way is not heard by every client.
            body::ignore(body, self.config.limits.stall).await;
        }
        let mut response = responded.unwrap_or_else(refused);
        if let Reply::Whole(bytes) = response.body_mut() {
            *bytes = self.activity.reply(std::mem::take(bytes), &self.dispatch);
        }
        if !is_framed {
            // What follows may be a request to us, and a part of this one's body to somebody on the way.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let is_preflight = head.method == Method::OPTIONS && head.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        match &self.config.cors {
            Some(cors) if is_preflight => cors.allow_preflight(&head.headers, response.headers_mut()),
            Some(cors) => cors.allow(&head.headers, response.headers_mut()),
            None => {}
        }
        let always = [(CACHE_CONTROL, "no-store"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
        response.headers_mut().extend(always.map(|(name, value)| (name, HeaderValue::from_static(value))));
        Ok(response)
    }

    async fn respond(&self, head: &Parts, body: &mut Option<Incoming>) -> Result<Response<Reply>, Refusal> {
        let arrived = Instant::now();
        let path = head.uri.path();
        let host = hosts::asked(head)?;
        let route = route::route(path).map_err(Refusal::bad)?;
        match route {
            Route::Alive => return read_only(head, || json(StatusCode::OK, "{\"alive\":true}".into())),
            Route::Ready => return read_only(head, || self.ready()),
            _ => hosts::check(self.config.hosts.as_ref(), host)?,
        }
        match route {
            // A browser that asks whether it may call does not say for whom.
            _ if head.method == Method::OPTIONS => return self.options(&route),
            _ => {}
        }
        let caller = Caller { dispatch: &self.dispatch, peer: self.caller(head).await? };
        match route {
            Route::OpenApi => {
                let document = openapi::document(&caller).map_err(|e| RpcError::new(Code::Internal, e.to_string()))?;
                read_only(head, || json(StatusCode::OK, document.into()))
            }
            Route::Method(path) => self.call(&path, head, body, caller, arrived).await,
            _ => {
                let why = format!("there is nothing at {path:?}: call a method as /Service/method; {}", caller.services());
                Err(Refusal::new(StatusCode::NOT_FOUND, Code::Unimplemented, why))
            }
        }
    }

    /// What may be done with a path. Where callers are asked who they are it is not said of methods what there is: it
    /// is not known who wants to know.
    fn options(&self, route: &Route) -> Result<Response<Reply>, Refusal> {
        let anybody = Caller { dispatch: &self.dispatch, peer: Arc::clone(self.dispatch.peer()) };
        Ok(options(match route {
            Route::OpenApi => READ,
            Route::Method(path) if !anybody.is_asked() => allowed(anybody.find(path)?.1),
            _ => READ_OR_CALL,
        }))
    }

    /// Who calls, as far as it is shown.
    async fn caller(&self, head: &Parts) -> Result<Arc<Peer>, Refusal> {
        let known = self.dispatch.peer();
        let shown = headers::credentials(&head.headers).map_err(Refusal::bad)?;
        let identity = self.dispatch.admission().authenticate(&known.facts, shown.as_ref()).await?;
        self.dispatch.let_in();
        let software = headers::software(&head.headers);
        if identity.is_none() && software.is_none() {
            return Ok(Arc::clone(known));
        }
        let software = software.unwrap_or(&known.software).to_owned();
        let mut peer = Peer::clone(known);
        (peer.software, peer.identity) = (software, identity);
        Ok(Arc::new(peer))
    }

    /// Whether the server takes calls.
    fn ready(&self) -> Response<Reply> {
        match self.dispatch.readiness().is_ready("") {
            Some(true) => json(StatusCode::OK, "{\"ready\":true}".into()),
            _ => json(StatusCode::SERVICE_UNAVAILABLE, "{\"ready\":false}".into()),
        }
    }

    async fn call(
        &self,
        path: &MethodPath,
        head: &Parts,
        body: &mut Option<Incoming>,
        caller: Caller<'_>,
        arrived: Instant,
    ) -> Result<Response<Reply>, Refusal> {
        let (target, method) = caller.find(path)?;
        let traits = method.traits;
        let reads = match head.method {
            Method::POST => false,
            Method::GET | Method::HEAD if traits.idempotent && !traits.oneway => true,
            _ => return Err(not_allowed(&head.method, method)),
        };
        if traits.result_stream && !headers::takes_events(head.headers.get(ACCEPT)) {
            let why = "the method answers with a stream, which comes as `text/event-stream`: accept that";
            return Err(Refusal::new(StatusCode::NOT_ACCEPTABLE, Code::InvalidArgument, why));
        }
        let said = headers::read(&head.headers).map_err(Refusal::bad)?;
        let expires = said.timeout.or(self.dispatch.limits().default_deadline).and_then(|time| arrived.checked_add(time));
        // Whoever does not take his replies gets no more of them.
        self.dispatch.hold().grow(0)?;
        let mut call = ForeignCall::new(target, CodecId::Json, Bytes::new());
        (call.args, call.held) = match reads {
            true => (query::arguments(method, head.uri.query().unwrap_or_default()).map_err(Refusal::bad)?.into(), None),
            false => self.arguments(head, body, expires).await?,
        };
        (call.expires, call.trace, call.key, call.metadata) = (expires, said.trace, said.key, said.metadata);
        call.peer = Some(caller.peer);
        self.reply(self.dispatch.call(call).await)
    }

    /// The arguments in the body of a POST.
    async fn arguments(
        &self,
        head: &Parts,
        body: &mut Option<Incoming>,
        expires: Option<Instant>,
    ) -> Result<(Bytes, Option<Held>), Refusal> {
        if head.uri.query().is_some_and(|query| !query.is_empty()) {
            return Err(Refusal::bad("the arguments of a POST are in its body: leave out the query"));
        }
        let has_body = body.as_ref().is_some_and(|body| !body.is_end_stream());
        if (has_body || head.headers.contains_key(CONTENT_TYPE)) && !headers::is_json(&head.headers) {
            return Err(not_json(&head.headers));
        }
        let Some(body) = body.take().filter(|_| has_body) else { return Ok((Bytes::from_static(NOTHING), None)) };
        let (args, held) = body::read(body, &self.dispatch, expires, self.config.limits.stall).await?;
        Ok((if args.is_empty() { Bytes::from_static(NOTHING) } else { args }, Some(held)))
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
fn read_only(head: &Parts, read: impl FnOnce() -> Response<Reply>) -> Result<Response<Reply>, Refusal> {
    match head.method {
        Method::GET | Method::HEAD => Ok(read()),
        Method::OPTIONS => Ok(options(READ)),
        _ => {
            let why = format!("{} is not for {}: use GET", head.method, head.uri.path());
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
    if refusal.status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
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
