//! Request bodies: large, packed, ambiguous, too many; and those that are never held.

use std::io::Write;
use std::time::Duration;

use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::common::{Client, Ended, Gateway, Piece, Upstream, prompt, request, soon, upstream, upstream_with, whole};

const MIB: usize = 1 << 20;

fn sha256(bytes: &[u8]) -> String {
    hex(Sha256::digest(bytes).as_slice())
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Text without a meaning; it begins anew after a number of bytes that no buffer has.
fn noise(length: usize, mut seed: u64) -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-";
    let next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        LETTERS[(seed >> 40) as usize % 64]
    };
    let block: Vec<u8> = std::iter::repeat_with(next).take(99_991).collect();
    let mut all = block.repeat(length / block.len());
    all.extend_from_slice(&block[..length - all.len()]);
    all
}

/// A prompt of exactly this many bytes.
fn prompt_of(length: usize) -> Vec<u8> {
    let frame = prompt("", false).len();
    let text = String::from_utf8(noise(length - frame, 88_172_645_463_325_252)).unwrap();
    let body = prompt(&text, false).into_bytes();
    assert_eq!(body.len(), length);
    body
}

/// The same request with its body in chunks of this size.
fn chunked(target: &str, more: &str, body: &[u8], size: usize) -> Vec<u8> {
    let mut bytes = request("POST", target, &format!("{more}Transfer-Encoding: chunked\r\n"), "");
    for chunk in body.chunks(size) {
        bytes.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

/// Checks that the last request arrived with this body.
#[track_caller]
fn check_arrived(upstream: &Upstream, body: &[u8], was_chunked: bool) {
    let last = upstream.last();
    assert_eq!((last.body_len, last.body_complete), (body.len() as u64, true));
    assert_eq!(last.body_sha256, sha256(body));
    assert_eq!(last.chunked, was_chunked);
    assert_eq!(last.oddities, [""; 0]);
}

#[tokio::test]
async fn prompts_of_32_mb_arrive_byte_equal_however_they_are_framed() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    let mut client = gateway.client().await;
    for length in [200, 16 * 1024, 64 * 1024 + 1, 32 * MIB] {
        let body = prompt_of(length);
        let plain = request("POST", "/v1/messages", "x-sim: text=ok\r\n", &body);
        for bytes in [plain, chunked("/v1/messages", "x-sim: text=ok\r\n", &body, 60_000)] {
            let answer = client.ask(bytes).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            check_arrived(&upstream, &body, false);
        }
    }
    let held = gateway.health().await["held_bodies"]["bytes"].clone();
    assert_eq!(held, 0, "what was held is given back");
}

#[tokio::test]
async fn a_body_beyond_the_limit_gets_a_readable_413_while_it_is_still_being_sent() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    let limit = 64 * MIB;
    let body = prompt_of(limit + 1);
    let said = request("POST", "/v1/messages", "", &body);
    let mut longer = body.clone();
    longer.extend_from_slice(&noise(8 * MIB, 7));
    for bytes in [said, chunked("/v1/messages", "", &longer, 1 << 16)] {
        let mut client = gateway.client().await;
        // Nothing is read before everything is written: the answer must survive that.
        client.send(&bytes).await;
        let answer = client.answer().await;
        let message = answer.refusal(413, "request_too_large");
        assert!(message.contains("64 MB") && message.contains("`server.maxBodyMb`"), "{message}");
        assert_eq!(answer.header("x-should-retry"), Some("false"));
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(client.is_closed().await);
    }
    assert_eq!(upstream.sim.requests().len(), 0);
    assert_eq!(gateway.health().await["held_bodies"]["bytes"], 0);
}

#[tokio::test]
async fn max_body_mb_decides_to_the_byte() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({ "server": { "maxBodyMb": 1 } })).await;
    for (length, status) in [(MIB, 200), (MIB + 1, 413)] {
        let body = prompt_of(length);
        let plain = request("POST", "/v1/messages", "x-sim: text=ok\r\n", &body);
        for bytes in [plain, chunked("/v1/messages", "x-sim: text=ok\r\n", &body, 5000)] {
            assert_eq!(gateway.ask(bytes).await.status, status, "{length} bytes");
        }
    }
    assert_eq!(upstream.sim.requests().len(), 2);
}

