// Everything that the page says in sentences: why a picture is as it is, what an error means and what to do.

/** Why a consumer gets the picture it gets (`reason` of consumer-layers-changed; `stopped` is bandwidth without layers): badge and explanation. */
export const REASONS = {
  full: { badge: '', text: 'Best picture that is sent' },
  preferred: { badge: 'Saving data', text: 'A smaller picture, because this tile is small' },
  bandwidth: { badge: 'Your link is slow', text: 'Your connection has no room for a better picture' },
  stopped: { badge: 'Your link is slow', text: 'Your connection has no room for this picture. Sound and more important pictures go first' },
  'producer-uplink': { badge: 'Their link is slow', text: "The sender's connection or computer holds the better picture back" },
  'no-key-frame': { badge: 'Picture is coming', text: 'Waiting for the next complete picture' },
  paused: { badge: 'Paused', text: 'The picture is paused' },
  'layer-inactive': { badge: 'Sharper one stopped', text: 'The better picture stopped arriving at the server' },
};

const ERRORS = {
  'bad-request': 'The server did not understand this page. Reload it.',
  'unknown-method': 'The server is older or newer than this page. Reload it.',
  'not-found': 'That is not there any more.',
  'room-full': 'This room is full. Try again when somebody has left, or choose another room.',
  'peer-id-taken': 'You are in this room already, in another tab or window.',
  unauthorized: 'This room needs an invitation. Ask for a link.',
  forbidden: 'You are not allowed to do that in this room.',
  'already-connected': 'This connection is set up already. Reload the page.',
  'unsupported-codec': 'This browser and the server share no codec for that.',
  'cannot-consume': 'This browser cannot play what that participant sends.',
  'too-many': 'A limit of the server is reached. Close something first.',
  'rate-limited': 'That was too much in a short time. Wait a moment.',
  draining: 'This server is about to restart and takes no new participants.',
  overloaded: 'The server is too busy for another participant. Try again in a minute.',
  internal: 'Something went wrong in the server. Its log says more.',
  'session-replaced': 'You went on with this call in another tab or window.',
  'room-closed': 'The operator of the server closed this room.',
  'server-going-down': 'The server is restarting.',
  'slow-client': 'This device or its connection could not keep up.',
  timeout: 'The server does not answer.',
  unreachable: 'The server cannot be reached.',
  'connection-lost': 'The connection to the server is lost.',
  unsupported: 'This browser cannot take part in calls. Use a current Chrome, Edge, Firefox or Safari.',
};

export const isKnown = (code) => code in ERRORS;

export function explain(error) {
  if (error?.name === 'UnsupportedError') return ERRORS.unsupported;
  return ERRORS[error?.code] ?? error?.message ?? String(error);
}

const DEVICES = { audio: 'Microphone', video: 'Camera', screen: 'Screen' };

/** What a failed getUserMedia or getDisplayMedia means for `kind` (audio, video or screen). */
export function explainDevice(kind, error) {
  const device = DEVICES[kind];
  switch (error.name) {
    case 'InsecureContext':
      return `${device} needs a secure page: open this site by https, or on this computer by http://localhost.`;
    case 'NotAllowedError':
      return kind === 'screen' ? 'Screen sharing was not allowed.' : `${device} refused: allow it in the address bar.`;
    case 'NotFoundError':
    case 'OverconstrainedError':
      return `No ${device.toLowerCase()} found.`;
    case 'NotReadableError':
      return `${device} is in use by another program, or switched off.`;
    default:
      return `${device} does not start: ${error.message}`;
  }
}

export const CONNECTION = {
  connecting: 'Connecting…',
  connected: 'Connected',
  reconnecting: 'Reconnecting…',
  repairing: 'Repairing the media path…',
  ended: 'Left',
};

export function formatBitrate(bitrate_bps) {
  if (bitrate_bps >= 1_000_000) return `${(bitrate_bps / 1_000_000).toFixed(1)} Mbit/s`;
  return `${Math.round(bitrate_bps / 1000)} kbit/s`;
}
