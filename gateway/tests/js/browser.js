// The demo board in a real browser: two users, two windows, every act seen by the other.
//
//   node browser.js BASE_URL SCREENSHOT_FOLDER
//
// Uses the system's Chromium ($CHROMIUM, or the first of chromium,
// chromium-browser, google-chrome on the PATH). Prints a line per fact; exits 0
// if all hold, else 1 with what was on the pages in failure-*.png.
'use strict';

const fs = require('node:fs');
const path = require('node:path');
const { chromium } = require('playwright-core');

const PATIENCE = 10_000;

function executable() {
  if (process.env.CHROMIUM) return process.env.CHROMIUM;
  const names = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'];
  for (const name of names) {
    for (const folder of process.env.PATH.split(path.delimiter)) {
      const file = path.join(folder, name);
      if (fs.existsSync(file)) return file;
    }
  }
  throw new Error(`no browser: none of ${names.join(', ')} is on the PATH`);
}

/** One user's window. */
class Window {
  static async open(browser, user) {
    const context = await browser.newContext({ viewport: { width: 1280, height: 900 } });
    const page = await context.newPage();
    page.setDefaultTimeout(PATIENCE);
    const window = new Window(page, user);
    await page.routeWebSocket(/\/socket\.io\//, (socket) => {
      socket.connectToServer();
      window.sockets.push(socket);
    });
    return window;
  }

  constructor(page, user) {
    this.page = page;
    this.user = user;
    this.faults = [];
    this.sockets = [];
    page.on('pageerror', (error) => this.faults.push(`script: ${error.message}`));
    page.on('console', (message) => {
      if (message.type() === 'error') this.faults.push(`console: ${message.text()}`);
    });
  }

  async visit(base) {
    await this.page.goto(`${base}/?user=${this.user}`);
    await this.connected();
  }

  async connected() {
    await this.page.locator('#status[data-state="connected"]').waitFor();
    await this.page.locator('[data-member] [data-add]').first().waitFor();
  }

  /** Loses the connection as a network would, once it is a websocket. */
  async lose() {
    await this.page.locator('#status-text', { hasText: 'websocket' }).waitFor();
    await this.sockets.at(-1).close();
    await this.page.locator('#status:not([data-state="connected"])').waitFor();
  }

  /** The events that its log tells of, newest first. */
  async logged() {
    return this.page.locator('#log-lines .event').allTextContents();
  }

  column(member) {
    return this.page.locator(`[data-member="${member}"]`);
  }

  card(id, member) {
    return this.column(member).locator(`[data-task="${id}"]`);
  }

  titled(member, title) {
    const exact = this.page.locator('.title', { hasText: new RegExp(`^\\s*${escaped(title)}\\s*$`) });
    return this.column(member).locator('[data-task]').filter({ has: exact });
  }

  async add(member, title) {
    const input = this.column(member).locator('input[data-add]');
    await input.fill(title);
    await input.press('Enter');
  }

  async act(member, id, what) {
    const card = this.card(id, member);
    await card.hover();
    await card.locator(`button[data-act="${what}"]`).click();
  }

  async order(member) {
    return this.column(member)
      .locator('[data-task]')
      .evaluateAll((cards) => cards.map((card) => card.dataset.task));
  }

  /** Waits until a column shows exactly these tasks in this order. */
  async shows(member, ids) {
    await this.page.waitForFunction(
      ([selector, expected]) => {
        const cards = document.querySelectorAll(`${selector} [data-task]`);
        return Array.from(cards, (card) => card.dataset.task).join('\n') === expected;
      },
      [`[data-member="${member}"]`, ids.join('\n')],
    );
  }
}

function escaped(text) {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}

async function fact(sentence, prove) {
  const started = Date.now();
  try {
    const value = await prove();
    console.log(`ok    ${sentence} (${Date.now() - started} ms)`);
    return value;
  } catch (error) {
    console.log(`FAILS ${sentence}`);
    throw error;
  }
}

