//! Files, environment, flags: which beats which, what each says when it is wrong, and what is shown.

use super::*;

#[test]
fn flags_beat_the_environment_which_beats_the_file_which_beats_the_default() {
    let text = format!("{NAMED}[relay]\nlinger = '20ms'\nlease = '20s'\nidle_interval = '200ms'\n");
    let environment = [("OUTBOXD__RELAY__LEASE", "30s"), ("OUTBOXD__RELAY__LINGER", "30ms"), ("PATH", "/bin")];
    let loaded = load_all(&text, &environment, &[("relay.linger", "40ms")]);
    let Loaded { config, settings } = loaded.unwrap_or_else(|errors| panic!("{errors}"));
    let line_of = |name: &str| text_of(&settings, name);
    assert_eq!(config.relay.linger, Duration::from_millis(40));
    assert_eq!(line_of("linger"), "linger = \"40ms\"  # command line");
    assert_eq!(line_of("lease"), "lease = \"30s\"  # environment variable OUTBOXD__RELAY__LEASE");
    assert_eq!(line_of("idle_interval"), "idle_interval = \"200ms\"  # outboxd.toml:6");
    assert_eq!(line_of("shutdown_grace"), "shutdown_grace = \"25s\"  # default");
}

fn text_of(settings: &[Setting], name: &str) -> String {
    let whole = text(settings);
    let line = whole.lines().find(|line| line.starts_with(&format!("{name} =")));
    line.unwrap_or_else(|| panic!("{name} is not shown")).to_owned()
}

#[test]
fn an_environment_variable_takes_integers_and_the_empty_string() {
    let text = format!("{NAMED}source = 'x'\n[relay]\nbatch_max_events = 7\n");
    let environment = [("OUTBOXD__RELAY__BATCH_MAX_EVENTS", "70"), ("OUTBOXD__OUTBOX__SOURCE", "")];
    let config = config(load_all(&text, &environment, &[]));
    assert_eq!((config.relay.batch_max_events, config.outbox.source), (70, None));
    let wrong = [("OUTBOXD__RELAY__BATCH_MAX_EVENTS", "many")];
    assert_eq!(only_error(load_all(NAMED, &wrong, &[])).code, ErrorCode::WrongType);
}

#[test]
fn all_errors_are_reported_at_once_in_the_order_of_their_places() {
    let text = "[relay]\nlease = '1ms'\nlinger = 5\n[kafka]\nbrokers = ''\n[databse]\nurl = 'x'\n";
    let environment = [("OUTBOXD__LOG__LEVEL", "loud")];
    let errors = errors(load_all(text, &environment, &[("http.listen", "nowhere")]));
    let places: Vec<_> = errors.iter().map(|error| format!("{} {} {}", error.code, error.origin, error.key)).collect();
    assert_eq!(
        places,
        [
            "OBX110 default outbox.name",
            "OBX107 outboxd.toml:2 relay.lease",
            "OBX106 outboxd.toml:3 relay.linger",
            "OBX109 outboxd.toml:5 kafka.brokers",
            "OBX103 outboxd.toml:6 databse",
            "OBX108 environment variable OUTBOXD__LOG__LEVEL log.level",
            "OBX109 command line http.listen",
        ]
    );
}

#[test]
fn a_misspelt_name_gets_the_nearest_one() {
    for (text, code, remedy) in [
        ("[relay]\nlingr = '1s'", ErrorCode::UnknownKey, "Did you mean relay.linger?"),
        ("[relay]\nLinger = '1s'", ErrorCode::UnknownKey, "Did you mean relay.linger?"),
        ("[kafka]\nbroker = 'a'", ErrorCode::UnknownKey, "Did you mean kafka.brokers?"),
        ("[kafka]\nurl = 'a'", ErrorCode::UnknownKey, "Did you mean database.url?"),
        ("[database]\npassword = 'a'", ErrorCode::UnknownKey, "Did you mean database.password_file?"),
        ("[kafka]\ntransaction_timeout_ms = 1", ErrorCode::UnknownKey, "Did you mean kafka.transaction_timeout?"),
        ("[log]\nzzz = 1", ErrorCode::UnknownKey, "The keys of this section are log.format, log.level."),
        ("[databse]\nurl = 'a'", ErrorCode::UnknownSection, "Did you mean database?"),
        ("[zzz]\nurl = 'a'", ErrorCode::UnknownSection, "The sections are database, outbox, kafka, relay, http, log."),
        ("[a]\n[[relay]]\nlease = '1s'", ErrorCode::WrongType, "Write [relay], and its keys below it."),
    ] {
        let all = errors(load_text(&format!("{NAMED}{text}")));
        let found = all.iter().any(|error| error.code == code && error.remedy == remedy);
        assert!(found, "{text}: {all:#?}");
    }
    let loose = format!("linger = '1s'\n{NAMED}");
    assert_eq!(only_error(load_text(&loose)).remedy, "Did you mean relay.linger?");
}