/// A client that has sent all of a body but the last byte, and the bytes that the gateway holds of it.
async fn holder(gateway: &Gateway, length: usize) -> (Client, u8) {
    let body = prompt_of(length);
    let mut client = gateway.client().await;
    let bytes = request("POST", "/v1/messages", "x-sim: text=held\r\n", &body);
    client.send(&bytes[..bytes.len() - 1]).await;
    let all = length as u64 - 1;
    gateway.wait_for_health(|health| health["held_bodies"]["bytes"].as_u64().unwrap() >= all).await;
    (client, bytes[bytes.len() - 1])
}

#[tokio::test]
async fn beyond_max_held_mb_reading_stops_and_goes_on_when_there_is_room() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({ "server": { "maxBodyMb": 31, "maxHeldMb": 32 } })).await;
    let (mut first, last_byte) = holder(&gateway, 20 * MIB).await;
    let body = prompt_of(30 * MIB);
    let bytes = request("POST", "/v1/messages", "x-sim: text=waited\r\n", &body);
    let mut second = gateway.client().await;
    let started = Instant::now();
    let (head, rest) = bytes.split_at(bytes.len() - body.len());
    second.send(head).await;
    // 12 MB fit, and the kernel holds some; then nothing moves.
    let mut sent = 0;
    while let Ok(n) = tokio::time::timeout(Duration::from_millis(500), second.write_some(&rest[sent..])).await {
        sent += n;
        assert!(sent < rest.len(), "the gateway reads on although it may hold no more");
    }
    assert!(gateway.health().await["held_bodies"]["bytes"].as_u64().unwrap() <= 32 * MIB as u64);
    assert!(started.elapsed() < Duration::from_secs(5), "too slow to show anything");
    first.send([last_byte]).await;
    assert_eq!(first.answer().await.status, 200);
    second.send_raw(&rest[sent..]).await.unwrap();
    let answer = second.answer().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    check_arrived(&upstream, &body, false);
    assert_eq!(gateway.health().await["held_bodies"]["bytes"], 0);
}

#[tokio::test]
async fn a_body_that_came_in_one_piece_with_its_head_waits_for_room_like_any_other() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({ "server": { "maxBodyMb": 1, "maxHeldMb": 1 } })).await;
    for small in [
        request("POST", "/v1/messages", "x-sim: text=small\r\n", prompt_of(300)),
        chunked("/v1/messages", "x-sim: text=small\r\n", &prompt_of(300), 100),
    ] {
        // A hundred bytes are left.
        let (mut first, last_byte) = holder(&gateway, MIB - 100).await;
        let mut waiting = gateway.client().await;
        waiting.send(&small).await;
        gateway.wait_for_health(|health| health["requests"]["running"] == 2).await;
        first.send([last_byte]).await;
        assert_eq!(first.answer().await.status, 200);
        let answer = waiting.answer().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

#[tokio::test]
async fn a_body_for_which_there_is_no_room_in_5_seconds_gets_529() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({ "server": { "maxBodyMb": 2, "maxHeldMb": 2 } })).await;
    let (mut first, last_byte) = holder(&gateway, 3 * MIB / 2).await;
    let body = prompt_of(MIB);
    let plain = request("POST", "/v1/messages", "", &body);
    let started = Instant::now();
    let refused = [plain, chunked("/v1/messages", "", &body, 1000)].map(|bytes| async {
        let bytes = bytes;
        let mut client = gateway.client().await;
        client.send(&bytes).await;
        let answer = client.answer().await;
        let message = answer.refusal(529, "overloaded_error");
        assert!(message.contains("`server.maxHeldMb`"), "{message}");
        assert_eq!(answer.header("retry-after"), Some("5"));
        assert_eq!(answer.header("x-should-retry"), None, "a repetition can help");
        assert!(client.is_closed().await);
    });
    let [plain, chunked] = refused;
    tokio::join!(plain, chunked);
    assert!(started.elapsed() >= Duration::from_secs(5), "refused after {:?}", started.elapsed());
    first.send([last_byte]).await;
    assert_eq!(first.answer().await.status, 200, "who was there first is served");
    assert_eq!(gateway.health().await["held_bodies"]["bytes"], 0);
    assert_eq!(upstream.sim.requests().len(), 1);
}

