//! Counts tokens as OpenAI's models of 2024 and later do (`o200k`). Other vendors keep their tokenizers to themselves, and
//! come out within a few tenths of it.
//!
//! A text falls into words, runs of signs and blanks; a word is one token if the vocabulary has it, and else its pieces are
//! joined two by two, the pair that the vocabulary has first coming first. Where a word ends is decided by what `char`
//! knows of letters, which for some marks is a little less than the rules of Unicode.

use std::sync::OnceLock;

/// How many words there are, the length of each, and all of them in their order.
static FILE: &[u8] = include_bytes!("../data/o200k.vocabulary");
/// Slots of the table by which a word is found: more than twice as many as there are words.
const SLOTS: usize = 1 << 19;
/// Bits of a slot that name the word; the others tell most words from others without a look at them.
const RANK: u32 = (1 << 18) - 1;
/// The longest piece that is counted as one: no word is longer.
const LONGEST: usize = 128;
/// A slot without a word.
const FREE: u32 = u32::MAX;

/// The words that a text is cut into.
#[derive(Debug)]
pub struct Vocabulary {
    /// Where each word begins.
    starts: Box<[u32]>,
    slots: Box<[u32]>,
    words: &'static [u8],
}

static SHARED: OnceLock<Vocabulary> = OnceLock::new();

impl Vocabulary {
    /// The one of this process. The first call takes tens of milliseconds, and 4 MB until the end.
    pub fn shared() -> &'static Self {
        SHARED.get_or_init(Self::load)
    }

    /// The one of this process, if it is at hand.
    pub fn at_hand() -> Option<&'static Self> {
        SHARED.get()
    }

    fn load() -> Self {
        let (count, rest) = FILE.split_first_chunk::<4>().expect("the file begins with a number");
        let (lengths, words) = rest.split_at(u32::from_le_bytes(*count) as usize);
        let mut starts = Vec::with_capacity(lengths.len() + 1);
        let mut slots = vec![FREE; SLOTS].into_boxed_slice();
        let mut at = 0;
        for (rank, length) in lengths.iter().enumerate() {
            starts.push(at as u32);
            let word = &words[at..at + usize::from(*length)];
            at += word.len();
            let (mut slot, mark) = place(word);
            while slots[slot] != FREE {
                slot = (slot + 1) % SLOTS;
            }
            slots[slot] = mark | rank as u32;
        }
        starts.push(at as u32);
        Self { starts: starts.into(), slots, words }
    }

    /// The place of a word in the order of the vocabulary; `FREE` where it is none.
    fn rank(&self, piece: &[u8]) -> u32 {
        let (mut slot, mark) = place(piece);
        loop {
            let found = self.slots[slot];
            if found == FREE {
                return FREE;
            }
            let rank = found & RANK;
            if found & !RANK == mark && self.word(rank) == piece {
                return rank;
            }
            slot = (slot + 1) % SLOTS;
        }
    }

    fn word(&self, rank: u32) -> &'static [u8] {
        &self.words[self.starts[rank as usize] as usize..self.starts[rank as usize + 1] as usize]
    }

    /// The tokens of a text.
    pub fn tokens(&self, text: &str) -> u64 {
        let (mut rest, mut sum) = (text, 0);
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(first(rest));
            rest = more;
            for piece in piece.as_bytes().chunks(LONGEST) {
                sum += self.pieces(piece);
            }
        }
        sum
    }

    /// The tokens of one piece.
    fn pieces(&self, piece: &[u8]) -> u64 {
        if piece.len() == 1 || self.rank(piece) != FREE {
            return 1;
        }
        // What is left of the piece's parts: where each begins, and the rank of what it and the next are together.
        let mut parts = [(0_u8, FREE); LONGEST];
        let mut count = piece.len();
        for (at, part) in parts[..count].iter_mut().enumerate() {
            *part = (at as u8, piece.get(at..at + 2).map_or(FREE, |pair| self.rank(pair)));
        }
        loop {
            let least = parts[..count].iter().enumerate().min_by_key(|(_, (_, rank))| *rank);
            let Some((at, _)) = least.filter(|(_, (_, rank))| *rank != FREE) else { return count as u64 };
            parts.copy_within(at + 2..count, at + 1);
            count -= 1;
            for at in [Some(at), at.checked_sub(1)].into_iter().flatten() {
                let begins = |at: usize| if at < count { usize::from(parts[at].0) } else { piece.len() };
                let pair = (at + 1 < count).then(|| &piece[begins(at)..begins(at + 2)]);
                parts[at].1 = pair.map_or(FREE, |pair| self.rank(pair));
            }
        }
    }
}

