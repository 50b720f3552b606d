//! The command line, run as a person runs it: help, errors, exit codes, secrets. Nobody listens on the addresses used here.

use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use outboxd::fault::{EVENTS_TRUNCATED, Fault, HaltCode};
use outboxd::park::Ailing;

/// Longer than any of these commands may take.
const MOST: Duration = Duration::from_secs(60);
/// What an answer without a database may take at most.
const SECONDS: Duration = Duration::from_secs(10);
/// Port 1 is nobody's.
const NOWHERE: &str = "postgres://outboxd@127.0.0.1:1/shop";

/// What a command printed and how it ended.
pub(super) struct Answer {
    code: Option<i32>,
    pub(super) stdout: String,
    stderr: String,
    took: Duration,
}

impl Answer {
    #[track_caller]
    pub(super) fn expect(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub(super) fn says(&self, text: &str) -> &Self {
        assert!(self.stderr.contains(text), "{text:?} is not in stderr: {}", self.stderr);
        self
    }
}

/// Runs the binary with an outbox named shop, a database and a Kafka that are not there.
pub(super) fn outboxd(arguments: &[&str]) -> Answer {
    let nothing = file("");
    let environment = [
        ("OUTBOXD_CONFIG", nothing.to_str().unwrap()),
        ("OUTBOXD__OUTBOX__NAME", "shop"),
        ("OUTBOXD__DATABASE__URL", NOWHERE),
        ("OUTBOXD__KAFKA__BROKERS", "127.0.0.1:1"),
        ("OUTBOXD__HTTP__LISTEN", "127.0.0.1:1"),
        ("OUTBOXD__RELAY__INSTANCE", "one"),
    ];
    outboxd_with(&environment, arguments)
}

/// Runs the binary with this environment and nothing else. It must not panic.
#[track_caller]
fn outboxd_with(environment: &[(&str, &str)], arguments: &[&str]) -> Answer {
    let started = Instant::now();
    let mut command = Command::new(env!("CARGO_BIN_EXE_outboxd"));
    command.env_clear().envs(environment.iter().copied()).args(arguments);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (stdout, stderr) = (collect(child.stdout.take().unwrap()), collect(child.stderr.take().unwrap()));
    // both pipes are closed when the process ends
    let Ok(stderr) = stderr.recv_timeout(MOST) else {
        child.kill().unwrap();
        panic!("outboxd {arguments:?} did not end within {MOST:?}");
    };
    let (stdout, code) = (stdout.recv_timeout(MOST).unwrap(), child.wait().unwrap().code());
    let answer = Answer { code, stdout, stderr, took: started.elapsed() };
    assert!(!answer.stderr.contains("panicked"), "outboxd {arguments:?}: {}", answer.stderr);
    assert!(answer.code.is_some(), "outboxd {arguments:?} was ended by a signal: {}", answer.stderr);
    answer
}

fn collect(mut from: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        from.read_to_string(&mut text).unwrap();
        let _ = sender.send(text);
    });
    receiver
}

