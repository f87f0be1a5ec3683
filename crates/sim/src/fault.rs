//! What can go wrong on demand: the table of faults and their names.

use std::fmt;
use std::str::FromStr;

use crate::script::BadScript;

/// One thing that goes wrong. Written `NAME` or `NAME=ARGUMENT`; [`FAULTS`] lists them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub(crate) kind: Kind,
    written: String,
}

/// A place in a body: after so many bytes, or after so many events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    Byte(u64),
    Event(u64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Status { code: u16, retry_after: Option<u64> },
    Html502,
    ErrorFirst { kind: String },
    ErrorMid { kind: String, after: Option<u64> },
    Truncate(Option<u64>),
    Cut(At),
    Reset(At),
    Stall(At),
    NoBytes,
    CloseBeforeHead,
    Garbage,
    Endless,
    Drip(u64),
    DripHead(u64),
    DelayHead(u64),
    HeaderBomb(u64),
    LongLine,
    Surplus,
    WrongLength(i64),
    BadChunk,
    Coded(Coding),
    Bomb(u64),
    Redirect(String),
    SetCookie,
    Http10,
}

/// A content coding that nobody asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Gzip,
    Deflate,
    Zstd,
    Brotli,
}

/// One row for each fault: its name, its argument (`[…]` = may be left out), and what it does.
pub const FAULTS: &[(&str, &str, &str)] = &[
    ("400", "", "an error answer with this status, in the provider's shape"),
    ("401", "", "the same"),
    ("402", "", "the same"),
    ("403", "", "the same"),
    ("404", "", "the same"),
    ("408", "", "the same"),
    ("409", "", "the same"),
    ("413", "", "the same"),
    ("429", "[seconds]", "the same, with `retry-after` (1 if not said)"),
    ("500", "", "the same"),
    ("502", "", "the same"),
    ("503", "", "the same"),
    ("504", "", "the same"),
    ("529", "[seconds]", "the same; `retry-after` only if said"),
    ("502-html", "", "a proxy's error page instead of JSON"),
    ("error-first", "[type]", "status 200 and an `error` event as the first one (`overloaded_error` if not said)"),
    ("error-mid", "[events|type]", "an `error` event after so many events, and the end (half of them if not said)"),
    ("truncate", "[events]", "a well-formed end of the body after so many events, without `message_stop`"),
    ("cut", "bytes|Nev", "the connection is closed after so many bytes (or events) of the body"),
    ("reset", "[bytes|Nev]", "the connection is reset there (after 4 events if not said)"),
    ("stall", "[bytes|Nev]", "nothing more comes from there on (after 4 events if not said)"),
    ("no-bytes", "", "the request is taken and never answered"),
    ("close-before-head", "", "the request is taken and the connection closed"),
    ("garbage", "", "4096 bytes that are not HTTP, then the connection is closed"),
    ("endless", "", "a well-formed stream that has no end"),
    ("drip", "ms", "the body comes byte by byte, one each so many milliseconds"),
    ("drip-head", "ms", "the head comes byte by byte"),
    ("delay-head", "ms", "the head comes after so many milliseconds"),
    ("header-bomb", "[lines]", "so many header lines of 100 bytes (200000 if not said)"),
    ("long-line", "", "a line that has no end"),
    ("surplus", "", "a second response that nobody asked for, right behind the end of the first"),
    ("wrong-length", "[difference]", "`content-length` differs from the body by so many bytes (7 if not said)"),
    ("bad-chunk", "", "a chunk size that is no number, after the first chunk"),
    ("gzip", "", "a compressed answer, whatever was asked"),
    ("deflate", "", "the same"),
    ("zstd", "", "the same"),
    ("br", "", "the same"),
    ("bomb", "[MiB]", "a gzip answer that unpacks to so many MiB (256 if not said)"),
    ("redirect", "URL", "status 307 to that place"),
    ("set-cookie", "", "cookies, credential-like and CORS headers in an otherwise good answer"),
    ("http10", "", "an HTTP/1.0 answer whose end is the end of the connection"),
];

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl FromStr for Fault {
    type Err = BadScript;

    fn from_str(written: &str) -> Result<Self, BadScript> {
        let (name, arg) = match written.split_once('=') {
            Some((name, arg)) => (name, Some(arg)),
            None => (written, None),
        };
        let Some((_, takes, _)) = FAULTS.iter().find(|(known, ..)| *known == name) else {
            return Err(BadScript::new(format!("`{name}` is no fault; see the list in the simulator's documentation")));
        };
        match (takes.is_empty(), takes.starts_with('['), arg) {
            (true, _, Some(_)) => return Err(BadScript::new(format!("the fault `{name}` takes no argument"))),
            (false, false, None) => {
                return Err(BadScript::new(format!("write the fault `{name}` as `{name}={takes}`")));
            }
            _ => {}
        }
        let number = |fallback: u64| match arg {
            Some(arg) => arg.parse().map_err(|_| BadScript::new(format!("`{arg}` in the fault `{name}` is no number"))),
            None => Ok(fallback),
        };
        let some_number = || arg.map(|_| number(0)).transpose();
        let kind = match name {
            "502-html" => Kind::Html502,
            "429" => Kind::Status { code: 429, retry_after: Some(number(1)?) },
            "529" => Kind::Status { code: 529, retry_after: some_number()? },
            "error-first" => Kind::ErrorFirst { kind: arg.unwrap_or("overloaded_error").to_owned() },
            "error-mid" => match arg.map(|arg| (arg, arg.parse())) {
                Some((_, Ok(after))) => Kind::ErrorMid { kind: "overloaded_error".to_owned(), after: Some(after) },
                Some((kind, Err(_))) => Kind::ErrorMid { kind: kind.to_owned(), after: None },
                None => Kind::ErrorMid { kind: "overloaded_error".to_owned(), after: None },
            },
            "truncate" => Kind::Truncate(some_number()?),
            "cut" => Kind::Cut(place(name, arg)?),
            "reset" => Kind::Reset(place(name, arg)?),
            "stall" => Kind::Stall(place(name, arg)?),
            "no-bytes" => Kind::NoBytes,
            "close-before-head" => Kind::CloseBeforeHead,
            "garbage" => Kind::Garbage,
            "endless" => Kind::Endless,
            "drip" => Kind::Drip(number(0)?),
            "drip-head" => Kind::DripHead(number(0)?),
            "delay-head" => Kind::DelayHead(number(0)?),
            "header-bomb" => Kind::HeaderBomb(number(200_000)?),
            "long-line" => Kind::LongLine,
            "surplus" => Kind::Surplus,
            "wrong-length" => {
                let difference = arg.unwrap_or("7").parse();
                Kind::WrongLength(difference.map_err(|_| BadScript::new("`wrong-length` wants a number like `-3`"))?)
            }
            "bad-chunk" => Kind::BadChunk,
            "gzip" => Kind::Coded(Coding::Gzip),
            "deflate" => Kind::Coded(Coding::Deflate),
            "zstd" => Kind::Coded(Coding::Zstd),
            "br" => Kind::Coded(Coding::Brotli),
            "bomb" => Kind::Bomb(number(256)?),
            "redirect" => Kind::Redirect(arg.unwrap_or_default().to_owned()),
            "set-cookie" => Kind::SetCookie,
            "http10" => Kind::Http10,
            status => Kind::Status {
                code: status.parse().expect("every other name in the table is a status"),
                retry_after: None,
            },
        };
        Ok(Self { kind, written: written.to_owned() })
    }
}

