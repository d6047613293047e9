// Before the call: name, room, and a look at oneself. Opens microphone and camera once and hands their tracks over to
// the call; a refused device is explained and does not keep anybody out.

import { openDevice } from '../devices.js';
import { explainDevice } from '../words.js';
import { LevelMeter } from './level_meter.js';

const $ = (id) => document.getElementById(id);
const SOURCES = { audio: 'microphone', video: 'camera' };
const NAME_KEY = 'ringside.name';

export class Lobby {
  #tracks = { audio: null, video: null };
  #wanted = { audio: true, video: true };
  #hints = {};
  #meter = null;
  #choice;
  #publish = null;

  /**
   * `onJoin({ room, name, tracks: { microphone, camera }, muted })` resolves to `publish(source, track)`, for a device
   * that the browser grants late; when it rejects, the lobby says why.
   */
  constructor({ deviceChoice, onJoin }) {
    this.#choice = deviceChoice;
    const query = new URLSearchParams(location.search);
    $('room').value = query.get('room') ?? '';
    $('name').value = query.get('name') ?? localStorage.getItem(NAME_KEY) ?? '';
    ($('name').value ? ($('room').value ? $('join') : $('room')) : $('name')).focus();
    $('lobby-mic').addEventListener('click', () => this.#toggle('audio'));
    $('lobby-camera').addEventListener('click', () => this.#toggle('video'));
    $('join-form').addEventListener('submit', (event) => {
      event.preventDefault();
      this.#join(onJoin);
    });
  }

  async open() {
    this.#publish = null;
    $('lobby').hidden = false;
    $('lobby-error').textContent = '';
    // One after the other, so that a browser that asks, asks one question at a time.
    await this.#start('audio');
    await this.#start('video');
  }

  showError(text) {
    $('lobby-error').textContent = text;
  }

  async #join(onJoin) {
    const name = $('name').value.trim();
    const room = $('room').value.trim();
    if (!name || !room) return;
    localStorage.setItem(NAME_KEY, name);
    $('join').disabled = true;
    $('join').textContent = 'Joining…';
    this.showError('');
    const tracks = { microphone: this.#tracks.audio, camera: this.#tracks.video };
    this.#tracks = { audio: null, video: null };
    try {
      this.#publish = await onJoin({ room, name, tracks, muted: !this.#wanted.audio });
      $('lobby').hidden = true;
      for (const [kind, track] of Object.entries(this.#tracks)) if (track) this.#publish(SOURCES[kind], track);
      this.#tracks = { audio: null, video: null };
      this.#show();
    } catch (error) {
      await this.open();
      this.showError(error.message);
    } finally {
      $('join').disabled = false;
      $('join').textContent = 'Join';
    }
  }

  async #toggle(kind) {
    this.#wanted[kind] = !this.#wanted[kind];
    if (this.#wanted[kind]) return this.#start(kind);
    this.#tracks[kind]?.stop();
    this.#tracks[kind] = null;
    this.#show();
  }

  async #start(kind) {
    if (!this.#wanted[kind] || this.#tracks[kind]) return this.#show();
    try {
      const track = await openDevice(kind, this.#choice.get(kind));
      if (!this.#wanted[kind]) track.stop();
      else if (this.#publish) this.#publish(SOURCES[kind], track);
      else this.#tracks[kind] = track;
      delete this.#hints[kind];
    } catch (error) {
      this.#wanted[kind] = false;
      this.#hints[kind] = explainDevice(kind, error);
    }
    this.#show();
  }

  #show() {
    for (const [kind, source] of Object.entries(SOURCES)) {
      const button = $(kind === 'audio' ? 'lobby-mic' : 'lobby-camera');
      button.setAttribute('aria-pressed', String(this.#wanted[kind]));
      button.title = `${this.#wanted[kind] ? 'Join without' : 'Join with'} ${source}`;
      button.querySelector('use').setAttribute('href', `#i-${kind === 'audio' ? 'mic' : 'camera'}${this.#wanted[kind] ? '' : '-off'}`);
    }
    const { audio, video } = this.#tracks;
    const preview = $('preview-video');
    if ((preview.srcObject?.getVideoTracks()[0] ?? null) !== video) {
      preview.srcObject = video ? new MediaStream([video]) : null;
    }
    $('preview').classList.toggle('has-picture', !!video);
    $('preview-text').textContent = this.#wanted.video ? 'Camera is starting…' : 'Camera is off';
    $('lobby-hint').textContent = Object.values(this.#hints).join(' ');
    this.#meter?.close();
    this.#meter = audio ? new LevelMeter(audio) : null;
    this.#meter?.follow((level) => $('preview-meter').style.setProperty('--level', level.toFixed(2)));
    if (!audio) $('preview-meter').style.setProperty('--level', '0');
  }
}
