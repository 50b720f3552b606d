//! Alert rules and dashboard: what they ask for exists, and each rule fires when it should.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use super::{read, repository, run, scratch};

const ALERTS: &str = "packaging/prometheus/alerts.yml";
const TESTS: &str = "packaging/prometheus/alerts_test.yml";
const DASHBOARD: &str = "packaging/grafana/outboxd.json";

fn promtool(arguments: &[&str]) -> super::Said {
    run(Command::new("promtool").args(arguments).current_dir(repository("packaging/prometheus")))
}

/// What looks like a metric of ours.
fn metrics(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("outboxd_") || word.starts_with("process_")).map(str::to_owned).collect()
}

/// Those that `/metrics` does not have; a histogram's series are of it.
fn unknown(used: &BTreeSet<String>) -> Vec<&String> {
    let known = super::super::reference::metric_names();
    let family = |name: &str| ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).map(str::to_owned);
    used.iter().filter(|name| !known.contains(*name) && !family(name).is_some_and(|family| known.contains(&family))).collect()
}

fn expressions() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets =
        panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten().map(move |target| (panel, target)));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    targets.map(|(panel, target)| (text(&panel["title"]), text(&target["expr"]))).collect()
}

#[test]
fn the_alert_rules_are_valid_and_fire_when_they_should() {
    promtool(&["check", "rules", "alerts.yml"]).content();
    promtool(&["test", "rules", "alerts_test.yml"]).content();
}

#[test]
fn every_alert_is_seen_to_fire() {
    let tests = read(TESTS);
    let names: Vec<String> =
        read(ALERTS).lines().filter_map(|line| line.trim().strip_prefix("- alert: ").map(str::to_owned)).collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        assert!(tests.contains(&format!("ALERTS{{alertname=\"{name}\", alertstate=\"firing\",")), "no test sees {name} fire");
    }
}

#[test]
fn alerts_and_dashboard_ask_for_metrics_that_exist() {
    for path in [ALERTS, TESTS, DASHBOARD] {
        let used = metrics(&read(path));
        assert!(used.len() > 10, "the test looks at the wrong place: {path}");
        assert_eq!(unknown(&used), Vec::<&String>::new(), "{path}");
    }
    assert_eq!(unknown(&BTreeSet::from(["outboxd_gone_total".into()])).len(), 1);
}

#[test]
fn every_expression_of_the_dashboard_is_promql() {
    let expressions = expressions();
    assert!(expressions.len() > 20, "{expressions:?}");
    let filled = |expression: &str| expression.replace("$outbox", ".*").replace("$__rate_interval", "5m");
    let rule = |(i, (title, expression)): (usize, &(String, String))| {
        assert!(expression.contains(r#"{outbox=~"$outbox"}"#), "{title} shows outboxes that were not chosen: {expression}");
        format!("  - record: panel:{i}\n    expr: {}\n", serde_json::to_string(&filled(expression)).unwrap())
    };
    let rules: String = expressions.iter().enumerate().map(rule).collect();
    let path = scratch("dashboard").join("rules.yml");
    std::fs::write(&path, format!("groups:\n- name: dashboard\n  rules:\n{rules}")).unwrap();
    promtool(&["check", "rules", path.to_str().unwrap()]).content();
}
