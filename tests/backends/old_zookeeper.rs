//! ZooKeeper as it was before 3.6: a server that does not know persistent watches. It is the one of today behind a proxy that
//! answers as the old one would.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, OnceLock};

use farcall_registry::{Registry, ServiceKey};

use crate::suite::{Subject, suite};
use crate::zookeeper::ZooKeeper;

const EXISTS: i32 = 3;
const ADD_WATCH: i32 = 106;
const UNIMPLEMENTED: i32 = -6;

pub(crate) struct Old {
    behind: &'static ZooKeeper,
    port: u16,
}

/// A packet without its length.
fn read(from: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let mut packet = vec![0; u32::from_be_bytes(length) as usize];
    from.read_exact(&mut packet)?;
    Ok(packet)
}

fn write(to: &mut TcpStream, packet: &[u8]) -> std::io::Result<()> {
    to.write_all(&[&(packet.len() as u32).to_be_bytes()[..], packet].concat())
}

fn int(packet: &[u8], at: usize) -> i32 {
    i32::from_be_bytes(packet[at..at + 4].try_into().unwrap())
}

/// Lets packets through both ways, until one side ends.
fn pass(client: TcpStream, server: TcpStream) -> std::io::Result<()> {
    let refused = Arc::new(Mutex::new(HashSet::new()));
    let (mut from_server, mut to_client, refuse) = (server.try_clone()?, client.try_clone()?, refused.clone());
    std::thread::spawn(move || {
        let mut first = true;
        while let Ok(mut packet) = read(&mut from_server) {
            if !std::mem::take(&mut first) && refuse.lock().unwrap().remove(&int(&packet, 0)) {
                packet.truncate(16);
                packet[12..].copy_from_slice(&UNIMPLEMENTED.to_be_bytes());
            }
            if write(&mut to_client, &packet).is_err() {
                break;
            }
        }
        to_client.shutdown(std::net::Shutdown::Both).ok();
    });
    let (mut from_client, mut to_server) = (client, server);
    let mut first = true;
    while let Ok(mut packet) = read(&mut from_client) {
        if !std::mem::take(&mut first) && int(&packet, 4) == ADD_WATCH {
            // Asked instead: whether the root exists, which does nothing.
            refused.lock().unwrap().insert(int(&packet, 0));
            packet.truncate(4);
            packet.extend_from_slice(&EXISTS.to_be_bytes());
            packet.extend_from_slice(&1i32.to_be_bytes());
            packet.extend_from_slice(b"/\0");
        }
        if write(&mut to_server, &packet).is_err() {
            break;
        }
    }
    to_server.shutdown(std::net::Shutdown::Both)
}

impl Subject for Old {
    fn start() -> Option<Old> {
        let behind = ZooKeeper::shared()?;
        let place = behind.place();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&place) else { continue };
                std::thread::spawn(move || pass(client, server));
            }
        });
        Some(Old { behind, port })
    }

    fn shared() -> Option<&'static Old> {
        static SHARED: OnceLock<Option<Old>> = OnceLock::new();
        SHARED.get_or_init(Old::start).as_ref()
    }

    fn open(&self) -> Arc<dyn Registry> {
        farcall_registry::open(&self.url().parse().unwrap()).unwrap()
    }

    fn url(&self) -> String {
        self.behind.url().replace(&self.behind.place(), &format!("127.0.0.1:{}", self.port))
    }

    fn kill(&mut self) {}

    fn start_again(&mut self) {}

    fn wipe(&mut self) {}

    fn pause(&self) {}

    fn resume(&self) {}

    fn put_garbage(&self, service: &ServiceKey) {
        self.behind.put_garbage(service);
    }
}

// Those that leave the server alone, but for one: why a node went is not told there.
suite!(Old:
    shared [
        registers_and_is_found_whole,
        a_crash_is_seen_when_the_lease_ends,
        a_later_start_takes_the_place_of_an_earlier,
        consumers_are_recorded,
        rules_are_told,
        a_dropped_wait_loses_nothing,
        garbage_beside_ours_is_passed_over,
    ], own []);
