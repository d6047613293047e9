// Serves the test pages on loopback: each page is one bundle, made when the server starts.

import { build } from 'esbuild';
import { createServer } from 'node:http';
import { fileURLToPath } from 'node:url';

const folder = fileURLToPath(new URL('../pages/', import.meta.url));

/** `{ url(name), close() }`; names are those of the files in pages/. */
export async function servePages(names) {
  const { outputFiles } = await build({
    entryPoints: names.map((name) => `${folder}${name}.js`),
    outdir: folder,
    bundle: true,
    format: 'iife',
    target: 'chrome110',
    write: false,
    logLevel: 'warning',
  });
  const bundles = new Map(outputFiles.map(({ path, text }) => [`/${path.slice(folder.length)}`, text]));
  const server = createServer((request, response) => {
    const script = bundles.get(request.url);
    if (script) return response.setHeader('content-type', 'text/javascript').end(script);
    const title = request.url.slice(1);
    response.setHeader('content-type', 'text/html');
    response.end(`<!doctype html><meta charset="utf-8"><title>${title}</title><link rel="icon" href="data:,"><script src="/${title}.js"></script>`);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: (name) => `http://127.0.0.1:${server.address().port}/${name}`,
    close() {
      server.close();
      server.closeAllConnections?.();
    },
  };
}
