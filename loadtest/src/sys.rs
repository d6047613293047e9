//! The kernel calls that the standard library does not offer: epoll, batched receives with GRO, GSO sends, CPU
//! affinity and the limit of open files. All `unsafe` of the load test is here, behind safe types; the event
//! loop of `swarm` is the only caller of the sockets' part.

#![allow(unsafe_code)]

use std::io;
use std::mem::{size_of, zeroed};
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// Datagram batches that one receive call can fill. Each slot holds one GRO run of up to 64 KiB.
const SLOTS: usize = 8;
const SLOT_BYTES: usize = 65_536;
const CONTROL_BYTES: usize = 128;

/// Readiness of many descriptors, each known by a token of the caller's.
pub struct Epoll(OwnedFd);

/// What became ready.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    pub token: u64,
    pub hung_up: bool,
}

impl Epoll {
    pub fn new() -> io::Result<Self> {
        // SAFETY: the call takes no pointers; a non-negative result is a fresh descriptor that nobody else owns.
        unsafe {
            let fd = check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?;
            Ok(Epoll(OwnedFd::from_raw_fd(fd)))
        }
    }

    /// Reports the socket for as long as it has something to read.
    pub fn watch_readable(&self, socket: &impl AsRawFd, token: u64) -> io::Result<()> {
        self.add(socket.as_raw_fd(), token, libc::EPOLLIN as u32)
    }

    /// Forgets the socket: what arrives at it wakes nobody up.
    pub fn unwatch(&self, socket: &impl AsRawFd) -> io::Result<()> {
        // SAFETY: deleting takes no event; the descriptor lives through the call.
        let result = unsafe {
            libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_DEL, socket.as_raw_fd(), std::ptr::null_mut())
        };
        check(result).map(|_| ())
    }

    /// Reports each change to readable or writable once.
    pub fn watch_edges(&self, socket: &impl AsRawFd, token: u64) -> io::Result<()> {
        self.add(socket.as_raw_fd(), token, (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET) as u32)
    }

    fn add(&self, fd: RawFd, token: u64, events: u32) -> io::Result<()> {
        let mut event = libc::epoll_event { events, u64: token };
        // SAFETY: `event` lives through the call; the kernel copies it.
        unsafe { check(libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event))? };
        Ok(())
    }

    /// Waits at most `timeout` (nanosecond resolution) and fills `ready`.
    pub fn wait(&self, ready: &mut Vec<Ready>, timeout: Duration) -> io::Result<()> {
        const EVENTS: usize = 256;
        ready.clear();
        let timeout =
            libc::timespec { tv_sec: timeout.as_secs() as libc::time_t, tv_nsec: timeout.subsec_nanos().into() };
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        // SAFETY: `events` has room for EVENTS entries and both pointers live through the call; no signal mask.
        let n = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.0.as_raw_fd(),
                events.as_mut_ptr(),
                EVENTS as libc::c_int,
                &timeout as *const libc::timespec,
                std::ptr::null::<libc::sigset_t>(),
                0usize,
            )
        };
        if n < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) };
        }
        for event in &events[..n as usize] {
            let flags = event.events;
            let hung_up = flags & (libc::EPOLLHUP | libc::EPOLLERR | libc::EPOLLRDHUP) as u32 != 0;
            ready.push(Ready { token: event.u64, hung_up });
        }
        Ok(())
    }
}

/// Buffers for batched receives, reused by every socket.
pub struct Receiver {
    buffers: Vec<u8>,
    controls: Vec<[u64; CONTROL_BYTES / 8]>,
    lengths: [usize; SLOTS],
    control_lengths: [usize; SLOTS],
}

/// One or several datagrams of equal size (the last may be shorter) that the kernel delivered as one.
pub struct Run<'a> {
    pub bytes: &'a mut [u8],
    /// Size of each datagram but the last.
    pub segment_bytes: usize,
    /// When the kernel received it, nanoseconds of the real-time clock.
    pub received_ns: Option<u64>,
}

impl Default for Receiver {
    fn default() -> Self {
        Receiver {
            buffers: vec![0; SLOTS * SLOT_BYTES],
            controls: vec![[0; CONTROL_BYTES / 8]; SLOTS],
            lengths: [0; SLOTS],
            control_lengths: [0; SLOTS],
        }
    }
}