#[test]
fn a_misspelt_variable_gets_the_nearest_one() {
    for (variable, remedy) in [
        ("OUTBOXD__RELAY__LINGR", "Did you mean OUTBOXD__RELAY__LINGER?"),
        ("OUTBOXD__RELAI__LINGER", "Did you mean OUTBOXD__RELAY__LINGER?"),
        ("OUTBOXD__LINGER", "Did you mean OUTBOXD__RELAY__LINGER?"),
    ] {
        let error = only_error(load_all(NAMED, &[(variable, "10ms")], &[]));
        assert_eq!(error.remedy, remedy);
        assert_eq!(error.origin, Origin::Environment { variable: variable.to_owned() });
    }
}

#[test]
fn columns_are_a_table_wherever_they_are_written() {
    let columns = |loaded: Result<Loaded, ConfigErrors>| config(loaded).outbox.columns;
    let expected = Columns::default().with(Column::Id, Some("Event \"Id\", x")).with(Column::Headers, None);
    assert!(Columns::default().are_standard() && !expected.are_standard());
    let line = "{ id = 'Event \"Id\", x', headers = '' }";
    let section = "[outbox.columns]\nid = 'Event \"Id\", x'\nheaders = ''";
    let loaded = load_text(&format!("{NAMED}columns = {line}")).expect("a configuration");
    let again = text(&loaded.settings);
    assert_eq!([loaded.config.outbox.columns, columns(load_text(&again))], [expected.clone(), expected.clone()], "{again}");
    assert_eq!(columns(load_text(&format!("{NAMED}{section}"))), expected);
    assert_eq!(columns(load_all(NAMED, &[("OUTBOXD__OUTBOX__COLUMNS", line)], &[])), expected);
    assert_eq!(columns(load_all(NAMED, &[], &[("outbox.columns", line)])), expected);
    assert!(columns(load_all(NAMED, &[("OUTBOXD__OUTBOX__COLUMNS", "")], &[])).are_standard());
}

#[test]
fn the_history_of_a_table_of_ones_own_stays_until_a_retention_is_written() {
    let mapped = format!("{NAMED}columns = {{ sent_at = 'published_at' }}\n");
    let retention = |loaded: Loaded| {
        let setting = loaded.settings.iter().find(|setting| setting.name == "retention").expect("it is shown").clone();
        let shown = text(std::slice::from_ref(&setting)).lines().last().expect("a line").to_owned();
        (loaded.config.outbox.retention, shown, json(&[setting])["outbox"]["retention"]["why"].clone())
    };
    let (kept, shown, why) = retention(load_text(&mapped).expect("a configuration"));
    assert_eq!((kept, shown.as_str()), (Retention::Forever, "retention = \"forever\"  # default with outbox.columns"));
    assert_eq!(why, "with outbox.columns");
    let day = Retention::For(Duration::from_secs(86_400));
    let written =
        [load_text(&format!("{mapped}retention = '24h'")), load_all(&mapped, &[("OUTBOXD__OUTBOX__RETENTION", "24h")], &[])];
    for loaded in written {
        assert_eq!(retention(loaded.expect("a configuration")).0, day, "what is written counts");
    }
    let standard = ["", "columns = {}", "columns = { id = 'id' }"].map(|columns| load_text(&format!("{NAMED}{columns}")));
    for loaded in standard {
        assert_eq!(retention(loaded.expect("a configuration")).0, day, "the table of `migrate`");
    }
}

#[test]
fn columns_that_cannot_be_are_refused() {
    let long = format!("{{ id = '{}' }}", "x".repeat(64));
    for (columns, code, part) in [
        ("x", ErrorCode::Malformed, "no table of names"),
        ("{} \nlog.level = 'debug'", ErrorCode::Malformed, "no table of names"),
        ("{ id = 1 }", ErrorCode::Malformed, "no table of names"),
        ("{ topic = '' }", ErrorCode::Malformed, "without topic"),
        (&long, ErrorCode::Malformed, "at most 63 bytes"),
        ("{ colour = 'x' }", ErrorCode::UnknownKey, "There are seq, id, topic"),
        ("{ sent_at = 'key' }", ErrorCode::Conflict, "sent_at and key are the same column"),
        ("{ seq = 'topic' }", ErrorCode::Conflict, "seq and topic are the same column"),
    ] {
        let error = only_error(load_all(NAMED, &[], &[("outbox.columns", columns)]));
        assert!(error.code == code && error.to_string().contains(part), "{columns}: {error}");
    }
    let same = config(load_all(NAMED, &[], &[("outbox.columns", "{ id = 'n', seq = 'n' }")])).outbox.columns;
    assert_eq!(same.of(Column::Id), same.of(Column::Seq), "the number may be the identity");
}

