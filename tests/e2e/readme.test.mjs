// The examples of the README, as they stand there: bundled with the unmodified client libraries and run by two browsers.

import { build } from 'esbuild';
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { Chromium } from './support/chromium.mjs';
import { isMediasoup, startServer } from './support/server.mjs';

const here = fileURLToPath(new URL('.', import.meta.url));

let server, browser, examples;

before(async () => {
  [server, browser, examples] = await Promise.all([startServer({ workers: 1 }), Chromium.launch(), readExamples()]);
});

after(() => Promise.all([browser?.close(), server?.stop()]));

for (const name of isMediasoup ? ['with-protoo.js'] : ['with-protoo.js', 'with-socketio.js']) {
  test(`${name} sees and hears another participant`, async () => {
    const script = await bundle(name);
    const tabs = await Promise.all([enter(script), enter(script)]);
    for (const tab of tabs) {
      await tab.until('a picture moves and a sound plays', () => {
        const [video] = document.getElementsByTagName('video');
        const [audio] = document.getElementsByTagName('audio');
        return video?.getVideoPlaybackQuality().totalVideoFrames > 10 && audio?.currentTime > 0.5;
      });
    }
    await tabs[0].close();
    await tabs[1].until('nobody is left', () => document.getElementsByTagName('video').length === 0);
    await tabs[1].close();
  });
}

async function enter(script) {
  const tab = await browser.newPage();
  // Any page of a secure origin will do.
  await tab.goto(`${server.url}/health`);
  await tab.evaluate(`() => {${script}}`);
  return tab;
}

/** The blocks of code that begin with a comment that names a file. */
async function readExamples() {
  const readme = await readFile(`${here}../../README.md`, 'utf8');
  const blocks = [...readme.matchAll(/^```js\n(\/\/ ([\w-]+\.js)\n[^]*?)^```$/gm)];
  assert.deepEqual(blocks.map(([, , name]) => name), ['participant.js', 'with-protoo.js', 'with-socketio.js']);
  return new Map(blocks.map(([, text, name]) => [`./${name}`, text]));
}

async function bundle(name) {
  const ofReadme = {
    name: 'readme',
    setup({ onResolve, onLoad }) {
      onResolve({ filter: /^\.\// }, ({ path }) => (examples.has(path) ? { path, namespace: 'readme' } : undefined));
      onLoad({ filter: /.*/, namespace: 'readme' }, ({ path }) => ({
        contents: examples.get(path).replaceAll('localhost:8100', `127.0.0.1:${server.port}`),
        resolveDir: here,
      }));
    },
  };
  const { outputFiles } = await build({
    entryPoints: [`./${name}`],
    plugins: [ofReadme],
    bundle: true,
    format: 'iife',
    target: 'chrome110',
    write: false,
    logLevel: 'warning',
  });
  return outputFiles[0].text;
}
