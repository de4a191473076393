// Reads one JSON request a line, answers each with one line: what the reference reader says.
//   {"text": "...", "caseSensitive": false}  ->  {"graph": {...}} or {"error": "..."}
// argv: the folder in which the fbp package is installed.
const path = require("path");
const readline = require("readline");
const fbp = require(path.join(process.argv[2], "node_modules", "fbp"));

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const { text, caseSensitive } = JSON.parse(line);
  let answer;
  try {
    answer = { graph: fbp.parse(text, { caseSensitive }) };
  } catch (error) {
    answer = { error: String(error.message) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
});
