//! Reads a Rust file as far as its paths go: which modules and crates it names, outside of its tests.

/// A path as it is written, its `use` tree unfolded and `crate`, `self`, `super` resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) line: usize,
    /// Whether it is `segments` of this crate; else it begins with whatever name is in scope, which may be a crate.
    pub(crate) of_this_crate: bool,
    pub(crate) segments: Vec<String>,
}

/// What one file says.
#[derive(Debug, Default)]
pub(crate) struct Source {
    pub(crate) paths: Vec<Path>,
    /// Modules in files of their own that exist only for tests.
    pub(crate) test_modules: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    /// `::`
    Of,
    Mark(char),
}

/// Reads `text`, the file of module `module` (`[]` is the crate's root).
pub(crate) fn read(text: &str, module: &[String]) -> Source {
    let tokens = tokens(text);
    let mut source = Source::default();
    let mut reader = Reader { tokens: &tokens, at: 0, inner: Vec::new(), depth: 0 };
    reader.items(module, &mut source);
    source
}

struct Reader<'a> {
    tokens: &'a [(usize, Token)],
    at: usize,
    /// Modules that are open inside the file, each with the depth of braces around it.
    inner: Vec<(String, usize)>,
    depth: usize,
}

impl Reader<'_> {
    fn peek(&self, ahead: usize) -> Option<&Token> {
        self.tokens.get(self.at + ahead).map(|(_, token)| token)
    }

    fn is_mark(&self, ahead: usize, mark: char) -> bool {
        self.peek(ahead) == Some(&Token::Mark(mark))
    }

    fn word(&self, ahead: usize) -> Option<&str> {
        match self.peek(ahead) {
            Some(Token::Word(word)) => Some(word),
            _ => None,
        }
    }

    fn items(&mut self, module: &[String], source: &mut Source) {
        while let Some(token) = self.peek(0) {
            match token {
                Token::Mark('#') if self.is_test_attribute() => self.skip_test_item(source),
                Token::Mark('{') => {
                    self.depth += 1;
                    self.at += 1;
                }
                Token::Mark('}') => {
                    self.depth = self.depth.saturating_sub(1);
                    self.inner.pop_if(|(_, depth)| *depth == self.depth);
                    self.at += 1;
                }
                Token::Word(word) if word == "mod" && self.word(1).is_some() && self.is_mark(2, '{') => {
                    let name = self.word(1).unwrap_or_default().to_owned();
                    self.inner.push((name, self.depth));
                    self.depth += 1;
                    self.at += 3;
                }
                Token::Word(word) if word == "use" && !self.is_mark(1, '<') => {
                    self.at += 1;
                    self.tree(&self.place(module), &[], &mut source.paths);
                }
                Token::Word(_) if self.peek(1) == Some(&Token::Of) => {
                    self.tree(&self.place(module), &[], &mut source.paths);
                }
                _ => self.at += 1,
            }
        }
    }

    /// The module that the reader stands in.
    fn place(&self, module: &[String]) -> Vec<String> {
        module.iter().cloned().chain(self.inner.iter().map(|(name, _)| name.clone())).collect()
    }

    /// One path or `use` tree at the cursor, its leaves with `before` in front.
    fn tree(&mut self, place: &[String], before: &[String], paths: &mut Vec<Path>) {
        let mut path = before.to_vec();
        let line = self.tokens.get(self.at).map_or(0, |(line, _)| *line);
        if self.peek(0) == Some(&Token::Of) {
            self.at += 1;
        }
        loop {
            match self.peek(0) {
                Some(Token::Word(word)) => {
                    path.push(word.clone());
                    self.at += 1;
                }
                Some(Token::Mark('*')) if !path.is_empty() => {
                    path.push("*".into());
                    self.at += 1;
                }
                Some(Token::Mark('{')) => {
                    self.at += 1;
                    while self.peek(0).is_some() && !self.is_mark(0, '}') {
                        if self.is_mark(0, ',') {
                            self.at += 1;
                            continue;
                        }
                        let start = self.at;
                        self.tree(place, &path, paths);
                        if self.word(0) == Some("as") {
                            self.at += 2;
                        }
                        if self.at == start {
                            self.at += 1;
                        }
                    }
                    self.at += 1;
                    return;
                }
                _ => break,
            }
            if self.peek(0) == Some(&Token::Of) && !self.is_mark(1, '<') {
                self.at += 1;
            } else {
                break;
            }
        }
        if !path.is_empty() {
            paths.push(resolve(line, place, &path));
        }
    }

    /// `#[cfg(test)]` and its kin, but not `#[cfg(not(test))]`.
    fn is_test_attribute(&self) -> bool {
        if !self.is_mark(1, '[') || self.word(2) != Some("cfg") {
            return false;
        }
        let words: Vec<&str> = (3..).map_while(|n| (!self.is_mark(n, ']')).then(|| self.word(n))).flatten().collect();
        words.contains(&"test") && !words.contains(&"not")
    }

    /// Passes over attributes and the item after them.
    fn skip_test_item(&mut self, source: &mut Source) {
        while self.is_mark(0, '#') {
            self.at += 1;
            self.skip_group();
        }
        let words: Vec<&str> = (0..3).filter_map(|n| self.word(n)).collect();
        if let Some(at) = words.iter().position(|word| *word == "mod")
            && let (Some(name), true) = (self.word(at + 1), self.is_mark(at + 2, ';'))
        {
            source.test_modules.push(name.to_owned());
        }
        loop {
            match self.peek(0) {
                None | Some(Token::Mark('}')) => return,
                Some(Token::Mark(';')) => {
                    self.at += 1;
                    return;
                }
                Some(Token::Mark('{')) => return self.skip_group(),
                Some(Token::Mark('(' | '[')) => self.skip_group(),
                Some(_) => self.at += 1,
            }
        }
    }

    /// Passes over a bracketed group.
    fn skip_group(&mut self) {
        let mut open = 0usize;
        while let Some(token) = self.peek(0) {
            match token {
                Token::Mark('(' | '[' | '{') => open += 1,
                Token::Mark(')' | ']' | '}') => open = open.saturating_sub(1),
                _ => {}
            }
            self.at += 1;
            if open == 0 {
                return;
            }
        }
    }
}

