// Every video codec of a room, sent and shown by real browsers: one stream of each, for who is there and for who comes
// late. Which codecs the browser can encode is its own affair; one that it cannot is skipped by name.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Chromium } from './support/chromium.mjs';
import { servePages } from './support/pages.mjs';
import { isMediasoup, startServer } from './support/server.mjs';

const CODECS = [
  { mimeType: 'video/VP8', colour: [200, 40, 40] },
  { mimeType: 'video/VP9', colour: [40, 170, 60] },
  { mimeType: 'video/H264', colour: [40, 70, 200] },
  { mimeType: 'video/AV1', colour: [190, 150, 40] },
];
const SIZE = { width: 480, height: 270 };
const COLOUR_TOLERANCE = 40;
const PICTURE_WITHIN_MS = 20_000;

let server, pages, browser;
const tabs = {};

describe('the codecs of a room', { skip: isMediasoup && 'its router carries what it is told to' }, () => {
  before(async () => {
    server = await startServer({ workers: 1 });
    pages = await servePages(['protoo']);
    browser = await Chromium.launch();
    tabs.sender = await enter('sender');
    tabs.viewer = await enter('viewer');
  });

  after(async () => {
    await Promise.all([browser?.close(), server?.stop()]);
    pages?.close();
  });

  for (const { mimeType, colour } of CODECS) {
    test(`${mimeType} is shown as it was sent, and to who comes late`, async (t) => {
      const canSend = await tabs.sender.evaluate((mimeType) => !!participant.sendable(mimeType), mimeType);
      if (!canSend) return t.skip(`this browser has no encoder for ${mimeType}`);
      const camera = { colour, ...SIZE, codec: mimeType, appData: { source: mimeType } };
      await tabs.sender.evaluate((camera) => participant.sendCamera(camera), camera);
      await shows(tabs.viewer, mimeType, colour);
      await tabs.viewer.until('a reason', (source) => {
        const consumerId = participant.find('sender', source)?.consumer.id;
        const told = participant.notifications.filter(({ method, data }) => method === 'consumer-layers-changed' && data.consumerId === consumerId);
        return told.at(-1)?.data.reason === 'full';
      }, { args: [mimeType] });
      const late = await enter(`late for ${mimeType}`);
      await shows(late, mimeType, colour);
      await late.close();
    });
  }
});

async function enter(name) {
  const tab = await browser.newPage({ viewport: { width: 640, height: 400 } });
  await tab.goto(pages.url('protoo'));
  await tab.evaluate((settings) => join(settings), { url: server.url, roomId: 'codecs', name });
  return tab;
}

/** In its colour and size, moving, and by the decoder of this codec. */
async function shows(tab, mimeType, colour) {
  const near = (source, [r, g, b], tolerance) => {
    const seen = participant.colour('sender', source);
    return seen && [r, g, b].every((value, i) => Math.abs(value - seen[i]) <= tolerance);
  };
  await tab.until(`${mimeType} in its colour`, near, { args: [mimeType, colour, COLOUR_TOLERANCE], timeout_ms: PICTURE_WITHIN_MS });
  const decoded = async (source) => (await participant.inbound('sender', source))?.framesDecoded ?? 0;
  const frames = await tab.evaluate(decoded, mimeType);
  const more = async (source, than) => ((await participant.inbound('sender', source))?.framesDecoded ?? 0) > than + 5;
  await tab.until(`more of ${mimeType}`, more, { args: [mimeType, frames] });
  const { frameWidth, frameHeight } = await tab.evaluate((source) => participant.inbound('sender', source), mimeType);
  assert.deepEqual({ width: frameWidth, height: frameHeight }, SIZE);
  assert.equal(await tab.evaluate((source) => participant.decodedCodec('sender', source), mimeType), mimeType);
}
