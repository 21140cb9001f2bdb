//! A process that is found, or finds, by name, for tests of registries:
//!
//! `named node ADDRESS` is a node of the registry; `named provide URL ADDRESS KIND` a provider of a desk of that kind (`ours`, `newer`,
//! whose types consumers understand, `odd`, whose they do not), `named ask URL N` a consumer that finds a desk and asks it, N times anew.
//! Each says what happens on its standard output, a line at a time, and the first two end when their standard input does. With FARCALL_TEST_TOKEN a
//! provider lets only those in who show it, and a consumer shows it.

use std::io::Read;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use farcall::auth::Tokens;
use farcall::registry::{Event, GuardSettings, Watcher};
use farcall::{Credentials, Discover, Identity, Register, Registration, ServerBuilder, prelude::*};
use farcall_registry::embedded::{Embedded, RegistryLimits};

mod ours {
    use farcall::prelude::*;

    #[farcall::data]
    #[derive(Debug)]
    pub(crate) struct Question {
        pub(crate) id: u32,
    }

    #[farcall::service]
    pub(crate) trait Desk {
        async fn ask(&self, question: Question) -> Reply<String>;
    }

    pub(crate) struct Clerk;

    impl Desk for Clerk {
        async fn ask(&self, question: Question) -> Reply<String> {
            Ok(format!("ours {}", question.id))
        }
    }
}

mod newer {
    use farcall::prelude::*;

    #[farcall::data]
    #[derive(Debug)]
    pub(crate) struct Question {
        pub(crate) id: u32,
        pub(crate) note: Option<String>,
    }

    #[farcall::service]
    pub(crate) trait Desk {
        async fn ask(&self, question: Question) -> Reply<String>;
    }

    pub(crate) struct Clerk;

    impl Desk for Clerk {
        async fn ask(&self, question: Question) -> Reply<String> {
            Ok(format!("newer {} {:?}", question.id, question.note))
        }
    }
}

mod odd {
    use farcall::prelude::*;

    #[farcall::service]
    pub(crate) trait Desk {
        async fn ask(&self, question: bool) -> Reply<String>;
    }

    pub(crate) struct Clerk;

    impl Desk for Clerk {
        async fn ask(&self, question: bool) -> Reply<String> {
            Ok(format!("odd {question}"))
        }
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let ran = runtime.block_on(async {
        match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["node", address] => node(address).await,
            ["provide", url, address, kind] => provide(url, address, kind).await,
            ["ask", url, n] => ask(url, n.parse().unwrap_or(1)).await,
            _ => Err(RpcError::new(Code::InvalidArgument, "named node ADDRESS | provide URL ADDRESS KIND | ask URL N")),
        }
    });
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            println!("failed {} {}: {}", e.code(), e.certainty(), e.message());
            ExitCode::FAILURE
        }
    }
}

/// Until the test is over.
async fn until_the_end() {
    let _ = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await;
}

async fn node(address: &str) -> Result<(), RpcError> {
    let limits = RegistryLimits { lease: Duration::from_secs(2), ..RegistryLimits::default() };
    let node = Embedded::builder().limits(limits).allow_anonymous().listen(address).await?;
    println!("listening {}", node.address());
    until_the_end().await;
    Ok(())
}

fn token() -> Option<String> {
    std::env::var("FARCALL_TEST_TOKEN").ok()
}

async fn provide(url: &str, address: &str, kind: &str) -> Result<(), RpcError> {
    let builder = match kind {
        "ours" => Server::builder().serve(ours::DeskServer::new(ours::Clerk)),
        "newer" => Server::builder().serve(newer::DeskServer::new(newer::Clerk)),
        _ => Server::builder().serve(odd::DeskServer::new(odd::Clerk)),
    };
    let registration = Registration::at(url).watch(Arc::new(Said)).wait_for_first(Duration::from_secs(20));
    let server = let_in(builder).register(registration).listen(address).await?;
    println!("registered {}", server.address());
    until_the_end().await;
    server.drain(Duration::from_secs(2)).await
}

fn let_in(builder: ServerBuilder) -> ServerBuilder {
    match token() {
        Some(token) => builder.authenticate(Tokens::new().token(token, Identity::new("consumer"))),
        None => builder.allow_anonymous(),
    }
}

async fn ask(url: &str, times: u32) -> Result<(), RpcError> {
    let guard = GuardSettings { retry_cap: Duration::from_millis(200), ..GuardSettings::default() };
    for id in 0..times {
        let mut desk = ours::DeskClient::discover(url).without_cache().guard(guard.clone()).watch(Arc::new(Said));
        if let Some(token) = token() {
            desk = desk.connect(|connect| connect.credentials(Credentials::bearer(token)));
        }
        let desk = desk.await?;
        let answer = desk.ask(ours::Question { id }).await?;
        println!("answer {answer} from {}", desk.channel().peer().map(|peer| peer.address).unwrap_or_default());
    }
    Ok(())
}

/// What a test looks for, on standard output.
struct Said;

impl Watcher for Said {
    fn tell(&self, event: &Event<'_>) {
        match event {
            Event::Misfit { .. } => println!("misfit {event}"),
            Event::Warning(_) => println!("warning {event}"),
            Event::Published { entry, .. } => {
                let addresses: Vec<&str> = entry.addresses.iter().map(|a| a.address.as_str()).collect();
                println!("advertised {}", addresses.join(" "));
            }
            _ => {}
        }
    }
}
