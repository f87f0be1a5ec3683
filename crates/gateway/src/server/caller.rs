//! Who calls, and what may be spent for it.

use http1::RequestHead;

use crate::catalog::Auth;
use crate::client::peer::Peer;
use crate::error::{ErrorKind, Refusal, Retry};
use crate::headers::bearer;
use crate::route::{Purse, RuleSet, vendor_of_key};
use crate::secret::Secret;

/// The text that a client which insists on a key is given when it should spend ours.
pub const PLACEHOLDER: &str = "cco";

/// Where a remote caller that brings its own key shows our token.
pub const TOKEN_HEADER: &str = "x-cco-token";

/// A caller's own key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnKey {
    /// The form in which it goes up; `None`: as its provider wants it, for it came in two forms.
    pub form: Option<Auth>,
    /// The key.
    pub key: Secret,
}

/// What may be spent for a request. There is always something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Means {
    /// The caller's own key.
    pub own: Option<OwnKey>,
    /// Whether stored keys may be spent.
    pub stored: bool,
    /// Whether the gateway's token was shown.
    pub by_token: bool,
}

/// What a caller may do here.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// The gateway's token.
    pub token: Option<&'a Secret>,
    /// Whether every local caller may spend stored keys.
    pub open: bool,
}

/// The one or two keys of a request.
struct Presented<'a> {
    bearer: Option<&'a str>,
    api_key: Option<&'a str>,
    /// Whether there is an `authorization` of another kind.
    other: bool,
}

impl<'a> Presented<'a> {
    fn of(head: &'a RequestHead) -> Result<Self, Refusal> {
        let mut found = Self { bearer: None, api_key: None, other: false };
        for field in head.fields() {
            let (slot, value) = match field.name.len() {
                13 if field.is("authorization") => match bearer(field.value) {
                    Some(token) => (&mut found.bearer, token),
                    None => {
                        found.other |= !field.value.is_empty();
                        continue;
                    }
                },
                9 if field.is("x-api-key") => (&mut found.api_key, field.value),
                7 if field.is("api-key") => (&mut found.api_key, field.value),
                _ => continue,
            };
            let Ok(value) = std::str::from_utf8(value) else { return Err(unreadable()) };
            if value.is_empty() {
                continue;
            }
            if slot.replace(value).is_some_and(|earlier| earlier != value) {
                let message = "the same credential header is given twice with different values: send one";
                return Err(Refusal::new(ErrorKind::Authentication, message).retry(Retry::Never));
            }
        }
        Ok(found)
    }

    fn is_none(&self) -> bool {
        self.bearer.is_none() && self.api_key.is_none()
    }

    fn any(&self, test: impl Fn(&str) -> bool) -> bool {
        self.bearer.is_some_and(&test) || self.api_key.is_some_and(&test)
    }
}

fn unreadable() -> Refusal {
    Refusal::new(ErrorKind::Authentication, "the credential is not readable text").retry(Retry::Never)
}

/// Decides what may be spent. Pure but for the look-up of the peer's user, which happens only when it matters: of the
/// owner of a key `asks` says whether it does.
pub fn means(
    head: &RequestHead,
    peer: &Peer,
    rules: &Rules<'_>,
    asks: impl FnOnce(&str) -> bool,
) -> Result<Means, Refusal> {
    let presented = Presented::of(head)?;
    let is_token = |value: &str| rules.token.is_some_and(|token| token.matches(value.as_bytes()));
    let has_token =
        presented.any(is_token) || head.get(TOKEN_HEADER).is_some_and(|v| rules.token.is_some_and(|t| t.matches(v)));
    if !peer.is_loopback() && !has_token {
        let message = "this gateway is reached over a network: send its token as the key, or your own key and the token in `x-cco-token`";
        return Err(Refusal::new(ErrorKind::Authentication, message).retry(Retry::Never));
    }
    // A key that we cannot read is not the same as none: whoever sent it does not expect to spend ours.
    if presented.other && presented.is_none() && !has_token {
        let message = "the `authorization` header is not `Bearer KEY`: send it so, or the key in `x-api-key`";
        return Err(Refusal::new(ErrorKind::Authentication, message).retry(Retry::Never));
    }
    let may_spend_ours = || has_token || rules.open && peer.is_loopback() || peer.is_own_user();
    // Our token or the placeholder in place of a key asks for ours, whatever the other header holds.
    let asks_for_ours = presented.any(|value| value == PLACEHOLDER || is_token(value));
    match own_key(&presented, is_token) {
        Some((form, key)) if !(asks_for_ours && may_spend_ours()) => {
            let stored = !asks_for_ours && asks(key) && may_spend_ours();
            Ok(Means { own: Some(OwnKey { form, key: Secret::new(key) }), stored, by_token: has_token })
        }
        _ if may_spend_ours() => Ok(Means { own: None, stored: true, by_token: has_token }),
        _ => {
            let message = "no key: send your own in `x-api-key` or `authorization`, or the gateway's token (`token` in CCO_HOME), \
                           or set `server.openStoredKeys`";
            Err(Refusal::new(ErrorKind::Authentication, message).retry(Retry::Never))
        }
    }
}

