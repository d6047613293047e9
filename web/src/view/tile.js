// One participant's picture, or one shared screen: video or initials, name, what arrives, and why.
// Shows what it is given; knows nothing of the call.

import { REASONS, formatBitrate } from '../words.js';

const MUTED = '<svg class="muted" role="img" aria-label="muted"><use href="#i-mic-off"/></svg>';

export class Tile {
  /** @param onPin called when the person clicks the tile, or presses Enter on it */
  constructor(key, { screen, own, onPin }) {
    this.key = key;
    this.screen = screen;
    this.own = own;
    this.element = document.createElement('article');
    this.element.className = `tile${screen ? ' screen' : ''}${own ? ' own' : ''}`;
    this.element.tabIndex = 0;
    this.element.dataset.key = key;
    this.element.innerHTML = `
      <video autoplay muted playsinline></video>
      <div class="avatar" aria-hidden="true"></div>
      <span class="reason" hidden></span>
      <svg class="pin" aria-hidden="true"><use href="#i-pin"/></svg>
      <div class="caption"><span class="name"></span><span class="figures"></span></div>`;
    this.video = this.element.querySelector('video');
    this.avatar = this.element.querySelector('.avatar');
    this.reason = this.element.querySelector('.reason');
    this.nameLine = this.element.querySelector('.name');
    this.figures = this.element.querySelector('.figures');
    this.element.addEventListener('click', () => onPin(key));
    this.element.addEventListener('keydown', (event) => {
      if (event.key !== 'Enter' && event.key !== ' ') return;
      event.preventDefault();
      onPin(key);
    });
  }

  /** `picture` is the track to show or null; `stream` the incoming stream behind it, if any. */
  show({ name, muted, picture, stream, pinned }) {
    this.stream = stream;
    this.#attach(picture);
    const title = this.screen ? `${name}: screen` : this.own ? `${name} (you)` : name;
    if (this.nameLine.dataset.shown !== `${title}|${muted}`) {
      this.nameLine.dataset.shown = `${title}|${muted}`;
      this.nameLine.innerHTML = muted ? MUTED : '';
      this.nameLine.append(title);
      this.avatar.textContent = initials(name);
      this.avatar.style.setProperty('--hue', hue(name));
    }
    this.element.classList.toggle('has-picture', !!picture);
    this.element.classList.toggle('pinned', pinned);
    this.element.setAttribute('aria-label', `${title}${muted ? ', muted' : ''}${pinned ? ', pinned' : ''}. Enter pins.`);
    this.#explain(stream);
  }

  /** `measured` as statistics.js makes it, or null. */
  measure(measured) {
    const shown = measured && this.element.classList.contains('has-picture') && measured.width > 0;
    const size = shown ? `${measured.width}×${measured.height}` : '';
    this.figures.textContent = shown && measured.bitrate_bps !== null ? `${size} · ${formatBitrate(measured.bitrate_bps)}` : size;
    if (shown) {
      const lost = measured.packetsLost === undefined ? '' : `, ${measured.packetsLost} packets lost`;
      this.figures.title = `${Math.round(measured.framesPerSecond)} pictures per second${lost}`;
    }
  }

  /** `level` from 0 to 1. */
  speak(level, active) {
    this.element.classList.toggle('speaking', level > 0.01);
    this.element.classList.toggle('active-speaker', active);
    this.element.style.setProperty('--level', Math.min(1, Math.sqrt(level) * 1.6).toFixed(2));
  }

  remove() {
    this.video.srcObject = null;
    this.element.remove();
  }

  #attach(picture) {
    const current = this.video.srcObject?.getVideoTracks()[0] ?? null;
    if (current === picture) return;
    this.video.srcObject = picture ? new MediaStream([picture]) : null;
    if (picture) this.video.play().catch(() => {});
  }

  #explain(stream) {
    const reason = stream?.producerPaused || stream?.paused ? 'paused' : stream?.reason;
    const isStopped = reason === 'bandwidth' && stream.kind === 'video' && !stream.layers;
    const words = REASONS[isStopped ? 'stopped' : reason];
    this.element.dataset.reason = reason ?? '';
    this.reason.hidden = !words?.badge;
    this.reason.textContent = words?.badge ?? '';
    this.reason.title = words?.text ?? '';
  }
}

function initials(name) {
  const words = name.trim().split(/\s+/).filter(Boolean);
  return [words[0], words.length > 1 ? words.at(-1) : null].map((word) => (word ? [...word][0] : '')).join('').toUpperCase() || '?';
}

function hue(name) {
  let sum = 0;
  for (const char of name) sum = (sum * 31 + char.codePointAt(0)) % 360;
  return sum;
}
