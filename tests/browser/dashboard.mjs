// Looks at the admin listener's page in Chromium: node dashboard.mjs URL [PICTURE]. Says "ready" on a line when the server may go away.
// With PICTURE it looks on for a while instead, leaves a picture there and tests nothing.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { done, ok } from './tap.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));

const { chromium } = await import(path.join(here, '../npm/node_modules/playwright-core/index.mjs'));
const profile = await mkdtemp(path.join(tmpdir(), 'sluice-dashboard-'));
const context = await chromium.launchPersistentContext(profile, { executablePath: '/usr/bin/chromium', headless: true, viewport: { width: 1180, height: 900 },
  args: ['--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update'] });
try {
  const page = await context.newPage(), said = [];
  page.on('console', (m) => said.push(`${m.type()}: ${m.text()}`));
  page.on('pageerror', (e) => said.push(String(e)));
  await page.goto(process.argv[2]);
  if (process.argv[3]) {
    await page.setViewportSize({ width: 1060, height: 640 });
    await page.waitForTimeout(100000);
    await page.screenshot({ path: process.argv[3] });
    ok(true, `${process.argv[3]} is written`);
  } else await look(page, said);
} catch (e) {
  ok(false, 'the page', String(e));
} finally {
  await context.close();
  await rm(profile, { recursive: true, force: true });
}
done();

async function look(page, said) {
  await page.waitForFunction(() => document.querySelector('#requests').points.length > 1, null, { timeout: 20000 });
  const seen = await page.evaluate(() => ({ state: document.getElementById('state').textContent, text: document.body.innerText,
    rows: [...document.querySelectorAll('#epochs tr')].map((r) => r.innerText), markup: document.querySelectorAll('#epochs i').length }));
  ok(said.length === 0, 'nothing on the console', said);
  ok(seen.state === 'ready', 'the state', seen.state);
  ok(/requests\s+3\s/.test(seen.text) && /errors, 4xx\s+1\s/.test(seen.text) && /catalogue\s+1 track\s/.test(seen.text), 'what /status says', seen.text);
  ok(seen.rows.length === 3 && seen.rows.some((r) => r.startsWith('a<i>b')) && seen.rows.some((r) => r.startsWith('everything')) && !seen.markup,
    'rotations by name; names are text', seen);
  ok(!/NaN|undefined|Infinity/.test(seen.text), 'every number is one', seen.text);
  for (const width of [1180, 360]) {
    await page.setViewportSize({ width, height: 800 });
    ok(await page.evaluate(() => document.documentElement.scrollWidth <= document.documentElement.clientWidth), `nothing sticks out, ${width} px`);
  }
  console.log('ready');
  await page.waitForFunction(() => document.getElementById('state').textContent === 'no answer', null, { timeout: 30000 })
    .then(() => ok(true, 'a server that went away'), (e) => ok(false, 'a server that went away', e.message));
  ok(/from then/.test(await page.evaluate(() => document.getElementById('what').textContent)), 'says how old the figures are');
}
