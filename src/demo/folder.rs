//! The folder of a demo: everything it writes is in it, and it goes with the demo.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::trouble::Trouble;

/// What the names of all these folders begin with.
const PREFIX: &str = "outboxd-demo-";
/// The file in it that a living demo keeps locked.
const LOCK: &str = "lock";
/// Waits for the end of a pipe that only the demo holds, then removes the folder. The relay may live for a moment longer than the demo, and
/// still write there.
const HEIR: &str = "read -r line; for try in 1 2 3 4 5; do rm -rf -- \"$1\" && exit; sleep 1; done";

/// A folder that nobody else may look into; dropping this removes it.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Locked for as long as the demo lives, however it ends.
    _lock: File,
    heir: Option<Heir>,
}

/// A process that outlives the demo and removes its folder, also when the demo is killed.
#[derive(Debug)]
struct Heir(Child);

impl Heir {
    /// Nothing where there is no shell: then the next demo removes what a killed one has left.
    fn appoint(folder: &Path) -> Option<Self> {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", HEIR, "outboxd-demo"]).arg(folder).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // Ctrl-C is for the demo
        shell.process_group(0).spawn().ok().map(Self)
    }

    /// Takes the folder away from it.
    fn dismiss(mut self) {
        // it may have ended, and then has nothing to lose either
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Folder {
    /// A new folder below the one for temporary files. Also removes those of demos that were killed and could not do it themselves.
    pub fn create() -> Result<Self, Trouble> {
        let above = std::path::absolute(std::env::temp_dir())?;
        sweep(&above);
        Self::create_in(&above)
    }

    fn create_in(above: &Path) -> Result<Self, Trouble> {
        let path = above.join(format!("{PREFIX}{}-{:08x}", std::process::id(), fastrand::u32(..)));
        // before there is a folder, so that there is never one without an heir
        let heir = Heir::appoint(&path);
        if let Err(error) = DirBuilder::new().mode(0o700).create(&path) {
            // what lies there may be somebody else's
            if let Some(heir) = heir {
                heir.dismiss();
            }
            return Err(Trouble::file(&path, &error));
        }
        let locked = lock(&path);
        match locked {
            Ok(lock) => Ok(Self { path, _lock: lock, heir }),
            Err(error) => {
                let trouble = Trouble::file(&path, &error);
                // the lock tells more than what follows from it
                let _ = fs::remove_dir_all(&path);
                Err(trouble)
            }
        }
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            // nobody is left to handle it, but a person may
            let _ = writeln!(io::stderr(), "{} cannot be removed: {error}", self.path.display());
        }
        if let Some(heir) = self.heir.take() {
            heir.dismiss();
        }
    }
}

/// The file gets its name when it is locked, so that no other demo finds it before.
fn lock(folder: &Path) -> io::Result<File> {
    let unnamed = folder.join("lock.new");
    let lock = File::create(&unnamed)?;
    lock.lock()?;
    fs::rename(unnamed, folder.join(LOCK))?;
    Ok(lock)
}

/// Removes the folders of demos that are dead. What cannot be removed belongs to somebody else, or is tried again by the next demo.
fn sweep(above: &Path) {
    let Ok(entries) = fs::read_dir(above) else { return };
    for entry in entries.flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if ours && folder && is_dead(&entry.path()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether nobody holds the lock. A folder without the file is just being made, or removed.
fn is_dead(folder: &Path) -> bool {
    let Ok(lock) = File::open(folder.join(LOCK)) else { return false };
    match lock.try_lock() {
        Ok(()) => true,
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A place of the test's own.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("folder-test-{name}-{}", std::process::id()));
            fs::create_dir(&path).expect("the place is new");
            Self(path)
        }

        fn names(&self) -> Vec<PathBuf> {
            let mut names: Vec<PathBuf> = fs::read_dir(&self.0).expect("it is there").map(|e| e.expect("named").path()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_folder_is_private_and_goes_with_its_demo() {
        let place = Place::new("goes");
        let folder = Folder::create_in(&place.0).expect("there is room");
        fs::write(folder.file("shop.db"), "x").expect("it can be written to");
        let mode = fs::metadata(&folder.path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        drop(folder);
        assert!(place.names().is_empty());
    }

    #[test]
    fn a_folder_goes_when_its_demo_panics() {
        let place = Place::new("panics");
        let above = place.0.clone();
        let demo = std::thread::spawn(move || {
            let _folder = Folder::create_in(&above).expect("there is room");
            std::panic::resume_unwind(Box::new("a demo that fails"));
        });
        assert!(demo.join().is_err());
        assert!(place.names().is_empty());
    }

    #[test]
    fn folders_of_dead_demos_are_swept_and_no_others() {
        let place = Place::new("sweeps");
        let living = Folder::create_in(&place.0).expect("there is room");
        let (dead, fresh, other) = (place.0.join("outboxd-demo-1-dead"), place.0.join("outboxd-demo-2-new"), place.0.join("mine"));
        for folder in [&dead, &fresh, &other] {
            fs::create_dir(folder).expect("it is new");
        }
        fs::write(dead.join(LOCK), "").expect("it can be written to");
        fs::write(other.join(LOCK), "").expect("it can be written to");
        sweep(&place.0);
        let mut expected = vec![fresh, other, living.path.clone()];
        expected.sort();
        assert_eq!(place.names(), expected);
    }
}
