//! The Debian package: made by `scripts/package` from the binary of this build, looked at by lintian, installed and removed below a folder.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use super::{Said, repository, run, scratch};

/// One package for all of these tests.
static PACKAGE: LazyLock<PathBuf> = LazyLock::new(|| {
    let output = scratch("package");
    let mut command = Command::new(repository("scripts/package"));
    command.args(["--binary", env!("CARGO_BIN_EXE_outboxd"), "--output"]).arg(&output);
    // lintian knows which hosts cannot have a mailbox; this package is for nobody
    command.env("DEBFULLNAME", "outboxd maintainers").env("DEBEMAIL", "nobody@debian.org");
    let said = run(&mut command).content();
    PathBuf::from(said.lines().find(|line| line.ends_with(".deb")).unwrap_or_else(|| panic!("{said}")))
});

/// A machine's root, as far as dpkg cares.
struct Root(PathBuf);

impl Root {
    fn new() -> Self {
        let root = Self(scratch("root"));
        std::fs::create_dir_all(root.path("var/lib/dpkg/info")).unwrap();
        std::fs::create_dir_all(root.path("var/lib/dpkg/updates")).unwrap();
        std::fs::write(root.path("var/lib/dpkg/status"), "").unwrap();
        root
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    fn dpkg(&self, arguments: &[&str]) -> Said {
        // what it depends on is not below this root, and our scripts leave the machine alone when they are given one
        let forced = "--force-depends,script-chrootless,not-root,bad-path";
        let mut command = Command::new("dpkg");
        command.arg(format!("--root={}", self.0.display())).arg(forced).arg("--no-triggers").args(arguments);
        // dpkg looks for ldconfig, which is not in everybody's path
        command.env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap()));
        run(&mut command)
    }
}

/// Files below a folder, from there.
fn files(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()).into_iter().map(|below| format!("{name}/{below}")));
        } else {
            found.insert(name);
        }
    }
    found
}

fn installed(root: &Root) -> BTreeSet<String> {
    files(&root.0).into_iter().filter(|path| !path.starts_with("var/")).collect()
}

const BINARY: &str = "usr/bin/outboxd";
const CONFIGURATION: &str = "etc/outboxd/outboxd.toml";
const SOME: [&str; 12] = [
    BINARY,
    CONFIGURATION,
    "usr/lib/systemd/system/outboxd@.service",
    "usr/share/man/man1/outboxd.1.gz",
    "usr/share/man/man1/outboxd-parked-list.1.gz",
    "usr/share/bash-completion/completions/outboxd",
    "usr/share/zsh/vendor-completions/_outboxd",
    "usr/share/fish/vendor_completions.d/outboxd.fish",
    "usr/share/outboxd/alerts.yml",
    "usr/share/outboxd/dashboard.json",
    "usr/share/doc/outboxd/operating.md",
    "usr/share/doc/outboxd/copyright",
];

#[test]
fn the_package_is_installed_kept_over_an_upgrade_removed_and_purged() {
    let root = Root::new();
    let package = PACKAGE.to_str().unwrap();
    root.dpkg(&["--install", package]).content();
    let there = installed(&root);
    for path in SOME {
        assert!(there.contains(path), "{path} is not among {there:?}");
    }
    assert_eq!(run(Command::new(root.path(BINARY)).arg("--version")).content(), format!("outboxd {}\n", env!("CARGO_PKG_VERSION")));
    let checked = run(Command::new(root.path(BINARY)).arg("--config").arg(root.path(CONFIGURATION)).args(["config", "show"]));
    assert!(checked.text.contains("OBX110") && checked.text.lines().count() == 1, "only the name is missing: {}", checked.text);

    let changed = std::fs::read_to_string(root.path(CONFIGURATION)).unwrap().replace("name = \"\"", "name = \"shop\"");
    std::fs::write(root.path(CONFIGURATION), &changed).unwrap();
    root.dpkg(&["--install", package]).content();
    assert_eq!(std::fs::read_to_string(root.path(CONFIGURATION)).unwrap(), changed, "an upgrade threw a setting away");

    root.dpkg(&["--remove", "outboxd"]).content();
    assert_eq!(installed(&root), BTreeSet::from([CONFIGURATION.to_owned()]), "what a person wrote stays");
    root.dpkg(&["--purge", "outboxd"]).content();
    assert_eq!(installed(&root), BTreeSet::new());
    std::fs::remove_dir_all(&root.0).unwrap();
}

#[test]
fn lintian_finds_no_error_in_the_package() {
    let lintian = |package: &Path| {
        let as_root = if is_root() { &["--allow-root"][..] } else { &[] };
        run(Command::new("lintian").args(["--fail-on", "error", "--tag-display-limit", "0"]).args(as_root).arg(package))
    };
    lintian(&PACKAGE).content();
    // what the administrator says in policy-rc.d is asked only by this way to the service manager
    for script in ["postinst", "prerm", "postrm"] {
        let text = std::fs::read_to_string(repository(&format!("packaging/debian/{script}"))).unwrap();
        let direct = text.lines().filter(|line| line.trim_start().starts_with("systemctl") && !line.contains("daemon-reload"));
        assert_eq!(direct.collect::<Vec<_>>(), Vec::<&str>::new(), "{script} goes round deb-systemd-invoke");
    }
    let broken = scratch("package-broken");
    let tree = broken.join("tree");
    run(Command::new("dpkg-deb").arg("--raw-extract").args([PACKAGE.as_path(), &tree])).content();
    std::fs::remove_file(tree.join("usr/share/doc/outboxd/copyright")).unwrap();
    let package = broken.join("outboxd_0_all.deb");
    run(Command::new("dpkg-deb").args(["--root-owner-group", "-Znone", "--build"]).args([&tree, &package])).content();
    assert!(!lintian(&package).content, "the look at it finds nothing");
    std::fs::remove_dir_all(broken).unwrap();
}

/// The pages say that it runs wherever these are; what a build with `full` adds is linked statically.
#[test]
fn the_binary_needs_the_c_library_and_nothing_else() {
    let said = run(Command::new("readelf").args(["--dynamic", "--wide", env!("CARGO_BIN_EXE_outboxd")])).content();
    let needed: Vec<&str> = said.lines().filter_map(|line| line.split("Shared library: [").nth(1)?.strip_suffix(']')).collect();
    assert!(needed.contains(&"libc.so.6"), "{said}");
    let known = |name: &&str| ["libc.so", "libm.so", "libgcc_s.so", "ld-linux"].iter().any(|own| name.starts_with(own));
    assert_eq!(needed.iter().filter(|name| !known(name)).collect::<Vec<_>>(), Vec::<&&str>::new());
}

fn is_root() -> bool {
    // SAFETY: plain system call without arguments.
    unsafe { libc::geteuid() == 0 }
}
