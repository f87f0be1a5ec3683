//! A provider that needs no key: speaks the protocols, scripted, with faults on demand.
