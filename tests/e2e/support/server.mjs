// Starts a server for one test file, on ports of its own, and ends that one. Which: `ringside` as cargo built it
// (RINGSIDE_BIN, else the newest of target/release and target/debug); with E2E_SERVER=mediasoup the mediasoup server of
// loadtest/peers, which shows that the clients here are standard ones.

import { spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { existsSync, statSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const START_TIMEOUT_MS = 30_000;
const UDP_PORTS = 20;

export const isMediasoup = process.env.E2E_SERVER === 'mediasoup';

/**
 * `{ url, port, ports: { min, max }, log(), stop() }` once /health answers. `args` and `env` are added for Ringside;
 * `like` is a stopped server whose ports this one takes; with one worker all media goes through `ports.min`.
 */
export async function startServer({ workers = 2, args = [], env = {}, like } = {}) {
  const port = like?.port ?? (await freeTcpPort());
  const min = like?.ports.min ?? (await freeUdpRange(UDP_PORTS));
  const max = min + UDP_PORTS - 1;
  const front = isMediasoup ? await openFront(port) : null;
  const [command, ...rest] = isMediasoup ? mediasoup(front.behind, min, max, workers) : [ringside(), '--workers', `${workers}`, ...args];
  const child = spawn(command, rest, {
    env: {
      ...process.env,
      PORT: String(port),
      MEDIASOUP_ANNOUNCED_IP: '127.0.0.1',
      MEDIASOUP_RTC_MIN_PORT: String(min),
      MEDIASOUP_RTC_MAX_PORT: String(max),
      ...env,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let log = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (log = (log + chunk).slice(-8000)));
  const ended = new Promise((resolve) => child.once('exit', (code, signal) => resolve(code ?? signal)));
  // A test run that is interrupted leaves no server behind.
  const kill = () => child.kill('SIGKILL');
  process.once('exit', kill);
  let stopping = false;
  ended.then((code) => {
    process.off('exit', kill);
    if (!stopping) console.error(`the server ended by itself with ${code}:\n${log}`);
  });
  const url = `http://127.0.0.1:${port}`;
  await Promise.race([
    healthy(url),
    ended.then((code) => {
      throw new Error(`the server ended with ${code}:\n${log}`);
    }),
  ]);
  return {
    url,
    port,
    ports: { min, max },
    log: () => log,
    async stop() {
      stopping = true;
      front?.close();
      child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), 8000);
      await ended;
      clearTimeout(timer);
    },
  };
}

function ringside() {
  const built = ['release', 'debug'].map((profile) => `${process.env.CARGO_TARGET_DIR ?? `${root}target`}/${profile}/ringside`);
  const newest = built.filter(existsSync).sort((a, b) => statSync(b).mtimeMs - statSync(a).mtimeMs)[0];
  const path = process.env.RINGSIDE_BIN ?? newest;
  if (!path) throw new Error('no ringside binary: cargo build, or set RINGSIDE_BIN');
  return path;
}

// The mediasoup server has no demo page: this serves ours in front of it and passes the rest on.
async function openFront(port) {
  const behind = await freeTcpPort();
  const types = { '/': ['index.html', 'text/html'], '/app.js': ['app.js', 'text/javascript'], '/app.css': ['app.css', 'text/css'] };
  const server = createServer((socket) => {
    socket.once('data', async (head) => {
      const [file, type] = types[/^GET ([^ ?]*)/.exec(head)?.[1]] ?? [];
      if (file) {
        const body = await readFile(`${root}web/dist/${file}`);
        socket.write(`HTTP/1.1 200 OK\r\ncontent-type: ${type}\r\ncontent-length: ${body.length}\r\nconnection: close\r\n\r\n`);
        return socket.end(body);
      }
      const through = connect(behind, '127.0.0.1');
      through.write(head);
      socket.pipe(through).pipe(socket);
      through.on('error', () => socket.destroy());
      sockets.add(through);
    });
    socket.on('error', () => {});
    sockets.add(socket);
  });
  const sockets = new Set();
  await new Promise((resolve) => server.listen(port, '127.0.0.1', resolve));
  return {
    behind,
    close() {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

function mediasoup(port, min, max, workers) {
  const script = `${root}loadtest/peers/mediasoup/server.mjs`;
  const settings = { port, 'rtc-min-port': min, 'rtc-max-port': max, workers, 'initial-bitrate': 1_000_000 };
  return ['node', script, '--one-port', ...Object.entries(settings).flatMap(([name, value]) => [`--${name}`, `${value}`])];
}

async function healthy(url) {
  for (const deadline = Date.now() + START_TIMEOUT_MS; Date.now() < deadline; ) {
    const answer = await fetch(`${url}/health`).catch(() => null);
    if (answer?.ok) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`the server does not answer ${url}/health`);
}

async function freeTcpPort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

// Several test runs may share a machine: below the ports that the kernel hands out by itself, at a random place.
async function freeUdpRange(length) {
  for (let attempt = 0; attempt < 50; attempt++) {
    const start = 11_000 + Math.floor(Math.random() * 1000) * length;
    const free = await Promise.all(Array.from({ length }, (_, i) => udpPortIsFree(start + i)));
    if (free.every(Boolean)) return start;
  }
  throw new Error('no free range of UDP ports');
}

function udpPortIsFree(port) {
  return new Promise((resolve) => {
    const socket = createSocket('udp4');
    socket.once('error', () => resolve(false));
    socket.bind(port, '0.0.0.0', () => socket.close(() => resolve(true)));
  });
}
