// The tests of capsule.js in a browser that has lost what came with ES5 and later.
//
//   node capsule.browser.js [HISTORIES]
//
// Uses the system's Chromium, as browser.js does. Without Backbone, of which today's needs more
// than such a browser has. Prints what the tests print; exits 0 if all hold.
'use strict';

const fs = require('node:fs');
const path = require('node:path');
const { chromium } = require('playwright-core');
const { executable } = require('./browser.js');

const PAGE = 'http://capsule.test/';
const PATIENCE = 240_000;

/** Takes away what browsers of 2009 had not; the first script of the page. */
const AGE = `
(function () {
  function lose(holder, names) {
    names = names.split(' ');
    for (var at = 0; at < names.length; at += 1) {
      delete holder[names[at]];
      if (names[at] in holder) throw new Error(names[at] + ' is still there');
    }
  }
  lose(Array, 'isArray of from fromAsync');
  lose(Array.prototype, 'forEach map filter reduce reduceRight some every indexOf lastIndexOf find findIndex findLast ' +
    'findLastIndex includes fill flat flatMap at keys values entries copyWithin toSorted toSpliced toReversed with');
  lose(Function.prototype, 'bind');
  lose(String.prototype, 'trim trimStart trimEnd trimLeft trimRight startsWith endsWith includes repeat padStart padEnd codePointAt ' +
    'normalize replaceAll matchAll at');
  lose(String, 'raw fromCodePoint');
  lose(Date, 'now');
  lose(Date.prototype, 'toISOString toJSON');
  lose(Object, 'keys create defineProperty defineProperties getOwnPropertyNames getOwnPropertyDescriptor freeze seal ' +
    'preventExtensions isFrozen isSealed isExtensible assign entries values is fromEntries setPrototypeOf getPrototypeOf ' +
    'getOwnPropertySymbols getOwnPropertyDescriptors groupBy hasOwn');
  lose(window, 'JSON Map Set WeakMap WeakSet Promise Symbol Proxy Reflect Uint8Array ArrayBuffer DataView globalThis');
})();
`;

const SCRIPTS = [
  ['capsule', path.join(__dirname, '../../assets/capsule.js')],
  ['world', path.join(__dirname, 'capsule.world.js')],
  ['histories', path.join(__dirname, 'capsule.histories.js')],
  ['test', path.join(__dirname, 'capsule.test.js')],
];

function run(histories) {
  return `
    var failures = runCapsuleTests(Capsule, null, World, Histories, ${histories},
      function (line) { console.log(line); }, window);
    console.log('capsule.browser.js: ' + failures);
  `;
}

async function main() {
  const histories = Number(process.argv[2] || 300);
  const files = new Map(SCRIPTS.map(([name, file]) => [`${PAGE}${name}.js`, fs.readFileSync(file, 'utf8')]));
  files.set(`${PAGE}age.js`, AGE);
  files.set(`${PAGE}run.js`, run(histories));
  const tags = Array.from(['age', ...SCRIPTS.map(([name]) => name), 'run'], (name) => `<script src="/${name}.js"></script>`);
  const html = `<!doctype html><title>capsule.js</title>${tags.join('')}`;

  const browser = await chromium.launch({
    executablePath: executable(),
    args: ['--no-sandbox', '--disable-dev-shm-usage'],
  });
  try {
    const page = await browser.newPage();
    const ended = new Promise((resolve, reject) => {
      page.on('pageerror', (error) => reject(error));
      page.on('console', (message) => {
        const said = /^capsule\.browser\.js: (\d+)$/.exec(message.text());
        if (said) resolve(Number(said[1]));
        else console.log(message.text());
      });
      setTimeout(() => reject(new Error('the tests did not end in time')), PATIENCE).unref();
    });
    await page.route('**/*', (route) => {
      const script = files.get(route.request().url());
      if (script) return route.fulfill({ contentType: 'application/javascript; charset=utf-8', body: script });
      return route.fulfill({ contentType: 'text/html; charset=utf-8', body: html });
    });
    // Nothing is asked of the page: what Playwright would run in it needs what it has lost.
    page.goto(PAGE, { waitUntil: 'commit' }).catch(() => {});
    if (await ended) process.exitCode = 1;
  } finally {
    await browser.close();
  }
}

main().catch((error) => {
  console.log(error.stack || error.message);
  process.exit(1);
});
