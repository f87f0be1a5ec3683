//! `cco demo`: gateway and simulator in one process, and a stream that passes through both before your eyes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::Instant;

use crate::simulated::Simulated;
use crate::{cli, term};

/// What the simulated model says.
const ANSWER: &str = "Hello! I am a simulated model behind cco. Every word that you see is an event of its own: the gateway \
                      hands it on in the moment in which it arrives, byte for byte, and never touches it.";
/// Streams whose arrival is timed, with and without the gateway in between.
const TIMED: usize = 20;

/// Runs the demonstration.
pub(crate) fn run(options: &cli::Demo) -> ExitCode {
    match demonstrate(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            term::error("the demonstration failed", Some(&error), None);
            ExitCode::FAILURE
        }
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn demonstrate(options: &cli::Demo) -> Result<(), Failure> {
    let simulated = Simulated::start()?;
    let (sim, gateway) = (simulated.simulator, simulated.gateway);
    term::line(format_args!(
        "simulator: http://{sim}   gateway: http://{gateway}   home: {} (temporary)\n",
        simulated.home.path().display()
    ));

    term::line("A streamed answer through the gateway:\n");
    let script = format!("[[sim text={} every={}]]", serde_json::Value::from(ANSWER), options.every);
    let mut last = None;
    let (mut events, mut gaps) = (0, Vec::new());
    let streamed = stream(gateway, &script, |text| {
        let now = Instant::now();
        if let Some(before) = last.replace(now) {
            gaps.push(now - before);
        }
        events += 1;
        term::part(text);
    })?;
    term::line(format_args!(
        "\n\n{events} pieces of text in {} ms, {} ms apart (median); the last event was `{}`\n",
        streamed.took.as_millis(),
        median(&mut gaps).as_millis(),
        streamed.last_event
    ));
    if streamed.last_event != "message_stop" || streamed.text != ANSWER {
        return Err("the stream did not arrive whole".into());
    }

    let health = get(gateway, "/gateway/health")?;
    let health: serde_json::Value = serde_json::from_str(&health)?;
    term::line(format_args!("GET /gateway/health: status {}, providers {}", health["status"], health["providers"]));
    term::line(format_args!(
        "relayed so far: {} request, {} bytes of answers\n",
        health["requests"]["total"], health["relayed_bytes"]
    ));

    let quick = "[[sim text=\"one two three\"]]";
    let first_byte = |to: SocketAddr| -> Result<Duration, Failure> {
        let mut times = Vec::with_capacity(TIMED);
        for _ in 0..TIMED {
            times.push(stream(to, quick, |_| {})?.first);
        }
        Ok(median(&mut times))
    };
    first_byte(gateway)?; // connections and caches are warm afterwards, on both ways
    let (direct, through) = (first_byte(sim)?, first_byte(gateway)?);
    term::line(format_args!(
        "time to the first event, median of {TIMED}: {:.2} ms directly, {:.2} ms through cco: cco added {:.2} ms",
        ms(direct),
        ms(through),
        ms(through.saturating_sub(direct))
    ));
    term::line("\nNext: `cco serve`, then `cco run -- claude` in another terminal");

    simulated.stop()?;
    Ok(())
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

struct Streamed {
    first: Duration,
    took: Duration,
    text: String,
    last_event: String,
}

/// Asks for a streamed answer over a plain socket, as the simplest of clients.
fn stream(to: SocketAddr, prompt: &str, mut each: impl FnMut(&str)) -> Result<Streamed, Failure> {
    let body = serde_json::json!({
        "model": "claude-sonnet-5-5", "max_tokens": 1000, "stream": true,
        "messages": [{ "role": "user", "content": format!("Show me. {prompt}") }],
    })
    .to_string();
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: {to}\r\nx-api-key: demo\r\nanthropic-version: 2023-06-01\r\n\
         content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let start = Instant::now();
    let mut reader = request(to, &format!("{head}{body}"))?;
    let (mut first, mut text, mut last_event) = (None, String::new(), String::new());
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 {
        // Chunk sizes lie between the lines; no line of an event looks like one.
        if let Some(name) = line.trim_end().strip_prefix("event: ") {
            first.get_or_insert_with(|| start.elapsed());
            last_event = name.to_string();
        } else if let Some(data) = line.trim_end().strip_prefix("data: ") {
            let event: serde_json::Value = serde_json::from_str(data)?;
            if let Some(delta) = event["delta"]["text"].as_str() {
                text.push_str(delta);
                each(delta);
            }
        }
        line.clear();
    }
    let first = first.ok_or("the answer held no event")?;
    Ok(Streamed { first, took: start.elapsed(), text, last_event })
}

fn get(to: SocketAddr, path: &str) -> Result<String, Failure> {
    let mut answer = String::new();
    request(to, &format!("GET {path} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\n\r\n"))?
        .read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or("the answer has no body")?;
    Ok(body.to_string())
}

fn request(to: SocketAddr, bytes: &str) -> Result<BufReader<TcpStream>, Failure> {
    let mut socket = TcpStream::connect(to)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    socket.write_all(bytes.as_bytes())?;
    Ok(BufReader::new(socket))
}
