//! What the machines beside the packet's way cost: per packet, per feedback, per allocation.
//! `cargo bench --bench estimate [-- --quick]`

mod support;

use std::hint::black_box;
use std::time::{Duration, Instant};

use ringside::ids::Ssrc;
use ringside::media::allocation::{Allocator, Demand, Downlink, Grant, Offer};
use ringside::media::audio_level::RoomAudio;
use ringside::media::bwe::Estimator;
use ringside::media::nack::NackList;
use ringside::media::report::{RateMeter, Reception};
use ringside::media::spec::SourceClass;
use ringside::media::transport_cc::ArrivalRecord;
use ringside::packet::rtcp::{RtcpPacket, TransportCcHead, packets, write_transport_cc};
use ringside::packet::seq::SeqNo;

/// 500 packets a second.
const APART: Duration = Duration::from_millis(2);

fn main() {
    let start = Instant::now();
    let mut bench = support::Bench::default();

    let (mut estimator, mut clock) = (Estimator::new(start), Clock::new(start));
    bench.case("estimator: a packet sent", move || {
        let now = clock.tick();
        estimator.sent(SeqNo(clock.count as u16), 1200, now);
    });
    for (name, lost) in [("estimator: 50 packets and a feedback", 0), ("estimator: the same, 2 of them lost", 2)] {
        let (mut estimator, mut clock) = (Estimator::new(start), Clock::new(start));
        bench.case(name, move || hundred_ms(Some(&mut estimator), lost, &mut clock));
    }
    let mut clock = Clock::new(start);
    bench.case("  of it the feedback's own making", move || hundred_ms(None, 2, &mut clock));
    let (mut rate, mut clock) = (RateMeter::default(), Clock::new(start));
    bench.case("rate meter: a packet", move || rate.add(1200, clock.tick()));

    let (mut reception, mut nack, mut clock) = (Reception::new(), NackList::new(), Clock::new(start));
    bench.case("reception and nack list: a packet", move || {
        let now = clock.tick();
        let arrived = reception.receive(clock.count as u16, clock.count as u32 * 180, 90_000, now, 1200);
        nack.receive(arrived.sequence, now, false);
        arrived
    });
    let (mut record, mut clock) = (ArrivalRecord::new(start), Clock::new(start));
    bench.case("arrival record: a packet", move || {
        let now = clock.tick();
        record.receive(SeqNo(clock.count as u16), now);
        record.take(now).map(|draft| draft.len())
    });
    let (mut audio, mut clock) = (RoomAudio::new(3, start), Clock::new(start));
    (0..50).for_each(|_| _ = audio.open());
    bench.case("audio levels: a packet in a room of 50", move || {
        let now = clock.tick();
        let index = clock.count as usize % 50;
        audio.receive(index, (clock.count * 31 % 90) as u8 + 30, now);
        audio.poll(now);
        audio.forwarded(index)
    });

    for (name, cameras) in [("allocation: 16 cameras", 16), ("allocation: 49 cameras", 49)] {
        let (mut allocator, mut clock) = (Allocator::new(), Clock::new(start));
        let mut demands: Vec<_> = (0..cameras).map(|_| camera()).collect();
        bench.case(name, move || {
            let now = clock.tick();
            let estimate = 3_000_000 + clock.count % 7 * 1_000_000;
            allocator.allocate(Some(Downlink::from(estimate)), 0, now, black_box(&mut demands))
        });
    }
    bench.run();
}

struct Clock {
    now: Instant,
    count: u64,
}

impl Clock {
    fn new(now: Instant) -> Clock {
        Clock { now, count: 0 }
    }

    fn tick(&mut self) -> Instant {
        self.count += 1;
        self.now += APART;
        self.now
    }
}

fn hundred_ms(mut estimator: Option<&mut Estimator>, lost: usize, clock: &mut Clock) {
    let base = SeqNo(clock.count as u16 + 1);
    let arrivals: [Option<u64>; 50] = std::array::from_fn(|n| {
        let now = clock.tick();
        if let Some(estimator) = &mut estimator {
            estimator.sent(SeqNo(clock.count as u16), 1200, now);
        }
        (n % 25 != 7 || n / 25 >= lost).then_some(clock.count * APART.as_micros() as u64)
    });
    let mut out = [0; 400];
    let head = TransportCcHead { sender: Ssrc(1), media: Ssrc(2), base, feedback_count: 0 };
    let written = write_transport_cc(&mut out, &head, arrivals.into_iter()).expect("fits");
    let Some(Ok(RtcpPacket::TransportCc(feedback))) = packets(black_box(&out[..written.len])).next() else { return };
    if let Some(estimator) = estimator {
        estimator.feedback(&feedback, clock.now);
        estimator.poll(clock.now);
    }
}

fn camera() -> Demand {
    let mut offer = Offer::new(3, 3);
    for (spatial, bps) in [150_000, 500_000, 1_500_000].into_iter().enumerate() {
        (0..3).for_each(|temporal| offer.observe(spatial as u8, temporal, bps * (temporal as u64 + 2) / 4));
    }
    Demand::new(SourceClass::Camera, 1, None, offer, Grant::default())
}
