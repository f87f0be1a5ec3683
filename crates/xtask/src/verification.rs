//! `docs/GATEWAY_STREAMING_VERIFICATION.md`: what the gateway promises of streams, the tests that prove it, what was
//! measured, and what was not run. Written from this table and from the last measurement.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use serde_json::Value;

use crate::{Fault, Places, live};

/// Something that users may rely on.
struct Promise {
    what: &'static str,
    /// The check of `cco doctor` whose finding is a figure of it.
    figure: Option<&'static str>,
    /// The tests that fail when it is broken: file, and function.
    tests: &'static [(&'static str, &'static str)],
}

const fn promise(
    what: &'static str,
    figure: Option<&'static str>,
    tests: &'static [(&'static str, &'static str)],
) -> Promise {
    Promise { what, figure, tests }
}

const TRANSCRIPTS: &str = "crates/cco/tests/relay/transcripts.rs";
const EVENTS: &str = "crates/cco/tests/relay/events.rs";
const HEADERS: &str = "crates/cco/tests/relay/headers.rs";
const BODIES: &str = "crates/cco/tests/relay/bodies.rs";
const TIME: &str = "crates/cco/tests/relay/time.rs";
const SERVE: &str = "crates/cco/tests/relay/serve.rs";
const DAEMON: &str = "crates/cco/tests/operate/daemon.rs";
const RELOAD: &str = "crates/cco/tests/operate/reload.rs";
const DOCTOR: &str = "crates/cco/tests/operate/doctor.rs";
const DRIVE: &str = "crates/cco/src/doctor/drive.rs";
const SCRIPTS: &str = "crates/cco/tests/scripts/main.rs";
const CYCLES: &str = "crates/cco/tests/crash/cycles.rs";

/// All of them.
const PROMISES: &[Promise] = &[
    promise(
        "A request and its stream arrive byte for byte",
        Some("bytes"),
        &[
            (TRANSCRIPTS, "recorded_streams_arrive_byte_equal_when_cut_at_any_byte"),
            (TRANSCRIPTS, "recorded_streams_arrive_byte_equal_when_each_byte_is_a_packet_of_its_own"),
            (EVENTS, "events_of_any_size_pass_byte_equal"),
        ],
    ),
    promise(
        "Headers pass, but for those that are nobody's business",
        Some("headers"),
        &[
            (HEADERS, "a_requests_head_arrives_as_it_was_sent_but_for_what_the_table_says"),
            (HEADERS, "an_answers_head_arrives_as_it_was_sent_but_for_what_the_table_says"),
        ],
    ),
    promise(
        "Every event is passed on when it comes, with the four headers that a stream needs",
        Some("stream"),
        &[
            (TIME, "a_stream_that_drips_byte_by_byte_arrives_event_by_event"),
            (TRANSCRIPTS, "a_stream_says_of_itself_what_clients_and_proxies_between_need"),
        ],
    ),
    promise(
        "Silence is bridged by pings, never within an event",
        Some("ping"),
        &[
            (TIME, "pings_come_in_silence_and_only_between_events"),
            (TIME, "no_ping_comes_within_an_event_of_which_a_part_is_out"),
        ],
    ),
    promise(
        "A body of 32 MB arrives whole",
        Some("large body"),
        &[(BODIES, "prompts_of_32_mb_arrive_byte_equal_however_they_are_framed")],
    ),
    promise(
        "Errors arrive as they are; a stream that breaks off ends with an `error` event",
        Some("errors"),
        &[
            (TRANSCRIPTS, "recorded_errors_keep_status_headers_and_body"),
            (TRANSCRIPTS, "a_stream_that_breaks_off_at_any_byte_ends_with_one_error_event"),
            (TRANSCRIPTS, "a_stream_that_ends_well_formed_but_without_its_last_event_ends_with_one_error_event"),
        ],
    ),
    promise(
        "When the client goes, so does the request to the provider",
        Some("disconnect"),
        &[
            (TIME, "a_client_that_goes_away_cancels_the_upstream_within_100_ms"),
            (TIME, "a_client_that_goes_away_behind_its_upload_cancels_the_upstream"),
        ],
    ),
    promise(
        "Many streams at a time arrive whole",
        Some("load"),
        &[(DOCTOR, "what_is_installed_is_driven_and_nothing_of_it_is_touched")],
    ),
    promise(
        "A stream that never ends is ended, a slow one that lives is not",
        None,
        &[
            (TIME, "a_stream_that_never_ends_is_ended_by_max_stream_secs"),
            (TIME, "a_stream_that_is_slow_but_alive_is_never_cut"),
            (TIME, "a_slow_reader_slows_the_upstream_and_fills_no_memory"),
        ],
    ),
    promise(
        "A restart fails no request and doubles no record",
        None,
        &[(DAEMON, "restarts_under_load_fail_no_request_and_double_no_record")],
    ),
    promise(
        "A changed configuration cuts no stream, a faulty one changes nothing",
        None,
        &[(RELOAD, "no_stream_ends_because_the_configuration_changes_or_is_wrong")],
    ),
    promise(
        "Running streams finish when the gateway is stopped",
        None,
        &[
            (SERVE, "a_running_stream_finishes_when_the_program_is_told_to_stop"),
            (SERVE, "what_does_not_end_in_drain_secs_ends_with_an_error_event"),
        ],
    ),
    promise(
        "Whoever is killed has lost no record",
        None,
        &[(CYCLES, "a_gateway_that_is_killed_at_any_moment_loses_nothing_and_doubles_nothing")],
    ),
    promise(
        "The checks themselves see what is broken",
        None,
        &[
            (SCRIPTS, "each_way_to_be_broken_turns_its_check_red"),
            (DRIVE, "each_way_to_be_broken_turns_its_check_red"),
            (DOCTOR, "a_sound_gateway_elsewhere_is_green_and_each_broken_one_is_red"),
        ],
    ),
];

