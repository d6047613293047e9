// The demo page as people use it: three in a room, by mouse and keyboard, on a desk and on a phone. SCREENSHOT=path
// keeps the picture of the call.

import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { Chromium } from './support/chromium.mjs';
import { personScript, refusingScript } from './support/scene.mjs';
import { isMediasoup, startServer } from './support/server.mjs';

const PEOPLE = {
  Ada: { tone_hz: 300, look: { wall: ['#4a6472', '#2c3c46'], lamp: '#ffd9a066', skin: '#e9b998', hair: '#3b2619', shirt: '#7a3e5f', long: true } },
  Grace: { tone_hz: 400, look: { wall: ['#8a7460', '#54463a'], lamp: '#fff2c966', skin: '#8d5a3f', hair: '#1c1512', shirt: '#2f6f69' } },
  Alan: { tone_hz: 500, look: { wall: ['#5b6b4f', '#38432f'], lamp: '#ffe6b066', skin: '#f0cba8', hair: '#8a5a2b', shirt: '#33506f' } },
};

let server, browser;

before(async () => {
  server = await startServer();
  browser = await Chromium.launch();
});

after(() => Promise.all([browser?.close(), server?.stop()]));

describe('three people on the demo page', () => {
  const tabs = {};

  before(async () => {
    for (const name of Object.keys(PEOPLE)) tabs[name] = await join(name);
  });

  after(() => Promise.all(Object.values(tabs).map((tab) => tab.close())));

  test('everyone sees everyone, with size and bitrate on each tile', async () => {
    for (const [name, tab] of Object.entries(tabs)) {
      await tab.until(`${name} sees two others`, picturesOfOthers, { args: [2] });
      await tab.until(`${name} reads size and bitrate`, () => {
        const shown = [...document.querySelectorAll('.tile:not(.own) .figures')].map((figures) => figures.textContent);
        return shown.length === 2 && shown.every((text) => /^\d+×\d+ · [\d.]+ [kM]bit\/s$/.test(text));
      });
      assert.equal(await tab.evaluate(() => document.getElementById('connection').textContent), 'Connected');
      assert.equal(await tab.evaluate(() => document.getElementById('people').textContent), '3 people');
    }
    if (process.env.SCREENSHOT) {
      const sharp = (marked) =>
        [...document.querySelectorAll('.tile video')].every((video) => video.videoWidth >= 640) && tile('Grace').matches(marked);
      await new Promise((resolve) => setTimeout(resolve, 6000));
      const marked = isMediasoup ? '.speaking' : '.speaking.active-speaker';
      await tabs.Ada.until('good pictures', sharp, { args: [marked], timeout_ms: 60_000 });
      await writeFile(process.env.SCREENSHOT, await tabs.Ada.screenshot());
    }
  });

  test('who speaks is marked', async () => {
    await tabs.Ada.until('Grace is marked as speaking', () => tile('Grace')?.classList.contains('speaking'));
  });

  test('whoever takes the floor becomes the active speaker', { skip: isMediasoup && 'mediasoup names no speaker' }, async () => {
    const active = (name) => tile(name).classList.contains('active-speaker');
    for (const name of ['Grace', 'Alan', 'Grace']) await tabs.Ada.until(`${name} has the floor`, active, { args: [name] });
  });

  test('M mutes, and the others see it', async () => {
    await tabs.Ada.press('m');
    await tabs.Grace.until('Ada is shown as muted', () => tile('Ada').querySelector('.muted'));
    await tabs.Grace.until('Ada no longer speaks', () => !tile('Ada').classList.contains('speaking'));
    await tabs.Ada.press('m');
    await tabs.Grace.until('Ada is not muted any more', () => !tile('Ada').querySelector('.muted'));
  });

  test('a camera that is switched off leaves the initials, and comes back', async () => {
    await tabs.Grace.evaluate(() => document.getElementById('camera').click());
    await tabs.Alan.until('initials of Grace', () => !tile('Grace').classList.contains('has-picture'));
    assert.equal(await tabs.Alan.evaluate(() => tile('Grace').querySelector('.avatar').textContent), 'G');
    await tabs.Grace.evaluate(() => document.getElementById('camera').click());
    await tabs.Alan.until('the picture of Grace', picturesOfOthers, { args: [2] });
  });

  test('a pinned tile asks for the better picture, the others for less', async () => {
    await tabs.Alan.evaluate(() => tile('Ada').focus());
    await tabs.Alan.press('Enter');
    await tabs.Alan.until('Ada has the stage', () => tile('Ada').classList.contains('pinned'));
    await tabs.Alan.until('Ada in the best layer', preferredIs, { args: ['Ada', 1] });
    await tabs.Alan.until('Grace in the smallest layer', preferredIs, { args: ['Grace', 0] });
    await tabs.Alan.press('Escape');
    await tabs.Alan.until('nobody has the stage', () => !document.querySelector('.tile.pinned'));
  });

  test('a shared screen takes the stage for the others, and leaves it', async () => {
    await tabs.Grace.evaluate(() => document.getElementById('screen').click());
    await tabs.Ada.until("Grace's screen is on the stage", () => {
      const screen = document.querySelector('.tile.screen.pinned');
      return screen?.textContent.includes('Grace') && screen.querySelector('video').videoWidth > 0;
    });
    if (process.env.SCREENSHOT) await writeFile(process.env.SCREENSHOT.replace('.png', '-screen.png'), await tabs.Ada.screenshot());
    await tabs.Grace.evaluate(() => document.getElementById('screen').click());
    await tabs.Ada.until('the screen is gone', () => !document.querySelector('.tile.screen'));
  });

  test('on a phone the same call fits, with buttons for fingers', async () => {
    await tabs.Alan.resize({ width: 360, height: 740, scale: 2, mobile: true });
    await new Promise((resolve) => setTimeout(resolve, 400));
    if (process.env.SCREENSHOT) await writeFile(process.env.SCREENSHOT.replace('.png', '-phone.png'), await tabs.Alan.screenshot());
    const { sideways, smallest } = await tabs.Alan.evaluate(() => ({
      sideways: document.documentElement.scrollWidth > innerWidth,
      smallest: Math.min(...[...document.querySelectorAll('#toolbar button')].map((b) => Math.min(b.offsetWidth, b.offsetHeight))),
    }));
    assert.equal(sideways, false, 'nothing sticks out to the side');
    assert.ok(smallest >= 48, `the smallest button measures ${smallest} px`);
  });

  test('who leaves is back in the lobby and gone for the others', async () => {
    await tabs.Alan.evaluate(() => document.getElementById('leave').click());
    await tabs.Alan.until('the lobby', () => !document.getElementById('lobby').hidden);
    await tabs.Ada.until('Alan is gone', () => !tile('Alan'), { timeout_ms: 2000 });
  });
});

