//! A measurement as a picture: each figure against its goal and its limit, and how long requests took.

use std::fmt::Write as _;
use std::path::PathBuf;

use ledger::calendar::civil;
use serde_json::Value;

use crate::Fault;
use crate::table::CANNOT_JUDGE;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// What `bench run` wrote
    measured: PathBuf,
    /// The picture: an SVG
    #[arg(long)]
    out: PathBuf,
    /// A page in Markdown: the table takes the place of what stands between its two marks
    #[arg(long)]
    page: Option<PathBuf>,
}

/// Between these stands what was measured.
const MARKS: [&str; 2] = ["<!-- measured -->\n", "<!-- end of what was measured -->"];

/// Draws what was measured, and writes it into a page.
pub(crate) fn run(options: &Options) -> Result<(), Fault> {
    let measured: Value = serde_json::from_slice(&std::fs::read(&options.measured)?)?;
    std::fs::write(&options.out, svg(&measured))?;
    if let Some(page) = &options.page {
        if measured["quick"] == true || measured["only"].as_array().is_some_and(|only| !only.is_empty()) {
            return Err("a page is written from a whole measurement: without --quick and --only".into());
        }
        let text = std::fs::read_to_string(page)?;
        let text = written(&text, &measured).ok_or_else(|| format!("`{}` has no marks {MARKS:?}", page.display()))?;
        std::fs::write(page, text)?;
    }
    Ok(())
}

/// The page with this measurement in it; `None`: it has no place for one.
fn written(page: &str, measured: &Value) -> Option<String> {
    let (before, rest) = page.split_once(MARKS[0])?;
    let (_, after) = rest.split_once(MARKS[1])?;
    let machine = &measured["machine"];
    let days = measured["unix_time"].as_i64()? / 86_400;
    Some(format!(
        "{before}{}{} beside {}, {} cores ({}), Linux {}, {}, {} rounds; medians, in brackets the lowest and the highest \
         round.\n\n{}\n{}{after}",
        MARKS[0],
        word(measured, "cco"),
        word(measured, "nginx"),
        machine["cores"],
        word(machine, "cpu"),
        word(machine, "kernel"),
        day(days),
        measured["rounds"],
        word(measured, "text"),
        MARKS[1]
    ))
}

/// A day of the calendar from the days since 1970.
fn day(days: i64) -> String {
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Pixels: of the whole, of the names on the left, of one line.
const WIDTH: f64 = 1090.0;
const LEFT: f64 = 460.0;
const LINE: f64 = 24.0;
/// Bars end here, however far beyond the limit they are.
const MOST: f64 = 4.0;
/// Microseconds at the left and the right of the latencies, which grow tenfold from mark to mark.
const FROM_US: f64 = 10.0;
const TO_US: f64 = 100_000.0;

const STYLE: &str = "text{font:13px sans-serif;fill:#555}.name{text-anchor:end}.met{fill:#3a8f5c}.under{fill:#c99a2e}\
    .over{fill:#b8503f}.noisy{fill:#999}.goal{stroke:#3a8f5c}.limit{stroke:#b8503f}.mark{stroke:#999;stroke-dasharray:2 3}\
    .direct{stroke:#999}.nginx{stroke:#3a6ea5}.cco{stroke:#b8503f}polyline,circle{fill:none;stroke-width:2}";

/// The picture of a whole measurement.
pub(crate) fn svg(measured: &Value) -> String {
    let mut y = 60.0;
    let mut drawn = String::new();
    let title = |drawn: &mut String, y: f64, text: &str| {
        let _ = write!(drawn, "<text x=\"10\" y=\"{y}\" font-weight=\"bold\">{}</text>", escaped(text));
    };
    title(&mut drawn, 24.0, &format!("{}, {}", word(measured, "cco"), word(measured, "nginx")));
    title(
        &mut drawn,
        44.0,
        "each figure divided by its goal: green is met, yellow is below what must not be exceeded (the red mark), red above, grey too noisy to judge",
    );
    // Other gateways have no goal of ours.
    for line in measured["table"].as_array().into_iter().flatten().filter(|line| line["goal"].is_number()) {
        bar(&mut drawn, y, line);
        y += LINE;
    }
    for load in ["one", "open", "small"] {
        y += 2.0 * LINE;
        title(&mut drawn, y, &format!("latency of `{load}`, µs: p50, p90, p99, longest"));
        latencies(&mut drawn, &mut y, measured, load);
    }
    let height = y + LINE;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\"><style>{STYLE}</style>\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>{drawn}</svg>\n"
    )
}

fn word<'a>(of: &'a Value, name: &str) -> &'a str {
    of[name].as_str().unwrap_or("?")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// One figure.
