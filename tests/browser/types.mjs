// What docs/protocol.d.ts allows, as a JSON Schema, and how much of it was seen.

import { fileURLToPath } from "node:url";

import Ajv from "ajv";
import { createGenerator } from "ts-json-schema-generator";

const PATH = fileURLToPath(new URL("recorded.ts", import.meta.url));

/** Reads the types. `see(name, value)` holds a value against the member `name` of `Recorded`; `unseen()` is what no value had. */
export function readTypes() {
  // Its type check is `tsc`, with all that is wrong at once.
  const { definitions } = createGenerator({
    path: PATH,
    expose: "export",
    additionalProperties: false,
    jsDoc: "none",
  }).createSchema("*");
  const ajv = new Ajv({ allErrors: true, allowUnionTypes: true });
  const validators = new Map();
  const seen = new Set();

  const validator = (schema) => {
    if (!validators.has(schema)) validators.set(schema, ajv.compile({ ...schema, definitions }));
    return validators.get(schema);
  };
  const resolve = (schema) =>
    schema.$ref ? definitions[decodeURIComponent(schema.$ref.slice("#/definitions/".length))] : schema;

  /** Notes what of a schema a value that fits it has. */
  function note(schema, value) {
    schema = resolve(schema);
    for (const choice of schema.anyOf ?? []) {
      if (!validator(choice)(value)) continue;
      seen.add(choice);
      note(choice, value);
    }
    for (const word of schema.enum ?? []) if (word === value) seen.add(`${id(schema)} ${word}`);
    if (Array.isArray(schema.type)) seen.add(`${id(schema)} ${typeOf(value)}`);
    if (Array.isArray(value) && schema.items) for (const item of value) note(schema.items, item);
    if (typeOf(value) !== "object") return;
    for (const [name, member] of Object.entries(value)) {
      const known = schema.properties?.[name];
      if (known) {
        seen.add(known);
        note(known, member);
      } else if (typeof schema.additionalProperties === "object") {
        seen.add(schema.additionalProperties);
        note(schema.additionalProperties, member);
      }
    }
  }

  /** All that `note` can note below a schema, each with where it stands. */
  function parts(schema, path, found = new Map(), visited = new Set()) {
    if (schema.$ref) path = decodeURIComponent(schema.$ref.slice("#/definitions/".length));
    schema = resolve(schema);
    if (visited.has(schema)) return found;
    visited.add(schema);
    const below = (part, where) => {
      found.set(part, where);
      parts(part, where, found, visited);
    };
    for (const [i, choice] of (schema.anyOf ?? []).entries()) {
      below(choice, `${path} | ${choice.$ref ? decodeURIComponent(choice.$ref.split("/").at(-1)) : (choice.type ?? i)}`);
    }
    for (const word of schema.enum ?? []) found.set(`${id(schema)} ${word}`, `${path} = ${word}`);
    if (Array.isArray(schema.type)) for (const type of schema.type) found.set(`${id(schema)} ${type}`, `${path}: ${type}`);
    if (schema.items) parts(schema.items, `${path}[]`, found, visited);
    for (const [name, member] of Object.entries(schema.properties ?? {})) below(member, `${path}.${name}`);
    const { additionalProperties: others } = schema;
    if (typeof others === "object" && !others.not) below(others, `${path}.*`);
    return found;
  }

  const ids = new Map();
  const id = (schema) => {
    if (!ids.has(schema)) ids.set(schema, ids.size);
    return ids.get(schema);
  };

  return {
    /** What is wrong with the value, or nothing. */
    wrong(name, value) {
      const schema = definitions.Recorded.properties[name];
      const validate = validator(schema);
      if (!validate(value)) return `${JSON.stringify(value)}: ${ajv.errorsText(validate.errors)}`;
      seen.add(schema);
      note(schema, value);
      return undefined;
    },
    unseen: () =>
      [...parts({ $ref: "#/definitions/Recorded" }, "Recorded")].filter(([part]) => !seen.has(part)).map(([, path]) => path),
  };
}

function typeOf(value) {
  if (value === null) return "null";
  return Array.isArray(value) ? "array" : typeof value;
}