async function story(ann, bob, folder) {
  const title = `Pack 📦 for 東京 ${Date.now() % 100000}`;
  const renamed = `${title}, twice`;

  const id = await fact('a task that ann adds is seen by bob', async () => {
    await ann.add('ann', title);
    const card = bob.titled('ann', title);
    await card.waitFor();
    return card.getAttribute('data-task');
  });

  await fact('it stands last in both windows', async () => {
    const order = await ann.order('ann');
    if (order.at(-1) !== id) throw new Error(`${id} is not last in ${order}`);
    await bob.shows('ann', order);
  });

  await fact('completing it is seen', async () => {
    await ann.card(id, 'ann').locator('[data-done]').check();
    await bob.card(id, 'ann').locator('[data-done]:checked').waitFor({ state: 'attached' });
  });

  await fact('a new title is seen', async () => {
    await ann.act('ann', id, 'edit');
    const input = ann.card(id, 'ann').locator('input[type="text"]');
    await input.fill(renamed);
    await input.press('Enter');
    await bob.titled('ann', renamed).waitFor();
  });

  await fact('moving it up is seen', async () => {
    const order = await ann.order('ann');
    const at = order.indexOf(id);
    if (at < 1) throw new Error(`nothing stands above ${id}`);
    [order[at - 1], order[at]] = [order[at], order[at - 1]];
    await ann.act('ann', id, 'up');
    await ann.shows('ann', order);
    await bob.shows('ann', order);
  });

  await fact('moving it down again is seen', async () => {
    await ann.act('ann', id, 'down');
    const order = await ann.order('ann');
    const expected = [...order.filter((each) => each !== id), id];
    await ann.shows('ann', expected);
    await bob.shows('ann', expected);
  });

  await fact('shipping it, a job, is seen', async () => {
    await ann.act('ann', id, 'ship');
    await ann.card(id, 'ann').locator('.shipped').waitFor();
    await bob.card(id, 'ann').locator('.shipped').waitFor();
  });

  await fact('the other direction works too', async () => {
    const theirs = `Thank ann ${Date.now() % 100000}`;
    await bob.add('bob', theirs);
    const card = ann.titled('bob', theirs);
    await card.waitFor();
    const other = await card.getAttribute('data-task');
    await bob.act('bob', other, 'delete');
    await ann.card(other, 'bob').waitFor({ state: 'detached' });
  });

  for (const window of [ann, bob]) {
    await window.page.screenshot({ path: path.join(folder, `board-${window.user}.png`) });
  }

  await fact('deleting it is seen', async () => {
    await ann.act('ann', id, 'delete');
    await ann.card(id, 'ann').waitFor({ state: 'detached' });
    await bob.card(id, 'ann').waitFor({ state: 'detached' });
  });

  await fact('a window that lost its connection goes on where it was', async () => {
    const missed = `Missed by ann ${Date.now() % 100000}`;
    await ann.lose();
    await bob.add('ann', missed);
    await ann.titled('ann', missed).waitFor();
    await ann.connected();
    await ann.page.locator('#log-lines .feed', { hasText: 'feeds went on' }).first().waitFor({ state: 'attached' });
    const heard = await ann.logged();
    const isWhole = heard.filter((event) => event === '↓ initial').length > 1;
    if (isWhole) throw new Error(`the whole state came again: ${heard}`);
  });

  await fact('a reloaded page shows what the open one shows', async () => {
    const order = await bob.order('ann');
    await ann.page.reload();
    await ann.connected();
    await ann.shows('ann', order);
  });

  await fact('neither page complained', async () => {
    const faults = [...ann.faults, ...bob.faults];
    if (faults.length) throw new Error(faults.join('\n'));
  });
}

async function main() {
  const [base, folder] = process.argv.slice(2);
  if (!folder) throw new Error('usage: browser.js BASE_URL SCREENSHOT_FOLDER');
  fs.mkdirSync(folder, { recursive: true });
  const browser = await chromium.launch({
    executablePath: executable(),
    // Root has no sandbox, and a container's /dev/shm is too small for a browser.
    args: ['--no-sandbox', '--disable-dev-shm-usage'],
  });
  const windows = [];
  try {
    for (const user of ['ann', 'bob']) {
      const window = await Window.open(browser, user);
      windows.push(window);
      await fact(`${user}'s window connects`, () => window.visit(base.replace(/\/$/, '')));
    }
    await story(...windows, folder);
  } catch (error) {
    for (const window of windows) {
      const file = path.join(folder, `failure-${window.user}.png`);
      await window.page.screenshot({ path: file }).catch(() => {});
      for (const fault of window.faults) console.log(`${window.user}: ${fault}`);
    }
    throw error;
  } finally {
    await browser.close();
  }
}

module.exports = { executable };

if (require.main === module) {
  main().catch((error) => {
    // Playwright colours its messages, whoever reads them.
    console.log(error.message.replace(/\u001b\[\d+m/g, ''));
    process.exit(1);
  });
}
