//! Who may ask for what is no model's answer, from this machine and over a network.

use crate::common::client::get;
use crate::common::pipes::{TOKEN, every_row, in_house, peer, plain};

/// A path, and whether it answers: on this machine and over a network, each without a token, with that of the gateway,
/// and with that of the admin.
const PATHS: &[(&str, [bool; 3], [bool; 3])] = &[
    ("/health", [true, true, true], [true, true, true]),
    ("/", [true, true, true], [true, true, true]),
    ("/gateway/health", [true, true, true], [false, true, true]),
    ("/gateway/providers", [true, true, true], [false, true, true]),
    ("/gateway/metrics", [true, true, true], [false, true, true]),
    ("/metrics", [true, true, true], [false, true, true]),
    ("/gateway/audit", [false, false, true], [false, false, true]),
    ("/gateway/audit/last", [false, false, true], [false, false, true]),
    ("/gateway/audit/last/request", [false, false, true], [false, false, true]),
    ("/gateway/costs", [false, false, true], [false, false, true]),
    ("/gateway/sessions", [false, false, true], [false, false, true]),
    ("/gateway/limits", [false, false, true], [false, false, true]),
];

#[test]
fn over_a_network_a_token_is_needed_for_all_but_the_bare_sign_of_life() {
    every_row(PATHS, async |(path, here, there)| {
        in_house(plain, async |house| {
            let admin = house.gateway.admin_token.expose().to_owned();
            for (address, rights) in [("127.0.0.1:40000", here), ("192.0.2.7:40000", there)] {
                for (token, allowed) in [None, Some(TOKEN), Some(&*admin)].iter().zip(rights) {
                    for field in ["Authorization: Bearer ", "x-api-key: ", "x-cco-token: "] {
                        let fields = token.map_or(String::new(), |token| format!("{field}{token}\r\n"));
                        let mut client = house.client_as(peer(address, false));
                        let reply = client.ask(get(path, &fields)).await;
                        assert_eq!(
                            reply.status != 401,
                            *allowed,
                            "{path} from {address} with {token:?}: {}",
                            reply.status
                        );
                    }
                }
            }
        })
        .await;
    });
}

#[test]
fn a_token_that_is_nearly_right_is_wrong() {
    every_row(&[()], async |()| {
        in_house(plain, async |house| {
            let admin = house.gateway.admin_token.expose().to_owned();
            for wrong in [&admin[1..], &admin[..admin.len() - 1], &format!("{admin}x"), &admin.to_uppercase(), ""] {
                let fields = format!("Authorization: Bearer {wrong}\r\n");
                assert_eq!(house.client().ask(get("/gateway/audit", &fields)).await.status, 401, "{wrong}");
            }
            let fields = format!("Authorization: Basic {admin}\r\n");
            assert_eq!(house.client().ask(get("/gateway/audit", &fields)).await.status, 401);
        })
        .await;
    });
}
