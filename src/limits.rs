//! Every bound of Ringside, with what "full" means. Nothing in the product grows past a line of this file.

use std::time::Duration;

/// Largest UDP payload that Ringside accepts or sends; a larger one is discarded. An Ethernet MTU of
/// 1500 less IPv6 and UDP headers is 1452; browsers stay at or below 1200 + header extensions.
pub const DATAGRAM_BYTES: usize = 1500;

/// Longest mid or rid that is read from a packet; a longer one counts as absent.
pub const STREAM_ID_BYTES: usize = 32;

/// Bytes of one run: all datagrams that leave in one GSO message, in whole pages. The kernel's own limit is 65,507. With 16, 32
/// and 60 KiB a packet of a million a second costs 1, 0.80 and 0.78 (`docs/data-path.md`); where bursts are of less it makes
/// no difference.
pub const RUN_BYTES: usize = 60 * 1024;

/// Datagrams in one GSO message; the kernel's limit is 64 before Linux 6.9 and 128 since.
pub const RUN_SEGMENTS: usize = 64;

/// Packets of a layer, and runs of a transport, that memory is taken for from the start; it grows where more are due at once.
pub const RUN_FORESEEN: usize = 16;

/// Receive slots of a worker: what one drain of its ring can take. Full: the rest waits in the socket's
/// buffer for the next tick. The kernel takes slots in turn, so more of them are colder: with 64, 128 and 256
/// a datagram of a train of 6 costs 1, 1.19 and 1.31, a single one 1, 1.02 and 1.07; 16 cost singles 1.05
/// (bench `ring`). Each is 68 KiB of address space, of which a datagram touches one page.
pub const RECEIVE_SLOTS: u16 = 64;

/// How often one tick empties the receive slots while they come back full, and for how long; then what was taken is sent
/// first. A worker that is late takes what has piled up in its sockets at once, in larger messages: with 4 drains
/// a backlog of a room of 500 was never made up for, and what was lost of it was asked for again and again.
pub const DRAINS_PER_TICK: u32 = 32;
pub const DRAINING: Duration = Duration::from_millis(4);

/// Send slots of a worker, of [`RUN_BYTES`] each. All in flight: the run is discarded and counted. From 32 on the
/// number makes no difference (bench `ring`: 1, 1.00, 1.00, 1.01 for 32, 64, 128, 256), because the warmest is taken first.
pub const SEND_SLOTS: u16 = 64;

/// Runs that are handed to the kernel with one system call. With 4, 8, 16, 32 and 64 a single datagram costs 1.11,
/// 1.05, 1, 1.00 and 0.99, one of a run of 6 costs 1.07, 1.00, 1, 0.99 and 1.00 (bench `ring`); fewer leave sooner.
pub const SUBMIT_BATCH: usize = 16;

/// How often a tick that sends for long takes what has arrived meanwhile into the receive slots: a socket's buffer may hold but
/// a few milliseconds of it.
pub const RECEIVE_EVERY: Duration = Duration::from_micros(500);

/// Announced addresses of this machine that each media port gets a socket of its own for. Further ones are received
/// by the socket for all addresses, which answers from the address that the kernel's routes prefer.
pub const OWN_ADDRESSES: usize = 3;

/// Completions for which a worker without a moment to spare waits before it looks, or an eighth of what media may wait.
pub const LINGER_COMPLETIONS: u32 = 32;

/// Destinations remembered as behind a device that cannot segment; the oldest is forgotten for the next.
pub const UNSEGMENTED_DESTINATIONS: usize = 64;

/// Commands that wait for a worker. Full: the control plane refuses the request.
pub const COMMAND_QUEUE: usize = 1024;

/// Commands that a worker takes per tick; the rest wait for the next one, media first.
pub const COMMANDS_PER_TICK: usize = 32;

/// Packets of one tick whose way through the worker is measured; further ones are not.
pub const SAMPLES_PER_TICK: usize = 64;

/// Events that wait for the control plane. Full: the control plane is dead, and the worker ends loudly.
pub const EVENT_QUEUE: usize = 16 * 1024;

