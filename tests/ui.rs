//! What the macros say to mistakes, pinned: each case in `ui/` must fail with exactly the text beside it.
//! After a deliberate change: `TRYBUILD=overwrite cargo test -p farcall-tests --test ui`, and read the diff.

#[test]
fn mistakes_are_answered_with_advice() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("ui/*.rs");
}
