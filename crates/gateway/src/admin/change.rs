//! What changes the ledger: removing records and bodies for good, pricing history again.

use std::sync::Arc;

use ledger::archive::Selection;
use ledger::price::PriceTable;
use ledger::query::Filter;
use ledger::record::Record;
use ledger::store::{Priced, Purge, StoreError};
use serde_json::{Value, json};

use super::ask::{Wrong, Zone, found, words};
use crate::recorder::{Billing, Recorder, now_us};

/// A change.
#[derive(Debug)]
pub enum Change {
    /// Removes what one exchange left, by its id or a part of it.
    PurgeOne(String),
    /// Removes what many left.
    Purge(Purge),
    /// Prices the next records after this place again.
    Reprice(Box<Filter>, i64),
}

impl Change {
    /// From path and query; `None`: the path is none of these.
    pub fn of(target: &str) -> Option<Result<Self, Wrong>> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        match path {
            "/gateway/audit/purge" => Some(purge(query)),
            "/gateway/prices/recompute" => Some(reprice(query)),
            _ => None,
        }
    }

    /// Makes the change.
    pub async fn apply(self, recorder: &Arc<Recorder>, billing: &Arc<Billing>) -> Result<Value, Wrong> {
        match self {
            Self::PurgeOne(word) => {
                // A whole id needs no look-up, which a store that fails could not do.
                let id = match word.parse() {
                    Ok(id) => id,
                    Err(_) => {
                        let row = ledger(recorder)?.read(move |reader| Ok(found(&word, reader))).await?.value?;
                        row.record.id
                    }
                };
                remove(recorder, Purge::Id(id)).await
            }
            Self::Purge(what) => remove(recorder, what).await,
            Self::Reprice(filter, after) => {
                let price = {
                    let (recorder, billing) = (recorder.clone(), billing.clone());
                    move |record: &Record| priced(&recorder, &billing, record)
                };
                let step = ledger(recorder)?.reprice_step(*filter, after, price).await?;
                let mut told = json!({ "seen": step.seen, "changed": step.changed, "next": step.next });
                // The first step tells at which prices.
                if after == 0 {
                    let prices = recorder.prices();
                    told["prices"] = json!(prices.map(PriceTable::version));
                    told["fingerprint"] = json!(prices.map(PriceTable::fingerprint));
                }
                Ok(told)
            }
        }
    }
}

fn ledger(recorder: &Recorder) -> Result<&Arc<ledger::Ledger>, Wrong> {
    let off = || Wrong::Store(StoreError::Unavailable("nothing is recorded (`audit.enabled`)".into()));
    recorder.ledger().ok_or_else(off)
}

fn purge(query: &str) -> Result<Change, Wrong> {
    let wrong = || Wrong::Question("say what goes: one of `id`, `session`, `before` and `all`".into());
    let (mut zone, mut what) = (Zone::default(), None);
    for (word, value) in words(query)? {
        match &*word {
            "zone" => zone = Zone::read(&value).ok_or_else(wrong)?,
            "id" | "session" | "before" | "all" if what.is_none() => what = Some((word, value)),
            _ => return Err(wrong()),
        }
    }
    let (word, value) = what.ok_or_else(wrong)?;
    Ok(match &*word {
        "id" if !value.is_empty() => Change::PurgeOne(value),
        "session" if !value.is_empty() => Change::Purge(Purge::Session(value)),
        "before" => {
            let at = ledger::query::time(&value, now_us(), &|at| zone.at(at));
            Change::Purge(Purge::Before(at.map_err(|bad| Wrong::Question(bad.to_string()))?))
        }
        "all" if matches!(&*value, "" | "true" | "1" | "yes") => Change::Purge(Purge::All),
        _ => return Err(wrong()),
    })
}

