//! Checks of the limits that a daemon with many servers runs into.

use rustix::process::Resource;

use super::super::sizes::format_bytes;
use super::Finding;

const OPEN_FILES_MIN: u64 = 4096;
/// A PostgreSQL server has about ten processes, and one for each session.
const PROCESSES_MIN: u64 = 4096;
/// The kernel's own default: each segment of a store that is read is a mapping.
const MAPPINGS_MIN: u64 = 65530;
/// Parallel queries share memory there; containers often get 64 MiB.
const SHARED_MEMORY_BYTES_MIN: u64 = 256 << 20;

pub(super) fn open_files() -> Finding {
    const CHECK: &str = "open files";
    let limit = rustix::process::getrlimit(Resource::Nofile);
    match limit.current {
        Some(current)
            if current < OPEN_FILES_MIN && limit.maximum.is_none_or(|most| most >= OPEN_FILES_MIN) =>
        {
            Finding::warning(CHECK, format!("{current} at most"), format!("ulimit -n {OPEN_FILES_MIN}"))
        }
        Some(current) if current < OPEN_FILES_MIN => Finding::warning(
            CHECK,
            format!("{current} at most, and it cannot be raised here"),
            format!(
                "set nofile to {OPEN_FILES_MIN} in /etc/security/limits.conf, or LimitNOFILE in the unit"
            ),
        ),
        Some(current) => Finding::ok(CHECK, format!("{current} at most")),
        None => Finding::ok(CHECK, "no limit"),
    }
}

/// The least of the limits on processes: of this user, of the control group, of the kernel.
pub(super) fn processes() -> Finding {
    const CHECK: &str = "processes";
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let user = rustix::process::getrlimit(Resource::Nproc).current;
    let group = parse_limit(&read("/sys/fs/cgroup/pids.max"));
    let kernel = parse_limit(&read("/proc/sys/kernel/pid_max"));
    of_processes(CHECK, [("ulimit -u", user), ("pids.max", group), ("kernel.pid_max", kernel)])
}

fn of_processes(check: &'static str, limits: [(&str, Option<u64>); 3]) -> Finding {
    let least = limits.iter().filter_map(|(name, limit)| Some((limit.as_ref()?, *name))).min();
    match least {
        Some((most, name)) if *most < PROCESSES_MIN => {
            let fix = match name {
                "ulimit -u" => format!("ulimit -u {PROCESSES_MIN}, or LimitNPROC in the unit"),
                "pids.max" => {
                    format!("TasksMax={PROCESSES_MIN} in the unit, or --pids-limit of the container")
                }
                _ => format!("sysctl kernel.pid_max={PROCESSES_MIN}"),
            };
            Finding::warning(check, format!("{most} at most, by {name}"), fix)
        }
        Some((most, name)) => Finding::ok(check, format!("{most} at most, by {name}")),
        None => Finding::ok(check, "no limit"),
    }
}

pub(super) fn mappings() -> Finding {
    const CHECK: &str = "vm.max_map_count";
    match parse_limit(&std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap_or_default()) {
        Some(most) if most < MAPPINGS_MIN => {
            Finding::warning(CHECK, most.to_string(), format!("sysctl vm.max_map_count={MAPPINGS_MIN}"))
        }
        Some(most) => Finding::ok(CHECK, most.to_string()),
        None => Finding::ok(CHECK, "not known"),
    }
}

pub(super) fn shared_memory() -> Finding {
    const CHECK: &str = "/dev/shm";
    let Ok(space) = rustix::fs::statvfs(CHECK) else {
        return Finding::warning(CHECK, "is not there", "mount -t tmpfs tmpfs /dev/shm");
    };
    let size = space.f_blocks.saturating_mul(space.f_frsize);
    if size < SHARED_MEMORY_BYTES_MIN {
        return Finding::warning(
            CHECK,
            format!("{}: parallel queries of servers fail", format_bytes(size)),
            "mount -o remount,size=1G /dev/shm; in a container, --shm-size=1g",
        );
    }
    Finding::ok(CHECK, format_bytes(size))
}

/// A number, or `max` for none.
fn parse_limit(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::State;

    #[test]
    fn limits_are_read() {
        assert_eq!(["65530\n", "max\n", ""].map(parse_limit), [Some(65530), None, None]);
    }

    #[test]
    fn the_least_limit_on_processes_is_told_with_its_remedy() {
        let finding =
            of_processes("processes", [("ulimit -u", None), ("pids.max", Some(512)), ("x", Some(4096))]);
        assert_eq!((finding.state, finding.found.as_str()), (State::Warning, "512 at most, by pids.max"));
        assert!(finding.fix.unwrap().contains("TasksMax=4096"));
        let finding = of_processes("processes", [("ulimit -u", Some(4096)), ("pids.max", None), ("x", None)]);
        assert_eq!((finding.state, finding.fix), (State::Ok, None));
        assert_eq!(of_processes("processes", [("a", None), ("b", None), ("c", None)]).found, "no limit");
    }
}
