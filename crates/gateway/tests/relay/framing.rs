//! One meaning per request: what could be read in two ways is refused and the connection closed; what is served arrives
//! once and well-formed.

use crate::common::client::{Ended, post};
use crate::common::pipes::{every_row, in_house, plain};

/// What becomes of the connection after the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Open,
    Close,
}
use Then::{Close, Open};

/// What is sent ([`H`] and the like expanded), the answers (negative: an error of the upstream's own), how many requests
/// arrive, and what becomes of the connection.
type Row = (&'static str, &'static [i32], usize, Then);

/// `{H}`: the fields of a good request.
const H: &str = "Host: 127.0.0.1:54548\r\nx-api-key: k\r\nanthropic-version: 2023-06-01\r\n";
/// `{B}`: a good body of 78 bytes; `{C}`: the same as one chunk.
const B: &str = r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"Hello you"}]}"#;
/// `{NEXT}`: a good request that must not be heard where the one before it is ambiguous.
const NEXT: &str = "GET /v1/models?smuggled HTTP/1.1\r\n{H}\r\n";

const REQUESTS: &[Row] = &[
    // Good ones, so that the table can fail.
    ("GET /v1/models HTTP/1.1\r\n{H}\r\n", &[200], 1, Open),
    ("GET /v1/models HTTP/1.1\r\n{H}\r\n{NEXT}", &[200, 200], 2, Open),
    ("POST /v1/messages HTTP/1.1\r\n{H}Content-Length: 79\r\n\r\n{B}", &[200], 1, Open),
    ("POST /v1/messages HTTP/1.1\r\n{H}Content-Length: 0079\r\n\r\n{B}{NEXT}", &[200, 200], 2, Open),
    ("POST /v1/messages HTTP/1.1\r\n{H}Transfer-Encoding:\tChunked \r\n\r\n{C}0\r\n\r\n{NEXT}", &[200, 200], 2, Open),
    ("GET /v1/models HTTP/1.1\r\n{H}X-Name: Gr\u{fc}\u{df}e\r\n\r\n", &[200], 1, Open),
    ("GET /v1/models?a=/../b&c=%2e%2e HTTP/1.1\r\n{H}\r\n", &[200], 1, Open),
    ("GET /v1/models HTTP/1.1\r\n{H}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", &[200], 1, Open),
    ("GET /v1/models HTTP/1.1\r\n{H}Connection: x-a, close\r\nx-a: b\r\n\r\n{NEXT}", &[200], 1, Close),
    ("GET /v1/models HTTP/1.0\r\n{H}\r\n{NEXT}", &[200], 1, Close),
    ("GET /v1/models HTTP/1.0\r\n{H}Connection: keep-alive\r\n\r\n{NEXT}", &[200, 200], 2, Open),
    ("POST /v1/messages HTTP/1.1\r\n{H}Expect: 100-continue\r\nContent-Length: 79\r\n\r\n{B}", &[200], 1, Open),
    ("GET /v1/models HTTP/1.1\r\n{H}Content-Length: 5\r\n\r\nhello{NEXT}", &[200, 200], 2, Open),
    // Host.
    ("GET /v1/models HTTP/1.1\r\nx-api-key: k\r\n\r\n{NEXT}", &[400], 0, Close),
    ("GET /v1/models HTTP/1.0\r\nx-api-key: k\r\n\r\n{NEXT}", &[400], 0, Close),
    ("GET /v1/models HTTP/1.1\r\n{H}Host: 127.0.0.1:54548\r\n\r\n{NEXT}", &[400], 0, Close),
    ("GET /v1/models HTTP/1.1\r\n{H}hOST: evil.test\r\n\r\n{NEXT}", &[400], 0, Close),
    ("GET /v1/models HTTP/1.1\r\nHost:\r\nx-api-key: k\r\n\r\n{NEXT}", &[400], 0, Close),
    ("GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1:54548, evil.test\r\n\r\n{NEXT}", &[400], 0, Close),
    ("GET /v1/models HTTP/1.1\r\nHost: evil.test@127.0.0.1:54548\r\n\r\n{NEXT}", &[400], 0, Close),
    ("GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1:54548/v1\r\n\r\n{NEXT}", &[400], 0, Close),
    ("GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1:54548?x#y\r\n\r\n{NEXT}", &[400], 0, Close),
    ("GET /v1/models HTTP/1.1\r\nHost: evil.test:54548\r\nx-api-key: k\r\n\r\n{NEXT}", &[403], 0, Close),
    ("GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nx-api-key: k\r\n\r\n{NEXT}", &[403], 0, Close),
    // Lengths.
    (
        "POST /v1/messages HTTP/1.1\r\n{H}Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG{NEXT}",
        &[400],
        0,
        Close,
    ),
    (
        "POST /v1/messages HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n{C}0\r\n\r\n{NEXT}",
        &[400],
        0,
        Close,
    ),
    (
        "POST /v1/messages HTTP/1.1\r\n{H}Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n{C}0\r\n\r\n",
        &[400],
        0,
        Close,
    ),
    ("POST /v1/messages HTTP/1.1\r\n{H}Content-Length: 79\r\nContent-Length: 79\r\n\r\n{B}{NEXT}", &[400], 0, Close),
    ("POST /v1/messages HTTP/1.1\r\n{H}Content-Length: 79\r\ncontent-length: 0\r\n\r\n{B}{NEXT}", &[400], 0, Close),
    ("POST /v1/messages HTTP/1.1\r\n{H}Content-Length: 79, 79\r\n\r\n{B}{NEXT}", &[400], 0, Close),
    ("POST /v1/messages HTTP/1.1\r\n{H}Content-Length: +79\r\n\r\n{B}{NEXT}", &[400], 0, Close),
    ("POST /v1/messages HTTP/1.1\r\n{H}Content-Length: -1\r\n\r\n{B}{NEXT}", &[400], 0, Close),
    ("POST /v1/messages HTTP/1.1\r\n{H}Content-Length: 0x4f\r\n\r\n{B}{NEXT}", &[400], 0, Close),
    ("POST /v1/messages HTTP/1.1\r\n{H}Content-Length: 7 9\r\n\r\n{B}{NEXT}", &[400], 0, Close),
    ("POST /v1/messages HTTP/1.1\r\n{H}Content-Length: 79.0\r\n\r\n{B}{NEXT}", &[400], 0, Close),
    ("POST /v1/messages HTTP/1.1\r\n{H}Content-Length:\r\n\r\n{B}{NEXT}", &[400], 0, Close),
    ("POST /v1/messages HTTP/1.1\r\n{H}Content-Length: 18446744073709551695\r\n\r\n{B}{NEXT}", &[400], 0, Close),
    ("POST /v1/messages HTTP/1.1\r\n{H}Content-Length : 79\r\n\r\n{B}{NEXT}", &[400], 0, Close),
    ("POST /v1/messages HTTP/1.1\r\n{H}Content-Length\r\n : 79\r\n\r\n{B}{NEXT}", &[400], 0, Close),
    ("POST /v1/messages HTTP/1.1\r\n{H}Content-Length: 99999999999\r\n\r\n{B}{NEXT}", &[413], 0, Close),
    // Without a length there is no body: what follows is the next request.
    ("POST /v1/messages HTTP/1.1\r\n{H}\r\n{NEXT}", &[-400, 200], 2, Open),
    ("POST /v1/messages HTTP/1.1\r\n{H}Content-Length: 0\r\n\r\n{B}{NEXT}", &[-400, 400], 1, Close),
    // Encodings.
    (
        "POST /v1/messages HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n{C}0\r\n\r\n{NEXT}",
        &[400],
        0,
        Close,
    ),
    (
        "POST /v1/messages HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\ntransfer-encoding: x\r\n\r\n{C}0\r\n\r\n{NEXT}",
        &[400],
        0,
        Close,
    ),
    (
        "POST /v1/messages HTTP/1.1\r\n{H}Transfer-Encoding: chunked, chunked\r\n\r\n{C}0\r\n\r\n{NEXT}",
        &[400],
        0,
        Close,
    ),
    ("POST /v1/messages HTTP/1.1\r\n{H}Transfer-Encoding: gzip, chunked\r\n\r\n{C}0\r\n\r\n{NEXT}", &[400], 0, Close),
    (
        "POST /v1/messages HTTP/1.1\r\n{H}Transfer-Encoding: chunked, identity\r\n\r\n{C}0\r\n\r\n{NEXT}",
        &[400],
        0,
        Close,
    ),
    ("POST /v1/messages HTTP/1.1\r\n{H}Transfer-Encoding: identity\r\n\r\n{B}{NEXT}", &[400], 0, Close),
    ("POST /v1/messages HTTP/1.1\r\n{H}Transfer-Encoding: xchunked\r\n\r\n{C}0\r\n\r\n{NEXT}", &[400], 0, Close),
    ("POST /v1/messages HTTP/1.1\r\n{H}Transfer-Encoding: \"chunked\"\r\n\r\n{C}0\r\n\r\n{NEXT}", &[400], 0, Close),
    ("POST /v1/messages HTTP/1.1\r\n{H}Transfer-Encoding: chunked;q=1\r\n\r\n{C}0\r\n\r\n{NEXT}", &[400], 0, Close),
    ("POST /v1/messages HTTP/1.1\r\n{H}Transfer-Encoding: \u{b}chunked\r\n\r\n{C}0\r\n\r\n{NEXT}", &[400], 0, Close),
    ("POST /v1/messages HTTP/1.1\r\n{H}Transfer-Encoding: \u{c}chunked\r\n\r\n{C}0\r\n\r\n{NEXT}", &[400], 0, Close),
    ("POST /v1/messages HTTP/1.1\r\n{H}Transfer-Encoding: chunked\0\r\n\r\n{C}0\r\n\r\n{NEXT}", &[400], 0, Close),
    ("POST /v1/messages HTTP/1.1\r\n{H}Transfer-Encoding : chunked\r\n\r\n{C}0\r\n\r\n{NEXT}", &[400], 0, Close),
    ("POST /v1/messages HTTP/1.1\r\n{H}Transfer-Encoding:\r\n chunked\r\n\r\n{C}0\r\n\r\n{NEXT}", &[400], 0, Close),
    (
        "POST /v1/messages HTTP/1.1\r\n{H}X: y\r\n Transfer-Encoding: chunked\r\n\r\n{C}0\r\n\r\n{NEXT}",
        &[400],
        0,
        Close,
    ),
    ("POST /v1/messages HTTP/1.1\r\n{H}X: y\nTransfer-Encoding: chunked\r\n\r\n{C}0\r\n\r\n{NEXT}", &[400], 0, Close),
    ("POST /v1/messages HTTP/1.1\r\n{H}X: y\rTransfer-Encoding: chunked\r\n\r\n{C}0\r\n\r\n{NEXT}", &[400], 0, Close),
    ("POST /v1/messages HTTP/1.1\r\n{H}Transfer\u{fc}Encoding: chunked\r\n\r\n{C}0\r\n\r\n{NEXT}", &[400], 0, Close),
    ("POST /v1/messages HTTP/1.0\r\n{H}Transfer-Encoding: chunked\r\n\r\n{C}0\r\n\r\n{NEXT}", &[400], 0, Close),
    ("POST /v1/messages HTTP/1.1\r\n{H}Transfer-Encoding:\r\n\r\n{B}{NEXT}", &[400], 0, Close),
    // Lines.
    ("GET /v1/models HTTP/1.1\nHost: 127.0.0.1:54548\n\n{NEXT}", &[400], 0, Close),
    ("GET /v1/models HTTP/1.1\r\n{H}\n{NEXT}", &[400], 0, Close),
    ("GET /v1/models HTTP/1.1\r\n{H}X: y\n\r\n{NEXT}", &[400], 0, Close),
    ("\r\nGET /v1/models HTTP/1.1\r\n{H}\r\n{NEXT}", &[400], 0, Close),
    ("GET /v1/models HTTP/1.1\r\n {H}\r\n{NEXT}", &[400], 0, Close),
    ("GET /v1/models HTTP/1.1\r\n{H}: y\r\n\r\n{NEXT}", &[400], 0, Close),
    ("GET /v1/models HTTP/1.1\r\n{H}no colon\r\n\r\n{NEXT}", &[400], 0, Close),
    ("GET /v1/models HTTP/1.1\r\n{H}X: a\0b\r\n\r\n{NEXT}", &[400], 0, Close),
    ("GET /v1/models HTTP/1.1\r\n{H}X: a\u{7f}b\r\n\r\n{NEXT}", &[400], 0, Close),
    ("GET /v1/models HTTP/1.1\r\n{H}X: a\u{1}b\r\n\r\n{NEXT}", &[400], 0, Close),
    ("GET /v1/models HTTP/1.1\r\n{H}X\u{1}: b\r\n\r\n{NEXT}", &[400], 0, Close),
    ("GET /v1/models HTTP/1.1\r\n{H}(X): b\r\n\r\n{NEXT}", &[400], 0, Close),
    ("GET /v1/models HTTP/1.1\r\n{H}X: folded\r\n\tvalue\r\n\r\n{NEXT}", &[400], 0, Close),
    // Start lines.
    ("GET  /v1/models HTTP/1.1\r\n{H}\r\n{NEXT}", &[400], 0, Close),
    ("GET\t/v1/models HTTP/1.1\r\n{H}\r\n{NEXT}", &[400], 0, Close),
    (" GET /v1/models HTTP/1.1\r\n{H}\r\n{NEXT}", &[400], 0, Close),
    ("GET /v1/models  HTTP/1.1\r\n{H}\r\n{NEXT}", &[400], 0, Close),
    ("GET /v1/models HTTP/1.1 \r\n{H}\r\n{NEXT}", &[400], 0, Close),
    ("GET /v1/models\r\n\r\n{NEXT}", &[400], 0, Close),
    ("GET /v1/models HTTP/0.9\r\n{H}\r\n{NEXT}", &[400], 0, Close),
    ("GET /v1/models HTTP/1.2\r\n{H}\r\n{NEXT}", &[400], 0, Close),
    ("GET /v1/models HTTP/1.10\r\n{H}\r\n{NEXT}", &[400], 0, Close),
    ("GET /v1/models HTTP/2.0\r\n{H}\r\n{NEXT}", &[400], 0, Close),
    ("GET /v1/models http/1.1\r\n{H}\r\n{NEXT}", &[400], 0, Close),
    ("GET /v1/models FTP/1.1\r\n{H}\r\n{NEXT}", &[400], 0, Close),
    ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0", &[400], 0, Close),
    ("G(T /v1/models HTTP/1.1\r\n{H}\r\n{NEXT}", &[400], 0, Close),
    ("\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}", &[408], 0, Close),
    // Targets.
    ("GET http://127.0.0.1:54548/v1/models HTTP/1.1\r\n{H}\r\n{NEXT}", &[400], 0, Close),
    ("GET http://evil.test/v1/models HTTP/1.1\r\n{H}\r\n{NEXT}", &[400], 0, Close),
    ("OPTIONS * HTTP/1.1\r\n{H}\r\n{NEXT}", &[400], 0, Close),
    ("CONNECT evil.test:443 HTTP/1.1\r\n{H}\r\n{NEXT}", &[400], 0, Close),
    ("CONNECT /v1/models HTTP/1.1\r\n{H}\r\n{NEXT}", &[405], 0, Close),
    ("TRACE /v1/models HTTP/1.1\r\n{H}\r\n{NEXT}", &[405], 0, Close),
    ("TRACE /health HTTP/1.1\r\n{H}\r\n{NEXT}", &[405], 0, Close),
    ("GET v1/models HTTP/1.1\r\n{H}\r\n{NEXT}", &[400], 0, Close),
    ("GET /v1/mo\u{1}dels HTTP/1.1\r\n{H}\r\n{NEXT}", &[400], 0, Close),
    ("GET /v1/models\u{7f} HTTP/1.1\r\n{H}\r\n{NEXT}", &[400], 0, Close),
    ("GET /v1/m\u{f6}dels HTTP/1.1\r\n{H}\r\n{NEXT}", &[400], 0, Close),
    ("GET /v1/models#x HTTP/1.1\r\n{H}\r\n{NEXT}", &[400], 0, Close),
    ("GET /v1/models\\x HTTP/1.1\r\n{H}\r\n{NEXT}", &[400], 0, Close),
    ("GET /v1/../admin HTTP/1.1\r\n{H}\r\n{NEXT}", &[400], 0, Close),
    ("GET /v1/models/.. HTTP/1.1\r\n{H}\r\n{NEXT}", &[400], 0, Close),
    ("GET /v1/./models HTTP/1.1\r\n{H}\r\n{NEXT}", &[400], 0, Close),
    ("GET /v1/%2e%2e/admin HTTP/1.1\r\n{H}\r\n{NEXT}", &[400], 0, Close),
    ("GET /v1/.%2E/admin HTTP/1.1\r\n{H}\r\n{NEXT}", &[400], 0, Close),
    ("GET /v1/%2e%2e%2fadmin HTTP/1.1\r\n{H}\r\n{NEXT}", &[400], 0, Close),
    ("GET /v1/x%2f..%2fadmin HTTP/1.1\r\n{H}\r\n{NEXT}", &[400], 0, Close),
    ("GET /v1/..%5cadmin HTTP/1.1\r\n{H}\r\n{NEXT}", &[400], 0, Close),
    ("GET //v1/models HTTP/1.1\r\n{H}\r\n{NEXT}", &[404, 200], 1, Open),
    ("GET /v1%2fmodels HTTP/1.1\r\n{H}\r\n{NEXT}", &[404, 200], 1, Open),
    ("GET /V1/models HTTP/1.1\r\n{H}\r\n{NEXT}", &[404, 200], 1, Open),
    // Chunks.
    (
        "POST /v1/messages HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n004f;a=b;c=\"d\"\r\n{B}\r\n0;e\r\n\r\n",
        &[200],
        1,
        Open,
    ),
    ("POST /v1/messages HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n{C}000\r\n\r\n{NEXT}", &[200, 200], 2, Open),
    (
        "POST /v1/messages HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n{C}0\r\nHost: evil.test\r\nContent-Length: 9\r\n\r\n{NEXT}",
        &[200, 200],
        2,
        Open,
    ),
    (
        "POST /v1/messages HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{C}0\r\n\r\n{NEXT}",
        &[-400, 400],
        1,
        Close,
    ),
    (
        "POST /v1/messages HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n0x4f\r\n{B}\r\n0\r\n\r\n{NEXT}",
        &[400],
        0,
        Close,
    ),
    (
        "POST /v1/messages HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n+4f\r\n{B}\r\n0\r\n\r\n{NEXT}",
        &[400],
        0,
        Close,
    ),
    (
        "POST /v1/messages HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n-4f\r\n{B}\r\n0\r\n\r\n{NEXT}",
        &[400],
        0,
        Close,
    ),
    (
        "POST /v1/messages HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n 4f\r\n{B}\r\n0\r\n\r\n{NEXT}",
        &[400],
        0,
        Close,
    ),
    (
        "POST /v1/messages HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n4f \r\n{B}\r\n0\r\n\r\n{NEXT}",
        &[400],
        0,
        Close,
    ),
    (
        "POST /v1/messages HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n4f\t;a\r\n{B}\r\n0\r\n\r\n{NEXT}",
        &[400],
        0,
        Close,
    ),
    ("POST /v1/messages HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n\r\n{B}\r\n0\r\n\r\n{NEXT}", &[400], 0, Close),
    (
        "POST /v1/messages HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n;a\r\n{B}\r\n0\r\n\r\n{NEXT}",
        &[400],
        0,
        Close,
    ),
    (
        "POST /v1/messages HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n4g\r\n{B}\r\n0\r\n\r\n{NEXT}",
        &[400],
        0,
        Close,
    ),
    (
        "POST /v1/messages HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n1000000000000004f\r\n{B}\r\n0\r\n\r\n{NEXT}",
        &[400],
        0,
        Close,
    ),
    ("POST /v1/messages HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n4f\n{B}\r\n0\r\n\r\n{NEXT}", &[400], 0, Close),
    ("POST /v1/messages HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n4f\r{B}\r\n0\r\n\r\n{NEXT}", &[400], 0, Close),
    (
        "POST /v1/messages HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n4f;a\nb\r\n{B}\r\n0\r\n\r\n{NEXT}",
        &[400],
        0,
        Close,
    ),
    (
        "POST /v1/messages HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n4f;a\rb\r\n{B}\r\n0\r\n\r\n{NEXT}",
        &[400],
        0,
        Close,
    ),
    ("POST /v1/messages HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n4f\r\n{B}0\r\n\r\n{NEXT}", &[400], 0, Close),
    ("POST /v1/messages HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n4f\r\n{B}\n0\r\n\r\n{NEXT}", &[400], 0, Close),
    (
        "POST /v1/messages HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n4e\r\n{B}\r\n0\r\n\r\n{NEXT}",
        &[400],
        0,
        Close,
    ),
    ("POST /v1/messages HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n{C}0\r\nX: y\n\r\n{NEXT}", &[400], 0, Close),
    ("POST /v1/messages HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n{C}0\r\n\n{NEXT}", &[400], 0, Close),
];

