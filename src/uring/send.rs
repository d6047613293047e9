//! Sending: slots that a shard writes runs into, each with its message header ready.
//!
//! A slot is on the free list, reserved, or in flight. The free list is a stack, so that the slots that were sent
//! last, and are still in the cache, are written next. A run of several datagrams leaves as one message that the
//! kernel, or the network card, cuts (`UDP_SEGMENT`); where a device refuses that, datagram by datagram.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;

use io_uring::{opcode, squeue, types};

use super::memory::Region;
use super::ring::{Counters, Tag};
use super::socket::{RawAddress, Socket};
use crate::limits;
use crate::shard::outbox::Destination;

/// Media is not worth waiting for: a full socket buffer is an error at once (counted), never a slot held.
const DO_NOT_WAIT: i32 = libc::MSG_DONTWAIT;

pub(super) struct Sender {
    pages: Region,
    headers: Box<[Header]>,
    /// Slots that nobody uses; the last one is the warmest.
    free: Vec<u16>,
    reserved: Option<(u16, Destination)>,
    /// Destinations whose device cannot segment, oldest first.
    unsegmented: Vec<IpAddr>,
}

/// What the kernel reads of a slot in flight, besides its payload. Points into itself and is never moved.
struct Header {
    message: libc::msghdr,
    data: libc::iovec,
    address: RawAddress,
    control: SegmentSize,
    segment: usize,
    /// The socket that the run leaves from.
    fd: RawFd,
}

/// A `struct cmsghdr` that carries the segment size.
#[repr(C, align(8))]
struct SegmentSize {
    length: usize,
    level: i32,
    kind: i32,
    segment: u16,
}

impl Sender {
    pub(super) fn new(slots: u16) -> io::Result<Sender> {
        let pages = Region::map(usize::from(slots) * limits::RUN_BYTES)?;
        let mut headers: Box<[Header]> = (0..slots).map(|_| Header::empty()).collect();
        for (slot, header) in headers.iter_mut().enumerate() {
            header.point(pages.at(slot * limits::RUN_BYTES));
        }
        let unsegmented = Vec::with_capacity(limits::UNSEGMENTED_DESTINATIONS);
        Ok(Sender { pages, headers, free: (0..slots).rev().collect(), reserved: None, unsegmented })
    }

    pub(super) fn has_room(&self) -> bool {
        self.reserved.is_some() || !self.free.is_empty()
    }

    pub(super) fn reserve(&mut self, destination: Destination, capacity: usize) -> Option<&mut [u8]> {
        let slot = match self.reserved.take() {
            Some((slot, _)) => slot,
            None => self.free.pop()?,
        };
        self.reserved = Some((slot, destination));
        let capacity = capacity.min(limits::RUN_BYTES);
        // SAFETY: the slot came off the free list and is not in flight, so neither the kernel nor another borrow
        // accesses it; the range is inside the mapping, whose bytes are initialised.
        Some(unsafe { std::slice::from_raw_parts_mut(self.payload(slot), capacity) })
    }

    /// Turns the reservation into a request. `None` where there is nothing to send, or it went out at once
    /// because its device cannot segment.
    pub(super) fn commit(
        &mut self,
        len: usize,
        segment: usize,
        sockets: &[Socket],
        counters: &mut Counters,
    ) -> Option<squeue::Entry> {
        let (slot, destination) = self.reserved.take()?;
        debug_assert!(len <= limits::RUN_BYTES && (segment > 0 || len == 0));
        let socket = sockets.get(usize::from(destination.local));
        let address = socket.and_then(|socket| reachable(socket, destination.address));
        let (Some(socket), Some(address), 1..=limits::RUN_BYTES) = (socket, address, len) else {
            counters.unreachable += u64::from(len > 0);
            self.free.push(slot);
            return None;
        };
        let header = &mut self.headers[usize::from(slot)];
        header.fill(socket.fd(), address, len, segment.clamp(1, len));
        if socket.peer().is_some() {
            header.message.msg_namelen = 0;
        }
        if segment < len && !self.unsegmented.is_empty() && self.unsegmented.contains(&destination.address.ip()) {
            self.send_singly(slot, counters);
            self.free.push(slot);
            return None;
        }
        let fd = types::Fixed(u32::from(destination.local));
        let header = &self.headers[usize::from(slot)];
        let request = if segment < len {
            opcode::SendMsg::new(fd, &raw const header.message).flags(DO_NOT_WAIT as u32).build()
        } else {
            // A single datagram needs no message header (an address with `Send`: Linux 6.1).
            let payload: *const u8 = self.payload(slot);
            let send = opcode::Send::new(fd, payload, len as u32).flags(DO_NOT_WAIT);
            match socket.peer() {
                Some(_) => send.build(),
                None => {
                    let address = (&raw const header.address).cast();
                    send.dest_addr(address).dest_addr_len(header.message.msg_namelen).build()
                }
            }
        };
        Some(request.user_data(Tag::Send(slot).pack()))
    }

