//! Who uses the machine's processors, read from Linux's `/proc`.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::time::Instant;

use anyhow::{Context, Result};
use nix::unistd::{SysconfVar, sysconf};

/// Processes whose use is told apart: each group is a process with all its descendants.
#[derive(Debug, Clone, Default)]
pub struct Watch(Vec<(&'static str, i32)>);

impl Watch {
    /// Watches nothing but this process, which makes the load.
    pub fn new() -> Self {
        Self(vec![("load", std::process::id().cast_signed())])
    }

    /// And `pid` with its descendants. Groups of the same name are added up.
    pub fn and(mut self, name: &'static str, pid: i32) -> Self {
        self.0.push((name, pid));
        self
    }

    /// What has been used up to now.
    ///
    /// # Errors
    /// Where there is no `/proc`.
    pub fn look(&self) -> Result<Look> {
        let processes = processes()?;
        let mut groups: Vec<(&'static str, f64)> = Vec::new();
        let mut counted = HashSet::new();
        // The last first: a child that is a group of its own is not counted with this process.
        for (name, root) in self.0.iter().rev() {
            let seconds = tree(&processes, *root, &mut counted);
            match groups.iter_mut().find(|(known, _)| known == name) {
                Some((_, sum)) => *sum += seconds,
                None => groups.push((name, seconds)),
            }
        }
        let (busy, stolen) = machine()?;
        Ok(Look { at: Instant::now(), groups, busy, stolen })
    }
}

/// What had been used at one moment, in seconds of one processor.
#[derive(Debug)]
pub struct Look {
    at: Instant,
    groups: Vec<(&'static str, f64)>,
    busy: f64,
    stolen: f64,
}

/// What was used between two moments, in processors.
#[derive(Debug, Clone)]
pub struct Used {
    /// By each group.
    pub groups: Vec<(&'static str, f64)>,
    /// By everything else on the machine, and what a hypervisor gave to other machines.
    pub foreign: f64,
    /// Between the moments.
    pub seconds: f64,
}

/// Beyond so many processors used by something else a measurement does not count. The kernel's own threads, which
/// write to the disk, are in it.
pub const FOREIGN_LIMIT: f64 = 0.15;

impl Look {
    /// From this moment to a later one.
    pub fn until(&self, later: &Self) -> Used {
        let seconds = (later.at - self.at).as_secs_f64();
        let before: HashMap<&str, f64> = self.groups.iter().copied().collect();
        let groups: Vec<(&'static str, f64)> =
            later.groups.iter().map(|(name, sum)| (*name, (sum - before[name]) / seconds)).collect();
        let ours: f64 = groups.iter().map(|(_, used)| used).sum();
        let all = (later.busy - self.busy + later.stolen - self.stolen) / seconds;
        Used { groups, foreign: (all - ours).max(0.0), seconds }
    }
}

impl Used {
    /// How many processors a group used.
    pub fn of(&self, group: &str) -> f64 {
        self.groups.iter().find(|(name, _)| *name == group).map_or(0.0, |(_, used)| *used)
    }

    /// `broker 0.081, service 0.022 …`: milliseconds of processor time for each of `count`.
    pub fn per(&self, count: f64) -> String {
        let each = |(name, used): &(&str, f64)| format!("{name} {:.3}", used * self.seconds * 1000.0 / count);
        self.groups.iter().map(each).collect::<Vec<_>>().join(", ")
    }
}

/// The most memory a process has had resident, in MiB.
///
/// # Errors
/// When there is no such process.
pub fn peak_memory_mib(pid: i32) -> Result<f64> {
    status_mib(pid, "VmHWM:")
}

/// The memory a process has resident, in MiB.
///
/// # Errors
/// When there is no such process.
pub fn memory_mib(pid: i32) -> Result<f64> {
    status_mib(pid, "VmRSS:")
}

fn status_mib(pid: i32, field: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).with_context(|| format!("no {field}"))?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1024.0)
}

/// Its processors, memory and kernel, as a line of Markdown.
///
/// # Errors
/// Where there is no `/proc`.
pub fn description() -> Result<String> {
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let model = processors.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model);
    let cores = std::thread::available_parallelism()?;
    let memory = fs::read_to_string("/proc/meminfo")?;
    let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")).context("no MemTotal")?;
    let gib = memory.trim().trim_end_matches("kB").trim().parse::<f64>()? / 1_048_576.0;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(format!("- machine: {model}, {cores} cores, {gib:.0} GiB of memory, Linux {}\n", kernel.trim()))
}

struct Process {
    parent: i32,
    seconds: f64,
}

/// All processes with the time they and the children they have waited for used.
fn processes() -> Result<HashMap<i32, Process>> {
    let tick = tick()?;
    let mut processes = HashMap::new();
    for folder in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = folder.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // It may have ended since.
        let Ok(stat) = fs::read_to_string(folder.path().join("stat")) else { continue };
        let Some((_, after_name)) = stat.rsplit_once(')') else { continue };
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        let number = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
        // utime, stime, cutime, cstime
        let seconds = (11..=14).map(number).sum::<f64>() / tick;
        processes.insert(pid, Process { parent: number(1) as i32, seconds });
    }
    Ok(processes)
}

fn tree(processes: &HashMap<i32, Process>, root: i32, counted: &mut HashSet<i32>) -> f64 {
    let mut sum = 0.0;
    let mut members = vec![root];
    while let Some(pid) = members.pop() {
        let Some(process) = processes.get(&pid) else { continue };
        if counted.insert(pid) {
            sum += process.seconds;
            members.extend(processes.iter().filter(|(_, child)| child.parent == pid).map(|(pid, _)| *pid));
        }
    }
    sum
}

/// Busy and stolen time of all processors.
fn machine() -> Result<(f64, f64)> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    let fields: Vec<f64> = line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, stolen, ..] = fields[..] else {
        anyhow::bail!("unexpected /proc/stat");
    };
    let tick = tick()?;
    Ok(((user + nice + system + irq + softirq) / tick, stolen / tick))
}