test('a refused microphone is explained and keeps nobody out', async () => {
  const tab = await browser.newPage({ script: refusingScript('audio') });
  await tab.goto(`${server.url}/?room=refused&name=Edsger`);
  await tab.until('the explanation', () =>
    document.getElementById('lobby-hint').textContent.includes('Microphone refused: allow it in the address bar'),
  );
  await tab.evaluate(() => document.getElementById('join').click());
  await tab.until('the call', () => ringside.state === 'connected');
  await tab.close();
});

test('a restarted server finds everybody again', async () => {
  const short = await startServer();
  const tabs = {};
  for (const name of ['Ada', 'Grace']) tabs[name] = await join(name, { url: short.url });
  await tabs.Ada.until('Ada sees Grace', picturesOfOthers, { args: [1] });
  await short.stop();
  await tabs.Ada.until('the page says so', () => document.getElementById('connection').textContent === 'Reconnecting…');
  const again = await startServer({ like: short });
  for (const tab of Object.values(tabs)) {
    await tab.until('connected again', () => ringside.state === 'connected', { timeout_ms: 30_000 });
  }
  await tabs.Ada.until('Ada sees Grace again', picturesOfOthers, { args: [1] });
  await Promise.all(Object.values(tabs).map((tab) => tab.close()));
  await again.stop();
});

