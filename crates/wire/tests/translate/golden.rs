//! What every case comes to in every protocol, compared with `tests/golden`.
//!
//! `cargo test -p wire --test translate -- --ignored` writes the files anew.

use std::fmt::Write;

use wire::codec::{Back, Encoded};
use wire::json::{self, Json};
use wire::loss::Losses;
use wire::message::Fold;
use wire::protocol::Protocol;
use wire::transcode::{self, Stream};

use crate::support::{FRONT, Transcript, clients, each_event, folder, requests, targets, transcripts};

/// All files: their names within `tests/golden`, and what has to be in them.
fn golden() -> Vec<(String, String)> {
    let mut files = Vec::new();
    for case in requests() {
        let mut text = String::new();
        let inbound = transcode::inbound(case.from).unwrap();
        let request = match inbound.decode_request(&case.body) {
            Ok(request) => request,
            Err(error) => {
                let mut out = Vec::new();
                let status = inbound.encode_error(&error, &FRONT, &mut out);
                writeln!(text, "== not read: {status}\n{}", pretty(&out)).unwrap();
                files.push((format!("requests/{}/{}.txt", case.from.as_str(), case.name), text));
                continue;
            }
        };
        // Targets for which the same comes out share a section.
        let mut sections: Vec<(String, String)> = Vec::new();
        for to in targets() {
            let section = fitted(&to.upstream().encode_request(&request, &to.target(&request)));
            match sections.iter_mut().find(|(_, known)| *known == section) {
                Some((names, _)) => write!(names, ", {}", to.name).unwrap(),
                None => sections.push((to.name.to_owned(), section)),
            }
        }
        for (names, section) in sections {
            writeln!(text, "== {names}\n{section}").unwrap();
        }
        files.push((format!("requests/{}/{}.txt", case.from.as_str(), case.name), text));
    }
    for transcript in transcripts() {
        files.push((format!("answers/{}.txt", transcript.name), answer(&transcript)));
    }
    files
}

/// A request as it goes to an upstream, and what is known of it.
fn fitted(encoded: &Encoded) -> String {
    let mut text = String::new();
    for loss in &encoded.losses {
        writeln!(text, "{:?}: {loss}", loss.weight).unwrap();
    }
    text.push_str(&encoded.losses.refused().map_or_else(|| pretty(&encoded.body), |_| "refused".to_owned()));
    for (sent, known) in &encoded.back.names {
        write!(text, "\nthe tool `{known}` is sent as `{sent}`").unwrap();
    }
    for name in &encoded.back.custom {
        write!(text, "\nthe tool `{name}` takes plain text").unwrap();
    }
    text
}

fn answer(transcript: &Transcript) -> String {
    let mut text = String::new();
    let upstream = transcode::upstream(transcript.from).unwrap();
    for (protocol, client) in clients() {
        let name = protocol.as_str();
        let mut out = Vec::new();
        if transcript.expect["outcome"] == "http_error" {
            let error = wire::refusal::read(transcript.status, &transcript.body);
            let status = client.encode_error(&error, &FRONT, &mut out);
            let passing = error.kind.is_passing();
            writeln!(text, "== {name}: {status}{}\n{}", if passing { ", may pass" } else { "" }, pretty(&out)).unwrap();
        } else if transcript.is_stream {
            writeln!(text, "== {name}, streamed").unwrap();
            let mut translated = Stream::new(upstream, client, &Back::default(), &FRONT);
            let mut streamed = Vec::new();
            translated.push(&transcript.body, &mut streamed);
            translated.end(&mut streamed);
            left_out(&mut text, transcript, protocol, &translated.lost());
            text.push_str(std::str::from_utf8(&streamed).unwrap());
            let mut fold = Fold::default();
            each_event(transcript.from, &[&transcript.body], |event| fold.event(&event));
            let status = match fold.finish().unwrap() {
                Ok(message) => {
                    client.encode_whole(&message, &FRONT, &mut out);
                    200
                }
                Err(error) => client.encode_error(&error, &FRONT, &mut out),
            };
            writeln!(text, "== {name}, gathered: {status}\n{}", pretty(&out)).unwrap();
        } else {
            let seen = transcode::whole(upstream, client, &transcript.body, &Back::default(), &FRONT, false, &mut out)
                .unwrap();
            writeln!(text, "== {name}, whole").unwrap();
            left_out(&mut text, transcript, protocol, &seen.lost);
            writeln!(text, "{}", pretty(&out)).unwrap();
            let message = upstream.decode_whole(&transcript.body).unwrap();
            let (mut encoder, mut out) = (client.encode_stream(&FRONT), Vec::new());
            message.events(|event| encoder.event(&event, &mut out));
            writeln!(text, "== {name}, played\n{}", String::from_utf8(out).unwrap()).unwrap();
        }
    }
    text
}

