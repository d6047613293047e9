//! What this machine allows, and what would make it faster.
//!
//! At start only one question counts: may io_uring be used ([`uring::probe`](crate::uring::probe));
//! `ringside --check-host` asks all of [`KNOBS`], one row each. Reads files and limits; must never
//! change anything.

use std::fmt::Write;
use std::io;
use std::process::Command;

use crate::config::Config;
use crate::uring::priority;
use crate::uring::probe::{Found, ProbeError, probe};

/// A property of the host: what it is, what it should be, why, and how to change it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub name: &'static str,
    pub current: String,
    pub verdict: Verdict,
    pub why: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Good,
    /// Ringside runs, but would run better otherwise.
    Better {
        wanted: String,
        cure: String,
    },
    /// Ringside does not run.
    Needed {
        wanted: String,
        cure: String,
    },
}

/// Where findings come from. Files of /proc and /sys come in as a function, so that a test can be any host.
pub struct Host<'a> {
    pub file: &'a dyn Fn(&str) -> Option<String>,
    /// What `ethtool -k` says of a network device; `None` where there is no ethtool.
    pub offloads: &'a dyn Fn(&str) -> Option<String>,
    /// The firewall's rules; `None` where they cannot be read, which takes root.
    pub firewall: &'a dyn Fn() -> Option<String>,
    pub io_uring: &'a Result<Found, ProbeError>,
    /// Numbers of the cores that this process may run on.
    pub allowed_cores: &'a [usize],
    pub config: &'a Config,
}

