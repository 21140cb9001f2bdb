//! The command `farcall` against a provider: what it prints, and how it ends.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::Duration;

use farcall::prelude::*;

use crate::bad_peer::{socket_path, unused_port, within};

/// What is bought.
#[farcall::data]
#[derive(Debug)]
pub(crate) struct Order {
    /// Its number.
    pub id: u64,
    pub lines: Vec<Line>,
}

#[farcall::data]
#[derive(Debug)]
pub(crate) struct Line {
    pub sku: String,
    pub qty: u8,
}

#[farcall::error]
#[derive(Debug)]
pub(crate) enum PayError {
    Declined { reason: String },
}

/// Takes money.
///
/// And gives it back.
#[farcall::service]
#[farcall(name = "org.example.Payment")]
pub(crate) trait Payment {
    /// Charges an order.
    #[farcall(name = "payOrder")]
    async fn pay(&self, order: u64, cents: u128, note: Option<String>) -> Reply<(u64, u128), PayError>;
    /// Is it open?
    #[farcall(idempotent)]
    async fn open(&self) -> Reply<bool>;
    async fn check(&self, order: Order) -> Reply<u32>;
    #[farcall(oneway)]
    async fn log(&self, text: String);
    async fn tenant(&self) -> Reply<Option<String>>;
    /// Never answers.
    async fn stall(&self) -> Reply<()>;
}

struct Till {
    logged: Mutex<mpsc::Sender<String>>,
}

impl Payment for Till {
    async fn pay(&self, order: u64, cents: u128, _: Option<String>) -> Reply<(u64, u128), PayError> {
        match cents {
            0 => Err(PayError::Declined { reason: "nothing to pay".into() })?,
            _ => Ok((order, cents)),
        }
    }
    async fn open(&self) -> Reply<bool> {
        Ok(true)
    }
    async fn check(&self, order: Order) -> Reply<u32> {
        Ok(order.lines.iter().map(|line| u32::from(line.qty)).sum())
    }
    async fn log(&self, text: String) {
        self.logged.lock().unwrap().send(text).unwrap();
    }
    async fn tenant(&self) -> Reply<Option<String>> {
        Ok(farcall::context().metadata("tenant").map(str::to_owned))
    }
    async fn stall(&self) -> Reply<()> {
        std::future::pending().await
    }
}

mod twice {
    use farcall::prelude::*;

    pub(super) mod old {
        use super::*;
        #[farcall::service(version = "1")]
        pub(crate) trait Stock {
            async fn count(&self) -> Reply<u8>;
        }
    }
    pub(super) mod new {
        use super::*;
        #[farcall::service(version = "2", group = "eu")]
        pub(crate) trait Stock {
            async fn count(&self) -> Reply<u8>;
        }
    }
    pub(super) struct Shelf(pub(super) u8);
    impl old::Stock for Shelf {
        async fn count(&self) -> Reply<u8> {
            Ok(self.0)
        }
    }
    impl new::Stock for Shelf {
        async fn count(&self) -> Reply<u8> {
            Ok(self.0)
        }
    }
}

struct Shop {
    server: Server,
    logged: mpsc::Receiver<String>,
}

/// A shop on both kinds of address.
fn shop() -> Shop {
    let (sender, logged) = mpsc::channel();
    let server = Server::builder()
        .serve(PaymentServer::new(Till { logged: Mutex::new(sender) }))
        .serve(twice::old::StockServer::new(twice::Shelf(1)))
        .serve(twice::new::StockServer::new(twice::Shelf(2)))
        .also(format!("unix:{}", socket_path("shop").display()))
        .listen("tcp://127.0.0.1:0")
        .wait()
        .unwrap();
    Shop { server, logged }
}

/// How a run of the command ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// Checks the exit code, and that stdout and stderr contain these; a stream of which nothing is
    /// expected must be empty.
    #[track_caller]
    pub(crate) fn check(&self, code: i32, out: &[&str], err: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        for (stream, expected) in [(&self.out, out), (&self.err, err)] {
            assert!(!expected.is_empty() || stream.is_empty(), "{self:?}");
            for text in expected {
                assert!(stream.contains(text), "{text:?} is not in\n{stream}");
            }
        }
    }
}

#[test]
fn health_says_of_each_service_whether_it_is_ready() {
    let shop = shop();
    let address = &shop.server.address().to_string();
    run(&["health", address]).check(0, &["Payment  ready\n", "Stock    ready\n"], &[]);
    run(&["health", address, "Payment"]).check(0, &["Payment  ready\n"], &[]);
    shop.server.readiness().set_service("Payment", false).unwrap();
    run(&["health", address]).check(1, &["Payment  not ready\n"], &[]);
    run(&["health", address, "Payment"]).check(1, &["Payment  not ready\n"], &[]);
    shop.server.readiness().set_service("Payment", true).unwrap();
    shop.server.readiness().set(false);
    run(&["health", address]).check(1, &["not ready"], &[]);
    run(&["health", address, "Paiment"]).check(2, &[], &["there is no service \"Paiment\""]);
    let nobody = format!("tcp://127.0.0.1:{}", unused_port());
    run(&["health", &nobody]).check(1, &[], &["nobody listens there"]);
    run(&["health"]).check(2, &[], &["ADDR"]);
}

