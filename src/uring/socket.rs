//! A worker's UDP sockets: bound, sized and switched to what the data path needs.
//!
//! Called before a worker starts, so that a port in use ends the process with one clear line. The ring
//! takes the sockets over; nothing is ever received or sent through this type.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::limits;

/// A bound UDP socket with path MTU discovery, receive coalescing and kernel timestamps on.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    address: SocketAddr,
    peer: Option<SocketAddr>,
    granted: Buffers,
}

/// Sizes of the kernel's buffers in bytes, as the operator counts them (the kernel books twice as much). Asked for, 0 is
/// what the kernel gives every socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffers {
    pub receive_bytes: usize,
    pub send_bytes: usize,
}

impl Buffers {
    /// The same in both directions.
    pub const fn both(bytes: usize) -> Buffers {
        Buffers { receive_bytes: bytes, send_bytes: bytes }
    }
}

/// What to ask of the kernel for a socket.
#[derive(Clone, Copy, Debug)]
pub struct SocketOptions {
    pub buffers: Buffers,
    /// An IPv6 socket that leaves the IPv4 traffic of its port to another socket.
    pub only_v6: bool,
    /// Lets the kernel hand over several datagrams of one sender as one train.
    pub coalesce: bool,
}

impl Default for SocketOptions {
    fn default() -> Self {
        let buffers = Buffers::both(limits::SOCKET_BUFFER_BYTES);
        SocketOptions { buffers, only_v6: true, coalesce: true }
    }
}

/// Why a socket could not be had; each message names the cause and the cure.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("UDP port {} is taken on {}: another server? choose another range with --rtc-min-port", .0.port(), .0.ip())]
    InUse(SocketAddr),
    #[error("{} is not an address of this host: see `ip address`, and choose another --rtc-listen-ip", .0.ip())]
    NotAvailable(SocketAddr),
    #[error("UDP port {} needs privileges: choose ports from 1024 upwards with --rtc-min-port", .0.port())]
    NotPermitted(SocketAddr),
    #[error("cannot open UDP socket {address}: {step}: {error}")]
    Other { address: SocketAddr, step: &'static str, error: io::Error },
}

impl Socket {
    /// Binds to `address`; port 0 takes a free one.
    pub fn bind(address: SocketAddr, options: SocketOptions) -> Result<Socket, BindError> {
        Socket::bind_sharing(address, options, false)
    }

