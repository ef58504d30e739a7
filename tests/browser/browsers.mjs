// What the tests with players share: the browsers' programs come from Debian, the players from npm.
import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const here = path.dirname(fileURLToPath(import.meta.url));
export const modules = path.join(here, '../npm/node_modules');
export const PROGRAM = { chromium: '/usr/bin/chromium', firefox: '/usr/bin/firefox-esr' };
const FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--autoplay-policy=no-user-gesture-required'];
const PREFS = {
  'media.autoplay.default': 0,
  'media.autoplay.blocking_policy': 0,
  'media.eme.enabled': true,
  'app.update.disabledForTesting': true,
  'datareporting.policy.dataSubmissionEnabled': false,
  'toolkit.telemetry.enabled': false,
};

// Serves the test pages, below /npm/ the players, and what `orders` answers (to POST, by path and query).
export async function servePages(orders = {}) {
  const types = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript; charset=utf-8' };
  const server = createServer(async (request, response) => {
    const { pathname, searchParams } = new URL(request.url, 'http://page');
    if (request.method === 'POST') {
      const answer = await Promise.resolve(orders[pathname.slice(1)](searchParams)).catch((e) => ({ error: e.message }));
      response.writeHead(answer?.error ? 500 : 200).end(JSON.stringify(answer ?? {}));
      return;
    }
    const file = pathname.startsWith('/npm/') ? path.join(modules, pathname.slice(5)) : path.join(here, pathname.slice(1));
    try {
      if (!file.startsWith(modules) && !file.startsWith(here)) throw new Error('outside');
      const body = await readFile(file);
      response.writeHead(200, { 'content-type': types[path.extname(file)] || 'application/octet-stream' });
      response.end(body);
    } catch {
      response.writeHead(404);
      response.end();
    }
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { url: `http://127.0.0.1:${server.address().port}`, close: () => { server.close(); server.closeAllConnections(); } };
}

// What both remote controls can do, under one face: open a page and call a function of its window with one argument.
function control(version, newPage, close) {
  return {
    version,
    close,
    newPage,
    async run(url, name, job) {
      const page = await newPage();
      try {
        await page.goto(url);
        return await page.evaluate(([f, j]) => window[f](j), [name, job]);
      } finally {
        await page.close();
      }
    },
  };
}

export async function openBrowser(which, profile) {
  if (which === 'chromium') {
    const { chromium } = await import(path.join(modules, 'playwright-core/index.mjs'));
    const context = await chromium.launchPersistentContext(profile, { executablePath: PROGRAM.chromium, headless: true, args: FLAGS });
    return control(context.browser()?.version() ?? 'chromium', () => context.newPage(), () => context.close());
  }
  const { default: puppeteer } = await import(path.join(modules, 'puppeteer-core/lib/esm/puppeteer/puppeteer-core.js'));
  const browser = await puppeteer.launch({ browser: 'firefox', executablePath: PROGRAM.firefox, headless: true,
    userDataDir: profile, extraPrefsFirefox: PREFS });
  return control(await browser.version(), () => browser.newPage(), () => browser.close());
}
