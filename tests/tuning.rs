//! The tuning guide and its files: they say what the server says, and the scripts do what they announce and take it
//! back. The scripts see a /proc and /sys of the test's own; nothing of this machine is changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ringside::config::{SETTINGS, ValueKind};

fn tuning(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning").join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(tuning(name)).unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A machine in a folder, with an nft and an ethtool that write down what they are asked for.
struct Machine {
    root: PathBuf,
}

const DEFAULTS: [(&str, &str); 6] = [
    ("proc/sys/net/core/rmem_max", "212992"),
    ("proc/sys/net/core/wmem_max", "8388608"),
    ("proc/sys/net/ipv4/ip_local_reserved_ports", "8080"),
    ("proc/net/route", "Iface\tDestination\neth0\t00000000"),
    ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "schedutil"),
    ("sys/class/net/eth0/queues/rx-0/rps_cpus", "0"),
];

impl Machine {
    fn new(name: &str) -> Machine {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tuning-{name}"));
        let _ = fs::remove_dir_all(&root);
        let machine = Machine { root };
        for (path, value) in DEFAULTS {
            machine.write(path, &format!("{value}\n"));
        }
        let ethtool = "#!/bin/sh\necho ethtool \"$@\" >>\"$CALLS\"\n\
                       printf 'generic-receive-offload: off\\ntx-udp-segmentation: off [fixed]\\n'\n";
        let nft = "#!/bin/sh\necho nft \"$@\" >>\"$CALLS\"\n[ \"$1\" != list ] || exit 1\n\
                   [ \"$1\" != -f ] || cat >>\"$CALLS\"\n";
        let nproc = "#!/bin/sh\necho 36\n";
        for (name, script) in [("ethtool", ethtool), ("nft", nft), ("nproc", nproc)] {
            machine.write(&format!("bin/{name}"), script);
            Command::new("chmod").arg("+x").arg(machine.root.join("bin").join(name)).status().unwrap();
        }
        machine
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root.join(path)).unwrap_or_default().trim().to_owned()
    }

    fn run(&self, script: &str, arguments: &[&str]) -> String {
        let path = format!("{}:{}", self.root.join("bin").display(), std::env::var("PATH").unwrap());
        let mut command = Command::new(tuning(script));
        command.args(arguments).env("PATH", path).env("CALLS", self.root.join("calls"));
        command.env("RINGSIDE_TUNING_ROOT", &self.root).env("RINGSIDE_TUNING_UNDO", self.root.join("var/undo"));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}{}", stdout(&output), String::from_utf8_lossy(&output.stderr));
        stdout(&output)
    }

    fn is_untouched(&self) -> bool {
        DEFAULTS.iter().all(|(path, value)| self.read(path) == *value)
    }
}

#[test]
fn without_yes_every_step_is_said_and_none_is_taken() {
    let machine = Machine::new("dry");
    let said = machine.run("apply", &["--untrack"]);
    for step in [
        "/proc/sys/net/core/rmem_max: 212992 -> 4194304",
        "/proc/sys/net/ipv4/ip_local_reserved_ports: 8080 -> 8080,10000-10100",
        "scaling_governor: schedutil -> performance",
        "ethtool -K eth0 gro on",
        "rps_cpus: 0 -> f,ffffffff",
        "UDP 10000-10100 is not tracked",
        "nothing was changed",
    ] {
        assert!(said.contains(step), "{step}: {said}");
    }
    assert!(!said.contains("wmem_max"), "a larger value is left alone: {said}");
    assert!(!said.contains("tx-udp-segmentation"), "the device cannot: {said}");
    assert!(machine.is_untouched());
    assert!(!machine.root.join("var").exists());
}

#[test]
fn what_was_applied_is_taken_back_to_what_it_was() {
    let machine = Machine::new("there-and-back");
    let announced = machine.run("apply", &["--untrack", "--ports", "20000-20100"]);
    let done = machine.run("apply", &["--untrack", "--ports", "20000-20100", "--yes"]);
    assert_eq!(announced.lines().count(), done.lines().count());
    assert_eq!(machine.read("proc/sys/net/core/rmem_max"), "4194304");
    assert_eq!(machine.read("proc/sys/net/ipv4/ip_local_reserved_ports"), "8080,20000-20100");
    assert_eq!(machine.read("sys/class/net/eth0/queues/rx-0/rps_cpus"), "f,ffffffff");
    assert!(machine.read("calls").contains("udp dport 20000-20100 notrack"), "{}", machine.read("calls"));

    let again = machine.run("apply", &["--yes"]);
    assert!(!again.contains("rmem_max"), "{again}");
    assert!(machine.run("undo", &[]).contains("nothing was changed"));
    assert_eq!(machine.read("proc/sys/net/core/rmem_max"), "4194304");

    machine.run("undo", &["--yes"]);
    assert!(machine.is_untouched());
    for call in ["nft delete table inet ringside_untracked", "ethtool -K eth0 gro off"] {
        assert!(machine.read("calls").contains(call), "{}", machine.read("calls"));
    }
    assert!(machine.run("undo", &[]).contains("nothing to undo"));
}

