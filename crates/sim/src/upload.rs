//! A file that comes as `multipart/form-data`, read while it comes.

use bytes::{Bytes, BytesMut};
use memchr::memmem;

/// How much of a file stays in memory; of a longer one only the length is known.
const MAX_KEPT: usize = 64 << 20;
const MAX_PART_HEAD: usize = 16 << 10;

/// The reader of one form. It keeps the part named `file`.
#[derive(Debug)]
pub(crate) struct Upload {
    /// `\r\n--boundary`; `None` if the request does not say which.
    delimiter: Option<Vec<u8>>,
    held: BytesMut,
    state: State,
    file: Option<FilePart>,
    complete: bool,
}

/// The part that is the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FilePart {
    pub(crate) name: String,
    pub(crate) mime: String,
    pub(crate) size: u64,
    content: BytesMut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In front of the first part, or in a part that is not the file.
    Skip,
    /// Behind a delimiter.
    Border,
    Head,
    File,
    End,
}

impl Upload {
    pub(crate) fn new(content_type: &str) -> Self {
        let is_form =
            content_type.trim().get(..19).is_some_and(|kind| kind.eq_ignore_ascii_case("multipart/form-data"));
        let boundary = content_type
            .split(';')
            .filter_map(|part| part.trim().split_once('='))
            .find(|(name, _)| name.eq_ignore_ascii_case("boundary"))
            .map(|(_, value)| value.trim_matches('"'))
            .filter(|value| is_form && !value.is_empty());
        Self {
            delimiter: boundary.map(|boundary| format!("\r\n--{boundary}").into_bytes()),
            // As if a line ended before the body: then the first delimiter is like the others.
            held: BytesMut::from(&b"\r\n"[..]),
            state: State::Skip,
            file: None,
            complete: false,
        }
    }

    /// Takes the next bytes of the body, wherever they are cut.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        let Some(delimiter) = self.delimiter.clone() else { return };
        self.held.extend_from_slice(bytes);
        loop {
            match self.state {
                State::Skip | State::File => match memmem::find(&self.held, &delimiter) {
                    Some(at) => {
                        self.keep(at);
                        drop(self.held.split_to(delimiter.len()));
                        self.state = State::Border;
                    }
                    None => {
                        // The end of what is held may be the start of a delimiter.
                        self.keep(self.held.len().saturating_sub(delimiter.len() - 1));
                        return;
                    }
                },
                State::Border if self.held.len() < 2 => return,
                State::Border => {
                    let last = self.held.starts_with(b"--");
                    self.complete = last;
                    self.state = if last { State::End } else { State::Head };
                }
                // The line end behind the delimiter is still there, so that a part without a head looks like any other.
                State::Head => match memmem::find(&self.held, b"\r\n\r\n") {
                    Some(at) => {
                        let head = self.held.split_to(at + 4);
                        self.begin(&String::from_utf8_lossy(&head));
                    }
                    None if self.held.len() > MAX_PART_HEAD => self.state = State::End,
                    None => return,
                },
                State::End => {
                    self.held.clear();
                    return;
                }
            }
        }
    }

    /// The file, if the form was whole and held one.
    pub(crate) fn file(&self) -> Option<&FilePart> {
        self.file.as_ref().filter(|_| self.complete)
    }

    fn keep(&mut self, length: usize) {
        let part = self.held.split_to(length);
        if let (State::File, Some(file)) = (self.state, &mut self.file) {
            file.size += part.len() as u64;
            let room = MAX_KEPT - file.content.len();
            file.content.extend_from_slice(&part[..part.len().min(room)]);
        }
    }

    fn begin(&mut self, head: &str) {
        let line = |name: &str| {
            head.lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(known, _)| known.trim().eq_ignore_ascii_case(name))
        };
        let disposition = line("content-disposition").map(|(_, value)| value).unwrap_or_default();
        let parameter = |name: &str| {
            let pairs = disposition.split(';').filter_map(|part| part.trim().split_once('='));
            pairs.filter(|(known, _)| *known == name).map(|(_, value)| value.trim_matches('"').to_owned()).next()
        };
        self.state = State::Skip;
        if parameter("name").as_deref() == Some("file") && self.file.is_none() {
            let mime = line("content-type").map_or("application/octet-stream", |(_, value)| value.trim());
            let name = parameter("filename").unwrap_or_else(|| "unnamed".to_owned());
            self.file = Some(FilePart { name, mime: mime.to_owned(), ..FilePart::default() });
            self.state = State::File;
        }
    }
}

impl FilePart {
    /// The bytes of the file; `None` if it was too long to be kept.
    pub(crate) fn content(&self) -> Option<Bytes> {
        (self.content.len() as u64 == self.size).then(|| Bytes::copy_from_slice(&self.content))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: &[u8] = b"--b1\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nnone\r\n--b1\r\n\
        Content-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\nContent-Type: text/plain\r\n\r\n\
        one\r\n--b\r\ntwo\r\n--b1--\r\n";

    #[test]
    fn the_file_is_the_same_wherever_the_form_is_cut() {
        for at in 0..FORM.len() {
            let mut upload = Upload::new("multipart/form-data; boundary=\"b1\"");
            upload.take(&FORM[..at]);
            upload.take(&FORM[at..]);
            let file = upload.file().expect("a file");
            assert_eq!((file.name.as_str(), file.mime.as_str(), file.size), ("a.txt", "text/plain", 13), "cut at {at}");
            assert_eq!(file.content().unwrap(), "one\r\n--b\r\ntwo");
        }
    }

    #[test]
    fn a_form_that_is_cut_short_has_no_file() {
        for end in 0..FORM.len() - 4 {
            let mut upload = Upload::new("multipart/form-data; boundary=b1");
            upload.take(&FORM[..end]);
            assert_eq!(upload.file(), None, "cut off at {end}");
        }
        let mut upload = Upload::new("application/json");
        upload.take(FORM);
        assert_eq!(upload.file(), None);
    }
}