/// A new file with this text.
fn file(text: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("cli-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// Compares with the file of that name under `tests/quick/snapshots`; with OUTBOXD_TEST_BLESS writes it.
#[track_caller]
fn assert_snapshot(name: &str, text: &str) {
    assert_current(&format!("tests/quick/snapshots/{name}"), text);
}

/// Compares with the file of this path from the top of the repository; with OUTBOXD_TEST_BLESS writes it.
#[track_caller]
pub(super) fn assert_current(path: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("OUTBOXD_TEST_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{} differs; write it anew with OUTBOXD_TEST_BLESS=1 and look at the difference", path.display());
}

#[test]
fn every_command_has_help_with_an_example() {
    let commands: [&[&str]; 23] = [
        &[],
        &["run"],
        &["demo"],
        &["migrate"],
        &["check"],
        &["status"],
        &["verify"],
        &["trace"],
        &["send"],
        &["parked"],
        &["parked", "list"],
        &["parked", "show"],
        &["parked", "retry"],
        &["parked", "discard"],
        &["pause"],
        &["resume"],
        &["adopt"],
        &["reconcile"],
        &["repin"],
        &["config"],
        &["config", "show"],
        &["healthcheck"],
        &["completions"],
    ];
    for command in commands {
        let answer = outboxd_with(&[], &[command, &["--help"]].concat());
        answer.expect(0);
        assert!(answer.stderr.is_empty(), "help is an answer: {}", answer.stderr);
        let name = [&["help"], command].concat().join("-");
        assert_snapshot(&format!("{name}.txt"), &answer.stdout);
        assert!(
            answer.stdout.contains("\nExamples:\n  outboxd ")
                || [["config"], ["parked"]].contains(&[command.first().copied().unwrap_or_default()]) && command.len() == 1,
            "{command:?} has no example"
        );
        let listed = answer.stdout.split("Commands:\n").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap_or_default();
        for sub in listed.lines().filter_map(|line| line.split_whitespace().next()).filter(|sub| *sub != "help") {
            assert!(commands.contains(&[command, &[sub]].concat().as_slice()), "{command:?} {sub} is not looked at here");
        }
    }
}

#[test]
fn the_version_is_told() {
    let answer = outboxd_with(&[], &["--version"]);
    answer.expect(0);
    assert_eq!(answer.stdout, format!("outboxd {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn every_shell_gets_its_completions_without_a_configuration() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let answer = outboxd_with(&[("OUTBOXD_CONFIG", "/no/such/file.toml")], &["completions", shell]);
        answer.expect(0);
        assert!(answer.stdout.contains("healthcheck") && answer.stdout.contains("repin"), "{shell}: {}", answer.stdout);
    }
}

#[test]
fn arguments_that_make_no_sense_end_with_2() {
    let wrong: [&[&str]; 15] = [
        &[],
        &["relay"],
        &["--no-such-flag", "run"],
        &["run", "now"],
        &["config"],
        &["config", "set"],
        &["send"],
        &["send", "--topic", "orders"],
        &["send", "--topic", "orders", "{}", "--timeout", "1s"],
        &["send", "--topic", "orders", "{}", "--wait", "--timeout", "soon"],
        &["migrate", "--topics", "orders"],
        &["migrate", "--topics", "orders:0"],
        &["migrate", "--apply"],
        &["status", "--set", "relay.linger"],
        &["adopt", "--database", "--missing", "1", "--dry-run"],
    ];
    for arguments in wrong {
        let answer = outboxd(arguments);
        answer.expect(2);
        assert!(answer.stdout.is_empty() && answer.stderr.contains("Usage:") | answer.stderr.contains("--help"), "{arguments:?}");
    }
}

const BROKEN: &str = "[outbox]\nname = \"Shop!\"\nmark = \"ledger\"\n\n[relay]\nlingr = \"10ms\"\nidle_interval = \"100\"\nlease = 10\n\
    \n[kafka.properties]\nacks = \"1\"\n\n[htpp]\nlisten = \"off\"\n";

#[test]
fn everything_wrong_with_a_configuration_is_told_at_once() {
    let path = file(BROKEN);
    let path = path.to_str().unwrap();
    for command in ["run", "status", "migrate", "healthcheck"] {
        let answer = outboxd_with(&[], &[command, "--config", path, "--set", "relay.batch_max_events=0"]);
        answer.expect(78);
        assert!(answer.stdout.is_empty());
        for (line, key) in
            [(2, "outbox.name"), (3, "outbox.mark"), (6, "relay.lingr"), (7, "relay.idle_interval"), (8, "relay.lease")]
        {
            answer.says(&format!("{path}:{line}: {key}: "));
        }
        answer.says("Did you mean relay.linger?").says("command line: relay.batch_max_events: ");
        assert_snapshot("configuration-errors.txt", &answer.stderr.replace(path, "FILE"));
    }
}

#[test]
fn check_tells_everything_wrong_with_a_configuration_as_findings() {
    let path = file(BROKEN);
    let path = path.to_str().unwrap();
    for reach in [&["check", "--json", "--config", path][..], &["check", "--json", "--offline", "--config", path]] {
        let answer = outboxd_with(&[], reach);
        let json: serde_json::Value = serde_json::from_str(&answer.expect(78).stdout).unwrap();
        let findings = json["findings"].as_array().unwrap();
        let told = outboxd_with(&[], &["status", "--config", path]).stderr.lines().count();
        assert!(findings.len() == told && told > 5, "{json}");
        assert!(
            findings
                .iter()
                .all(|found| found["name"] == "configuration" && found["state"] == "failed" && found["remedy"].is_string())
        );
        assert!(findings.iter().any(|found| found["found"].as_str().unwrap().starts_with("OBX104: ")), "{json}");
    }
    assert!(outboxd_with(&[], &["check", "--config", path]).expect(78).stdout.contains("-> Did you mean relay.linger?"));
}

#[test]
fn check_offline_looks_at_the_configuration_alone() {
    let arguments =
        ["check", "--offline", "--set", "kafka.delivery=at_least_once", "--set", "database.url=postgres://o@db.example/shop"];
    let answer = outboxd(&arguments);
    answer.expect(0);
    assert!(answer.took < SECONDS && answer.stderr.is_empty(), "{:?} {}", answer.took, answer.stderr);
    assert_snapshot("check-offline.txt", &answer.stdout);
    let json: serde_json::Value = serde_json::from_str(&outboxd(&[&arguments[..], &["--json"]].concat()).expect(0).stdout).unwrap();
    assert_snapshot("check-offline.json", &format!("{}\n", serde_json::to_string_pretty(&json).unwrap()));
}

#[test]
fn check_tells_servers_that_are_not_there_as_findings() {
    let answer = outboxd(&["check", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&answer.expect(69).stdout).unwrap();
    let failed = json["findings"].as_array().unwrap().iter().filter(|found| found["state"] == "failed");
    let failed: Vec<&str> = failed.map(|found| found["name"].as_str().unwrap()).collect();
    assert_eq!(failed, ["database-reachable", "kafka-reachable"], "{json}");
    assert!(json["guarantees"].as_array().unwrap().iter().all(|found| found["verdict"] != "holds"), "{json}");
}

#[test]
fn a_configuration_that_is_not_there_ends_with_78() {
    outboxd_with(&[], &["status", "--config", "/no/such/file.toml"]).expect(78).says("OBX101: ").says("/no/such/file.toml");
    outboxd_with(&[("OUTBOXD_CONFIG", "/no/such/file.toml")], &["status"]).expect(78).says("/no/such/file.toml");
    let nothing = file("");
    outboxd_with(&[], &["status", "--config", nothing.to_str().unwrap()]).expect(78).says("OBX110: ").says("outbox.name");
    let broken = file("[outbox]\nname = shop\n");
    outboxd_with(&[], &["status", "--config", broken.to_str().unwrap()]).expect(78).says("OBX102: ").says(":2: ");
    outboxd_with(&[("OUTBOXD__RELAY__LINGR", "1ms"), ("OUTBOXD__OUTBOX__NAME", "shop")], &["status"])
        .expect(78)
        .says("OUTBOXD__RELAY__LINGR")
        .says("Did you mean OUTBOXD__RELAY__LINGER?");
}

#[test]
fn the_effective_configuration_is_told_with_its_origins() {
    let nothing = file("");
    let environment = [("OUTBOXD__OUTBOX__NAME", "shop"), ("OUTBOXD__RELAY__INSTANCE", "one")];
    let arguments = ["config", "show", "--json", "--config", nothing.to_str().unwrap(), "--set", "relay.linger=20ms"];
    let answer = outboxd_with(&environment, &arguments);
    answer.expect(0);
    let json: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_snapshot("config-show.json", &format!("{}\n", serde_json::to_string_pretty(&json).unwrap()));
}

const SESAME: &str = "open-sesame";

/// Every command, in each of its forms.
const COMMANDS: [&[&str]; 12] = [
    &["run", "--once"],
    &["check", "--json"],
    &["migrate"],
    &["migrate", "--plan"],
    &["migrate", "--roles"],
    &["status"],
    &["status", "--json"],
    &["send", "--topic", "orders", "{}"],
    &["config", "show"],
    &["config", "show", "--json"],
    &["healthcheck"],
    &["healthcheck", "--json"],
];

#[track_caller]
fn assert_keeps_secret(environment: &[(&str, &str)], arguments: &[&str]) {
    let mut all = vec![
        ("OUTBOXD__OUTBOX__NAME", "shop"),
        ("OUTBOXD__KAFKA__BROKERS", "127.0.0.1:1"),
        ("OUTBOXD__HTTP__LISTEN", "127.0.0.1:1"),
    ];
    all.extend([("OUTBOXD__RELAY__LEASE", "1s"), ("OUTBOXD__LOG__LEVEL", "trace"), ("OUTBOXD__DATABASE__URL", NOWHERE)]);
    all.extend_from_slice(environment);
    let answer = outboxd_with(&all, arguments);
    assert!(!answer.stdout.contains(SESAME), "{arguments:?}: {}", answer.stdout);
    assert!(!answer.stderr.contains(SESAME), "{arguments:?}: {}", answer.stderr);
    assert!(!answer.stdout.is_empty() || !answer.stderr.is_empty(), "{arguments:?} says nothing");
}

#[test]
fn no_command_prints_a_secret() {
    let secret = file(SESAME);
    let secret = secret.to_str().unwrap();
    let url = format!("postgres://outboxd:{SESAME}@127.0.0.1:1/shop");
    let url_file = file(&url);
    let sasl = [
        ("OUTBOXD__KAFKA__SECURITY", "sasl_plaintext"),
        ("OUTBOXD__KAFKA__SASL_MECHANISM", "PLAIN"),
        ("OUTBOXD__KAFKA__USERNAME", "outboxd"),
    ];
    let written = [&sasl[..], &[("OUTBOXD__DATABASE__URL", &url), ("OUTBOXD__KAFKA__PASSWORD", SESAME)]].concat();
    let in_files = [&sasl[..], &[("OUTBOXD__DATABASE__PASSWORD_FILE", secret), ("OUTBOXD__KAFKA__PASSWORD_FILE", secret)]].concat();
    let in_url_file = [("OUTBOXD__DATABASE__URL_FILE", url_file.to_str().unwrap()), ("OUTBOXD__DATABASE__URL", "")];
    for environment in [&written[..], &in_files, &in_url_file] {
        for command in COMMANDS {
            assert_keeps_secret(environment, command);
        }
    }
    assert_keeps_secret(&[], &["send", "--topic", "orders", "{}", "--url", &url]);
    assert_keeps_secret(&[], &["status", "--set", &format!("database.url={url}")]);
}

#[test]
fn no_error_about_a_secret_prints_it() {
    for url in [
        format!("postgres://outboxd:{SESAME}@127.0.0.1:port/shop"),
        format!("mysql://outboxd:{SESAME}@127.0.0.1/shop"),
        format!("postgres://outboxd:{SESAME}@127.0.0.1/shop?sslmode=disable"),
        format!("outboxd:{SESAME}@127.0.0.1"),
        format!("postgres://outboxd:{SESAME}@"),
    ] {
        assert_keeps_secret(&[("OUTBOXD__DATABASE__URL", &url)], &["status"]);
        assert_keeps_secret(&[], &["send", "--topic", "orders", "{}", "--url", &url]);
        let path = file(&format!("[outbox]\nname = \"shop\"\n[database]\nurl = \"{url}\"\n"));
        assert_keeps_secret(&[], &["status", "--config", path.to_str().unwrap()]);
    }
    for broken in [
        format!("[kafka]\npassword = {SESAME}\n"),
        format!("[kafka]\npassword = [\"{SESAME}\"]\n"),
        format!("[kafka]\npasswort = \"{SESAME}\"\n"),
    ] {
        let path = file(&broken);
        assert_keeps_secret(&[], &["status", "--config", path.to_str().unwrap()]);
    }
    assert_keeps_secret(&[("OUTBOXD__KAFKA__PASSWORD", SESAME)], &["status"]);
}

#[test]
fn a_database_that_is_not_there_is_told_within_seconds() {
    let commands: [&[&str]; 5] =
        [&["status"], &["send", "--topic", "orders", "{}"], &["migrate"], &["migrate", "--plan"], &["migrate", "--roles"]];
    for command in commands {
        let answer = outboxd(command);
        answer.expect(69).says("OBX201: ").says("database").says("Is the database up, and database.url right?");
        answer.says("database.url leads to 127.0.0.1:1/shop, kafka.brokers to 127.0.0.1:1");
        assert!(answer.took < SECONDS, "{command:?} took {:?}", answer.took);
    }
}

#[test]
fn commands_in_remedies_work_as_they_are_printed() {
    let ailing = |code| Fault::from(Ailing { topic: "orders".into(), code, detail: String::new() }).remedy();
    let topics = ["topic_missing", "topic_recreated", "topic_shrunk"].map(ailing);
    let halts = HaltCode::ALL.into_iter().map(|code| code.remedy().to_owned());
    let remedies: Vec<String> = halts.chain(topics).chain([EVENTS_TRUNCATED.remedy.to_owned()]).collect();
    let spans = remedies.iter().flat_map(|remedy| remedy.split('`').skip(1).step_by(2));
    let commands: Vec<&str> = spans.filter_map(|span| span.strip_prefix("outboxd ")).collect();
    assert!(commands.len() >= 9, "{commands:?}");
    for command in commands {
        let command = command.replace("UUID", "00000000-0000-4000-8000-000000000000");
        outboxd(&command.split(' ').collect::<Vec<_>>()).expect(69);
    }
}

#[test]
fn a_run_until_drained_leaves_when_the_database_is_not_there() {
    let answer = outboxd(&["run", "--once", "--set", "relay.lease=1s", "--set", "http.listen=off"]);
    answer.expect(69).says("OBX201").says("Is the database up");
}

#[test]
fn an_address_that_is_taken_is_told_with_its_key() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("http.listen={}", taken.local_addr().unwrap());
    outboxd(&["run", "--set", &listen]).expect(1).says("OBX504: cannot listen on 127.0.0.1:").says("(http.listen)");
}

#[test]
fn a_healthcheck_that_nobody_answers_ends_with_69() {
    // a port of its own: other tests run relays that listen on the usual one
    let nobody = ["--set", "http.listen=127.0.0.1:2"];
    outboxd(&[&["healthcheck"], &nobody[..]].concat()).expect(69).says("not ready: ").says("127.0.0.1:2");
    let answer = outboxd(&[&["healthcheck", "--json"], &nobody[..]].concat());
    let json: serde_json::Value = serde_json::from_str(&answer.expect(69).stdout).unwrap();
    assert_eq!(json["ready"], false);
    outboxd(&["healthcheck", "--set", "http.listen=off"]).expect(1).says("OBX505: http.listen is off");
}

/// Quotes, SQL, placeholders, escapes, and things that are not text.
const NASTY: [&str; 6] =
    ["'; DROP TABLE outbox; --", "\" OR \"\"=\"", "{outbox} $1 %s", "a\nb\t\u{7}", "\u{1f4a3}é\u{202e}", "%00%27%22../../etc"];

#[test]
fn no_string_makes_the_program_panic() {
    let shown: serde_json::Value = serde_json::from_str(&outboxd(&["config", "show", "--json"]).expect(0).stdout).unwrap();
    let sections = shown.as_object().unwrap().iter();
    let mut keys: Vec<String> = sections
        .flat_map(|(section, keys)| {
            let strings = keys.as_object().unwrap().iter().filter(|(_, setting)| setting["value"].is_string());
            strings.map(move |(key, _)| format!("{section}.{key}"))
        })
        .collect();
    assert!(keys.len() > 30 && keys.contains(&"outbox.table".to_owned()), "{keys:?}");
    keys.extend(["kafka.properties.client.id", "kafka.properties.x'\"; --", "outbox.'; --", "'; --"].map(str::to_owned));
    for key in &keys {
        for nasty in NASTY {
            let setting = format!("{key}={nasty}");
            for command in [&["config", "show"][..], &["migrate", "--plan"]] {
                let answer = outboxd(&[command, &["--set", &setting]].concat());
                assert!(matches!(answer.code, Some(0 | 69 | 78)), "{command:?} {setting}: {:?} {}", answer.code, answer.stderr);
            }
        }
    }
}

#[test]
fn no_argument_makes_the_program_panic() {
    for nasty in NASTY {
        outboxd(&["send", "--topic", nasty, "--key", nasty, "--type", nasty, "--headers", nasty, nasty]).expect(69);
        outboxd(&["migrate", "--roles", "--writer", nasty, "--relay", nasty]).expect(69);
        outboxd(&["migrate", "--topics", &format!("{nasty}:3")]);
        let url = format!("postgres://{nasty}:{nasty}@127.0.0.1:1/{nasty}");
        let code = outboxd(&["status", "--set", &format!("database.url={url}")]).code;
        assert!(matches!(code, Some(69 | 78)), "{url}: {code:?}");
    }
}