    /// The kernel is done with a slot.
    pub(super) fn completed(&mut self, slot: u16, result: i32, counters: &mut Counters) {
        let header = &self.headers[usize::from(slot)];
        let (len, segment) = (header.data.iov_len, header.segment);
        match -result {
            ..=0 => {
                counters.messages_sent += 1;
                counters.datagrams_sent += len.div_ceil(segment) as u64;
                counters.bytes_sent += len as u64;
            }
            // A device without checksum offload cannot segment (EIO, before Linux 6.11); a segment longer than the
            // path's MTU cannot either (EINVAL): one by one the kernel says which of them do not fit.
            error @ (libc::EIO | libc::EINVAL) if segment < len => {
                counters.segmentation_refused += 1;
                if error == libc::EIO {
                    self.remember_unsegmented(slot);
                }
                self.send_singly(slot, counters);
            }
            error => counters.count_send_error(error),
        }
        self.free.push(slot);
    }

    pub(super) fn leak(&mut self) {
        self.pages.leak();
        Box::leak(std::mem::take(&mut self.headers));
    }

    fn payload(&self, slot: u16) -> *mut u8 {
        self.pages.at(usize::from(slot) * limits::RUN_BYTES)
    }

    fn remember_unsegmented(&mut self, slot: u16) {
        let Some(address) = self.headers[usize::from(slot)].destination() else { return };
        if self.unsegmented.contains(&address.ip()) {
            return;
        }
        if self.unsegmented.len() == limits::UNSEGMENTED_DESTINATIONS {
            self.unsegmented.remove(0);
        }
        self.unsegmented.push(address.ip());
    }

    /// Sends a slot's datagrams one system call each.
    fn send_singly(&mut self, slot: u16, counters: &mut Counters) {
        let header = &self.headers[usize::from(slot)];
        let len = header.data.iov_len;
        for start in (0..len).step_by(header.segment) {
            let bytes = header.segment.min(len - start);
            // SAFETY: the slot is not in flight; payload and address are live for the whole call, and
            // `start + bytes` is inside the payload.
            let result = unsafe {
                libc::sendto(
                    header.fd,
                    self.payload(slot).add(start).cast(),
                    bytes,
                    DO_NOT_WAIT,
                    (&raw const header.address).cast(),
                    header.message.msg_namelen,
                )
            };
            if result < 0 {
                counters.count_send_error(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO));
                continue;
            }
            counters.messages_sent += 1;
            counters.datagrams_sent += 1;
            counters.bytes_sent += bytes as u64;
        }
    }
}

impl Header {
    fn empty() -> Header {
        Header {
            // SAFETY: all-zero bytes are a valid `msghdr`: null pointers and zero lengths.
            message: unsafe { std::mem::zeroed() },
            data: libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 },
            address: RawAddress::ZERO,
            control: SegmentSize {
                // The length without the padding behind the two bytes (CMSG_LEN).
                length: 18,
                level: libc::SOL_UDP,
                kind: libc::UDP_SEGMENT,
                segment: 0,
            },
            segment: 0,
            fd: -1,
        }
    }

    /// Ties the parts together, once the header is where it stays.
    fn point(&mut self, payload: *mut u8) {
        self.data.iov_base = payload.cast();
        self.message.msg_name = (&raw mut self.address).cast();
        self.message.msg_iov = &raw mut self.data;
        self.message.msg_iovlen = 1;
        self.message.msg_control = (&raw mut self.control).cast();
    }

    fn fill(&mut self, fd: RawFd, address: SocketAddr, len: usize, segment: usize) {
        self.fd = fd;
        self.segment = segment;
        self.data.iov_len = len;
        self.message.msg_namelen = self.address.write(address);
        self.control.segment = segment as u16;
        self.message.msg_controllen = if segment < len { size_of::<SegmentSize>() as _ } else { 0 };
    }

    fn destination(&self) -> Option<SocketAddr> {
        // SAFETY: the union is all integers and initialised from the start.
        let bytes =
            unsafe { std::slice::from_raw_parts((&raw const self.address).cast::<u8>(), size_of::<RawAddress>()) };
        super::socket::read_address(bytes)
    }
}