/// Where the search for a word begins, and the mark by which its slot is told from most others.
fn place(word: &[u8]) -> (usize, u32) {
    const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut hash = word.len() as u64;
    for chunk in word.chunks(8) {
        let mut bytes = [0; 8];
        bytes[..chunk.len()].copy_from_slice(chunk);
        hash = (hash.rotate_left(23) ^ u64::from_le_bytes(bytes)).wrapping_mul(MIX);
    }
    hash ^= hash >> 32;
    let mixed = hash.wrapping_mul(MIX);
    // All bits set would be a slot without a word, together with a word's rank of all bits, which is none.
    ((mixed >> 45) as usize % SLOTS, (mixed as u32) & !RANK)
}

/// What a character is to the rules by which words are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Upper,
    Lower,
    /// Letters without cases, and marks on letters.
    Letter,
    Digit,
    Line,
    Blank,
    Sign,
}

impl Kind {
    fn of(c: char) -> Self {
        match c {
            'a'..='z' => Self::Lower,
            'A'..='Z' => Self::Upper,
            '0'..='9' => Self::Digit,
            '\n' | '\r' => Self::Line,
            _ if c.is_ascii() => {
                if c.is_whitespace() {
                    Self::Blank
                } else {
                    Self::Sign
                }
            }
            _ if c.is_lowercase() => Self::Lower,
            _ if c.is_uppercase() => Self::Upper,
            // Signs on vowels, and those of scripts of India, are no letters to `char`.
            '\u{300}'..='\u{36f}' | '\u{e31}'..='\u{e4e}' => Self::Letter,
            '\u{900}'..='\u{dff}' if !c.is_numeric() && !matches!(c, '\u{964}' | '\u{965}' | '\u{970}') => Self::Letter,
            _ if c.is_alphabetic() => Self::Letter,
            _ if c.is_numeric() => Self::Digit,
            _ if c.is_whitespace() => Self::Blank,
            _ => Self::Sign,
        }
    }

    fn begins_word(self) -> bool {
        matches!(self, Self::Upper | Self::Letter)
    }

    fn ends_word(self) -> bool {
        matches!(self, Self::Lower | Self::Letter)
    }

    fn is_blank(self) -> bool {
        matches!(self, Self::Line | Self::Blank)
    }
}

/// Bytes of the characters at the beginning that are of that kind.
fn run(text: &str, is: impl Fn(Kind) -> bool) -> usize {
    text.char_indices().find(|(_, c)| !is(Kind::of(*c))).map_or(text.len(), |(at, _)| at)
}

/// Bytes of the word at the beginning, 0 where there is none: capitals, then small letters.
fn word(text: &str) -> usize {
    let begin = run(text, Kind::begins_word);
    let mut end = begin + run(&text[begin..], Kind::ends_word);
    if end == begin {
        // Capitals alone; with a letter among them that has no case, the word ends at the last of these.
        let last = text[..begin].char_indices().rfind(|(_, c)| Kind::of(*c).ends_word());
        end = last.map_or(begin, |(at, c)| at + c.len_utf8());
    }
    if end == 0 { 0 } else { end + contraction(&text[end..]) }
}

