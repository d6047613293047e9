//! What one consumer's numbering costs per packet: deciding, writing the header, and giving a VP8 frame other
//! picture numbers. `cargo bench --bench rewrite [-- --quick]`
//!
//! An untouched payload is sealed from the history straight into the slot; one whose descriptor changes is copied
//! first and sealed in place. The last line is the price of that.

#[allow(dead_code, reason = "each bench takes its part")]
#[path = "support/call.rs"]
mod call;
mod support;

use std::hint::black_box;
use std::net::SocketAddr;

use call::{Call, Medium};
use ringside::ids::Ssrc;
use ringside::limits::HEADER_BYTES;
use ringside::media::header::{Departure, HeaderLayout};
use ringside::media::history::Packet;
use ringside::media::rewriter::{NO_TOP, Rewrite, Rewriter};
use ringside::packet::codec::vp8::Vp8Descriptor;
use ringside::packet::extension::{Extension, ExtensionSet};
use ringside::transport::srtp::Outbound;

const PAYLOAD: usize = 1_100;
const HEADER: usize = 28;

fn main() {
    let mut bench = support::Bench::default();

    let mut packet = vp8_packet();
    let mut rewriter = started(&packet);
    bench.case("accept", move || {
        packet.sequence += 1;
        rewriter.accept(black_box(&packet))
    });
    let mut packet = vp8_packet();
    let mut rewriter = started(&packet);
    bench.case("skip every second", move || {
        packet.sequence += 1;
        let skipped = rewriter.skip(black_box(&packet));
        packet.sequence += 1;
        (skipped, rewriter.accept(black_box(&packet)))
    });
    let (rewriter, newest) = holed();
    bench.case("source of the newest", move || rewriter.source_of(black_box(newest)));
    let (rewriter, newest) = holed();
    bench.case("source of the oldest", move || rewriter.source_of(black_box(newest.wrapping_sub(62))));

    let packet = vp8_packet();
    for (name, layout) in
        [("header, bare", layout(&[])), ("header, video", layout(&VIDEO)), ("header, audio", layout(&AUDIO))]
    {
        let mut packet = packet;
        if name == "header, audio" {
            packet.passed.push(Extension::AudioLevel, &[0x85]);
        }
        let mut sequence = 0;
        bench.case(name, move || {
            sequence += 1;
            let rewrite = Rewrite { sequence, timestamp: 3_000, picture: 0, tl0: 0, end: false };
            let departure = Departure { abs_send_time: sequence as u32, transport_sequence: sequence as u16 };
            let mut out = [0; HEADER_BYTES];
            let len = layout.write(&mut out, black_box(&packet), &[], &rewrite, departure, false);
            black_box((out, len)).1
        });
    }

    let payload = payload();
    let mut cipher = cipher();
    let mut slot = vec![0; 2_000];
    let mut sequence = 0;
    let body = payload.clone();
    bench.case("seal, untouched", move || {
        sequence += 1;
        cipher.seal_rtp(black_box(&mut slot), HEADER, black_box(&body), &[], Ssrc(1), sequence)
    });
    let mut cipher = self::cipher();
    let mut slot = vec![0; 2_000];
    let mut sequence = 0;
    let descriptor = Vp8Descriptor::parse(&payload).expect("a descriptor");
    let ids = Rewrite { sequence: 0, timestamp: 0, picture: 9, tl0: 1, end: false }
        .picture_ids(&descriptor)
        .expect("other numbers");
    bench.case("seal, descriptor rewritten", move || {
        sequence += 1;
        let (slot, body) = (black_box(&mut slot), black_box(&payload));
        let end = HEADER + body.len();
        slot[HEADER..end].copy_from_slice(body);
        descriptor.write_into(body, ids, &mut slot[HEADER..end]).expect("room");
        cipher.seal_rtp_in_place(slot, HEADER, end, Ssrc(1), sequence)
    });

    let measured = bench.run();
    println!("rewritten/untouched: {:.2}", measured.ratio("seal, descriptor rewritten", "seal, untouched"));
}

const VIDEO: [Extension; 3] = [Extension::Mid, Extension::AbsSendTime, Extension::TransportCc];
const AUDIO: [Extension; 3] = [Extension::Mid, Extension::AbsSendTime, Extension::AudioLevel];

fn layout(extensions: &[Extension]) -> HeaderLayout {
    HeaderLayout::new(101, Ssrc(7), "12", extensions.iter().copied().collect::<ExtensionSet>())
}

fn payload() -> Vec<u8> {
    let mut payload = vec![0x90, 0xe0, 0x81, 0x23, 7, 0, 0x10];
    payload.resize(PAYLOAD, 0x55);
    payload
}

fn vp8_packet() -> Packet {
    let mut packet = Packet::new(1_000, 90_000, PAYLOAD);
    packet.vp8 = Vp8Descriptor::parse(&payload());
    packet
}

fn started(packet: &Packet) -> Rewriter {
    let mut rewriter = Rewriter::new(100);
    rewriter.switch(packet, 0, NO_TOP);
    rewriter
}

/// A numbering that every second packet was left out of, and the number that it gave out last.
fn holed() -> (Rewriter, u16) {
    let mut packet = vp8_packet();
    let mut rewriter = started(&packet);
    let mut newest = 0;
    for _ in 0..64 {
        newest = rewriter.accept(&packet).expect("newer than all").sequence as u16;
        packet.sequence += 1;
        rewriter.skip(&packet);
        packet.sequence += 1;
    }
    (rewriter, newest)
}

fn cipher() -> Outbound {
    let address = |at| SocketAddr::from(([10, 0, 0, at], 5_000));
    Outbound::new(&Call::new(&[(address(1), Medium::Vp8)], &[]).senders[0].keys)
}
