//! What somebody probably meant: the nearest of the known names.

use super::form::{Key, Shape};
use super::keys::Config;
use super::read::Wrong;

/// The known name that is nearest, if any is near enough to be meant.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |s: &str| s.chars().filter(|c| c.is_alphanumeric()).collect::<String>().to_lowercase();
    let wanted = plain(name);
    // Names of a user's length only: the distance is quadratic.
    if wanted.is_empty() || wanted.len() > 64 {
        return None;
    }
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&wanted, &plain(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= (wanted.len().min(candidate.len()) / 3).clamp(1, 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The fault for a key that the section does not have.
pub(super) fn unknown_key(name: &str, known: &[&str]) -> Wrong {
    let message = "unknown key";
    if let Some(near) = nearest(name, known.iter().copied()) {
        return Wrong::new(message, format!("did you mean `{near}`?"));
    }
    if let Some(place) = elsewhere(name, &Config::keys(), "") {
        return Wrong::new(message, format!("this key belongs at `{place}`"));
    }
    if known.len() <= 16 {
        let known: Vec<_> = known.iter().map(|key| format!("`{key}`")).collect();
        return Wrong::new(message, format!("the keys here are {}", known.join(", ")));
    }
    Wrong::new(message, "`cco config show` lists all keys")
}

/// Where in the whole configuration a key of that name stands.
fn elsewhere(name: &str, keys: &[Key], above: &str) -> Option<String> {
    keys.iter().find_map(|key| {
        let place = if above.is_empty() { key.name.to_string() } else { format!("{above}.{}", key.name) };
        if key.name == name {
            return Some(place);
        }
        match &key.shape {
            Shape::Section(keys) => elsewhere(name, keys, &place),
            Shape::Map(value) => match &**value {
                Shape::Section(keys) => elsewhere(name, keys, &format!("{place}.NAME")),
                _ => None,
            },
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_fingers_finds_its_name_and_a_stranger_none() {
        let known = ["baseUrl", "apiKeyRef", "timeoutSecs", "headers"];
        for (typed, meant) in [
            ("baseURL", "baseUrl"),
            ("base_url", "baseUrl"),
            ("apiKeyRf", "apiKeyRef"),
            ("timeotuSecs", "timeoutSecs"),
            ("header", "headers"),
        ] {
            assert_eq!(nearest(typed, known), Some(meant), "{typed}");
        }
        for stranger in ["", "x", "model", "a".repeat(10_000).as_str()] {
            assert_eq!(nearest(stranger, known), None, "{stranger}");
        }
    }

    #[test]
    fn a_key_in_the_wrong_section_is_told_where_it_belongs() {
        let help = |name: &str, known: &[&str]| unknown_key(name, known).help.unwrap();
        assert_eq!(help("timeoutSecs", &["providers", "server"]), "this key belongs at `providers.NAME.timeoutSecs`");
        assert_eq!(help("fallbackChain", &["providers"]), "this key belongs at `routing.fallbackChain`");
        assert_eq!(help("wibble", &["a", "b"]), "the keys here are `a`, `b`");
    }
}