fn tick() -> Result<f64> {
    Ok(sysconf(SysconfVar::CLK_TCK)?.context("no CLK_TCK")? as f64)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn look(at: Instant, groups: &[(&'static str, f64)], busy: f64, stolen: f64) -> Look {
        Look { at, groups: groups.to_vec(), busy, stolen }
    }

    #[test]
    fn what_is_neither_watched_nor_idle_is_foreign() {
        let begin = Instant::now();
        let before = look(begin, &[("load", 1.0), ("broker", 5.0)], 100.0, 3.0);
        let after = look(begin + Duration::from_secs(10), &[("load", 3.0), ("broker", 13.0)], 111.0, 4.0);
        let used = before.until(&after);
        assert_eq!((used.of("load"), used.of("broker"), used.of("database")), (0.2, 0.8, 0.0));
        assert!((used.foreign - 0.2).abs() < 1e-9, "{}", used.foreign);
        assert_eq!(used.per(1_000.0), "load 2.000, broker 8.000");
    }

    #[test]
    fn clocks_that_disagree_by_a_tick_are_not_foreign() {
        let begin = Instant::now();
        let before = look(begin, &[("load", 0.0)], 0.0, 0.0);
        assert_eq!(before.until(&look(begin + Duration::from_secs(1), &[("load", 1.0)], 0.99, 0.0)).foreign, 0.0);
    }

    #[test]
    fn a_watched_child_is_not_counted_with_its_parent() {
        let process = |parent, seconds| Process { parent, seconds };
        let processes = HashMap::from([
            (1, process(0, 1.0)),
            (2, process(1, 10.0)),
            (3, process(2, 100.0)),
            (4, process(1, 1000.0)),
        ]);
        let mut counted = HashSet::new();
        assert_eq!(tree(&processes, 2, &mut counted), 110.0);
        assert_eq!(tree(&processes, 1, &mut counted), 1001.0);
    }

    #[test]
    fn this_process_has_memory_and_uses_a_processor() {
        let pid = std::process::id().cast_signed();
        assert!(memory_mib(pid).unwrap() > 1.0);
        assert!(peak_memory_mib(pid).unwrap() >= 1.0);
        assert!(Watch::new().look().unwrap().busy > 0.0);
        assert!(description().unwrap().contains(" cores, "));
    }
}
