// A mediasoup server that speaks the same protoo signaling as Ringside, so that one load test and one
// set of browser tests can run against both. One router per room, rooms dealt to the workers in turn.
// It is a yardstick and a stand-in: no authentication, no limits, no state beyond its rooms.

import { existsSync } from 'node:fs';
import { createServer } from 'node:http';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import * as mediasoup from 'mediasoup';
import { WebSocketServer } from 'ws';
import { Room } from './room.mjs';

const { values: settings } = parseArgs({
  options: {
    help: { type: 'boolean', short: 'h', default: false },
    listen: { type: 'string', default: '127.0.0.1' },
    port: { type: 'string', default: '8200' },
    'announced-ip': { type: 'string', default: '127.0.0.1' },
    'rtc-min-port': { type: 'string', default: '20000' },
    'rtc-max-port': { type: 'string', default: '29999' },
    workers: { type: 'string', default: '1' },
    'one-port': { type: 'boolean', default: false },
    'socket-buffer': { type: 'string', default: '0' },
    'initial-bitrate': { type: 'string', default: '10000000' },
  },
});

if (settings.help) {
  console.log(`node server.mjs [settings]
  --listen IP           address of the HTTP port and of the media ports (127.0.0.1)
  --port N              HTTP and WebSocket port (8200)
  --announced-ip IP     address written into the ICE candidates (127.0.0.1)
  --rtc-min-port N      first UDP port (20000)
  --rtc-max-port N      last UDP port (29999)
  --workers N           mediasoup-worker processes (1)
  --one-port            one UDP port per worker for all transports (mediasoup's WebRtcServer)
  --socket-buffer N     bytes of SO_RCVBUF and SO_SNDBUF of each media socket, 0 keeps the kernel's default (0)
  --initial-bitrate N   initialAvailableOutgoingBitrate of every transport, bits/s (10000000)
The worker: MEDIASOUP_WORKER_BIN, else build/mediasoup-worker as made by ./build-worker, else the one that npm installed.`);
  process.exit(0);
}

const number = (name) => Number.parseInt(settings[name], 10);
const socketBufferBytes = number('socket-buffer');
const socketBuffers = socketBufferBytes > 0 ? { recvBufferSize: socketBufferBytes, sendBufferSize: socketBufferBytes } : {};

const built = fileURLToPath(new URL('./build/mediasoup-worker', import.meta.url));
const workerBin = process.env.MEDIASOUP_WORKER_BIN ?? (existsSync(built) ? built : undefined);

const workers = [];
for (let i = 0; i < number('workers'); i += 1) {
  const worker = await mediasoup.createWorker({ logLevel: 'error', workerBin });
  worker.on('died', (error) => {
    console.error(`worker ${worker.pid} died: ${error.message}`);
    process.exit(1);
  });
  const listenInfo = { protocol: 'udp', ip: settings.listen, announcedAddress: settings['announced-ip'], ...socketBuffers };
  const portRange = { min: number('rtc-min-port'), max: number('rtc-max-port') };
  const webRtcServer = settings['one-port']
    ? await worker.createWebRtcServer({ listenInfos: [{ ...listenInfo, port: portRange.min + i }] })
    : undefined;
  workers.push({ worker, webRtcServer, listenInfos: [{ ...listenInfo, portRange }] });
}

const rooms = new Map();
let placed = 0;

async function roomNamed(name) {
  if (!rooms.has(name)) {
    const place = workers[placed % workers.length];
    placed += 1;
    rooms.set(name, Room.open(name, place, { initialBitrateBps: number('initial-bitrate'), closed: () => rooms.delete(name) }));
  }
  return rooms.get(name);
}

const http = createServer((request, response) => {
  const body = request.url === '/health' ? 'ok\n' : `mediasoup ${mediasoup.version}\n`;
  response.writeHead(200, { 'content-type': 'text/plain', 'access-control-allow-origin': '*' }).end(body);
});
const sockets = new WebSocketServer({ server: http, handleProtocols: (offered) => (offered.has('protoo') ? 'protoo' : false) });

sockets.on('connection', async (socket, request) => {
  const url = new URL(request.url, 'http://server');
  const [, name] = /^\/room\/([^/]+)$/.exec(url.pathname) ?? [];
  if (name === undefined) {
    socket.close(1008, 'the path is /room/<room id>');
    return;
  }
  // Requests may arrive while the router is being made.
  const early = [];
  const keep = (data) => early.push(data);
  socket.on('message', keep);
  const room = await roomNamed(decodeURIComponent(name));
  socket.off('message', keep);
  room.enter(socket, url.searchParams.get('peerId') ?? undefined, url.searchParams.get('displayName'), early);
});

http.on('error', (error) => {
  console.error(error.code === 'EADDRINUSE' ? `port ${settings.port} is taken: choose another --port` : error.message);
  process.exit(2);
});
http.listen(number('port'), settings.listen, () => {
  console.log(`mediasoup ${mediasoup.version} on http://${settings.listen}:${settings.port}`);
  console.log(`pid ${process.pid}`);
  console.log(`worker pids ${workers.map(({ worker }) => worker.pid).join(' ')}`);
  console.log('ready');
});

for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, () => {
    for (const { worker } of workers) worker.close();
    process.exit(0);
  });
}
