//! A provider's network is cut without a word, then that between registry and consumer: each process is in a network namespace of its
//! own, and a bridge in a further one joins them.

use std::process::Command;
use std::time::{Duration, Instant};

use super::{Cast, Listed, Member, Stage, hold};

/// Of a consumer: as often it asks on an idle connection whether the other end lives, and as long it waits for the answer.
const HEARTBEAT: Duration = Duration::from_millis(1000);
/// A client comes back to its registry after a pause of 10 s at most, and as long again may its first attempt and a call take.
const BACK: Duration = Duration::from_secs(25);
/// What the names of the namespaces begin with; the number of our process follows, so that they can be told from those of others.
const PREFIX: &str = "farcall";
/// Who is in which namespace; their addresses end in 1, 2, 3, 4.
const HOSTS: [&str; 4] = ["registry", "a", "b", "consumer"];

/// Whether there may be namespaces here; else why not.
pub(super) fn can_run() -> Result<(), String> {
    let name = format!("{PREFIX}{}-try", std::process::id());
    ip(&["netns", "add", &name])?;
    ip(&["netns", "del", &name]).map(drop)
}

/// See the module's text.
pub(super) async fn run(stage: &mut Stage) -> Result<(), String> {
    let lease = if stage.short { Duration::from_secs(3) } else { Duration::from_secs(15) };
    let network = Network::new()?;
    let cast = &mut stage.cast;
    let lease_ms = lease.as_millis().to_string();
    let registry = network.start(cast, "registry", "registry", &["--listen", "tcp://0.0.0.0:7400", "--lease-ms", &lease_ms])?;
    let url = format!("farcall://{}:7400", address("registry"));
    let provider = |cast: &mut Cast, host| network.start(cast, host, "provider", &["--registry", &url, "--listen", "tcp://0.0.0.0:9000"]);
    let _a = provider(cast, "a")?;
    let cache = cast.folder().join("cache").display().to_string();
    let heartbeat = HEARTBEAT.as_millis().to_string();
    let consuming = ["--registry", &url, "--cache", &cache, "--heartbeat-ms", &heartbeat];
    // There is but one provider when it starts: its connection is the one that is cut.
    let mut consumer = network.start(cast, "consumer", "consumer", &consuming)?;
    let _b = provider(cast, "b")?;
    let (a, b) = (at("a"), at("b"));
    let both = |list: &[Listed]| [&a, &b].iter().all(|at| list.iter().any(|l| l.address == **at && !l.suspect));
    consumer.lists("both providers, under the addresses that lead to them", Instant::now(), Duration::from_secs(20), both)?;
    // A node that was just started lets nothing expire.
    tokio::time::sleep(lease + Duration::from_secs(1)).await;

    let before = consumer.report()?;
    let cut = Instant::now();
    network.link("a", "down")?;
    println!("  the link of provider a is down");
    let suspect = consumer.lists("a is suspect", cut, lease * 2, |list| list.iter().any(|l| l.address == a && l.suspect))?;
    let gone = consumer.lists("a is gone", cut, lease * 3, |list| list.iter().all(|l| l.address != a))?;
    let after = consumer.report()?;
    let lost = after.failed() - before.failed();
    println!(
        "  suspect after {} ms, gone after {} ms, {lost} calls cut off, no answer for {} ms",
        suspect.as_millis(),
        gone.as_millis(),
        after.gap_ms
    );
    hold("suspect within two heartbeats and 1 s", suspect <= HEARTBEAT * 2 + Duration::from_secs(1))?;
    hold("gone within the lease and 1 s", gone <= lease + Duration::from_secs(1))?;
    hold("only calls that were under way were cut off, one of each caller", lost <= 8 && after.not_executed == before.not_executed)?;
    hold(
        "calls go on with b within two heartbeats and 2 s",
        Duration::from_millis(after.gap_ms) <= HEARTBEAT * 2 + Duration::from_secs(2),
    )?;
    hold("and they are many", after.ok > before.ok + 100)?;

    let up = Instant::now();
    network.link("a", "up")?;
    consumer.lists("a is back", up, BACK, both)?;

    let before = consumer.report()?;
    network.silence("registry", "consumer", "add")?;
    println!("  the registry does not reach the consumer");
    // Longer than a lease and its heartbeats, so that all that can run out does.
    tokio::time::sleep(lease + HEARTBEAT * 5).await;
    let apart = consumer.report()?;
    hold(
        &format!("no call fails: {} answers, {} failed ({})", apart.ok - before.ok, apart.failed() - before.failed(), apart.error),
        apart.failed() == before.failed() && apart.ok > before.ok + 100,
    )?;
    hold("nobody is missing or suspect", both(&consumer.list()))?;
    network.silence("registry", "consumer", "del")?;
    let healed = Instant::now();
    let _c = network.start(cast, "b", "provider", &["--registry", &url, "--listen", "tcp://0.0.0.0:9001"])?;
    let known = |list: &[Listed]| list.iter().any(|l| l.address.ends_with(":9001"));
    consumer.lists("a provider that came meanwhile, when they reach each other again", healed, BACK, known)?;
    drop(registry);
    Ok(())
}

