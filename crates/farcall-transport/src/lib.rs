//! Byte links under farcall: TCP, unix sockets and in-memory pipes.