fn resolve(line: usize, place: &[String], path: &[String]) -> Path {
    let mut base = match path[0].as_str() {
        "crate" => Vec::new(),
        "self" | "super" => place.to_vec(),
        _ => return Path { line, of_this_crate: false, segments: path.to_vec() },
    };
    let mut rest = path;
    while let Some((first, more)) = rest.split_first() {
        match first.as_str() {
            "crate" | "self" => {}
            "super" => drop(base.pop()),
            _ => break,
        }
        rest = more;
    }
    base.extend(rest.iter().filter(|segment| *segment != "self").cloned());
    Path { line, of_this_crate: true, segments: base }
}

/// Words and marks; comments, texts and characters are left out.
fn tokens(text: &str) -> Vec<(usize, Token)> {
    let chars: Vec<char> = text.chars().collect();
    let (mut tokens, mut at, mut line) = (Vec::new(), 0, 1);
    let is_word = |c: char| c == '_' || c.is_alphanumeric();
    while let Some(&c) = chars.get(at) {
        let next = chars.get(at + 1).copied();
        let start = at;
        match c {
            '/' if next == Some('/') => at += until(&chars[at..], |rest| rest[0] == '\n', 0),
            '/' if next == Some('*') => {
                let (mut open, mut n) = (1, 2);
                while open > 0 && at + n < chars.len() {
                    match chars[at + n..] {
                        ['*', '/', ..] => (open, n) = (open - 1, n + 2),
                        ['/', '*', ..] => (open, n) = (open + 1, n + 2),
                        _ => n += 1,
                    }
                }
                at += n;
            }
            '"' => at += text_len(&chars[at..]),
            '\'' => at += char_len(&chars[at..]),
            _ if is_word(c) => {
                at += until(&chars[at..], |rest| !is_word(rest[0]), 0);
                let word: String = chars[start..at].iter().collect();
                let prefix = matches!(word.as_str(), "r" | "b" | "br" | "c" | "cr");
                let hashes = chars[at..].iter().take_while(|c| **c == '#').count();
                if prefix && chars.get(at + hashes) == Some(&'"') {
                    at += if word.contains('r') { raw_len(&chars[at..], hashes) } else { text_len(&chars[at..]) };
                } else if word == "b" && chars.get(at) == Some(&'\'') {
                    at += char_len(&chars[at..]);
                } else {
                    tokens.push((line, Token::Word(word)));
                }
            }
            ':' if next == Some(':') => {
                tokens.push((line, Token::Of));
                at += 2;
            }
            _ => {
                if !c.is_whitespace() {
                    tokens.push((line, Token::Mark(c)));
                }
                at += 1;
            }
        }
        line += chars[start..at.min(chars.len())].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

/// How many characters come before the first place at which `is_end` holds.
fn until(chars: &[char], is_end: impl Fn(&[char]) -> bool, from: usize) -> usize {
    (from..chars.len()).find(|n| is_end(&chars[*n..])).unwrap_or(chars.len())
}

fn text_len(chars: &[char]) -> usize {
    let mut at = 1;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

fn raw_len(chars: &[char], hashes: usize) -> usize {
    let is_end =
        |rest: &[char]| rest[0] == '"' && rest[1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes;
    until(chars, is_end, hashes + 1) + hashes + 1
}

/// A character, or the one mark that begins a lifetime.
fn char_len(chars: &[char]) -> usize {
    match chars {
        [_, '\\', _, rest @ ..] => 4 + rest.iter().take_while(|c| **c != '\'').count(),
        [_, _, '\'', ..] => 3,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: &[&str]) {
        let place = ["a".to_owned(), "b".to_owned()];
        let got: Vec<String> = read(text, &place)
            .paths
            .iter()
            .map(|path| (if path.of_this_crate { "crate::" } else { "" }).to_owned() + &path.segments.join("::"))
            .collect();
        assert_eq!(got, want, "{text}");
    }

    #[test]
    fn a_use_tree_is_every_path_in_it() {
        check("use crate::{x::Y, z::{self, W as V, *}};", &["crate::x::Y", "crate::z", "crate::z::W", "crate::z::*"]);
        check("pub(crate) use std::{fmt, io::Read as _};", &["std::fmt", "std::io::Read"]);
        check("use {crate::x, ::tokio::net};", &["crate::x", "tokio::net"]);
    }

    #[test]
    fn paths_are_found_wherever_they_stand() {
        check(
            "fn f(x: crate::x::Y) -> Vec<super::Z> { self::g(); tokio::net::f::<crate::q::R>(x) }",
            &["crate::x::Y", "crate::a::Z", "crate::a::b::g", "tokio::net::f", "crate::q::R"],
        );
        check(
            "mod imp { mod deep { use super::super::x; } use super::super::y; } use super::z;",
            &["crate::a::b::x", "crate::a::y", "crate::a::z"],
        );
    }

    #[test]
    fn tests_comments_and_texts_do_not_count() {
        check(
            "// crate::x::Y\n/* crate::x /* */ crate::y */ \"crate::x\" r#\"\" crate::x\"# b'\"' '\"' \"\\\"crate::z\"",
            &[],
        );
        check("#[cfg(test)]\nmod tests { use crate::x; fn f() {} }\nuse crate::y;", &["crate::y"]);
        check("#[cfg(all(test, unix))] #[expect(x)] use crate::x; fn f<'a>() { crate::y::g() }", &["crate::y::g"]);
        check("#[cfg(not(test))] use crate::x;", &["crate::x"]);
        let source = read("#[cfg(test)]\nmod tests;\nmod real;", &[]);
        assert_eq!(source.test_modules, ["tests"]);
    }
}
