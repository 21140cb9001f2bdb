//! Client, server and the connection task between them.