/// The address as the socket's family has to spell it; `None` where the family cannot.
fn reachable(socket: &Socket, address: SocketAddr) -> Option<SocketAddr> {
    match (socket.address(), address) {
        (SocketAddr::V4(_), SocketAddr::V4(_)) | (SocketAddr::V6(_), SocketAddr::V6(_)) => Some(address),
        (SocketAddr::V6(_), SocketAddr::V4(v4)) => Some((v4.ip().to_ipv6_mapped(), v4.port()).into()),
        (SocketAddr::V4(_), SocketAddr::V6(_)) => None,
    }
    .filter(|_| socket.peer().is_none_or(|peer| peer == address))
}

const _: () = assert!(size_of::<SegmentSize>() == 24, "CMSG_SPACE of a u16");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uring::socket::SocketOptions;
    use std::net::UdpSocket;
    use std::time::Duration;

    struct Stage {
        sender: Sender,
        sockets: Vec<Socket>,
        receiver: UdpSocket,
        counters: Counters,
    }

    impl Stage {
        fn new() -> Stage {
            let socket = Socket::bind("127.0.0.1:0".parse().unwrap(), SocketOptions::default()).unwrap();
            let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
            receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            Stage { sender: Sender::new(1).unwrap(), sockets: vec![socket], receiver, counters: Counters::default() }
        }

        fn destination(&self) -> Destination {
            Destination { address: self.receiver.local_addr().unwrap(), local: 0 }
        }

        /// Commits a run of `len` bytes that count up; whether the kernel is asked to send it.
        fn commit(&mut self, len: usize, segment: usize) -> bool {
            let slot = self.sender.reserve(self.destination(), len).expect("a free slot");
            slot.iter_mut().enumerate().for_each(|(n, byte)| *byte = n as u8);
            self.sender.commit(len, segment, &self.sockets, &mut self.counters).is_some()
        }

        fn received(&self) -> Vec<u8> {
            let mut buffer = [0; 2000];
            let bytes = self.receiver.recv(&mut buffer).unwrap();
            buffer[..bytes].to_vec()
        }
    }

    #[test]
    fn a_device_that_cannot_segment_gets_single_datagrams_from_then_on() {
        let mut stage = Stage::new();
        assert!(stage.commit(25, 10));
        // Nothing was sent: the kernel refuses a whole message before its first byte leaves.
        stage.sender.completed(0, -libc::EIO, &mut stage.counters);
        let parts: Vec<Vec<u8>> = vec![(0..10).collect(), (10..20).collect(), (20..25).collect()];
        assert_eq!([stage.received(), stage.received(), stage.received()].to_vec(), parts);

        assert!(!stage.commit(25, 10), "no longer asked for segmentation");
        assert_eq!([stage.received(), stage.received(), stage.received()].to_vec(), parts);
        assert!(stage.commit(10, 10), "a single datagram goes its usual way");
        stage.sender.completed(0, 10, &mut stage.counters);
        assert_eq!((stage.counters.segmentation_refused, stage.counters.datagrams_sent), (1, 7));
    }

    #[test]
    fn each_error_is_counted_under_its_cause_and_the_slot_comes_back() {
        let mut stage = Stage::new();
        for error in [libc::EAGAIN, libc::ENOBUFS, libc::EMSGSIZE, libc::ENETUNREACH, libc::EIO, libc::EPERM] {
            assert!(stage.commit(10, 10));
            stage.sender.completed(0, -error, &mut stage.counters);
        }
        let expected = Counters {
            send_buffer_full: 1,
            device_queue_full: 1,
            too_long: 1,
            unreachable: 1,
            other_send_errors: 2,
            ..Counters::default()
        };
        assert_eq!(stage.counters, expected);
    }

    #[test]
    fn the_oldest_unsegmented_destination_is_forgotten_for_the_next() {
        let mut stage = Stage::new();
        for n in 0..limits::UNSEGMENTED_DESTINATIONS as u32 + 1 {
            stage.sender.headers[0].fill(-1, (std::net::Ipv4Addr::from_bits(n), 1).into(), 20, 10);
            stage.sender.remember_unsegmented(0);
            stage.sender.remember_unsegmented(0);
        }
        assert_eq!(stage.sender.unsegmented.len(), limits::UNSEGMENTED_DESTINATIONS);
        assert_eq!(stage.sender.unsegmented[0], std::net::Ipv4Addr::from_bits(1));
    }

    #[test]
    fn a_slot_in_flight_is_not_reserved_again() {
        let mut stage = Stage::new();
        assert!(stage.commit(10, 10));
        assert!(stage.sender.reserve(stage.destination(), 10).is_none());
        stage.sender.completed(0, 10, &mut stage.counters);
        assert!(stage.sender.reserve(stage.destination(), 10).is_some());
    }
}
