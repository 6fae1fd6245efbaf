// Prints a payload of every type, as the npm package sparkplug-payload writes them: "<name> <hex>" in each line. The one
// argument is the path of the package's module.

import { createRequire } from "node:module";

const { encodePayload } = createRequire(import.meta.url)(process.argv[2]);

const values = {
  Int8: -1, Int16: -300, Int32: -70000, Int64: 1, UInt8: 255, UInt16: 65535, UInt32: 4000000000, UInt64: 2, Float: 1.5, Double: 0.1,
  Boolean: true, String: "Kessel", DateTime: new Date(1.7e12), Text: "text", UUID: "8e8e", Bytes: new Uint8Array([0, 255]),
  File: new Uint8Array([1]),
};
const table = { numOfColumns: 2, types: ["Int32", "String"], columns: ["a", "b"], rows: [[1, "x"], [2, "y"]] };
const definition = {
  isDefinition: true, version: "1", metrics: [{ name: "i", type: "Int32", value: 1 }], parameters: [{ name: "p", type: "String", value: "v" }],
};
const properties = { Quality: { type: "Int32", value: 192 }, engUnit: { type: "String", value: "bar" } };

function say(name, payload) {
  console.log(name + " " + Buffer.from(encodePayload(payload)).toString("hex"));
}

for (const [type, value] of Object.entries(values)) {
  say(type, { timestamp: 1.7e12, seq: 1, metrics: [{ name: "m", alias: 9, type, value, timestamp: 1.7e12 }] });
}
say("properties", { seq: 2, metrics: [{ name: "m", type: "Int32", value: 1, properties }] });
say("dataset", { seq: 3, metrics: [{ name: "d", type: "DataSet", value: table }] });
say("template", { seq: 4, metrics: [{ name: "t", type: "Template", value: definition }] });
say("rebirth", { timestamp: 1.7e12, metrics: [{ name: "Node Control/Rebirth", type: "Boolean", value: true }] });
say("null", { seq: 5, metrics: [{ name: "n", alias: 1, type: "Double", value: null, isHistorical: true }] });
