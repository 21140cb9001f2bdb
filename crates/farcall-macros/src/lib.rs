//! The attributes of farcall: data, error and service.
