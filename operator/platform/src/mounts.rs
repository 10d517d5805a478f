//! Mounts below an instance's directory: found in /proc/self/mountinfo, unmounted deepest first.

use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};

/// Mount points below `directory`, those mounted last first: the kernel lists them in the order of mounting.
pub(crate) fn below(directory: &Path) -> Vec<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut points: Vec<PathBuf> = text
        .lines()
        .filter_map(mount_point)
        .filter(|point| point.starts_with(directory) && point != directory)
        .collect();
    points.reverse();
    points
}

/// Unmounts everything below `directory`. What is busy is detached: its last user frees it.
pub(crate) fn unmount_below(directory: &Path) {
    for point in below(directory) {
        if umount2(&point, MntFlags::UMOUNT_NOFOLLOW).is_err() {
            // What stays is reported by `leftovers`.
            let _ = umount2(&point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
        }
    }
}

/// The fifth field of a line, with the kernel's octal escapes undone.
fn mount_point(line: &str) -> Option<PathBuf> {
    let field = line.split(' ').nth(4)?;
    let mut text = field.to_owned();
    for (escape, plain) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        text = text.replace(escape, plain);
    }
    Some(PathBuf::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_with_a_space_is_read() {
        let line = "36 35 98:0 /mnt1 /mnt\\0402/a rw,noatime master:1 - ext3 /dev/root rw";
        assert_eq!(mount_point(line), Some(PathBuf::from("/mnt 2/a")));
    }
}
