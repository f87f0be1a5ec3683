//! Clients on the gateway: one command (`cco run`), this shell (`cco env`), from now on (`cco setup`).

mod before;
mod client;
mod difference;
mod env;
mod found;
mod kept;
mod offer;
mod pay;
mod project;
mod run;
mod setup;

pub(crate) use env::run as env;
pub(crate) use pay::Wanted;
pub(crate) use run::run;
pub(crate) use setup::{run as setup, set_up_clients as set_up, undo_all};