/// SSRCs whose RTP one transport may receive in its life; packets of a further one are refused. A browser
/// takes new SSRCs whenever a camera is opened again (three layers and their RTX: six), so this is 170 times.
/// 32 bytes each, taken as they appear.
pub const RTP_SSRCS_PER_TRANSPORT: usize = 1024;

/// SSRCs whose RTCP one transport may receive; packets of a further one are refused. Firefox reports with an
/// SSRC of its own for each stream that it receives.
pub const RTCP_SSRCS_PER_TRANSPORT: usize = 1024;

/// Bytes of a `mid`. It is written into every packet of a consumer; browsers use one to three. A longer one is refused.
pub const MID_BYTES: usize = 8;

/// Bytes of a `rid`: what the one-byte form of a header extension holds. A longer one is refused.
pub const RID_BYTES: usize = 16;

/// Encodings of one producer: simulcast has up to three qualities. More are refused.
pub const ENCODINGS: usize = 3;

/// Spatial layers of one encoding; more are refused.
pub const SPATIAL_LAYERS: usize = 4;

/// Temporal layers of one encoding; more are refused.
pub const TEMPORAL_LAYERS: usize = 4;

/// Codecs in the capabilities of a client, or in a request to produce. Chromium's own full list has about 50. More are refused.
pub const CODECS: usize = 128;

/// Header extensions in the capabilities of a client, or in a request to produce; Chromium's own list has about 30. More are refused.
pub const HEADER_EXTENSIONS: usize = 128;

/// Parameters of one codec or header extension; more are refused.
pub const CODEC_PARAMETERS: usize = 32;

/// RTCP feedback kinds of one codec; more are refused.
pub const RTCP_FEEDBACKS: usize = 32;

/// Bytes of a text in RTP parameters (a MIME type, a URI, a parameter, an msid); a longer one is refused.
pub const PARAMETER_TEXT_BYTES: usize = 256;

/// Bytes of a CNAME: what an SDES item holds (RFC 3550 section 6.5). A longer one is refused.
pub const CNAME_BYTES: usize = 255;

/// Rooms, transports, producers and consumers of one worker. Full: the command is refused with `too-many`.
pub const ROOMS_PER_WORKER: usize = 1_000;
pub const TRANSPORTS_PER_WORKER: usize = 10_000;
pub const PRODUCERS_PER_WORKER: usize = 10_000;
pub const CONSUMERS_PER_WORKER: usize = 200_000;

/// Producers and consumers of one transport. Full: refused with `too-many`.
pub const PRODUCERS_PER_TRANSPORT: usize = 16;
pub const CONSUMERS_PER_TRANSPORT: usize = 1_024;

/// SSRCs that one transport may send from (3 layers, each with RTX, for every producer, and some to spare
/// for a browser that restarts a stream). Full: packets of a further one are discarded.
pub const STREAMS_PER_TRANSPORT: usize = 6 * PRODUCERS_PER_TRANSPORT + 16;

/// Buffers that each media socket asks of the kernel, unless `--socket-buffer-kib` says otherwise: 3,000 packets that
/// come or go while a tick is long. Full: the kernel drops what arrives, and refuses what is sent (counted).
pub const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// How long a packet can be asked for again: longer than any jitter buffer waits for it.
pub const VIDEO_KEPT: Duration = Duration::from_secs(2);
pub const AUDIO_KEPT: Duration = Duration::from_secs(1);

/// Bytes of what arrived, and of facts about it, that a worker keeps for so long, unless `--history-mib` says otherwise: the
/// source of forwarding and of retransmissions. It is taken as it is needed: 2 s of 60 Mbit/s. Full: the oldest goes,
/// and what was younger than the above is counted.
pub const HISTORY_BYTES: usize = 16 << 20;
/// What is taken and used again at a time. The last 1.5 kB of a block are left free: 2 %.
pub const HISTORY_BLOCK_BYTES: usize = 64 << 10;
/// Full of tiny packets, so that the facts about them take no more than a block; sound is larger.
pub const HISTORY_BLOCK_PACKETS: usize = 640;
/// A block that fills slower is followed by the next one, so that sparse packets do not stay for minutes.
pub const HISTORY_BLOCK_AGE: Duration = Duration::from_millis(500);