fn expand(text: &str) -> Vec<u8> {
    let chunk = format!("{:x}\r\n{B}\r\n", B.len());
    let text = text.replace("{NEXT}", NEXT).replace("{C}", &chunk).replace("{B}", B).replace("{H}", H);
    // One byte each: what is not ASCII is not UTF-8 either.
    text.chars().map(|c| u8::try_from(c).unwrap()).collect()
}

async fn check(bytes: &[u8], answers: &[i32], arrived: usize, then: Then) {
    in_house(plain, async |house| {
        let mut client = house.client();
        client.send(bytes).await;
        for want in answers {
            let reply = client.reply().await;
            assert_eq!((i32::from(reply.status), reply.ended), (want.abs(), Ended::Whole), "{}", reply.text());
            let kind = match want {
                400 | 405 | 431 => "invalid_request_error",
                403 => "permission_error",
                404 => "not_found_error",
                408 => "timeout_error",
                413 => "request_too_large",
                _ => continue,
            };
            assert_eq!(reply.refusal().0, kind);
        }
        match then {
            Close => client.closes().await,
            Open => assert_eq!(client.ask(expand("GET /health HTTP/1.1\r\n{H}\r\n")).await.status, 200),
        }
        let requests = house.sim.requests();
        assert_eq!(requests.len(), arrived);
        for request in requests {
            assert!(request.body_complete && request.oddities.is_empty(), "{request:?}");
            assert!(answers.len() > 1 || !request.target.contains("smuggled"));
            assert_eq!(request.header_all("host"), ["upstream.test"]);
        }
    })
    .await;
}