fn page(root: &Path) -> PathBuf {
    root.join("docs/GATEWAY_STREAMING_VERIFICATION.md")
}

/// The last measurement, as it is kept beside the page.
fn kept(root: &Path) -> PathBuf {
    root.join("docs/verification.json")
}

/// `cargo xtask verification [--measure CCO]`
pub(crate) fn verification<'a>(mut words: impl Iterator<Item = &'a str>, usage: &str) -> Result<ExitCode, Fault> {
    let places = Places::find()?;
    match (words.next(), words.next()) {
        (None, _) => {}
        (Some("--measure"), Some(program)) => measure(&places, Path::new(program))?,
        _ => return Err(format!("`verification` takes nothing, or `--measure PROGRAM`\n\n{usage}")),
    }
    let text = text(&places.root)?;
    let file = page(&places.root);
    std::fs::write(&file, text).map_err(|e| format!("cannot write `{}`: {e}", file.display()))?;
    println!("{}", file.display());
    Ok(ExitCode::SUCCESS)
}

/// Has a program drive itself for half a minute, in an empty folder, and keeps what it found.
fn measure(places: &Places, program: &Path) -> Result<(), Fault> {
    let home = places.target.join("verification");
    let _ = std::fs::remove_dir_all(&home);
    std::fs::create_dir_all(&home).map_err(|e| e.to_string())?;
    let cco = |args: &[&str]| {
        let mut command = Command::new(program);
        command.args(args).env_clear().env("HOME", &home).env("CCO_SERVER_LISTEN", "127.0.0.1:0");
        let ran = command.output().map_err(|e| format!("cannot run `{}`: {e}", program.display()))?;
        Ok::<_, Fault>(String::from_utf8_lossy(&ran.stdout).into_owned())
    };
    let version = cco(&["version"])?.trim().to_owned();
    let card: Value = serde_json::from_str(&cco(&["doctor", "--json", "--load", "100"])?)
        .map_err(|e| format!("the doctor's card is no JSON: {e}"))?;
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let is_development = program.parent().is_some_and(|folder| folder.ends_with("debug"));
    let build = if is_development { "development" } else { "release" };
    let told = serde_json::json!({
        "version": version, "build": build, "cores": cores, "system": std::env::consts::OS,
        "configuration": "the defaults; simulator, gateway and client on one machine, over the loopback", "checks": card["checks"],
    });
    // Nobody needs to know where on whose machine it was.
    let text = serde_json::to_string_pretty(&told).map_err(|e| e.to_string())?;
    let text = text.replace(&home.display().to_string(), "~") + "\n";
    std::fs::write(kept(&places.root), text).map_err(|e| e.to_string())
}