#[test]
fn the_check_shows_what_the_server_finds_wanting_and_nothing_else() {
    let binary = env!("CARGO_BIN_EXE_ringside");
    let all = stdout(&Command::new(binary).arg("--check-host").output().unwrap());
    let check = Command::new(tuning("check")).env("RINGSIDE_BIN", binary).output().unwrap();
    let shown = stdout(&check);
    let wanting = all.lines().filter(|line| line.starts_with("tune") || line.starts_with("FAIL")).collect::<Vec<_>>();
    let rows = shown.lines().filter(|line| !line.starts_with(' ')).collect::<Vec<_>>();
    assert_eq!(rows[..rows.len() - 1], wanting);
    assert!(rows.last().unwrap().ends_with("are as they should be"), "{shown}");
    let code = if all.contains("FAIL  io_uring") { 3 } else { i32::from(!wanting.is_empty()) };
    assert_eq!(check.status.code(), Some(code));

    let mistaken = Command::new(tuning("check")).arg("--colour=red").env("RINGSIDE_BIN", binary).output().unwrap();
    assert_eq!(mistaken.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&mistaken.stderr).contains("--colour"));
}

#[test]
fn the_reference_configuration_is_the_table_of_settings() {
    let reference = text("ringside.toml");
    let prose: String = reference.lines().map(|line| format!("{} ", line.trim_start_matches(['#', ' ']))).collect();
    let mut uncommented = String::new();
    for setting in SETTINGS {
        assert!(prose.contains(setting.help), "{}: {}", setting.name, setting.help);
        let line = reference.lines().find_map(|line| {
            let line = line.strip_prefix("# ")?;
            line.strip_prefix(setting.name)?.starts_with(" = ").then_some(line)
        });
        let line = line.unwrap_or_else(|| panic!("{} is missing", setting.name));
        if !setting.default.is_empty() {
            uncommented += &format!("{line}\n");
        } else if setting.kind != ValueKind::Secret {
            assert!(prose.contains(setting.unset), "{}: {}", setting.name, setting.unset);
        }
    }
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("uncommented.toml");
    fs::write(&path, uncommented).unwrap();
    let print = |arguments: &[&str]| {
        let mut ringside = Command::new(env!("CARGO_BIN_EXE_ringside"));
        let output = ringside.arg("--print-config").args(arguments).env_clear().output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        stdout(&output).lines().map(|line| line.split("  # ").next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(print(&["--config", path.to_str().unwrap()]), print(&[]));
    assert_eq!(print(&["--config", tuning("ringside.toml").to_str().unwrap()]), print(&[]));
}

#[test]
fn the_seccomp_profile_allows_what_a_worker_needs_and_no_namespaces() {
    let profile: serde_json::Value = serde_json::from_str(&text("seccomp.json")).unwrap();
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    let rules = profile["syscalls"].as_array().unwrap();
    let allows = |name: &str| {
        let names = |rule: &&serde_json::Value| rule["names"].as_array().unwrap().iter().any(|n| n == name);
        rules.iter().filter(names).any(|rule| rule["action"] == "SCMP_ACT_ALLOW" && rule["args"].is_null())
    };
    for name in ["io_uring_setup", "io_uring_enter", "io_uring_register", "sched_setaffinity", "eventfd2", "setsockopt"]
    {
        assert!(allows(name), "{name}");
    }
    for name in ["clone", "clone3", "unshare", "setns", "mount", "ptrace", "bpf", "keyctl", "socket"] {
        assert!(!allows(name), "{name} is allowed whatever its arguments");
    }
}

#[test]
fn the_kernel_settings_are_those_that_the_check_asks_for() {
    let conf = text("sysctl.conf");
    let buffers = ringside::uring::socket::SocketOptions::default().buffers;
    let config = ringside::config::Config::default();
    for line in [
        format!("net.core.rmem_max = {}", buffers.receive_bytes),
        format!("net.core.wmem_max = {}", buffers.send_bytes),
        format!("net.ipv4.ip_local_reserved_ports = {}-{}", config.rtc_min_port, config.rtc_max_port),
    ] {
        assert!(conf.lines().any(|found| found == line), "{line}");
    }
}
