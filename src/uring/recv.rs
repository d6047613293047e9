//! Receiving: one multishot request per socket that stays armed, and what its completions carry.
//!
//! The ring hands completions in with [`Receiver::completed`] and lends them out one by one with
//! [`Receiver::next`]. A request ends by itself when the slots run out, on an error, and after an empty datagram; it is
//! armed again with the next wait, and never touched otherwise.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use io_uring::{IoUring, cqueue, opcode, squeue, types};

use super::ring::{Counters, Tag};
use super::slots::{Filled, GROUP, Slots};
use super::socket::read_address;

/// `struct io_uring_recvmsg_out`: the lengths of name, control and payload, and the flags, a u32 each.
const OUT_BYTES: usize = 16;
/// Room for `sockaddr_in6`, rounded up so that the control messages behind it are aligned.
const NAME_BYTES: usize = 32;
/// Room for one timestamp (32) and one segment size (24).
const CONTROL_BYTES: usize = 64;

/// One datagram, or a train of datagrams of one sender, borrowed from its receive slot. The slot returns to
/// the kernel when this value goes.
///
/// Bytes cannot outlive their slot, and the ring cannot receive on while a slot is borrowed:
/// ```compile_fail,E0597
/// # fn tick(ring: &mut ringside::uring::Ring) {
/// let kept: &mut [u8];
/// {
///     let mut received = ring.receive().unwrap();
///     kept = received.datagrams().next().unwrap();
/// }
/// kept[0] = 0;
/// # }
/// ```
/// ```compile_fail,E0499
/// # fn tick(ring: &mut ringside::uring::Ring) {
/// let mut received = ring.receive().unwrap();
/// ring.wait(None).unwrap();
/// received.datagrams();
/// # }
/// ```
pub struct Received<'ring> {
    slots: &'ring mut Slots,
    /// `Some` until dropped.
    filled: Option<Filled>,
    envelope: Envelope,
    local: u8,
}

impl Received<'_> {
    /// Who sent it.
    pub fn source(&self) -> SocketAddr {
        self.envelope.source
    }

    /// Index of the socket that it arrived at.
    pub fn local(&self) -> u8 {
        self.local
    }

    /// When the kernel received it, since the Unix epoch.
    pub fn received_at(&self) -> Option<Duration> {
        self.envelope.received_at
    }

    /// Bytes of each datagram of the train but the last, which may be shorter.
    pub fn segment(&self) -> usize {
        self.envelope.segment
    }

    /// Bytes of all datagrams together.
    pub fn len(&self) -> usize {
        self.envelope.payload.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The datagrams in the order in which they were sent. An empty datagram yields none.
    pub fn datagrams(&mut self) -> impl ExactSizeIterator<Item = &mut [u8]> {
        let segment = self.envelope.segment;
        let payload = self.envelope.payload.clone();
        let bytes = match &self.filled {
            Some(filled) => &mut self.slots.bytes(filled)[payload],
            None => &mut [],
        };
        bytes.chunks_mut(segment)
    }
}

impl Drop for Received<'_> {
    fn drop(&mut self) {
        if let Some(filled) = self.filled.take() {
            self.slots.give_back(filled);
        }
    }
}

pub(super) struct Receiver {
    slots: Slots,
    /// What the requests are made from; only the two lengths matter, and the kernel copies them.
    header: Box<libc::msghdr>,
    /// Handed over by the kernel, not yet lent out; never longer than there are slots.
    pending: VecDeque<(u8, Filled)>,
    /// Sockets without a request in the kernel.
    disarmed: Vec<u8>,
}

impl Receiver {
    pub(super) fn new(slots: u16, sockets: usize, ring: &IoUring) -> io::Result<Receiver> {
        // SAFETY: all-zero bytes are a valid `msghdr`: null pointers and zero lengths.
        let mut header: Box<libc::msghdr> = Box::new(unsafe { std::mem::zeroed() });
        header.msg_namelen = NAME_BYTES as libc::socklen_t;
        header.msg_controllen = CONTROL_BYTES as _;
        Ok(Receiver {
            slots: Slots::register(slots, ring)?,
            header,
            pending: VecDeque::with_capacity(usize::from(slots)),
            disarmed: (0..sockets as u8).collect(),
        })
    }