#[test]
fn a_syntax_error_has_line_and_column_and_quotes_nothing() {
    for (text, place) in [
        ("[kafka]\npassword = s3cret word\n", "outboxd.toml:2: column 12: "),
        ("[database]\n  postgres://a:s3cret@db/shop\n", "outboxd.toml:2: column 30: "),
        ("[kafka]\npassword = 's3cret\n", "outboxd.toml:2: column 19: "),
        ("[kafka]\npassword = 's3cret'\npassword = 'x'\n", "outboxd.toml:3: column 1: "),
        ("[kafka\n", "outboxd.toml:1: column 7: "),
    ] {
        let error = only_error(load_text(text));
        assert_eq!(error.code, ErrorCode::Syntax);
        assert!(error.to_string().starts_with(&format!("OBX102: {place}")), "{error}");
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
}

#[test]
fn a_syntax_error_does_not_hide_what_is_wrong_elsewhere() {
    let errors = errors(load_all("[", &[("OUTBOXD__LOG__LEVEL", "loud")], &[]));
    assert_eq!(errors.iter().map(|error| error.code).collect::<Vec<_>>(), [ErrorCode::Syntax, ErrorCode::UnknownWord]);
}

#[test]
fn a_named_file_must_be_there() {
    let missing = |sources: &Sources| {
        let error = errors(load(sources)).remove(0);
        assert_eq!(error.code, ErrorCode::UnreadableConfig);
        assert!(error.cause.contains("/nowhere/outboxd.toml cannot be read"), "{error}");
    };
    let file = PathBuf::from("/nowhere/outboxd.toml");
    missing(&Sources { file: Some(file.clone()), ..Sources::default() });
    let environment = vec![(FILE_VARIABLE.into(), file.into())];
    missing(&Sources { environment, ..Sources::default() });
}

#[test]
fn the_file_of_the_command_line_beats_that_of_the_environment() {
    let file = Scratch::new("named.toml", "[outbox]\nname = 'from-file'\n");
    let sources =
        Sources { file: Some(file.0.clone()), environment: vec![(FILE_VARIABLE.into(), "/nowhere".into())], flags: Vec::new() };
    assert_eq!(config(load(&sources)).outbox.name, "from-file");
}

#[test]
fn a_secret_is_read_from_its_file_without_the_last_line_break() {
    let secret = Scratch::new("password", " s3cret \r\n");
    let path = secret.path();
    let text = format!(
        "{NAMED}[database]\npassword_file = '{path}'\n[kafka]\nsecurity = 'sasl_ssl'\nsasl_mechanism = 'PLAIN'\n\
         username = 'u'\npassword_file = '{path}'\ncertificate_file = '{path}'\nkey_file = '{path}'\nkey_password_file = '{path}'\n"
    );
    let loaded = load_text(&text).unwrap_or_else(|errors| panic!("{errors}"));
    let revealed = |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.reveal().to_owned());
    let expected = Some(" s3cret ".to_owned());
    assert_eq!(revealed(&loaded.config.database.password), expected);
    assert_eq!(revealed(&loaded.config.kafka.password), expected);
    assert_eq!(revealed(&loaded.config.kafka.key_password), expected);
    assert!(!super::text(&loaded.settings).contains("s3cret"));
    assert!(!json(&loaded.settings).to_string().contains("s3cret"));
    assert!(!format!("{:?}", loaded.config).contains("s3cret"));
    assert_eq!(text_of(&loaded.settings, "password"), "password = \"***\"  # outboxd.toml:9");
}

#[test]
fn a_secret_file_that_cannot_be_used_is_named_with_its_key() {
    let empty = Scratch::new("empty", "\n");
    for key in [
        "database.url_file",
        "database.password_file",
        "kafka.password_file",
        "kafka.key_password_file",
        "kafka.token_file",
        "kafka.ca_file",
        "kafka.certificate_file",
        "kafka.key_file",
        "database.ca_file",
    ] {
        for (path, fragment) in [("/nowhere/secret", "/nowhere/secret cannot be read: "), (empty.path(), "is empty")] {
            let errors = errors(load_all(NAMED, &[], &[(key, path)]));
            let found = errors.iter().find(|error| error.code == ErrorCode::UnreadableFile);
            let error = found.unwrap_or_else(|| panic!("{key}: {errors:?}"));
            assert_eq!((error.key.as_str(), error.origin.clone()), (key, Origin::Flag));
            assert!(error.cause.contains(fragment), "{error}");
        }
    }
}

