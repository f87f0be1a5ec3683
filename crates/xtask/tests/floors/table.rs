//! The floor table: the Markdown table under `## Floors`.

use std::collections::BTreeMap;

/// A floor: of the crate among crates, then of the module within its crate (`2.3`). A crate as a whole has no second part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Floor {
    pub(crate) of_crate: u32,
    pub(crate) of_module: Option<u32>,
}

impl Floor {
    fn parse(text: &str) -> Option<Self> {
        let (of_crate, of_module) = match text.split_once('.') {
            Some((a, b)) => (a, Some(b.parse().ok()?)),
            None => (text, None),
        };
        Some(Self { of_crate: of_crate.parse().ok()?, of_module })
    }
}

impl std::fmt::Display for Floor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.of_module {
            Some(inner) => write!(f, "{}.{inner}", self.of_crate),
            None => write!(f, "{}", self.of_crate),
        }
    }
}

/// Crates (`wire`) and top-level modules (`gateway::io`) with their floors.
pub(crate) type Table = BTreeMap<String, Floor>;

/// Reads the table; every line that cannot be read is a fault.
pub(crate) fn read(text: &str) -> Result<Table, Vec<String>> {
    let (mut table, mut faults) = (Table::new(), Vec::new());
    let section = text.lines().skip_while(|line| line.trim() != "## Floors").skip(1);
    let rows = section.take_while(|line| !line.starts_with("## ")).filter(|line| line.trim_start().starts_with('|'));
    for row in rows {
        let cells: Vec<&str> = row.trim().trim_matches('|').split('|').map(str::trim).collect();
        let is_heading = cells.first() == Some(&"floor") || cells.iter().all(|c| c.starts_with("--"));
        if is_heading {
            continue;
        }
        let floor = cells.first().and_then(|cell| Floor::parse(cell));
        let names: Vec<&str> = cells.get(1).map_or(Vec::new(), |cell| cell.split('`').skip(1).step_by(2).collect());
        let (Some(floor), false) = (floor, names.is_empty()) else {
            faults.push(format!("the floor table has a row that is none: `{row}`"));
            continue;
        };
        for name in names {
            if floor.of_module.is_some() != name.contains("::") {
                faults.push(format!("`{name}` has floor {floor}: a crate has one number, a module has two (`2.3`)"));
            }
            if table.insert(name.to_owned(), floor).is_some() {
                faults.push(format!("`{name}` is in the floor table twice"));
            }
        }
    }
    for (name, floor) in &table {
        if let Some((of, _)) = name.split_once("::")
            && table.get(of).is_none_or(|whole| whole.of_crate != floor.of_crate)
        {
            faults.push(format!("`{name}` has floor {floor}, which is not on the floor of its crate `{of}`"));
        }
    }
    if table.is_empty() {
        faults.push("there is no table under the heading `## Floors`".into());
    }
    if faults.is_empty() { Ok(table) } else { Err(faults) }
}

#[test]
fn a_row_may_name_several_modules() {
    let text = "## Floors\n| floor | crate or module | what |\n|---|---|---|\n| 1 | `a` | x |\n| 1.0 | `a::b`, `a::c` | y |\n## Next\n| 9 | `z` | |";
    let table = read(text).unwrap();
    assert_eq!(table.keys().collect::<Vec<_>>(), ["a", "a::b", "a::c"]);
    assert_eq!(table["a::c"], Floor { of_crate: 1, of_module: Some(0) });
}

#[test]
fn a_table_that_cannot_be_read_is_a_fault() {
    for rows in [
        "",
        "| x | `a` | |",
        "| 1 | a | |",
        "| 1 | `a` | |\n| 1 | `a` | |",
        "| 1 | `a::b` | |",
        "| 1 | `a` | |\n| 2.0 | `a::b` | |",
    ] {
        assert!(read(&format!("## Floors\n{rows}")).is_err(), "{rows}");
    }
}
