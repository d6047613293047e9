// One participant's call: the room's peers and what they send, our own microphone, camera and screen, and the way
// back after the connection is lost. It knows the server and mediasoup-client, nothing of the page: whoever shows it
// listens to `change` (anything below differs; reconcile) and `notice` (a sentence for the person).

import { Device } from 'mediasoup-client';
import { Signaling, SignalingError } from './signaling.js';
import { Statistics } from './statistics.js';
import { explain } from './words.js';

const RECONNECT_DELAYS_MS = [300, 1000, 2000, 4000, 8000];
const REPAIR_AFTER_MS = 1500;
const GIVE_UP_REPAIR_AFTER_MS = 12_000;

// Several pictures of the camera, so that the server can give each receiver the one its tile and its link have room for.
const LARGE_CAMERA = [
  { scaleResolutionDownBy: 4, maxBitrate: 150_000 },
  { scaleResolutionDownBy: 2, maxBitrate: 500_000 },
  { scaleResolutionDownBy: 1, maxBitrate: 1_500_000 },
];
const MEDIUM_CAMERA = [
  { scaleResolutionDownBy: 2, maxBitrate: 150_000 },
  { scaleResolutionDownBy: 1, maxBitrate: 800_000 },
];
const SMALL_CAMERA = [{ maxBitrate: 400_000 }];
const SCREEN = [{ maxBitrate: 2_500_000 }];

const PUBLISHING = {
  microphone: () => ({ codecOptions: { opusDtx: true, opusFec: true } }),
  camera: (track) => ({ encodings: cameraEncodings(track), codecOptions: { videoGoogleStartBitrate: 600 } }),
  screen: () => ({ encodings: SCREEN, codecOptions: { videoGoogleStartBitrate: 1000 } }),
  'screen-sound': () => ({ codecOptions: { opusStereo: true, opusDtx: true } }),
};

export class Call extends EventTarget {
  /** connecting | connected | reconnecting | repairing | ended */
  state = 'connecting';
  /** peerId -> { peerId, name, streams: Map<producerId, Stream> }; see #consume for a Stream. */
  peers = new Map();
  /** source -> { track, paused, producer? }: what we send, kept over reconnections. */
  own = new Map();
  /** Who we are in the room. */
  peerId = null;
  /** The peer whom the server calls the active speaker. */
  speaker = null;
  /** Why the call ended, when the server refused it. */
  error = null;

  #room;
  #name;
  #signaling = null;
  #device = null;
  #send = null;
  #receive = null;
  #ready = null;
  #welcome = null;
  #resumeToken = null;
  #attempt = 0;
  #repairTimers = new Map();
  #statistics = new Statistics();

  constructor(room, name) {
    super();
    this.#room = room;
    this.#name = name;
  }

  /** Enters the room; resolves when it is entered, throws what the server or the browser refused. */
  async join() {
    try {
      await this.#enter();
    } catch (error) {
      this.leave();
      throw error;
    }
  }

  leave() {
    if (this.state === 'ended') return;
    this.#signaling?.leave();
    this.#dropMedia();
    for (const { track } of this.own.values()) track.stop();
    this.own.clear();
    this.#become('ended');
  }

