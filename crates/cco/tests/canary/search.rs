//! Canaries, and finding them in whatever form they were written.

use std::fmt::Write as _;
use std::path::Path;

use aho_corasick::AhoCorasick;

use crate::common::dice::Dice;

/// Characters of each half of a canary.
const HALF: usize = 12;
/// What stands between the halves: what is written differently in JSON, in URLs, in HTML.
const BETWEEN: &str = "\"\\%+/&<=";

/// A secret that is planted in one place only.
#[derive(Debug, Clone)]
pub(crate) struct Canary {
    /// Where it is planted.
    pub(crate) place: &'static str,
    halves: [String; 2],
}

impl Canary {
    pub(crate) fn new(place: &'static str, dice: &mut Dice) -> Self {
        Self { place, halves: [dice.word(HALF), dice.word(HALF)] }
    }

    /// With characters that have to be written differently here and there.
    pub(crate) fn odd(&self) -> String {
        self.halves.join(BETWEEN)
    }

    /// Letters and digits alone.
    pub(crate) fn plain(&self) -> String {
        self.halves.concat()
    }
}

/// The forms in which a text can be found: as it is, and written as something else.
fn forms(text: &str) -> Vec<Vec<u8>> {
    let bytes = text.as_bytes();
    let each = |form: &dyn Fn(&u8) -> String| bytes.iter().map(form).collect::<String>().into_bytes();
    let mut forms = vec![
        bytes.to_vec(),
        each(&|b| format!("{b:02x}")),
        each(&|b| format!("{b:02X}")),
        each(&|b| format!("%{b:02x}")),
        each(&|b| format!("%{b:02X}")),
        each(&|b| format!("\\u{b:04x}")),
        each(&|b| format!("\\x{b:02x}")),
        each(&|b| format!("&#{b};")),
        bytes.iter().flat_map(|b| [*b, 0]).collect(),
        bytes.iter().rev().copied().collect(),
    ];
    // As a list of numbers, as a careless debug format prints it.
    for comma in [", ", ","] {
        forms.push(bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(comma).into_bytes());
    }
    for alphabet in [b"+/", b"-_"] {
        // Where it begins within a group of three: the letters that only it decides.
        for before in 0..3 {
            let coded = base64(&[&vec![0; before][..], bytes].concat(), *alphabet);
            let first = [0, 2, 3][before];
            let whole = (before + bytes.len()) / 3 * 4;
            forms.push(coded.as_bytes()[first..whole].to_vec());
        }
    }
    forms
}

fn base64(bytes: &[u8], last: [u8; 2]) -> String {
    let letter = |n: u8| match n & 63 {
        n @ 0..26 => b'A' + n,
        n @ 26..52 => b'a' + n - 26,
        n @ 52..62 => b'0' + n - 52,
        n => last[usize::from(n - 62)],
    };
    let mut out = String::new();
    for three in bytes.chunks(3) {
        let [a, b, c] = [0, 1, 2].map(|at| three.get(at).copied().unwrap_or(0));
        for n in [a >> 2, a << 4 | b >> 4, b << 2 | c >> 6, c] {
            out.push(char::from(letter(n)));
        }
    }
    out
}

/// Looks for many canaries at once.
pub(crate) struct Search {
    finder: AhoCorasick,
    /// The place of each pattern's canary.
    places: Vec<&'static str>,
}

impl Search {
    pub(crate) fn new<'a>(canaries: impl IntoIterator<Item = &'a Canary>) -> Self {
        let (mut patterns, mut places) = (vec![], vec![]);
        for canary in canaries {
            for half in &canary.halves {
                for form in forms(half) {
                    assert!(form.len() >= 10, "too short to be found by chance only");
                    patterns.push(form);
                    places.push(canary.place);
                }
            }
        }
        Self { finder: AhoCorasick::new(&patterns).unwrap(), places }
    }

    /// The places whose canaries are in here, with what stands around them.
    pub(crate) fn find(&self, text: &[u8]) -> Vec<String> {
        let mut found = vec![];
        for hit in self.finder.find_iter(text) {
            let around = &text[hit.start().saturating_sub(60)..text.len().min(hit.end() + 60)];
            let mut line = format!("the canary of {}: …", self.places[hit.pattern().as_usize()]);
            let _ = write!(line, "{}…", String::from_utf8_lossy(around));
            found.push(line);
            if found.len() == 5 {
                break;
            }
        }
        found
    }

    #[track_caller]
    pub(crate) fn check(&self, what: &str, text: &[u8]) {
        let found = self.find(text);
        assert!(found.is_empty(), "in {what} there is {}", found.join("\n"));
    }

    /// Every file below this folder, but those of these names. Returns how many there were.
    #[track_caller]
    pub(crate) fn check_folder(&self, folder: &Path, except: &[&str]) -> usize {
        let mut files = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            self.check("the name of a file", path.as_os_str().as_encoded_bytes());
            if path.is_dir() {
                files += self.check_folder(&path, except);
            } else if path.is_file() && !except.iter().any(|name| path.file_name().unwrap() == *name) {
                self.check(&path.display().to_string(), &std::fs::read(&path).unwrap());
                files += 1;
            }
        }
        files
    }
}

#[test]
fn a_canary_is_found_in_every_form_and_nothing_else_is() {
    let mut dice = Dice::new(7);
    let (canary, other) = (Canary::new("here", &mut dice), Canary::new("there", &mut dice));
    let search = Search::new([&canary]);
    let value = canary.odd();
    let url: String = value
        .bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).into() } else { format!("%{b:02X}") })
        .collect();
    let hex: String = value.bytes().map(|b| format!("{b:02x}")).collect();
    let mut forms =
        vec![value.clone(), serde_json::to_string(&value).unwrap(), url, hex, format!("{:?}", value.as_bytes())];
    for before in ["", "x", "xy", "xyz"] {
        for alphabet in [b"+/", b"-_"] {
            forms.push(base64(format!("{before}{value}{before}").as_bytes(), *alphabet));
        }
    }
    for half in &canary.halves {
        forms.push(half.clone());
        forms.push(base64(format!("user:{half}").as_bytes(), *b"+/"));
    }
    for form in &forms {
        for (before, after) in [("", ""), ("{\"a\":\"", "\"}"), ("\0\u{1}", "é")] {
            let text = format!("{before}{form}{after}");
            assert!(!search.find(text.as_bytes()).is_empty(), "{text}");
        }
    }
    assert!(search.find(other.odd().as_bytes()).is_empty());
    assert!(search.find(&value.as_bytes()[..HALF - 1]).is_empty(), "a part of a half is not the half");
    assert_eq!(base64(b"Man is", *b"+/"), "TWFuIGlz");
}
