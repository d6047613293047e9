//! Round trips by extended reports (RFC 3611): peers that send nothing of their own ask for the time they take, and get it.

#[path = "../benches/support/call.rs"]
#[allow(dead_code, reason = "shared with the benches")]
mod call;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use call::{Call, Medium};
use ringside::limits;
use ringside::shard::Datagram;
use ringside::shard::outbox::{Destination, Outbox};
use ringside::transport::srtp::{Inbound, Outbound};
use rtcp::extended_report::{DLRRReportBlock, ExtendedReport};

const MS: Duration = Duration::from_millis(1);

#[derive(Default)]
struct Kept {
    slot: Vec<u8>,
    to: Option<SocketAddr>,
    datagrams: Vec<(SocketAddr, Vec<u8>)>,
}

impl Outbox for Kept {
    fn reserve(&mut self, destination: Destination, capacity: usize) -> Option<&mut [u8]> {
        (self.slot, self.to) = (vec![0; capacity], Some(destination.address));
        Some(&mut self.slot)
    }

    fn commit(&mut self, len: usize, segment: usize) {
        let to = self.to.expect("what is committed was reserved");
        self.datagrams.extend(self.slot[..len].chunks(segment).map(|bytes| (to, bytes.to_vec())));
    }
}

/// The reference time of one SSRC: `at` is the middle of the NTP time.
fn reference_time(ssrc: u32, at: u32) -> Vec<u8> {
    let mut report = vec![0x80, 207, 0, 4];
    report.extend(ssrc.to_be_bytes());
    report.extend([4, 0, 0, 2]);
    report.extend((u64::from(at) << 16).to_be_bytes());
    report
}

#[test]
fn each_stream_of_a_receiver_that_tells_its_time_is_answered_up_to_a_bound() {
    let (sender, receiver) = ("10.0.0.2:5000".parse().unwrap(), "10.0.0.3:5000".parse().unwrap());
    let mut call = Call::new(&[(sender, Medium::Vp8)], &[receiver]);
    let (mut far, mut opener) = (Outbound::new(&call.receivers[0]), Inbound::new(&call.receivers[0]));
    let (now, mut outbox) = (Instant::now(), Kept::default());
    for ssrc in 10..50 {
        let mut report = reference_time(ssrc, 1_000 * ssrc);
        let len = report.len();
        report.resize(len + 64, 0);
        let len = far.seal_rtcp(&mut report, len).expect("room for the trailer");
        let bytes = &mut report[..len];
        call.shard.handle_datagram(now, Datagram { source: receiver, local: 0, bytes, received_at: None });
    }
    let later = now + 1500 * MS;
    call.shard.handle_timeout(later);
    call.shard.flush(later, &mut outbox);

    let mut answered = BTreeSet::new();
    let is_rtcp = |bytes: &[u8]| (192..=223).contains(&bytes[1]);
    for (_, mut bytes) in outbox.datagrams.into_iter().filter(|(to, bytes)| *to == receiver && is_rtcp(bytes)) {
        let len = opener.open_rtcp(&mut bytes).expect("authentic");
        for packet in rtcp::packet::unmarshal(&mut &bytes[..len]).expect("a compound packet") {
            let Some(report) = packet.as_any().downcast_ref::<ExtendedReport>() else { continue };
            for block in report.reports.iter().filter_map(|block| block.as_any().downcast_ref::<DLRRReportBlock>()) {
                for answer in &block.reports {
                    assert_eq!(answer.last_rr, 1_000 * answer.ssrc);
                    assert_eq!(answer.dlrr, 3 * 65_536 / 2);
                    assert!(answered.insert(answer.ssrc), "once each");
                }
            }
        }
    }
    assert!(answered.into_iter().eq(10..10 + limits::REFERENCE_TIMES as u32));
}