#[test]
fn a_request_has_one_meaning_or_none() {
    assert_eq!(B.len(), 79);
    every_row(REQUESTS, async |(text, answers, arrived, then)| check(&expand(text), answers, *arrived, *then).await);
}

/// The same bytes, one by one: where they are cut changes nothing.
#[test]
fn a_request_means_the_same_when_it_comes_byte_by_byte() {
    every_row(REQUESTS, async |(text, answers, arrived, then)| {
        in_house(plain, async |house| {
            let mut client = house.client();
            for byte in expand(text) {
                client.send([byte]).await;
                tokio::task::yield_now().await;
            }
            for want in *answers {
                assert_eq!(i32::from(client.reply().await.status), want.abs());
            }
            if *then == Close {
                client.closes().await;
            }
            assert_eq!(house.sim.requests().len(), *arrived);
        })
        .await;
    });
}

#[tokio::test(start_paused = true)]
async fn heads_are_limited_in_size_and_number() {
    let with = |fields: String| expand(&format!("GET /v1/models HTTP/1.1\r\n{{H}}{fields}\r\n{{NEXT}}"));
    check(&with(format!("X: {}\r\n", "y".repeat(60_000))), &[200, 200], 2, Open).await;
    check(&with("X: y\r\n".repeat(120)), &[200, 200], 2, Open).await;
    check(&with(format!("X: {}\r\n", "y".repeat(66_000))), &[431], 0, Close).await;
    check(&with("X: y\r\n".repeat(126)), &[431], 0, Close).await;
    check(&with("X: y\r\n".repeat(20_000)), &[431], 0, Close).await;
    check(&[b'x'; 200_000], &[431], 0, Close).await;
    check(&expand(&format!("GET /v1/{} HTTP/1.1\r\n{{H}}\r\n", "y".repeat(66_000))), &[431], 0, Close).await;
    let chunked =
        |rest: String| expand(&format!("POST /v1/messages HTTP/1.1\r\n{{H}}Transfer-Encoding: chunked\r\n\r\n{rest}"));
    check(&chunked(format!("4f;{}\r\n{{B}}\r\n0\r\n\r\n", "x".repeat(9000))), &[400], 0, Close).await;
    check(&chunked(format!("{{C}}0\r\n{}\r\n", "X: y\r\n".repeat(3000))), &[400], 0, Close).await;
}

