// Reads messages, one JSON text a line; answers each with null, or with what the schemas of
// npm fbp-protocol find wrong about it.
const path = require('path');
const readline = require('readline');
const root = path.resolve(process.argv[2]);
const schemas = require(path.join(root, 'fbp-protocol', 'schema', 'schemas.js'));
const tv4 = require(path.join(root, 'tv4'));
const formats = require(path.join(root, 'fbp-protocol', 'schema', 'format.js'));
if (typeof formats === 'function') formats(tv4);
for (const file of ['shared', 'runtime', 'graph', 'network', 'component', 'trace']) {
  const schema = require(path.join(root, 'fbp-protocol', 'schema', 'json', file + '.json'));
  tv4.addSchema('/' + file + '/', schema);
}
readline.createInterface({ input: process.stdin }).on('line', (line) => {
  const message = JSON.parse(line);
  const known = schemas[message.protocol] && schemas[message.protocol].output[message.command];
  let wrong = null;
  if (!known) {
    wrong = 'no such message';
  } else {
    const found = tv4.validateMultiple(message, known);
    if (!found.valid) {
      wrong = found.errors.map((e) => `${e.message} at ${e.dataPath}`).join('; ');
    } else if (found.missing.length) {
      wrong = `schemas that are missing: ${found.missing.join(', ')}`;
    }
  }
  process.stdout.write(JSON.stringify(wrong) + '\n');
});
