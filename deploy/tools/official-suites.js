// Prints what mocha's JSON reporter says of one suite: the counts, and what failed.
//
//   node official-suites.js NAME RESULT
"use strict";

const fs = require("node:fs");

const [name, file] = process.argv.slice(2);
const text = fs.readFileSync(file, "utf8");
// A suite may have printed something before its result.
const { stats, failures } = JSON.parse(text.slice(text.indexOf("{\n")));
const pending = stats.pending > 0 ? `, ${stats.pending} skipped by the suite` : "";
console.log(`${name}: ${stats.passes} of ${stats.passes + stats.failures} passed${pending}`);
for (const { fullTitle, err } of failures) {
  console.log(`  failed: ${fullTitle}`);
  console.log(`    ${String(err.message).split("\n")[0]}`);
}
