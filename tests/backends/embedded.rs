//! The embedded registry, one node and three, each in a runtime of its own: what ends the runtime ends the node as a crash does.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use farcall_registry::embedded::{Embedded, RegistryLimits};
use farcall_registry::{Registry, ServiceKey};
use farcall_tests::servers::free_port;

use crate::suite::{LEASE, Subject, suite};
use crate::support::runtime;

/// Workers of a node's runtime.
const WORKERS: usize = 2;

/// Nodes that copy from each other, each with a folder.
pub(crate) struct Nodes<const N: usize> {
    ports: Vec<u16>,
    folder: PathBuf,
    running: Vec<(tokio::runtime::Runtime, Embedded)>,
    stopped: Arc<(Mutex<bool>, Condvar)>,
}

impl<const N: usize> Nodes<N> {
    fn run_node(&self, at: usize) -> (tokio::runtime::Runtime, Embedded) {
        let runtime = runtime();
        let mut builder = Embedded::builder()
            .limits(RegistryLimits { lease: LEASE, ..RegistryLimits::default() })
            .folder(self.folder.join(at.to_string()));
        for (n, port) in self.ports.iter().enumerate() {
            if n != at {
                builder = builder.peer(format!("tcp://127.0.0.1:{port}"));
            }
        }
        let address = format!("tcp://127.0.0.1:{}", self.ports[at]);
        let node = std::thread::scope(|scope| scope.spawn(|| runtime.block_on(builder.listen(address))).join().unwrap());
        (runtime, node.unwrap())
    }
}

impl<const N: usize> Subject for Nodes<N> {
    fn start() -> Option<Nodes<N>> {
        let ports: Vec<u16> = (0..N).map(|_| free_port()).collect();
        let folder = std::env::temp_dir().join(format!("farcall-nodes-{}-{}", std::process::id(), ports[0]));
        let mut nodes = Nodes { ports, folder, running: Vec::new(), stopped: Arc::default() };
        nodes.start_again();
        Some(nodes)
    }

    fn shared() -> Option<&'static Nodes<N>> {
        None
    }

    fn open(&self) -> Arc<dyn Registry> {
        farcall_registry::open(&self.url().parse().unwrap()).unwrap()
    }

    fn url(&self) -> String {
        let hosts: Vec<String> = self.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        format!("farcall://{}", hosts.join(","))
    }

    fn kill(&mut self) {
        for (runtime, node) in self.running.drain(..) {
            // First its tasks: none is left that could say goodbye. Then its folder's lock.
            let end = || runtime.shutdown_timeout(std::time::Duration::from_secs(5));
            std::thread::scope(|scope| scope.spawn(end).join().unwrap());
            drop(node);
        }
    }

    fn start_again(&mut self) {
        for at in 0..N {
            let node = self.run_node(at);
            self.running.push(node);
        }
    }

    fn wipe(&mut self) {
        std::fs::remove_dir_all(&self.folder).ok();
    }

    fn pause(&self) {
        *self.stopped.0.lock().unwrap() = true;
        let held = Arc::new(AtomicUsize::new(0));
        for (runtime, _) in &self.running {
            // Every worker is held up: nothing is read, and connections stay open.
            for _ in 0..WORKERS {
                let (stopped, held) = (self.stopped.clone(), held.clone());
                runtime.spawn(async move {
                    held.fetch_add(1, Ordering::SeqCst);
                    let guard = stopped.0.lock().unwrap();
                    drop(stopped.1.wait_while(guard, |stopped| *stopped).unwrap());
                });
            }
        }
        while held.load(Ordering::SeqCst) < WORKERS * self.running.len() {
            std::thread::yield_now();
        }
    }

    fn resume(&self) {
        *self.stopped.0.lock().unwrap() = false;
        self.stopped.1.notify_all();
    }

    fn put_garbage(&self, _: &ServiceKey) {}
}

impl<const N: usize> Drop for Nodes<N> {
    fn drop(&mut self) {
        self.resume();
        self.kill();
        self.wipe();
    }
}

mod one {
    use super::*;

    suite!(Nodes<1>: each);
}

mod three {
    use super::*;

    suite!(Nodes<3>: each);
}
