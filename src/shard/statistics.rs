//! Answers to questions about a transport, a producer, a consumer, a room, the worker.

use std::time::{Duration, Instant};

use crate::ids::{ConsumerId, ProducerId, RoomId, TransportId};
use crate::shard::Shard;
use crate::shard::command::{Kind, Refusal, Reply};
use crate::shard::consumer::Consumer;
use crate::shard::layers::reason;
use crate::shard::producer::{Layer, Producer};
use crate::shard::stats::{ConsumerStats, ProducerStats, RepairStats, Stats, TransportStats, WorkerStats};
use crate::shard::transport::Transport;

impl Shard {
    pub(super) fn transport_stats(&mut self, now: Instant, id: TransportId) -> Result<Reply, Refusal> {
        let transport = self.names.transports.get(&id).and_then(|key| self.transports.at(*key));
        Ok(Reply::Stats(vec![Stats::Transport(transport_row(transport.ok_or(Refusal::NotFound)?, now))]))
    }

    /// One row for each layer.
    pub(super) fn producer_stats(&mut self, now: Instant, id: ProducerId) -> Result<Reply, Refusal> {
        let producer = self.names.producers.get(&id).and_then(|key| self.producers.at(*key));
        let producer = producer.ok_or(Refusal::NotFound)?;
        Ok(Reply::Stats(self.producer_rows(producer, now).map(Stats::Producer).collect()))
    }

    /// The consumer's row, then its producer's.
    pub(super) fn consumer_stats(&mut self, now: Instant, id: ConsumerId) -> Result<Reply, Refusal> {
        let consumer = self.names.consumers.get(&id).and_then(|key| self.consumers.at(*key));
        let consumer = consumer.ok_or(Refusal::NotFound)?;
        let producer = self.producers.at(consumer.producer).ok_or(Refusal::NotFound)?;
        let own = Stats::Consumer(consumer_row(consumer, producer, now));
        let source = self.producer_rows(producer, now).map(Stats::Producer);
        Ok(Reply::Stats(std::iter::once(own).chain(source).collect()))
    }

    pub(super) fn room_stats(&mut self, now: Instant, id: RoomId) -> Result<Reply, Refusal> {
        let room = self.names.rooms.get(&id).and_then(|key| self.rooms.at(*key)).ok_or(Refusal::NotFound)?;
        let mut rows = Vec::new();
        for transport in room.transports.iter().filter_map(|key| self.transports.at(*key)) {
            rows.push(Stats::Transport(transport_row(transport, now)));
            for producer in transport.producers.iter().filter_map(|key| self.producers.at(*key)) {
                rows.extend(self.producer_rows(producer, now).map(Stats::Producer));
            }
            for consumer in transport.consumers.iter().filter_map(|key| self.consumers.at(*key)) {
                if let Some(producer) = self.producers.at(consumer.producer) {
                    rows.push(Stats::Consumer(consumer_row(consumer, producer, now)));
                }
            }
        }
        Ok(Reply::Stats(rows))
    }

    /// What the shard knows of its worker; the worker adds its core, its ports and its histograms.
    pub fn worker_stats(&self) -> WorkerStats {
        let mut peers: Vec<_> = self.transports.iter().map(|(_, transport)| transport.peer).collect();
        peers.sort_unstable();
        peers.dedup();
        let mut repairs = self.repairs;
        self.producers.iter().for_each(|(_, producer)| repairs.add(producer));
        WorkerStats {
            rooms: self.rooms.len(),
            peers: peers.len(),
            transports: self.transports.len(),
            producers: self.producers.len(),
            consumers: self.consumers.len(),
            packets_received: self.counters.packets_received,
            bytes_received: self.counters.bytes_received,
            packets_sent: self.counters.packets_sent,
            bytes_sent: self.counters.bytes_sent,
            messages_sent: self.counters.messages_sent,
            padding_packets_sent: self.counters.padding_packets_sent,
            padding_bytes_sent: self.counters.padding_bytes_sent,
            repairs,
            history_bytes: self.history.bytes() as u64,
            history_packets_cut_short: self.history.cut_short(),
            discards: self.discards.rows(),
            ..WorkerStats::default()
        }
    }

    fn producer_rows<'a>(&'a self, producer: &'a Producer, now: Instant) -> impl Iterator<Item = ProducerStats> + 'a {
        let rtt = self.transports.at(producer.transport).and_then(|transport| transport.rtt);
        producer.layers.iter().map(move |layer| producer_row(producer, layer, rtt, now))
    }
}