/// Packets of one layer that can be asked for again: as many as come in [`VIDEO_KEPT`] at 20 Mbit/s. Begins with the smaller
/// and doubles as the stream needs it. Full: the oldest cannot be asked for. 8 bytes each. It becomes no larger than so much
/// for each packet that it has, and is halved while it is: of a sender that numbers in leaps some cannot be asked for.
pub const SEQUENCES_FIRST: usize = 64;
pub const SEQUENCES: usize = 4_096;
pub const SEQUENCES_PER_PACKET: usize = 4;

/// Stretches of one consumer's numbering that are remembered since its last layer switch: 4 s of a
/// 30 fps stream that loses every second frame. Full: the oldest cannot be asked for again.
pub const REWRITE_SEGMENTS: usize = 64;

/// Numbers of one consumer that were filled with an empty packet, because the packet that belongs there came late and of a
/// layer left out. Full: the oldest is forgotten, and would be resent with what it held.
pub const REWRITE_HOLES: usize = 64;

/// How long packets that could leave wait for company on a core without a moment to spare, at most what a jitter
/// buffer never notices. `--gather-max-us` lowers it.
pub const GATHER: Duration = Duration::from_millis(5);

/// Packets of one layer that wait for their frame's end. Full: they leave at once.
pub const PENDING_PACKETS: usize = 64;

/// Packets of one stream with layers that wait for the templates by which they are read, because the packet that carries
/// them was lost: half a second of 5 Mbit/s. Full: they are for nobody, and a key frame is asked for.
pub const UNREAD_PACKETS: usize = 256;

/// Bytes of STUN answers, DTLS and RTCP that wait for the end of a tick. Full: the datagram is discarded;
/// its sender repeats it.
pub const STAGED_BYTES: usize = 256 * 1024;

/// Bytes added to a packet as RTP padding so that it joins the run of a larger one: 17 covers the header
/// extensions by which the packets of a Chromium frame differ; a byte costs 0.2 ns, an skb 1,900.
pub const PAD_BYTES: usize = 20;

/// The same where all packets of a message are small, which is audio: Opus packets of different speakers differ by
/// more, and 48 bytes join nearly all of them.
pub const PAD_SMALL_BYTES: usize = 48;
/// The same where the core has no time to spare (`--gather-max-us`). What left for receivers of ten study rooms on a core that was
/// late, packed as `shard/packing.rs` does: 3.24 messages for what leaves at once with the bounds above, 2.05 with this one, for
/// 11 % more bytes (arithmetic over recorded sizes).
pub const PAD_SCARCE_BYTES: usize = 200;
/// What counts as small.
pub const SMALL_BYTES: usize = 320;

/// Largest RTP header that egress writes: 12 fixed, 4 extension header, mid (9), abs-send-time (4),
/// transport-cc (3), passed elements, rounded up. A dependency descriptor comes on top.
pub const HEADER_BYTES: usize = 12 + 4 + 9 + 4 + 3 + 32;

/// Bytes of a dependency descriptor that is passed on: three spatial and three temporal layers with their sizes take 110. A
/// longer one is left out.
pub const DESCRIPTOR_BYTES: usize = 200;

/// Events of one tick that wait for the worker to hand them to the control plane.
pub const EVENTS: usize = 4_096;

/// Packets of one received stream that may be missing at once. Full: the list is emptied and one key
/// frame is asked for instead, which is cheaper than so many resends and sooner there.
pub const NACK_LIST_PACKETS: usize = 512;

/// Transport-wide sequence numbers whose arrival one transport remembers until they are reported. Full: the
/// oldest are reported as lost, which is what they are to a sender that is half a second ahead.
pub const TRANSPORT_CC_ARRIVALS: usize = 1024;

