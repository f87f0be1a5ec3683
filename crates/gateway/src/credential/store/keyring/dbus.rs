//! As much of D-Bus as asking one service some questions takes: messages as bytes, a login, calls with their answers.
//!
//! A client library brings sixty crates and a runtime of its own, and waits for ever; this knows a dozen types.

use std::io::{self, Read, Write};
use std::time::Duration;

use tokio::time::Instant;
use zeroize::Zeroizing;

/// Longer messages are refused: keys are short.
const LONGEST: usize = 1 << 20;

/// A stream whose waits can be limited.
pub(super) trait Stream: Read + Write {
    fn limit(&self, limit: Duration) -> io::Result<()>;
}

impl Stream for crate::system::BusStream {
    fn limit(&self, limit: Duration) -> io::Result<()> {
        Self::limit(self, limit)
    }
}

/// Why a call has no answer.
#[derive(Debug)]
pub(super) enum BusError {
    /// The bus or the service says no, by this name and in these words.
    Refused(String, String),
    /// There was no answer in time.
    Slow,
    /// The connection broke.
    Io(io::Error),
    /// What came is no message, or not of the type that belongs there.
    Nonsense,
}

impl From<io::Error> for BusError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // What a socket says when its time is up, here and there.
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Slow,
            _ => Self::Io(error),
        }
    }
}

/// A message body that is being written. Every value begins at a multiple of its size.
#[derive(Debug, Default)]
pub(super) struct Body(Zeroizing<Vec<u8>>);

impl Body {
    /// Room for what may be secret: a buffer that grows leaves copies behind.
    pub(super) fn with_room(bytes: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(bytes)))
    }

    fn align(&mut self, to: usize) {
        while !self.0.len().is_multiple_of(to) {
            self.0.push(0);
        }
    }

    fn byte(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    pub(super) fn u32(&mut self, value: u32) -> &mut Self {
        self.align(4);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(super) fn bool(&mut self, value: bool) -> &mut Self {
        self.u32(value.into())
    }

    /// A string or the path of an object: both are written alike.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes());
        self.0.push(0);
        self
    }

    /// An array of bytes.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.u32(bytes.len() as u32);
        self.0.extend_from_slice(bytes);
        self
    }

    fn signature(&mut self, signature: &str) -> &mut Self {
        self.0.push(signature.len() as u8);
        self.0.extend_from_slice(signature.as_bytes());
        self.0.push(0);
        self
    }

    /// A value together with its type.
    pub(super) fn variant(&mut self, signature: &str, value: impl FnOnce(&mut Self) -> &mut Self) -> &mut Self {
        value(self.signature(signature))
    }

    /// A structure, or an entry of a dictionary.
    pub(super) fn group(&mut self, fields: impl FnOnce(&mut Self) -> &mut Self) -> &mut Self {
        self.align(8);
        fields(self)
    }

    /// An array whose elements begin at multiples of `align`; its length does not count the gap before the first.
    pub(super) fn array(&mut self, align: usize, elements: impl FnOnce(&mut Self) -> &mut Self) -> &mut Self {
        self.u32(0);
        let length_at = self.0.len() - 4;
        self.align(align);
        let start = self.0.len();
        elements(self);
        let length = (self.0.len() - start) as u32;
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
        self
    }

    /// A dictionary of texts.
    pub(super) fn texts(&mut self, pairs: &[(&str, &str)]) -> &mut Self {
        self.array(8, |body| {
            for (name, value) in pairs {
                body.group(|body| body.text(name).text(value));
            }
            body
        })
    }
}

/// What is to be called.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) destination: &'a str,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
    /// The types of the body.
    pub(super) signature: &'a str,
}

/// A message that came.
#[derive(Debug)]
pub(super) struct Message {
    kind: u8,
    big_endian: bool,
    reply_to: Option<u32>,
    path: String,
    member: String,
    error: String,
    signature: String,
    body: Zeroizing<Vec<u8>>,
}

const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

impl Message {
    /// The values of the body, if they are of these types.
    pub(super) fn read<'a, T>(
        &'a self,
        signature: &str,
        values: impl FnOnce(&mut Reader<'a>) -> Option<T>,
    ) -> Result<T, BusError> {
        if self.signature != signature {
            return Err(BusError::Nonsense);
        }
        values(&mut Reader { bytes: &self.body, at: 0, big_endian: self.big_endian }).ok_or(BusError::Nonsense)
    }
}

/// Reads values one after the other; `None` as soon as something does not fit.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big_endian: bool,
}

