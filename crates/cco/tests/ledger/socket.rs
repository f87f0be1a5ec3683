//! The socket of our own user: who finds it, and what becomes of it.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};

use serde_json::json;

use crate::common::{Gateway, upstream, whole};
use crate::{cco, home, over_socket, printed, stop, text};

#[tokio::test]
async fn it_is_closed_to_others_and_goes_with_the_gateway() {
    let upstream = upstream().await;
    let home = home(&upstream, json!({}));
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    let path = home.path().join("cco.sock");
    let about = std::fs::symlink_metadata(&path).unwrap();
    assert!(about.file_type().is_socket());
    assert_eq!(about.permissions().mode() & 0o777, 0o600);
    // Neither the name of a host nor that of a page matters here.
    assert_eq!(over_socket(home.path(), "GET", "/gateway/audit").await.0, 200);
    assert_eq!(over_socket(home.path(), "GET", "/nothing").await.0, 404);
    stop(gateway).await;
    assert!(!path.exists());
}

#[tokio::test]
async fn what_a_killed_gateway_leaves_is_replaced() {
    let upstream = upstream().await;
    let home = home(&upstream, json!({}));
    let mut gateway = Gateway::start_in(home.path(), &[], &[]).await;
    gateway.signal("KILL").await;
    gateway.ended().await;
    assert!(home.path().join("cco.sock").exists());
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    let id = gateway.ask(whole("text=hi")).await.id().to_owned();
    let output = cco(home.path(), &["logs", "--json"]).await;
    assert!(printed(&output).contains(&id) && output.stderr.is_empty(), "{}", text(&output.stderr));
}

#[tokio::test]
async fn a_second_gateway_leaves_it_to_the_first() {
    let upstream = upstream().await;
    let home = home(&upstream, json!({}));
    let first = Gateway::start_in(home.path(), &[], &[]).await;
    let second = Gateway::start_in(home.path(), &[], &[]).await;
    second.log_line(&["another gateway answers there"]).await;
    assert_eq!(second.ask(whole("text=hi")).await.status, 200);
    stop(second).await;
    let (status, health) = over_socket(home.path(), "GET", "/gateway/health").await;
    assert!(status == 200 && health.contains("\"requests\":{\"by_outcome\":{},"), "it is the first one's: {health}");
    stop(first).await;
}

#[tokio::test]
async fn what_is_in_the_way_stays_and_the_gateway_serves_without_it() {
    let upstream = upstream().await;
    let home = home(&upstream, json!({}));
    std::fs::write(home.path().join("cco.sock"), "mine").unwrap();
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    gateway.log_line(&["what lies there is no socket"]).await;
    let id = gateway.ask(whole("text=hi")).await.id().to_owned();
    // Commands read the files of the gateway that runs.
    let output = cco(home.path(), &["logs", "--json"]).await;
    assert!(printed(&output).contains(&id), "{}", printed(&output));
    stop(gateway).await;
    assert_eq!(std::fs::read_to_string(home.path().join("cco.sock")).unwrap(), "mine");
}
