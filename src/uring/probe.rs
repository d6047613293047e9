//! What this host lets Ringside do: asked once at start, before any worker, and said in one line.
//!
//! The probe makes a ring with the flags that the workers use and drops it. Where that is refused it finds out
//! who refused: the kernel's age, the administrator's sysctl, a container's seccomp filter or the limit on
//! locked memory, because each has another cure.

use std::io;

use io_uring::{IoUring, Probe, opcode};

/// What the probe found on a host that can run Ringside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// As `uname -r` says.
    pub kernel: String,
    /// Soft limit on locked memory in bytes; `None` is no limit.
    pub memlock_bytes: Option<u64>,
}

/// Who refuses, with the cure.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error(
        "Linux {release} is too old: Ringside needs 6.1 or later (io_uring with DEFER_TASKRUN); upgrade the kernel"
    )]
    KernelTooOld { release: String },
    #[error(
        "io_uring is switched off on this host (kernel.io_uring_disabled = {value}); cure: sysctl -w \
         kernel.io_uring_disabled=0"
    )]
    Disabled { value: u8 },
    #[error(
        "io_uring is forbidden by a seccomp filter, as container runtimes set by default; cure: run the container with \
         a profile that allows io_uring_setup, io_uring_enter and io_uring_register (Docker: --security-opt \
         seccomp=<profile>.json)"
    )]
    Seccomp,
    #[error(
        "the limit on locked memory is too low: {have_kib} KiB, {need_kib} KiB needed; cure: ulimit -l {need_kib}, \
         LimitMEMLOCK= in the service unit, or --ulimit memlock= of the container"
    )]
    Memlock { need_kib: u64, have_kib: u64 },
    #[error("io_uring cannot be used: {0}")]
    Other(io::Error),
}

/// Smallest limit on locked memory under which glommio starts an executor.
const MEMLOCK_NEED_KIB: u64 = 512;

/// Asks the kernel for a ring like a worker's and drops it again.
pub fn probe() -> Result<Found, ProbeError> {
    let memlock_bytes = memlock_limit_bytes();
    if let Some(have) = memlock_bytes
        && have < MEMLOCK_NEED_KIB * 1024
    {
        return Err(ProbeError::Memlock { need_kib: MEMLOCK_NEED_KIB, have_kib: have / 1024 });
    }
    match try_ring() {
        Ok(()) => Ok(Found { kernel: kernel_release(), memlock_bytes }),
        Err(error) => Err(explain(error, &Host::read())),
    }
}

/// The flags of every ring of Ringside: one thread submits, and the kernel's side of a completion runs only when
/// that thread asks for it, never as an interruption of the tick.
pub(super) fn builder() -> io_uring::Builder {
    let mut builder = IoUring::builder();
    builder.setup_single_issuer().setup_defer_taskrun().setup_coop_taskrun();
    builder
}

fn try_ring() -> io::Result<()> {
    let ring: IoUring = builder().build(8)?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let needed = [opcode::RecvMsgMulti::CODE, opcode::SendMsg::CODE, opcode::Send::CODE, opcode::Read::CODE];
    if !needed.iter().all(|code| probe.is_supported(*code)) || !ring.params().is_feature_ext_arg() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    Ok(())
}

/// What tells the refusals apart.
struct Host {
    release: String,
    /// `kernel.io_uring_disabled`, which exists since Linux 6.6.
    disabled: Option<u8>,
    /// `Seccomp:` of /proc/self/status: 0 none, 1 strict, 2 filter.
    seccomp: u8,
    memlock_kib: u64,
}

impl Host {
    fn read() -> Host {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        Host {
            release: kernel_release(),
            disabled: read_number("/proc/sys/kernel/io_uring_disabled"),
            seccomp: status
                .lines()
                .find_map(|line| line.strip_prefix("Seccomp:"))
                .and_then(|value| value.trim().parse().ok())
                .unwrap_or(0),
            memlock_kib: memlock_limit_bytes().map_or(u64::MAX, |bytes| bytes / 1024),
        }
    }
}

