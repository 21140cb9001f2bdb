use farcall::prelude::*;

#[farcall::service]
pub trait Echo {
    async fn add(&self, a: u32, b: u64) -> Reply<u64>;
    #[farcall(oneway)]
    async fn note(&self, text: String);
    fn slow(&self, text: String) -> Reply<String>;
}
struct E;
impl Echo for E {
    async fn add(&self, a: u32, b: u64) -> Reply<u64> {
        Ok(a as u64 + b)
    }
    async fn note(&self, text: String) {
        println!("{text}")
    }
    fn slow(&self, text: String) -> Reply<String> {
        Ok(text.repeat(2))
    }
}
#[test]
fn smoke() {
    let server = Server::builder().serve(EchoServer::new(E)).listen("tcp://127.0.0.1:0").wait().unwrap();
    let c = EchoClient::connect(server.address()).wait().unwrap();
    assert_eq!(c.add(1, 2).wait().unwrap(), 3);
    assert_eq!(c.slow("ab".into()).wait().unwrap(), "abab");
    println!("{:?}", EchoClient::connect("tcp://127.0.0.1:1").wait().err());
}
