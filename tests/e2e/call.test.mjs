// A call between real browsers, over each framing of the signaling: unmodified mediasoup-client with unmodified
// protoo-client, and with unmodified socket.io-client.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Chromium } from './support/chromium.mjs';
import { servePages } from './support/pages.mjs';
import { isMediasoup, startServer } from './support/server.mjs';

const PEOPLE = [
  { name: 'red', colour: [200, 40, 40], tone_hz: 500 },
  { name: 'green', colour: [40, 170, 60], tone_hz: 900 },
  { name: 'blue', colour: [40, 70, 200], tone_hz: 1400 },
];
// Chromium encodes a canvas with one colour matrix and shows it with another: up to 32 levels for these colours, which
// lie more than 130 apart from each other.
const COLOUR_TOLERANCE = 40;
const TONE_TOLERANCE_HZ = 25;
// How soon a picture must stand again after a resume, or for somebody who comes late.
const PICTURE_WITHIN_MS = 500;
// The two cores that run these tests also carry three browsers' encoders: the best of a few tries is the server's.
const TRIES = 4;

const FRAMINGS = [
  { framing: 'protoo', what: 'protoo-client over WebSocket', options: {} },
  ...(isMediasoup ? [] : [{ framing: 'socketio', what: 'socket.io-client over WebSocket', options: {} }]),
];

let server, pages, browser;

before(async () => {
  server = await startServer();
  pages = await servePages(['protoo', 'socketio']);
  browser = await Chromium.launch();
});

after(async () => {
  await Promise.all([browser?.close(), server?.stop()]);
  pages?.close();
});

for (const { framing, what, options } of FRAMINGS) {
  describe(`three browsers in one room, ${what}`, () => {
    const roomId = `call-${framing}`;
    const tabs = new Map();

    before(async () => {
      for (const person of PEOPLE) tabs.set(person.name, await enter(framing, roomId, person, options));
    });

    after(() => Promise.all([...tabs.values()].map((tab) => tab.close())));

    test('everyone sees the colour of everyone else', async () => {
      for (const [viewer, tab] of tabs) {
        for (const { name, colour } of othersOf(viewer)) await seesColour(tab, viewer, name, colour);
      }
    });

    test('everyone hears the tone of everyone else', async () => {
      for (const [listener, tab] of tabs) {
        for (const { name, tone_hz } of othersOf(listener)) await hearsTone(tab, listener, name, tone_hz);
      }
    });

    test('the pictures move on', async () => {
      for (const [viewer, tab] of tabs) {
        for (const { name } of othersOf(viewer)) await framesGrow(tab, viewer, name, 'camera');
      }
    });

    test('a shared screen is seen by the others', async () => {
      await tabs.get('red').evaluate(() => participant.sendScreen());
      for (const viewer of ['green', 'blue']) await framesGrow(tabs.get(viewer), viewer, 'red', 'screen');
    });

    test('a paused picture stands still, and moves within 500 ms of its resume', async () => {
      await quickest('resume', () => pauseAndResume(tabs.get('green')));
    });

    test('a sender that pauses stops, and is seen within 500 ms of its resume', async () => {
      await quickest('sender resume', () => senderPausesAndResumes(tabs.get('red'), tabs.get('blue')));
    });

    test('who comes late has a picture within 500 ms of asking for it', async () => {
      await quickest('late join', async () => {
        const late = await enter(framing, roomId, { name: 'late' }, options);
        const first_ms = await late.until('the first picture', firstPictureAfter, { args: ['blue'] });
        await late.close();
        return first_ms;
      });
    });

    test('a closed page is gone for the others within a second', async () => {
      await tabs.get('blue').close();
      const closed = Date.now();
      tabs.delete('blue');
      for (const [viewer, tab] of tabs) {
        const gone = (owner) => ![...participant.incoming.values()].some((stream) => stream.owner === owner);
        await tab.until(`${viewer} no longer has blue`, gone, { args: ['blue'], timeout_ms: 5000, every_ms: 20 });
      }
      const took_ms = Date.now() - closed;
      assert.ok(took_ms < 1000, `it took ${took_ms} ms`);
    });
  });
}

test('Socket.IO by long-polling alone carries the signaling of a call', { skip: isMediasoup }, async () => {
  const options = { transports: ['polling'] };
  const [red, green] = PEOPLE;
  const tabs = [];
  for (const person of [red, green]) tabs.push(await enter('socketio', 'polling', person, options));
  await seesColour(tabs[0], 'red', 'green', green.colour);
  await seesColour(tabs[1], 'green', 'red', red.colour);
  await hearsTone(tabs[1], 'green', 'red', red.tone_hz);
  await Promise.all(tabs.map((tab) => tab.close()));
});

