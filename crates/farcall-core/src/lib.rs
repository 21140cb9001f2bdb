//! The words of farcall: errors, descriptors, schemas and codecs, no I/O.
