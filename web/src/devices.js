// Microphone, camera and screen: asks the browser for them. A failure is thrown as it came, with its name.

export const CAMERA = {
  width: { ideal: 1280 },
  height: { ideal: 720 },
  frameRate: { ideal: 30, max: 30 },
};
const MICROPHONE = { echoCancellation: true, noiseSuppression: true, autoGainControl: true };

/** One live track of `kind` (audio or video), from a given device or the browser's choice. */
export async function openDevice(kind, deviceId) {
  const devices = navigator.mediaDevices;
  if (!devices) throw Object.assign(new Error('no secure context'), { name: 'InsecureContext' });
  const wanted = { ...(kind === 'audio' ? MICROPHONE : CAMERA), ...(deviceId && { deviceId: { exact: deviceId } }) };
  try {
    return first(await devices.getUserMedia({ [kind]: wanted }));
  } catch (error) {
    // The remembered device was unplugged: any other is better than none.
    if (!deviceId || !['NotFoundError', 'OverconstrainedError'].includes(error.name)) throw error;
    return openDevice(kind);
  }
}

/** The screen's video track, and its audio track where the browser and the user share one. */
export async function openScreen() {
  const devices = navigator.mediaDevices;
  if (!devices?.getDisplayMedia) throw Object.assign(new Error('no screen capture'), { name: 'NotFoundError' });
  const stream = await devices.getDisplayMedia({ video: { frameRate: { ideal: 15, max: 30 } }, audio: true });
  const video = stream.getVideoTracks()[0];
  if (video && 'contentHint' in video) video.contentHint = 'detail';
  return { video, audio: stream.getAudioTracks()[0] };
}

/** The devices of `kind` that can be chosen, with their labels (empty before permission). */
export async function listDevices(kind) {
  const all = (await navigator.mediaDevices?.enumerateDevices?.()) ?? [];
  return all.filter((device) => device.kind === `${kind}input` && device.deviceId);
}

function first(stream) {
  return stream.getTracks()[0];
}
