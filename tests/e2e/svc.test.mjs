// One camera with its three sizes in one stream (SVC), seen by browsers that ask for less, or whose link has room for less.
// Sizes are read back from the browser's own statistics.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { startRelay } from './relay.mjs';
import { Chromium } from './support/chromium.mjs';
import { servePages } from './support/pages.mjs';
import { isMediasoup, startServer } from './support/server.mjs';

const STREAMS = [
  { mimeType: 'video/VP9', scalabilityMode: 'L3T3_KEY' },
  { mimeType: 'video/VP9', scalabilityMode: 'L3T3' },
  { mimeType: 'video/AV1', scalabilityMode: 'L3T3' },
];
const WIDTHS = [240, 480, 960];
const SIZE_WITHIN_MS = 20_000;
// An encoder that starts on a busy machine takes its time to send the top layer.
const ALL_LAYERS_WITHIN_MS = 60_000;

// Room for the smallest of three sizes and a half of the next.
const NARROW_BPS = 300_000;

let server, pages, browser, relay;

describe('sizes in one stream', { skip: isMediasoup && 'its router carries what it is told to' }, () => {
  before(async () => {
    server = await startServer({ workers: 1 });
    pages = await servePages(['protoo']);
    browser = await Chromium.launch();
    relay = await startRelay(server.ports.min);
  });

  after(async () => {
    await Promise.all([browser?.close(), server?.stop()]);
    pages?.close();
    relay?.close();
  });

  for (const { mimeType, scalabilityMode } of STREAMS) {
    describe(`${mimeType}, ${scalabilityMode}`, () => {
      const tabs = {};
      const top = WIDTHS.length - 1;

      before(async () => {
        const room = `${mimeType} ${scalabilityMode}`;
        for (const name of ['sender', 'near']) tabs[name] = await enter(name, room);
        tabs.far = await enter('far', room, relay.port);
        const camera = {
          colour: [60, 120, 190],
          width: 960,
          height: 540,
          busy: true,
          codec: mimeType,
          encodings: [{ scalabilityMode, maxBitrate: 1_200_000 }],
        };
        await tabs.sender.evaluate((camera) => participant.sendCamera(camera), camera);
        for (const name of ['near', 'far']) await shows(tabs[name], WIDTHS[top], ALL_LAYERS_WITHIN_MS);
      });

      after(() => Promise.all(Object.values(tabs).map((tab) => tab.close())));

      test('each receiver gets the size that it asks for', async () => {
        const type = await tabs.near.evaluate(() => participant.find('sender', 'camera').type);
        assert.equal(type, 'svc');
        for (const layer of [0, top, 1, 0, top]) {
          await prefers(tabs.near, layer);
          await shows(tabs.near, WIDTHS[layer]);
          await moves(tabs.near);
          await toldReason(tabs.near, layer === top ? 'full' : 'preferred', layer);
          // An encoder short of time may give up its largest size for a moment; nobody's wish may take it from others.
          await shows(tabs.far, WIDTHS[top]);
        }
      });

      test('asking for fewer pictures per second costs no key frame', async () => {
        const all = await count(tabs.near);
        await prefers(tabs.near, top, 0);
        await new Promise((resolve) => setTimeout(resolve, 500));
        const few = await count(tabs.near);
        await prefers(tabs.near, top, 2);
        await new Promise((resolve) => setTimeout(resolve, 500));
        const again = await count(tabs.near);
        assert.ok(few.frames > 0 && few.frames < all.frames * 0.8, `${all.frames} pictures in 3 s became ${few.frames}`);
        assert.ok(again.frames > few.frames * 1.2, `${few.frames} pictures in 3 s became ${again.frames} again`);
        assert.equal(few.keyFrames + again.keyFrames, 0, 'frame rates need no key frame');
      });

      test('behind a narrow link the picture is smaller and moves, and large again when the link recovers', async () => {
        relay.down.limit({ rate_bps: NARROW_BPS });
        const isSmaller = async (top) => (await participant.inbound('sender'))?.frameWidth < top;
        await tabs.far.until('a smaller picture', isSmaller, { args: [WIDTHS[top]], timeout_ms: SIZE_WITHIN_MS });
        await moves(tabs.far);
        const reason = () => participant.notifications.filter(({ method }) => method === 'consumer-layers-changed').at(-1)?.data.reason;
        assert.equal(await tabs.far.evaluate(reason), 'bandwidth');
        relay.down.limit({});
        await shows(tabs.far, WIDTHS[top], ALL_LAYERS_WITHIN_MS);
        await toldReason(tabs.far, 'full', top);
      });

      test('who comes late gets the largest picture', async () => {
        const late = await enter('late', `${mimeType} ${scalabilityMode}`);
        await shows(late, WIDTHS[top]);
        await moves(late);
        await late.close();
      });
    });
  }
});

// ---- helpers

async function enter(name, roomId, mediaPort) {
  const tab = await browser.newPage({ viewport: { width: 640, height: 400 } });
  await tab.goto(pages.url('protoo'));
  await tab.evaluate((settings) => join(settings), { url: server.url, roomId: roomId.replace(/\W/g, '-'), name, mediaPort });
  return tab;
}

function prefers(tab, spatialLayer, temporalLayer) {
  return tab.evaluate(
    (spatialLayer, temporalLayer) => {
      const consumerId = participant.find('sender', 'camera').consumer.id;
      return participant.request('set-preferred-layers', { consumerId, spatialLayer, temporalLayer: temporalLayer ?? undefined });
    },
    spatialLayer,
    temporalLayer,
  );
}

function shows(tab, expected, timeout_ms = SIZE_WITHIN_MS) {
  const has = async (width) => (await participant.inbound('sender'))?.frameWidth === width;
  return tab.until(`a picture ${expected} pixels across`, has, { args: [expected], timeout_ms });
}

async function moves(tab) {
  const decoded = async () => (await participant.inbound('sender'))?.framesDecoded ?? 0;
  const frames = await tab.evaluate(decoded);
  const more = async (than) => ((await participant.inbound('sender'))?.framesDecoded ?? 0) > than + 5;
  await tab.until('a picture that moves', more, { args: [frames] });
}

function count(tab) {
  return tab.evaluate(async () => {
    const look = () => participant.inbound('sender').then(({ framesDecoded, keyFramesDecoded }) => ({ framesDecoded, keyFramesDecoded }));
    const before = await look();
    await new Promise((resolve) => setTimeout(resolve, 3000));
    const after = await look();
    return { frames: after.framesDecoded - before.framesDecoded, keyFrames: after.keyFramesDecoded - before.keyFramesDecoded };
  });
}

function toldReason(tab, reason, spatialLayer) {
  const told = (reason, spatialLayer) => {
    const last = participant.notifications.filter(({ method }) => method === 'consumer-layers-changed').at(-1)?.data;
    return last?.reason === reason && last.layers?.spatialLayer === spatialLayer;
  };
  return tab.until(`"${reason}" for layer ${spatialLayer}`, told, { args: [reason, spatialLayer], timeout_ms: SIZE_WITHIN_MS });
}
