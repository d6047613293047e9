//! What a local server costs, read from /proc: CPU time of the process and its children, memory, threads. Reads only.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::sys;

/// Counters of a process tree at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Usage {
    pub user_s: f64,
    pub system_s: f64,
    /// Time on a core with the scheduler's own resolution; user and system are counted in ticks.
    pub running_s: f64,
    pub resident_bytes: u64,
    /// Most that was ever resident.
    pub peak_bytes: u64,
    pub threads: u64,
}

impl Usage {
    /// CPU time of the calling thread, and nothing else.
    pub fn of_this_thread() -> Usage {
        let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        Usage { running_s: schedstat_ns(&text) as f64 / 1e9, ..Usage::default() }
    }

    /// CPU time since an earlier moment, with the memory of this one.
    pub fn since(&self, before: &Usage) -> Usage {
        Usage {
            user_s: self.user_s - before.user_s,
            system_s: self.system_s - before.system_s,
            running_s: self.running_s - before.running_s,
            ..*self
        }
    }
}

/// Processes to watch.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    pids: Vec<u32>,
}

impl Watched {
    /// These processes and nothing else.
    pub fn only(pids: &[u32]) -> Watched {
        Watched { pids: pids.to_vec() }
    }

    /// A process and all its children.
    pub fn tree(pid: u32) -> Watched {
        let mut pids = BTreeSet::from([pid]);
        let mut open = vec![pid];
        while let Some(pid) = open.pop() {
            open.extend(children(pid).into_iter().filter(|child| pids.insert(*child)));
        }
        Watched { pids: pids.into_iter().collect() }
    }

    /// The process that listens on a TCP port of this machine, with its children; `None` when it is not here or not ours
    /// to look at.
    pub fn listening_on(address: SocketAddr) -> Option<Watched> {
        address.ip().is_loopback().then_some(())?;
        let inodes = listening_inodes(address.port());
        let owner = numeric_entries("/proc").find(|pid| {
            let fds = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            fds.filter_map(|fd| fs::read_link(fd.path()).ok()).any(|target| {
                let target = target.to_string_lossy();
                inodes.iter().any(|inode| target == format!("socket:[{inode}]"))
            })
        })?;
        Some(Watched::tree(owner))
    }

    pub fn is_empty(&self) -> bool {
        self.pids.is_empty()
    }

    pub fn usage(&self) -> Usage {
        let (ticks_per_s, page_bytes) = sys::proc_units();
        let mut sum = Usage::default();
        for pid in &self.pids {
            let Some(stat) = fs::read_to_string(format!("/proc/{pid}/stat")).ok().and_then(|text| Stat::read(&text))
            else {
                continue;
            };
            sum.user_s += stat.user_ticks as f64 / ticks_per_s as f64;
            sum.system_s += stat.system_ticks as f64 / ticks_per_s as f64;
            sum.resident_bytes += stat.resident_pages * page_bytes;
            sum.threads += stat.threads;
            sum.peak_bytes += status_kib(*pid, "VmHWM:") * 1024;
            sum.running_s += running_ns(*pid) as f64 / 1e9;
        }
        sum
    }
}

struct Stat {
    user_ticks: u64,
    system_ticks: u64,
    threads: u64,
    resident_pages: u64,
}

impl Stat {
    /// Fields of proc(5), counted behind the command's name, which may contain anything.
    fn read(text: &str) -> Option<Stat> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Stat { user_ticks: field(14)?, system_ticks: field(15)?, threads: field(20)?, resident_pages: field(24)? })
    }
}

/// Sum over the threads that live; a thread that ended in between is missed.
fn running_ns(pid: u32) -> u64 {
    let tasks = numeric_entries(&format!("/proc/{pid}/task"));
    tasks
        .filter_map(|task| fs::read_to_string(format!("/proc/{pid}/task/{task}/schedstat")).ok())
        .map(|text| schedstat_ns(&text))
        .sum()
}

/// Time on a core, the first field.
fn schedstat_ns(text: &str) -> u64 {
    text.split_whitespace().next().and_then(|field| field.parse().ok()).unwrap_or(0)
}

fn status_kib(pid: u32, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = numeric_entries(&format!("/proc/{pid}/task"));
    let lists = tasks.filter_map(|task| fs::read_to_string(format!("/proc/{pid}/task/{task}/children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|one| one.parse().ok()).collect::<Vec<_>>()).collect()
}

fn numeric_entries(folder: &str) -> impl Iterator<Item = u32> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn listening_inodes(port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    let mut inodes = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in fs::read_to_string(table).unwrap_or_default().lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let listens = fields.len() > 9 && fields[3] == LISTEN;
            if listens && fields[1].ends_with(&format!(":{port:04X}")) {
                inodes.push(fields[9].to_owned());
            }
        }
    }
    inodes
}

/// Of the machine, wherever this process may run.
fn cores() -> usize {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    text.lines().filter(|line| line.starts_with("processor")).count().max(1)
}

/// The machine as reports describe it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub memory_bytes: u64,
    pub kernel: String,
    pub system: String,
}

impl Machine {
    pub fn this() -> Machine {
        let first = |file: &str, name: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
            line.split_once([':', '=']).map_or(String::new(), |(_, value)| value.trim().trim_matches('"').to_owned())
        };
        let memory_kib: u64 = first("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0);
        Machine {
            cpu: first("/proc/cpuinfo", "model name"),
            cores: cores(),
            memory_bytes: memory_kib * 1024,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            system: first("/etc/os-release", "PRETTY_NAME"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_listener_of_this_process_is_found_and_uses_memory_and_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let watched = Watched::listening_on(listener.local_addr().unwrap()).unwrap();
        assert!(watched.pids.contains(&std::process::id()));
        let usage = watched.usage();
        assert!(usage.resident_bytes > 1 << 20 && usage.peak_bytes >= usage.resident_bytes / 2);
        assert!(usage.threads >= 1 && usage.running_s > 0.0);
    }

    #[test]
    fn a_command_with_spaces_and_brackets_does_not_shift_the_fields() {
        let text = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 2 3 4 50 60 0 0 20 0 9 0 100 1000 77 18446744073709551615";
        let stat = Stat::read(text).unwrap();
        assert_eq!((stat.user_ticks, stat.system_ticks, stat.threads, stat.resident_pages), (50, 60, 9, 77));
    }
}
