// The tiles: which there are, where they stand, and which picture size each asks the server for. Reconciles with the
// call on every change; one pinned tile takes the stage and the others become a strip.

import { Tile } from './tile.js';

const WIDEST = 16 / 9;
// A tall window may cut the sides of a picture, a wide one has no reason to.
const NARROWEST = { tall: 0.9, wide: 4 / 3 };
const GAP_PX = 8;
const SMALLEST_TILE_PX = 150;
// A tile may show a picture a little smaller than itself before the next layer is worth its bits.
const ENOUGH = 0.75;
const HIDDEN_BEFORE_PAUSE_MS = 2000;
const SETTLE_MS = 250;

export class Stage {
  #call;
  #element;
  #tiles = new Map();
  #sounds = new Map();
  #pinned = null;
  #unpinnedScreens = new Set();
  #hidden = new Map();
  #settle = 0;
  #onSoundBlocked;

  constructor(element, call, { onSoundBlocked }) {
    this.#call = call;
    this.#element = element;
    this.#onSoundBlocked = onSoundBlocked;
    this.resized = new ResizeObserver(() => this.#layOut());
    this.resized.observe(element);
    this.seen = new IntersectionObserver((entries) => this.#saw(entries), { root: element });
  }

  get tiles() {
    return this.#tiles;
  }

  get pinned() {
    return this.#pinned;
  }

  /** Makes the tiles and the sounds those of the call. */
  reconcile(ownName) {
    const wanted = new Map(this.#wanted(ownName));
    for (const [key, tile] of this.#tiles) if (!wanted.has(key)) this.#drop(key, tile);
    for (const [key, { screen, own }] of wanted) {
      if (screen && !own && !this.#pinned && !this.#unpinnedScreens.has(key)) this.#pinned = key;
    }
    for (const [key, content] of wanted) {
      const tile = this.#tiles.get(key) ?? this.#add(key, content);
      tile.show({ ...content, pinned: key === this.#pinned });
    }
    this.#reconcileSounds();
    this.#layOut();
  }

  /** The tile takes the stage, or leaves it when it has it. */
  pin(key) {
    if (this.#pinned && this.#tiles.get(this.#pinned)?.screen) this.#unpinnedScreens.add(this.#pinned);
    this.#pinned = this.#pinned === key ? null : key;
    for (const [other, tile] of this.#tiles) tile.element.classList.toggle('pinned', other === this.#pinned);
    this.#layOut();
  }

  measure() {
    for (const tile of this.#tiles.values()) tile.measure(tile.own ? this.#call.own.get(tile.source)?.measured : tile.stream?.measured);
  }

  /** `ownLevel` is our microphone's, 0 to 1. */
  listen(ownLevel) {
    const loudest = this.#call.speaker;
    for (const tile of this.#tiles.values()) {
      if (tile.screen) continue;
      const level = tile.own ? ownLevel : this.#levelOf(tile.peerId);
      tile.speak(level, loudest !== null && loudest === (tile.own ? this.#call.peerId : tile.peerId));
    }
  }

  async playSounds() {
    await Promise.all([...this.#sounds.values()].map((sound) => sound.play()));
  }

  close() {
    for (const [key, tile] of this.#tiles) this.#drop(key, tile);
    for (const sound of this.#sounds.values()) sound.srcObject = null;
    this.#sounds.clear();
    this.resized.disconnect();
    this.seen.disconnect();
  }

  // ---- what should be there

  *#wanted(ownName) {
    for (const peer of this.#call.peers.values()) {
      const streams = [...peer.streams.values()];
      const name = peer.name || 'Guest';
      const screen = streams.find((stream) => stream.source === 'screen');
      if (screen) yield [`${peer.peerId}:screen`, { name, peer, stream: screen, picture: screen.track, screen: true }];
    }
    const ownScreen = this.#call.own.get('screen');
    if (ownScreen) yield ['own:screen', { name: ownName, own: true, picture: ownScreen.track, screen: true, source: 'screen' }];
    for (const peer of this.#call.peers.values()) {
      const streams = [...peer.streams.values()];
      const camera = streams.find((stream) => stream.source === 'camera');
      const microphone = streams.find((stream) => stream.source === 'microphone');
      const picture = camera && !camera.producerPaused ? camera.track : null;
      const muted = !microphone || microphone.producerPaused;
      yield [`${peer.peerId}:camera`, { name: peer.name || 'Guest', peer, stream: camera, picture, muted }];
    }
    const camera = this.#call.own.get('camera');
    const microphone = this.#call.own.get('microphone');
    const muted = !microphone || microphone.paused;
    yield ['own:camera', { name: ownName, own: true, picture: camera?.track ?? null, muted, source: 'camera' }];
  }

  #add(key, { screen, own, peer, source }) {
    const tile = new Tile(key, { screen: !!screen, own: !!own, onPin: (pinned) => this.pin(pinned) });
    tile.peerId = peer?.peerId;
    tile.source = source;
    this.#tiles.set(key, tile);
    this.#element.append(tile.element);
    if (!own) this.seen.observe(tile.element);
    return tile;
  }

  #drop(key, tile) {
    this.#tiles.delete(key);
    this.seen.unobserve(tile.element);
    clearTimeout(this.#hidden.get(key));
    this.#hidden.delete(key);
    this.#unpinnedScreens.delete(key);
    if (this.#pinned === key) this.#pinned = null;
    tile.remove();
  }

  #reconcileSounds() {
    const wanted = new Map([...this.#call.streams()].filter((s) => s.kind === 'audio').map((s) => [s.id, s]));
    for (const [id, sound] of this.#sounds) {
      if (wanted.has(id)) continue;
      sound.srcObject = null;
      this.#sounds.delete(id);
    }
    for (const [id, stream] of wanted) {
      if (this.#sounds.has(id)) continue;
      const sound = new Audio();
      sound.srcObject = new MediaStream([stream.track]);
      sound.play().catch((error) => error.name === 'NotAllowedError' && this.#onSoundBlocked());
      this.#sounds.set(id, sound);
    }
  }

  #levelOf(peerId) {
    const streams = this.#call.peers.get(peerId)?.streams.values() ?? [];
    let level = 0;
    for (const stream of streams) if (stream.kind === 'audio') level = Math.max(level, stream.level);
    return level;
  }

  // ---- where it stands

  #layOut() {
    const style = getComputedStyle(this.#element);
    const width = this.#element.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    const height = this.#element.clientHeight - parseFloat(style.paddingTop) - parseFloat(style.paddingBottom);
    if (width <= 0 || height <= 0) return;
    const pinned = this.#tiles.get(this.#pinned);
    this.#element.dataset.layout = pinned && this.#tiles.size > 1 ? (width > height ? 'side' : 'below') : 'grid';
    const { tileWidth, tileHeight } = bestGrid(this.#tiles.size, width, height);
    const sizes = { 'tile-width': tileWidth, 'tile-height': tileHeight, 'stage-width': width, 'stage-height': height };
    this.#element.style.setProperty('--others', Math.max(1, this.#tiles.size - 1));
    for (const [name, px] of Object.entries(sizes)) this.#element.style.setProperty(`--${name}`, `${Math.floor(px)}px`);
    clearTimeout(this.#settle);
    this.#settle = setTimeout(() => this.#askForLayers(), SETTLE_MS);
  }

  #askForLayers() {
    for (const [key, tile] of this.#tiles) {
      const { stream } = tile;
      if (!stream || stream.kind !== 'video') continue;
      const top = stream.spatialLayers - 1;
      if (!this.#pinned) this.#call.preferLayer(stream, layerFor(tile.element.clientHeight * devicePixelRatio, stream.height, top));
      else this.#call.preferLayer(stream, key === this.#pinned ? top : 0);
    }
  }

  // A picture that nobody sees costs the server, the link and the battery: it is paused when its tile is scrolled away.
  #saw(entries) {
    for (const { target, isIntersecting } of entries) {
      const { key } = target.dataset;
      clearTimeout(this.#hidden.get(key));
      this.#hidden.delete(key);
      const pause = () => {
        const stream = this.#tiles.get(key)?.stream;
        if (stream) this.#call.setStreamPaused(stream, !isIntersecting);
      };
      if (isIntersecting) pause();
      else this.#hidden.set(key, setTimeout(pause, HIDDEN_BEFORE_PAUSE_MS));
    }
  }
}

/** The columns that give `count` tiles the largest area, without going below the smallest useful size. */
function bestGrid(count, width, height) {
  const narrowest = width > height ? NARROWEST.wide : NARROWEST.tall;
  let best = { area: -1 };
  for (let columns = 1; columns <= Math.max(1, count); columns++) {
    const rows = Math.ceil(count / columns);
    const columnWidth = (width - GAP_PX * (columns - 1)) / columns;
    if (columns > 1 && columnWidth < SMALLEST_TILE_PX) break;
    let tileHeight = (height - GAP_PX * (rows - 1)) / rows;
    let tileWidth = Math.min(columnWidth, tileHeight * WIDEST);
    tileHeight = Math.min(tileHeight, tileWidth / narrowest);
    // Too many for the height: keep them useful and scroll.
    if (tileWidth < SMALLEST_TILE_PX) {
      tileWidth = columnWidth;
      tileHeight = columnWidth / WIDEST;
      if (best.area < 0 || best.scrolls) best = { area: 0, scrolls: true, tileWidth, tileHeight };
      continue;
    }
    const area = tileWidth * tileHeight;
    if (area > best.area) best = { area, tileWidth, tileHeight };
  }
  return best;
}

/** The smallest layer that fills a tile; each has half the height of the next, the top one the camera's. */
function layerFor(tileHeight_px, cameraHeight_px, top) {
  for (let layer = 0; layer < top; layer++) {
    if (cameraHeight_px / 2 ** (top - layer) >= tileHeight_px * ENOUGH) return layer;
  }
  return top;
}