test('a full room is explained', { skip: isMediasoup && 'mediasoup has no limits' }, async () => {
  const room = JSON.stringify({ id: 'tiny', maxPeers: 1 });
  await fetch(`${server.url}/api/rooms`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: room });
  const first = await join('Ada', { room: 'tiny' });
  const second = await open('Grace', { room: 'tiny' });
  await second.evaluate(() => document.getElementById('join').click());
  await second.until('the explanation', () => document.getElementById('lobby-error').textContent.startsWith('This room is full.'));
  await Promise.all([first.close(), second.close()]);
});

test('with a grace, pictures go on while the connection to the server is away', { skip: isMediasoup }, async () => {
  const graceful = await startServer({ args: ['--reconnect-grace', '10'] });
  const tabs = {};
  for (const name of ['Ada', 'Grace']) tabs[name] = await join(name, { url: graceful.url });
  await tabs.Ada.until('Ada sees Grace', picturesOfOthers, { args: [1] });
  const consumers = () => ringside.stats().peers[0].streams.map(({ id }) => id).sort();
  const before = await tabs.Ada.evaluate(consumers);
  await tabs.Ada.evaluate(() => sockets.at(-1).close());
  await tabs.Ada.until('the page says so', () => ringside.state === 'reconnecting', { every_ms: 10 });
  await tabs.Ada.until('connected again', () => ringside.state === 'connected');
  assert.deepEqual(await tabs.Ada.evaluate(consumers), before, 'the streams are the same');
  const frames = await tabs.Grace.evaluate(() => framesOfOthers());
  await tabs.Grace.until('Grace still sees Ada move', (frames) => framesOfOthers() > frames + 3, { args: [frames] });
  await Promise.all(Object.values(tabs).map((tab) => tab.close()));
  await graceful.stop();
});

// ---- helpers

async function open(name, { url = server.url, room = 'study-room' } = {}) {
  const { look, tone_hz } = PEOPLE[name];
  const script = `${personScript(look, tone_hz)};(${helpers})()`;
  const tab = await browser.newPage({ script, viewport: { width: 1200, height: 720, dark: true } });
  await tab.goto(`${url}/?room=${room}&name=${name}`);
  await tab.until('camera and microphone', () => document.getElementById('preview').classList.contains('has-picture'));
  return tab;
}

async function join(name, where) {
  const tab = await open(name, where);
  await tab.evaluate(() => document.getElementById('join').click());
  await tab.until(`${name} is in the call`, () => ringside.state === 'connected');
  return tab;
}

/** In the page: how many tiles of others show a picture that moves. */
function picturesOfOthers(count) {
  const videos = [...document.querySelectorAll('.tile.has-picture:not(.own) video')];
  return videos.length === count && videos.every((video) => video.videoWidth > 0 && video.getVideoPlaybackQuality().totalVideoFrames > 2);
}

function preferredIs(name, layer) {
  const peer = ringside.stats().peers.find((peer) => peer.name === name);
  return peer.streams.find(({ kind }) => kind === 'video')?.preferred === layer;
}

function helpers() {
  window.framesOfOthers = () =>
    [...document.querySelectorAll('.tile:not(.own) video')].reduce((sum, video) => sum + video.getVideoPlaybackQuality().totalVideoFrames, 0);
  window.sockets = [];
  window.WebSocket = class extends WebSocket {
    constructor(...args) {
      super(...args);
      sockets.push(this);
    }
  };
  window.tile = (name) =>
    [...document.querySelectorAll('.tile:not(.screen)')].find((tile) => tile.querySelector('.name').textContent.startsWith(name));
}