/// Bytes of `'s`, `'ll` and the like.
fn contraction(text: &str) -> usize {
    let Some(rest) = text.as_bytes().strip_prefix(b"'") else { return 0 };
    let lower = |at: usize| rest.get(at).map_or(0, u8::to_ascii_lowercase);
    match (lower(0), lower(1)) {
        (b's' | b't' | b'm' | b'd', _) => 2,
        (b'r' | b'v', b'e') | (b'l', b'l') => 3,
        _ => 0,
    }
}

/// Bytes of the first piece of a text that is not empty.
fn first(text: &str) -> usize {
    let first = text.chars().next().unwrap_or(' ');
    let (kind, size) = (Kind::of(first), first.len_utf8());
    match kind {
        Kind::Upper | Kind::Lower | Kind::Letter => return word(text),
        Kind::Digit => {
            let digits = text.char_indices().take(3).take_while(|(_, c)| Kind::of(*c) == Kind::Digit);
            return digits.last().map_or(size, |(at, c)| at + c.len_utf8());
        }
        // One sign or blank may stand before a word.
        Kind::Blank | Kind::Sign => {
            let length = word(&text[size..]);
            if length > 0 {
                return size + length;
            }
        }
        Kind::Line => {}
    }
    let blank = usize::from(first == ' ');
    let signs = run(&text[blank..], |kind| kind == Kind::Sign);
    if signs > 0 {
        let rest = &text.as_bytes()[blank + signs..];
        let lines = rest.iter().take_while(|byte| matches!(byte, b'\n' | b'\r' | b'/')).count();
        return blank + signs + lines;
    }
    let blanks = run(text, Kind::is_blank);
    if let Some(line) = text[..blanks].rfind(['\n', '\r']) {
        return line + 1;
    }
    // The last blank belongs to what follows.
    let last = text[..blanks].chars().next_back().map_or(0, char::len_utf8);
    if blanks < text.len() && blanks > last { blanks - last } else { blanks }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(mut text: &str) -> Vec<&str> {
        let mut pieces = Vec::new();
        while !text.is_empty() {
            let (piece, rest) = text.split_at(first(text));
            pieces.push(piece);
            text = rest;
        }
        pieces
    }

    #[test]
    fn a_text_falls_into_words_signs_and_blanks() {
        for (text, want) in [
            ("Hello world", &["Hello", " world"][..]),
            ("it's HERE'LL", &["it's", " HERE'LL"]),
            ("camelCase HTTPServer", &["camel", "Case", " HTTPServer"]),
            ("x  = 12345;\n\n  y", &["x", " ", " =", " ", "123", "45", ";\n\n", " ", " y"]),
            ("a\n \n  b", &["a", "\n \n", " ", " b"]),
            ("中文XY中Z!", &["中文XY中", "Z", "!"]),
            ("// path/to", &["//", " path", "/to"]),
            ("end   ", &["end", "   "]),
        ] {
            assert_eq!(pieces(text), want, "{text:?}");
        }
    }

    #[test]
    fn texts_have_as_many_tokens_as_their_tokenizer_says() {
        // What OpenAI's own library gives.
        for (text, tokens) in [
            ("", 0),
            ("Hello, world!", 4),
            ("The quick brown fox jumps over the lazy dog.", 10),
            ("1234567890", 4),
            ("                    ", 1),
        ] {
            assert_eq!(Vocabulary::shared().tokens(text), tokens, "{text:?}");
        }
    }

    #[test]
    fn no_text_takes_long_or_comes_to_nothing() {
        for text in ["a".repeat(300_000), "€".repeat(50_000), "ab\u{301}".repeat(50_000), " ".repeat(300_000)] {
            let tokens = Vocabulary::shared().tokens(&text);
            assert!((1..=text.len() as u64).contains(&tokens), "{tokens}");
        }
    }

    #[test]
    fn every_word_of_the_vocabulary_is_found() {
        let vocabulary = Vocabulary::shared();
        let count = vocabulary.starts.len() as u32 - 1;
        assert_eq!(count, 199_998);
        for rank in 0..count {
            assert_eq!(vocabulary.rank(vocabulary.word(rank)), rank);
        }
    }
}
