//! Processes of several versions at one registry: who understands is used, who does not is avoided and said so.

use crate::processes::{Named, url_of};

/// Also by providers that let nobody in who shows nothing: the question carries what the calls would.
fn check(environment: &[(&str, &str)]) {
    let node = Named::start(&["node", "tcp://127.0.0.1:0"], &[]);
    let url = url_of(&node);
    let newer = Named::start(&["provide", &url, "tcp://127.0.0.1:0", "newer"], environment);
    let odd = Named::start(&["provide", &url, "tcp://127.0.0.1:0", "odd"], environment);
    let (newer, odd) = ((newer.says("registered"), newer), (odd.says("registered"), odd));
    let said = Named::start(&["ask", &url, "8"], environment).ends();
    let answers: Vec<&String> = said.iter().filter(|line| line.starts_with("answer")).collect();
    assert_eq!(answers.len(), 8, "{said:?}");
    assert!(answers.iter().all(|line| line.contains("newer") && line.contains("None") && line.ends_with(&newer.0)), "{said:?}");
    let misfit = said.iter().find(|line| line.starts_with("misfit")).unwrap_or_else(|| panic!("nothing is said: {said:?}"));
    assert!(misfit.contains(&odd.0) && misfit.contains("is avoided: ask:") && misfit.contains("bool"), "{misfit}");
    // With nobody else there, the error says why, and nothing has been sent.
    drop(newer);
    let alone = Named::start(&["node", "tcp://127.0.0.1:0"], &[]);
    let url = url_of(&alone);
    let odd = Named::start(&["provide", &url, "tcp://127.0.0.1:0", "odd"], environment);
    odd.says("registered");
    let said = Named::start(&["ask", &url, "1"], environment).ends();
    let failed = said.iter().find(|line| line.starts_with("failed")).unwrap_or_else(|| panic!("{said:?}"));
    assert!(failed.contains("FailedPrecondition not sent") && failed.contains("no provider understands this program"), "{failed}");
}

#[test]
fn a_process_that_understands_is_used_and_one_that_does_not_is_avoided() {
    check(&[]);
}

#[test]
fn whether_an_instance_fits_is_asked_with_the_clients_credentials() {
    check(&[("FARCALL_TEST_TOKEN", "correct-horse")]);
}