fn address(host: &str) -> String {
    let n = HOSTS.iter().position(|known| *known == host).map_or(0, |n| n + 1);
    format!("10.231.7.{n}")
}

fn at(host: &str) -> String {
    format!("tcp://{}:9000", address(host))
}

/// Namespaces with a bridge between them; gone when dropped, with all that is in them.
struct Network {
    prefix: String,
}

impl Network {
    fn new() -> Result<Network, String> {
        sweep()?;
        let network = Network { prefix: format!("{PREFIX}{}", std::process::id()) };
        let bridge = network.name("bridge");
        ip(&["netns", "add", &bridge])?;
        ip(&["-n", &bridge, "link", "add", "br0", "type", "bridge"])?;
        ip(&["-n", &bridge, "link", "set", "br0", "up"])?;
        for host in HOSTS {
            network.join(host, &bridge)?;
        }
        Ok(network)
    }

    fn join(&self, host: &str, bridge: &str) -> Result<(), String> {
        let own = self.name(host);
        ip(&["netns", "add", &own])?;
        ip(&["link", "add", "eth0", "netns", &own, "type", "veth", "peer", "name", host, "netns", bridge])?;
        ip(&["-n", bridge, "link", "set", "dev", host, "master", "br0"])?;
        ip(&["-n", bridge, "link", "set", "dev", host, "up"])?;
        ip(&["-n", &own, "addr", "add", &format!("{}/24", address(host)), "dev", "eth0"])?;
        ip(&["-n", &own, "link", "set", "lo", "up"])?;
        ip(&["-n", &own, "link", "set", "eth0", "up"]).map(drop)
    }

    fn name(&self, host: &str) -> String {
        format!("{}-{host}", self.prefix)
    }

    fn start(&self, cast: &mut Cast, host: &str, role: &'static str, args: &[&str]) -> Result<Member, String> {
        cast.start_through(&["ip", "netns", "exec", &self.name(host)], role, args)
    }

    /// Sets the bridge's end of a host's link: down is a cable that is pulled.
    fn link(&self, host: &str, state: &str) -> Result<(), String> {
        ip(&["-n", &self.name("bridge"), "link", "set", "dev", host, state]).map(drop)
    }

    /// What `from` sends to `to` is lost.
    fn silence(&self, from: &str, to: &str, how: &str) -> Result<(), String> {
        ip(&["-n", &self.name(from), "route", how, "blackhole", &format!("{}/32", address(to))]).map(drop)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in HOSTS.iter().chain(&["bridge"]) {
            let _ = ip(&["netns", "del", &self.name(host)]);
        }
    }
}

/// Removes what a drill has left that was itself killed.
fn sweep() -> Result<(), String> {
    for name in ip(&["netns", "list"])?.lines().filter_map(|line| line.split_whitespace().next()) {
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-')).filter(|(pid, _)| pid.parse::<u32>().is_ok());
        if pid.is_some_and(|(pid, _)| !std::path::Path::new("/proc").join(pid).exists()) {
            ip(&["netns", "del", name])?;
        }
    }
    Ok(())
}

fn ip(args: &[&str]) -> Result<String, String> {
    let done = Command::new("ip").args(args).output().map_err(|e| format!("ip (of iproute2) cannot be run: {e}"))?;
    match done.status.success() {
        true => Ok(String::from_utf8_lossy(&done.stdout).into_owned()),
        false => Err(format!("ip {}: {}", args.join(" "), String::from_utf8_lossy(&done.stderr).trim())),
    }
}