impl Receiver {
    /// Takes what waits in the socket, at most [`SLOTS`] runs, and returns how many; 0 when nothing waits.
    pub fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        // SAFETY: zeroes are valid for these plain C structures.
        let (mut messages, mut vectors): ([libc::mmsghdr; SLOTS], [libc::iovec; SLOTS]) =
            unsafe { (zeroed(), zeroed()) };
        for (slot, (buffer, control)) in self.buffers.chunks_exact_mut(SLOT_BYTES).zip(&mut self.controls).enumerate() {
            vectors[slot] = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: SLOT_BYTES };
            let header = &mut messages[slot].msg_hdr;
            header.msg_iov = &mut vectors[slot];
            header.msg_iovlen = 1;
            header.msg_control = control.as_mut_ptr().cast();
            header.msg_controllen = CONTROL_BYTES;
        }
        // SAFETY: every pointer in `messages` is to memory of `self` or of this frame, of the lengths told with it.
        let n = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                messages.as_mut_ptr(),
                SLOTS as u32,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        if n < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
                _ => Err(error),
            };
        }
        for (slot, message) in messages.iter().enumerate().take(n as usize) {
            self.lengths[slot] = message.msg_len as usize;
            self.control_lengths[slot] = message.msg_hdr.msg_controllen;
        }
        Ok(n as usize)
    }

    /// The run in a slot that the last [`receive`](Self::receive) filled.
    pub fn run(&mut self, slot: usize) -> Run<'_> {
        let control = self.controls[slot].as_ptr().cast::<u8>();
        // SAFETY: the array is CONTROL_BYTES long and initialised; the view is as long as the kernel wrote, at most that.
        let control = unsafe { std::slice::from_raw_parts(control, self.control_lengths[slot].min(CONTROL_BYTES)) };
        let notes = ControlNotes::read(control);
        let bytes = &mut self.buffers[slot * SLOT_BYTES..][..self.lengths[slot]];
        let segment_bytes = notes.segment_bytes.unwrap_or(bytes.len()).max(1);
        Run { bytes, segment_bytes, received_ns: notes.received_ns }
    }
}

/// What the kernel wrote beside the data: a sequence of `cmsghdr` (length, level, type) each with its value.
#[derive(Default)]
struct ControlNotes {
    segment_bytes: Option<usize>,
    received_ns: Option<u64>,
}

impl ControlNotes {
    fn read(mut control: &[u8]) -> Self {
        const HEADER_BYTES: usize = size_of::<libc::cmsghdr>();
        let mut notes = ControlNotes::default();
        while control.len() >= HEADER_BYTES {
            let len = u64_at(control, 0) as usize;
            let (level, kind) = (i32_at(control, 8), i32_at(control, 12));
            if len < HEADER_BYTES || len > control.len() {
                break;
            }
            let value = &control[HEADER_BYTES..len];
            match (level, kind) {
                (libc::SOL_UDP, libc::UDP_GRO) if value.len() >= 4 => {
                    notes.segment_bytes = Some(i32_at(value, 0) as usize);
                }
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) if value.len() >= 16 => {
                    notes.received_ns = Some(u64_at(value, 0) * 1_000_000_000 + u64_at(value, 8));
                }
                _ => {}
            }
            control = &control[len.next_multiple_of(8).min(control.len())..];
        }
        notes
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn i32_at(bytes: &[u8], at: usize) -> i32 {
    i32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// Sends `bytes` to the connected peer as datagrams of `segment_bytes` each (UDP GSO; the last may be shorter).
pub fn send_run(socket: &UdpSocket, bytes: &[u8], segment_bytes: u16) -> io::Result<()> {
    let mut vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control = [0u64; 3];
    // SAFETY: the kernel only reads through these pointers, all to memory that lives through the call; `control` is
    // aligned for and as large as one cmsghdr with a u16 (CMSG_SPACE(2) = 24).
    let sent = unsafe {
        let mut message: libc::msghdr = zeroed();
        message.msg_iov = &mut vector;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of::<[u64; 3]>();
        let note = libc::CMSG_FIRSTHDR(&message);
        (*note).cmsg_level = libc::SOL_UDP;
        (*note).cmsg_type = libc::UDP_SEGMENT;
        (*note).cmsg_len = libc::CMSG_LEN(2) as usize;
        libc::CMSG_DATA(note).cast::<u16>().write_unaligned(segment_bytes);
        libc::sendmsg(socket.as_raw_fd(), &message, libc::MSG_DONTWAIT)
    };
    check_size(sent).map(|_| ())
}

/// How the sockets of all clients are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub struct ClientSockets {
    /// The kernel may deliver several datagrams as one run (UDP GRO).
    pub gro: bool,
    /// 0 leaves the system's default.
    pub receive_buffer_bytes: u32,
}

impl Default for ClientSockets {
    fn default() -> Self {
        ClientSockets { gro: true, receive_buffer_bytes: 0 }
    }
}

/// Sets a client's socket so, and has the kernel note when it received each datagram.
pub fn tune(socket: &UdpSocket, sockets: ClientSockets) -> io::Result<()> {
    set(socket, libc::SOL_UDP, libc::UDP_GRO, libc::c_int::from(sockets.gro))?;
    set(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
    if sockets.receive_buffer_bytes > 0 {
        set(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, sockets.receive_buffer_bytes as libc::c_int)?;
    }
    Ok(())
}

fn set(socket: &UdpSocket, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `value` is an int that lives through the call and `len` is its size.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), len) }).map(|_| ())
}

