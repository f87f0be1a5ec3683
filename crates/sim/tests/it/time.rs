//! A paused clock over in-memory pipes: every wait is one of the clock, and exactly as long as the script says.

use std::time::Duration;

use sim::{Sim, SimConfig};
use tokio::io::DuplexStream;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::client::{Client, streamed, whole};

/// A client on a pipe. It cannot write more than `window` bytes that are not read.
fn pipe(window: usize) -> (std::sync::Arc<Sim>, Client<DuplexStream>, TaskTracker) {
    let sim = Sim::new(SimConfig::default()).unwrap();
    let (ours, theirs) = tokio::io::duplex(window);
    let tasks = TaskTracker::new();
    tasks.spawn(sim.clone().serve_stream(theirs, "pipe"));
    tasks.close();
    (sim, Client::new(ours), tasks)
}

/// When the text `word` has arrived, since `began`.
async fn arrival(client: &mut Client<DuplexStream>, began: Instant, word: &str) -> Duration {
    assert!(client.read_until(|input| String::from_utf8_lossy(input).contains(word)).await, "{word}");
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn events_come_when_the_script_says() {
    let (sim, mut client, tasks) = pipe(1 << 16);
    let began = Instant::now();
    client.send(streamed("[[sim text=\"a b\" first=3000 every=500]]")).await;
    let ms = Duration::from_millis;
    assert_eq!(arrival(&mut client, began, "HTTP/1.1 200").await, ms(0), "the head of a stream comes at once");
    assert_eq!(arrival(&mut client, began, "message_start").await, ms(3000));
    assert_eq!(arrival(&mut client, began, "content_block_start").await, ms(3500));
    assert_eq!(arrival(&mut client, began, "\"text\":\"b\"").await, ms(5000));
    assert_eq!(arrival(&mut client, began, "message_stop").await, ms(6500));
    sim.wait_for(|all| all.iter().all(|received| received.end.is_some())).await;
    assert_eq!(sim.requests()[0].peer, "pipe");
    assert_eq!(sim.requests()[0].end.as_ref().unwrap().after, ms(6500));
    drop(client);
    tasks.wait().await;
    assert_eq!(sim.connections_open(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_whole_answer_and_a_delayed_head_wait_before_the_head() {
    let (_sim, mut client, _tasks) = pipe(1 << 16);
    for (marker, ms) in [("first=7000", 7000), ("fault=delay-head=9000", 9000)] {
        let began = Instant::now();
        client.send(whole(&format!("[[sim text=a {marker}]]"))).await;
        assert_eq!(client.response(false).await.unwrap().json()["content"][0]["text"], "a");
        assert_eq!(began.elapsed(), Duration::from_millis(ms));
    }
}

#[tokio::test(start_paused = true)]
async fn a_drip_takes_its_time_for_every_byte() {
    let (_sim, mut client, _tasks) = pipe(1 << 16);
    let began = Instant::now();
    client.send(streamed("[[sim text=a fault=drip=100]]")).await;
    let response = client.response(false).await.unwrap();
    let waited = began.elapsed().as_millis() as usize;
    assert_eq!(waited, 100 * response.body.len());
    assert_eq!(response.message()["content"][0]["text"], "a");
}

#[tokio::test(start_paused = true)]
async fn gaps_stand_between_pieces_of_a_given_size() {
    let (_sim, mut client, _tasks) = pipe(1 << 16);
    let began = Instant::now();
    client.send(streamed("[[sim text=a chunk=100 gap=1000]]")).await;
    let response = client.response(false).await.unwrap();
    assert_eq!(began.elapsed().as_secs() as usize, response.chunks.len());
    assert_eq!(response.chunks.len(), response.body.len().div_ceil(100));
}

#[tokio::test(start_paused = true)]
async fn a_stall_lasts_as_long_as_the_client_does() {
    let (sim, mut client, tasks) = pipe(1 << 16);
    client.send(streamed("[[sim text=a fault=stall=2ev]]")).await;
    let began = Instant::now();
    arrival(&mut client, began, "\"text\":\"\"}}\n\n").await;
    let day = Duration::from_secs(86_400);
    assert!(tokio::time::timeout(day, client.read_more()).await.is_err(), "nothing comes for a day");
    assert!(sim.requests()[0].end.is_none());
    drop(client);
    tasks.wait().await;
    assert!(sim.requests()[0].client_gone());
}

#[tokio::test(start_paused = true)]
async fn a_pipe_that_nobody_reads_holds_the_answer_up() {
    let (sim, mut client, tasks) = pipe(1024);
    client.send(streamed("[[sim text=a fault=long-line]]")).await;
    sim.wait_for(|all| all.len() == 1).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(sim.requests()[0].sent_bytes(), 1024, "no more than the pipe holds");
    assert!(client.read_until(|input| input.len() > 100_000).await);
    drop(client);
    tasks.wait().await;
    assert!(sim.requests()[0].client_gone());
}
