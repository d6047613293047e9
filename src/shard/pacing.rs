//! Packets that would leave in a larger burst than their path takes wait here, in whole messages from tick to tick.
//!
//! Egress asks once per receiver and flush whether everything may leave, which is nearly always so. Where it may not,
//! sound leaves at once and the rest of the picture joins the transport's backlog: as the number of its packet in the
//! history and what it becomes, for the bytes are kept there anyway. A transport's deadline brings it back.

use std::time::Instant;

use crate::discard::Discard;
use crate::limits::{PACED_PACKETS, PACED_PACKETS_PER_WORKER};
use crate::media::history::{Packet, PacketNumber};
use crate::shard::Shard;
use crate::shard::command::Kind;
use crate::shard::consumer::Consumer;
use crate::shard::egress::{Egress, Outgoing};
use crate::shard::outbox::Outbox;
use crate::shard::table::Key;
use crate::shard::transport::Transport;

/// A packet that waits.
pub struct Held {
    outgoing: Outgoing,
    number: PacketNumber,
}

/// The worker's part: who is due, how much waits in all, and buffers that are used again.
#[derive(Default)]
pub struct Pacing {
    pub due: Vec<Key<Transport>>,
    held: usize,
    outgoing: Vec<Outgoing>,
    packets: Vec<Packet>,
}

impl Pacing {
    /// A transport is gone, with what waited.
    pub fn forget(&mut self, packets: usize) {
        self.held -= packets;
    }
}

impl Shard {
    /// More is to leave for a transport than its pacer had room for when it was last asked: leaves in `egress.outgoing` what
    /// may leave, and keeps the rest.
    #[cold]
    pub(super) fn pace(&mut self, now: Instant, key: Key<Transport>, egress: &mut Egress, outbox: &mut impl Outbox) {
        let Some(transport) = self.transports.at_mut(key) else { return };
        let estimate = transport.estimator.as_ref().and_then(|estimator| estimator.measured_bps());
        transport.pacer.refill(estimate, now);
        let waiting = transport.pacer.len();
        let bytes: i64 = egress.outgoing.iter().map(|outgoing| i64::from(outgoing.padded)).sum();
        if estimate.is_none() || (waiting == 0 && transport.pacer.credit() >= bytes) {
            return;
        }
        let more = egress.outgoing.len();
        if waiting + more > PACED_PACKETS || self.pacing.held + more > PACED_PACKETS_PER_WORKER {
            return self.release(now, key, true, outbox);
        }
        let (consumers, pacing, pacer) = (&self.consumers, &mut self.pacing, &mut transport.pacer);
        let (mut credit, mut holds) = (pacer.credit(), waiting > 0);
        let is_sound = |outgoing: &Outgoing| {
            consumers.at(outgoing.consumer).is_some_and(|consumer| consumer.rest.kind == Kind::Audio)
        };
        let sound = egress.outgoing.iter().filter(|outgoing| is_sound(outgoing));
        credit -= sound.map(|outgoing| i64::from(outgoing.padded)).sum::<i64>();
        let numbers = &egress.numbers;
        egress.outgoing.retain(|outgoing| {
            if is_sound(outgoing) {
                return true;
            }
            credit -= i64::from(outgoing.padded);
            holds |= credit < 0;
            if holds {
                pacing.held += 1;
                pacer.hold(Held { outgoing: *outgoing, number: numbers[outgoing.packet as usize] }, outgoing.padded);
            }
            !holds
        });
        self.arm(now, key);
    }

    /// Sends what waited long enough.
    pub(super) fn flush_paced(&mut self, now: Instant, outbox: &mut impl Outbox) {
        if self.pacing.due.is_empty() {
            return;
        }
        let mut due = std::mem::take(&mut self.pacing.due);
        for key in due.drain(..) {
            self.release(now, key, false, outbox);
            self.arm(now, key);
        }
        self.pacing.due = due;
    }

    /// Nothing of what waits for a consumer that has stopped leaves any more. Its receiver misses nothing: what comes next goes on
    /// behind what has left.
    pub(super) fn forget_paced(&mut self, key: Key<Consumer>) {
        let Some(consumer) = self.consumers.at_mut(key) else { return };
        consumer.rewriter.give_back();
        let Some(transport) = self.transports.at_mut(consumer.transport) else { return };
        let forgotten = transport.pacer.retain(|held| held.outgoing.consumer != key);
        self.pacing.held -= forgotten;
        self.discards.add(Discard::OtherLayer, forgotten as u64);
    }

    fn release(&mut self, now: Instant, key: Key<Transport>, everything: bool, outbox: &mut impl Outbox) {
        let Some(transport) = self.transports.at_mut(key) else { return };
        let estimate = transport.estimator.as_ref().and_then(|estimator| estimator.measured_bps());
        let is_gone = !transport.is_connected();
        transport.pacer.refill(estimate, now);
        let all = everything || is_gone || estimate.is_none();
        let count = if all { transport.pacer.len() } else { transport.pacer.due() };
        let (mut outgoing, mut packets) =
            (std::mem::take(&mut self.pacing.outgoing), std::mem::take(&mut self.pacing.packets));
        for _ in 0..count {
            let Some(held) = transport.pacer.pop() else { break };
            self.pacing.held -= 1;
            // Whose consumer was closed is missed by nobody.
            let Some(consumer) = self.consumers.at(held.outgoing.consumer) else { continue };
            if consumer.paused {
                self.discards.count(Discard::ConsumerPaused);
                continue;
            }
            match self.history.packet(held.number) {
                Some(_) if is_gone => self.discards.count(Discard::NotConnected),
                Some(packet) => {
                    let mut next = held.outgoing;
                    next.packet = packets.len() as u32;
                    outgoing.push(next);
                    packets.push(*packet);
                }
                None => self.discards.count(Discard::Overwritten),
            }
        }
        self.write(now, key, &mut outgoing, &packets, outbox);
        outgoing.clear();
        packets.clear();
        (self.pacing.outgoing, self.pacing.packets) = (outgoing, packets);
    }
}