/// Runs the command.
pub(crate) fn run(args: &[&str]) -> Ran {
    run_with(args, "")
}

/// With this in its environment.
pub(crate) fn run_in(args: &[&str], variable: &str, value: &str) -> Ran {
    let mut command = Command::new(binary());
    command.env(variable, value);
    run_command(command, args, "")
}

fn run_with(args: &[&str], stdin: &str) -> Ran {
    run_command(Command::new(binary()), args, stdin)
}

fn run_command(mut command: Command, args: &[&str], stdin: &str) -> Ran {
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let stdin = stdin.to_owned();
    within(Duration::from_secs(30), move || {
        let mut child = command.spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        // A command that fails early does not read what it is given.
        let _ = pipe.write_all(stdin.as_bytes());
        drop(pipe);
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    })
}

/// The command, built from the sources that this test was built from: Cargo gives a test only the
/// binaries of its own package.
pub(crate) fn binary() -> &'static PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let profile = test.ancestors().nth(2).unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "-p", "farcall-cli", "--target-dir"]).arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        let built = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap();
        assert!(built.success(), "farcall-cli does not build");
        profile.join("farcall")
    })
}

#[test]
fn describe_shows_what_the_trait_says() {
    let shop = shop();
    for address in shop.server.addresses() {
        let ran = run(&["describe", &address.to_string()]);
        ran.check(
            0,
            &[
                "Payment  (elsewhere org.example.Payment)\n  Takes money.\n\n  And gives it back.\n",
                "  0  pay(order: u64, cents: u128, note: Option<String>) -> Reply<(u64, u128), PayError>\n     elsewhere payOrder\n     Charges an order.\n",
                "  1  open() -> Reply<bool>\n     idempotent: may be repeated\n",
                "  3  log(text: String)\n     one-way: no reply\n",
                "       enum PayError {\n",
                "       /// What is bought.\n",
                "Stock  (group \"eu\", version \"2\")\n",
                "farcall.Meta\n",
            ],
            &[],
        );
        let descriptor = PaymentClient::descriptor();
        for method in &descriptor.methods {
            assert!(ran.out.contains(&format!("arguments  {}", method.prints.args)), "{}", method.name);
            assert!(method.traits.oneway || ran.out.contains(&format!("result     {}", method.prints.result)), "{}", method.name);
        }
        assert!(ran.out.contains(&format!("error      {}", descriptor.methods[0].prints.error)));
    }
    let ran = run(&["describe", &shop.server.address().to_string(), "Stock"]);
    ran.check(0, &["version \"1\"", "version \"2\""], &[]);
    assert!(!ran.out.contains("Payment"), "{ran:?}");
}

#[test]
fn describe_speaks_json() {
    let shop = shop();
    let ran = run(&["describe", "--json", &shop.server.address().to_string(), "Payment"]);
    ran.check(0, &["{"], &[]);
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(json["services"].as_array().unwrap().len(), 1);
    let service = &json["services"][0];
    assert_eq!((&service["name"], &service["foreign_name"]), (&"Payment".into(), &"org.example.Payment".into()));
    let pay = &service["methods"][0];
    assert_eq!((&pay["id"], &pay["params"][1]["type"], &pay["foreign_name"]), (&0.into(), &"u128".into(), &"payOrder".into()));
    let prints = PaymentClient::descriptor().methods[0].prints;
    assert_eq!(pay["fingerprints"]["error"], prints.error.to_string());
    assert_eq!((&service["methods"][1]["idempotent"], &service["methods"][3]["oneway"]), (&true.into(), &true.into()));
}

