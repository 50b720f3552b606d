//! The URL of the database: taken apart, decoded, masked, refused.

use super::*;

fn url(text: &str) -> DatabaseUrl {
    DatabaseUrl::parse(text).unwrap_or_else(|refusal| panic!("{text}: {refusal:?}"))
}

#[test]
fn a_url_is_taken_apart() {
    let all = url("postgresql://relay:p%40ss%2Fw%25rd@db.example:6432/my%20shop?application_name=out%26boxd");
    assert_eq!(all.address.to_string(), "db.example:6432/my shop");
    assert_eq!((all.user.as_str(), all.address.port), ("relay", 6432));
    assert_eq!(all.password.as_ref().map(Secret::reveal), Some("p@ss/w%rd"));
    assert_eq!(all.application_name.as_deref(), Some("out&boxd"));
    let least = url("postgres://relay@db/shop");
    assert_eq!((least.address.port, least.password), (5432, None));
}

#[test]
fn a_url_may_name_an_ipv6_address_or_a_socket() {
    assert_eq!(url("postgres://a@[::1]/shop").address.host, Host::Name("::1".to_owned()));
    assert_eq!(url("postgres://a@[::1]:99/shop").address.to_string(), "[::1]:99/shop");
    let socket = Host::Socket(PathBuf::from("/run/postgresql"));
    assert_eq!(url("postgres://a@%2Frun%2Fpostgresql/shop").address.host, socket);
    assert_eq!(url("postgres://a@/shop?host=/run/postgresql").address.host, socket);
    assert_eq!(url("postgres://a@:5433/shop?host=/run/postgresql").address.port, 5433);
}

#[test]
fn a_password_may_hold_an_at_sign_and_colons() {
    let lenient = url("postgres://a:p@s:s@db/shop");
    assert_eq!(lenient.password.as_ref().map(Secret::reveal), Some("p@s:s"));
    assert_eq!(lenient.masked(), "postgres://a:***@db/shop");
    assert_eq!(url("postgres://a:@db/shop").password, None);
}

#[test]
fn a_masked_url_differs_in_its_password_only() {
    let written = "postgres://db:db@db:5432/db?application_name=db";
    assert_eq!(url(written).masked(), "postgres://db:***@db:5432/db?application_name=db");
    assert_eq!(url(written).raw.reveal(), written);
    assert!(!format!("{:?}", url("postgres://a:s3cret@db/shop")).contains("s3cret"));
}

#[test]
fn a_file_is_named_by_its_absolute_path() {
    let file = url("sqlite:///var/lib/my%20shop/shop%3F.db");
    assert_eq!(file.file(), Some(Path::new("/var/lib/my shop/shop?.db")));
    assert_eq!(file.address.to_string(), "/var/lib/my shop/shop?.db");
    assert_eq!(file.masked(), "sqlite:///var/lib/my%20shop/shop%3F.db");
    assert_eq!(url("postgres://relay@db/shop").file(), None);
}

#[test]
fn a_wrong_url_is_refused_without_being_quoted() {
    for (wrong, fragment) in [
        ("", "does not begin with postgres:// or sqlite://"),
        ("s3cret", "does not begin with postgres://"),
        ("s3cret://a@db/shop", "does not begin with postgres://"),
        ("postgres:a:s3cret@db/shop", "does not begin with postgres://"),
        ("sqlite://s3cret.db", "no absolute path"),
        ("sqlite::memory:", "no absolute path"),
        ("sqlite:///s3cret.db?mode=ro", "a bare ?"),
        ("sqlite:///s3cret%f.db", "not well encoded"),
        ("sqlite:///s3cret/", "a folder"),
        ("mysql://a:s3cret@db/shop", "mysql is not in this version"),
        ("postgres://a:s3cret@db", "names no database"),
        ("postgres://a:s3cret@db/", "names no database"),
        ("postgres://db/s3cret", "names no user"),
        ("postgres://:s3cret@db/shop", "names no user"),
        ("postgres://a:s3/cret@db/shop", "names no user"),
        ("postgres://a:s3?cret@db/shop", "names no database"),
        ("postgres://a:s3#cret@db/shop", "bare #"),
        ("postgres://a:s3%cret@db/shop", "not followed by two hexadecimal digits"),
        ("postgres://a:s3cret%@db/shop", "not followed by two hexadecimal digits"),
        ("postgres://a:s3cret%+1@db/shop", "not followed by two hexadecimal digits"),
        ("postgres://a:s3cret%00@db/shop", "NUL"),
        ("postgres://a:s3cret%ff@db/shop", "not UTF-8"),
        ("postgres://a:s3cret@/shop", "no valid host"),
        ("postgres://a:s3cret@d'b/shop", "no valid host"),
        ("postgres://a:s3cret@db:0/shop", "no valid port"),
        ("postgres://a:s3cret@db:http/shop", "no valid port"),
        ("postgres://a:s3cret@db1,db2/shop", "a list of hosts"),
        ("postgres://a:s3cret@db/shop?host=/run", "two hosts"),
        ("postgres://a:s3cret@db/shop?sslmode=require", "the parameter sslmode"),
        ("postgres://a@db/shop?password=s3cret", "the parameter password"),
        ("postgres://a@db/shop?s3cret", "a parameter that is not known"),
    ] {
        let error = only_error(load_all(NAMED, &[("OUTBOXD__DATABASE__URL", wrong)], &[]));
        assert!(error.cause.contains(fragment), "{wrong}: {error}");
        assert_eq!(error.key, "database.url");
        assert!(!error.to_string().contains("s3"), "{error}");
    }
}

#[test]
fn a_name_that_the_server_would_cut_is_refused() {
    let long = "d".repeat(64);
    for wrong in [format!("postgres://a@db/{long}"), format!("postgres://{long}@db/shop")] {
        let refusal = DatabaseUrl::parse(&wrong).expect_err("too long");
        assert!(refusal.cause.contains("longer than 63 bytes"), "{}", refusal.cause);
    }
}
