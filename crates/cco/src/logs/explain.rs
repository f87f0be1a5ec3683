//! What became of an exchange in one sentence, and what to do about it in another.

use ledger::record::{Outcome, Record};

/// Cause and remedy. `said` is what the upstream said, where that is kept.
pub(super) fn explain(record: &Record, said: Option<&str>) -> (String, String) {
    let provider = record.parties.provider.as_deref().unwrap_or("the provider");
    let said = [record.error.as_deref(), said].into_iter().flatten().map(|error| format!(": {error}"));
    let said: String = said.collect();
    match record.outcome {
        Outcome::Success => {
            let stop = record.stop_reason.as_deref().map(|stop| format!(", and ended with `{stop}`"));
            (format!("`{provider}` answered{}", stop.unwrap_or_default()), "nothing is to be done".into())
        }
        Outcome::ClientDisconnected => (
            format!("the client went before its answer was whole{said}"),
            "if nobody stopped it there, look at the client's time-out".into(),
        ),
        Outcome::Truncated => (
            format!("the answer of `{provider}` stopped before its end{said}"),
            "ask again; if it happens often, look at the provider's status and at what is between (VPN, proxy)".into(),
        ),
        Outcome::Timeout => (format!("`{provider}` was too slow{said}"), slow(record, provider)),
        Outcome::Interrupted => (
            "the gateway ended without a word while this was in flight".into(),
            "look why it ended (its log, the system's log), and send the request again".into(),
        ),
        // No exchange ends so.
        Outcome::HedgeLost => ("another attempt answered sooner".into(), "nothing is to be done".into()),
        Outcome::Rejected => (format!("cco refused the request{said}"), refused(record.status).into()),
        Outcome::UpstreamError => failed(record, provider, &said),
    }
}

fn slow(record: &Record, provider: &str) -> String {
    let key = match record.error.as_deref() {
        Some("idle") => "idleTimeoutSecs",
        Some("too long") => "maxStreamSecs",
        _ => "timeoutSecs",
    };
    format!("ask again, or give it more time: `providers.{provider}.{key}`")
}

/// What helps where we refused: the message itself says what is wrong.
fn refused(status: Option<u16>) -> &'static str {
    match status {
        Some(401) => "send a key of your own, or let cco have one (`apiKeyRef`)",
        Some(408) => "look at what is between the client and cco: the request came too slowly",
        Some(413) => "send less, or raise `server.maxBodyMb`",
        Some(429 | 503 | 529) => "wait a little and try again",
        _ => "correct the request as the message says, and send it again",
    }
}

fn failed(record: &Record, provider: &str, said: &str) -> (String, String) {
    let last = record.attempts.last();
    let Some(status) = last.and_then(|attempt| attempt.status) else {
        let why = record.error.as_deref().or(last.and_then(|attempt| attempt.error.as_deref()));
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        return (
            format!("`{provider}` could not be reached{why}"),
            format!("check the network, the proxy (`network.proxy`) and `providers.{provider}.baseUrl`"),
        );
    };
    if status < 400 {
        return (
            format!("`{provider}` failed within its answer{said}"),
            "ask again; if it happens often, look at the provider's status".into(),
        );
    }
    let key = record.credential.as_ref().map(|key| format!(" ({})", key.as_str())).unwrap_or_default();
    let (cause, help) = match status {
        401 => (
            "did not accept the key",
            format!("check the key{key}: the client's own, or `providers.{provider}.apiKeyRef`"),
        ),
        402 => ("wants money first", "look at the account's balance and spend limits".into()),
        403 => ("does not allow this", format!("check what the key{key} may do, and the model's availability")),
        404 => ("does not know the model or the path", "check the model's name and `baseUrl`".into()),
        413 => ("takes no request that large", "send less: shorten the conversation".into()),
        429 => ("takes no more at the moment", "wait; `cco limits` shows what is left and when it begins anew".into()),
        529 => ("is overloaded", "wait and try again, or name another provider in `routing.fallbackChain`".into()),
        400..500 => ("refused the request", "correct the request: as it is, it will be refused again".into()),
        _ => ("failed", "try again; if it happens often, look at the provider's status".into()),
    };
    (format!("`{provider}` {cause} ({status}){said}"), help)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::record::Attempt;
    use ledger::sample;

    fn record(outcome: Outcome, status: Option<u16>, error: Option<&str>) -> Record {
        let mut record = sample::record(0);
        record.parties.provider = Some("anthropic".into());
        record.outcome = outcome;
        record.status = status;
        record.error = error.map(Box::from);
        record.attempts = vec![Attempt { outcome, status, error: None, ..record.attempts[0].clone() }];
        record
    }

    #[track_caller]
    fn check(outcome: Outcome, status: Option<u16>, error: Option<&str>, cause: &str, help: &str) {
        let (said, remedy) = explain(&record(outcome, status, error), None);
        assert!(said.contains(cause), "{said}");
        assert!(remedy.contains(help), "{remedy}");
        for sentence in [said, remedy] {
            assert!(!sentence.is_empty() && !sentence.ends_with('.') && !sentence.contains('\n'), "{sentence}");
        }
    }

    #[test]
    fn what_the_upstream_said_ends_the_cause() {
        let record = record(Outcome::UpstreamError, Some(529), Some("overloaded_error"));
        let (cause, _) = explain(&record, Some("Overloaded"));
        assert_eq!(cause, "`anthropic` is overloaded (529): overloaded_error: Overloaded");
    }

    #[test]
    fn every_way_to_fail_has_a_cause_and_a_remedy() {
        use Outcome::*;
        check(Success, Some(200), None, "`anthropic` answered", "nothing is to be done");
        check(
            UpstreamError,
            Some(529),
            Some("overloaded_error: Overloaded"),
            "overloaded (529): overloaded_error",
            "fallbackChain",
        );
        check(UpstreamError, Some(401), None, "did not accept the key (401)", "`providers.anthropic.apiKeyRef`");
        check(UpstreamError, Some(429), None, "no more at the moment", "`cco limits`");
        check(UpstreamError, Some(422), None, "refused the request (422)", "correct the request");
        check(UpstreamError, Some(500), None, "failed (500)", "try again");
        check(UpstreamError, Some(200), Some("api_error: x"), "within its answer: api_error", "ask again");
        check(UpstreamError, None, Some("connection refused"), "could not be reached: connection refused", "baseUrl");
        check(Timeout, Some(200), Some("idle"), "too slow: idle", "`providers.anthropic.idleTimeoutSecs`");
        check(Timeout, None, Some("no answer"), "too slow", "timeoutSecs");
        check(Truncated, Some(200), Some("it broke off"), "stopped before its end: it broke off", "ask again");
        check(Rejected, Some(401), Some("no key"), "cco refused the request: no key", "apiKeyRef");
        check(Interrupted, None, None, "ended without a word", "send the request again");
        check(ClientDisconnected, Some(200), None, "the client went", "time-out");
    }
}
