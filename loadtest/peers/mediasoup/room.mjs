// One room: a router, its peers, and who must hear of what. Everything of a peer goes when its socket closes.

import { randomUUID } from 'node:crypto';
import { Refusal, methods } from './methods.mjs';

const mediaCodecs = [
  { kind: 'audio', mimeType: 'audio/opus', clockRate: 48000, channels: 2 },
  { kind: 'video', mimeType: 'video/VP8', clockRate: 90000 },
];

export class Room {
  static async open(name, place, settings) {
    const router = await place.worker.createRouter({ mediaCodecs });
    return new Room(name, place, router, settings);
  }

  constructor(name, place, router, settings) {
    this.name = name;
    this.place = place;
    this.router = router;
    this.settings = settings;
    this.peers = new Map();
    this.producers = new Map();
  }

  enter(socket, wantedId, displayName, early) {
    const id = wantedId ?? randomUUID();
    if (this.peers.has(id)) {
      socket.close(4000, 'peer-id-taken');
      return;
    }
    const peer = new Peer(id, displayName, socket, this);
    this.peers.set(id, peer);
    this.notifyOthers(peer, 'peer-joined', { peerId: id, displayName });
    for (const { producer, owner } of this.producers.values()) {
      peer.notify('new-producer', announcement(producer, owner));
    }
    socket.on('message', (data) => peer.receive(data));
    socket.on('close', () => this.leave(peer));
    socket.on('error', () => socket.terminate());
    for (const data of early) peer.receive(data);
  }

  leave(peer) {
    if (this.peers.get(peer.id) !== peer) return;
    this.peers.delete(peer.id);
    for (const transport of peer.transports.values()) transport.close();
    for (const producer of peer.producers.values()) this.producerClosed(peer, producer);
    this.notifyOthers(peer, 'peer-left', { peerId: peer.id });
    if (this.peers.size === 0) {
      this.router.close();
      this.settings.closed();
    }
  }

  produced(peer, producer) {
    peer.producers.set(producer.id, producer);
    this.producers.set(producer.id, { producer, owner: peer });
    producer.on('score', (score) => peer.notify('producer-score', { producerId: producer.id, score }));
    this.notifyOthers(peer, 'new-producer', announcement(producer, peer));
  }

  producerClosed(peer, producer) {
    if (!this.producers.delete(producer.id)) return;
    peer.producers.delete(producer.id);
    this.notifyOthers(peer, 'producer-closed', { producerId: producer.id, peerId: peer.id });
  }

  notifyOthers(peer, method, data) {
    for (const other of this.peers.values()) {
      if (other !== peer) other.notify(method, data);
    }
  }

  announcements(exceptOf) {
    return [...this.producers.values()].filter(({ owner }) => owner !== exceptOf).map(({ producer, owner }) => announcement(producer, owner));
  }
}

class Peer {
  constructor(id, displayName, socket, room) {
    this.id = id;
    this.displayName = displayName;
    this.socket = socket;
    this.room = room;
    this.transports = new Map();
    this.producers = new Map();
    this.consumers = new Map();
  }

  async receive(data) {
    let request;
    try {
      request = JSON.parse(data);
    } catch {
      this.refuse(undefined, new Refusal('bad-request', 'not JSON'));
      return;
    }
    if (request?.request !== true) return;
    try {
      const method = methods[request.method];
      if (method === undefined) throw new Refusal('unknown-method', `no method ${request.method}`);
      const answer = await method(this, request.data ?? {});
      this.send({ response: true, id: request.id, ok: true, data: answer });
    } catch (error) {
      this.refuse(request.id, error);
    }
  }

  refuse(id, error) {
    const errorCode = error instanceof Refusal ? error.code : error instanceof TypeError ? 'bad-request' : 'internal';
    this.send({ response: true, id, ok: false, errorCode, errorReason: error.message });
  }

  notify(method, data) {
    this.send({ notification: true, method, data });
  }

  send(message) {
    if (this.socket.readyState === this.socket.OPEN) this.socket.send(JSON.stringify(message));
  }
}

function announcement(producer, owner) {
  return {
    producerId: producer.id,
    peerId: owner.id,
    kind: producer.kind,
    type: producer.type,
    paused: producer.paused,
    appData: producer.appData.own,
  };
}
