// The methods of the signaling, each a function of the asking peer and the request's data.

export class Refusal extends Error {
  constructor(code, reason) {
    super(reason);
    this.code = code;
  }
}

export const methods = {
  'get-rtp-capabilities': (peer) => ({ rtpCapabilities: peer.room.router.rtpCapabilities }),

  'create-transport': (peer, { direction }) => createTransport(peer, direction),

  async 'connect-transport'(peer, { transportId, dtlsParameters }) {
    const transport = found(peer.transports, transportId);
    if (transport.appData.connected) throw new Refusal('already-connected', 'the transport is connected already');
    transport.appData.connected = true;
    await transport.connect({ dtlsParameters });
    return {};
  },

  async produce(peer, { transportId, kind, rtpParameters, paused, appData }) {
    const transport = found(peer.transports, transportId);
    // mediasoup keeps the caller's appData object to itself; the application's own lies one level deeper.
    const producer = await transport.produce({ kind, rtpParameters, paused, appData: { own: appData ?? {} } });
    peer.room.produced(peer, producer);
    return { id: producer.id };
  },

  async consume(peer, { transportId, producerId, rtpCapabilities }) {
    const { producer, owner } = found(peer.room.producers, producerId);
    const transport = transportId === undefined ? receiving(peer) : found(peer.transports, transportId);
    if (!peer.room.router.canConsume({ producerId, rtpCapabilities })) {
      throw new Refusal('cannot-consume', 'the capabilities do not fit this producer');
    }
    const consumer = await transport.consume({ producerId, rtpCapabilities, paused: true });
    watch(peer, consumer);
    return {
      id: consumer.id,
      producerId,
      peerId: owner.id,
      kind: consumer.kind,
      type: consumer.type,
      rtpParameters: consumer.rtpParameters,
      producerPaused: consumer.producerPaused,
      appData: producer.appData.own,
    };
  },

  'resume-consumer': (peer, { consumerId }) => done(found(peer.consumers, consumerId).resume()),
  'pause-consumer': (peer, { consumerId }) => done(found(peer.consumers, consumerId).pause()),
  'request-key-frame': (peer, { consumerId }) => done(found(peer.consumers, consumerId).requestKeyFrame()),
  'set-preferred-layers': (peer, { consumerId, spatialLayer, temporalLayer }) =>
    done(found(peer.consumers, consumerId).setPreferredLayers({ spatialLayer, temporalLayer })),
  'set-consumer-priority': (peer, { consumerId, priority }) => done(found(peer.consumers, consumerId).setPriority(priority)),

  'close-consumer'(peer, { consumerId }) {
    found(peer.consumers, consumerId).close();
    peer.consumers.delete(consumerId);
    return {};
  },

  async 'pause-producer'(peer, { producerId }) {
    await found(peer.producers, producerId).pause();
    peer.room.notifyOthers(peer, 'producer-paused', { producerId, peerId: peer.id });
    return {};
  },

  async 'resume-producer'(peer, { producerId }) {
    await found(peer.producers, producerId).resume();
    peer.room.notifyOthers(peer, 'producer-resumed', { producerId, peerId: peer.id });
    return {};
  },

  'close-producer'(peer, { producerId }) {
    const producer = found(peer.producers, producerId);
    producer.close();
    peer.room.producerClosed(peer, producer);
    return {};
  },

  'get-producers': (peer) => ({ producers: peer.room.announcements(peer) }),

  async join(peer, { produce = true, consume = true }) {
    const sendTransport = produce ? await createTransport(peer, 'send') : undefined;
    const recvTransport = consume ? await createTransport(peer, 'recv') : undefined;
    return {
      peerId: peer.id,
      rtpCapabilities: peer.room.router.rtpCapabilities,
      sendTransport,
      recvTransport,
      peers: [...peer.room.peers.values()].filter((other) => other !== peer).map((other) => ({ peerId: other.id, displayName: other.displayName })),
      producers: peer.room.announcements(peer),
    };
  },

  async 'restart-ice'(peer, { transportId }) {
    return { iceParameters: await found(peer.transports, transportId).restartIce() };
  },

  async 'get-stats'(peer, { transportId, producerId, consumerId }) {
    const source =
      transportId !== undefined
        ? found(peer.transports, transportId)
        : producerId !== undefined
          ? found(peer.producers, producerId)
          : found(peer.consumers, consumerId);
    return { stats: await source.getStats() };
  },

  'close-transport'(peer, { transportId }) {
    found(peer.transports, transportId).close();
    peer.transports.delete(transportId);
    return {};
  },

  leave(peer) {
    setImmediate(() => peer.socket.close(1000, 'left'));
    return {};
  },
};

async function createTransport(peer, direction) {
  if (direction !== 'send' && direction !== 'recv') throw new Refusal('bad-request', 'direction is "send" or "recv"');
  const { webRtcServer, listenInfos } = peer.room.place;
  const transport = await peer.room.router.createWebRtcTransport({
    ...(webRtcServer ? { webRtcServer } : { listenInfos }),
    enableUdp: true,
    enableTcp: false,
    initialAvailableOutgoingBitrate: peer.room.settings.initialBitrateBps,
    appData: { direction, connected: false },
  });
  peer.transports.set(transport.id, transport);
  const tell = () => peer.notify('transport-state', { transportId: transport.id, ice: transport.iceState, dtls: transport.dtlsState });
  transport.on('icestatechange', tell);
  transport.on('dtlsstatechange', tell);
  return {
    id: transport.id,
    iceParameters: transport.iceParameters,
    iceCandidates: transport.iceCandidates,
    dtlsParameters: transport.dtlsParameters,
  };
}

function watch(peer, consumer) {
  const consumerId = consumer.id;
  peer.consumers.set(consumerId, consumer);
  consumer.on('producerpause', () => peer.notify('consumer-paused', { consumerId }));
  consumer.on('producerresume', () => peer.notify('consumer-resumed', { consumerId }));
  consumer.on('layerschange', (layers) => peer.notify('consumer-layers-changed', { consumerId, layers: layers ?? null }));
  consumer.on('score', (score) => peer.notify('consumer-score', { consumerId, score }));
  consumer.on('producerclose', () => {
    peer.consumers.delete(consumerId);
    peer.notify('consumer-closed', { consumerId });
  });
  consumer.on('transportclose', () => peer.consumers.delete(consumerId));
}

function receiving(peer) {
  const transport = [...peer.transports.values()].find(({ appData }) => appData.direction === 'recv');
  if (transport === undefined) throw new Refusal('not-found', 'no receiving transport');
  return transport;
}

function found(table, id) {
  const value = table.get(id);
  if (value === undefined) throw new Refusal('not-found', `no such id: ${id}`);
  return value;
}

async function done(promise) {
  await promise;
  return {};
}
