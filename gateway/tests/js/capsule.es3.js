// Tells whether capsule.js can be read by the oldest browser that runs a socket.io client.
//
//   node capsule.es3.js [FILE…]
//
// It has to be ES3, words that were reserved then are no names either, and nothing that came
// with ES5 or later is called. Prints what is wrong; exits 0 if nothing is.
'use strict';

const fs = require('node:fs');
const path = require('node:path');
const acorn = require('acorn');

const OLDEST = { ecmaVersion: 3, allowReserved: 'never', locations: true };

/** What the built-ins had in 1999, in ECMA-262 edition 3. */
const ES3 = {
  Array: 'concat join pop push reverse shift slice sort splice unshift',
  String:
    'charAt charCodeAt concat indexOf lastIndexOf localeCompare match replace search slice split substring toLowerCase toUpperCase',
  Object: 'hasOwnProperty isPrototypeOf propertyIsEnumerable toString valueOf constructor prototype',
  Function: 'apply call length',
  RegExp: 'exec test',
};
const GLOBALS =
  'Array Boolean Date Error Function Infinity Math NaN Number Object RegExp String parseInt parseFloat isNaN isFinite undefined setTimeout clearTimeout window module';

/** Every name that today's built-ins have and those of 1999 had not. */
function later() {
  const old = new Set(Object.values(ES3).join(' ').split(' '));
  const names = new Set();
  const all = [Array, String, Object, Function, RegExp, Number, Date].flatMap((one) => [one, one.prototype]);
  for (const one of [...all, Math]) {
    for (const name of Object.getOwnPropertyNames(one)) if (!old.has(name)) names.add(name);
  }
  return names;
}

/** Visits each node of a tree of acorn. */
function walk(node, visit, parent) {
  if (Array.isArray(node)) {
    for (const one of node) walk(one, visit, parent);
  } else if (node && typeof node.type === 'string') {
    visit(node, parent);
    for (const [key, value] of Object.entries(node)) if (key !== 'loc') walk(value, visit, node);
  }
}

function faults(text) {
  const tree = acorn.parse(text, OLDEST);
  const tooNew = later();
  const own = new Set(GLOBALS.split(' '));
  const named = [];
  // A name that the file itself gives to a property is no built-in.
  const given = new Set();
  const found = [];
  const at = (node, what) => found.push(`line ${node.loc.start.line}: ${what}`);

  walk(tree, (node, parent) => {
    if (node.type === 'AssignmentExpression' && node.left.type === 'MemberExpression' && !node.left.computed) {
      given.add(node.left.property.name);
    }
    if (node.type === 'Property' && !node.computed) given.add(node.key.name);
    if (node.type === 'VariableDeclarator') own.add(node.id.name);
    if (node.type === 'FunctionDeclaration') own.add(node.id.name);
    if (node.type === 'CatchClause') own.add(node.param.name);
    if (/^Function/.test(node.type)) node.params.forEach(({ name }) => own.add(name));
    if (node.type !== 'Identifier') return;
    const isMember = parent.type === 'MemberExpression' && parent.property === node && !parent.computed;
    const isKey = parent.type === 'Property' && parent.key === node;
    if (!isKey) named.push({ node, isMember });
  });
  for (const { node, isMember } of named) {
    if (isMember && tooNew.has(node.name) && !given.has(node.name)) at(node, `\`.${node.name}\` is younger than ES3`);
    if (!isMember && !own.has(node.name) && node.name !== 'arguments') at(node, `\`${node.name}\` is not there in ES3`);
  }
  walk(tree, (node) => {
    if (node.type === 'Literal' && node.regex && /[^gim]/.test(node.regex.flags)) at(node, 'a flag of a later RegExp');
    // It is one element more in some of these browsers.
    if (node.type === 'ArrayExpression' && text.slice(node.start, node.end).match(/,\s*]$/)) at(node, 'a comma before ]');
  });
  return found;
}

const files = process.argv.slice(2);
if (!files.length) files.push(path.join(__dirname, '../../assets/capsule.js'));
for (const file of files) {
  for (const fault of faults(fs.readFileSync(file, 'utf8'))) {
    console.log(`${file}, ${fault}`);
    process.exitCode = 1;
  }
}
if (!process.exitCode) console.log('all of it is ES3');
