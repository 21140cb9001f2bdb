// Drives the page of examples/browser in Chromium: `node run.mjs PROVIDER` with the path of its program.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';

const program = process.argv[2] ?? '../../target/debug/browser';
const browserPath = process.env.CHROMIUM ?? '/usr/bin/chromium';
const provider = spawn(program, ['tcp://127.0.0.1:0'], { stdio: ['ignore', 'pipe', 'inherit'] });
const profile = mkdtempSync(join(tmpdir(), 'farcall-browser-'));
let context;

try {
  const { value: url } = await createInterface({ input: provider.stdout })[Symbol.asyncIterator]().next();
  context = await chromium.launchPersistentContext(profile, {
    executablePath: browserPath,
    headless: true,
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync'],
  });
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  const problems = [];
  page.on('pageerror', (error) => problems.push(String(error)));
  await page.goto(url);
  const shown = (id, text) => page.locator(`#${id}`, { hasText: text }).waitFor();

  // A call, across origins: the browser asked first whether it may.
  await page.click('#quote button');
  await shown('quoted', 'tea: 9.00');
  // The application's own error, with its value.
  await page.fill('[name=sku]', 'unobtainium');
  await page.click('#quote button');
  await shown('quoted', 'nobody sells unobtainium');
  // A stream, live: it is shown before it is over.
  await page.click('#follow');
  await shown('followed', /^487$/);
  await shown('followed', '487 524 461 498 535 and that is all');
  // A stream that is stopped.
  await page.click('#follow');
  await shown('followed', /^487/);
  await page.click('#stop');
  await shown('followed', 'stopped');

  // A page of another origin is not let in: its browser keeps the answer from it.
  const door = new URL(url).searchParams.get('door');
  const stranger = await context.newPage();
  await stranger.goto(`${door}/healthz`);
  const from = (target) => stranger.evaluate((to) => fetch(to).then((r) => r.status, () => 'refused'), target);
  assert.equal(await from(`${door}/Prices/quote?sku=tea`), 200, 'of the same origin it is');
  await stranger.goto(`${url.replace('127.0.0.1', 'localhost')}`);
  assert.equal(await from(`${door}/Prices/quote?sku=tea`), 'refused');
  assert.deepEqual(problems, []);
  console.log('browser: a call, an error, a stream and a stranger, as they should be');
} finally {
  await context?.close();
  provider.kill('SIGTERM');
  rmSync(profile, { recursive: true, force: true });
}
