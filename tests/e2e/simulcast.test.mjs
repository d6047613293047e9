// One camera in three layers, seen by browsers that ask for less, or whose link has room for less. Sizes are read back
// from the browser's own statistics.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { startRelay } from './relay.mjs';
import { Chromium } from './support/chromium.mjs';
import { servePages } from './support/pages.mjs';
import { isMediasoup, startServer } from './support/server.mjs';

// Chromium sends all three layers from 960x540 upwards.
const CAMERA = {
  colour: [60, 120, 190],
  width: 960,
  height: 540,
  busy: true,
  encodings: [
    { scaleResolutionDownBy: 4, maxBitrate: 120_000 },
    { scaleResolutionDownBy: 2, maxBitrate: 300_000 },
    { scaleResolutionDownBy: 1, maxBitrate: 900_000 },
  ],
};
const WIDTHS = [240, 480, 960];
const LAYER_WITHIN_MS = 20_000;
// An encoder that starts on a busy machine takes its time to send the top layer.
const ALL_LAYERS_WITHIN_MS = 60_000;
const NARROW_BPS = 250_000;
// Until half a frame told, the queue of 300 ms, and a key frame; more where the machine is busy.
const FREEZE_MS = isMediasoup ? Infinity : 1200;

let server, pages, browser, relay;
const tabs = {};

before(async () => {
  server = await startServer({ workers: 1 });
  pages = await servePages(['protoo']);
  browser = await Chromium.launch();
  relay = await startRelay(server.ports.min);
  tabs.sender = await enter('sender');
  await tabs.sender.evaluate((camera) => participant.sendCamera(camera), CAMERA);
  tabs.near = await enter('near');
  tabs.far = await enter('far', relay.port);
  for (const name of ['near', 'far']) await shows(name, 960, ALL_LAYERS_WITHIN_MS);
});

after(async () => {
  await Promise.all([browser?.close(), server?.stop()]);
  pages?.close();
  relay?.close();
});

test('each receiver gets the layer that it asks for', async () => {
  for (const layer of [0, 2, 1, 2]) {
    await prefers('near', layer);
    await shows('near', WIDTHS[layer]);
    assert.equal(await width('far'), 960, 'the other receiver keeps its layer');
  }
});

test('a receiver is told its layer, and why', { skip: isMediasoup && 'mediasoup gives no reasons' }, async () => {
  await prefers('near', 0);
  await toldReason('near', 'preferred', 0);
  await prefers('near', 2);
  await toldReason('near', 'full', 2);
});

test('asking for fewer pictures per second costs no key frame', async () => {
  const count = async () => {
    const look = () => participant.inbound('sender').then(({ framesDecoded, keyFramesDecoded }) => ({ framesDecoded, keyFramesDecoded }));
    const before = await look();
    await new Promise((resolve) => setTimeout(resolve, 3000));
    const after = await look();
    return { frames: after.framesDecoded - before.framesDecoded, keyFrames: after.keyFramesDecoded - before.keyFramesDecoded };
  };
  const all = await tabs.near.evaluate(count);
  await prefers('near', 2, 0);
  const few = await tabs.near.evaluate(count);
  await prefers('near', 2, 2);
  const again = await tabs.near.evaluate(count);
  assert.ok(few.frames > 0 && few.frames < all.frames * 0.7, `${all.frames} pictures in 3 s became ${few.frames}`);
  assert.ok(again.frames > few.frames * 1.3, `${few.frames} pictures in 3 s became ${again.frames} again`);
  assert.equal(few.keyFrames + again.keyFrames, 0, 'temporal layers need no key frame');
});

