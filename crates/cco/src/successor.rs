//! A new process takes the place of this one: it gets the listener, so that nobody finds a closed door, and the lock of
//! the home.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Weak};
use std::time::Duration;

use gateway::gateway::Current;
use gateway::net::Listener;
use gateway::process::{NoSuccessor, Succession};
use gateway::system::{Lock, Successor};

use crate::EXIT_CONFIG;

/// A start may open a large ledger.
const START: Duration = Duration::from_secs(60);

/// From here on this process can be replaced.
pub(crate) fn raise(current: &Arc<Current>, listener: &Listener, place: Option<&Arc<Lock>>) -> io::Result<()> {
    let (current, listener) = (current.clone(), listener.try_clone()?);
    // Only looked at: the place is given up when the server does so.
    let place = place.map(Arc::downgrade);
    // As it was called: when the program is replaced, its new version has the name of the old one.
    let program = std::env::current_exe()?;
    let wishes = current.get().process.open();
    std::thread::Builder::new().name("cco-heir".into()).spawn(move || {
        for wish in wishes {
            let started = start(&program, &listener, place.as_ref());
            let is_heir = started.is_ok();
            // Told first: whoever asked is connected to this process, which ends what it waits for.
            let _ = wish.send(started);
            if is_heir {
                current.retire();
                return;
            }
        }
    })?;
    Ok(())
}

fn start(program: &Path, listener: &Listener, place: Option<&Weak<Lock>>) -> Succession {
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1).filter(|argument| argument != "--parent")).arg("--parent");
    let place = place.and_then(Weak::upgrade);
    let files: Vec<BorrowedFd<'_>> =
        [Some(listener.as_fd()), place.as_deref().map(|place| place.as_fd())].into_iter().flatten().collect();
    let none = |why| NoSuccessor { why, is_configuration: false };
    let successor = Successor::start(&mut command, &files).map_err(|why| none(why.to_string()))?;
    successor.ready(START).map_err(|dead| match (dead.status, dead.said.trim_end()) {
        (Some(status), "") => none(status.to_string()),
        (Some(status), said) => {
            NoSuccessor { is_configuration: status.code() == Some(i32::from(EXIT_CONFIG)), ..none(said.into()) }
        }
        (None, _) => none(format!("it did not become ready in {} seconds", START.as_secs())),
    })
}