/// Sent packets that one transport remembers until feedback speaks of them: 2 s of 20 Mbit/s. Begins with the
/// smaller and doubles as the path needs it. Full: the oldest are forgotten and count neither as
/// arrived nor as lost. 8 bytes each.
pub const SENT_PACKETS_FIRST: usize = 256;
pub const SENT_PACKETS: usize = 4096;

/// What an estimate of bandwidth may be, whatever feedback claims. The least lets audio through.
pub const ESTIMATE_MIN_BPS: u64 = 30_000;
pub const ESTIMATE_MAX_BPS: u64 = 100_000_000;

/// How often one missing packet is asked for. Then it is given up, and video asks for a key frame.
pub const NACK_RETRIES: u8 = 10;

/// Remote addresses that one transport remembers; a further one takes the place of the one whose last check is
/// oldest, never of the selected one.
pub const TUPLES_PER_TRANSPORT: usize = 8;

/// Without a check on the selected tuple for this long the peer's consent is over (RFC 7675 section 5.1) and
/// nothing is sent any more. Firefox checks only about once in 5 s.
pub const CONSENT_TIMEOUT: Duration = Duration::from_secs(30);

/// DTLS datagrams that wait for signaling to tell the peer's fingerprints: a ClientHello in fragments of 255
/// bytes. A further one is dropped; the peer repeats it.
pub const DTLS_HELD_DATAGRAMS: usize = 8;

/// DTLS datagrams of one unfinished flight; with a further one the handshake fails.
pub const DTLS_RECEIVE_QUEUE: usize = 30;

/// A handshake that takes longer, from the first hello, fails.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// RTCP that leaves in one datagram: fits every path with its SRTCP trailer.
pub const RTCP_BYTES: usize = 1_200;

/// SSRCs of one transport whose reference times wait for the next report; with 31 report blocks their answers fit into
/// [`RTCP_BYTES`]. Full: those of further ones are not answered.
pub const REFERENCE_TIMES: usize = 31;

/// Packets asked for in one NACK; the rest is asked for in the next round.
pub const NACKS_PER_MESSAGE: usize = 256;

/// Transport-wide feedback packets that one transport sends at a time.
pub const TRANSPORT_CC_PER_REPORT: usize = 8;

/// Packets that are resent in one tick, all receivers together, and of one transport. Full: refused, and asked for again.
pub const RESENDS_PER_TICK: usize = 1_024;
pub const RESENDS_WAITING: usize = 128;

/// Resent packets of one consumer that are remembered for a round trip, so that none leaves twice. Full: no
/// more is resent until one is older than that.
pub const RESENDS_REMEMBERED: usize = 128;

/// Packets of one transport, and of all transports of a worker, that wait because their path takes no larger burst: a key
/// frame of 600 kB. Full: what waits leaves at once, and what comes with it.
pub const PACED_PACKETS: usize = 512;
pub const PACED_PACKETS_PER_WORKER: usize = 64 * 1024;

/// Packets of one transport that must not be lost again, and that feedback is listened to for: a key frame of 150 kB. Full:
/// a further one is resent only when it is asked for.
pub const AWAITED_PACKETS: usize = 128;
/// How often one of them leaves again without being asked for, and until when after it first left. A round trip is then
/// over several times; what still misses needs a key frame.
pub const AWAITED_TRIES: u8 = 4;
pub const AWAITED_AGE: Duration = Duration::from_secs(1);

// ---- the control plane

/// Bytes of one message of a client, over either framing, and of an HTTP request's body. A `produce` with
/// three encodings is 3 kB, a `consume` with all capabilities of a browser 10 kB. Larger: the connection is closed
/// with 1009, an HTTP request refused with 413.
pub const MESSAGE_BYTES: usize = 64 * 1024;

/// Bytes of a producer's `appData` as JSON, because everybody in the room is sent it. Larger: `bad-request`.
pub const APP_DATA_BYTES: usize = 4 * 1024;

/// Bytes of a room's and of a peer's name, and characters of a display name. Longer: `bad-request`.
pub const NAME_BYTES: usize = 128;
pub const DISPLAY_NAME_CHARS: usize = 128;

/// Characters of the explanation that goes with an error. Longer: cut.
pub const ERROR_DETAIL_CHARS: usize = 200;