const FORM_START: &str = "--cut\r\nContent-Disposition: form-data; name=\"file\"; filename=\"big.bin\"\r\nContent-Type: application/x-big\r\n\r\n";
const FORM_END: &str = "\r\n--cut--\r\n";

/// Uploads a file of this length block by block, and returns its description.
async fn upload(client: &mut Client, upstream: &Upstream, length: usize, in_chunks: bool) -> serde_json::Value {
    let all = FORM_START.len() + length + FORM_END.len();
    let framing =
        if in_chunks { "Transfer-Encoding: chunked\r\n".into() } else { format!("Content-Length: {all}\r\n") };
    let head = format!("Content-Type: multipart/form-data; boundary=cut\r\nanthropic-beta: files\r\n{framing}");
    client.send(request("POST", "/v1/files", &head, "")).await;
    let block = noise(256 * 1024, 3);
    let blocks = std::iter::repeat_n(&block[..], length / block.len());
    assert_eq!(length % block.len(), 0);
    let mut digest = Sha256::new();
    for part in std::iter::once(FORM_START.as_bytes()).chain(blocks).chain([FORM_END.as_bytes()]) {
        digest.update(part);
        if in_chunks {
            soon(client.send_raw(format!("{:x}\r\n", part.len()).as_bytes())).await.unwrap();
        }
        soon(client.send_raw(part)).await.unwrap();
        if in_chunks {
            soon(client.send_raw(b"\r\n")).await.unwrap();
        }
    }
    if in_chunks {
        client.send_raw(b"0\r\n\r\n").await.unwrap();
    }
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.ended), (200, Ended::Whole), "{}", answer.text());
    let arrived = upstream.last();
    assert_eq!(arrived.body_len, all as u64);
    assert_eq!(arrived.body_sha256, hex(digest.finalize().as_slice()));
    assert_eq!((arrived.chunked, arrived.body_complete), (in_chunks, true));
    answer.json()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_and_downloads_of_any_length_take_no_memory() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    let mut client = gateway.client().await;
    let small = upload(&mut client, &upstream, MIB, false).await;
    let before = gateway.peak_memory();
    for in_chunks in [false, true] {
        let file = upload(&mut client, &upstream, 200 * MIB, in_chunks).await;
        assert_eq!(file["size_bytes"], 200 * MIB);
    }
    let kept = upload(&mut client, &upstream, 64 * MIB, false).await;
    for (file, length) in [(small, MIB), (kept, 64 * MIB)] {
        let target = format!("/v1/files/{}/content", file["id"].as_str().unwrap());
        client.send(request("GET", &target, "", "")).await;
        let head = client.head().await;
        assert_eq!((head.status, head.header("content-length")), (200, Some(&*length.to_string())));
        assert_eq!(head.header("content-type"), Some("application/x-big"));
        let (mut digest, mut want) = (Sha256::new(), Sha256::new());
        let block = noise(256 * 1024, 3);
        (0..length / block.len()).for_each(|_| want.update(&block));
        let ended = loop {
            match client.piece().await {
                Piece::Data(data) => digest.update(&data),
                Piece::End(ended) => break ended,
            }
        };
        assert_eq!((ended, digest.finalize()), (Ended::Whole, want.finalize()));
    }
    let grown = gateway.peak_memory() - before;
    assert!(grown < 40 * MIB as u64, "the gateway has grown by {} KiB", grown / 1024);
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packer.write_all(plain).unwrap();
    packer.finish().unwrap()
}

fn deflate(plain: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    packer.write_all(plain).unwrap();
    packer.finish().unwrap()
}

