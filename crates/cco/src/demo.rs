//! `cco demo`: gateway and simulator in one process, and a stream that passes through both before your eyes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use gateway::client::Phases;
use gateway::config::{self, Env, Paths};
use gateway::daemon::Server;
use gateway::gateway::Current;
use gateway::net;
use gateway::setup;
use sim::{Sim, SimConfig};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{VERSION, cli, term};

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
    let home = tempfile::tempdir()?;
    let stop = CancellationToken::new();
    let (sim, sim_thread) = start_simulator(stop.clone())?;
    let (gateway, phases, gateway_thread) = start_gateway(sim, home.path())?;
    term::line(format_args!(
        "simulator: http://{sim}   gateway: http://{gateway}   home: {} (temporary)\n",
        home.path().display()
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
    term::line("\nNext: `cco serve`, then ANTHROPIC_BASE_URL=http://127.0.0.1:54548 claude");

    phases.drain.cancel();
    stop.cancel();
    for thread in [gateway_thread, sim_thread] {
        thread.join().map_err(|_| "a server thread panicked")??;
    }
    Ok(())
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

type Running = std::thread::JoinHandle<std::io::Result<()>>;

fn start_simulator(stop: CancellationToken) -> Result<(SocketAddr, Running), Failure> {
    let sim = Sim::new(SimConfig::default())?;
    let listener = net::listen(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let address = listener.local_addr()?;
    let thread = std::thread::Builder::new().name("simulator".into()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            sim.serve(tokio::net::TcpListener::from_std(listener)?, stop).await;
            Ok(())
        })
    })?;
    Ok((address, thread))
}

fn start_gateway(sim: SocketAddr, home: &std::path::Path) -> Result<(SocketAddr, Phases, Running), Failure> {
    let home = home.to_str().ok_or("the temporary folder's name is not UTF-8")?;
    let env = Env::fixed([("CCO_HOME", home)]);
    let text = serde_json::json!({ "providers": { "anthropic": {
        "providerType": "anthropic", "baseUrl": format!("http://{sim}"), "apiKeyRef": ""
    } }, "server": { "drainSecs": 5 } });
    let (config, _) = config::parse(&text.to_string(), &Paths::default()).map_err(|faults| format!("{faults:?}"))?;
    let (gateway, _) =
        setup::gateway(&config, &env, VERSION, setup::dialer(&config, &env)?, setup::recorder(&config, &env)?.0)?;
    let listener = net::listen(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let (address, phases) = (listener.local_addr()?, Phases::default());
    let server = Server {
        listener,
        own: None,
        current: Current::new(gateway),
        phases: phases.clone(),
        workers: 1,
        max_connections: 64,
    };
    let thread = std::thread::Builder::new().name("gateway".into()).spawn(move || server.run())?;
    Ok((address, phases, thread))
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