test('a receiver that takes no resends is probed on its client library\'s own stream', { skip: isMediasoup && 'it probes all that way' }, async () => {
  // Its link has been narrow, so that the room there is can only be found by trying.
  const link = await startRelay(server.ports.min);
  link.down.limit({ rate_bps: NARROW_BPS });
  tabs.bare = await enter('bare', link.port, { withoutRtx: true });
  await tabs.bare.until('a smaller picture', async () => (await participant.inbound('sender'))?.frameWidth < 960, { timeout_ms: ALL_LAYERS_WITHIN_MS });
  const mimeTypes = await tabs.bare.evaluate(() => participant.find('sender', 'camera').consumer.rtpParameters.codecs.map(({ mimeType }) => mimeType));
  assert.ok(!mimeTypes.some((type) => type.endsWith('/rtx')), `${mimeTypes}`);
  link.down.limit({});
  await shows('bare', 960, ALL_LAYERS_WITHIN_MS);
  await tabs.bare.until('packets of the probator', async () => (await participant.probator())?.packetsReceived >= 5, { timeout_ms: LAYER_WITHIN_MS });
  const { framesReceived, mid } = await tabs.bare.evaluate(() => participant.probator());
  assert.deepEqual({ framesReceived, mid }, { framesReceived: 0, mid: 'probator' }, 'no decoder sees it');
  const others = await tabs.near.evaluate(async () => (await participant.probator())?.packetsReceived ?? 0);
  assert.equal(others, 0, 'who takes resends is probed there');
  await tabs.bare.close();
  link.close();
});

describe('a receiver whose link becomes narrow', () => {
  test('gets a smaller picture that moves on, and nobody else notices', async () => {
    await watchFreezes('far');
    relay.down.limit({ rate_bps: NARROW_BPS });
    await tabs.far.until('a smaller picture', async () => (await participant.inbound('sender')).frameWidth < 960, {
      timeout_ms: LAYER_WITHIN_MS,
    });
    if (!isMediasoup) await toldReason('far', 'bandwidth');
    await new Promise((resolve) => setTimeout(resolve, 5000));
    const longest_ms = await tabs.far.evaluate(() => participant.longestFreeze_ms());
    assert.ok(longest_ms < FREEZE_MS, `the picture stood still for ${Math.round(longest_ms)} ms`);
    assert.equal(await width('near'), 960, 'the other receiver keeps its layer');
  });

  test('gets the large picture again when the link recovers', async () => {
    relay.down.limit({});
    await shows('far', 960, 60_000);
  });
});

// ---- helpers

async function enter(name, mediaPort, settings = {}) {
  const tab = await browser.newPage({ viewport: { width: 640, height: 400 } });
  await tab.goto(pages.url('protoo'));
  await tab.evaluate((settings) => join(settings), { url: server.url, roomId: 'simulcast', name, mediaPort, ...settings });
  return tab;
}

function prefers(name, spatialLayer, temporalLayer) {
  return tabs[name].evaluate(
    (spatialLayer, temporalLayer) => {
      const consumerId = participant.find('sender', 'camera').consumer.id;
      return participant.request('set-preferred-layers', { consumerId, spatialLayer, temporalLayer: temporalLayer ?? undefined });
    },
    spatialLayer,
    temporalLayer,
  );
}

function width(name) {
  return tabs[name].evaluate(async () => (await participant.inbound('sender'))?.frameWidth ?? 0);
}

function shows(name, expected, timeout_ms = LAYER_WITHIN_MS) {
  const has = async (width) => (await participant.inbound('sender'))?.frameWidth === width;
  return tabs[name].until(`${name} shows ${expected} pixels across`, has, { args: [expected], timeout_ms });
}

function toldReason(name, reason, spatialLayer) {
  const told = (reason, spatialLayer) => {
    const changes = participant.notifications.filter(({ method }) => method === 'consumer-layers-changed');
    const last = changes.at(-1)?.data;
    return last?.reason === reason && (spatialLayer === null || last.layers?.spatialLayer === spatialLayer);
  };
  return tabs[name].until(`${name} is told "${reason}"`, told, { args: [reason, spatialLayer ?? null], timeout_ms: LAYER_WITHIN_MS });
}

function watchFreezes(name) {
  return tabs[name].evaluate(() => participant.watchFreezes('sender', 'camera'));
}