    /// The request that arms a socket, while there is one without.
    pub(super) fn arm_next(&mut self) -> Option<squeue::Entry> {
        let local = self.disarmed.pop()?;
        let request = opcode::RecvMsgMulti::new(types::Fixed(u32::from(local)), &raw const *self.header, GROUP);
        Some(request.build().user_data(Tag::Receive(local).pack()))
    }

    /// Takes a completion of `local`'s request. `Err` when the socket will never work again.
    pub(super) fn completed(&mut self, local: u8, entry: &cqueue::Entry, counters: &mut Counters) -> io::Result<()> {
        if !cqueue::more(entry.flags()) {
            self.disarmed.push(local);
        }
        match (entry.result(), cqueue::buffer_select(entry.flags())) {
            (bytes @ 0.., Some(slot)) => {
                // SAFETY: this completion names the slot that the kernel took and wrote `bytes` bytes into.
                let filled = unsafe { Filled::from_completion(slot, bytes as usize) };
                self.pending.push_back((local, filled));
                Ok(())
            }
            (0.., None) => Ok(()),
            (error, _) => receive_error(-error, counters),
        }
    }

    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Lends out the oldest datagram or train. What cannot be read is counted, and its slot returned.
    pub(super) fn next(&mut self, counters: &mut Counters) -> Option<Received<'_>> {
        let (local, filled, envelope) = loop {
            let (local, filled) = self.pending.pop_front()?;
            match parse(self.slots.bytes(&filled)) {
                Ok(envelope) => break (local, filled, envelope),
                Err(refusal) => {
                    match refusal {
                        Refusal::Truncated => counters.truncated += 1,
                        Refusal::UnknownFamily => counters.unknown_family += 1,
                    }
                    self.slots.give_back(filled);
                }
            }
        };
        counters.messages_received += 1;
        counters.datagrams_received += envelope.payload.len().div_ceil(envelope.segment) as u64;
        counters.bytes_received += envelope.payload.len() as u64;
        Some(Received { slots: &mut self.slots, filled: Some(filled), envelope, local })
    }

    pub(super) fn leak(&mut self) {
        self.slots.leak();
    }
}

/// What a completion says about its payload.
#[derive(Debug, PartialEq, Eq)]
struct Envelope {
    source: SocketAddr,
    received_at: Option<Duration>,
    segment: usize,
    payload: Range<usize>,
}

#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    /// Longer than its slot, which no datagram or train of the kernel is.
    Truncated,
    /// Neither IPv4 nor IPv6.
    UnknownFamily,
}

fn parse(slot: &[u8]) -> Result<Envelope, Refusal> {
    let word = |at: usize| -> Result<usize, Refusal> {
        let bytes = slot.get(at..).and_then(|rest| rest.first_chunk()).ok_or(Refusal::Truncated)?;
        Ok(u32::from_ne_bytes(*bytes) as usize)
    };
    let (name, control, payload, flags) = (word(0)?, word(4)?, word(8)?, word(12)?);
    let start = OUT_BYTES + NAME_BYTES + CONTROL_BYTES;
    if flags & libc::MSG_TRUNC as usize != 0 || slot.len() < start + payload {
        return Err(Refusal::Truncated);
    }
    let source = read_address(&slot[OUT_BYTES..OUT_BYTES + name.min(NAME_BYTES)]).ok_or(Refusal::UnknownFamily)?;
    let control = &slot[OUT_BYTES + NAME_BYTES..][..control.min(CONTROL_BYTES)];
    let mut envelope = Envelope { source, received_at: None, segment: payload.max(1), payload: start..start + payload };
    for (level, kind, data) in ControlMessages(control) {
        match (level, kind) {
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => envelope.received_at = timestamp(data),
            (libc::SOL_UDP, libc::UDP_GRO) => {
                let size = data.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
                envelope.segment = usize::try_from(size).ok().filter(|size| *size > 0).unwrap_or(envelope.segment);
            }
            _ => {}
        }
    }
    Ok(envelope)
}

/// `struct timespec` of a 64-bit kernel.
fn timestamp(data: &[u8]) -> Option<Duration> {
    let seconds = i64::from_ne_bytes(*data.first_chunk()?);
    let nanoseconds = i64::from_ne_bytes(*data.get(8..)?.first_chunk()?);
    Some(Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanoseconds).ok()?))
}

/// Walks `struct cmsghdr`s: a usize length that counts its header, an i32 level, an i32 kind, the data, padding.
struct ControlMessages<'a>(&'a [u8]);