/// What a caller is told who brought a key for which there is no provider, and may spend no other.
pub fn homeless(means: &Means, purse: &Purse, rules: &RuleSet) -> Option<Refusal> {
    let own = means.own.as_ref().filter(|_| purse.own.is_none() && !purse.stored)?;
    let kind = vendor_of_key(own.key.expose())?;
    if let Some(name) = rules.switched_off(kind) {
        let message = format!(
            "the key of this request is one for the provider `{name}`, which is disabled: set `providers.{name}.enabled`"
        );
        return Some(Refusal::new(ErrorKind::Unavailable, message).retry(Retry::Never));
    }
    let message = format!(
        "the key of this request is one for `{kind}`, and no provider of this type is there to take it: configure one \
         (`\"providerType\": \"{kind}\"`), or send the gateway's token (`token` in CCO_HOME) in place of the key to \
         spend stored ones"
    );
    Some(Refusal::new(ErrorKind::Authentication, message).retry(Retry::Never))
}

/// The caller's own key and the form it goes up in; our token and the placeholder are none.
fn own_key<'a>(presented: &Presented<'a>, is_token: impl Fn(&str) -> bool) -> Option<(Option<Auth>, &'a str)> {
    let foreign = |value: &&str| *value != PLACEHOLDER && !is_token(value);
    match (presented.bearer.filter(foreign), presented.api_key.filter(foreign)) {
        // A subscription's token is only ever accepted as a bearer.
        (Some(bearer), _) if bearer.starts_with("sk-ant-oat") => Some((Some(Auth::Bearer), bearer)),
        (_, Some(key)) if key.starts_with("sk-ant-oat") => Some((Some(Auth::Bearer), key)),
        (Some(bearer), Some(key)) if bearer == key => Some((None, key)),
        (Some(bearer), Some(_)) if bearer.starts_with("sk-ant-") => Some((Some(Auth::Bearer), bearer)),
        (_, Some(key)) => Some((Some(Auth::XApiKey), key)),
        (Some(bearer), None) => Some((Some(Auth::Bearer), bearer)),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use http1::{Limits, Scan};

    /// Whose key is spent by a caller with a provider that takes callers' keys.
    #[derive(Debug, PartialEq, Eq)]
    enum Payer {
        Own(Option<Auth>, Secret),
        Stored,
    }

    fn decide(fields: &str, remote: &str, own_user: bool, open: bool) -> Result<Means, u16> {
        let text = format!("POST /v1/messages HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        let head = RequestHead::take(&mut BytesMut::from(&*text), &mut Scan::default(), &Limits::default());
        let peer = Peer::known(remote.parse().unwrap(), "127.0.0.1:54548".parse().unwrap(), own_user);
        let token = Secret::new("cco-token-0123456789");
        let rules = Rules { token: Some(&token), open };
        means(&head.unwrap().unwrap(), &peer, &rules, |_| true).map_err(|refusal| {
            assert_eq!(refusal.retry, Retry::Never);
            refusal.kind.status()
        })
    }

    fn payer(means: Means) -> Payer {
        means.own.map_or(Payer::Stored, |own| Payer::Own(own.form, own.key))
    }

    #[track_caller]
    fn check(fields: &str, remote: &str, own_user: bool, open: bool, want: Result<Payer, u16>) {
        assert_eq!(decide(fields, remote, own_user, open).map(payer), want, "{fields}");
    }

    #[track_caller]
    fn local(fields: &str, want: Result<Payer, u16>) {
        check(fields, "127.0.0.1:40000", false, false, want);
    }

    fn own(form: Auth, key: &str) -> Result<Payer, u16> {
        Ok(Payer::Own(Some(form), Secret::new(key)))
    }

    #[test]
    fn a_callers_own_key_goes_up_in_the_form_it_came_in() {
        local("x-api-key: sk-ant-api03-x\r\n", own(Auth::XApiKey, "sk-ant-api03-x"));
        local("Authorization: Bearer sk-ant-api03-x\r\n", own(Auth::Bearer, "sk-ant-api03-x"));
        local("authorization: bearer  sk-ant-oat01-x\r\n", own(Auth::Bearer, "sk-ant-oat01-x"));
        local("x-api-key: sk-ant-oat01-x\r\n", own(Auth::Bearer, "sk-ant-oat01-x"));
        local("authorization: Bearer\tsk-ant-api03-x\r\n", own(Auth::Bearer, "sk-ant-api03-x"));
    }

    #[test]
    fn of_two_forms_one_goes_up() {
        local("x-api-key: k\r\nauthorization: Bearer k\r\n", Ok(Payer::Own(None, Secret::new("k"))));
        local("x-api-key: k\r\nauthorization: Bearer sk-ant-api03-y\r\n", own(Auth::Bearer, "sk-ant-api03-y"));
        local("x-api-key: k\r\nauthorization: Bearer other\r\n", own(Auth::XApiKey, "k"));
        local("x-api-key: cco\r\nauthorization: Bearer other\r\n", own(Auth::Bearer, "other"));
        local(
            "x-api-key: sk-ant-oat01-x\r\nauthorization: Bearer sk-ant-api03-y\r\n",
            own(Auth::Bearer, "sk-ant-oat01-x"),
        );
        local("x-api-key: a\r\nx-api-key: b\r\n", Err(401));
    }

    #[test]
    fn the_token_spends_the_stored_key() {
        local("x-api-key: cco-token-0123456789\r\n", Ok(Payer::Stored));
        local("authorization: Bearer cco-token-0123456789\r\n", Ok(Payer::Stored));
        local("x-cco-token: cco-token-0123456789\r\n", Ok(Payer::Stored));
        local("x-cco-token: cco-token-0123456789\r\nx-api-key: k\r\n", own(Auth::XApiKey, "k"));
    }

    #[test]
    fn whoever_asks_for_the_stored_key_gets_it_whatever_else_is_sent() {
        local("x-api-key: cco-token-0123456789\r\nauthorization: Bearer sk-ant-oat01-x\r\n", Ok(Payer::Stored));
        local("x-api-key: k\r\nauthorization: Bearer cco-token-0123456789\r\n", Ok(Payer::Stored));
        let placeholder = "x-api-key: cco\r\nauthorization: Bearer sk-ant-oat01-x\r\n";
        check(placeholder, "127.0.0.1:1", true, false, Ok(Payer::Stored));
        // Who may not spend it has a key of its own.
        local(placeholder, own(Auth::Bearer, "sk-ant-oat01-x"));
    }

    #[test]
    fn a_credential_of_another_kind_is_not_taken_for_none() {
        for fields in ["authorization: Basic dTpw\r\n", "authorization: sk-ant-api03-x\r\n"] {
            check(fields, "127.0.0.1:1", true, true, Err(401));
            local(&format!("{fields}x-api-key: k\r\n"), own(Auth::XApiKey, "k"));
            local(&format!("{fields}x-cco-token: cco-token-0123456789\r\n"), Ok(Payer::Stored));
        }
        for fields in ["authorization:\r\n", "authorization: Bearer\r\n"] {
            check(fields, "127.0.0.1:1", true, false, Ok(Payer::Stored));
        }
    }

    #[test]
    fn without_a_key_only_our_own_user_spends_the_stored_one() {
        for fields in ["", "x-api-key: cco\r\n", "authorization: Bearer cco\r\n", "x-api-key:\r\n"] {
            local(fields, Err(401));
            check(fields, "127.0.0.1:1", true, false, Ok(Payer::Stored));
            check(fields, "127.0.0.1:1", false, true, Ok(Payer::Stored));
        }
    }

    #[test]
    fn beside_an_own_key_stored_ones_may_be_spent_by_whoever_has_the_right() {
        let stored = |fields: &str, own_user, open| {
            let means = decide(fields, "127.0.0.1:1", own_user, open).unwrap();
            assert!(means.own.is_some(), "{fields}");
            means.stored
        };
        let key = "x-api-key: k\r\n";
        assert_eq!(
            [stored(key, false, false), stored(key, true, false), stored(key, false, true)],
            [false, true, true]
        );
        assert!(stored("x-api-key: k\r\nx-cco-token: cco-token-0123456789\r\n", false, false));
        assert!(!stored("x-api-key: k\r\nx-cco-token: other\r\n", false, false));
    }

    #[test]
    fn over_a_network_nothing_goes_without_the_token() {
        check("x-api-key: k\r\n", "10.0.0.9:1", false, true, Err(401));
        check("", "10.0.0.9:1", true, true, Err(401));
        check("x-api-key: cco-token-0123456789\r\n", "10.0.0.9:1", false, false, Ok(Payer::Stored));
        let both = "x-cco-token: cco-token-0123456789\r\nx-api-key: k\r\n";
        check(both, "10.0.0.9:1", false, false, own(Auth::XApiKey, "k"));
    }
}