// ---- what a participant does and sees

async function enter(framing, roomId, { name, colour, tone_hz }, options) {
  const tab = await browser.newPage({ viewport: { width: 640, height: 400 } });
  await tab.goto(pages.url(framing));
  await tab.evaluate((settings) => join(settings), { url: server.url, roomId, name, ...options });
  if (tone_hz) await tab.evaluate((settings) => participant.sendMicrophone(settings), { tone_hz });
  if (colour) await tab.evaluate((settings) => participant.sendCamera(settings), { colour });
  return tab;
}

function othersOf(name) {
  return PEOPLE.filter((person) => person.name !== name);
}

async function seesColour(tab, viewer, owner, [r, g, b]) {
  const near = (owner, [r, g, b], tolerance) => {
    const seen = participant.colour(owner);
    return seen && [r, g, b].every((value, i) => Math.abs(value - seen[i]) <= tolerance) && seen;
  };
  await tab.until(`${viewer} sees ${owner} in its colour`, near, { args: [owner, [r, g, b], COLOUR_TOLERANCE] });
}

async function hearsTone(tab, listener, owner, tone_hz) {
  const near = (owner, tone_hz, tolerance_hz) => Math.abs((participant.tone(owner) ?? 0) - tone_hz) <= tolerance_hz;
  await tab.until(`${listener} hears ${owner} at ${tone_hz} Hz`, near, { args: [owner, tone_hz, TONE_TOLERANCE_HZ] });
}

async function framesGrow(tab, viewer, owner, source) {
  const decoded = async (owner, source) => (await participant.inbound(owner, source))?.framesDecoded ?? 0;
  const frames = await tab.until(`${viewer} decodes ${owner}'s ${source}`, decoded, { args: [owner, source] });
  const more = async (owner, source, than) => ((await participant.inbound(owner, source))?.framesDecoded ?? 0) > than + 5;
  await tab.until(`${viewer} decodes more of ${owner}'s ${source}`, more, { args: [owner, source, frames] });
}

// ---- how soon a picture stands

async function quickest(what, attempt) {
  const took_ms = [];
  for (let i = 0; i < TRIES; i++) {
    took_ms.push(Math.round((await attempt()) ?? Infinity));
    if (took_ms.at(-1) <= PICTURE_WITHIN_MS) break;
  }
  assert.ok(Math.min(...took_ms) <= PICTURE_WITHIN_MS, `${what}: a picture after ${took_ms.join(', ')} ms`);
}

async function pauseAndResume(tab) {
  return tab.evaluate(async () => {
    const { consumer, element } = participant.find('blue', 'camera');
    const frames = () => element.getVideoPlaybackQuality().totalVideoFrames;
    await participant.request('pause-consumer', { consumerId: consumer.id });
    await new Promise((resolve) => setTimeout(resolve, 400));
    const still = frames();
    await new Promise((resolve) => setTimeout(resolve, 600));
    if (frames() > still) throw new Error('a paused consumer still gets pictures');
    return participant.untilNextFrame('blue', 'camera', () => participant.request('resume-consumer', { consumerId: consumer.id }));
  });
}

async function senderPausesAndResumes(sender, viewer) {
  await sender.evaluate(() => participant.pauseProducer('camera', true));
  await new Promise((resolve) => setTimeout(resolve, 700));
  // The viewer waits for the next picture while the sender resumes; the two clocks meet in this process.
  const next = viewer.evaluate(() => participant.untilNextFrame('red', 'camera', () => {}, 10_000));
  await new Promise((resolve) => setTimeout(resolve, 300));
  const resumed = Date.now();
  await sender.evaluate(() => participant.pauseProducer('camera', false));
  return (await next) === Infinity ? Infinity : Date.now() - resumed;
}

/** ms from resume-consumer to the first picture, in the page of somebody who came late. */
function firstPictureAfter(owner) {
  const stream = participant.find(owner, 'camera');
  if (!stream?.element) return null;
  stream.first ??= new Promise((resolve) => {
    stream.element.requestVideoFrameCallback((now) => resolve(now - stream.resumed_ms));
  });
  return Promise.race([stream.first, new Promise((resolve) => setTimeout(resolve, 50, null))]);
}
