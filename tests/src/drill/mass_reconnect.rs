//! Thousands of clients lose the registry at once, and come back spread out: first it is killed, then it is stopped gracefully.

use std::time::{Duration, Instant};

use farcall::registry::Registry;
use farcall::registry::embedded::Nodes;
use farcall::registry::embedded::api::{Hello, Notice, RegistrarClient};

use super::{Member, Stage, hold};

/// The longest pause of a client before it tries again (docs/limits.md), and as much again as registering may be put off and take.
const ALL_BACK: Duration = Duration::from_secs(16);
/// A tenth of a second may bring one in so many of the crowd.
const SPREAD: u64 = 6;
/// Sessions that come within a second before the next are told to take their time.
const CALM: u32 = 200;

/// See the module's text.
pub(super) async fn run(stage: &mut Stage) -> Result<(), String> {
    let (each, away) = if stage.short { (400, Duration::from_secs(1)) } else { (2000, Duration::from_secs(15)) };
    let cast = &mut stage.cast;
    let mut node = cast.start_through(&MANY_FILES, "registry", &["--listen", "tcp://127.0.0.1:0"])?;
    let at = node.address.clone();
    let number = each.to_string();
    let _crowd = cast.start_through(&MANY_FILES, "crowd", &["--node", &at, "--providers", &number, "--subscribers", &number])?;
    all_are_there(&at, each).await?;
    node.kill();
    println!("  the registry is killed, {} clients have lost it", 2 * each);
    tokio::time::sleep(away).await;
    node = cast.start_through(&MANY_FILES, "registry", &["--listen", &at])?;
    come_back("after a kill", &mut node, each).await?;
    hold("it was asked to stop and did", node.end()?)?;
    println!("  the registry was stopped gracefully");
    node = cast.start_through(&MANY_FILES, "registry", &["--listen", &at])?;
    come_back("after a stop", &mut node, each).await?;
    told_to_spread(&at).await
}

/// What starts a process that may have a connection per member of the crowd.
const MANY_FILES: [&str; 4] = ["sh", "-c", "ulimit -n $(ulimit -Hn) && exec \"$@\"", "sh"];

async fn come_back(when: &str, node: &mut Member, each: u64) -> Result<(), String> {
    let back = Instant::now();
    all_are_there(&node.address, each).await?;
    let took = back.elapsed();
    let report = node.report()?;
    let (came, peak) = (report.ok, report.not_executed);
    println!("  {when}: all back after {} ms, {came} connections, at most {peak} in 100 ms", took.as_millis());
    hold(&format!("{when} all are back within {} s", ALL_BACK.as_secs()), took <= ALL_BACK)?;
    // Those who look and ask are few.
    hold(&format!("{when} each connects once, or few twice"), (2 * each..=2 * each + each / 5 + 20).contains(&came))?;
    hold(&format!("{when} no tenth of a second brings more than one in {SPREAD} of them"), peak <= 2 * each / SPREAD)
}

/// Waits until so many are registered, and as many subscribe.
async fn all_are_there(at: &str, each: u64) -> Result<(), String> {
    let nodes = Nodes::builder([at]).build().map_err(|e| e.to_string())?;
    let until = Instant::now() + ALL_BACK * 2;
    loop {
        let services = nodes.services().await.unwrap_or_default();
        let (entries, consumers) = services.iter().fold((0, 0), |(e, c), s| (e + s.entries, c + s.consumers));
        if (entries, consumers) == (each, each) {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(format!("of {each} registered and subscribed, {entries} and {consumers} are there"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Sessions that come in a crowd are told to put off what they register.
async fn told_to_spread(at: &str) -> Result<(), String> {
    let client = RegistrarClient::connect(at).await.map_err(|e| e.to_string())?;
    let mut sessions = Vec::new();
    let mut told = Vec::new();
    for _ in 0..=CALM + 50 {
        let who = farcall::registry::Consumer { application: "crowd".into(), host: String::new() };
        let hello = Hello { namespace: String::new(), who, own: Vec::new() };
        let mut notices = client.open(hello).await.map_err(|e| e.to_string())?;
        match notices.next().await {
            Some(Ok(Notice::Opened(opened))) => told.push(opened.spread_ms),
            other => return Err(format!("a session begins with {other:?}")),
        }
        sessions.push(notices);
    }
    hold("the first sessions of a second register at once, those of a crowd spread", told[0] == 0 && told.last() > Some(&0))
}
