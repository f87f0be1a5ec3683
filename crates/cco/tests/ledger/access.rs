//! Who may ask what: each row of the table in `SECURITY.md`.

use serde_json::json;

use crate::common::{Gateway, Piece, request, upstream, whole};
use crate::{admin, get, home, over_socket};

/// The rows of the table: method and path, and who may ask.
fn rows() -> Vec<(String, String, String)> {
    let text = include_str!("../../../../SECURITY.md");
    let table = text.split("## Who may ask what").nth(1).unwrap();
    let cells = table.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | "));
    let mut rows = Vec::new();
    for (paths, who) in cells.filter(|(paths, _)| *paths != "path" && !paths.starts_with("---")) {
        // Of some, only a part is for fewer people.
        let paths = paths
            .rsplit_once(" in `/gateway/")
            .map_or(paths, |(_, rest)| rest.split_once(", ").map_or("", |(_, rest)| rest));
        for path in paths.split('`').skip(1).step_by(2).filter(|path| path.contains('/') && !path.starts_with("/v1")) {
            let (method, path) = path.split_once(' ').unwrap_or(("GET", path));
            rows.push((method.to_owned(), path.to_owned(), who.to_owned()));
        }
    }
    rows
}

/// The status that a path answers with; the connection goes with it.
async fn status(gateway: &Gateway, method: &str, path: &str, fields: &str) -> u16 {
    let bytes = if method == "GET" { get(path, fields) } else { request(method, path, fields, "") };
    let mut client = gateway.client().await;
    client.send(bytes).await;
    let answer = client.head().await;
    if answer.header("content-type") == Some("text/event-stream") {
        // It begins at once, and does not end.
        assert!(matches!(client.piece().await, Piece::Data(_)));
    }
    answer.status
}

#[tokio::test]
async fn every_row_of_the_table_holds() {
    let upstream = upstream().await;
    let home = home(&upstream, json!({}));
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    gateway.ask(whole("text=hi")).await;
    let token = std::fs::read_to_string(home.path().join("token")).unwrap();
    let token = format!("Authorization: Bearer {}\r\n", token.trim());
    let rows = rows();
    assert!(rows.len() >= 18, "{rows:?}");
    for (method, path, who) in &rows {
        let guarded = who.contains("the admin token, our own user over the socket");
        assert!(guarded || who.contains("everybody on this machine") || who.contains("everybody who passes"), "{who}");
        let path = match path.as_str() {
            "/gateway/audit/purge" => "/gateway/audit/purge?id=00000000".to_owned(),
            "/gateway/providers/reset" => "/gateway/providers/reset?name=anthropic".to_owned(),
            path => path.replace('*', "last"),
        };
        let well = |status: u16| status == 200 || path.contains("purge") && status == 404;
        let nobody = status(&gateway, method, &path, "").await;
        let holder = status(&gateway, method, &path, &token).await;
        let wrong = status(&gateway, method, &path, "Authorization: Bearer cco-x\r\n").await;
        if guarded {
            assert_eq!([nobody, holder, wrong], [401; 3], "{method} {path}");
        } else {
            assert!([nobody, holder, wrong].into_iter().all(well), "{method} {path}: {nobody} {holder} {wrong}");
        }
        // What would end it: who may does that below, and with a daemon.
        if ["/gateway/drain", "/gateway/restart"].contains(&path.as_str()) {
            continue;
        }
        assert!(well(status(&gateway, method, &path, &admin(&gateway)).await), "{method} {path}");
        let page = "Origin: http://evil.test\r\n";
        assert_eq!(status(&gateway, method, &path, page).await, 403, "{method} {path}");
        assert_eq!(
            status(&gateway, method, &path, &format!("{page}{}", admin(&gateway))).await,
            403,
            "{method} {path}"
        );
        if path != "/api/streams/subscribe" {
            let (over, body) = over_socket(home.path(), method, &path).await;
            assert!(well(over), "{method} {path}: {over} {body}");
        }
    }
    let (_, told) = over_socket(home.path(), "GET", "/gateway/metrics").await;
    assert!(told.contains("\"recent\":[{"), "{told}");
    let open = gateway.ask(get("/gateway/metrics", &token)).await;
    assert!(!open.text().contains("recent"), "{}", open.text());
}

#[tokio::test]
async fn whoever_may_tells_the_program_to_end() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    for fields in ["", "Authorization: Bearer cco-x\r\n"] {
        assert_eq!(status(&gateway, "POST", "/gateway/drain", fields).await, 401);
    }
    let mut running = gateway.client().await;
    running.send(crate::common::streamed("text=\"one two three\" every=100")).await;
    let mut answer = running.head().await;
    let mut gateway = gateway;
    let (status, body) = over_socket(gateway.home(), "POST", "/gateway/drain").await;
    let told: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &told["stopping"]), (200, &json!(true)));
    running.read_until(&mut answer, "message_stop").await;
    assert!(gateway.ended().await.success());
}