impl<'a> Reader<'a> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.align(4);
        let bytes = self.take(4)?.try_into().ok()?;
        Some(if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    pub(super) fn bool(&mut self) -> Option<bool> {
        match self.u32()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        let text = self.bytes()?;
        (self.byte()? == 0).then_some(())?;
        std::str::from_utf8(text).ok()
    }

    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()? as usize;
        self.take(length)
    }

    pub(super) fn signature(&mut self) -> Option<&'a str> {
        let length = self.byte()?.into();
        let text = self.take(length)?;
        (self.byte()? == 0).then_some(())?;
        std::str::from_utf8(text).ok()
    }

    pub(super) fn group(&mut self) -> &mut Self {
        self.align(8);
        self
    }

    /// The elements of an array.
    pub(super) fn array<T>(&mut self, align: usize, mut element: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let length = self.u32()? as usize;
        self.align(align);
        let end = self.at.checked_add(length).filter(|&end| end <= self.bytes.len())?;
        let mut elements = Vec::new();
        while self.at < end {
            elements.push(element(self)?);
        }
        (self.at == end).then_some(elements)
    }

    /// An array of texts or of the paths of objects.
    pub(super) fn texts(&mut self) -> Option<Vec<&'a str>> {
        self.array(4, Self::text)
    }
}

/// A connection to a bus, logged in.
#[derive(Debug)]
pub(super) struct Bus<S> {
    stream: S,
    serial: u32,
    deadline: Instant,
}

impl<S: Stream> Bus<S> {
    /// Logs in as this user. Everything that follows must be done within `limit`.
    pub(super) fn new(stream: S, user: &str, limit: Duration) -> Result<Self, BusError> {
        let mut bus = Self { stream, serial: 0, deadline: Instant::now() + limit };
        let hex: String = user.bytes().map(|byte| format!("{byte:02x}")).collect();
        bus.write(format!("\0AUTH EXTERNAL {hex}\r\n").as_bytes())?;
        if !bus.line()?.starts_with("OK ") {
            return Err(BusError::Refused("AUTH".into(), "the bus does not let this user in".into()));
        }
        bus.write(b"BEGIN\r\n")?;
        bus.call(bus_itself("Hello", ""), &Body::default())?;
        Ok(bus)
    }

    /// From now on, everything must be done within `limit`.
    pub(super) fn extend(&mut self, limit: Duration) {
        self.deadline = Instant::now() + limit;
    }

    /// Calls a method and waits for its answer.
    pub(super) fn call(&mut self, call: Call<'_>, body: &Body) -> Result<Message, BusError> {
        self.serial += 1;
        let serial = self.serial;
        self.write(&encode(serial, call, body))?;
        loop {
            let message = self.receive()?;
            if message.reply_to != Some(serial) {
                continue;
            }
            return match message.kind {
                METHOD_RETURN => Ok(message),
                ERROR => {
                    let first = |reader: &mut Reader<'_>| reader.text().map(str::to_owned);
                    let words = if message.signature.starts_with('s') {
                        let mut reader = Reader { bytes: &message.body, at: 0, big_endian: message.big_endian };
                        first(&mut reader).unwrap_or_default()
                    } else {
                        String::new()
                    };
                    Err(BusError::Refused(message.error, words))
                }
                _ => Err(BusError::Nonsense),
            };
        }
    }

    /// Asks the bus for the signals of this object.
    pub(super) fn listen(&mut self, path: &str) -> Result<(), BusError> {
        let mut body = Body::default();
        body.text(&format!("type='signal',path='{path}'"));
        self.call(bus_itself("AddMatch", "s"), &body).map(drop)
    }

    /// Waits for this signal of this object.
    pub(super) fn signal(&mut self, path: &str, member: &str) -> Result<Message, BusError> {
        loop {
            let message = self.receive()?;
            if message.kind == SIGNAL && message.path == path && message.member == member {
                return Ok(message);
            }
        }
    }

    fn remaining(&self) -> Result<(), BusError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(BusError::Slow);
        }
        Ok(self.stream.limit(left)?)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), BusError> {
        self.remaining()?;
        Ok(self.stream.write_all(bytes)?)
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), BusError> {
        let mut filled = 0;
        while filled < bytes.len() {
            self.remaining()?;
            match self.stream.read(&mut bytes[filled..]) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// One line of the login.
    fn line(&mut self) -> Result<String, BusError> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            if line.len() > 512 {
                return Err(BusError::Nonsense);
            }
            let mut byte = [0];
            self.read(&mut byte)?;
            line.push(byte[0]);
        }
        String::from_utf8(line).map_err(|_| BusError::Nonsense)
    }

    fn receive(&mut self) -> Result<Message, BusError> {
        let mut start = [0; 16];
        self.read(&mut start)?;
        let big_endian = match start[0] {
            b'l' => false,
            b'B' => true,
            _ => return Err(BusError::Nonsense),
        };
        let number = |at: usize| {
            let mut reader = Reader { bytes: &start, at, big_endian };
            reader.u32().map_or(usize::MAX, |n| n as usize)
        };
        let (body_length, fields_length) = (number(4), number(12));
        if body_length > LONGEST || fields_length > LONGEST {
            return Err(BusError::Nonsense);
        }
        // The fields begin at 12 with their length, and end at a multiple of 8.
        let mut fields = vec![0; fields_length.next_multiple_of(8)];
        self.read(&mut fields)?;
        let mut body = Zeroizing::new(vec![0; body_length]);
        self.read(&mut body)?;
        fields.truncate(fields_length);
        decode(start[1], big_endian, &fields, body).ok_or(BusError::Nonsense)
    }
}

