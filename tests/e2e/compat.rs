//! `farcall compat`: two versions of a service, from files and from running providers.

use std::path::PathBuf;

use farcall::prelude::*;

use crate::bad_peer::unused_port;
use crate::cli::run;
use crate::support::TempDir;

/// As it was.
mod old {
    use farcall::prelude::*;

    #[farcall::data]
    pub(crate) struct Line {
        pub sku: String,
        pub qty: u32,
    }
    #[farcall::error]
    pub(crate) enum PayError {
        Declined { reason: String },
    }
    #[farcall::service]
    pub(crate) trait Payment {
        async fn pay(&self, order: u64, lines: Vec<Line>) -> Reply<u64, PayError>;
        #[farcall(idempotent)]
        async fn status(&self, id: u64) -> Reply<bool>;
    }
    pub(super) struct Till;
    impl Payment for Till {
        async fn pay(&self, order: u64, _: Vec<Line>) -> Reply<u64, PayError> {
            Ok(order)
        }
        async fn status(&self, _: u64) -> Reply<bool> {
            Ok(true)
        }
    }
}

/// Grown as it should: every old call still works.
mod grown {
    use farcall::prelude::*;

    #[farcall::data]
    pub(crate) struct Line {
        #[serde(alias = "sku")]
        pub item: String,
        pub qty: u64,
        pub note: Option<String>,
    }
    #[farcall::error]
    pub(crate) enum PayError {
        Declined { reason: String, code: Option<u8> },
    }
    #[farcall::service]
    pub(crate) trait Payment {
        async fn refund(&self, #[serde(alias = "order")] id: u64) -> Reply<()>;
        async fn pay(&self, #[serde(alias = "order")] id: u64, lines: Vec<Line>, coupon: Option<String>) -> Reply<u64, PayError>;
        #[farcall(idempotent)]
        async fn status(&self, id: u64) -> Reply<bool>;
    }
    pub(super) struct Till;
    impl Payment for Till {
        async fn refund(&self, _: u64) -> Reply<()> {
            Ok(())
        }
        async fn pay(&self, id: u64, _: Vec<Line>, _: Option<String>) -> Reply<u64, PayError> {
            Ok(id)
        }
        async fn status(&self, _: u64) -> Reply<bool> {
            Ok(true)
        }
    }
}

/// Changed as it should not.
mod broken {
    use farcall::prelude::*;

