// One signaling connection to a room: protoo frames over a WebSocket. Requests are answered by promises,
// notifications go to one listener. It never reconnects by itself: what to rebuild after a loss is the call's
// knowledge. Frames: {request,id,method,data} -> {response,id,ok,data | errorCode,errorReason}; {notification,method,data}.

import { isKnown } from './words.js';

const REQUEST_TIMEOUT_MS = 15_000;
const OPEN_TIMEOUT_MS = 8_000;

/**
 * A refusal by the server (`code` is one of its closed set) or by the connection (`timeout`, `unreachable`,
 * `connection-lost`). `isFinal`: trying again by itself would only repeat it.
 */
export class SignalingError extends Error {
  constructor(code, message) {
    super(message || code);
    this.code = code;
  }
}

export class Signaling {
  #socket;
  #ended = null;
  #pending = new Map();
  #nextId = 1;
  #onClosed;

  /**
   * Resolves once the room accepted the connection.
   * `onNotification(method, data)` may be called from then on; `onClosed(error)` once, unless `close()` was called.
   */
  static open(url, { onNotification, onClosed }) {
    return new Promise((resolve, reject) => {
      const socket = new WebSocket(url, 'protoo');
      const signaling = new Signaling(socket, onNotification);
      const timer = setTimeout(() => {
        socket.close();
        reject(new SignalingError('timeout', 'the server does not answer'));
      }, OPEN_TIMEOUT_MS);
      signaling.#onClosed = (error) => {
        clearTimeout(timer);
        reject(error.code === 'connection-lost' ? new SignalingError('unreachable', error.message) : error);
      };
      socket.addEventListener('open', () => {
        clearTimeout(timer);
        signaling.#onClosed = onClosed;
        resolve(signaling);
      });
    });
  }

  constructor(socket, onNotification) {
    this.#socket = socket;
    socket.addEventListener('message', ({ data }) => {
      const frame = parse(data);
      if (frame?.response) this.#settle(frame);
      else if (frame?.notification) onNotification(frame.method, frame.data ?? {});
    });
    socket.addEventListener('close', ({ code, reason }) => this.#lost(closeError(code, reason)));
  }

  request(method, data = {}) {
    if (this.#socket.readyState !== WebSocket.OPEN) {
      return Promise.reject(this.#ended ?? new SignalingError('connection-lost'));
    }
    const id = this.#nextId++;
    this.#socket.send(JSON.stringify({ request: true, id, method, data }));
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#pending.delete(id);
        reject(new SignalingError('timeout', `no answer to ${method}`));
      }, REQUEST_TIMEOUT_MS);
      this.#pending.set(id, { resolve, reject, timer });
    });
  }

  /** Says goodbye and closes; safe to call from `pagehide`. */
  leave() {
    if (this.#socket.readyState === WebSocket.OPEN) {
      this.#socket.send(JSON.stringify({ request: true, id: this.#nextId++, method: 'leave', data: {} }));
    }
    this.close();
  }

  /** Closes without a goodbye: the server may keep the place for another connection. */
  close() {
    this.#onClosed = null;
    this.#socket.close(1000);
    this.#lost(new SignalingError('connection-lost', 'the connection was closed'));
  }

  #settle({ id, ok, data, errorCode, errorReason }) {
    const pending = this.#pending.get(id);
    if (!pending) return;
    this.#pending.delete(id);
    clearTimeout(pending.timer);
    if (ok) pending.resolve(data ?? {});
    else pending.reject(new SignalingError(String(errorCode), errorReason));
  }

  #lost(error) {
    this.#ended ??= error;
    for (const { reject, timer } of this.#pending.values()) {
      clearTimeout(timer);
      reject(error);
    }
    this.#pending.clear();
    const onClosed = this.#onClosed;
    this.#onClosed = null;
    onClosed?.(error);
  }
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

// The reason of the close frame is an error code or a word of its own; 4000 says not to come back by oneself.
function closeError(code, reason) {
  const error = new SignalingError(isKnown(reason) ? reason : 'connection-lost', reason);
  error.isFinal = code === 4000;
  return error;
}
