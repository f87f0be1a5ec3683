//! Heads and body framing of HTTP/1.1: strict, without I/O.
