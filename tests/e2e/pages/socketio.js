// The test page over Socket.IO: unmodified socket.io-client. Refusals come as `{ error: { code, message } }`.
import { io } from 'socket.io-client';
import { Participant } from './participant.js';

const connect = (url, roomId, onNotification, transports) =>
  new Promise((resolve, reject) => {
    const socket = io(`${url}/room/${roomId}`, { transports, forceNew: true, reconnection: false });
    socket.onAny(onNotification);
    socket.on('connect_error', reject);
    socket.on('connect', () => resolve({ request, close: () => socket.close(), socket }));
    const request = async (method, data) => {
      const answer = await socket.timeout(15_000).emitWithAck(method, data);
      if (answer?.error) throw Object.assign(new Error(answer.error.message), { code: answer.error.code });
      return answer;
    };
  });

window.participant = new Participant();
window.join = ({ transports = ['websocket'], ...options }) =>
  window.participant.join((url, roomId, listener) => connect(url, roomId, listener, transports), options);
