//! The smallest client and server: what `compile.sh` builds.

use farcall::prelude::*;

#[farcall::service]
pub trait Greeter {
    /// Greets somebody.
    async fn hello(&self, name: String) -> Reply<String>;
    // another method goes here
}

struct English;

impl Greeter for English {
    async fn hello(&self, name: String) -> Reply<String> {
        Ok(format!("Hello, {name}!"))
    }
    // its handler goes here
}

fn main() -> Result<(), RpcError> {
    let server = Server::builder().serve(GreeterServer::new(English)).listen("tcp://127.0.0.1:0").wait()?;
    let greeter = GreeterClient::connect(server.address()).wait()?;
    println!("{}", greeter.hello("world".into()).wait()?);
    Ok(())
}