#[test]
fn call_prints_the_result() {
    let shop = shop();
    for address in shop.server.addresses() {
        let address = &address.to_string();
        let check = |args: &[&str], out: &str| {
            let ran = run(&[&["call", address], args].concat());
            ran.check(0, &[out], &[]);
            assert_eq!(ran.out, out);
        };
        let huge = "340282366920938463463374607431768211455";
        check(&["Payment.pay", &format!(r#"{{"order": 7, "cents": {huge}}}"#)], &format!("[\n  7,\n  \"{huge}\"\n]\n"));
        check(&["Payment.pay", &format!(r#"{{"order": "7", "cents": "{huge}"}}"#)], &format!("[\n  7,\n  \"{huge}\"\n]\n"));
        check(&["Payment.open"], "true\n");
        check(&["Payment.open", "{}"], "true\n");
        check(&["Payment.tenant"], "null\n");
        check(&["Payment.tenant", "--meta", "tenant=blue"], "\"blue\"\n");
        // Its only parameter by name, and alone.
        check(&["Payment.check", r#"{"order": {"id": 1, "lines": [{"sku": "a", "qty": 3}]}}"#], "3\n");
        check(&["Payment.check", r#"{"id": 1, "lines": []}"#], "0\n");
        check(&["Stock.count", "--service-version", "1"], "1\n");
        check(&["Stock.count", "--group", "eu"], "2\n");
    }
    let address = shop.server.address().to_string();
    run(&["call", &address, "farcall.Meta.services"]).check(0, &["\"name\": \"Payment\""], &[]);
    run_with(&["call", &address, "Payment.check", "-"], "{\"id\": 1,\n \"lines\": []}\n").check(0, &["0\n"], &[]);
}

#[test]
fn a_one_way_call_has_arrived_when_the_command_ends() {
    let shop = shop();
    run(&["call", &shop.server.address().to_string(), "Payment.log", r#""hello""#]).check(0, &[], &[]);
    assert_eq!(shop.logged.try_recv().as_deref(), Ok("hello"));
}

#[test]
fn an_application_error_is_json_on_stderr() {
    let shop = shop();
    let ran = run(&["call", &shop.server.address().to_string(), "Payment.pay", r#"{"order": 7, "cents": 0}"#]);
    ran.check(3, &[], &["nothing to pay"]);
    let json: serde_json::Value = serde_json::from_str(&ran.err).unwrap();
    assert_eq!(json["Declined"]["reason"], "nothing to pay");
}

#[test]
fn what_was_misspelled_is_named_and_nothing_is_called() {
    let shop = shop();
    let address = &shop.server.address().to_string();
    let check = |args: &[&str], err: &[&str]| run(&[&["call", address], args].concat()).check(2, &[], err);
    check(
        &["Paymnet.pay", "{}"],
        &["farcall: there is no service \"Paymnet\", did you mean \"Payment\"?", "services: Payment, Stock, farcall.Health, farcall.Meta"],
    );
    check(&["org.example.Payment.pay"], &["what other protocols call Payment"]);
    check(&["Pay.pay"], &["there is no service \"Pay\"\n"]);
    check(&["farcall.Meta"], &["farcall.Meta is a service: which method?\n  methods: services"]);
    check(&["Stock.count"], &["served more than once", "--service-version", "group \"eu\" version \"2\""]);
    check(&["Stock.count", "--group", "us"], &["no Stock in that group and version"]);
    check(&["Payment.opem"], &["Payment has no method \"opem\", did you mean \"open\"?", "methods: pay, open, check, log, tenant, stall"]);
    check(&["Payment.payOrder"], &["\"payOrder\" is what other protocols call pay"]);
    check(&["Payment.op"], &["has no method \"op\"\n"]);
    run(&["describe", address, "Payments"]).check(2, &[], &["did you mean \"Payment\"?"]);
}

#[test]
fn wrong_json_is_shown_and_nothing_is_called() {
    let shop = shop();
    let address = &shop.server.address().to_string();
    let signature = "pay(order: u64, cents: u128, note: Option<String>) -> Reply<(u64, u128), PayError>";
    let check = |json: &str, err: &[&str]| run(&["call", address, "Payment.pay", json]).check(2, &[], err);
    check(
        "{\"order\": 7 \"cents\": 1}",
        &["farcall: the JSON cannot be read: expected `,` or `}` at line 1 column 13\n  {\"order\": 7 \"cents\": 1}\n              ^\n"],
    );
    check("{order: 7}", &["the shell took them"]);
    check(r#"{"order": 7, "cent": 1}"#, &["Payment.pay: arguments: there is no parameter \"cent\"; missing \"cents\"", signature]);
    check(r#"{"order": 7}"#, &["missing \"cents\"", signature]);
    check("[7, 1]", &["an object by parameter name", signature]);
    run(&["call", address, "Payment.pay"]).check(2, &[], &["missing \"order\", \"cents\"", "write '{\"order\": <u64>, \"cents\": <u128>"]);
    run(&["call", address, "Payment.open", "7"]).check(2, &[], &["open() -> Reply<bool>"]);
    run(&["call", address, "Payment.open", r#"{"a": 7}"#]).check(2, &[], &["leave the JSON out"]);
}

#[test]
fn a_wrong_type_is_the_providers_to_refuse_and_the_argument_is_named() {
    let shop = shop();
    let address = &shop.server.address().to_string();
    let check = |method: &str, json: &str, err: &[&str]| {
        let ran = run(&["call", address, method, json]);
        ran.check(1, &[], err);
        ran.check(1, &[], &["code       InvalidArgument", "certainty  not executed", "stage      decoding the arguments"]);
    };
    check("Payment.pay", r#"{"order": "x", "cents": 1}"#, &["farcall: Payment.pay: ", ": order: invalid value: \"x\", expected u64"]);
    check("Payment.pay", r#"{"order": 1, "cents": null}"#, &[": cents: invalid value: null, expected u128"]);
    check(
        "Payment.check",
        r#"{"id": 1, "lines": [{"sku": "a", "qty": 256}]}"#,
        &[": order.lines[0].qty: invalid value: integer `256`, expected u8"],
    );
    check("Payment.check", r#"{"id": 1}"#, &[": order: missing field `lines`"]);
}

#[test]
fn a_call_ends_at_its_deadline() {
    let shop = shop();
    let ran = run(&["call", &shop.server.address().to_string(), "Payment.stall", "--deadline", "100ms"]);
    ran.check(
        1,
        &[],
        &[
            "farcall: Payment.stall: deadline 100 ms",
            "code       DeadlineExceeded",
            "certainty  may have been executed",
            "stage      awaiting the reply",
        ],
    );
}

#[test]
fn no_peer_is_said_so() {
    let address = format!("tcp://127.0.0.1:{}", unused_port());
    for args in [&["describe", &address][..], &["call", &address, "Payment.open"]] {
        run(args).check(1, &[], &["nobody listens there", "code       Unavailable", "certainty  not sent", "stage      connecting"]);
    }
}

#[test]
fn help_and_version_go_to_stdout() {
    run(&["--version"]).check(0, &[concat!("farcall ", env!("CARGO_PKG_VERSION"), "\n")], &[]);
    run(&["--help"]).check(0, &["farcall call ADDR"], &[]);
    run(&["describe", "--help"]).check(0, &["--json"], &[]);
    run(&["call", "--help"]).check(0, &["--deadline", "value alone"], &[]);
    run(&["schema", "--help"]).check(0, &["--json-schema"], &[]);
    run(&[]).check(2, &[], &["which command?", "usage:"]);
}

#[test]
fn a_closed_pipe_is_no_error() {
    let shop = shop();
    let address = shop.server.address().to_string();
    let mut command = Command::new(binary());
    command.args(["call", &address, "Payment.check", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let ended = within(Duration::from_secs(30), move || {
        let mut child = command.spawn().unwrap();
        // It waits for its stdin: the pipe is closed before it can write.
        drop(child.stdout.take());
        child.stdin.take().unwrap().write_all(br#"{"id": 1, "lines": []}"#).unwrap();
        child.wait_with_output().unwrap()
    });
    assert_eq!((ended.status.code(), String::from_utf8(ended.stderr).unwrap()), (Some(0), String::new()));
}

#[test]
fn a_call_of_the_command_is_seen_like_any_other() {
    struct Seen(Mutex<Vec<String>>);
    impl farcall::Observer for Seen {
        fn ended(&self, outcome: &farcall::Outcome<'_>) {
            self.0.lock().unwrap().push(format!("{}.{}", outcome.service, outcome.method));
        }
    }
    let seen = Arc::new(Seen(Mutex::default()));
    let shelf = twice::old::StockServer::new(twice::Shelf(1));
    let server = Server::builder().serve(shelf).observe(Arc::clone(&seen) as _).listen("tcp://127.0.0.1:0").wait().unwrap();
    run(&["call", &server.address().to_string(), "Stock.count"]).check(0, &["1\n"], &[]);
    run(&["call", &server.address().to_string(), "Stock.count", "{\"x\": 1}"]).check(2, &[], &["\"x\""]);
    assert_eq!(*seen.0.lock().unwrap(), ["farcall.Meta.services", "Stock.count", "farcall.Meta.services"]);
}

#[test]
fn a_stream_is_printed_as_it_comes() {
    use crate::streams::{FeedServer, Source};
    let server = farcall::Server::builder().serve(FeedServer::new(Source::default())).listen("tcp://127.0.0.1:0").wait().unwrap();
    let address = server.address().to_string();
    run(&["call", &address, "Feed.count", r#"{"to": 3}"#]).check(0, &["0\n1\n2\n"], &[]);
    run(&["call", &address, "Feed.picky", r#"{"unwanted": 1}"#]).check(3, &["0\n"], &["Unwanted"]);
    let why = "a method that takes a stream needs its generated client";
    run(&["call", &address, "Feed.total", r#"{"numbers": []}"#]).check(1, &[], &[why]);
    run(&["describe", &address]).check(0, &["gives a stream", "takes a stream"], &[]);
}
