// The demo page: lobby, call, controls and keys, wired together. What a person reads stands in words.js, the call
// itself in call.js.

import { Call } from './call.js';
import { listDevices, openDevice, openScreen } from './devices.js';
import { CONNECTION, explain, explainDevice } from './words.js';
import { LevelMeter } from './view/level_meter.js';
import { Lobby } from './view/lobby.js';
import { Stage } from './view/stage.js';

const STATISTICS_PERIOD_MS = 1000;
const LEVEL_PERIOD_MS = 150;
const NOTICE_MS = 6000;

const $ = (id) => document.getElementById(id);

/** The chosen devices, remembered in this browser. */
const deviceChoice = {
  get: (kind) => localStorage.getItem(`ringside.${kind}`) || undefined,
  set: (kind, deviceId) => localStorage.setItem(`ringside.${kind}`, deviceId),
};

let current = null;
const lobby = new Lobby({ deviceChoice, onJoin: join });
lobby.open();

/** For tests and for the curious: `ringside.call`, `ringside.state`, `ringside.stats()`. */
window.ringside = {
  get call() {
    return current?.call ?? null;
  },
  get state() {
    return current?.call.state ?? 'lobby';
  },
  stats: () => current?.snapshot() ?? null,
};

async function join({ room, name, tracks, muted }) {
  const call = new Call(room, name);
  if (tracks.microphone) call.publish('microphone', tracks.microphone, { paused: muted });
  if (tracks.camera) call.publish('camera', tracks.camera);
  try {
    await call.join();
  } catch (error) {
    throw new Error(explain(error));
  }
  const url = new URL(location.href);
  url.searchParams.set('room', room);
  url.searchParams.delete('name');
  history.replaceState(null, '', url);
  current = new CallView(call, room, name);
  return (source, track) => call.publish(source, track).catch((error) => notify(explain(error)));
}

/** The page during a call: header, stage, toolbar, keys. */
class CallView {
  #room;
  #name;
  #stage;
  #meter = null;
  #metered = null;
  #wakeLock = null;
  #listeners = new AbortController();
  #timers = [];

  constructor(call, room, name) {
    this.call = call;
    this.#room = room;
    this.#name = name;
    $('call').hidden = false;
    $('room-title').textContent = room;
    document.title = `${room} · Ringside`;
    this.#stage = new Stage($('stage'), call, { onSoundBlocked: () => ($('sound-on').hidden = false) });
    this.#wire();
    this.#timers.push(setInterval(() => this.#measure(), STATISTICS_PERIOD_MS));
    this.#timers.push(setInterval(() => this.#listen(), LEVEL_PERIOD_MS));
    this.#stayAwake();
    this.#show();
  }

  /** What the tests and the console read. */
  snapshot() {
    const { call } = this;
    return {
      state: call.state,
      room: this.#room,
      pinned: this.#stage.pinned,
      speaker: call.speaker,
      own: Object.fromEntries([...call.own].map(([source, { paused, measured }]) => [source, { paused, measured }])),
      peers: [...call.peers.values()].map(({ peerId, name, streams }) => ({
        peerId,
        name,
        streams: [...streams.values()].map(({ consumer, track, ...stream }) => ({ ...stream, live: !consumer.closed && track.readyState === 'live' })),
      })),
    };
  }