/// What of an answer is not carried. Between equal protocols nothing is translated.
fn left_out(text: &mut String, transcript: &Transcript, client: Protocol, lost: &Losses) {
    for loss in lost.iter().filter(|_| transcript.from != client) {
        writeln!(text, "not carried: {loss}").unwrap();
    }
}

/// JSON in lines of a readable length, without a change to numbers, order or escapes.
fn pretty(json: &[u8]) -> String {
    let text = std::str::from_utf8(json).unwrap();
    let json = Json::parse(text).unwrap_or_else(|| panic!("no JSON: {text}"));
    let mut out = String::new();
    lay(&mut out, &json, 0);
    out
}

fn lay(out: &mut String, json: &Json<'_>, depth: usize) {
    let text = json.as_str();
    if text.len() + 2 * depth <= 110 || !text.starts_with(['{', '[']) {
        return out.push_str(text);
    }
    let elements: Vec<(Option<String>, Json<'_>)> = if json.is_object() {
        json::members(json).into_iter().map(|(key, value)| (Some(key.into_owned()), value.into())).collect()
    } else {
        json.read::<Vec<Json<'_>>>().unwrap().into_iter().map(|element| (None, element)).collect()
    };
    let count = elements.len();
    out.push_str(&text[..1]);
    for (n, (key, value)) in elements.into_iter().enumerate() {
        write!(out, "\n{}", "  ".repeat(depth + 1)).unwrap();
        if let Some(key) = key {
            write!(out, "{key:?}: ").unwrap();
        }
        lay(out, &value, depth + 1);
        out.push_str(if n + 1 < count { "," } else { "" });
    }
    write!(out, "\n{}{}", "  ".repeat(depth), &text[text.len() - 1..]).unwrap();
}

#[test]
fn every_case_comes_to_what_its_golden_file_says() {
    let mut wrong = Vec::new();
    let files = golden();
    for (name, want) in &files {
        let path = folder("tests/golden").join(name);
        let is = std::fs::read_to_string(&path).unwrap_or_default();
        if is != *want {
            let at = is.lines().zip(want.lines()).take_while(|(is, want)| is == want).count();
            let line = |text: &str| text.lines().nth(at).unwrap_or("(nothing)").to_owned();
            wrong.push(format!("{name}:{}\n  golden:  {}\n  is now:  {}", at + 1, line(&is), line(want)));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} files differ; if they should, `cargo test -p wire --test translate -- --ignored` writes them:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    let mut known: Vec<_> = files.into_iter().map(|(name, _)| folder("tests/golden").join(name)).collect();
    known.sort();
    let mut there = Vec::new();
    let mut folders = vec![folder("tests/golden")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { there.push(path) }
        }
    }
    there.sort();
    assert_eq!(there, known, "golden files without a case");
}

#[test]
#[ignore = "writes the golden files"]
fn write_the_golden_files() {
    let _ = std::fs::remove_dir_all(folder("tests/golden"));
    for (name, text) in golden() {
        let path = folder("tests/golden").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}