fn bar(drawn: &mut String, y: f64, line: &Value) {
    let number = |name: &str| line[name].as_f64();
    let (Some(goal), Some(limit)) = (number("goal"), number("limit")) else { return };
    let name = escaped(word(line, "figure"));
    let _ = write!(drawn, "<text class=\"name\" x=\"{}\" y=\"{}\">{name}</text>", LEFT - 10.0, y + 15.0);
    let Some(got) = number("judged") else { return };
    let wide = |n: f64| (n / goal).clamp(0.0, MOST) / MOST * (WIDTH - LEFT - 90.0);
    let kind = if word(line, "verdict").starts_with("goal met") {
        "met"
    } else if word(line, "verdict") == CANNOT_JUDGE {
        "noisy"
    } else if got <= limit {
        "under"
    } else {
        "over"
    };
    let _ = write!(
        drawn,
        "<rect class=\"{kind}\" x=\"{LEFT}\" y=\"{}\" width=\"{:.1}\" height=\"{}\"/>",
        y + 3.0,
        wide(got).max(1.0),
        LINE - 8.0
    );
    for (class, at) in [("goal", goal), ("limit", limit)] {
        let x = LEFT + wide(at);
        let _ =
            write!(drawn, "<line class=\"{class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{y}\" y2=\"{}\"/>", y + LINE - 2.0);
    }
    let _ = write!(drawn, "<text x=\"{:.1}\" y=\"{}\">{got:.2}</text>", LEFT + wide(got) + 8.0, y + 15.0);
}

/// The percentiles of one load, a line for each path.
fn latencies(drawn: &mut String, y: &mut f64, measured: &Value, load: &str) {
    let wide = |us: f64| {
        let share = (us.clamp(FROM_US, TO_US) / FROM_US).log10() / (TO_US / FROM_US).log10();
        LEFT + share * (WIDTH - LEFT - 90.0)
    };
    let top = *y + 6.0;
    for subject in ["direct", "nginx", "cco"] {
        let rows = measured["rows"].as_array().into_iter().flatten();
        let rows: Vec<&Value> = rows.filter(|row| row["load"] == load && row["subject"] == subject).collect();
        if rows.is_empty() {
            continue;
        }
        *y += LINE;
        let _ = write!(drawn, "<text class=\"name\" x=\"{}\" y=\"{}\">{subject}</text>", LEFT - 10.0, *y + 4.0);
        let at = |name: &str| {
            let mut values: Vec<f64> = rows.iter().filter_map(|row| row["latency_us"][name].as_f64()).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or(0.0)
        };
        let values = ["p50", "p90", "p99", "max"].map(at);
        let points: Vec<String> = values.iter().map(|us| format!("{:.1},{:.1}", wide(*us), *y)).collect();
        let _ = write!(drawn, "<polyline class=\"{subject}\" points=\"{}\"/>", points.join(" "));
        for us in values {
            let _ = write!(drawn, "<circle class=\"{subject}\" cx=\"{:.1}\" cy=\"{y:.1}\" r=\"3\"/>", wide(us));
        }
        let told = values.map(|us| format!("{us:.0}")).join(", ");
        let _ = write!(drawn, "<text x=\"{:.1}\" y=\"{}\">{told}</text>", wide(values[3]) + 8.0, *y + 4.0);
    }
    let mut mark = FROM_US;
    while mark <= TO_US {
        let x = wide(mark);
        let _ = write!(drawn, "<line class=\"mark\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top}\" y2=\"{}\"/>", *y + 8.0);
        mark *= 10.0;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_page_gets_the_table_between_its_marks_and_keeps_the_rest() {
        let measured = json!({
            "cco": "cco 1", "nginx": "nginx 2", "unix_time": 1_795_430_000, "rounds": 3, "text": "| a |\n",
            "machine": { "cpu": "x", "cores": 2, "kernel": "6.1" },
        });
        let page = written("top\n<!-- measured -->\nold\n<!-- end of what was measured -->\nend\n", &measured).unwrap();
        assert!(page.starts_with("top\n") && page.ends_with("<!-- end of what was measured -->\nend\n"), "{page}");
        assert!(page.contains("cco 1 beside nginx 2, 2 cores (x), Linux 6.1, 2026-11-23, 3 rounds"), "{page}");
        assert!(page.contains("| a |\n") && !page.contains("old"), "{page}");
        assert_eq!(written(&page, &measured).as_deref(), Some(&*page), "again: the same");
        assert_eq!(written("no marks", &measured), None);
        assert_eq!([day(0), day(59), day(11_016)], ["1970-01-01", "1970-03-01", "2000-02-29"]);
    }

    #[test]
    fn every_figure_has_a_bar_and_every_path_its_latencies() {
        let line = |verdict: &str, judged: f64| {
            json!({ "figure": "CPU <per> request", "unit": "µs", "goal": 1.0, "limit": 1.25,
                "value": { "median": 50.0 }, "judged": judged, "verdict": verdict })
        };
        let row = |subject: &str| json!({ "load": "one", "subject": subject, "latency_us": { "p50": 90.0, "p90": 120.0, "p99": 300.0, "max": 4000.0 } });
        let measured = json!({
            "cco": "cco 1", "nginx": "nginx 2",
            "table": [line("goal met", 0.9), line("under the limit", 1.2), line("OVER THE LIMIT", 9.0)],
            "rows": [row("nginx"), row("cco")],
        });
        let svg = svg(&measured);
        for part in [
            "class=\"met\"",
            "class=\"under\"",
            "class=\"over\"",
            "CPU &lt;per&gt; request",
            ">9.00<",
            "90, 120, 300, 4000",
        ] {
            assert!(svg.contains(part), "`{part}` is not in {svg}");
        }
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
