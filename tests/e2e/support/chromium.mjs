// Drives a real Chromium over its DevTools protocol: null-terminated JSON on two pipes, no port, no library. Just what
// the tests need: tabs, scripts in them, screenshots, keys. Ends only the browser that it started.

import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const FLAGS = [
  '--headless',
  '--remote-debugging-pipe',
  '--use-fake-device-for-media-stream=fps=15',
  '--use-fake-ui-for-media-stream',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--no-default-browser-check',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--disable-background-timer-throttling',
  '--disable-backgrounding-occluded-windows',
  '--disable-renderer-backgrounding',
  '--autoplay-policy=no-user-gesture-required',
  '--mute-audio',
];
const CANDIDATES = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];
const START_TIMEOUT_MS = 60_000;

export class Chromium {
  #process;
  #profile;
  #pending = new Map();
  #sessions = new Map();
  #nextId = 1;
  #ended;

  /** A fresh browser with a profile of its own. Throws when there is none: a missing browser is a failure. */
  static async launch({ flags = [] } = {}) {
    const executable = CANDIDATES.find((path) => path && existsSync(path));
    if (!executable) throw new Error('no Chromium found: apt-get install chromium, or set CHROMIUM to its path');
    const profile = await mkdtemp(join(tmpdir(), 'ringside-e2e-'));
    // The sandbox needs user namespaces, which root in a container usually has not.
    const sandbox = process.getuid() === 0 ? ['--no-sandbox'] : [];
    const args = [...FLAGS, ...sandbox, ...flags, `--user-data-dir=${profile}`, 'about:blank'];
    const child = spawn(executable, args, { stdio: ['ignore', 'ignore', 'pipe', 'pipe', 'pipe'] });
    const browser = new Chromium(child, profile);
    await browser.send('Browser.getVersion', {}, undefined, START_TIMEOUT_MS);
    return browser;
  }

  constructor(child, profile) {
    this.#process = child;
    this.#profile = profile;
    let complaints = '';
    child.stderr.on('data', (chunk) => (complaints = (complaints + chunk).slice(-2000)));
    this.#ended = new Promise((resolve) => child.once('exit', resolve));
    child.once('exit', (code) => this.#fail(new Error(`Chromium ended (${code}): ${complaints}`)));
    child.once('error', (error) => this.#fail(error));
    child.stdio[3].on('error', () => {});
    let rest = '';
    child.stdio[4].setEncoding('utf8').on('data', (chunk) => {
      const messages = (rest + chunk).split('\0');
      rest = messages.pop();
      for (const message of messages) this.#received(JSON.parse(message));
    });
  }

  /** A new tab; `script` runs in it before any script of a page. */
  async newPage({ script, viewport } = {}) {
    const { browserContextId } = await this.send('Target.createBrowserContext');
    const { targetId } = await this.send('Target.createTarget', { url: 'about:blank', browserContextId });
    const { sessionId } = await this.send('Target.attachToTarget', { targetId, flatten: true });
    const page = new Page(this, targetId, sessionId);
    this.#sessions.set(sessionId, page);
    await Promise.all([page.send('Page.enable'), page.send('Runtime.enable')]);
    if (script) await page.send('Page.addScriptToEvaluateOnNewDocument', { source: script });
    if (viewport) await page.resize(viewport);
    return page;
  }

  /** One command of the DevTools protocol. */
  send(method, params = {}, sessionId = undefined, timeout_ms = 30_000) {
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`Chromium does not answer ${method}`)), timeout_ms);
      this.#pending.set(id, { resolve, reject, timer });
      this.#process.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    });
  }

  async close() {
    if (this.#process.exitCode === null) {
      this.send('Browser.close').catch(() => {});
      const timer = setTimeout(() => this.#process.kill('SIGKILL'), 5000);
      await this.#ended;
      clearTimeout(timer);
    }
    await rm(this.#profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  }

  #received({ id, result, error, method, params, sessionId }) {
    if (id === undefined) return this.#sessions.get(sessionId)?.received(method, params);
    const pending = this.#pending.get(id);
    if (!pending) return;
    this.#pending.delete(id);
    clearTimeout(pending.timer);
    if (error) pending.reject(new Error(error.message));
    else pending.resolve(result);
  }

  #fail(error) {
    for (const { reject, timer } of this.#pending.values()) {
      clearTimeout(timer);
      reject(error);
    }
    this.#pending.clear();
  }
}

