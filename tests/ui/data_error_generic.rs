//! An application error is one type.

#[farcall::error]
#[derive(Debug)]
enum Failure<T> {
    Of(T),
}

fn main() {}
