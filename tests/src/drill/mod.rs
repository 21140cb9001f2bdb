//! Drills: real processes that are killed, cut off and wiped, while consumers call and keep count.
//!
//! [`Cast`] starts the processes of a drill (this program again, in another role) and hears what they say. A provider serves a till, a
//! consumer calls tills that it finds by name and counts how every call ended, a registry is a node of our own. `farcall-tests`'
//! program `drill` runs one drill by name; to add one, write `async fn run(stage: &mut Stage) -> Result<(), String>` and put it into
//! [`DRILLS`].

mod cast;
mod crowd;
mod flood;
mod mass_reconnect;
mod network_cut;
mod provider_kill;
mod registry_outage;
mod registry_wipe;
pub mod roles;
mod rolling_restart;
mod three_nodes;

use std::future::Future;
use std::pin::Pin;

pub use cast::{Cast, Listed, Member, Report};

/// What a drill is given: the processes, and whether it is to be short, as in CI.
pub struct Stage {
    /// The processes.
    pub cast: Cast,
    /// Seconds instead of minutes.
    pub short: bool,
}

/// What a drill returns when it is over: an error says what did not hold.
pub type Ending<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + 'a>>;

/// A drill: what it does to whom, and what must hold.
pub struct Drill {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it shows, in a line.
    pub shows: &'static str,
    /// Whether it can be run here; else why not.
    pub can_run: fn() -> Result<(), String>,
    /// Runs it.
    pub run: fn(&mut Stage) -> Ending<'_>,
}

/// It needs nothing but processes.
fn anywhere() -> Result<(), String> {
    Ok(())
}

/// All drills.
pub const DRILLS: &[Drill] = &[
    Drill {
        name: "flood",
        shows: "20,000 connections that say nothing, or nothing sensible: callers do not notice, memory and files are bounded",
        can_run: anywhere,
        run: |stage| Box::pin(flood::run(stage)),
    },
    Drill {
        name: "mass-reconnect",
        shows: "thousands of clients lose the registry at once: all come back within 16 s, spread out, none twice",
        can_run: anywhere,
        run: |stage| Box::pin(mass_reconnect::run(stage)),
    },
    Drill {
        name: "network-cut",
        shows: "a provider's cable is pulled: calls go on elsewhere, it comes back; registry and consumer apart: no failed call",
        can_run: network_cut::can_run,
        run: |stage| Box::pin(network_cut::run(stage)),
    },
    Drill {
        name: "provider-kill",
        shows: "kill -9 of a provider: suspect within 1 s, gone within its lease and 1 s, later calls go elsewhere",
        can_run: anywhere,
        run: |stage| Box::pin(provider_kill::run(stage)),
    },
    Drill {
        name: "registry-outage",
        shows: "the registry is killed under load for a minute, a consumer is restarted meanwhile: no failed call",
        can_run: anywhere,
        run: |stage| Box::pin(registry_outage::run(stage)),
    },
    Drill {
        name: "registry-wipe",
        shows: "the registry is killed, loses its disk and is started again: all register again, no failed call",
        can_run: anywhere,
        run: |stage| Box::pin(registry_wipe::run(stage)),
    },
    Drill {
        name: "rolling-restart",
        shows: "every provider in turn gets SIGTERM and is started again: no failed call, nobody finds one that is not ready",
        can_run: anywhere,
        run: |stage| Box::pin(rolling_restart::run(stage)),
    },
    Drill {
        name: "three-nodes",
        shows: "two of three nodes are killed: the last serves and registers, those that come back know all, no failed call",
        can_run: anywhere,
        run: |stage| Box::pin(three_nodes::run(stage)),
    },
];

/// Fails a drill unless this holds.
pub fn hold(what: &str, holds: bool) -> Result<(), String> {
    println!("  {} {what}", if holds { "holds:" } else { "DOES NOT HOLD:" });
    if holds { Ok(()) } else { Err(format!("does not hold: {what}")) }
}