fn place(name: &str, arg: Option<&str>) -> Result<At, BadScript> {
    let arg = arg.unwrap_or("4ev");
    let parsed = match arg.strip_suffix("ev") {
        Some(events) => events.parse().map(At::Event),
        None => arg.parse().map(At::Byte),
    };
    parsed.map_err(|_| {
        BadScript::new(format!("`{arg}` in the fault `{name}` is neither bytes (`100`) nor events (`3ev`)"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_of_the_table_can_be_written() {
        for (name, takes, _) in FAULTS {
            let arg = match *takes {
                "" => String::new(),
                "URL" => "=http://127.0.0.1/".to_owned(),
                _ => "=3".to_owned(),
            };
            let written = format!("{name}{arg}");
            assert_eq!(written.parse::<Fault>().expect(&written).to_string(), written);
            assert_eq!(name.parse::<Fault>().is_ok(), takes.is_empty() || takes.starts_with('['), "{name} alone");
        }
    }

    #[test]
    fn a_fault_that_is_misspelt_is_named() {
        for wrong in ["529x", "cut", "cut=soon", "gzip=1", "", "reset=ev"] {
            let said = wrong.parse::<Fault>().expect_err(wrong).to_string();
            assert!(said.contains('`'), "{said}");
        }
    }
}