fn explain(error: io::Error, host: &Host) -> ProbeError {
    let code = error.raw_os_error();
    match (code, host.disabled) {
        (Some(libc::EPERM), Some(value @ 1..)) => ProbeError::Disabled { value },
        // Docker's and Podman's default filters answer EPERM; others (gVisor, systemd) ENOSYS.
        (Some(libc::EPERM | libc::EACCES), _) => ProbeError::Seccomp,
        (Some(libc::ENOSYS), _) if host.seccomp == 2 && is_at_least(&host.release, 6, 1) => ProbeError::Seccomp,
        (Some(libc::ENOSYS | libc::EINVAL), _) if !is_at_least(&host.release, 6, 1) => {
            ProbeError::KernelTooOld { release: host.release.clone() }
        }
        // Before cgroup accounting (Linux 5.12) and in kernels with a patched limit, ring memory counts as locked.
        (Some(libc::ENOMEM), _) => {
            ProbeError::Memlock { need_kib: MEMLOCK_NEED_KIB.max(host.memlock_kib * 2), have_kib: host.memlock_kib }
        }
        _ => ProbeError::Other(error),
    }
}

fn is_at_least(release: &str, major: u32, minor: u32) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (major, minor)
}

fn kernel_release() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().to_owned()
}

fn read_number(path: &str) -> Option<u8> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn memlock_limit_bytes() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes into the live `limit`.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) };
    (result == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(release: &str, disabled: Option<u8>, seccomp: u8) -> Host {
        Host { release: release.to_owned(), disabled, seccomp, memlock_kib: 8192 }
    }

    fn refusal(code: i32, host: Host) -> ProbeError {
        explain(io::Error::from_raw_os_error(code), &host)
    }

    #[test]
    fn each_refusal_is_told_apart() {
        assert!(matches!(refusal(libc::ENOSYS, host("4.19.0-27-amd64", None, 0)), ProbeError::KernelTooOld { .. }));
        assert!(matches!(refusal(libc::EINVAL, host("5.15.0-91-generic", None, 0)), ProbeError::KernelTooOld { .. }));
        assert!(matches!(refusal(libc::EPERM, host("6.8.0", Some(2), 0)), ProbeError::Disabled { value: 2 }));
        assert!(matches!(refusal(libc::EPERM, host("6.8.0", Some(1), 2)), ProbeError::Disabled { value: 1 }));
        assert!(matches!(refusal(libc::EPERM, host("6.8.0", Some(0), 2)), ProbeError::Seccomp));
        assert!(matches!(refusal(libc::EPERM, host("6.1.0", None, 2)), ProbeError::Seccomp));
        assert!(matches!(refusal(libc::ENOSYS, host("6.8.0", Some(0), 2)), ProbeError::Seccomp));
        assert!(matches!(refusal(libc::ENOMEM, host("6.8.0", Some(0), 0)), ProbeError::Memlock { .. }));
        assert!(matches!(refusal(libc::EMFILE, host("6.8.0", Some(0), 0)), ProbeError::Other(_)));
    }

    #[test]
    fn each_refusal_names_a_cure() {
        for (error, cure) in [
            (ProbeError::KernelTooOld { release: "5.10.0".into() }, "upgrade the kernel"),
            (ProbeError::Disabled { value: 2 }, "sysctl -w kernel.io_uring_disabled=0"),
            (ProbeError::Seccomp, "--security-opt"),
            (ProbeError::Memlock { need_kib: 512, have_kib: 64 }, "ulimit -l 512"),
        ] {
            let line = error.to_string();
            assert!(line.contains(cure), "{line}");
            assert!(!line.contains('\n'));
        }
    }

    #[test]
    fn releases_compare_by_number() {
        assert!(is_at_least("6.1.0-18-amd64", 6, 1));
        assert!(is_at_least("6.18.44", 6, 1));
        assert!(is_at_least("10.0", 6, 1));
        assert!(!is_at_least("6.0.19", 6, 1));
        assert!(!is_at_least("5.19", 6, 1));
        assert!(!is_at_least("", 6, 1));
    }

    #[test]
    fn this_host_can_run_ringside() {
        let found = probe().unwrap();
        assert!(is_at_least(&found.kernel, 6, 1));
    }
}
