// A participant under test: unmodified mediasoup-client over whatever signaling the page brings. Publishes one colour
// and one tone, plays what the room sends, and lets the test read colours, tones, frames and times back.

import { Device } from 'mediasoup-client';

const FRAMES_PER_SECOND = 12;

export class Participant {
  /** producerId -> { peerId, kind, type, source, owner, consumer, element, analyser } */
  incoming = new Map();
  producers = new Map();
  notifications = [];
  #signaling;
  #device = new Device();
  #audio = new AudioContext();
  #entered;
  #enter;

  constructor() {
    this.#entered = new Promise((resolve) => (this.#enter = resolve));
  }

  /**
   * `connect(url, roomId, onNotification)` resolves to `{ request(method, data), close() }`. With `mediaPort` the media
   * goes there instead of to the announced port: a relay stands in between. `withoutRtx`: takes no retransmission streams.
   */
  async join(connect, { url, roomId, name, mediaPort, withoutRtx = false }) {
    this.name = name;
    this.mediaPort = mediaPort;
    this.withoutRtx = withoutRtx;
    this.#signaling = await connect(url, roomId, (method, data) => this.#notified(method, data));
    const { rtpCapabilities } = await this.request('get-rtp-capabilities', {});
    await this.#device.load({ routerRtpCapabilities: rtpCapabilities });
    this.send = this.#adopt(this.#device.createSendTransport(await this.#transport('send')));
    this.receive = this.#adopt(this.#device.createRecvTransport(await this.#transport('recv')));
    this.#enter();
  }

  request(method, data = {}) {
    return this.#signaling.request(method, data);
  }

  close() {
    this.#signaling.close();
  }

  // ---- sending

  /**
   * With `busy` the picture is so full of change that the encoder needs all the bits it may have. `codec` is a MIME type;
   * without one the room's first is sent. Several cameras of one person differ in `appData.source`.
   */
  async sendCamera({ colour, width = 320, height = 240, encodings, busy = false, codec: mimeType, appData = {} }) {
    const track = this.#paint(colour, width, height, busy);
    const codec = mimeType && this.sendable(mimeType);
    const source = { source: 'camera', owner: this.name, ...appData };
    const producer = await this.send.produce({ track, encodings, codec, appData: source });
    this.producers.set(source.source, producer);
    return producer.id;
  }

  /** What this browser can send of the room's codecs under this MIME type. */
  sendable(mimeType) {
    return this.#device.sendRtpCapabilities.codecs.find((codec) => codec.mimeType === mimeType);
  }