/// A row of the check; the answer is `None` where the host has no such thing.
struct Knob {
    name: &'static str,
    why: &'static str,
    ask: fn(&Host<'_>) -> Option<(String, Verdict)>,
}

const KNOBS: &[Knob] = &[
    Knob { name: "io_uring", why: "all media goes through it", ask: io_uring },
    Knob { name: "locked memory", why: "the rings of the workers are locked in memory", ask: locked_memory },
    Knob { name: "open files", why: "each signaling connection takes one", ask: open_files },
    Knob { name: "cores", why: "each worker wants a core of its own", ask: cores },
    Knob {
        name: "thread priority",
        why: "a worker that waits for its own core behind another thread makes its packets late",
        ask: thread_priority,
    },
    Knob {
        name: "net.core.rmem_max",
        why: "datagrams that arrive during a long tick wait in the socket's buffer; past it they are lost",
        ask: |host| socket_buffer(host, "rmem_max", host.config.socket_buffer_bytes),
    },
    Knob {
        name: "net.core.wmem_max",
        why: "a key frame for hundreds of receivers is queued in one tick; past the socket's buffer it is lost",
        ask: |host| socket_buffer(host, "wmem_max", host.config.socket_buffer_bytes),
    },
    Knob {
        name: "ephemeral ports",
        why: "an outgoing connection of this machine may take a media port before Ringside does",
        ask: ephemeral_ports,
    },
    Knob {
        name: "conntrack",
        why: "tracking costs 300 to 400 ns of every packet, and a full table loses them",
        ask: conntrack,
    },
    Knob {
        name: "receive queues",
        why: "a device with one queue has one core receive for the workers of all others",
        ask: receive_queues,
    },
    Knob {
        name: "interrupts",
        why: "a device whose queues all interrupt one core has that core receive for the workers of all others",
        ask: interrupts,
    },
    Knob {
        name: "NIC offloads",
        why: "what the device does not join (GRO) or cut (UDP segmentation) costs the cores a kernel packet each",
        ask: offloads,
    },
    Knob { name: "CPU governor", why: "a core that clocks down between ticks is late at the next one", ask: governor },
    Knob {
        name: "busy polling",
        why: "a core that looks for packets in vain has less time for those that it has",
        ask: busy_polling,
    },
    Knob {
        name: "clock source",
        why: "a clock that only the kernel can read costs a system call every time",
        ask: clock_source,
    },
    Knob {
        name: "service unit",
        why: "whoever starts it by hand starts it again by hand, and sets its limits by hand",
        ask: service_unit,
    },
];

/// Asks every row of the table.
pub fn findings(host: &Host<'_>) -> Vec<Finding> {
    let ask = |knob: &Knob| {
        (knob.ask)(host).map(|(current, verdict)| Finding { name: knob.name, current, verdict, why: knob.why })
    };
    KNOBS.iter().filter_map(ask).collect()
}

/// The findings as `ringside --check-host` prints them: a line each, and the cure where one is due.
pub fn report(findings: &[Finding]) -> String {
    let name_width = findings.iter().map(|finding| finding.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        let (mark, advice) = match &finding.verdict {
            Verdict::Good => ("ok", None),
            Verdict::Better { wanted, cure } => ("tune", Some((wanted, cure))),
            Verdict::Needed { wanted, cure } => ("FAIL", Some((wanted, cure))),
        };
        let _ = writeln!(text, "{mark:<5} {:<name_width$}  {}", finding.name, finding.current);
        if let Some((wanted, cure)) = advice {
            let indent = " ".repeat(6 + name_width + 2);
            let _ = writeln!(text, "{indent}wanted: {wanted}\n{indent}why:    {}\n{indent}cure:   {cure}", finding.why);
        }
    }
    text
}

/// Whether a worker can run here; the error is one line that names who refuses, and the cure.
pub fn io_uring_permission() -> Result<Found, ProbeError> {
    probe()
}

/// Numbers of the cores that this process may run on, as affinity and cgroup sets leave them; never empty.
pub fn allowed_cores() -> Vec<usize> {
    let cores: Vec<usize> = core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect();
    // Something runs this, so there is a core, even where nobody says which.
    if cores.is_empty() { vec![0] } else { cores }
}

/// A file of the real host, trimmed.
pub fn file(path: &str) -> Option<String> {
    let text: io::Result<String> = std::fs::read_to_string(path);
    text.ok().map(|text| text.trim().to_owned())
}

/// What `ethtool -k` says of a device of the real host.
pub fn ethtool_features(device: &str) -> Option<String> {
    let output = Command::new("ethtool").arg("-k").arg(device).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What `nft` and `iptables` know of the real host.
pub fn firewall_rules() -> Option<String> {
    let outputs = [("nft", &["list", "ruleset"][..]), ("iptables-save", &["-t", "raw"])].map(|(tool, arguments)| {
        let output = Command::new(tool).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    });
    outputs.into_iter().flatten().reduce(|nft, iptables| format!("{nft}\n{iptables}"))
}

fn io_uring(host: &Host<'_>) -> Option<(String, Verdict)> {
    Some(match host.io_uring {
        Ok(found) => (format!("usable on Linux {}", found.kernel), Verdict::Good),
        Err(error) => ("refused".to_owned(), Verdict::Needed { wanted: "usable".to_owned(), cure: error.to_string() }),
    })
}

fn locked_memory(host: &Host<'_>) -> Option<(String, Verdict)> {
    // Below this glommio refuses to start an executor.
    const NEEDED_KIB: u64 = 512;
    let limit = soft_limit(host, "Max locked memory")?;
    let current = limit.map_or("unlimited".to_owned(), |bytes| format!("{} KiB", bytes / 1024));
    let verdict = match limit {
        Some(bytes) if bytes < NEEDED_KIB * 1024 => Verdict::Needed {
            wanted: format!("at least {NEEDED_KIB} KiB"),
            cure: format!("ulimit -l {NEEDED_KIB}, or LimitMEMLOCK={NEEDED_KIB}K in the service unit"),
        },
        _ => Verdict::Good,
    };
    Some((current, verdict))
}

fn open_files(host: &Host<'_>) -> Option<(String, Verdict)> {
    let config = host.config;
    let wanted = (config.signaling.rooms * config.signaling.peers_per_room).clamp(1_024, 65_536) as u64;
    let limit = soft_limit(host, "Max open files")?;
    let current = limit.map_or("unlimited".to_owned(), |files| files.to_string());
    let verdict = match limit {
        Some(files) if files < wanted => Verdict::Better {
            wanted: format!("{wanted} (--max-rooms times --max-peers-per-room, at most 65536)"),
            cure: format!("ulimit -n {wanted}, or LimitNOFILE={wanted} in the service unit"),
        },
        _ => Verdict::Good,
    };
    Some((current, verdict))
}

/// A soft limit of this process; `Some(None)` is no limit.
fn soft_limit(host: &Host<'_>, name: &str) -> Option<Option<u64>> {
    let limits = (host.file)("/proc/self/limits")?;
    let soft = limits.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?;
    Some(soft.parse().ok())
}

fn cores(host: &Host<'_>) -> Option<(String, Verdict)> {
    let have = host.allowed_cores.len();
    let workers = host.config.worker_count(have);
    let verdict = if workers > have {
        Verdict::Better {
            wanted: format!("{workers}, one for each worker"),
            cure: format!("--workers {}, or a wider CPU set for the process", have.max(1)),
        }
    } else {
        Verdict::Good
    };
    Some((format!("{have} allowed, {workers} worker(s)"), verdict))
}

/// Whether workers may go before other threads, by the limit or by CAP_SYS_NICE.
fn thread_priority(host: &Host<'_>) -> Option<(String, Verdict)> {
    const CAP_SYS_NICE: u32 = 23;
    let nice = priority::MEDIA;
    // The limit counts from the last in turn: nice 19 is 1, nice -20 is 40.
    let is_within = soft_limit(host, "Max nice priority")?.is_none_or(|limit| limit >= (20 - nice) as u64);
    let capabilities = (host.file)("/proc/self/status").and_then(|status| {
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(effective.trim(), 16).ok()
    });
    let is_capable = capabilities.is_some_and(|effective| effective >> CAP_SYS_NICE & 1 == 1);
    Some(if is_within || is_capable {
        (format!("workers may go first (nice {nice})"), Verdict::Good)
    } else {
        let cure = format!("LimitNICE={nice} in the service unit, or --cap-add SYS_NICE of the container");
        ("workers take their turn".to_owned(), Verdict::Better { wanted: format!("nice {nice} allowed"), cure })
    })
}

fn socket_buffer(host: &Host<'_>, name: &str, wanted_bytes: usize) -> Option<(String, Verdict)> {
    let current: usize = (host.file)(&format!("/proc/sys/net/core/{name}"))?.parse().ok()?;
    let verdict = if current < wanted_bytes {
        Verdict::Better {
            wanted: format!("{wanted_bytes}"),
            cure: format!("sysctl -w net.core.{name}={wanted_bytes} (or CAP_NET_ADMIN for the process)"),
        }
    } else {
        Verdict::Good
    };
    Some((current.to_string(), verdict))
}

fn ephemeral_ports(host: &Host<'_>) -> Option<(String, Verdict)> {
    let range = (host.file)("/proc/sys/net/ipv4/ip_local_port_range")?;
    let (first, last) = range.split_once(char::is_whitespace)?;
    let (first, last): (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    let (min, max) = (host.config.rtc_min_port, host.config.rtc_max_port);
    let reserved = (host.file)("/proc/sys/net/ipv4/ip_local_reserved_ports").unwrap_or_default();
    let apart = max < first || last < min || covers(&reserved, min, max);
    let verdict = if apart {
        Verdict::Good
    } else {
        Verdict::Better {
            wanted: format!("apart from {min}-{max}"),
            cure: format!("sysctl -w net.ipv4.ip_local_reserved_ports={min}-{max}, or another --rtc-min-port"),
        }
    };
    Some((format!("{first}-{last}"), verdict))
}

/// Whether a list such as `8080,10000-10100` has all ports of the range in one entry.
fn covers(reserved: &str, min: u16, max: u16) -> bool {
    reserved.split(',').any(|entry| {
        let (first, last) = entry.split_once('-').unwrap_or((entry, entry));
        matches!((first.trim().parse::<u16>(), last.trim().parse::<u16>()), (Ok(first), Ok(last)) if first <= min && max <= last)
    })
}

fn conntrack(host: &Host<'_>) -> Option<(String, Verdict)> {
    let read = |name: &str| (host.file)(&format!("/proc/sys/net/netfilter/nf_conntrack_{name}"))?.parse::<u64>().ok();
    let (count, max) = (read("count")?, read("max")?);
    let (min_port, max_port) = (host.config.rtc_min_port, host.config.rtc_max_port);
    let wanted = format!("UDP {min_port}-{max_port} untracked");
    let cure = format!("tuning/apply --untrack --ports {min_port}-{max_port}, after the caution in tuning/README.md");
    // An empty table is a kernel that could track and has no rule that asks it to.
    let (media, verdict) = if count == 0 {
        ("", Verdict::Good)
    } else {
        match (host.firewall)() {
            Some(rules) if are_untracked(&rules, min_port, max_port) => (", the media ports untracked", Verdict::Good),
            Some(_) => ("", Verdict::Better { wanted, cure }),
            None => (
                ", whether of the media ports only root can read",
                Verdict::Better { wanted, cure: format!("{cure}; where that is done, run this check as root") },
            ),
        }
    };
    Some((format!("{count} of {max} entries{media}"), verdict))
}

/// Whether rules of nftables or iptables take the range out of tracking in both directions.
fn are_untracked(rules: &str, min: u16, max: u16) -> bool {
    let untracked = |port: &str| {
        rules.lines().map(str::to_lowercase).filter(|rule| rule.contains("udp") && rule.contains("notrack")).any(
            |rule| {
                let ports = rule.split_once(port).map(|(_, rest)| rest.replace(':', "-"));
                ports.is_some_and(|ports| ports.split([' ', ',', '{', '}']).any(|entry| covers(entry, min, max)))
            },
        )
    };
    untracked("dport") && untracked("sport")
}

/// The device of the default route, which most browsers are behind.
fn default_device(host: &Host<'_>) -> Option<String> {
    let routes = (host.file)("/proc/net/route")?;
    let mut columns = routes.lines().map(|route| route.split_whitespace());
    columns.find_map(|mut columns| columns.next().filter(|_| columns.next() == Some("00000000")).map(str::to_owned))
}

fn receive_queues(host: &Host<'_>) -> Option<(String, Verdict)> {
    let device = default_device(host)?;
    let path = |queue: usize| format!("/sys/class/net/{device}/queues/rx-{queue}/rps_cpus");
    let masks: Vec<String> = (0..).map_while(|queue| (host.file)(&path(queue))).collect();
    let steered = masks.first()?.chars().any(|digit| !matches!(digit, '0' | ','));
    let workers = host.config.worker_count(host.allowed_cores.len());
    let verdict = if masks.len() == 1 && workers > 1 && !steered {
        Verdict::Better {
            wanted: format!("more queues, or one that is spread over the {workers} workers' cores (RPS)"),
            cure: format!("ethtool -L {device} combined {workers}, or the mask of the cores into {}", path(0)),
        }
    } else {
        Verdict::Good
    };
    Some((format!("{} of {device}{}", masks.len(), if steered { ", spread by RPS" } else { "" }), verdict))
}

/// Of a device with several queues, each with an interrupt of its own.
fn interrupts(host: &Host<'_>) -> Option<(String, Verdict)> {
    let device = default_device(host)?;
    let all = (host.file)("/proc/interrupts")?;
    let is_own = |word: &str| word.strip_prefix(&*device).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    let of_device = all.lines().filter(|line| line.split_whitespace().any(is_own));
    let numbers: Vec<u32> = of_device.filter_map(|line| line.split_once(':')?.0.trim().parse().ok()).collect();
    let cores = |irq: &u32| (host.file)(&format!("/proc/irq/{irq}/effective_affinity_list"));
    let mut served: Vec<String> = numbers.iter().filter_map(cores).collect();
    let queues = served.len();
    served.sort_unstable();
    served.dedup();
    if queues < 2 {
        return None;
    }
    let verdict = if served.len() == 1 && host.config.worker_count(host.allowed_cores.len()) > 1 {
        Verdict::Better {
            wanted: "spread over the cores".to_owned(),
            cure: "irqbalance, or a core for each: echo 1 >/proc/irq/N/smp_affinity_list".to_owned(),
        }
    } else {
        Verdict::Good
    };
    Some((format!("{queues} of {device}, on cores {}", served.join(", ")), verdict))
}

fn offloads(host: &Host<'_>) -> Option<(String, Verdict)> {
    const WANTED: [(&str, &str); 2] =
        [("generic-receive-offload", "gro"), ("tx-udp-segmentation", "tx-udp-segmentation")];
    let device = default_device(host)?;
    let features = (host.offloads)(&device)?;
    let state = |name: &str| {
        features.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(": ").map(str::to_owned))
    };
    let states = WANTED.iter().filter_map(|(name, short)| Some((*short, state(name)?)));
    let (current, off): (Vec<_>, Vec<_>) =
        states.map(|(short, state)| (format!("{short} {state}"), (short, state))).unzip();
    // "off [fixed]" is a device that cannot.
    let off: Vec<_> = off.iter().filter(|(_, state)| state == "off").map(|(short, _)| format!("{short} on")).collect();
    let verdict = if off.is_empty() {
        Verdict::Good
    } else {
        Verdict::Better { wanted: off.join(", "), cure: format!("ethtool -K {device} {}", off.join(" ")) }
    };
    Some((format!("{device}: {}", current.join(", ")), verdict))
}

fn governor(host: &Host<'_>) -> Option<(String, Verdict)> {
    let of_core = |core: &usize| (host.file)(&format!("/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor"));
    let governors: Vec<String> = host.allowed_cores.iter().filter_map(of_core).collect();
    let slow = governors.iter().find(|governor| *governor != "performance");
    let current = slow.or(governors.first())?.clone();
    let verdict = match slow {
        None => Verdict::Good,
        Some(_) => Verdict::Better {
            wanted: "performance".to_owned(),
            cure: "cpupower frequency-set -g performance".to_owned(),
        },
    };
    Some((current, verdict))
}

fn busy_polling(host: &Host<'_>) -> Option<(String, Verdict)> {
    let read = |name: &str| (host.file)(&format!("/proc/sys/net/core/{name}"))?.parse::<u32>().ok();
    let (poll, read) = (read("busy_poll")?, read("busy_read")?);
    let verdict = if poll == 0 && read == 0 {
        Verdict::Good
    } else {
        Verdict::Better {
            wanted: "off".to_owned(),
            cure: "sysctl -w net.core.busy_poll=0 net.core.busy_read=0, unless another service needs it".to_owned(),
        }
    };
    Some((format!("{poll} us of poll, {read} us of read"), verdict))
}

/// Where there is systemd.
fn service_unit(host: &Host<'_>) -> Option<(String, Verdict)> {
    (host.file)("/proc/1/comm").filter(|first| first == "systemd")?;
    let unit = ["/etc", "/usr/lib", "/lib"].map(|root| format!("{root}/systemd/system/ringside.service"));
    Some(match unit.into_iter().find(|unit| (host.file)(unit).is_some()) {
        Some(unit) => (unit, Verdict::Good),
        None => (
            "none".to_owned(),
            Verdict::Better {
                wanted: "ringside.service".to_owned(),
                cure: "install -m 644 tuning/ringside.service /etc/systemd/system/ && systemctl daemon-reload"
                    .to_owned(),
            },
        ),
    })
}

fn clock_source(host: &Host<'_>) -> Option<(String, Verdict)> {
    let current = (host.file)("/sys/devices/system/clocksource/clocksource0/current_clocksource")?;
    let verdict = if ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter"].contains(&current.as_str())
    {
        Verdict::Good
    } else {
        Verdict::Better {
            wanted: "tsc, or kvm-clock in a virtual machine".to_owned(),
            cure: "boot with clocksource=tsc, where the CPU's counter is stable".to_owned(),
        }
    };
    Some((current, verdict))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units     \n\
                          Max open files            1048576              1048576              files     \n\
                          Max locked memory         8388608              8388608              bytes     \n\
                          Max nice priority         30                   30                   \n";

    const INTERRUPTS: &str = "           CPU0       CPU1\n\
                              24:   10   0   PCI-MSI 524288-edge   eth0-TxRx-0\n\
                              25:    0  10   PCI-MSI 524289-edge   eth0-TxRx-1\n\
                              26:    9   9   PCI-MSI 524290-edge   eth01-TxRx-0\n";

    /// As `nft list ruleset` prints what `tuning/apply --untrack` made.
    const UNTRACKED: &str = "table inet ringside_untracked {\n\tchain incoming {\n\
                             \t\ttype filter hook prerouting priority raw; policy accept;\n\
                             \t\tudp dport 10000-10100 notrack\n\t}\n\tchain outgoing {\n\
                             \t\ttype filter hook output priority raw; policy accept;\n\
                             \t\tudp sport 10000-10100 notrack\n\t}\n}\n";

    fn well_tuned(path: &str) -> Option<String> {
        let text = match path {
            "/proc/self/limits" => LIMITS,
            "/proc/sys/net/core/rmem_max" | "/proc/sys/net/core/wmem_max" => "8388608",
            "/proc/sys/net/ipv4/ip_local_port_range" => "32768\t60999",
            "/proc/sys/net/netfilter/nf_conntrack_count" => "0",
            "/proc/sys/net/netfilter/nf_conntrack_max" => "65536",
            "/proc/net/route" => "Iface Destination Gateway\neth0 000200C0 00000000\neth0 00000000 010200C0",
            "/sys/class/net/eth0/queues/rx-0/rps_cpus" => "3",
            "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor" => "performance",
            "/sys/devices/system/clocksource/clocksource0/current_clocksource" => "tsc",
            "/proc/interrupts" => INTERRUPTS,
            "/proc/irq/24/effective_affinity_list" => "0",
            "/proc/irq/25/effective_affinity_list" => "1",
            "/proc/sys/net/core/busy_poll" | "/proc/sys/net/core/busy_read" => "0",
            "/proc/1/comm" => "systemd",
            "/etc/systemd/system/ringside.service" => "[Unit]",
            _ => return None,
        };
        Some(text.to_owned())
    }

    fn offloading(device: &str) -> Option<String> {
        let text = "Features for eth0:\ngeneric-receive-offload: on\ntx-udp-segmentation: off [fixed]\n";
        (device == "eth0").then(|| text.to_owned())
    }

    /// In place of a file's text: there is none.
    const MISSING: &str = "\0";

    /// The findings of a well-tuned host but for these files.
    fn findings_with(changes: &[(&str, &str)]) -> Vec<Finding> {
        let io_uring = Ok(Found { kernel: "6.1.0".to_owned(), memlock_bytes: None });
        let file = |path: &str| {
            let changed = changes.iter().find(|(changed, _)| *changed == path);
            match changed {
                Some((_, text)) => (*text != MISSING).then(|| text.to_string()),
                None => well_tuned(path),
            }
        };
        let config = Config::default();
        findings(&Host {
            file: &file,
            offloads: &offloading,
            firewall: &|| Some(String::new()),
            io_uring: &io_uring,
            allowed_cores: &[0, 1],
            config: &config,
        })
    }

    fn verdict(findings: &[Finding], name: &str) -> Verdict {
        findings.iter().find(|finding| finding.name == name).unwrap().verdict.clone()
    }

    #[test]
    fn a_well_tuned_host_gets_no_advice() {
        let findings = findings_with(&[]);
        assert_eq!(findings.len(), KNOBS.len());
        let text = report(&findings);
        assert!(text.lines().all(|line| line.starts_with("ok ")), "{text}");
    }

    #[test]
    fn each_knob_out_of_place_is_told_with_its_cure() {
        let tight = LIMITS.replace("8388608", "65536");
        let few = LIMITS.replace("1048576", "256");
        let last = LIMITS.replace("30 ", "0 ");
        for (path, text, name, cure) in [
            ("/proc/self/limits", tight.as_str(), "locked memory", "ulimit -l 512"),
            ("/proc/self/limits", &few, "open files", "LimitNOFILE=65536"),
            ("/proc/self/limits", &last, "thread priority", "LimitNICE=-10"),
            ("/proc/sys/net/core/rmem_max", "212992", "net.core.rmem_max", "net.core.rmem_max=4194304"),
            ("/proc/sys/net/core/wmem_max", "212992", "net.core.wmem_max", "net.core.wmem_max=4194304"),
            ("/proc/sys/net/ipv4/ip_local_port_range", "1024 65535", "ephemeral ports", "reserved_ports=10000-10100"),
            (
                "/proc/sys/net/netfilter/nf_conntrack_count",
                "17",
                "conntrack",
                "tuning/apply --untrack --ports 10000-10100",
            ),
            ("/proc/irq/25/effective_affinity_list", "0", "interrupts", "smp_affinity_list"),
            ("/proc/sys/net/core/busy_poll", "50", "busy polling", "net.core.busy_poll=0"),
            ("/etc/systemd/system/ringside.service", MISSING, "service unit", "tuning/ringside.service"),
            (
                "/sys/class/net/eth0/queues/rx-0/rps_cpus",
                "00000000,00000000",
                "receive queues",
                "ethtool -L eth0 combined 2",
            ),
            ("/sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave", "CPU governor", "performance"),
            ("/sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet", "clock source", "tsc"),
        ] {
            let findings = findings_with(&[(path, text)]);
            let text = match verdict(&findings, name) {
                Verdict::Better { cure, .. } | Verdict::Needed { cure, .. } => cure,
                Verdict::Good => panic!("{name} is good"),
            };
            assert!(text.contains(cure), "{name}: {text}");
            let others = findings.iter().filter(|finding| finding.verdict != Verdict::Good).count();
            assert_eq!(others, 1, "{name}: {}", report(&findings));
        }
    }

    #[test]
    fn a_capability_lets_workers_go_first_where_the_limit_does_not() {
        let last = LIMITS.replace("30 ", "0 ");
        let with = |effective: &str| {
            let status = format!("Name:\tringside\nCapPrm:\t000001ffffffffff\nCapEff:\t{effective}\n");
            verdict(&findings_with(&[("/proc/self/limits", &last), ("/proc/self/status", &status)]), "thread priority")
        };
        assert_eq!(with("0000000000800000"), Verdict::Good);
        assert_ne!(with("000001ffff7fffff"), Verdict::Good);
    }

    #[test]
    fn media_ports_that_the_firewall_leaves_untracked_are_well() {
        let tracked = |path: &str| match path {
            "/proc/sys/net/netfilter/nf_conntrack_count" => Some("17".to_owned()),
            path => well_tuned(path),
        };
        let with = |rules: Option<&str>, first, last| {
            let config = Config { rtc_min_port: first, rtc_max_port: last, ..Config::default() };
            let host = Host {
                file: &tracked,
                offloads: &offloading,
                firewall: &|| rules.map(str::to_owned),
                io_uring: &Ok(Found { kernel: "6.1.0".to_owned(), memlock_bytes: None }),
                allowed_cores: &[0],
                config: &config,
            };
            verdict(&findings(&host), "conntrack")
        };
        let iptables = "*raw\n-A PREROUTING -p udp -m udp --dport 10000:10100 -j CT --notrack\n\
                        -A OUTPUT -p udp -m udp --sport 10000:10100 -j CT --notrack\nCOMMIT\n";
        let several = UNTRACKED.replace("10000-10100", "{ 3478, 9000-10200 }");
        for rules in [UNTRACKED, iptables, &iptables.replace("CT --notrack", "NOTRACK"), &several] {
            assert_eq!(with(Some(rules), 10_000, 10_100), Verdict::Good, "{rules}");
        }
        let inwards_only = UNTRACKED.replace("udp sport", "tcp sport");
        let mentioned = UNTRACKED.replace("notrack", "accept");
        for rules in ["", &*inwards_only, &*mentioned] {
            assert!(matches!(with(Some(rules), 10_000, 10_100), Verdict::Better { .. }), "{rules}");
        }
        assert!(matches!(with(Some(UNTRACKED), 10_000, 10_200), Verdict::Better { .. }), "a part of the range");
        match with(None, 10_000, 10_100) {
            Verdict::Better { cure, .. } => assert!(cure.contains("as root"), "{cure}"),
            verdict => panic!("{verdict:?}"),
        }
    }

    #[test]
    fn reserved_ports_may_lie_in_the_ephemeral_range() {
        let range = ("/proc/sys/net/ipv4/ip_local_port_range", "1024 65535");
        let verdict_with = |reserved| {
            let findings = findings_with(&[range, ("/proc/sys/net/ipv4/ip_local_reserved_ports", reserved)]);
            verdict(&findings, "ephemeral ports")
        };
        assert_eq!(verdict_with("8080,9990-10200"), Verdict::Good);
        assert_ne!(verdict_with("8080,10000-10099"), Verdict::Good);
    }

    #[test]
    fn offloads_that_a_device_has_and_does_not_use_are_told() {
        let file = |path: &str| well_tuned(path);
        let offloads = |_: &str| Some("generic-receive-offload: off\n\ttx-udp-segmentation: off\n".to_owned());
        let io_uring = Ok(Found { kernel: "6.1.0".to_owned(), memlock_bytes: None });
        let config = Config::default();
        let firewall = || None;
        let host = Host {
            file: &file,
            offloads: &offloads,
            firewall: &firewall,
            io_uring: &io_uring,
            allowed_cores: &[0],
            config: &config,
        };
        let text = report(&findings(&host));
        assert!(text.contains("ethtool -K eth0 gro on tx-udp-segmentation on"), "{text}");
    }

    #[test]
    fn every_knob_stands_in_the_tuning_guide() {
        let guide = include_str!("../tuning/README.md");
        let table = guide.split("| knob | why | measured effect |").nth(1).unwrap().split("\n\n").next().unwrap();
        let rows: Vec<Vec<&str>> = table.lines().skip(2).map(|row| row.split(" | ").collect()).collect();
        let names: Vec<&str> = rows.iter().map(|row| row[0].trim_start_matches("| ")).collect();
        let asked: Vec<&str> = KNOBS.iter().map(|knob| knob.name).collect();
        assert_eq!(names, asked, "the same list in the same order");
        for row in rows {
            assert_eq!(row.len(), 6, "why, effect, check, apply and undo: {row:?}");
            assert!(row.iter().all(|cell| cell.trim_end_matches(" |").len() > 2), "{row:?}");
        }
    }

    #[test]
    fn what_a_host_does_not_have_is_not_asked_for() {
        let io_uring = Ok(Found { kernel: "6.1.0".to_owned(), memlock_bytes: None });
        let config = Config::default();
        let host = Host {
            file: &|_| None,
            offloads: &|_| None,
            firewall: &|| None,
            io_uring: &io_uring,
            allowed_cores: &[0],
            config: &config,
        };
        let names: Vec<_> = findings(&host).iter().map(|finding| finding.name).collect();
        assert_eq!(names, ["io_uring", "cores"]);
    }

    #[test]
    fn a_host_without_io_uring_fails_with_its_cure() {
        let io_uring = Err(ProbeError::Disabled { value: 2 });
        let config = Config::default();
        let host = Host {
            file: &well_tuned,
            offloads: &offloading,
            firewall: &|| Some(String::new()),
            io_uring: &io_uring,
            allowed_cores: &[0],
            config: &config,
        };
        let text = report(&findings(&host));
        assert!(text.starts_with("FAIL  io_uring") && text.contains("kernel.io_uring_disabled=0"), "{text}");
    }
}
