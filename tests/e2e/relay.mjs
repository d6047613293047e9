// A link that can be made bad: a UDP relay between browsers and one media port of the server. Each direction has its own
// rate, queue, delay and loss, changeable while media flows. Each browser address gets a socket of its own towards
// the server, which so sees as many addresses as there are browsers.

import { createSocket } from 'node:dgram';

const PERFECT = { rate_bps: Infinity, queue_ms: 300, delay_ms: 0, loss: 0 };

/** `target` is the server's media port on loopback. `seed` makes the losses repeatable. */
export async function startRelay(target, { seed = 1 } = {}) {
  const front = createSocket('udp4');
  const random = generator(seed);
  const up = new Link(random);
  const down = new Link(random);
  const behind = new Map();

  front.on('message', (datagram, { address, port }) => {
    const key = `${address}:${port}`;
    if (!behind.has(key)) {
      const socket = createSocket('udp4');
      socket.on('message', (answer) => down.pass(answer.length, () => front.send(answer, port, address)));
      socket.on('error', () => {});
      behind.set(key, socket);
    }
    up.pass(datagram.length, () => behind.get(key).send(datagram, target, '127.0.0.1'));
  });
  await new Promise((resolve) => front.bind(0, '127.0.0.1', resolve));

  return {
    port: front.address().port,
    /** What the browsers send, and what they receive: `limit({ rate_bps, queue_ms, delay_ms, loss })`. */
    up,
    down,
    close() {
      up.close();
      down.close();
      front.close();
      for (const socket of behind.values()) socket.close();
    },
  };
}

class Link {
  #settings = PERFECT;
  #random;
  #free_at = 0;
  #timers = new Set();
  #closed = false;
  passed = 0;
  dropped = 0;

  constructor(random) {
    this.#random = random;
  }

  /** What is not named is perfect. */
  limit(settings) {
    this.#settings = { ...PERFECT, ...settings };
    this.#free_at = 0;
  }

  close() {
    this.#closed = true;
    for (const timer of this.#timers) clearTimeout(timer);
  }

  /** Drops, or calls `send` when the datagram has gone through the queue and over the distance. */
  pass(bytes, send) {
    const { rate_bps, queue_ms, delay_ms, loss } = this.#settings;
    const now = performance.now();
    const start = Math.max(now, this.#free_at);
    if (this.#closed || this.#random() < loss || start - now > queue_ms) {
      this.dropped++;
      return;
    }
    this.passed++;
    this.#free_at = start + (bytes * 8000) / rate_bps;
    const wait_ms = this.#free_at - now + delay_ms;
    if (wait_ms < 1) return send();
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      send();
    }, wait_ms);
    this.#timers.add(timer);
  }
}

// mulberry32
function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}
