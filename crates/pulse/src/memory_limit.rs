//! How much memory the container of this process may use.

use std::fs;
use std::path::Path;

/// The kernel's value for "no limit" in cgroup v1 is close to the largest `i64`; no machine has as much as this.
const UNLIMITED: u64 = 1 << 60;

/// Returns the smallest memory limit of the cgroups that contain this process, in bytes, or `None` without a limit.
///
/// The kernel kills a process of a cgroup that exceeds its limit, so a role plans its buffers below it. Reads cgroup v1
/// and v2 at their usual mount points. A file that is missing or cannot be read counts as no limit.
pub fn memory_limit() -> Option<u64> {
    limit_below(Path::new("/"))
}

/// As [`memory_limit`], with another root folder.
fn limit_below(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    groups.lines().filter_map(|line| limit_of(root, line)).min()
}

/// Returns the limit of the cgroup in a line `hierarchy:controllers:path` of `/proc/self/cgroup`, and of its parents.
///
/// In a container the path may be that of the host, which is not mounted. Then only the mount itself, the last of the
/// parents, has the file: it is the container's cgroup.
fn limit_of(root: &Path, line: &str) -> Option<u64> {
    let (hierarchy, rest) = line.split_once(':')?;
    let (controllers, path) = rest.split_once(':')?;
    let (mount, file) = match (hierarchy, controllers) {
        ("0", "") => ("sys/fs/cgroup", "memory.max"),
        (_, v1) if v1.split(',').any(|name| name == "memory") => ("sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        _ => return None,
    };
    let mount = root.join(mount);
    let group = mount.join(path.trim_start_matches('/'));
    let groups = group.ancestors().take_while(|group| group.starts_with(&mount));
    groups.filter_map(|group| parse(&fs::read_to_string(group.join(file)).ok()?)).min()
}

/// Parses a limit. In cgroup v2 it is `max` if there is none.
fn parse(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|limit| *limit < UNLIMITED)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "5:cpu,cpuacct:/\n4:memory:/docker/abc\n0::/other\n";

    /// Writes the files below a temporary root and returns the limit there.
    fn limit(groups: &str, files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().expect("creates a folder");
        for (path, text) in [("proc/self/cgroup", groups)].iter().chain(files) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("has a parent")).expect("creates folders");
            fs::write(path, text).expect("writes a file");
        }
        limit_below(root.path())
    }

    #[test]
    fn limit_of_version_2_is_the_smallest_from_the_cgroup_to_the_mount() {
        let own = ("sys/fs/cgroup/pods/a/memory.max", "536870912\n");
        assert_eq!(limit("0::/pods/a\n", &[own]), Some(536_870_912));
        let parent = ("sys/fs/cgroup/pods/memory.max", "1000\n");
        assert_eq!(limit("0::/pods/a\n", &[own, parent]), Some(1000));
        assert_eq!(limit("0::/pods/a\n", &[("sys/fs/cgroup/pods/a/memory.max", "max\n"), parent]), Some(1000));
        assert_eq!(limit("0::/\n", &[("sys/fs/cgroup/memory.max", "2000\n")]), Some(2000));
    }

    #[test]
    fn limit_of_version_1_is_that_of_the_memory_controller() {
        let own = ("sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "3000\n");
        let huge = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        let other = ("sys/fs/cgroup/cpu/memory.limit_in_bytes", "1\n");
        assert_eq!(limit(V1, &[own, huge, other]), Some(3000));
        assert_eq!(limit("6:hugetlb,memory:/docker/abc\n", &[own]), Some(3000));
        assert_eq!(limit(V1, &[huge]), None);
    }

    #[test]
    fn limit_at_the_mount_counts_if_the_path_is_that_of_the_host() {
        assert_eq!(limit(V1, &[("sys/fs/cgroup/memory/memory.limit_in_bytes", "4000\n")]), Some(4000));
        for path in ["/kubepods/pod1/abc", "/../../abc"] {
            let mount = ("sys/fs/cgroup/memory.max", "5000\n");
            assert_eq!(limit(&format!("0::{path}\n"), &[mount]), Some(5000), "{path}");
        }
    }

    #[test]
    fn limit_is_none_without_readable_files() {
        assert_eq!(limit("0::/pods/a\n", &[("sys/fs/cgroup/pods/a/memory.max", "max\n")]), None);
        assert_eq!(limit("0::/pods/a\n", &[("sys/fs/cgroup/pods/a/memory.max", "?\n")]), None);
        assert_eq!(limit("garbage\n", &[]), None);
        assert_eq!(limit_below(Path::new("/does/not/exist")), None);
    }
}