  #wire() {
    const { signal } = this.#listeners;
    const on = (target, type, listener) => target.addEventListener(type, listener, { signal });
    on(this.call, 'change', () => this.#show());
    on(this.call, 'notice', ({ detail }) => notify(detail));
    on($('mic'), 'click', () => this.#toggleMicrophone());
    on($('camera'), 'click', () => this.#toggleCamera());
    on($('screen'), 'click', () => this.#toggleScreen());
    on($('leave'), 'click', () => this.call.leave());
    on($('settings'), 'click', () => this.#openSettings());
    on($('choose-audio'), 'change', ({ target }) => this.#choose('audio', target.value));
    on($('choose-video'), 'change', ({ target }) => this.#choose('video', target.value));
    on($('share-link'), 'click', () => this.#copyLink());
    on($('sound-on'), 'click', () => this.#stage.playSounds().then(() => ($('sound-on').hidden = true)));
    on(document, 'keydown', (event) => this.#key(event));
    on(document, 'visibilitychange', () => this.#stayAwake());
    on(window, 'pagehide', () => this.call.leave());
  }

  #show() {
    const { call } = this;
    if (call.state === 'ended') return this.#close();
    this.#stage.reconcile(this.#name);
    const others = call.peers.size;
    $('people').textContent = others === 0 ? 'Nobody else is here yet' : `${others + 1} people`;
    $('connection').textContent = CONNECTION[call.state];
    $('connection').dataset.state = call.state;
    const microphone = call.own.get('microphone');
    button('mic', !!microphone && !microphone.paused, { on: 'Mute', off: 'Unmute', icons: ['i-mic', 'i-mic-off'] });
    button('camera', call.own.has('camera'), { on: 'Stop video', off: 'Start video', icons: ['i-camera', 'i-camera-off'] });
    button('screen', call.own.has('screen'), { on: 'Stop sharing', off: 'Share screen' });
    this.#followMicrophone(microphone?.track ?? null);
  }

  #close() {
    for (const timer of this.#timers) clearInterval(timer);
    this.#listeners.abort();
    this.#followMicrophone(null);
    this.#wakeLock?.release().catch(() => {});
    this.#stage.close();
    $('call').hidden = true;
    $('devices').close();
    document.title = 'Ringside';
    current = null;
    lobby.open();
    if (this.call.error) lobby.showError(explain(this.call.error));
  }

  // ---- controls

  async #toggleMicrophone() {
    const microphone = this.call.own.get('microphone');
    if (microphone) this.call.setPaused('microphone', !microphone.paused);
    else await this.#open('microphone', 'audio');
  }

  async #toggleCamera() {
    if (this.call.own.has('camera')) this.call.unpublish('camera');
    else await this.#open('camera', 'video');
  }

  async #open(source, kind) {
    const track = await openDevice(kind, deviceChoice.get(kind)).catch((error) => notify(explainDevice(kind, error)));
    if (track) await this.#publish(source, track);
  }

  async #toggleScreen() {
    const { call } = this;
    if (call.own.has('screen')) {
      call.unpublish('screen');
      call.unpublish('screen-sound');
      return;
    }
    const screen = await openScreen().catch((error) => notify(explainDevice('screen', error)));
    if (!screen) return;
    screen.video.addEventListener('ended', () => call.unpublish('screen-sound'));
    await this.#publish('screen', screen.video);
    if (screen.audio) await this.#publish('screen-sound', screen.audio);
  }

  async #publish(source, track) {
    if (this.call.state === 'ended') return track.stop();
    await this.call.publish(source, track).catch((error) => notify(explain(error)));
  }

  async #openSettings() {
    for (const kind of ['audio', 'video']) {
      const options = (await listDevices(kind)).map(
        ({ deviceId, label }, index) => new Option(label || `Device ${index + 1}`, deviceId, false, deviceId === deviceChoice.get(kind)),
      );
      $(`choose-${kind}`).replaceChildren(...(options.length > 0 ? options : [new Option('None found', '')]));
    }
    $('devices').showModal();
  }

  async #choose(kind, deviceId) {
    deviceChoice.set(kind, deviceId);
    const source = kind === 'audio' ? 'microphone' : 'camera';
    if (this.call.own.has(source)) await this.#open(source, kind);
  }

  async #copyLink() {
    const url = new URL(location.href);
    url.search = new URLSearchParams({ room: this.#room });
    if (navigator.share && matchMedia('(pointer: coarse)').matches) {
      return navigator.share({ title: `Ringside: ${this.#room}`, url: url.href }).catch(() => {});
    }
    await navigator.clipboard?.writeText(url.href).then(
      () => notify('Link copied. Whoever opens it is in this room.'),
      () => notify(url.href),
    );
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || $('devices').open) return;
    if (event.target.matches('input, select, textarea')) return;
    switch (event.key.toLowerCase()) {
      case 'm':
        return this.#toggleMicrophone();
      case 'v':
        return this.#toggleCamera();
      case 's':
        return this.#toggleScreen();
      case 'escape':
        if (this.#stage.pinned) this.#stage.pin(this.#stage.pinned);
    }
  }

  // ---- what moves by itself

  async #measure() {
    await this.call.measure();
    this.#stage.measure();
  }

  #listen() {
    this.call.listen();
    const muted = this.call.own.get('microphone')?.paused ?? true;
    this.#stage.listen(muted ? 0 : (this.#meter?.level ?? 0));
  }

  #followMicrophone(track) {
    if (track === this.#metered) return;
    this.#metered = track;
    this.#meter?.close();
    this.#meter = track && new LevelMeter(track);
  }

  // A phone that goes to sleep in the middle of a call has left it.
  async #stayAwake() {
    if (document.visibilityState !== 'visible') return;
    this.#wakeLock = (await navigator.wakeLock?.request('screen').catch(() => null)) ?? null;
  }
}

function button(id, pressed, { on, off, icons }) {
  const element = $(id);
  element.setAttribute('aria-pressed', String(pressed));
  element.querySelector('span').textContent = pressed ? on : off;
  if (icons) element.querySelector('use').setAttribute('href', `#${icons[pressed ? 0 : 1]}`);
}

function notify(text) {
  const last = $('notices').lastElementChild;
  if (last?.textContent === text) return;
  const notice = document.createElement('p');
  notice.textContent = text;
  $('notices').append(notice);
  setTimeout(() => notice.remove(), NOTICE_MS);
}
