// Bundles the page into dist/: index.html, app.js, app.css, which the server carries inside its binary, and
// licenses.txt with the terms of the libraries inside app.js. The result is committed: running needs no node.
// `node build.mjs [folder | --watch]`

import { build, context } from 'esbuild';
import { copyFile, mkdir, readFile, readdir, writeFile } from 'node:fs/promises';

const watch = process.argv[2] === '--watch';
const out = watch ? 'dist' : (process.argv[2] ?? 'dist');

const options = {
  entryPoints: [
    { in: 'src/main.js', out: 'app' },
    { in: 'src/app.css', out: 'app' },
  ],
  outdir: out,
  bundle: true,
  format: 'esm',
  target: ['chrome100', 'firefox100', 'safari15.4'],
  minify: true,
  legalComments: 'none',
  metafile: true,
  logLevel: 'warning',
};

await mkdir(out, { recursive: true });
await copyFile('src/index.html', `${out}/index.html`);
if (watch) await (await context({ ...options, sourcemap: 'inline' })).watch();
else await writeFile(`${out}/licenses.txt`, await licenses((await build(options)).metafile));

async function licenses({ inputs }) {
  const packages = new Set();
  for (const path of Object.keys(inputs)) {
    const [, name] = /node_modules\/((?:@[^/]+\/)?[^/]+)\/(?!.*node_modules)/.exec(path) ?? [];
    if (name) packages.add(name);
  }
  const texts = [];
  for (const name of [...packages].sort()) {
    const { version, license } = JSON.parse(await readFile(`node_modules/${name}/package.json`, 'utf8'));
    const file = (await readdir(`node_modules/${name}`)).find((entry) => /^licen[cs]e/i.test(entry));
    const text = file ? await readFile(`node_modules/${name}/${file}`, 'utf8') : `${license} license`;
    texts.push(`${name} ${version}\n\n${text.trim()}\n`);
  }
  return texts.join(`\n${'-'.repeat(72)}\n\n`);
}
