//! Whether the kernel has killed processes for want of memory.

use std::fs;

/// The kernel's counters of such kills: of this control group with its children, and of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OomKills {
    group: u64,
    host: u64,
}

impl OomKills {
    /// Reads the counters; those that this kernel lacks count as 0 for ever.
    pub(super) fn read() -> Self {
        let group = fs::read_to_string("/proc/self/cgroup").ok().and_then(|text| group_file(&text));
        let group = group.and_then(|path| fs::read_to_string(path).ok());
        let host = fs::read_to_string("/proc/vmstat").ok();
        let count = |text: Option<String>| text.and_then(|text| counter(&text)).unwrap_or(0);
        Self { group: count(group), host: count(host) }
    }

    /// Whether there were kills since.
    pub(super) fn since(self, earlier: Self) -> bool {
        self.group > earlier.group || self.host > earlier.host
    }
}

/// The file with the counter of the group that `/proc/self/cgroup` names, for both versions of control groups.
fn group_file(cgroup: &str) -> Option<String> {
    let version_1 = cgroup.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let path = path.trim_end_matches('/');
        let memory = controllers.split(',').any(|controller| controller == "memory");
        memory.then(|| format!("/sys/fs/cgroup/memory{path}/memory.oom_control"))
    });
    let version_2 = || {
        let path = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?.trim_end_matches('/');
        Some(format!("/sys/fs/cgroup{path}/memory.events"))
    };
    version_1.or_else(version_2)
}

fn counter(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")).and_then(|count| count.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_control_groups_are_understood() {
        let v1 = "12:cpu,cpuacct:/a\n9:memory:/docker/x\n0::/system";
        assert_eq!(group_file(v1).as_deref(), Some("/sys/fs/cgroup/memory/docker/x/memory.oom_control"));
        assert_eq!(group_file("0::/user.slice/x\n").as_deref(), Some("/sys/fs/cgroup/user.slice/x/memory.events"));
        assert_eq!(group_file("0::/\n").as_deref(), Some("/sys/fs/cgroup/memory.events"));
        assert_eq!(group_file("1:name=systemd:/x\n"), None);
    }

    #[test]
    fn counters_are_found_and_compared() {
        assert_eq!(counter("low 0\noom 3\noom_kill 2\noom_group_kill 7\n"), Some(2));
        assert_eq!(counter("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"), Some(5));
        assert_eq!(counter("nothing"), None);
        let before = OomKills { group: 1, host: 4 };
        assert!(!before.since(before));
        assert!(OomKills { host: 5, ..before }.since(before));
    }
}
