//! The terminal that a person sits at: questions, and lines without echo.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetpgrp, tcsetattr};
use zeroize::Zeroizing;

/// What was typed.
#[derive(Debug, PartialEq, Eq)]
pub enum Hidden {
    /// A line, without its end.
    Line(Zeroizing<String>),
    /// Ctrl-C, or the terminal went away.
    Cancelled,
}

/// The longest line that is taken.
const LONGEST: usize = 64 * 1024;

/// The terminal that this process belongs to, whatever its standard streams are.
#[derive(Debug)]
pub struct Terminal(File);

impl Terminal {
    /// `None`: there is no terminal, or we are in its background and must not ask.
    pub fn open() -> Option<Self> {
        let file = OpenOptions::new().read(true).write(true).open("/dev/tty").ok()?;
        let foreground = tcgetpgrp(&file).ok()?;
        (foreground == rustix::process::getpgrp()).then_some(Self(file))
    }

    /// Asks, and reads a line.
    pub fn ask(&self, question: &str) -> io::Result<String> {
        self.write(question)?;
        let mut line = String::new();
        BufReader::new(io::Read::take(&self.0, 4096)).read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    /// Asks, and reads a line without showing it.
    pub fn ask_hidden(&self, question: &str) -> io::Result<Hidden> {
        let silent = Silent::new(&self.0)?;
        self.write(question)?;
        let line = edit(|byte| Ok(rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut *byte))?));
        drop(silent);
        // The end of the line was not shown either.
        self.write("\n")?;
        line
    }

    fn write(&self, text: &str) -> io::Result<()> {
        (&self.0).write_all(text.as_bytes())
    }
}

/// Puts the terminal back as it was, whatever happens.
struct Silent<'a>(&'a File, Termios);

impl<'a> Silent<'a> {
    fn new(terminal: &'a File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut silent = before.clone();
        // Byte by byte and without signals: Ctrl-C must not end us before the terminal is put back. The line
        // discipline of most systems would also cut a pasted line at 4 KiB.
        silent.local_modes -= LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG;
        silent.special_codes[SpecialCodeIndex::VMIN] = 1;
        silent.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(terminal, OptionalActions::Flush, &silent)?;
        Ok(Self(terminal, before))
    }
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.0, OptionalActions::Flush, &self.1);
    }
}

/// The little that is left of editing a line when the terminal does none of it.
fn edit(mut read: impl FnMut(&mut [u8; 1]) -> io::Result<usize>) -> io::Result<Hidden> {
    // The room is made at once: growing would leave copies behind.
    let mut line = Zeroizing::new(Vec::with_capacity(LONGEST));
    let mut byte = Zeroizing::new([0]);
    loop {
        if read(&mut byte)? == 0 {
            return Ok(Hidden::Cancelled);
        }
        match byte[0] {
            b'\r' | b'\n' => break,
            // Ctrl-C, and Ctrl-D where there is nothing to send.
            0x03 => return Ok(Hidden::Cancelled),
            0x04 if line.is_empty() => return Ok(Hidden::Cancelled),
            0x04 => break,
            // Backspace takes a character, not a byte of one.
            0x08 | 0x7f => while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
            // Ctrl-U.
            0x15 => line.clear(),
            other if line.len() < LONGEST => line.push(other),
            _ => return Err(io::Error::other("the line is longer than 64 KiB")),
        }
    }
    match std::str::from_utf8(&line) {
        Ok(text) => Ok(Hidden::Line(Zeroizing::new(text.to_owned()))),
        Err(_) => Err(io::Error::other("the line is not UTF-8")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(bytes: &[u8]) -> Option<String> {
        let mut rest = bytes;
        let hidden = edit(|byte| io::Read::read(&mut rest, byte)).unwrap();
        match hidden {
            Hidden::Line(line) => Some((*line).clone()),
            Hidden::Cancelled => None,
        }
    }

    #[test]
    fn a_line_can_be_corrected_and_cancelled() {
        assert_eq!(typed(b"key\n").as_deref(), Some("key"));
        assert_eq!(typed(b"kex\x7fy\rmore").as_deref(), Some("key"));
        assert_eq!(typed("kö\x08ey\n".as_bytes()).as_deref(), Some("key"));
        assert_eq!(typed(b"\x7f\x7fwrong\x15key\n").as_deref(), Some("key"));
        assert_eq!(typed(b"key\x04").as_deref(), Some("key"));
        assert_eq!(typed(b"key\x03\n"), None);
        assert_eq!(typed(b"\x04"), None);
        assert_eq!(typed(b"key"), None);
        assert!(
            edit(|byte| Ok(usize::from(std::mem::replace(&mut byte[0], b'x') < 255))).is_err(),
            "a line without end"
        );
    }
}
