//! What a change of a settings file changes, line by line, as it is shown before it is made.

use std::borrow::Cow;

use gateway::server::caller::PLACEHOLDER;

/// Lines around a change that are shown with it.
const AROUND: usize = 2;
/// Pairs of lines that are compared at most; beyond that, all between the first and the last change is shown.
const COMPARED: usize = 1 << 22;
/// What the name of a setting says that may hold a secret.
const SECRET: [&str; 6] = ["KEY", "TOKEN", "SECRET", "PASSWORD", "AUTH", "HEADERS"];

/// The lines that differ, with what is around them.
pub(super) fn difference(before: &str, after: &str) -> Vec<String> {
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let first = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let last = old[first..].iter().rev().zip(new[first..].iter().rev()).take_while(|(a, b)| a == b).count();
    let same = |lines: &[&'_ str]| lines.iter().map(|line| (' ', (*line).to_owned())).collect::<Vec<_>>();
    let mut lines = same(&old[..first]);
    lines.extend(compared(&old[first..old.len() - last], &new[first..new.len() - last]));
    lines.extend(same(&old[old.len() - last..]));
    let (mut shown, mut left_out) = (Vec::new(), false);
    for (at, (sign, line)) in lines.iter().enumerate() {
        let around = &lines[at.saturating_sub(AROUND)..(at + AROUND + 1).min(lines.len())];
        if around.iter().all(|(sign, _)| *sign == ' ') {
            left_out = !shown.is_empty();
            continue;
        }
        if std::mem::take(&mut left_out) {
            shown.push("  …".to_owned());
        }
        shown.push(format!("{sign} {}", veiled(line)));
    }
    shown
}

/// Which lines go and which come, where as many as can be stay.
fn compared(old: &[&str], new: &[&str]) -> Vec<(char, String)> {
    let gone = |lines: &[&str]| lines.iter().map(|line| ('-', (*line).to_owned())).collect::<Vec<_>>();
    let come = |lines: &[&str]| lines.iter().map(|line| ('+', (*line).to_owned())).collect::<Vec<_>>();
    if old.len().saturating_mul(new.len()) > COMPARED {
        return [gone(old), come(new)].concat();
    }
    // How many lines can stay of what begins at a place in both.
    let row = new.len() + 1;
    let mut stay = vec![0u32; (old.len() + 1) * row];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            stay[i * row + j] = if old[i] == new[j] {
                stay[(i + 1) * row + j + 1] + 1
            } else {
                stay[(i + 1) * row + j].max(stay[i * row + j + 1])
            };
        }
    }
    let (mut lines, mut i, mut j) = (Vec::new(), 0, 0);
    while i < old.len() && j < new.len() {
        if old[i] == new[j] {
            lines.push((' ', old[i].to_owned()));
            (i, j) = (i + 1, j + 1);
        } else if stay[(i + 1) * row + j] >= stay[i * row + j + 1] {
            lines.push(('-', old[i].to_owned()));
            i += 1;
        } else {
            lines.push(('+', new[j].to_owned()));
            j += 1;
        }
    }
    lines.extend(gone(&old[i..]));
    lines.extend(come(&new[j..]));
    lines
}

/// A line without the secrets of others: of a value whose name says that it is one, the end is left.
fn veiled(line: &str) -> Cow<'_, str> {
    // What is between signs of quotation is every second part.
    let mut parts: Vec<Cow<'_, str>> = line.split('"').map(Cow::Borrowed).collect();
    for at in (1..parts.len()).step_by(2) {
        let Some(named) = parts[at - 1].trim_end().strip_suffix([':', '=']).map(str::trim) else { continue };
        let name = if named.is_empty() && at > 1 { &*parts[at - 2] } else { named };
        let name = name.to_ascii_uppercase();
        let value = &*parts[at];
        // The name of a variable is none, nor is what stands for our own key.
        let is_name = value.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
        if SECRET.iter().any(|word| name.contains(word)) && !is_name && value != PLACEHOLDER {
            let end = value.char_indices().nth_back(3).filter(|_| value.len() >= 12).map_or("", |(at, _)| &value[at..]);
            parts[at] = format!("…{end}").into();
        }
    }
    if parts.iter().all(|part| matches!(part, Cow::Borrowed(_))) { line.into() } else { parts.join("\"").into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_shown_with_what_is_around_it() {
        let shown = difference("a\nb\nc\nd\ne\n", "a\nb\nc\nX\nY\nd\ne\n");
        assert_eq!(shown, ["  b", "  c", "+ X", "+ Y", "  d", "  e"]);
        assert_eq!(difference("", "a\n"), ["+ a"]);
        assert_eq!(difference("a\na\n", "a\n"), ["  a", "- a"]);
        let far = difference("1\n2\n3\n4\n5\n6\n7\n8\n", "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n");
        assert_eq!(far, ["+ 0", "  1", "  2", "  …", "  7", "  8", "+ 9"], "what stays between two changes stays");
        assert_eq!(difference("a\nold\nb\nc\n", "new\na\nb\nX\nc\n"), ["+ new", "  a", "- old", "  b", "+ X", "  c"]);
        let (old, new) = ("x\n".repeat(3000), "y\n".repeat(3000));
        assert_eq!(difference(&old, &new).len(), 6000, "too much to be compared is shown as it is");
    }

    #[test]
    fn what_others_keep_secret_in_the_file_is_not_shown() {
        for (line, want) in [
            (r#"  "ANTHROPIC_API_KEY": "sk-ant-api03-0123-4f2a","#, r#"  "ANTHROPIC_API_KEY": "…4f2a","#),
            (r#""env": { "A": "1", "MY_TOKEN": "short" }"#, r#""env": { "A": "1", "MY_TOKEN": "…" }"#),
            (r#"experimental_bearer_token = "0123456789ab""#, r#"experimental_bearer_token = "…89ab""#),
            (r#"http_headers = { "x-api-key" = "0123456789ab" }"#, r#"http_headers = { "x-api-key" = "…89ab" }"#),
            (r#"env_key = "OPENAI_API_KEY""#, r#"env_key = "OPENAI_API_KEY""#),
            (r#""ANTHROPIC_AUTH_TOKEN": "cco""#, r#""ANTHROPIC_AUTH_TOKEN": "cco""#),
            (r#""model": "opus", // "key" is not"#, r#""model": "opus", // "key" is not"#),
        ] {
            assert_eq!(veiled(line), want);
        }
    }
}