/// A method of the bus itself.
fn bus_itself<'a>(member: &'a str, signature: &'a str) -> Call<'a> {
    Call {
        destination: "org.freedesktop.DBus",
        path: "/org/freedesktop/DBus",
        interface: "org.freedesktop.DBus",
        member,
        signature,
    }
}

fn encode(serial: u32, call: Call<'_>, body: &Body) -> Zeroizing<Vec<u8>> {
    // Little endian, a call, no flags, version 1.
    let mut message = Body::with_room(512 + body.0.len());
    message.0.extend_from_slice(&[b'l', 1, 0, 1]);
    message.u32(body.0.len() as u32).u32(serial);
    let fields = [(1, "o", call.path), (2, "s", call.interface), (3, "s", call.member), (6, "s", call.destination)];
    message.array(8, |message| {
        for (code, signature, value) in fields {
            message.group(|message| message.byte(code).variant(signature, |message| message.text(value)));
        }
        if !call.signature.is_empty() {
            message.group(|message| message.byte(8).variant("g", |message| message.signature(call.signature)));
        }
        message
    });
    message.align(8);
    message.0.extend_from_slice(&body.0);
    message.0
}

fn decode(kind: u8, big_endian: bool, fields: &[u8], body: Zeroizing<Vec<u8>>) -> Option<Message> {
    let mut message = Message {
        kind,
        big_endian,
        reply_to: None,
        path: String::new(),
        member: String::new(),
        error: String::new(),
        signature: String::new(),
        body,
    };
    // They stood at 16 in their message, which is a multiple of 8 like 0.
    let mut reader = Reader { bytes: fields, at: 0, big_endian };
    while reader.at < fields.len() {
        let code = reader.group().byte()?;
        match (code, reader.signature()?) {
            (1, "o") => message.path = reader.text()?.into(),
            (3, "s") => message.member = reader.text()?.into(),
            (4, "s") => message.error = reader.text()?.into(),
            (5, "u") => message.reply_to = Some(reader.u32()?),
            (8, "g") => message.signature = reader.signature()?.into(),
            (_, "s" | "o") => reader.text().map(|_| ())?,
            (_, "u") => reader.u32().map(|_| ())?,
            (_, "g") => reader.signature().map(|_| ())?,
            _ => return None,
        }
    }
    Some(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// What the other end says, whatever is said to it.
    #[derive(Debug, Default)]
    struct Script {
        says: VecDeque<u8>,
        heard: Vec<u8>,
    }

    impl Read for Script {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            // Byte by byte: nothing may depend on how it is cut.
            match self.says.pop_front() {
                Some(byte) => {
                    buffer[0] = byte;
                    Ok(1)
                }
                None => Err(io::ErrorKind::WouldBlock.into()),
            }
        }
    }

    impl Write for Script {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.heard.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Stream for Script {
        fn limit(&self, _: Duration) -> io::Result<()> {
            Ok(())
        }
    }

    /// An answer as a service sends it.
    fn answer(kind: u8, reply_to: u32, error: &str, signature: &str, body: &Body) -> Vec<u8> {
        let mut message = Body::default();
        message.0.extend_from_slice(&[b'l', kind, 1, 1]);
        message.u32(body.0.len() as u32).u32(99);
        message.array(8, |message| {
            message.group(|m| m.byte(5).variant("u", |m| m.u32(reply_to)));
            for (code, form, value) in [(4, "s", error), (7, "s", ":1.2")] {
                if !value.is_empty() {
                    message.group(|m| m.byte(code).variant(form, |m| m.text(value)));
                }
            }
            message.group(|m| m.byte(8).variant("g", |m| m.signature(signature)))
        });
        message.align(8);
        message.0.extend_from_slice(&body.0);
        message.0.to_vec()
    }

    fn bus(answers: &[Vec<u8>]) -> Result<Bus<Script>, BusError> {
        let mut says: VecDeque<u8> = b"OK 0123456789abcdef\r\n".to_vec().into();
        let mut name = Body::default();
        name.text(":1.7");
        says.extend(answer(METHOD_RETURN, 1, "", "s", &name));
        says.extend(answers.concat());
        Bus::new(Script { says, heard: Vec::new() }, "1000", Duration::from_secs(5))
    }

    const PING: Call<'_> = Call { destination: "a.b", path: "/a", interface: "a.b.C", member: "Ping", signature: "s" };

    #[test]
    fn a_call_is_written_as_the_specification_says() {
        let mut body = Body::default();
        body.text("hi");
        let bytes = encode(7, PING, &body);
        let want = [
            &b"l\x01\x00\x01\x07\x00\x00\x00\x07\x00\x00\x00\x52\x00\x00\x00"[..],
            b"\x01\x01o\x00\x02\x00\x00\x00/a\x00\x00\x00\x00\x00\x00",
            b"\x02\x01s\x00\x05\x00\x00\x00a.b.C\x00\x00\x00",
            b"\x03\x01s\x00\x04\x00\x00\x00Ping\x00\x00\x00\x00",
            b"\x06\x01s\x00\x03\x00\x00\x00a.b\x00\x00\x00\x00\x00",
            b"\x08\x01g\x00\x01s\x00",
        ]
        .concat();
        let mut want = want;
        // The length of the fields, without the gap before the body.
        let length = (want.len() - 16) as u32;
        want[12..16].copy_from_slice(&length.to_le_bytes());
        want.resize(want.len().next_multiple_of(8), 0);
        want.extend_from_slice(b"\x02\x00\x00\x00hi\x00");
        assert_eq!(bytes.as_slice(), want);
    }

    #[test]
    fn an_answer_is_found_among_other_messages() {
        let mut other = Body::default();
        other.text("not this one");
        let mut this = Body::default();
        this.array(4, |body| body.text("/one").text("/two")).bool(true);
        let mut bus =
            bus(&[answer(METHOD_RETURN, 1, "", "s", &other), answer(METHOD_RETURN, 2, "", "aob", &this)]).unwrap();
        assert!(bus.stream.heard.starts_with(b"\0AUTH EXTERNAL 31303030\r\nBEGIN\r\nl"));
        let reply = bus.call(PING, &Body::default()).unwrap();
        let read = |reader: &mut Reader<'_>| {
            let texts = reader.texts()?.iter().map(|text| text.to_string()).collect::<Vec<_>>();
            Some((texts, reader.bool()?))
        };
        assert_eq!(reply.read("aob", read).unwrap(), (vec!["/one".to_string(), "/two".to_string()], true));
        assert!(matches!(reply.read("ao", |reader| reader.u32()), Err(BusError::Nonsense)));
    }

    #[test]
    fn a_refusal_keeps_its_name_and_words() {
        let mut words = Body::default();
        words.text("it is locked");
        let mut bus = bus(&[answer(ERROR, 2, "org.freedesktop.Secret.Error.IsLocked", "s", &words)]).unwrap();
        let refused = bus.call(PING, &Body::default()).unwrap_err();
        let BusError::Refused(name, words) = refused else { panic!("{refused:?}") };
        assert_eq!((name.as_str(), words.as_str()), ("org.freedesktop.Secret.Error.IsLocked", "it is locked"));
    }

    #[test]
    fn silence_and_nonsense_end_the_wait() {
        let mut silent = bus(&[]).unwrap();
        assert!(matches!(silent.call(PING, &Body::default()), Err(BusError::Slow)));
        assert!(matches!(bus(&[vec![b'x'; 64]]).unwrap().call(PING, &Body::default()), Err(BusError::Nonsense)));
        let mut large = answer(METHOD_RETURN, 2, "", "s", &Body::default());
        large[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(bus(&[large]).unwrap().call(PING, &Body::default()), Err(BusError::Nonsense)));
        let refused = Script { says: b"REJECTED EXTERNAL\r\n".to_vec().into(), heard: Vec::new() };
        assert!(matches!(Bus::new(refused, "0", Duration::from_secs(5)), Err(BusError::Refused(..))));
    }

    #[test]
    fn any_bytes_are_read_or_refused_but_never_panic() {
        let mut body = Body::default();
        body.array(8, |body| body.group(|body| body.text("name").variant("s", |v| v.text("value"))));
        let good = answer(METHOD_RETURN, 2, "", "a{sv}", &body);
        for at in 0..good.len() {
            for value in [0, 1, 7, 0x7f, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                if let Ok(reply) = bus(&[bad]).unwrap().call(PING, &Body::default()) {
                    let _ = reply.read("a{sv}", |reader| {
                        reader.array(8, |entry| {
                            let name = entry.group().text()?.len();
                            entry.signature()?;
                            Some(name + entry.text()?.len())
                        })
                    });
                }
            }
        }
    }
}
