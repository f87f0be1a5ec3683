//! A list of everything that is in the binary, in the form of CycloneDX, from what cargo knows of our dependencies.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::{Fault, Places, shell};

/// The list for a build of `cco` on this kind of machine.
pub(crate) fn of(places: &Places, version: &str, host: &str) -> Result<String, Fault> {
    let mut cargo = shell::cargo();
    cargo.args(["metadata", "--format-version", "1", "--locked", "--filter-platform", host]);
    let out = cargo.current_dir(&places.root).output().map_err(|e| format!("cannot run `cargo metadata`: {e}"))?;
    let told: Value = serde_json::from_slice(&out.stdout)
        .map_err(|e| format!("`cargo metadata` printed no JSON ({e}): {}", String::from_utf8_lossy(&out.stderr)))?;
    // What cargo resolved has a checksum in the lock file.
    let lock = std::fs::read_to_string(places.root.join("Cargo.lock")).map_err(|e| format!("Cargo.lock: {e}"))?;
    let list = list(&told, &checksums(&lock), version)?;
    serde_json::to_string_pretty(&list).map(|text| text + "\n").map_err(|e| e.to_string())
}

/// The checksums of a lock file by name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let mut all = BTreeMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let of = |key: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "))?;
            Some(line.trim_matches('"').to_owned())
        };
        if let (Some(name), Some(version), Some(sum)) = (of("name"), of("version"), of("checksum")) {
            all.insert((name, version), sum);
        }
    }
    all
}

fn list(told: &Value, checksums: &BTreeMap<(String, String), String>, version: &str) -> Result<Value, Fault> {
    let rows = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages: BTreeMap<_, _> = rows(&told["packages"]).into_iter().map(|p| (text(&p["id"]), p)).collect();
    let nodes: BTreeMap<_, _> = rows(&told["resolve"]["nodes"]).into_iter().map(|n| (text(&n["id"]), n)).collect();
    let root = packages.values().find(|package| package["name"] == "cco").ok_or("cargo knows no package `cco`")?;
    let reference = |package: &Value| format!("pkg:cargo/{}@{}", text(&package["name"]), text(&package["version"]));
    let (mut seen, mut waiting) = (BTreeSet::new(), vec![text(&root["id"])]);
    let (mut components, mut dependencies) = (BTreeMap::new(), BTreeMap::new());
    while let Some(id) = waiting.pop() {
        let (Some(package), Some(node)) = (packages.get(&id), nodes.get(&id)) else { continue };
        if !seen.insert(id) {
            continue;
        }
        // What only tests need is not in it; what builds it can change it.
        let is_in = |dep: &Value| rows(&dep["dep_kinds"]).iter().any(|kind| kind["kind"] != "dev");
        let of: Vec<String> =
            rows(&node["deps"]).iter().filter(|dep| is_in(dep)).map(|dep| text(&dep["pkg"])).collect();
        let on: BTreeSet<_> = of.iter().filter_map(|id| packages.get(id)).map(reference).collect();
        dependencies.insert(reference(package), on);
        waiting.extend(of);
        if package["id"] == root["id"] {
            continue;
        }
        let (name, number) = (text(&package["name"]), text(&package["version"]));
        let mut component = json!({
            "type": "library", "bom-ref": reference(package), "name": name, "version": number, "purl": reference(package),
        });
        if let Some(licence) = package["license"].as_str() {
            component["licenses"] = json!([{ "expression": licence.replace('/', " OR ") }]);
        }
        if let Some(sum) = checksums.get(&(name, number)) {
            component["hashes"] = json!([{ "alg": "SHA-256", "content": sum }]);
        }
        components.insert(reference(package), component);
    }
    let dependencies: Vec<_> = dependencies.into_iter().map(|(of, on)| json!({ "ref": of, "dependsOn": on })).collect();
    Ok(json!({
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "metadata": { "component": {
            "type": "application", "bom-ref": reference(root), "name": "cco", "version": version,
            "licenses": [{ "expression": text(&root["license"]) }],
        } },
        "components": components.into_values().collect::<Vec<_>>(),
        "dependencies": dependencies,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_binary_is_made_of_is_listed_with_its_checksum_and_what_only_tests_need_is_not() {
        let places = Places::find().unwrap();
        let told: Value = serde_json::from_str(&of(&places, "1", "x86_64-unknown-linux-gnu").unwrap()).unwrap();
        let names = |of: &str| told[of].as_array().unwrap().iter().map(|c| c["name"].to_string()).collect::<Vec<_>>();
        let all = names("components");
        for name in ["\"tokio\"", "\"rustls\"", "\"gateway\"", "\"sim\""] {
            assert!(all.contains(&name.to_owned()), "{name}");
        }
        for name in ["\"proptest\"", "\"rcgen\"", "\"xtask\"", "\"cco\""] {
            assert!(!all.contains(&name.to_owned()), "{name}");
        }
        let tokio = told["components"].as_array().unwrap().iter().find(|c| c["name"] == "tokio").unwrap();
        assert_eq!(tokio["hashes"][0]["content"].as_str().unwrap().len(), 64);
        assert!(tokio["licenses"][0]["expression"].is_string());
        // Everything that is depended on is listed.
        let known: BTreeSet<_> =
            told["dependencies"].as_array().unwrap().iter().map(|d| d["ref"].to_string()).collect();
        for dependency in told["dependencies"].as_array().unwrap() {
            assert!(dependency["dependsOn"].as_array().unwrap().iter().all(|on| known.contains(&on.to_string())));
        }
    }
}
