//! What is shipped has no failpoints.

const VARIABLE: &[u8] = b"OUTBOXD_FAILPOINTS";

#[test]
fn the_binary_knows_of_failpoints_only_where_they_were_asked_for() {
    let binary = std::fs::read(env!("CARGO_BIN_EXE_outboxd")).unwrap();
    let has_them = binary.windows(VARIABLE.len()).any(|bytes| bytes == VARIABLE);
    assert_eq!(has_them, cfg!(feature = "failpoints"));
}

#[test]
fn nothing_that_is_shipped_asks_for_failpoints() {
    let repository = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for path in ["scripts/package", "Dockerfile", "packaging/debian"] {
        let path = repository.join(path);
        assert!(path.exists(), "{} is gone: look at what builds packages now", path.display());
        let texts = if path.is_dir() { read_all(&path) } else { std::fs::read_to_string(&path).unwrap() };
        assert!(!texts.contains("failpoints"), "{}", path.display());
    }
    let manifest = std::fs::read_to_string(repository.join("Cargo.toml")).unwrap();
    assert!(manifest.contains("\ndefault = []\n") && manifest.contains("\nfailpoints = []\n"), "{manifest}");
}

fn read_all(folder: &std::path::Path) -> String {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    files.map(|path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned()).collect()
}