/// Fingerprints that a client may list. More: `bad-request`.
pub const FINGERPRINTS: usize = 8;

/// TCP connections to the control plane. Full: the next one waits in the kernel's backlog.
pub const CONNECTIONS: usize = 20_000;

/// Rooms, opened by the API or by their first peer. Full: `too-many`.
pub const ROOMS: usize = 10_000;

/// The least that a sender may be limited to: sound and a small picture. Less: refused.
pub const UPLINK_LIMIT_MIN_BPS: u32 = 30_000;

/// Peers of one room unless the operator or the room says otherwise. Full: `room-full`.
pub const PEERS_PER_ROOM: usize = 50;

/// What one peer may own. Two transports are in use; the rest is for a client that builds new ones before it
/// closes the old. Full: `too-many`.
pub const TRANSPORTS_PER_PEER: usize = 8;
pub const PRODUCERS_PER_PEER: usize = 16;
pub const CONSUMERS_PER_PEER: usize = 1_024;

/// Requests of one peer that wait for their worker. Full: `rate-limited`.
pub const REQUESTS_IN_FLIGHT_PER_PEER: usize = 256;

/// Messages of one peer: a bucket of this size, refilled at this rate. A peer that joins a full room asks for 49 x 3
/// consumers and resumes each: 300 requests. Empty: `rate-limited`.
pub const MESSAGE_BURST: u32 = 600;
pub const MESSAGES_PER_S: u32 = 100;

/// Messages over the rate that a peer may send before it counts as a flood: a second bucket, refilled as slowly
/// again. Empty: the connection is closed with 1008.
pub const FLOOD_BURST: u32 = 1_000;

/// Messages that wait for a slow client, and what they occupy. Whoever enters a room of 500 hears of 1,500
/// producers at once. Full: its connection is closed, for a client that missed one notification can no longer be
/// trusted to know the room.
pub const OUTGOING_MESSAGES: usize = 4_096;
pub const OUTGOING_BYTES: usize = 8 << 20;

/// Commands on their way to one worker. Full: the request is refused with `overloaded`.
pub const COMMANDS: usize = 4_096;

/// Commands that nobody waits for (closing things) and that found the queue full. Full: the worker is
/// dead, and the process ends.
pub const COMMAND_BACKLOG: usize = 65_536;

/// Seconds in a row over a limit after which a worker takes nobody new, and seconds in a row below both after
/// which it does again.
pub const OVERLOAD_BEGINS_AFTER: u32 = 2;
pub const OVERLOAD_ENDS_AFTER: u32 = 3;

/// Late frames and sounds that a second must have for its latency to count, beside being one in a hundred: of fewer than a
/// hundred, the 99th percentile is a single late packet. One camera, whatever the number of its receivers, makes 30 in a second.
pub const OVERLOAD_LATE_RUNS: u64 = 5;

/// How long a worker may take to answer; it answers within a tick. Later: `internal`.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an HTTP client may take for a request's header, and the server for its answer.
pub const HTTP_TIMEOUT: Duration = Duration::from_secs(10);

/// A WebSocket that is silent this long is sent a ping, and closed when another such time brings no sign of life.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How long a closing handshake may take, a TLS handshake, and a client that connects to no room.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
pub const TLS_TIMEOUT: Duration = Duration::from_secs(10);

/// Rooms that one Socket.IO connection may be in at once. Full: `too-many`.
pub const ROOMS_PER_CONNECTION: usize = 4;

/// Padding packets of one probe that leave at a time, in messages of at most [`RUN_SEGMENTS`]; the rest in the next portion.
pub const PROBE_PACKETS: usize = 64;

/// Packets of one transport's probator stream. A client that begins to listen late takes a number for one of the first
/// 2^15 (RFC 3711 section 3.3.1), so there is no wrap: 36 MB of padding. Full: no further probes.
pub const PROBATOR_PACKETS: u64 = 1 << 15;

/// How long a start waits for UDP ports that are taken. Later: exit code 2, with the port.
pub const PORT_RELEASE: Duration = Duration::from_secs(1);
