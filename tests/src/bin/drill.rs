//! Runs a drill by name: `drill provider-kill [--short]`; `drill list` names them, `drill all` runs all. The processes of a drill are
//! this program again, as `drill --role=ROLE …`.

use std::process::ExitCode;

use farcall_tests::drill::{Cast, DRILLS, Drill, Stage, roles};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let ended = match args.split_first() {
        Some((first, rest)) => match first.strip_prefix("--role=") {
            Some(role) => roles::run(role, rest),
            None => conduct(first, rest.iter().any(|arg| arg == "--short")),
        },
        None => Err("which drill? `drill list` names them".to_owned()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("drill: {e}");
            ExitCode::FAILURE
        }
    }
}

fn conduct(name: &str, short: bool) -> Result<(), String> {
    if name == "list" {
        DRILLS.iter().for_each(|drill| println!("{:<18} {}", drill.name, drill.shows));
        return Ok(());
    }
    let chosen: Vec<&Drill> = DRILLS.iter().filter(|drill| name == "all" || drill.name == name).collect();
    if chosen.is_empty() {
        return Err(format!("there is no drill {name:?}; there are: {}", DRILLS.iter().map(|d| d.name).collect::<Vec<_>>().join(", ")));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    for drill in chosen {
        println!("{}: {}", drill.name, drill.shows);
        if let Err(why) = (drill.can_run)() {
            println!("  skipped: {why}");
            continue;
        }
        let mut stage = Stage { cast: Cast::new()?, short };
        runtime.block_on((drill.run)(&mut stage)).map_err(|e| format!("{}: {e}", drill.name))?;
    }
    Ok(())
}
