//! How much context a model holds, at servers that have to be told how much to reserve: asked of them once a model.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http1::write;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::Provider;
use crate::catalog::Way;
use crate::headers;
use crate::net::Dial;
use crate::secret::Secret;
use crate::upstream::{Connection, Flight, Sender};

/// How long a server may take to tell. Nothing fails for it: then what is asked for has no upper limit.
const WITHIN: Duration = Duration::from_secs(2);
/// The most of an answer that is read: it holds the model's licence and a list of its tensors.
const ANSWER: usize = 8 << 20;
/// Models that are kept in mind.
const MODELS: usize = 256;

/// What is known of the models of one provider.
#[derive(Debug, Default)]
pub struct Contexts(Mutex<HashMap<Box<str>, Option<u64>>>);

impl Contexts {
    /// The most tokens that a model holds; `None` where it was not said.
    pub fn most(&self, model: &str) -> Option<u64> {
        self.known(model).flatten()
    }

    /// Whether there is no need to ask.
    fn known(&self, model: &str) -> Option<Option<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(model).copied()
    }

    fn learn(&self, model: &str, most: Option<u64>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MODELS {
            known.clear();
        }
        known.insert(model.into(), most);
    }
}

impl Provider {
    /// Whether it has to be asked how much context a model holds before it can be told how much to reserve.
    pub fn has_to_tell_context(&self, way: &Way, model: &str) -> bool {
        way.reserves_context() && self.num_ctx.is_none() && self.contexts.known(model).is_none()
    }

    /// Asks how much context a model holds. What cannot be learned is not asked for again.
    pub async fn learn_context(&self, dialer: &dyn Dial, model: &str) {
        let deadline = Instant::now() + WITHIN;
        let told = timeout_at(deadline, self.told_context(dialer, model)).await;
        self.contexts.learn(model, told.unwrap_or_default());
    }

    async fn told_context(&self, dialer: &dyn Dial, model: &str) -> Option<u64> {
        let io = dialer.dial(&self.base.origin, WITHIN).await.ok()?;
        let mut flight = Flight::new(Connection::new(io), Sender::new(self.show(model), None), false);
        let head = std::future::poll_fn(|cx| flight.poll_head(cx)).await.ok()?;
        let body = flight.into_body(&head).collect(ANSWER).await.ok()??;
        if head.status == 200 { length(&body) } else { None }
    }

    fn show(&self, model: &str) -> [Bytes; 2] {
        let body = json!({ "model": model }).to_string();
        let mut out = BytesMut::with_capacity(256);
        write::request_line(&mut out, "POST", &format!("{}/api/show", self.base.path));
        write::field(&mut out, b"host", self.base.origin.host_header().as_bytes());
        write::field(&mut out, b"accept-encoding", b"identity");
        write::field(&mut out, b"content-type", b"application/json");
        for (name, value) in &self.headers {
            write::field(&mut out, name.as_bytes(), value.expose().as_bytes());
        }
        if let Some(key) = self.keys.first().and_then(|key| key.for_origin(&self.base.origin)) {
            let form = self.kind.auth;
            let value = Secret::new(format!("{}{}", form.prefix(), key.expose()));
            write::field(&mut out, form.header().as_bytes(), value.expose().as_bytes());
        }
        write::content_length(&mut out, body.len() as u64);
        headers::end(&mut out);
        [out.freeze(), body.into()]
    }
}

/// The length of the context: under the name of the model's architecture.
fn length(body: &[u8]) -> Option<u64> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let info = body["model_info"].as_object()?;
    let own = info.get("general.architecture").and_then(Value::as_str);
    let named = own.and_then(|own| info.get(&format!("{own}.context_length")));
    let any = || info.iter().find(|(name, _)| name.ends_with(".context_length")).map(|(_, value)| value);
    named.or_else(any)?.as_u64().filter(|length| *length > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_context_is_read_from_what_a_server_shows_of_a_model() {
        let length = |info: Value| length(json!({ "license": "…", "model_info": info }).to_string().as_bytes());
        let qwen = json!({ "general.architecture": "qwen3", "qwen3.context_length": 40960, "x.context_length": 1 });
        assert_eq!(length(qwen), Some(40_960));
        assert_eq!(length(json!({ "llama.context_length": 131_072 })), Some(131_072));
        for none in [json!({}), json!(null), json!({ "a.context_length": 0 }), json!({ "a.context_length": "many" })] {
            assert_eq!(length(none), None);
        }
        assert_eq!(super::length(b"<html>"), None);
    }

    #[test]
    fn no_more_models_are_kept_in_mind_than_may_be() {
        let contexts = Contexts::default();
        (0..1000).for_each(|n| contexts.learn(&n.to_string(), Some(n)));
        assert_eq!((contexts.most("999"), contexts.most("0"), contexts.known("other")), (Some(999), None, None));
        assert!(contexts.0.lock().unwrap().len() <= MODELS);
    }
}
