//! Whether the file lies on this machine. SQLite locks a file by what the file system offers, and across a network that is not to be
//! relied on: two writers can both believe that they hold the lock.

use std::path::Path;

use crate::fault::Fault;

/// What is mounted where, as Linux tells it to this process.
const MOUNTS: &str = "/proc/self/mountinfo";

/// File systems that other machines share, by the names that Linux gives them. `fuse` alone may be anything, and is not among them.
const SHARED: [&str; 15] = [
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "ncpfs",
    "afs",
    "ceph",
    "lustre",
    "gfs2",
    "ocfs2",
    "coda",
    "beegfs",
    "fuse.sshfs",
    "fuse.glusterfs",
];

/// Refuses a file on a shared file system. Where the mounts cannot be read nothing is known, and nothing refused.
pub(super) fn refuse(canonical: &Path) -> Result<(), Fault> {
    let mounts = std::fs::read_to_string(MOUNTS).unwrap_or_default();
    match kind_of(&mounts, canonical).filter(|kind| SHARED.contains(kind)) {
        None => Ok(()),
        Some(kind) => Err(Fault::Misconfigured {
            detail: format!("{} lies on a network file system ({kind}), whose locks SQLite cannot rely on", canonical.display()),
            remedy: "Move the file to a disk of this machine".into(),
        }),
    }
}

/// The type of the file system that a path lies on: that of the longest mount point above it; of several there, the last is on top.
fn kind_of<'m>(mounts: &'m str, path: &Path) -> Option<&'m str> {
    let mount = |line: &'m str| {
        let (before, after) = line.split_once(" - ")?;
        let point = unescaped(before.split(' ').nth(4)?);
        let depth = Path::new(&point).components().count();
        path.starts_with(&point).then(|| (depth, after.split(' ').next().unwrap_or_default()))
    };
    mounts.lines().filter_map(mount).max_by_key(|(depth, _)| *depth).map(|(_, kind)| kind)
}

/// Spaces and the like stand there as a backslash and three octal digits.
fn unescaped(point: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(point.to_owned(), |text, (code, character)| text.replace(code, character))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTED: &str = "27 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n\
        31 27 0:45 / /srv rw shared:1 - nfs4 server:/srv rw,vers=4.2\n\
        32 31 8:2 / /srv/my\\040disk rw - xfs /dev/sdb1 rw\n\
        33 27 0:46 / /mnt rw - ext4 /dev/sdc rw\n34 33 0:47 / /mnt rw - cifs //server/share rw\n";

    #[test]
    fn the_deepest_mount_and_of_those_the_last_tells_the_file_system() {
        let kind = |path| kind_of(MOUNTED, Path::new(path));
        assert_eq!(kind("/var/lib/shop.db"), Some("ext4"));
        assert_eq!(kind("/srv/shop.db"), Some("nfs4"));
        assert_eq!(kind("/srvshop.db"), Some("ext4"), "a name that only begins alike");
        assert_eq!(kind("/srv/my disk/shop.db"), Some("xfs"));
        assert_eq!(kind("/mnt/shop.db"), Some("cifs"));
        assert_eq!(kind_of("", Path::new("/x")), None);
    }

    #[test]
    fn the_file_system_of_the_tests_is_known_and_local() {
        let here = std::env::temp_dir().canonicalize().expect("there is a folder for tests");
        let mounts = std::fs::read_to_string(MOUNTS).expect("Linux tells its mounts");
        assert!(kind_of(&mounts, &here).is_some(), "{mounts}");
        refuse(&here).expect("tests run on a disk of this machine");
    }
}