/// A body that goes up while it arrives: what is wrong with it shows when a part has gone up already.
#[tokio::test(start_paused = true)]
async fn an_upload_whose_framing_breaks_is_not_ended_properly_above() {
    for bad in ["zz\r\n", "5\r\nhelloX", "5\nhello\r\n"] {
        in_house(plain, async |house| {
            let mut client = house.client();
            let text = "POST /v1/files HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
            client.send(expand(&format!("{text}{bad}{{NEXT}}"))).await;
            let reply = client.reply().await;
            assert_eq!((reply.status, reply.refusal().0.as_str()), (400, "invalid_request_error"));
            client.closes().await;
            house.sim.wait_for_connections(|open| open == 0).await;
            let requests = house.sim.requests();
            assert_eq!(requests.len(), 1);
            assert!(!requests[0].body_complete && requests[0].target == "/v1/files");
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_refused_request_still_sends_is_never_a_request() {
    in_house(
        |s| s["server"]["maxBodyMb"] = 1.into(),
        async |house| {
            // Larger than it may be, larger than any pipe, and full of requests.
            let mut client = house.client();
            let body = String::from_utf8(expand(&NEXT.repeat(20_000))).unwrap();
            let request = post("/v1/messages", "x-api-key: k\r\n", &body);
            let (reply, ()) = tokio::join!(
                async {
                    client.send(&request).await;
                    client.reply().await
                },
                async {}
            );
            assert_eq!((reply.status, reply.refusal().0.as_str()), (413, "request_too_large"));
            client.closes().await;
            assert_eq!(house.dialed(), 0);
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_there_twice_is_our_400_and_everything_else_odd_is_the_upstreams() {
    for (body, ours) in [
        (r#"{"model":"a","model":"b"}"#, true),
        (r#"{"stream":true,"x":{"stream":false},"stream":true}"#, true),
        (r#"{"model":"a","mod\u0065l":"b"}"#, true),
        (r#"{"x":{"model":"a","model":"b"}}"#, false),
        ("", false),
        ("not json", false),
        (r#"{"model":1}"#, false),
        ("[[[[[[", false),
    ] {
        in_house(plain, async |house| {
            let mut client = house.client();
            let reply = client.ask(post("/v1/messages", "x-api-key: k\r\n", body)).await;
            assert_eq!((reply.status, house.sim.requests().len()), (400, usize::from(!ours)), "{body}");
            if ours {
                assert_eq!(reply.refusal().0, "invalid_request_error");
                assert_eq!(reply.header("x-should-retry"), Some("false"));
            } else {
                assert_eq!(house.sim.requests()[0].body, body.as_bytes());
            }
            assert!(reply.keeps());
        })
        .await;
    }
}