    #[farcall::data]
    pub(crate) struct Line {
        pub sku: u64,
        pub qty: u32,
    }
    #[farcall::error]
    pub(crate) enum PayError {
        Declined { reason: String },
    }
    #[farcall::service]
    pub(crate) trait Payment {
        async fn pay(&self, order: u64, lines: Vec<Line>, #[farcall(must_understand)] dry_run: Option<bool>) -> Reply<u64, PayError>;
    }
    pub(super) struct Till;
    impl Payment for Till {
        async fn pay(&self, order: u64, _: Vec<Line>, _: Option<bool>) -> Reply<u64, PayError> {
            Ok(order)
        }
    }
}

fn old_server() -> Server {
    Server::builder().serve(old::PaymentServer::new(old::Till)).listen("tcp://127.0.0.1:0").wait().unwrap()
}

fn grown_server() -> Server {
    Server::builder().serve(grown::PaymentServer::new(grown::Till)).listen("tcp://127.0.0.1:0").wait().unwrap()
}

fn broken_server() -> Server {
    Server::builder().serve(broken::PaymentServer::new(broken::Till)).listen("tcp://127.0.0.1:0").wait().unwrap()
}

/// What the server says of itself, in a file, as a build would keep it.
fn saved(dir: &TempDir, name: &str, server: &Server) -> String {
    let path: PathBuf = dir.0.join(name);
    let ran = run(&["describe", "--json", &server.address().to_string()]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    std::fs::write(&path, ran.out).unwrap();
    path.display().to_string()
}

#[test]
fn a_service_that_grew_is_safe() {
    let dir = TempDir::new("compat-grew");
    let old = saved(&dir, "old.json", &old_server());
    let server = grown_server();
    for new in [saved(&dir, "new.json", &server), server.address().to_string()] {
        let ran = run(&["compat", &old, &new]);
        ran.check(
            0,
            &[
                "Payment\n  refund\n    old client, new server: safe\n    new client, old server: safe, but\n      the method is new: ",
                "  pay\n    old client, new server: safe, but\n      error `::Declined.code`: the writer sends Option<u8>, ",
                "      arguments `coupon`: the writer sends Option<String>, the reader does not know it and skips it\n",
                "      arguments `lines[].qty`: the writer sends u64, the reader reads u32: what does not fit is refused when it comes\n",
                "      arguments `lines[].note`: the writer sends Option<String>, the reader does not know it and skips it\n",
                "  status: safe\n",
                "old clients with new servers: safe\nnew clients with old servers: safe\n",
            ],
            &[],
        );
        assert!(!ran.out.contains("farcall.Meta"), "{}", ran.out);
    }
    run(&["compat", &old, &old]).check(0, &["Payment\n  pay: safe\n  status: safe\n"], &[]);
    run(&["compat", &old, &old, "farcall.Meta"]).check(0, &["farcall.Meta\n  services: safe\n"], &[]);
}

#[test]
fn a_change_that_breaks_is_named_with_its_direction() {
    let dir = TempDir::new("compat-breaks");
    let server = old_server();
    let (old, new) = (server.address().to_string(), saved(&dir, "new.json", &broken_server()));
    let ran = run(&["compat", &old, &new]);
    ran.check(
        1,
        &[
            "    old client, new server: breaks\n      arguments `lines[].sku`: the writer sends String, the reader reads u64: ",
            "    new client, old server: breaks\n      arguments `dry_run`: the writer sends Option<bool> that must be understood, ",
            "  status\n    old client, new server: breaks\n      the method is gone: ",
            "old clients with new servers: breaks\nnew clients with old servers: breaks\n",
        ],
        &[],
    );
    run(&["compat", &new, &old]).check(1, &["arguments `lines[].sku`: the writer sends u64, the reader reads String: "], &[]);
    // A method that goes away breaks old clients only.
    let grown = saved(&dir, "grown.json", &grown_server());
    run(&["compat", &grown, &old]).check(1, &["old clients with new servers: breaks\nnew clients with old servers: safe\n"], &[]);
    run(&["compat", "--clients-first", &grown, &old]).check(0, &["old clients with new servers: breaks"], &[]);
    run(&["compat", &grown, &old, "--servers-first"]).check(1, &["the method is gone"], &[]);
}

#[test]
fn what_cannot_be_compared_is_no_answer() {
    let dir = TempDir::new("compat-nothing");
    let old = saved(&dir, "old.json", &old_server());
    let file = |name: &str, text: &str| {
        let path = dir.0.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let check = |new: &str, err: &[&str]| run(&["compat", &old, new]).check(2, &[], err);
    check(&format!("tcp://127.0.0.1:{}", unused_port()), &["nobody listens there", "code       Unavailable"]);
    check(&dir.0.join("none.json").display().to_string(), &["cannot read", "No such file"]);
    check("localhost:7400", &["cannot read", "an address is tcp://HOST:PORT"]);
    check(&file("text.json", "{}"), &["is not a description: missing field `address`", "farcall describe ADDR --json"]);
    let text = std::fs::read_to_string(&old).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    json["services"][0]["methods"][0].as_object_mut().unwrap().remove("schemas");
    check(&file("bare.json", &json.to_string()), &["Payment.pay has no schemas: describe it again"]);
    run(&["compat", &old, &old, "Pament"]).check(2, &[], &["has a service \"Pament\""]);
    run(&["compat", &old]).check(2, &[], &["which two versions?"]);
    run(&["compat", "--help"]).check(0, &["--servers-first", "exit code"], &[]);
    // A schema that nobody would make is refused by name, not believed.
    let bad = serde_json::json!({ "root": { "Ref": 7 }, "defs": [] });
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    json["services"][0]["methods"][0]["schemas"]["arguments"] = bad;
    let bad = file("bad.json", &json.to_string());
    run(&["compat", &old, &bad]).check(1, &["arguments: the reader's schema: bad schema: definition 7 is not there"], &[]);
}
