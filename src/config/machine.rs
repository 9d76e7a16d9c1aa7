//! How much memory there is for this process: the machine's, or what its control groups leave of it. Linux only; elsewhere nothing is known.

use std::fs;
use std::path::Path;

/// Bytes of memory for this process; `None` where nothing tells.
pub(crate) fn memory() -> Option<usize> {
    memory_under(Path::new("/"))
}

fn memory_under(root: &Path) -> Option<usize> {
    let read = |path: &str| fs::read_to_string(root.join(path)).ok();
    let machine = read("proc/meminfo").as_deref().and_then(total_of_meminfo);
    let groups = read("proc/self/cgroup").unwrap_or_default();
    let mut limits: Vec<usize> = machine.into_iter().collect();
    for group in groups.lines().filter_map(|line| line.splitn(3, ':').nth(2)) {
        // A limit above holds as well: that of a service stands at its slice, or at the container.
        let mut group = Path::new(group.trim_start_matches('/'));
        loop {
            for (tree, file) in
                [("sys/fs/cgroup", "memory.max"), ("sys/fs/cgroup/memory", "memory.limit_in_bytes")]
            {
                let limit = fs::read_to_string(root.join(tree).join(group).join(file));
                // "max" is no number.
                limits.extend(limit.ok().and_then(|text| text.trim().parse::<usize>().ok()));
            }
            let Some(above) = group.parent() else { break };
            group = above;
        }
    }
    limits.into_iter().min()
}

fn total_of_meminfo(text: &str) -> Option<usize> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> Option<usize> {
        let root = tempfile::tempdir().expect("a directory");
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a directory")).expect("made");
            fs::write(path, text).expect("written");
        }
        memory_under(root.path())
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:        1000000 kB\nMemFree:  5 kB\n");

    #[test]
    fn the_lowest_of_machine_and_control_groups_counts() {
        assert_eq!(machine(&[]), None);
        assert_eq!(machine(&[MEMINFO]), Some(1_024_000_000));
        let group = ("proc/self/cgroup", "0::/system.slice/ternmq.service\n");
        let own = "sys/fs/cgroup/system.slice/ternmq.service/memory.max";
        let slice = "sys/fs/cgroup/system.slice/memory.max";
        let top = "sys/fs/cgroup/memory.max";
        assert_eq!(machine(&[MEMINFO, group, (own, "max\n")]), Some(1_024_000_000));
        assert_eq!(machine(&[MEMINFO, group, (own, "500000\n"), (slice, "max\n")]), Some(500_000));
        assert_eq!(machine(&[MEMINFO, group, (own, "500000\n"), (slice, "400000\n")]), Some(400_000));
        assert_eq!(machine(&[MEMINFO, ("proc/self/cgroup", "0::/\n"), (top, "300000\n")]), Some(300_000));
        let old = [
            MEMINFO,
            ("proc/self/cgroup", "5:memory:/docker/1\n1:name=systemd:/x\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "200000\n"),
        ];
        assert_eq!(machine(&old), Some(200_000));
    }
}
