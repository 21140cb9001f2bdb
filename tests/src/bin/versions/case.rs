//! What the two versions of a program share: `old.rs` and `new.rs` are binaries of their own, with the same services over
//! other types, so that an old and a new program meet over a real link.

use std::io::Read;
use std::process::ExitCode;

use farcall::ServerBuilder;
use farcall::prelude::*;

/// A case: a type, and a service that takes and gives values of it.
///
/// `seen` shows what the provider sees of its argument, `give` gives the provider's own values.
macro_rules! case {
    ($case:ident, $name:literal, { $($types:tt)* }, [$($value:expr),* $(,)?]) => {
        pub(crate) mod $case {
            use farcall::prelude::*;

            $($types)*

            #[farcall::service(name = $name)]
            pub(crate) trait Case {
                #[farcall(idempotent)]
                async fn seen(&self, value: Value) -> Reply<String>;
                #[farcall(idempotent)]
                async fn give(&self, place: u32) -> Reply<Value>;
            }

            fn values() -> Vec<Value> {
                vec![$($value),*]
            }

            struct Provider;

            impl Case for Provider {
                async fn seen(&self, value: Value) -> Reply<String> {
                    Ok(format!("{value:?}"))
                }

                async fn give(&self, place: u32) -> Reply<Value> {
                    values().into_iter().nth(place as usize).ok_or_else(|| RpcError::new(Code::OutOfRange, "no more"))
                }
            }

            pub(super) fn serve(builder: farcall::ServerBuilder) -> farcall::ServerBuilder {
                builder.serve(CaseServer::new(Provider))
            }

            pub(super) fn call(address: &str) -> Result<(), RpcError> {
                let client = CaseClient::connect(address).wait()?;
                for value in values() {
                    crate::case::show($name, "seen", client.seen(value).wait());
                }
                for place in 0.. {
                    match client.give(place).wait() {
                        Err(e) if e.code() == Code::OutOfRange => break,
                        given => {
                            let refused = given.as_ref().is_err_and(|e| e.certainty() != Certainty::MaybeExecuted);
                            crate::case::show($name, "give", given);
                            if refused {
                                break;
                            }
                        }
                    }
                }
                Ok(())
            }
        }
    };
}
pub(crate) use case;

/// All cases of a version.
macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        pub(crate) fn serve(builder: farcall::ServerBuilder) -> farcall::ServerBuilder {
            $(let builder = $case::serve(builder);)*
            builder
        }

        pub(crate) fn call(address: &str) -> Result<(), farcall::RpcError> {
            $($case::call(address)?;)*
            Ok(())
        }
    };
}
pub(crate) use cases;

/// One line of what happened.
pub(crate) fn show<T: std::fmt::Debug, E: Into<Shown>>(case: &str, method: &str, result: Result<T, E>) {
    match result.map_err(Into::into) {
        Ok(value) => println!("{case} {method}: {value:?}"),
        Err(Shown(error)) => println!("{case} {method}: {error}"),
    }
}

/// An error as it is shown.
pub(crate) struct Shown(String);

impl From<RpcError> for Shown {
    fn from(e: RpcError) -> Shown {
        Shown(format!("{} {}: {}", e.code(), e.certainty(), e.message()))
    }
}

impl<E: std::fmt::Debug> From<farcall::Error<E>> for Shown {
    fn from(e: farcall::Error<E>) -> Shown {
        match e {
            farcall::Error::App(e) => Shown(format!("application error {e:?}")),
            farcall::Error::Rpc(e) => e.into(),
        }
    }
}

/// `serve` serves every case until standard input ends; `call ADDRESS` calls a server of either version and prints what
/// happened.
pub(crate) fn run(services: fn(ServerBuilder) -> ServerBuilder, call: fn(&str) -> Result<(), RpcError>) -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let ran = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve"] => serve(services),
        ["call", address] => call(address),
        _ => {
            eprintln!("usage: version-old|version-new serve | call ADDRESS");
            return ExitCode::FAILURE;
        }
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("version: {e}");
            ExitCode::FAILURE
        }
    }
}

fn serve(services: fn(ServerBuilder) -> ServerBuilder) -> Result<(), RpcError> {
    let server = services(Server::builder()).listen("tcp://127.0.0.1:0").wait()?;
    println!("{}", server.address());
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    Ok(())
}