    /// A second socket on this one's port, for one of the machine's own addresses: what is sent to `ip` arrives there
    /// and is answered from there. A socket for all addresses answers from the one that the kernel's routes prefer:
    /// a browser that asked 127.0.0.1 from the machine's other address would be answered by that other address, and
    /// take it for a stranger. `None` where the machine has no such address (it is translated on the way).
    pub fn beside(&self, ip: IpAddr, options: SocketOptions) -> Result<Option<Socket>, BindError> {
        let address = SocketAddr::new(ip, self.address.port());
        let share = |fd: RawFd, share: bool| {
            let failed = |error| BindError::Other { address, step: "SO_REUSEADDR", error };
            set(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, i32::from(share)).map_err(failed)
        };
        // Shared with each other and with nobody else: the kernel looks at both sockets when the second binds.
        share(self.fd(), true)?;
        let second = Socket::bind_sharing(address, options, true);
        share(self.fd(), false)?;
        match second {
            Ok(second) => share(second.fd(), false).map(|()| Some(second)),
            Err(BindError::NotAvailable(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn bind_sharing(address: SocketAddr, options: SocketOptions, share: bool) -> Result<Socket, BindError> {
        let failed = |step| move |error| BindError::Other { address, step, error };
        let fd = open(address).map_err(failed("socket"))?;
        let raw = fd.as_raw_fd();
        if share {
            set(raw, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1).map_err(failed("SO_REUSEADDR"))?;
        }
        if address.is_ipv6() {
            set(raw, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, options.only_v6 as i32).map_err(failed("IPV6_V6ONLY"))?;
        }
        discover_mtu(raw, address, options.only_v6).map_err(failed("IP_MTU_DISCOVER"))?;
        set(raw, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1).map_err(failed("SO_TIMESTAMPNS"))?;
        if options.coalesce {
            set(raw, libc::SOL_UDP, libc::UDP_GRO, 1).map_err(failed("UDP_GRO"))?;
        }
        let granted = Buffers {
            receive_bytes: grow(raw, libc::SO_RCVBUF, libc::SO_RCVBUFFORCE, options.buffers.receive_bytes)
                .map_err(failed("SO_RCVBUF"))?,
            send_bytes: grow(raw, libc::SO_SNDBUF, libc::SO_SNDBUFFORCE, options.buffers.send_bytes)
                .map_err(failed("SO_SNDBUF"))?,
        };
        bind(raw, address).map_err(|error| match error.raw_os_error() {
            Some(libc::EADDRINUSE) => BindError::InUse(address),
            Some(libc::EADDRNOTAVAIL) => BindError::NotAvailable(address),
            Some(libc::EACCES) => BindError::NotPermitted(address),
            _ => BindError::Other { address, step: "bind", error },
        })?;
        let address = local_address(raw).map_err(failed("getsockname"))?;
        Ok(Socket { fd, address, peer: None, granted })
    }

    /// Ties the socket to one peer: the kernel looks its route up once, and only that peer is heard. A worker's ports
    /// serve everybody and stay unconnected; what connecting would save is measured by the `ring` bench.
    pub fn connect(&mut self, peer: SocketAddr) -> io::Result<()> {
        let mut raw = RawAddress::ZERO;
        let length = raw.write(peer);
        // SAFETY: `raw` is live and holds `length` bytes of a socket address.
        match unsafe { libc::connect(self.fd.as_raw_fd(), (&raw const raw).cast(), length) } {
            0 => self.peer = Some(peer),
            _ => return Err(io::Error::last_os_error()),
        }
        Ok(())
    }

    /// The only peer, where the socket is connected.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Where it is bound, with the port that the kernel chose where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the kernel granted: less than asked for where `net.core.rmem_max` or `wmem_max` is lower and the
    /// process lacks CAP_NET_ADMIN.
    pub fn granted(&self) -> Buffers {
        self.granted
    }

    pub(super) fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// The ports of a worker's sockets, each once: the index of a port is that of its first socket.
pub fn ports(sockets: &[Socket]) -> Vec<u16> {
    let mut ports: Vec<u16> = Vec::with_capacity(sockets.len());
    for port in sockets.iter().map(|socket| socket.address.port()) {
        if !ports.contains(&port) {
            ports.push(port);
        }
    }
    ports
}

/// A socket address in the kernel's form, wide enough for both families.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) union RawAddress {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl RawAddress {
    pub(super) const ZERO: RawAddress = RawAddress {
        // SAFETY: all-zero bytes are a valid `sockaddr_in6`, a struct of integers.
        v6: unsafe { std::mem::zeroed() },
    };

    /// Writes `address`; returns the number of bytes that the kernel shall read.
    pub(super) fn write(&mut self, address: SocketAddr) -> libc::socklen_t {
        match address {
            SocketAddr::V4(v4) => {
                self.v4 = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                    sin_zero: [0; 8],
                };
                size_of::<libc::sockaddr_in>() as libc::socklen_t
            }
            SocketAddr::V6(v6) => {
                self.v6 = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: v6.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                    sin6_scope_id: v6.scope_id(),
                };
                size_of::<libc::sockaddr_in6>() as libc::socklen_t
            }
        }
    }
}

/// Reads an address in the kernel's form. An IPv4 sender seen through an IPv6 socket is an IPv4 address.
/// `None` for a family that is neither, or too few bytes.
pub(super) fn read_address(bytes: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(*bytes.first_chunk()?);
    match i32::from(family) {
        libc::AF_INET => {
            let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
            let ip: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
            Some(SocketAddrV4::new(Ipv4Addr::from(ip), port).into())
        }
        libc::AF_INET6 => {
            let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
            let ip: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
            let scope = u32::from_ne_bytes(bytes.get(24..28)?.try_into().ok()?);
            match Ipv6Addr::from(ip).to_canonical() {
                IpAddr::V4(v4) => Some(SocketAddrV4::new(v4, port).into()),
                IpAddr::V6(v6) => Some(SocketAddrV6::new(v6, port, 0, scope).into()),
            }
        }
        _ => None,
    }
}

fn open(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: `socket` takes no pointers.
    let fd = unsafe { libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was opened on the line above and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bind(fd: RawFd, address: SocketAddr) -> io::Result<()> {
    let mut raw = RawAddress::ZERO;
    let length = raw.write(address);
    // SAFETY: `raw` is live and holds `length` bytes of a socket address.
    match unsafe { libc::bind(fd, (&raw const raw).cast(), length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn local_address(fd: RawFd) -> io::Result<SocketAddr> {
    let mut bytes = [0u8; size_of::<libc::sockaddr_storage>()];
    let mut length = bytes.len() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into the live buffer (its alignment is of no concern to a copy).
    match unsafe { libc::getsockname(fd, bytes.as_mut_ptr().cast(), &mut length) } {
        0 => read_address(&bytes[..length as usize]).ok_or_else(|| io::Error::other("not an internet socket")),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Don't-fragment with the kernel's path MTU: 100-170 ns less per packet than the default (measured), and a
/// datagram that does not fit is told to us (EMSGSIZE) rather than fragmented.
fn discover_mtu(fd: RawFd, address: SocketAddr, only_v6: bool) -> io::Result<()> {
    if address.is_ipv6() {
        set(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DO)?;
    }
    if address.is_ipv4() || !only_v6 {
        set(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO)?;
    }
    Ok(())
}

/// Asks for `bytes` of buffer, past the host's maximum where the process may, and for nothing where they are 0; returns
/// what the kernel granted.
fn grow(fd: RawFd, option: i32, force: i32, bytes: usize) -> io::Result<usize> {
    let wanted = i32::try_from(bytes).unwrap_or(i32::MAX / 2);
    if bytes > 0 && set(fd, libc::SOL_SOCKET, force, wanted).is_err() {
        set(fd, libc::SOL_SOCKET, option, wanted)?;
    }
    // The kernel doubles the value for its own bookkeeping (socket(7)).
    Ok(read_option(fd, libc::SOL_SOCKET, option)? as usize / 2)
}

fn set(fd: RawFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    let length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes of the live `value`.
    match unsafe { libc::setsockopt(fd, level, option, (&raw const value).cast(), length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn read_option(fd: RawFd, level: i32, option: i32) -> io::Result<i32> {
    let mut value = 0i32;
    let mut length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into the live `value`.
    match unsafe { libc::getsockopt(fd, level, option, (&raw mut value).cast(), &mut length) } {
        0 => Ok(value),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));

    #[test]
    fn an_address_survives_the_kernels_form() {
        for text in ["127.0.0.1:10000", "203.0.113.7:65535", "[2001:db8::7]:443", "[fe80::1%3]:9"] {
            let address: SocketAddr = text.parse().unwrap();
            let mut raw = RawAddress::ZERO;
            let length = raw.write(address) as usize;
            // SAFETY: `write` filled `length` bytes of the union, all of them integers.
            let bytes = unsafe { std::slice::from_raw_parts((&raw const raw).cast::<u8>(), length) };
            assert_eq!(read_address(bytes), Some(address), "{text}");
        }
    }

    #[test]
    fn an_ipv4_sender_seen_through_an_ipv6_socket_is_an_ipv4_address() {
        let mut raw = RawAddress::ZERO;
        let length = raw.write("[::ffff:192.0.2.1]:5000".parse().unwrap()) as usize;
        // SAFETY: `write` filled `length` bytes of the union, all of them integers.
        let bytes = unsafe { std::slice::from_raw_parts((&raw const raw).cast::<u8>(), length) };
        assert_eq!(read_address(bytes), Some("192.0.2.1:5000".parse().unwrap()));
    }

    #[test]
    fn a_foreign_family_or_a_short_address_is_refused() {
        assert_eq!(read_address(&[1, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(read_address(&[libc::AF_INET as u8, 0, 1]), None);
        assert_eq!(read_address(&[libc::AF_INET6 as u8, 0, 1, 2, 0, 0, 0, 0, 1, 2, 3]), None);
        assert_eq!(read_address(&[]), None);
    }

    #[test]
    fn a_port_in_use_is_named_with_the_cure() {
        let first = Socket::bind(LOOPBACK, SocketOptions::default()).unwrap();
        let error = Socket::bind(first.address(), SocketOptions::default()).unwrap_err();
        assert!(matches!(error, BindError::InUse(address) if address == first.address()));
        let line = error.to_string();
        assert!(line.contains(&format!("port {} is taken", first.address().port())), "{line}");
        assert!(line.contains("--rtc-min-port"), "{line}");
    }

    #[test]
    fn a_socket_beside_another_shares_its_port_with_nobody_else() {
        let all = Socket::bind("0.0.0.0:0".parse().unwrap(), SocketOptions::default()).unwrap();
        let own =
            all.beside("127.0.0.9".parse().unwrap(), SocketOptions::default()).unwrap().expect("loopback is ours");
        assert_eq!(own.address().to_string(), format!("127.0.0.9:{}", all.address().port()));
        for address in [all.address(), own.address(), SocketAddr::new(LOOPBACK.ip(), all.address().port())] {
            let third = Socket::bind(address, SocketOptions::default());
            assert!(matches!(third, Err(BindError::InUse(_))), "{address}");
        }
        assert!(all.beside("192.0.2.1".parse().unwrap(), SocketOptions::default()).unwrap().is_none());
        assert_eq!(ports(&[all, own]).len(), 1);
    }

    #[test]
    fn an_address_of_another_host_is_refused_by_name() {
        let error = Socket::bind("192.0.2.1:0".parse().unwrap(), SocketOptions::default()).unwrap_err();
        assert!(matches!(error, BindError::NotAvailable(_)), "{error}");
    }

    #[test]
    fn the_granted_buffers_are_reported() {
        let buffers = Buffers { receive_bytes: 128 << 10, send_bytes: 64 << 10 };
        let socket = Socket::bind(LOOPBACK, SocketOptions { buffers, ..SocketOptions::default() }).unwrap();
        assert_eq!(socket.granted(), buffers);
    }

    #[test]
    fn without_a_size_a_socket_keeps_the_kernels_default() {
        let default = |name: &str| {
            let text = std::fs::read_to_string(format!("/proc/sys/net/core/{name}")).unwrap();
            text.trim().parse::<usize>().unwrap() / 2
        };
        let options = SocketOptions { buffers: Buffers::both(0), ..SocketOptions::default() };
        let granted = Socket::bind(LOOPBACK, options).unwrap().granted();
        assert_eq!((granted.receive_bytes, granted.send_bytes), (default("rmem_default"), default("wmem_default")));
    }

    #[test]
    fn both_families_can_share_a_port() {
        let v6 = Socket::bind("[::1]:0".parse().unwrap(), SocketOptions::default()).unwrap();
        let v4 = SocketAddr::new(LOOPBACK.ip(), v6.address().port());
        assert!(Socket::bind(v4, SocketOptions::default()).is_ok());
    }
}
