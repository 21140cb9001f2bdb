//! Calls, and the requests that are none.

use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use farcall::http::Http;
use farcall::{CodecId, Limits};
use farcall_tests::{PaymentClient, Status, order};
use serde_json::json;

use super::client::{Http1, SILENT, open, open_with};
use crate::support::{run, until};

#[test]
fn a_post_is_a_call() {
    run(async {
        let opened = open(Http::new()).await;
        let mut http = Http1::connect(&opened.socket).await;
        let got = http.post("/Payment/status", r#"{"id":7}"#).await;
        assert_eq!((got.status, got.header("content-type")), (200, Some("application/json")));
        assert_eq!(got.json(), json!({"Paid": {"cents": 250}}));
        // By position, by the name for other protocols, without parameters, without a result.
        assert_eq!(http.post("/Payment/status", "[8]").await.json(), json!("Unknown"));
        assert_eq!(http.post("/org.example.Payment/sumUp", r#"{"orders":[]}"#).await.json(), json!(0));
        assert_eq!(http.ask("POST", "/Payment/notes", &[], "").await.json(), json!([]));
        assert_eq!(http.post("/Payment/hold", r#"{"ms":0}"#).await.json(), json!(null));
        let order = serde_json::to_string(&order(9, 2)).unwrap();
        assert_eq!(http.post("/Payment/pay", &format!(r#"{{"order":{order}}}"#)).await.json(), json!({"order": 9, "cents": 300}));
        // farcall's own callers use the same port.
        let client = PaymentClient::connect(opened.server.address()).await.unwrap();
        assert_eq!(client.status(7).await.unwrap(), Status::Paid { cents: 250 });
        assert_eq!(client.status(7).codec(CodecId::Json).await.unwrap(), Status::Paid { cents: 250 });
    });
}

#[test]
fn a_get_is_a_call_of_an_idempotent_method() {
    run(async {
        let opened = open(Http::new()).await;
        let mut http = Http1::connect(&opened.socket).await;
        assert_eq!(http.get("/Payment/status?id=7").await.json(), json!({"Paid": {"cents": 250}}));
        assert_eq!(http.get("/Payment/status?args=%7B%22id%22:7%7D").await.json(), json!({"Paid": {"cents": 250}}));
        let mirrored = http.get("/Counting/mirror?text=%E5%8D%83+%26&list=1&list=2&wide=18446744073709551615").await;
        assert_eq!(mirrored.json(), json!(["千 &", [1, 2], "18446744073709551615"]));
        let head = http.ask("HEAD", "/Payment/status?id=7", &[], "").await;
        assert_eq!((head.status, head.body.as_str()), (200, ""));
        let got = http.get("/Payment/pay").await;
        assert_eq!((got.status, got.header("allow")), (405, Some("POST, OPTIONS")));
        assert_eq!(got.json()["code"], "unimplemented");
        assert_eq!(opened.till.paid.load(Ordering::SeqCst), 0);
    });
}

/// Method, path, headers, body; status, part of the message.
type Case<'a> = (&'a str, &'a str, &'a [&'a str], &'a str, u16, &'a str);

#[test]
fn errors_have_a_status_and_a_form() {
    run(async {
        let opened = open_with(Http::new(), Limits { body: 1000, ..Limits::default() }).await;
        let mut http = Http1::connect(&opened.socket).await;
        let declined = http.post("/Payment/pay", r#"{"order":{"id":1,"lines":[],"coupon":null}}"#).await;
        assert_eq!(declined.status, 422);
        let expected = json!({"code": "app_error", "message": "the method answered with its own error",
            "error": {"Declined": {"reason": "nothing to pay"}}});
        assert_eq!(declined.json(), expected);

        let bad = http.post("/Payment/pay", r#"{"order":{"id":"x"}}"#).await;
        let body = bad.json();
        assert_eq!(
            (bad.status, &body["code"], &body["certainty"], &body["stage"]),
            (400, &json!("invalid_argument"), &json!("not_executed"), &json!("decode"))
        );
        assert!(body["message"].as_str().unwrap().contains("order.id"), "{body}");

        let panicked = http.post("/Payment/panics", r#"{"text":"oh"}"#).await;
        assert_eq!((panicked.status, &panicked.json()["certainty"]), (500, &json!("maybe_executed")));

        let cases: [Case<'_>; 13] = [
            (
                "POST",
                "/Paymnt/pay",
                &["content-type: application/json"],
                "{}",
                404,
                "services: Payment, Counting, farcall.Health, farcall.Meta",
            ),
            ("POST", "/Payment/pai", &["content-type: application/json"], "{}", 404, "methods: pay, status"),
            ("GET", "/", &[], "", 404, "/Service/method"),
            ("GET", "/Payment;color=red/status", &[], "", 400, "neither `group` nor `version`"),
            ("GET", "/Payment/%ff", &[], "", 400, "UTF-8"),
            ("GET", "/Payment/status?idd=7", &[], "", 400, "there is no parameter \"idd\"; parameters: id"),
            ("POST", "/Payment/status?id=7", &["content-type: application/json"], "{}", 400, "leave out the query"),
            ("POST", "/Payment/status", &["content-type: text/plain"], r#"{"id":7}"#, 415, "application/json"),
            ("POST", "/Payment/status", &[], r#"{"id":7}"#, 415, "has no type"),
            ("PUT", "/Payment/status", &[], "", 405, "use POST"),
            ("POST", "/healthz", &[], "", 405, "use GET"),
            ("GET", "/Payment/status?id=7", &["farcall-timeout-ms: soon"], "", 400, "`farcall-timeout-ms`"),
            ("GET", "/Payment/status?id=7", &["farcall-timeout-ms: 0"], "", 504, "before the handler was started"),
        ];
        for (method, path, headers, body, status, part) in cases {
            let got = http.ask(method, path, headers, body).await;
            assert_eq!(got.status, status, "{method} {path}: {got:?}");
            assert!(got.json()["message"].as_str().unwrap().contains(part), "{method} {path}: {got:?}");
        }
        let large = http.post("/Payment/echo", &"x".repeat(1001)).await;
        assert_eq!((large.status, &large.json()["code"]), (413, &json!("resource_exhausted")));
        // In chunks, so that nobody knows before.
        let mut http = Http1::connect(&opened.socket).await;
        http.send("POST /Payment/echo HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n").await;
        http.send(format!("1f4\r\n{0}\r\n1f4\r\n{0}\r\n1f4\r\n{0}\r\n", "x".repeat(500))).await;
        assert_eq!(http.receive(true).await.unwrap().status, 413);
    });
}

#[test]
fn a_handler_knows_what_the_headers_say() {
    run(async {
        let opened = open(Http::new()).await;
        let mut http = Http1::connect(&opened.socket).await;
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let headers = ["farcall-timeout-ms: 5000", &format!("traceparent: {trace}"), "farcall-meta-tenant: bl%75e"];
        let seen = http.ask("POST", "/Payment/seen", &headers, "").await.json();
        assert_eq!((&seen[1], &seen[3]), (&json!("blue"), &json!(trace)));
        assert!((4000..=5000).contains(&seen[2].as_u64().unwrap()), "{seen}");
        // Without them: the default deadline, and no trace that nobody asked for.
        let seen = http.ask("POST", "/Payment/seen", &[], "").await.json();
        assert_eq!((&seen[1], &seen[3]), (&json!("nobody"), &json!(null)));
        assert!((9000..=10_000).contains(&seen[2].as_u64().unwrap()), "{seen}");
    });
}

#[test]
fn a_key_runs_a_call_once() {
    run(async {
        let opened = open(Http::new()).await;
        let body = r#"{"order":{"id":1,"lines":[{"sku":"a","qty":1,"cents":5}],"coupon":null}}"#;
        let json_type = "content-type: application/json";
        for _ in 0..3 {
            let mut http = Http1::connect(&opened.socket).await;
            let got = http.ask("POST", "/Payment/pay", &[json_type, "idempotency-key: \"order-1\""], body).await;
            assert_eq!(got.json()["cents"], 5, "{got:?}");
        }
        assert_eq!(opened.till.paid.load(Ordering::SeqCst), 1);
        let mut http = Http1::connect(&opened.socket).await;
        let other = http.ask("POST", "/Payment/pay", &[json_type, "idempotency-key: order-1"], &body.replace('5', "6")).await;
        assert_eq!(other.status, 400, "{other:?}");
        let oneway = http.ask("POST", "/Payment/note", &[json_type, "idempotency-key: n"], r#"{"text":"x"}"#).await;
        assert_eq!(oneway.status, 400, "{oneway:?}");
    });
}

#[test]
fn a_one_way_method_is_accepted() {
    run(async {
        let opened = open(Http::new()).await;
        let mut http = Http1::connect(&opened.socket).await;
        let got = http.post("/Payment/note", r#"{"text":"hello"}"#).await;
        assert_eq!((got.status, got.body.as_str()), (202, ""));
        assert_eq!(http.get("/Payment/notes").await.json(), json!(["hello"]));
        assert_eq!(http.post("/Payment/note", "{}").await.status, 400);
        assert_eq!(http.get("/Payment/note?text=x").await.status, 405);
    });
}

#[test]
fn a_stream_comes_as_events() {
    run(async {
        let opened = open(Http::new()).await;
        let mut http = Http1::connect(&opened.socket).await;
        let got = http.get("/Counting/count?to=2").await;
        assert_eq!((got.status, got.header("content-type")), (200, Some("text/event-stream")));
        assert_eq!(got.body, "data: 1\n\ndata: 2\n\nevent: end\ndata: null\n\n");
        let got = http.post("/Counting/count", r#"{"to":1}"#).await;
        let error = r#"{"code":"app_error","message":"the method answered with its own error","error":{"Odd":1}}"#;
        assert_eq!(got.body, format!("data: 1\n\nevent: error\ndata: {error}\n\n"));
        let got = http.get("/Counting/count?to=0").await;
        assert_eq!((got.status, &got.json()["error"]), (422, &json!({"Odd": 0})));
        let many = http.get("/Counting/count?to=10000").await;
        assert_eq!(many.body.matches("data: ").count(), 10_001);
        let refused = http.ask("GET", "/Counting/count?to=2", &["accept: application/json"], "").await;
        assert_eq!(refused.status, 406);
        let upload = http.post("/Counting/sum", "{}").await;
        assert_eq!((upload.status, &upload.json()["code"]), (501, &json!("unimplemented")));
    });
}

#[test]
fn a_silent_stream_is_kept_alive_and_ends_with_its_client() {
    run(async {
        let limits = farcall::http::HttpLimits { event_silence: Duration::from_millis(20), ..Default::default() };
        let opened = open(Http::new().limits(limits)).await;
        let mut http = Http1::connect(&opened.socket).await;
        http.send("POST /Counting/silent HTTP/1.1\r\nhost: t\r\n\r\n").await;
        assert_eq!(http.head().await.unwrap().status, 200);
        let mut text = Vec::new();
        while text.len() < 9 {
            http.chunk(&mut text).await.unwrap();
        }
        assert!(text.starts_with(b":\n\n:\n\n:\n\n"));
        assert_eq!(SILENT.load(Ordering::SeqCst), 1);
        drop(http);
        until("the stream is dropped", || SILENT.load(Ordering::SeqCst) == 0).await;
    });
}

#[test]
fn a_client_that_goes_away_cancels_what_may_be_cancelled() {
    run(async {
        let opened = open(Http::new()).await;
        for name in ["slow", "sure"] {
            let mut http = Http1::connect(&opened.socket).await;
            let before = opened.till.begun.load(Ordering::SeqCst);
            let body = r#"{"ms":100}"#;
            http.send(format!(
                "POST /Payment/{name} HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{body}"
            ))
            .await;
            until("it has begun", || opened.till.begun.load(Ordering::SeqCst) > before).await;
        }
        opened.server.drain(Duration::from_secs(5)).await.unwrap();
        assert_eq!(opened.till.ended.load(Ordering::SeqCst), 1);
        // Its deadline passes: the same.
        let opened = open(Http::new()).await;
        let mut http = Http1::connect(&opened.socket).await;
        for name in ["slow", "sure"] {
            let headers = ["farcall-timeout-ms: 50", "content-type: application/json"];
            let got = http.ask("POST", &format!("/Payment/{name}"), &headers, r#"{"ms":200}"#).await;
            assert_eq!((got.status, &got.json()["certainty"]), (504, &json!("maybe_executed")));
        }
        opened.server.drain(Duration::from_secs(5)).await.unwrap();
        assert_eq!(opened.till.ended.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_drain_lets_running_requests_end() {
    run(async {
        let opened = open(Http::new()).await;
        let mut idle = Http1::connect(&opened.socket).await;
        assert_eq!(idle.get("/readyz").await.json(), json!({"ready": true}));
        let mut busy = Http1::connect(&opened.socket).await;
        busy.send("GET /Payment/slow?ms=200 HTTP/1.1\r\nhost: t\r\n\r\n").await;
        until("it has begun", || opened.till.begun.load(Ordering::SeqCst) == 1).await;
        let drained = tokio::spawn(async move { opened.server.drain(Duration::from_secs(10)).await });
        let got = busy.receive(true).await.unwrap();
        assert_eq!((got.status, got.header("connection")), (200, Some("close")));
        assert!(idle.receive(true).await.is_none());
        drained.await.unwrap().unwrap();
    });
}

#[test]
fn options_and_health_are_answered() {
    run(async {
        let opened = open(Http::new()).await;
        let mut http = Http1::connect(&opened.socket).await;
        for (path, allow) in [
            ("*", "GET, HEAD, POST, OPTIONS"),
            ("/Payment/status", "GET, HEAD, POST, OPTIONS"),
            ("/Payment/pay", "POST, OPTIONS"),
            ("/openapi.json", "GET, HEAD, OPTIONS"),
        ] {
            let got = http.ask("OPTIONS", path, &[], "").await;
            assert_eq!((got.status, got.header("allow")), (204, Some(allow)), "{path}");
        }
        assert_eq!(http.get("/healthz").await.json(), json!({"alive": true}));
        assert_eq!(http.ask("HEAD", "/healthz", &[], "").await.status, 200);
        // Nobody of another origin is let in unless it is said so.
        let preflight = ["origin: https://evil.example", "access-control-request-method: POST"];
        let got = http.ask("OPTIONS", "/Payment/pay", &preflight, "").await;
        assert!(got.headers.iter().all(|(name, _)| !name.starts_with("access-control")), "{got:?}");
    });
}

#[test]
fn curl_works() {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("curl is not here: skipped");
        return;
    }
    run(async {
        let opened = open(Http::new()).await;
        let curl = async |args: &[&str]| {
            let args: Vec<String> = args.iter().map(|arg| arg.replace("HOST", &opened.socket)).collect();
            let output = tokio::task::spawn_blocking(|| Command::new("curl").arg("-sS").args(args).output().unwrap()).await.unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        let body = r#"{"id": 7}"#;
        assert_eq!(curl(&["--json", body, "http://HOST/Payment/status"]).await, r#"{"Paid":{"cents":250}}"#);
        assert_eq!(curl(&["http://HOST/Payment/status?id=7"]).await, r#"{"Paid":{"cents":250}}"#);
        let http2 = ["--http2-prior-knowledge", "--json", body, "-w", " %{http_version}", "http://HOST/Payment/status"];
        assert_eq!(curl(&http2).await, r#"{"Paid":{"cents":250}} 2"#);
        assert!(curl(&["-N", "http://HOST/Counting/count?to=2"]).await.ends_with("event: end\ndata: null\n\n"));
        // What curl sends if it is not told that it is JSON.
        let plain = curl(&["-d", body, "http://HOST/Payment/status"]).await;
        assert!(plain.contains("application/x-www-form-urlencoded") && plain.contains("content-type: application/json"), "{plain}");
        // A large body, of which curl asks first whether it may be sent.
        let large = format!(r#"{{"bytes":"{}"}}"#, "A".repeat(4 << 20));
        let file = std::env::temp_dir().join(format!("farcall-curl-{}", std::process::id()));
        std::fs::write(&file, large).unwrap();
        let echoed = curl(&["--json", &format!("@{}", file.display()), "http://HOST/Payment/echo"]).await;
        std::fs::remove_file(&file).unwrap();
        assert_eq!(echoed.len(), (4 << 20) + 2);
    });
}
