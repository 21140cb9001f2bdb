//! Who calls, and whether the server is ready for it.

use std::time::Duration;

use farcall::auth::{Identity, Tokens};
use farcall::health::{HealthClient, Serving};
use farcall::http::{Cors, Http};
use farcall::prelude::*;
use serde_json::json;

use super::client::Http1;
use crate::support::run;

/// Two methods, one of them for few.
#[farcall::service]
trait Vault {
    /// For everybody.
    #[farcall(idempotent)]
    async fn look(&self) -> Reply<Option<String>>;
    /// For some.
    #[farcall(role = "teller")]
    async fn open(&self) -> Reply<bool>;
}

struct Bank;

impl Vault for Bank {
    async fn look(&self) -> Reply<Option<String>> {
        Ok(farcall::context().identity().map(|caller| caller.name().to_owned()))
    }

    async fn open(&self) -> Reply<bool> {
        Ok(true)
    }
}

async fn guarded(anonymous: bool) -> (Server, String) {
    let tokens = Tokens::new().token("anna's token", Identity::new("anna").role("teller")).token("guest's token", Identity::new("guest"));
    let mut builder = Server::builder().serve(VaultServer::new(Bank)).authenticate(tokens).protocol(Http::new());
    if anonymous {
        builder = builder.allow_anonymous();
    }
    let server = builder.listen("tcp://127.0.0.1:0").await.unwrap();
    let socket = server.address().to_string().trim_start_matches("tcp://").to_owned();
    (server, socket)
}

#[test]
fn a_token_says_who_calls_and_roles_what_it_may() {
    run(async {
        let (_server, socket) = guarded(false).await;
        let mut http = Http1::connect(&socket).await;
        let anna = ["authorization: Bearer anna's token"];
        let guest = ["authorization: Bearer guest's token"];
        assert_eq!(http.ask("POST", "/Vault/open", &anna, "").await.json(), json!(true));
        assert_eq!(http.ask("GET", "/Vault/look", &guest, "").await.json(), json!("guest"));
        let forbidden = http.ask("POST", "/Vault/open", &guest, "").await;
        assert_eq!((forbidden.status, &forbidden.json()["code"]), (403, &json!("permission_denied")));
        for shown in [&[][..], &["authorization: Bearer wrong"], &["authorization: Bearer "]] {
            for path in ["/Vault/open", "/Vault/nothing", "/nothing", "/openapi.json"] {
                let got = http.ask("POST", path, shown, "").await;
                assert_eq!((got.status, got.header("www-authenticate")), (401, Some("Bearer")), "{path}: {got:?}");
                assert!(!got.body.contains("Vault"), "what there is was said to a stranger: {got:?}");
            }
        }
        assert_eq!(http.ask("POST", "/Vault/open", &["authorization: Basic eDp5"], "").await.status, 400);
        // Whoever watches over the process need not be known.
        assert_eq!(http.get("/healthz").await.status, 200);
        assert_eq!(http.get("/readyz").await.status, 200);
    });
}

#[test]
fn a_caller_sees_what_it_may_call() {
    run(async {
        let (_server, socket) = guarded(true).await;
        let mut http = Http1::connect(&socket).await;
        let open = http.get("/openapi.json").await.json();
        assert!(open["paths"]["/Vault/look"].is_object() && open["paths"]["/Vault/open"].is_null());
        assert_eq!(http.get("/Vault/look").await.json(), json!(null));
        let anna = ["authorization: Bearer anna's token"];
        let all = http.ask("GET", "/openapi.json", &anna, "").await.json();
        assert_eq!(all["paths"]["/Vault/open"]["post"]["security"], json!([{"bearer": ["teller"]}]));
        assert_eq!(all["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
        let missing = http.get("/Vault/opn").await;
        assert!(missing.body.contains("methods: look\"") && !missing.body.contains("open"), "{missing:?}");
    });
}

#[test]
fn a_page_of_another_origin_calls_if_it_is_let_in() {
    run(async {
        let door = Http::new().cors(Cors::new().origin("https://shop.example").header("farcall-meta-tenant"));
        let server = Server::builder().serve(VaultServer::new(Bank)).protocol(door).listen("tcp://127.0.0.1:0").await;
        assert!(server.is_err(), "a role that nobody can have");
        let (_server, socket) = guarded(true).await;
        assert_eq!(
            Http1::connect(&socket).await.ask("GET", "/Vault/look", &["origin: https://shop.example"], "").await.header("vary"),
            None
        );
        let door = Http::new().cors(Cors::new().origin("https://shop.example").header("farcall-meta-tenant"));
        let server = Server::builder().protocol(door).listen("tcp://127.0.0.1:0").await.unwrap();
        let mut http = Http1::connect(server.address().to_string().trim_start_matches("tcp://")).await;
        let asks = ["origin: https://shop.example", "access-control-request-method: POST"];
        let told = http.ask("OPTIONS", "/farcall.Meta/services", &asks, "").await;
        assert_eq!(told.status, 204);
        assert_eq!(told.header("access-control-allow-origin"), Some("https://shop.example"));
        assert!(told.header("access-control-allow-headers").unwrap().ends_with("farcall-meta-tenant"));
        // Errors are told to it like results.
        let error = http.ask("GET", "/farcall.Meta/nothing", &["origin: https://shop.example"], "").await;
        assert_eq!((error.status, error.header("access-control-allow-origin")), (404, Some("https://shop.example")));
        let stranger = http.ask("GET", "/farcall.Meta/services", &["origin: https://evil.example"], "").await;
        assert_eq!((stranger.status, stranger.header("access-control-allow-origin")), (200, None));
    });
}

#[test]
fn readiness_is_told_to_all_who_ask() {
    run(async {
        let server = Server::builder().unready().protocol(Http::new()).listen("tcp://127.0.0.1:0").await.unwrap();
        let mut http = Http1::connect(server.address().to_string().trim_start_matches("tcp://")).await;
        let health = HealthClient::connect(server.address()).await.unwrap();
        let mut watch = health.watch(String::new()).await.unwrap();
        assert_eq!(http.get("/readyz").await.status, 503);
        assert_eq!(watch.next().await.unwrap().unwrap(), Serving::NotReady);
        server.readiness().set(true);
        assert_eq!(watch.next().await.unwrap().unwrap(), Serving::Ready);
        assert_eq!(http.get("/readyz").await.json(), json!({"ready": true}));
        assert_eq!(health.check("nothing".into()).await.unwrap_err().code(), Code::NotFound);
        assert!(server.readiness().set_service("nothing", true).is_err());
        // It flips as the drain begins; the stream does not hold the drain up.
        let drained = tokio::spawn(async move { server.drain(Duration::from_secs(10)).await });
        assert_eq!(watch.next().await.unwrap().unwrap(), Serving::NotReady);
        assert!(watch.next().await.is_none());
        drop((watch, health, http));
        drained.await.unwrap().unwrap();
    });
}
