// Reads one JSON request a line, answers each with one line: what the reference says of it.
//   {"expect": {"out": {...}}, "data": {"out": ...}}  ->  {"error": "..."} or {}
//   {"path": "$...", "data": ...}  ->  {"selected": [...]} or {"error": "..."}
//   {"yaml": "..."}  ->  {"suites": [...]} or {"error": "..."}
// argv: the folder node_modules in which fbp-spec is installed.
const path = require("path");
const readline = require("readline");
const jsonpath = require(path.join(process.argv[2], "jsonpath"));
const library = path.join(process.argv[2], "fbp-spec", "lib");
const expectation = require(path.join(library, "expectation"));
const testsuite = require(path.join(library, "testsuite"));

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const asked = JSON.parse(line);
  let answer = {};
  try {
    if ("yaml" in asked) {
      answer = { suites: testsuite.loadYAMLSync(asked.yaml) };
    } else if ("path" in asked) {
      answer = { selected: jsonpath.query(asked.data, asked.path) };
    } else {
      expectation.expect(asked.expect, asked.data);
    }
  } catch (error) {
    answer = { error: String(error.message || error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
});