/// The page.
fn text(root: &Path) -> Result<String, Fault> {
    let told = std::fs::read_to_string(kept(root)).map_err(|e| format!("docs/verification.json: {e}"))?;
    let told: Value = serde_json::from_str(&told).map_err(|e| format!("docs/verification.json: {e}"))?;
    let word = |key: &str| told[key].as_str().unwrap_or("unknown");
    let mut text = format!(
        "# What is verified of streaming\n\n\
         Written by `cargo xtask verification`; a test fails when it is not what the table of promises says, or names a test\n\
         that does not exist. All tests run with `cargo xtask test`.\n\n\
         Measured with `cco doctor --load 100`: version {}, {} build, {} cores, {}. Configuration: {}.\n\n\
         | promise | measured | proven by |\n|---|---|---|\n",
        word("version"),
        word("build"),
        told["cores"],
        word("system"),
        word("configuration"),
    );
    for promise in PROMISES {
        let checks = told["checks"].as_array().map(Vec::as_slice).unwrap_or_default();
        let figure = promise.figure.map(|what| {
            let found = checks.iter().find(|check| check["what"] == what);
            let found = found.ok_or_else(|| format!("docs/verification.json has no check `{what}`: measure again"))?;
            let mark = if found["state"] == "good" { "" } else { "**failed:** " };
            Ok::<_, Fault>(format!("{mark}{}", found["found"].as_str().unwrap_or("").replace('\n', "; ")))
        });
        let figure = figure.transpose()?.unwrap_or_else(|| "-".into());
        let tests: Vec<_> = promise.tests.iter().map(|(file, name)| format!("[`{name}`](../{file})")).collect();
        let _ = writeln!(text, "| {} | {figure} | {} |", promise.what, tests.join("<br>"));
    }
    text.push_str(
        "\n## What was not run\n\nThese need somebody's key or login, and are run by `cargo xtask test --live`:\n\n",
    );
    for check in live::CHECKS {
        let _ = writeln!(text, "- {} (`{}`)", check.what, check.needs);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
    }

    #[test]
    fn the_page_is_what_the_table_and_the_last_measurement_say() {
        let now = std::fs::read_to_string(page(&root())).unwrap();
        assert_eq!(now, text(&root()).unwrap(), "`cargo xtask verification` writes it anew");
    }

    #[test]
    fn what_was_measured_does_not_say_on_whose_machine() {
        let told = std::fs::read_to_string(kept(&root())).unwrap();
        assert!(told.contains("\"~/.cco"), "the folder is in it");
        assert!(!told.replace("~/.cco", "").contains("/.cco"), "and nothing of where that is: {told}");
    }

    #[test]
    fn each_test_that_is_named_exists() {
        for (file, name) in PROMISES.iter().flat_map(|promise| promise.tests) {
            let source = std::fs::read_to_string(root().join(file)).unwrap_or_else(|why| panic!("{file}: {why}"));
            let at = source.find(&format!("fn {name}(")).unwrap_or_else(|| panic!("there is no `{name}` in {file}"));
            let before: Vec<_> = source[..at].lines().rev().take(4).collect();
            let is_test = before.iter().any(|line| line.contains("#[test]") || line.contains("#[tokio::test"));
            let is_ignored = before.iter().any(|line| line.contains("#[ignore"));
            assert!(is_test && !is_ignored, "`{name}` in {file} is no test that runs");
        }
    }
}