  /** Sends `track` as `source` (microphone, camera, screen, screen-sound); replaces what that source sent. */
  async publish(source, track, { paused = false } = {}) {
    const current = this.own.get(source);
    if (current?.producer) {
      await current.producer.replaceTrack({ track });
      current.track.stop();
      current.track = track;
    } else {
      current?.track.stop();
      this.own.set(source, { track, paused, producer: null });
      track.enabled = !paused;
      if (this.#send) {
        await this.#produce(source).catch((error) => {
          this.unpublish(source);
          throw error;
        });
      }
    }
    track.addEventListener('ended', () => this.own.get(source)?.track === track && this.unpublish(source));
    this.#changed();
  }

  unpublish(source) {
    const own = this.own.get(source);
    if (!own) return;
    this.own.delete(source);
    own.track.stop();
    this.#closeProducer(own.producer);
    this.#changed();
  }

  /** Mutes or unmutes; the device stays open, so that unmuting is instant. */
  async setPaused(source, paused) {
    const own = this.own.get(source);
    if (!own || own.paused === paused) return;
    own.paused = paused;
    own.track.enabled = !paused;
    if (own.producer) {
      if (paused) own.producer.pause();
      else own.producer.resume();
      this.#ask(paused ? 'pause-producer' : 'resume-producer', { producerId: own.producer.id });
    }
    this.#changed();
  }

  /** Asks for at most this layer of a simulcast stream; the server may give less. */
  preferLayer(stream, spatialLayer) {
    if (stream.spatialLayers < 2 || stream.preferred === spatialLayer) return;
    stream.preferred = spatialLayer;
    this.#ask('set-preferred-layers', { consumerId: stream.id, spatialLayer });
  }

  /** Stops or restarts one incoming stream, e.g. of a tile that is scrolled out of sight. */
  setStreamPaused(stream, paused) {
    if (stream.paused === paused) return;
    stream.paused = paused;
    if (paused) stream.consumer.pause();
    else stream.consumer.resume();
    this.#ask(paused ? 'pause-consumer' : 'resume-consumer', { consumerId: stream.id });
  }

  /** Every stream that arrives from others. */
  *streams() {
    for (const peer of this.peers.values()) yield* peer.streams.values();
  }

  /** Refreshes `measured` of each stream and of each own source from the browser's statistics. */
  async measure() {
    await this.#statistics.measure(this.#receive, this.streams(), this.#send, this.own.values());
  }

  /** Updates `level` (0 silent to 1 loud) of each incoming sound from its last packets. */
  listen() {
    for (const stream of this.streams()) {
      if (stream.kind !== 'audio') continue;
      const [source] = stream.consumer.rtpReceiver?.getSynchronizationSources?.() ?? [];
      const fresh = source && performance.timeOrigin + performance.now() - source.timestamp < 500;
      stream.level = fresh && !stream.producerPaused ? (source.audioLevel ?? 0) : 0;
    }
  }

  // ---- entering and leaving the room

  async #enter() {
    let entered = false;
    let ready;
    this.#ready = new Promise((resolve) => (ready = resolve));
    this.#welcome = null;
    const signaling = await Signaling.open(this.#url(), {
      onNotification: (method, data) => this.#notified(method, data),
      onClosed: (error) => entered && this.#connectionLost(error),
    });
    if (this.state === 'ended') return signaling.close();
    this.#signaling = signaling;
    const { producers } = this.#send ? await signaling.request('get-producers') : {};
    if (this.#welcome?.resumed) this.#takeUp(producers);
    else await this.#enterAnew();
    ready();
    entered = true;
    this.#attempt = 0;
    this.#become('connected');
    for (const [source, { producer }] of this.own) {
      if (!producer) this.#produce(source).catch((error) => this.#notice(explain(error)));
    }
  }

  async #enterAnew() {
    this.#dropMedia();
    this.#device = await Device.factory();
    const room = await this.#signaling.request('join', { displayName: this.#name, produce: true, consume: true });
    await this.#device.load({ routerRtpCapabilities: room.rtpCapabilities });
    this.#send = this.#adopt(this.#device.createSendTransport(room.sendTransport));
    this.#receive = this.#adopt(this.#device.createRecvTransport(room.recvTransport));
    this.#resumeToken = room.resumeToken;
    for (const peer of room.peers) this.#meet(peer.peerId, peer.displayName);
    for (const producer of room.producers) this.#newProducer(producer);
  }

  // The server kept our place: transports and streams go on. What both sides did meanwhile is made good.
  #takeUp(producers) {
    const here = new Set(producers.map(({ producerId }) => producerId));
    this.#forgetStream((stream) => !here.has(stream.producerId));
    const present = new Set(this.#welcome.peers.map(({ peerId }) => peerId));
    for (const peerId of this.peers.keys()) if (!present.has(peerId)) this.#forgetPeer(peerId);
    for (const { peerId, displayName } of this.#welcome.peers) this.#meet(peerId, displayName);
    const own = new Map([...this.own.values()].filter(({ producer }) => producer).map((own) => [own.producer.id, own]));
    for (const producerId of this.#welcome.producers) {
      const paused = own.get(producerId)?.paused;
      const method = paused === undefined ? 'close-producer' : paused ? 'pause-producer' : 'resume-producer';
      this.#ask(method, { producerId });
    }
  }

  #url() {
    const url = new URL(`room/${encodeURIComponent(this.#room)}`, document.baseURI);
    url.protocol = url.protocol.replace('http', 'ws');
    this.peerId ??= [...crypto.getRandomValues(new Uint32Array(3))].map((word) => word.toString(36)).join('');
    const token = new URLSearchParams(location.search).get('token');
    const who = { peerId: this.peerId, displayName: this.#name, resumeToken: this.#resumeToken, token };
    for (const [name, value] of Object.entries(who)) if (value) url.searchParams.set(name, value);
    return url.href;
  }

  #adopt(transport) {
    transport.on('connect', ({ dtlsParameters }, done, failed) => {
      this.#signaling.request('connect-transport', { transportId: transport.id, dtlsParameters }).then(done, failed);
    });
    transport.on('produce', ({ kind, rtpParameters, appData }, done, failed) => {
      const paused = this.own.get(appData.source)?.paused ?? false;
      const request = { transportId: transport.id, kind, rtpParameters, appData, paused };
      this.#signaling.request('produce', request).then(done, failed);
    });
    transport.on('connectionstatechange', (state) => this.#mediaPathBecame(transport, state));
    return transport;
  }

  #dropMedia() {
    for (const timer of this.#repairTimers.values()) clearTimeout(timer);
    this.#repairTimers.clear();
    this.#send?.close();
    this.#receive?.close();
    this.#send = this.#receive = null;
    for (const own of this.own.values()) own.producer = null;
    this.peers.clear();
    this.speaker = null;
  }

  // The media goes on while the signaling is away: the server may keep our place.
  #connectionLost(error) {
    if (this.state === 'ended') return;
    this.#signaling?.close();
    if (error.code === 'peer-id-taken') this.peerId = this.#resumeToken = null;
    else if (error.isFinal) {
      this.error = error;
      return this.leave();
    }
    this.#become('reconnecting');
    const delay_ms = RECONNECT_DELAYS_MS[Math.min(this.#attempt++, RECONNECT_DELAYS_MS.length - 1)];
    setTimeout(() => this.#reenter(), delay_ms);
  }

  async #reenter() {
    if (this.state !== 'reconnecting') return;
    try {
      await this.#enter();
      this.#notice('Connected again.');
    } catch (error) {
      this.#connectionLost(error);
    }
  }

  // ---- the media path: a changed network is repaired by an ICE restart, and if that does not help by a new start

  #mediaPathBecame(transport, state) {
    if (state === 'connected' || state === 'closed') {
      clearTimeout(this.#repairTimers.get(transport));
      this.#repairTimers.delete(transport);
      if (this.state === 'repairing' && this.#repairTimers.size === 0) this.#become('connected');
    }
    if ((state !== 'disconnected' && state !== 'failed') || this.#repairTimers.has(transport)) return;
    const wait_ms = state === 'failed' ? 0 : REPAIR_AFTER_MS;
    this.#repairTimers.set(transport, setTimeout(() => this.#repair(transport), wait_ms));
  }

  async #repair(transport) {
    if (transport.closed || this.state === 'ended') return;
    this.#become('repairing');
    const giveUp = () => {
      this.#resumeToken = null;
      this.peerId = null;
      this.#connectionLost(new SignalingError('connection-lost', 'the media path does not come back'));
    };
    this.#repairTimers.set(transport, setTimeout(giveUp, GIVE_UP_REPAIR_AFTER_MS));
    try {
      const { iceParameters } = await this.#signaling.request('restart-ice', { transportId: transport.id });
      if (!transport.closed) await transport.restartIce({ iceParameters });
    } catch {
      // The timer above starts the call anew.
    }
  }

  // ---- what we send

  async #produce(source) {
    const own = this.own.get(source);
    const transport = this.#send;
    const paused = own.paused;
    const producer = await transport.produce({
      track: own.track,
      stopTracks: false,
      ...PUBLISHING[source](own.track),
      appData: { source, height: own.track.getSettings().height },
    });
    // Switched off, or left, while the server was answering.
    if (this.own.get(source) !== own || transport !== this.#send) return this.#closeProducer(producer);
    own.producer = producer;
    if (own.paused !== paused) {
      own.paused = paused;
      this.setPaused(source, !paused);
    }
    this.#changed();
  }

  #closeProducer(producer) {
    if (!producer || producer.closed) return;
    producer.close();
    this.#ask('close-producer', { producerId: producer.id });
  }

  // ---- what others send

  #notified(method, data) {
    switch (method) {
      case 'welcome':
        this.#welcome = data;
        return;
      case 'peer-joined':
        return this.#meet(data.peerId, data.displayName);
      case 'peer-left':
        return this.#forgetPeer(data.peerId);
      case 'new-producer':
        return this.#newProducer(data);
      case 'producer-closed':
        return this.#forgetStream((stream) => stream.producerId === data.producerId);
      case 'consumer-closed':
        return this.#forgetStream((stream) => stream.id === data.consumerId);
      case 'producer-paused':
      case 'producer-resumed':
        return this.#update((stream) => stream.producerId === data.producerId, {
          producerPaused: method === 'producer-paused',
        });
      case 'consumer-layers-changed':
        return this.#update((stream) => stream.id === data.consumerId, { layers: data.layers, reason: data.reason });
      case 'consumer-score':
        return this.#update((stream) => stream.id === data.consumerId, { score: data.score });
      case 'active-speaker':
        this.speaker = data.peerId;
        return this.#changed();
      case 'server-draining':
        return this.#notice('The server is about to restart. You will be connected again by itself.');
    }
  }

  #meet(peerId, name) {
    const peer = this.peers.get(peerId) ?? { peerId, name: '', streams: new Map(), asked: new Set() };
    peer.name = name || peer.name;
    this.peers.set(peerId, peer);
    this.#changed();
    return peer;
  }

  async #newProducer({ producerId, peerId, paused }) {
    const peer = this.#meet(peerId);
    if (peer.asked.has(producerId)) return;
    peer.asked.add(producerId);
    await this.#ready;
    // Announced on a connection that turned out to be a new start, which announces it again.
    if (this.peers.get(peerId) !== peer) return;
    const transport = this.#receive;
    try {
      await this.#consume(peer, producerId, { producerPaused: paused ?? false });
    } catch (error) {
      // A producer that closed meanwhile, or a call that was left, is nobody's problem.
      peer.asked.delete(producerId);
      if (error.code !== 'not-found' && transport === this.#receive && !transport?.closed) this.#notice(explain(error));
    }
  }

  async #consume(peer, producerId, { producerPaused }) {
    const transport = this.#receive;
    const answer = await this.#signaling.request('consume', {
      transportId: transport.id,
      producerId,
      rtpCapabilities: this.#device.recvRtpCapabilities,
    });
    const source = answer.appData?.source ?? (answer.kind === 'audio' ? 'microphone' : 'camera');
    const consumer = await transport.consume({
      id: answer.id,
      producerId,
      kind: answer.kind,
      rtpParameters: answer.rtpParameters,
      // What shares a stream id is kept in lip sync: a peer's voice with its camera, not with its screen.
      streamId: `${peer.peerId}-${source.startsWith('screen') ? 'screen' : 'person'}`,
    });
    if (this.peers.get(peer.peerId) !== peer || !peer.asked.has(producerId)) {
      consumer.close();
      return this.#ask('close-consumer', { consumerId: answer.id });
    }
    const stream = {
      id: answer.id,
      peerId: peer.peerId,
      producerId,
      kind: answer.kind,
      source,
      type: answer.type,
      height: answer.appData?.height ?? 720,
      spatialLayers: Number(/^L(\d)/.exec(answer.rtpParameters.encodings[0].scalabilityMode ?? '')?.[1] ?? 1),
      consumer,
      track: consumer.track,
      paused: false,
      producerPaused: answer.producerPaused ?? producerPaused,
      preferred: null,
      layers: null,
      reason: null,
      score: null,
      level: 0,
      measured: null,
    };
    peer.streams.set(producerId, stream);
    this.#changed();
    await this.#signaling.request('resume-consumer', { consumerId: answer.id });
  }

  #forgetPeer(peerId) {
    const peer = this.peers.get(peerId);
    if (!peer) return;
    this.peers.delete(peerId);
    for (const stream of peer.streams.values()) stream.consumer.close();
    if (this.speaker === peerId) this.speaker = null;
    this.#changed();
  }

  #forgetStream(matches) {
    for (const peer of this.peers.values()) {
      for (const stream of peer.streams.values()) {
        if (!matches(stream)) continue;
        peer.streams.delete(stream.producerId);
        peer.asked.delete(stream.producerId);
        stream.consumer.close();
      }
    }
    this.#changed();
  }

  #update(matches, values) {
    for (const stream of this.streams()) if (matches(stream)) Object.assign(stream, values);
    this.#changed();
  }

  // ---- telling

  /** For requests whose refusal the person should read and nothing else depends on. */
  #ask(method, data) {
    this.#signaling?.request(method, data).catch((error) => {
      if (error.code !== 'connection-lost' && error.code !== 'not-found') this.#notice(explain(error));
    });
  }

  #become(state) {
    if (this.state === 'ended' || this.state === state) return;
    this.state = state;
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new Event('change'));
  }

  #notice(text) {
    this.dispatchEvent(new CustomEvent('notice', { detail: text }));
  }
}

// Chromium sends three pictures only from 960x540 upwards, and leaves out the largest below that.
function cameraEncodings(track) {
  const { width = 0, height = 0 } = track.getSettings();
  const longSide = Math.max(width, height);
  if (longSide >= 960) return LARGE_CAMERA;
  return longSide >= 480 ? MEDIUM_CAMERA : SMALL_CAMERA;
}
