//! Questions to the ledger, and changes of it, over HTTP.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use serde_json::{Value, json};

use super::ask::{Bodied, Question, Told, Wrong};
use super::change::Change;
use super::{metrics, shape};
use crate::client::respond::Answer;
use crate::error::{ErrorKind, Refusal, Retry};
use crate::gateway::{Gateway, Turned};
use crate::glob::Glob;
use crate::recorder::{Billing, now_us};
use crate::route::UsedUp;

/// Answers from the ledger, on a thread of its own.
pub(super) async fn ask(gateway: &Gateway, target: &str) -> Result<Answer, Refusal> {
    let question = Question::of(target).unwrap_or_else(|| Err(nothing(target))).map_err(|why| refusal(&why))?;
    // What was refused before it became an exchange is in no record.
    let word = if let Question::Record(word) = &question { Some(word.clone()) } else { None };
    let of_limits = if let Question::Limits(filter) = &question { Some(filter.provider.clone()) } else { None };
    let bodies = gateway.recorder.bodies().cloned();
    let lost = gateway.recorder.no_bodies().map(str::to_owned);
    let asked = metrics::ledger(gateway)?.read(move |reader| {
        let bodied = match (bodies.as_deref(), lost.as_deref()) {
            (Some(bodies), _) => Bodied::Live(bodies),
            (None, Some(why)) => Bodied::Lost(why),
            (None, None) => Bodied::None,
        };
        Ok(question.ask(reader, &bodied))
    });
    let answer = asked.await.map_err(|why| metrics::unreadable(&why))?;
    match answer.value {
        Ok(Told::Json(mut value)) => {
            value["fresh"] = answer.fresh.into();
            if let Some(provider) = of_limits {
                value["used_up"] = used_up(gateway, provider.as_deref());
            }
            Ok(Answer::json(&value))
        }
        Ok(Told::Bytes(bytes)) => {
            let mut told = Answer::text(bytes);
            told.content_type = "application/octet-stream";
            Ok(told)
        }
        Err(why) => match word.as_deref().and_then(|word| gateway.refused.find(word)) {
            Some(turned) if matches!(why, Wrong::Missing(_)) => Ok(Answer::json(&json!({ "refused": shown(&turned) }))),
            _ => Err(refusal(&why)),
        },
    }
}

/// Callers whose subscription is used up: until when, and who serves. Of this nothing is in the ledger.
fn used_up(gateway: &Gateway, provider: Option<&str>) -> Value {
    let (routing, name) = (&gateway.routing, provider.map(Glob::new));
    let now = routing.now();
    let one = |used_up: &UsedUp| {
        let in_us = i64::try_from(now.until(used_up.until).as_micros()).unwrap_or(i64::MAX);
        json!({
            "provider": used_up.provider,
            "credential": used_up.credential,
            "until": shape::time(now_us().saturating_add(in_us)),
            "served_by": routing.rules.replacement(),
        })
    };
    let all = routing.subscriptions.all(now);
    all.iter().filter(|one| name.as_ref().is_none_or(|name| name.matches(&one.provider))).map(one).collect()
}

/// Changes the ledger.
pub(super) async fn change(gateway: &Gateway, target: &str) -> Result<Answer, Refusal> {
    let change = Change::of(target).unwrap_or_else(|| Err(nothing(target))).map_err(|why| refusal(&why))?;
    let billing: Billing = gateway.providers.iter().map(|p| (p.name.clone(), p.billed_as.clone())).collect();
    let told = change.apply(&gateway.recorder, &Arc::new(billing)).await.map_err(|why| refusal(&why))?;
    Ok(Answer::json(&told))
}

fn nothing(target: &str) -> Wrong {
    Wrong::Missing(format!("there is nothing at `{target}`"))
}

fn shown(turned: &Turned) -> Value {
    let us = turned.at.duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX));
    json!({
        "id": turned.id,
        "short": turned.id.short(),
        "time": shape::time(us),
        "method": turned.method,
        "path": turned.path,
        "status": turned.status,
        "error": turned.message,
    })
}

fn refusal(why: &Wrong) -> Refusal {
    let kind = match why {
        Wrong::Question(_) => ErrorKind::InvalidRequest,
        Wrong::Missing(_) => ErrorKind::NotFound,
        Wrong::Ambiguous(..) => ErrorKind::Conflict,
        Wrong::Store(why) => return metrics::unreadable(why),
        Wrong::Archive(_) | Wrong::Lost(_) | Wrong::Unremoved(_) => ErrorKind::Unavailable,
    };
    Refusal::new(kind, why.to_string()).retry(Retry::Never)
}