fn zstd(plain: &[u8]) -> Vec<u8> {
    zstd::encode_all(plain, 3).unwrap()
}

/// Brotli without a compressor: a window of 64 KiB, blocks that are stored as they are, and an empty last one.
fn brotli(plain: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    for (n, block) in plain.chunks(1 << 16).enumerate() {
        let bits = ((block.len() as u32 - 1) << 3) | (1 << 19);
        let bits = if n == 0 { bits << 1 } else { bits };
        packed.extend_from_slice(&bits.to_le_bytes()[..3]);
        packed.extend_from_slice(block);
    }
    packed.push(0b11);
    packed
}

type Pack = fn(&[u8]) -> Vec<u8>;

const CODINGS: [(&str, Pack); 4] = [("gzip", gzip), ("deflate", deflate), ("zstd", zstd), ("br", brotli)];

#[tokio::test]
async fn packed_bodies_arrive_as_they_were_packed() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    let mut client = gateway.client().await;
    let plain = prompt_of(200_000);
    for (coding, pack) in CODINGS {
        let body = pack(&plain);
        let more = format!("x-sim: text=unpacked\r\nContent-Encoding: {coding}\r\n");
        let said = request("POST", "/v1/messages", &more, &body);
        for bytes in [said, chunked("/v1/messages", &more, &body, 4096)] {
            let answer = client.ask(bytes).await;
            assert!(answer.status == 200 && answer.text().contains("unpacked"), "{coding}: {}", answer.text());
            check_arrived(&upstream, &body, false);
            assert_eq!(upstream.last().header("content-encoding"), Some(coding));
            let line = gateway.log_line(&[answer.id()]).await;
            assert_eq!(line["model"], "claude-sonnet-5-5", "{coding}: it was unpacked to be read");
        }
    }
}

#[tokio::test]
async fn a_body_that_unpacks_to_more_than_may_be_held_passes_unread() {
    let upstream = upstream_with(sim::SimConfig { max_body: 256 << 20, ..sim::SimConfig::default() }).await;
    let gateway = Gateway::start(&upstream, json!({ "server": { "maxBodyMb": 1 } })).await;
    let plain = prompt(&" ".repeat(8 * MIB), false);
    let body = gzip(plain.as_bytes());
    assert!(body.len() < 64 * 1024);
    let answer = gateway.ask(request("POST", "/v1/messages", "Content-Encoding: gzip\r\n", &body)).await;
    assert_eq!(answer.status, 200, "it is the upstream's to judge: {}", answer.text());
    check_arrived(&upstream, &body, false);
    assert_eq!(gateway.log_line(&[answer.id()]).await["model"], serde_json::Value::Null);
}