/// Removes records, then bodies: what is left of a body without its record can be found by nobody. Where the records
/// cannot be removed, the bodies go all the same, and that is said.
async fn remove(recorder: &Arc<Recorder>, what: Purge) -> Result<Value, Wrong> {
    let selection = match &what {
        Purge::Id(id) => Selection::Exchanges(vec![id.to_bytes()]),
        Purge::Session(session) => Selection::Session(session.clone()),
        Purge::Before(us) => Selection::Before(u64::try_from(us / 1000).unwrap_or(0)),
        Purge::All => Selection::All,
    };
    let mut records = ledger(recorder)?.purge(what.clone()).await;
    let mut told = json!({});
    if let Some(bodies) = recorder.bodies().cloned() {
        let purged = tokio::task::spawn_blocking(move || bodies.archive().purge(selection)).await;
        let purged = purged.map_err(|why| StoreError::Other(why.to_string()))?;
        let purged = match (purged, &records) {
            (Err(why), Err(records)) => return Err(Wrong::Unremoved(format!("{records}; {why}"))),
            (purged, _) => purged?,
        };
        if records.is_err() && purged.bytes > 0 {
            // On a full disk that was the room that removing records needs.
            records = ledger(recorder)?.purge(what).await;
        }
        told["bodies"] = purged.bodies.into();
        told["bytes"] = purged.bytes.into();
        told["busy"] = purged.busy.into();
        told["unreadable"] = purged.unreadable.into();
        told["lost"] = purged.lost.into();
    }
    match records {
        Ok(records) => told["records"] = records.into(),
        Err(why) if told["bytes"].is_null() => return Err(why.into()),
        Err(why) => {
            let bytes = &told["bytes"];
            return Err(Wrong::Unremoved(format!("{why}. The bodies are removed ({bytes} bytes of the disk)")));
        }
    }
    Ok(told)
}

fn reprice(query: &str) -> Result<Change, Wrong> {
    let (mut filter, mut after, mut zone, mut rest) = (Filter::default(), 0, Zone::default(), Vec::new());
    for (word, value) in words(query)? {
        match &*word {
            "after" => after = value.parse().map_err(|_| Wrong::Question("`after` is the `next` of a step".into()))?,
            "zone" => {
                zone =
                    Zone::read(&value).ok_or_else(|| Wrong::Question("`zone` is seconds east of Greenwich".into()))?;
            }
            _ => rest.push((word, value)),
        }
    }
    for (word, value) in rest {
        filter.set(&word, &value, now_us(), &|at| zone.at(at))?;
    }
    filter.check()?;
    Ok(Change::Reprice(Box::new(filter), after))
}

/// What a record costs at the prices of now; `None`: it has nothing that could be priced.
fn priced(recorder: &Recorder, billing: &Billing, record: &Record) -> Option<Priced> {
    let provider = record.parties.provider.as_deref().unwrap_or_default();
    let billed_as = billing.get(provider).map_or(provider, |billed_as| billed_as);
    recorder.cost(record, billed_as).map(Priced::of)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(target: &str) -> Result<Change, String> {
        Change::of(target).unwrap().map_err(|why| why.to_string())
    }

    #[test]
    fn a_purge_says_exactly_one_thing_that_goes() {
        assert!(matches!(of("/gateway/audit/purge?id=0a1b"), Ok(Change::PurgeOne(id)) if id == "0a1b"));
        assert!(matches!(of("/gateway/audit/purge?all"), Ok(Change::Purge(Purge::All))));
        assert!(matches!(of("/gateway/audit/purge?session=s%201"), Ok(Change::Purge(Purge::Session(s))) if s == "s 1"));
        let day = of("/gateway/audit/purge?before=2026-11-22&zone=3600");
        assert!(matches!(day, Ok(Change::Purge(Purge::Before(1_795_302_000_000_000)))), "{day:?}");
        for bad in ["", "?", "?id=", "?session=", "?id=1&all", "?everything", "?all=no", "?all=false", "?all=x"] {
            let why = of(&format!("/gateway/audit/purge{bad}")).unwrap_err();
            assert!(why.contains("`before`"), "{bad}: {why}");
        }
        assert!(of("/gateway/audit/purge?all&all").unwrap_err().contains("twice"));
        assert!(of("/gateway/audit/purge?before=soon").unwrap_err().contains("no time"));
        assert!(Change::of("/gateway/audit").is_none());
    }

    #[test]
    fn history_is_priced_from_where_the_last_step_ended() {
        let step = of("/gateway/prices/recompute?after=77&model=m");
        assert!(matches!(step, Ok(Change::Reprice(filter, 77)) if filter.model.as_deref() == Some("m")));
        assert!(of("/gateway/prices/recompute?after=x").is_err());
    }
}
