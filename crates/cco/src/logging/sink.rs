//! Lines on their way to stderr: collected in memory, written together by a thread of their own.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Bytes that may wait to be written; further lines are dropped and counted, so that a slow disk never slows a stream.
const WAITING: usize = 4 * 1024 * 1024;
/// How long the thread waits for more lines, once there is one: a busy gateway writes thirty times a second, not once
/// for every request.
const LINGER: Duration = Duration::from_millis(30);

#[derive(Debug, Default)]
struct State {
    lines: Vec<u8>,
    dropped: u64,
    closed: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what comes until the end is said and everything is written.
    fn write(&self, mut out: impl Write) {
        let mut lines = Vec::new();
        loop {
            let waiting = |state: &mut State| state.lines.is_empty() && !state.closed;
            let state = self.changed.wait_while(self.state(), waiting).unwrap_or_else(PoisonError::into_inner);
            let (state, _) = self
                .changed
                .wait_timeout_while(state, LINGER, |state| !state.closed)
                .unwrap_or_else(PoisonError::into_inner);
            let (mut state, mut closed) = (state, false);
            if state.lines.is_empty() {
                closed = state.closed;
            }
            std::mem::swap(&mut state.lines, &mut lines);
            drop(state);
            if closed {
                return;
            }
            let lost = unwritten(&mut out, &lines);
            if lost > 0 {
                self.state().dropped += lost;
            }
            lines.clear();
            // What a burst has taken is given back.
            lines.shrink_to(64 * 1024);
        }
    }
}

/// Writes lines. What cannot be written is lost, since nobody can be told in the log itself: so many lines.
fn unwritten(out: &mut impl Write, mut lines: &[u8]) -> u64 {
    while !lines.is_empty() {
        match out.write(lines) {
            Ok(n @ 1..) => lines = &lines[n..],
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => break,
        }
    }
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// Where lines are put. Cheap to clone; putting a line costs a short lock and a copy.
#[derive(Debug, Clone)]
pub(super) struct Sink(Arc<Shared>);

impl Sink {
    /// Puts a line, unless too many wait already.
    pub(super) fn put(&self, line: &[u8]) {
        let mut state = self.0.state();
        if state.lines.len() + line.len() > WAITING || state.closed {
            state.dropped += 1;
            return;
        }
        let first = state.lines.is_empty();
        state.lines.extend_from_slice(line);
        drop(state);
        if first {
            self.0.changed.notify_one();
        }
    }
}

impl Write for Sink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The thread that writes.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts it.
    pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<(Sink, Self)> {
        let shared = Arc::<Shared>::default();
        let (sink, theirs) = (Sink(shared.clone()), shared.clone());
        let thread = std::thread::Builder::new().name("cco-log".into()).spawn(move || theirs.write(out))?;
        Ok((sink, Self { shared, thread: Some(thread) }))
    }

    /// Lines that were dropped so far.
    pub(super) fn dropped(&self) -> u64 {
        self.shared.state().dropped
    }

    /// The same for whoever asks later.
    pub(super) fn dropped_then(&self) -> impl Fn() -> u64 + Send + Sync + 'static {
        let shared = self.shared.clone();
        move || shared.state().dropped
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.state().closed = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Hands on what is written; while the receiver is not asked, it waits.
    struct Slow(mpsc::SyncSender<Vec<u8>>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_arrive_in_order_and_all_of_them_before_the_end() {
        let (sender, receiver) = mpsc::sync_channel(1000);
        let (sink, writer) = Writer::start(Slow(sender)).unwrap();
        for n in 0..1000 {
            sink.put(format!("{n}\n").as_bytes());
        }
        drop(writer);
        let got: Vec<u8> = receiver.iter().flatten().collect();
        let want: String = (0..1000).map(|n| format!("{n}\n")).collect();
        assert_eq!(got, want.into_bytes());
    }

    /// Takes so many bytes.
    struct Full(usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let n = bytes.len().min(self.0);
            self.0 -= n;
            if n > 0 { Ok(n) } else { Err(io::ErrorKind::StorageFull.into()) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_a_full_disk_does_not_take_is_counted() {
        let (sink, writer) = Writer::start(Full(8)).unwrap();
        let shared = writer.shared.clone();
        for line in ["one\n", "two\n", "three\n", "four\n"] {
            sink.put(line.as_bytes());
        }
        drop(writer);
        assert_eq!(shared.state().dropped, 2);
    }

    #[test]
    fn what_cannot_be_written_in_time_is_dropped_and_counted() {
        let (sender, receiver) = mpsc::sync_channel(0);
        let (sink, writer) = Writer::start(Slow(sender)).unwrap();
        sink.put(b"first\n");
        // The thread has taken the first line and waits for somebody to read it.
        while !writer.shared.state().lines.is_empty() {
            std::thread::yield_now();
        }
        let line = vec![b'x'; WAITING / 4];
        (0..6).for_each(|_| sink.put(&line));
        assert_eq!(writer.dropped(), 2);
        let reader = std::thread::spawn(move || receiver.iter().map(|bytes| bytes.len()).sum::<usize>());
        drop(writer);
        assert_eq!(reader.join().unwrap(), 6 + WAITING);
    }
}