#[test]
fn a_url_is_read_from_its_file() {
    let file = Scratch::new("url", "postgres://a:s3cret@db:6432/shop\n");
    let loaded = load_all(NAMED, &[("OUTBOXD__DATABASE__URL_FILE", file.path())], &[]);
    let loaded = loaded.unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(loaded.config.database.address().to_string(), "db:6432/shop");
    assert_eq!(loaded.config.database.url().reveal(), "postgres://a:s3cret@db:6432/shop");
    assert_eq!(loaded.config.database.password.as_ref().map(Secret::reveal), Some("s3cret"));
    assert!(text_of(&loaded.settings, "url").starts_with("url = \"postgres://a:***@db:6432/shop\"  # environment"));
    let wrong = Scratch::new("wrong-url", "s3cret");
    let error = only_error(load_all(NAMED, &[], &[("database.url_file", wrong.path())]));
    assert_eq!((error.key.as_str(), error.code), ("database.url_file", ErrorCode::Malformed));
    assert!(!error.to_string().contains("s3cret"));
}

#[test]
fn a_key_and_its_file_are_not_both_set_in_one_source() {
    let file = Scratch::new("both", "postgres://a@db/shop");
    for key in ["database.url", "kafka.password", "kafka.key_password"] {
        let file_key = format!("{key}_file");
        let flags = [(key, "postgres://a@other/shop"), (file_key.as_str(), file.path())];
        let errors = errors(load_all(NAMED, &[], &flags));
        let error = errors.iter().find(|error| error.key == file_key).expect("the pair is refused");
        assert_eq!((error.code, error.cause.as_str()), (ErrorCode::Conflict, format!("{key} is set too").as_str()));
    }
}

#[test]
fn a_higher_source_decides_between_a_key_and_its_file() {
    let file = Scratch::new("higher", "postgres://a@from-file/shop");
    let host = |text: &str, environment: &[(&str, &str)]| {
        config(load_all(&format!("{NAMED}{text}"), environment, &[])).database.address().host.to_string()
    };
    let in_file = "[database]\nurl = 'postgres://a@inline/shop'\n";
    assert_eq!(host(in_file, &[("OUTBOXD__DATABASE__URL_FILE", file.path())]), "from-file");
    let named = format!("[database]\nurl_file = '{}'\n", file.path());
    assert_eq!(host(&named, &[("OUTBOXD__DATABASE__URL", "postgres://a@inline/shop")]), "inline");
    assert_eq!(host(&named, &[]), "from-file");
}

#[test]
fn an_instance_without_a_name_has_that_of_its_host() {
    assert!(!config(load_text(NAMED)).relay.instance.is_empty());
    assert_eq!(config(load_all(NAMED, &[], &[("relay.instance", "pod-7")])).relay.instance, "pod-7");
}

#[test]
fn the_json_form_is_stable() {
    let flags = [("relay.instance", "pod-7"), ("kafka.properties.debug", "eos")];
    let environment = [("OUTBOXD__DATABASE__URL", "postgres://a:s3cret@db/shop")];
    let loaded = load_all(NAMED, &environment, &flags).unwrap_or_else(|errors| panic!("{errors}"));
    let json = json(&loaded.settings);
    let expected = [
        ("outbox", "name", r#"{"file":"outboxd.toml","line":2,"origin":"file","value":"shop"}"#),
        ("relay", "batch_max_events", r#"{"origin":"default","value":5000}"#),
        ("relay", "instance", r#"{"origin":"flag","value":"pod-7"}"#),
        ("kafka.properties", "debug", r#"{"origin":"flag","value":"eos"}"#),
        ("database", "url", r#"{"origin":"environment","value":"postgres://a:***@db/shop","variable":"OUTBOXD__DATABASE__URL"}"#),
    ];
    for (section, key, setting) in expected {
        assert_eq!(json[section][key].to_string(), setting);
    }
}

#[test]
fn what_is_shown_reads_back_as_the_same_configuration() {
    let loaded = load_text(NAMED).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config(load_text(&text(&loaded.settings))), loaded.config);
}

#[test]
fn codes_are_stable_and_each_its_own() {
    let codes: Vec<_> = ErrorCode::ALL.iter().map(|code| code.to_string()).collect();
    let expected: Vec<_> = (101..=115).map(|number| format!("OBX{number}")).collect();
    assert_eq!(codes, expected);
}
