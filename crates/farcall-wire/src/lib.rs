//! The farcall protocol as a value: frames, hello, method tables and calls, no I/O.
