// The test page over WebSocket: unmodified protoo-client.
import { Peer, WebSocketTransport } from 'protoo-client';
import { Participant } from './participant.js';

const connect = (url, roomId, onNotification) =>
  new Promise((resolve, reject) => {
    const transport = new WebSocketTransport(`${url.replace('http', 'ws')}/room/${roomId}`, { retry: { retries: 0 } });
    const peer = new Peer(transport);
    peer.on('notification', ({ method, data }) => onNotification(method, data));
    peer.on('failed', () => reject(new Error('protoo: connection failed')));
    peer.on('open', () => resolve({ request: (method, data) => peer.request(method, data), close: () => peer.close() }));
  });

window.participant = new Participant();
window.join = (options) => window.participant.join(connect, options);
