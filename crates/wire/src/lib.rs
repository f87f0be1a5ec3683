//! What is said on the wire between clients and providers: no I/O, no HTTP, no clock.