/// Binds the calling thread, and the processes and threads that it starts, to these cores.
pub fn run_on_cores(cores: &[usize]) -> io::Result<()> {
    // SAFETY: an all-zero cpu_set_t is the empty set; CPU_SET checks the index against its size.
    unsafe {
        let mut set: libc::cpu_set_t = zeroed();
        for core in cores {
            libc::CPU_SET(*core, &mut set);
        }
        check(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set)).map(|_| ())
    }
}

/// The cores that the calling thread may run on.
pub fn allowed_cores() -> Vec<usize> {
    // SAFETY: an all-zero cpu_set_t is valid and the call fills it up to its size.
    unsafe {
        let mut set: libc::cpu_set_t = zeroed();
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) != 0 {
            return vec![0];
        }
        (0..libc::CPU_SETSIZE as usize).filter(|core| libc::CPU_ISSET(*core, &set)).collect()
    }
}

/// Raises the limit of open files to what the administrator allows, and returns it.
pub fn raise_open_files() -> io::Result<u64> {
    // SAFETY: getrlimit fills and setrlimit reads a structure that lives through the calls.
    unsafe {
        let mut limit: libc::rlimit = zeroed();
        check(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit))?;
        limit.rlim_cur = limit.rlim_max;
        check(libc::setrlimit(libc::RLIMIT_NOFILE, &limit))?;
        Ok(limit.rlim_cur)
    }
}

/// Clock ticks per second in which /proc counts CPU time, and bytes of a memory page.
pub fn proc_units() -> (u64, u64) {
    // SAFETY: sysconf takes no pointers.
    unsafe { (libc::sysconf(libc::_SC_CLK_TCK).max(1) as u64, libc::sysconf(libc::_SC_PAGESIZE).max(1) as u64) }
}

/// Lets sleeps of the calling thread end when they should: the default slack of 50 us is as long as a frame's packets.
pub fn sleep_precisely() {
    // SAFETY: PR_SET_TIMERSLACK takes a number of nanoseconds and no pointers; its failure only keeps the slack.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_000 as libc::c_ulong, 0, 0, 0) };
}

/// Asks a process of ours to end (SIGTERM).
pub fn ask_to_end(pid: u32) {
    // SAFETY: kill takes no pointers; the pid is of a child that has not been waited for, so it is not reused.
    unsafe { libc::kill(pid as libc::pid_t, libc::SIGTERM) };
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn check_size(result: libc::ssize_t) -> io::Result<usize> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as usize) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends 250 bytes as a GSO run of 100 each, and returns the datagrams and the runs in which they came.
    fn a_run_to(sockets: ClientSockets) -> (Vec<Vec<u8>>, usize) {
        let a = UdpSocket::bind("127.0.0.1:0").unwrap();
        let b = UdpSocket::bind("127.0.0.1:0").unwrap();
        a.connect(b.local_addr().unwrap()).unwrap();
        tune(&b, sockets).unwrap();
        let bytes: Vec<u8> = (0..250u8).collect();
        send_run(&a, &bytes, 100).unwrap();

        let mut receiver = Receiver::default();
        let (mut segments, mut runs) = (Vec::new(), 0);
        while segments.len() < 3 {
            let n = receiver.receive(&b).unwrap();
            runs += n;
            for slot in 0..n {
                let run = receiver.run(slot);
                assert!(run.received_ns.unwrap() > 1_600_000_000_000_000_000);
                segments.extend(run.bytes.chunks(run.segment_bytes).map(<[u8]>::to_vec));
            }
        }
        (segments, runs)
    }

    #[test]
    fn a_gso_run_arrives_as_datagrams_of_equal_size_with_a_kernel_time() {
        let expected: Vec<_> = (0..250u8).collect::<Vec<_>>().chunks(100).map(<[u8]>::to_vec).collect();
        let with_gro = ClientSockets::default();
        assert_eq!(a_run_to(with_gro), (expected.clone(), 1), "loopback hands a run over whole");
        assert_eq!(a_run_to(ClientSockets { gro: false, ..with_gro }), (expected, 3), "the kernel has cut it");
    }

    #[test]
    fn epoll_names_the_socket_that_has_something_to_read() {
        let epoll = Epoll::new().unwrap();
        let a = UdpSocket::bind("127.0.0.1:0").unwrap();
        let b = UdpSocket::bind("127.0.0.1:0").unwrap();
        epoll.watch_readable(&a, 7).unwrap();
        epoll.watch_readable(&b, 8).unwrap();
        a.send_to(b"x", b.local_addr().unwrap()).unwrap();
        let mut ready = Vec::new();
        epoll.wait(&mut ready, Duration::from_secs(5)).unwrap();
        assert_eq!(ready.iter().map(|r| r.token).collect::<Vec<_>>(), vec![8]);
    }
}