#[tokio::test]
async fn a_second_top_level_model_or_stream_is_refused_packed_or_not() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    let mut client = gateway.client().await;
    let plain: Pack = <[u8]>::to_vec;
    let messages = r#""max_tokens":10,"messages":[{"role":"user","content":"Hi."}]"#;
    for (coding, pack) in [("identity", plain)].into_iter().chain(CODINGS) {
        for (twice, body) in [
            ("model", format!(r#"{{"model":"a","model":"b",{messages}}}"#)),
            ("stream", format!(r#"{{"model":"a","stream":true,{messages},"stream":true}}"#)),
            ("model", format!(r#"{{"model":"a",{messages},"mod\u0065l":"b"}}"#)),
        ] {
            for target in ["/v1/messages", "/v1/messages/count_tokens"] {
                let more = format!("Content-Encoding: {coding}\r\n");
                let answer = client.ask(request("POST", target, &more, pack(body.as_bytes()))).await;
                let message = answer.refusal(400, "invalid_request_error");
                assert!(message.contains(&format!("`{twice}`")), "{message}");
                assert_eq!(answer.header("x-should-retry"), Some("false"));
            }
        }
    }
    assert_eq!(upstream.sim.requests().len(), 0);
    // Below the top level, and of other names, everything may stand twice.
    let body = format!(r#"{{"model":"a","metadata":{{"model":"b","model":"c"}},"x":1,"x":2,{messages}}}"#);
    assert_eq!(client.ask(request("POST", "/v1/messages", "", &body)).await.status, 200);
    check_arrived(&upstream, body.as_bytes(), false);
}

#[tokio::test]
async fn bodies_that_are_no_json_are_the_upstreams_to_judge() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    let mut client = gateway.client().await;
    for body in [&b"{\"model\":\"a\""[..], b"[]", b"\xff\xfe\x00", b"\"", b"{\"model\":1,\"stream\":\"yes\"}"] {
        let answer = client.ask(request("POST", "/v1/messages", "", body)).await;
        assert_eq!(answer.status, 400);
        assert!(answer.header("request-id").is_some(), "the upstream said so: {}", answer.text());
        check_arrived(&upstream, body, false);
    }
    let unpacked = client.ask(request("POST", "/v1/messages", "Content-Encoding: gzip\r\n", "no gzip")).await;
    assert!(unpacked.text().contains("content-encoding"), "{}", unpacked.text());
    check_arrived(&upstream, b"no gzip", false);
    let empty = client.ask(request("POST", "/v1/messages", "Content-Length: 0\r\n", "")).await;
    assert_eq!(empty.status, 400);
    check_arrived(&upstream, b"", false);
}

#[tokio::test]
async fn a_client_that_waits_for_100_continue_is_told_to_go_on() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    let mut client = gateway.client().await;
    let body = prompt("Hello.", false);
    for target in ["/v1/messages", "/v1/messages/batches"] {
        let more = format!("Expect: 100-continue\r\nContent-Length: {}\r\n", body.len());
        client.send(request("POST", target, &more, "")).await;
        assert_eq!(client.head().await.status, 100, "{target}");
        client.send(&body).await;
        let answer = client.answer().await;
        assert!(answer.header("request-id").is_some(), "{target}: {}", answer.text());
        check_arrived(&upstream, body.as_bytes(), false);
        assert_eq!(upstream.last().header("expect"), None);
    }
    // A body that would be refused is not asked for.
    let more = format!("Expect: 100-continue\r\nContent-Length: {}\r\n", 65 * MIB);
    client.send(request("POST", "/v1/messages", &more, "")).await;
    client.answer().await.refusal(413, "request_too_large");
}

#[tokio::test]
async fn a_client_that_goes_away_within_its_body_leaves_nothing_behind() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    let (client, _) = holder(&gateway, MIB).await;
    drop(client);
    gateway.wait_for_health(|health| health["held_bodies"]["bytes"] == 0).await;
    let mut client = gateway.client().await;
    let head = "Content-Type: multipart/form-data; boundary=cut\r\nContent-Length: 1000000\r\n";
    client.send(request("POST", "/v1/files", head, "")).await;
    client.send(noise(100_000, 5)).await;
    soon(upstream.sim.wait_for_body_bytes(|bytes| bytes >= 100_000)).await;
    drop(client);
    let gone = upstream.last_ended().await;
    assert!(!gone.body_complete, "the upstream learns that the body is not whole");
    assert!(gone.client_gone());
    gateway.wait_for_health(|health| health["requests"]["running"] == 0).await;
}

#[tokio::test]
async fn a_body_whose_framing_breaks_off_is_refused_and_never_sent_on_as_whole() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    for target in ["/v1/messages", "/v1/files"] {
        let mut bytes = request("POST", target, "Transfer-Encoding: chunked\r\n", "");
        bytes.extend_from_slice(b"5\r\nhello\r\nno size\r\n");
        let mut client = gateway.client().await;
        client.send(bytes).await;
        let answer = client.answer().await;
        answer.refusal(400, "invalid_request_error");
        assert!(client.is_closed().await, "{target}: what follows has no meaning");
    }
    soon(upstream.sim.wait_for(|all| all.iter().all(|one| one.end.is_some()))).await;
    assert!(upstream.sim.requests().iter().all(|one| !one.body_complete));
    assert!(gateway.ask(whole("text=on")).await.text().contains("on"), "it still serves others");
}