impl<'a> Iterator for ControlMessages<'a> {
    type Item = (i32, i32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        const HEADER_BYTES: usize = 16;
        let length = usize::from_ne_bytes(*self.0.first_chunk()?);
        let level = i32::from_ne_bytes(*self.0.get(8..)?.first_chunk()?);
        let kind = i32::from_ne_bytes(*self.0.get(12..)?.first_chunk()?);
        let data = self.0.get(HEADER_BYTES..length)?;
        self.0 = self.0.get(length.next_multiple_of(align_of::<usize>())..).unwrap_or(&[]);
        Some((level, kind, data))
    }
}

/// Sorts the errors of a receive request into those that pass and those that mean the socket is gone.
fn receive_error(code: i32, counters: &mut Counters) -> io::Result<()> {
    match code {
        libc::ENOBUFS => counters.out_of_receive_slots += 1,
        libc::ECANCELED => {}
        // Reports about what was sent (ICMP), or a passing lack of memory: the next receive works.
        libc::ECONNREFUSED | libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EMSGSIZE | libc::EPROTO => {
            counters.receive_errors += 1;
        }
        libc::EAGAIN | libc::EINTR | libc::ENOMEM => counters.receive_errors += 1,
        _ => return Err(io::Error::from_raw_os_error(code)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(name: &[u8], control: &[u8], payload: &[u8], flags: i32) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [name.len() as u32, control.len() as u32, payload.len() as u32, flags as u32] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(name);
        bytes.resize(OUT_BYTES + NAME_BYTES, 0);
        bytes.extend(control);
        bytes.resize(OUT_BYTES + NAME_BYTES + CONTROL_BYTES, 0);
        bytes.extend(payload);
        bytes
    }

    fn control_message(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
        let mut bytes = (16 + data.len()).to_ne_bytes().to_vec();
        bytes.extend(level.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    const NAME: [u8; 8] = [libc::AF_INET as u8, 0, 0x13, 0x88, 127, 0, 0, 1];

    #[test]
    fn a_train_carries_its_source_time_and_segment_size() {
        let time: Vec<u8> = [1_700_000_000i64, 250].iter().flat_map(|n| n.to_ne_bytes()).collect();
        let control = [
            control_message(libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS, &time),
            control_message(libc::SOL_UDP, libc::UDP_GRO, &1200i32.to_ne_bytes()),
        ]
        .concat();
        assert_eq!(control.len(), 56);
        let envelope = parse(&slot(&NAME, &control, &[7; 3000], 0)).unwrap();
        assert_eq!(envelope.source, "127.0.0.1:5000".parse().unwrap());
        assert_eq!(envelope.received_at, Some(Duration::new(1_700_000_000, 250)));
        assert_eq!(envelope.segment, 1200);
        assert_eq!(envelope.payload.len(), 3000);
    }

    #[test]
    fn without_a_segment_size_it_is_one_datagram() {
        let envelope = parse(&slot(&NAME, &[], &[7; 300], 0)).unwrap();
        assert_eq!((envelope.segment, envelope.payload.len()), (300, 300));
        assert_eq!(envelope.received_at, None);
        assert_eq!(parse(&slot(&NAME, &[], &[], 0)).unwrap().segment, 1);
    }

    #[test]
    fn a_truncated_datagram_is_refused() {
        assert_eq!(parse(&slot(&NAME, &[], &[7; 300], libc::MSG_TRUNC)), Err(Refusal::Truncated));
        let cut = slot(&NAME, &[], &[7; 300], 0);
        assert_eq!(parse(&cut[..200]), Err(Refusal::Truncated));
        assert_eq!(parse(&cut[..9]), Err(Refusal::Truncated));
    }

    #[test]
    fn a_foreign_address_family_is_refused() {
        assert_eq!(parse(&slot(&[1, 0, 47], &[], b"x", 0)), Err(Refusal::UnknownFamily));
        assert_eq!(parse(&slot(&[], &[], b"x", 0)), Err(Refusal::UnknownFamily));
    }

    #[test]
    fn control_messages_that_lie_about_their_length_end_the_walk() {
        for length in [0usize, 15, 65, usize::MAX] {
            let mut control = control_message(libc::SOL_UDP, libc::UDP_GRO, &100i32.to_ne_bytes());
            control[..8].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(parse(&slot(&NAME, &control, &[7; 300], 0)).unwrap().segment, 300);
        }
    }
}