  async sendMicrophone({ tone_hz }) {
    const oscillator = new OscillatorNode(this.#audio, { frequency: tone_hz });
    const quiet = new GainNode(this.#audio, { gain: 0.4 });
    const output = this.#audio.createMediaStreamDestination();
    oscillator.connect(quiet).connect(output);
    oscillator.start();
    const producer = await this.send.produce({
      track: output.stream.getAudioTracks()[0],
      appData: { source: 'microphone', owner: this.name },
    });
    this.producers.set('microphone', producer);
    return producer.id;
  }

  async sendScreen() {
    const stream = await navigator.mediaDevices.getDisplayMedia({ video: { width: 640, height: 360, frameRate: 8 } });
    const producer = await this.send.produce({
      track: stream.getVideoTracks()[0],
      appData: { source: 'screen', owner: this.name },
    });
    this.producers.set('screen', producer);
    return producer.id;
  }

  async pauseProducer(source, paused) {
    const producer = this.producers.get(source);
    if (paused) producer.pause();
    else producer.resume();
    await this.request(paused ? 'pause-producer' : 'resume-producer', { producerId: producer.id });
  }

  // ---- what arrives

  find(owner, source) {
    return [...this.incoming.values()].find((stream) => stream.owner === owner && stream.source === source);
  }

  /** The middle of the picture as [r, g, b], or null while there is none. */
  colour(owner, source = 'camera') {
    const video = this.find(owner, source)?.element;
    if (!video || video.readyState < 2) return null;
    const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
    const context = canvas.getContext('2d', { willReadFrequently: true });
    context.drawImage(video, 0, 0);
    return [...context.getImageData(video.videoWidth / 2, video.videoHeight / 2, 1, 1).data.slice(0, 3)];
  }

  /** The loudest frequency in Hz, or null in silence. */
  tone(owner) {
    const analyser = this.find(owner, 'microphone')?.analyser;
    if (!analyser) return null;
    const levels = new Float32Array(analyser.frequencyBinCount);
    analyser.getFloatFrequencyData(levels);
    let loudest = 0;
    for (let bin = 1; bin < levels.length; bin++) if (levels[bin] > levels[loudest]) loudest = bin;
    return levels[loudest] < -60 ? null : (loudest * this.#audio.sampleRate) / analyser.fftSize;
  }

  /** framesDecoded, frameWidth, frameHeight, bytesReceived and whatever else the browser counts of one stream. */
  async inbound(owner, source = 'camera') {
    const stream = this.find(owner, source);
    if (!stream) return null;
    const report = await stream.consumer.getStats();
    return [...report.values()].find(({ type }) => type === 'inbound-rtp') ?? null;
  }

  /** What the browser counts of the stream that the client library listens to for padding, or null while none came. */
  async probator() {
    const report = await this.receive.getStats();
    return [...report.values()].find(({ type, ssrc }) => type === 'inbound-rtp' && ssrc === 1234) ?? null;
  }

  /** What the server says that it may send here, in bits per second. */
  async availableToReceive_bps() {
    const { stats } = await this.request('get-stats', { transportId: this.receive.id });
    return stats[0].availableOutgoingBitrateBps ?? 0;
  }

  /** The MIME type of what is decoded of one stream. */
  async decodedCodec(owner, source) {
    const report = await this.find(owner, source).consumer.getStats();
    const { codecId } = [...report.values()].find(({ type }) => type === 'inbound-rtp') ?? {};
    return report.get(codecId)?.mimeType ?? null;
  }

  /** Runs `action`, then resolves to the ms until the next frame of that stream was decoded. */
  async untilNextFrame(owner, source, action, timeout_ms = 5000) {
    const started = performance.now();
    await action();
    let frames = null;
    for (;;) {
      const element = this.find(owner, source)?.element;
      // Frames that were counted before the action do not count.
      const decoded = element?.getVideoPlaybackQuality().totalVideoFrames ?? 0;
      frames ??= element ? decoded : 0;
      if (element && decoded > frames) return performance.now() - started;
      if (performance.now() - started > timeout_ms) return Infinity;
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  /** From here on, `longestFreeze_ms` is the longest time without a new picture. */
  watchFreezes(owner, source) {
    clearInterval(this.freezeTimer);
    const { element } = this.find(owner, source);
    const frames = () => element.getVideoPlaybackQuality().totalVideoFrames;
    let [last, at_ms, longest_ms] = [frames(), performance.now(), 0];
    const look = () => {
      longest_ms = Math.max(longest_ms, performance.now() - at_ms);
      if (frames() > last) [last, at_ms] = [frames(), performance.now()];
    };
    this.freezeTimer = setInterval(look, 20);
    this.longestFreeze_ms = () => {
      look();
      return longest_ms;
    };
  }

  async #transport(direction) {
    const options = await this.request('create-transport', { direction });
    if (this.mediaPort) for (const candidate of options.iceCandidates) candidate.port = this.mediaPort;
    return options;
  }

  #adopt(transport) {
    transport.on('connect', ({ dtlsParameters }, done, failed) => {
      this.request('connect-transport', { transportId: transport.id, dtlsParameters }).then(done, failed);
    });
    transport.on('produce', ({ kind, rtpParameters, appData }, done, failed) => {
      this.request('produce', { transportId: transport.id, kind, rtpParameters, appData }).then(done, failed);
    });
    return transport;
  }

  async #notified(method, data) {
    this.notifications.push({ method, data, at_ms: performance.now() });
    if (method === 'new-producer') await this.#consume(data);
    if (method === 'producer-closed') this.#forget((stream, producerId) => producerId === data.producerId);
    if (method === 'peer-left') this.#forget((stream) => stream.peerId === data.peerId);
  }

  async #consume({ producerId, peerId }) {
    await this.#entered;
    const answer = await this.request('consume', {
      transportId: this.receive.id,
      producerId,
      rtpCapabilities: this.#receivable(),
    });
    const consumer = await this.receive.consume(answer);
    const { source, owner } = answer.appData;
    const element = document.createElement(answer.kind === 'video' ? 'video' : 'audio');
    Object.assign(element, { autoplay: true, muted: true, playsInline: true, width: 160, title: `${owner} ${source}` });
    element.srcObject = new MediaStream([consumer.track]);
    document.body.append(element);
    const stream = { peerId, kind: answer.kind, type: answer.type, source, owner, consumer, element, analyser: null };
    if (answer.kind === 'audio') stream.analyser = this.#analyse(element.srcObject);
    this.incoming.set(producerId, stream);
    stream.resumed_ms = performance.now();
    await this.request('resume-consumer', { consumerId: answer.id });
  }

  #receivable() {
    const { codecs, ...rest } = this.#device.recvRtpCapabilities;
    const isWanted = ({ mimeType }) => !(this.withoutRtx && mimeType.toLowerCase().endsWith('/rtx'));
    return { ...rest, codecs: codecs.filter(isWanted) };
  }

  #forget(matches) {
    for (const [producerId, stream] of this.incoming) {
      if (!matches(stream, producerId)) continue;
      stream.consumer.close();
      stream.element.remove();
      this.incoming.delete(producerId);
    }
  }

  #analyse(stream) {
    const analyser = new AnalyserNode(this.#audio, { fftSize: 8192, smoothingTimeConstant: 0.2 });
    this.#audio.createMediaStreamSource(stream).connect(analyser);
    return analyser;
  }

  // One colour, and a small mark that moves, so that every picture differs from the one before.
  #paint([r, g, b], width, height, busy) {
    const canvas = Object.assign(document.createElement('canvas'), { width, height });
    const context = canvas.getContext('2d');
    let x = 0;
    const draw = () => {
      context.fillStyle = `rgb(${r} ${g} ${b})`;
      context.fillRect(0, 0, width, height);
      context.fillStyle = '#fff';
      context.fillRect((x = (x + 7) % width), 4, 12, 12);
      for (let i = 0; busy && i < 400; i++) {
        context.fillStyle = `hsl(${Math.random() * 360} 70% 50%)`;
        context.fillRect(Math.random() * width, height * (0.6 + Math.random() * 0.4), 8, 8);
      }
    };
    draw();
    setInterval(draw, 1000 / FRAMES_PER_SECOND);
    return canvas.captureStream(FRAMES_PER_SECOND).getVideoTracks()[0];
  }
}
