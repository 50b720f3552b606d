//! A small disk: a file system in memory of a fixed size, which can be filled to the last bytes.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::process;

/// A mounted file system; it is unmounted when it is dropped.
pub struct Disk(PathBuf);

impl Disk {
    /// Mounts one of `megabytes` over an empty folder.
    ///
    /// # Errors
    /// What the system said, where nobody may mount.
    pub fn mount(folder: &Path, megabytes: u32) -> Result<Disk, String> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={megabytes}m,mode=0700"), "outboxd-test"]).arg(folder);
        process::try_run(mount).map(|_| Disk(folder.to_owned()))
    }

    /// Fills it up to the last `kilobytes`, whoever else writes meanwhile.
    pub fn fill(&self, kilobytes: u64) {
        let mut filler = File::create(self.filler()).unwrap();
        let chunk = vec![7; 64 * 1024];
        let refusal = loop {
            if let Err(error) = filler.write_all(&chunk) {
                break error;
            }
        };
        assert_eq!(refusal.raw_os_error(), Some(libc::ENOSPC), "{refusal}");
        let length = filler.metadata().unwrap().len();
        filler.set_len(length.saturating_sub(kilobytes * 1024)).unwrap();
    }

    /// Makes room again.
    pub fn empty(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        unmount(&self.0);
    }
}

/// Unmounts what is below `folder`, also while a dying server still uses it.
pub fn unmount_below(folder: &Path) {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new);
    points.filter(|point| point.starts_with(folder)).for_each(unmount);
}

fn unmount(point: &Path) {
    let mut umount = Command::new("umount");
    umount.arg("-l").arg(point);
    if let Err(error) = process::try_run(umount) {
        eprintln!("{error}");
    }
}