class Page {
  #browser;
  #targetId;
  #sessionId;
  #loaded = () => {};
  /** What the page's console and uncaught errors said, for the message of a failing test. */
  log = [];

  constructor(browser, targetId, sessionId) {
    this.#browser = browser;
    this.#targetId = targetId;
    this.#sessionId = sessionId;
  }

  send(method, params, timeout_ms) {
    return this.#browser.send(method, params, this.#sessionId, timeout_ms);
  }

  async goto(url) {
    const loaded = new Promise((resolve) => (this.#loaded = resolve));
    const { errorText } = await this.send('Page.navigate', { url });
    if (errorText) throw new Error(`${url}: ${errorText}`);
    await loaded;
  }

  /** Calls `action(...args)` in the page and resolves to what it returns or resolves to; both must be JSON. */
  async evaluate(action, ...args) {
    const expression = `(${action})(...${JSON.stringify(args)})`;
    const options = { expression, awaitPromise: true, returnByValue: true, userGesture: true };
    const { result, exceptionDetails } = await this.send('Runtime.evaluate', options, 90_000);
    if (!exceptionDetails) return result.value;
    throw new Error(`in the page: ${exceptionDetails.exception?.description ?? exceptionDetails.text}${this.#tail()}`);
  }

  /** Polls `condition(...args)` in the page until it is truthy; resolves to its value. */
  async until(what, condition, { args = [], timeout_ms = 20_000, every_ms = 100 } = {}) {
    const deadline = Date.now() + timeout_ms;
    for (;;) {
      const value = await this.evaluate(condition, ...args);
      if (value) return value;
      if (Date.now() > deadline) throw new Error(`not within ${timeout_ms} ms: ${what}${this.#tail()}`);
      await new Promise((resolve) => setTimeout(resolve, every_ms));
    }
  }

  async press(key) {
    const code = key.length === 1 ? { text: key, code: `Key${key.toUpperCase()}` } : { code: key };
    const virtual = { Enter: 13, Escape: 27, Tab: 9 }[key] ?? key.toUpperCase().charCodeAt(0);
    const event = { key, windowsVirtualKeyCode: virtual, ...code, ...(key === 'Enter' && { text: '\r' }) };
    await this.send('Input.dispatchKeyEvent', { type: 'keyDown', ...event });
    await this.send('Input.dispatchKeyEvent', { type: 'keyUp', ...event });
  }

  resize({ width, height, scale = 1, mobile = false, dark }) {
    const scheme = dark === undefined ? [] : [{ name: 'prefers-color-scheme', value: dark ? 'dark' : 'light' }];
    return Promise.all([
      this.send('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: scale, mobile }),
      this.send('Emulation.setTouchEmulationEnabled', { enabled: mobile }),
      this.send('Emulation.setEmulatedMedia', { features: scheme }),
    ]);
  }

  /** PNG bytes of what is visible. */
  async screenshot() {
    const { data } = await this.send('Page.captureScreenshot', { format: 'png' });
    return Buffer.from(data, 'base64');
  }

  /** Closes the tab as a person would. */
  async close() {
    await this.#browser.send('Target.closeTarget', { targetId: this.#targetId });
  }

  received(method, params) {
    if (method === 'Page.loadEventFired') this.#loaded();
    if (method === 'Runtime.consoleAPICalled') {
      this.log.push(`${params.type}: ${params.args.map((arg) => arg.value ?? arg.description).join(' ')}`);
    }
    if (method === 'Runtime.exceptionThrown') {
      const { exception, text } = params.exceptionDetails;
      this.log.push(`uncaught: ${exception?.description ?? text}`);
    }
  }

  #tail() {
    return this.log.length > 0 ? `\nthe page said:\n  ${this.log.slice(-15).join('\n  ')}` : '';
  }
}