impl RepairStats {
    /// Adds what a producer's layers count.
    pub(super) fn add(&mut self, producer: &Producer) {
        for layer in &producer.layers {
            self.key_frames_asked += layer.key_frames.asked();
            self.key_frames_coalesced += layer.key_frames.coalesced();
            self.key_frame_requests_sent += layer.key_frames.sent();
            self.key_frames_received += layer.key_frame_count;
            self.uplink_packets_asked += layer.nack.packets_asked();
            self.uplink_packets_repaired += layer.reception.packets_repaired();
            self.uplink_packets_duplicated += layer.reception.packets_duplicated();
        }
    }
}

fn transport_row(transport: &Transport, now: Instant) -> TransportStats {
    TransportStats {
        transport_id: transport.id,
        peer_id: transport.peer,
        ice_state: transport.ice.state(),
        dtls_state: transport.dtls.state(),
        srtp_profile: transport.keys.as_ref().map(|keys| keys.profile.name()),
        selected_tuple: transport.destination.map(|destination| destination.address.to_string()),
        tuples: transport.ice.tuples().len(),
        packets_received: transport.received.packets,
        bytes_received: transport.received.bytes,
        packets_sent: transport.sent.packets,
        bytes_sent: transport.sent.bytes,
        recv_bitrate_bps: transport.received.rate.bitrate_bps(now),
        send_bitrate_bps: transport.sent.rate.bitrate_bps(now),
        padding_bytes_sent: transport.padding_bytes_sent,
        rtt_ms: transport.rtt.map(ms),
        available_outgoing_bitrate_bps: transport.estimator.as_ref().map(|estimator| estimator.estimate_bps()),
    }
}

fn producer_row(producer: &Producer, layer: &Layer, rtt: Option<Duration>, now: Instant) -> ProducerStats {
    ProducerStats {
        producer_id: producer.id,
        peer_id: producer.peer,
        kind: producer.kind,
        paused: producer.paused,
        ssrc: layer.ssrc,
        rtx_ssrc: layer.rtx_ssrc,
        rid: layer.rid.clone(),
        packets_received: layer.reception.packets(),
        bytes_received: layer.reception.bytes(),
        packets_lost: layer.reception.packets_lost(),
        fraction_lost: layer.reception.fraction_lost(),
        packets_repaired: layer.reception.packets_repaired(),
        packets_duplicated: layer.reception.packets_duplicated(),
        jitter_ms: layer.reception.jitter_ms(),
        rtt_ms: rtt.map(ms),
        bitrate_bps: layer.reception.bitrate_bps(now),
        frames_received: layer.frames,
        key_frames_received: if producer.kind == Kind::Video { layer.key_frame_count } else { 0 },
        nack_count: layer.nack.requests(),
        nack_packet_count: layer.nack.packets_asked(),
        pli_count: layer.plis_sent,
        fir_count: layer.firs_sent,
        key_frames_asked: layer.key_frames.asked(),
        key_frames_coalesced: layer.key_frames.coalesced(),
        score: layer.reception.score(now),
    }
}

fn consumer_row(consumer: &Consumer, producer: &Producer, now: Instant) -> ConsumerStats {
    let (sent, rest) = (&consumer.transmission, &consumer.rest);
    ConsumerStats {
        consumer_id: rest.id,
        producer_id: rest.producer_id,
        peer_id: rest.peer,
        kind: rest.kind,
        paused: consumer.paused,
        producer_paused: producer.paused,
        ssrc: consumer.ssrc,
        rtx_ssrc: rest.rtx.as_ref().map(|rtx| rtx.ssrc),
        packets_sent: sent.packets(),
        bytes_sent: sent.octets(),
        packets_retransmitted: rest.resent,
        packets_lost: sent.packets_lost(),
        fraction_lost: sent.fraction_lost(),
        jitter_ms: sent.jitter_ms(rest.clock_rate),
        rtt_ms: sent.rtt().map(ms),
        bitrate_bps: sent.bitrate_bps(now),
        nack_count: rest.nacks,
        nack_packet_count: rest.nacked_packets,
        pli_count: rest.plis,
        fir_count: rest.firs,
        layers: consumer.layers(),
        preferred_layers: consumer.selector.preferred(),
        reason: reason(consumer, producer, now),
        score: sent.score(),
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
