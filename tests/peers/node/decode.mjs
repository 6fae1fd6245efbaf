// Decodes Sparkplug B payloads with the npm package sparkplug-payload, as a host application would: one line in, one
// line out. In: "<session> <hex>". Out: JSON with the payload's seq, timestamp, body and metrics, or {"error": ...}.
//
// Data messages carry aliases alone, so names and datatypes are remembered from the births of the same session, put
// into the message, and the package then decodes it whole. Numbers are written as text: 64-bit integers and NaN survive.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(import.meta.url);
const { decodePayload } = require("sparkplug-payload/lib/sparkplugbpayload.js");
const { org } = require("sparkplug-payload/lib/sparkplugPayloadProto.js");
const Payload = org.eclipse.tahu.protobuf.Payload;

const sessions = new Map();

function text(value) {
  if (value === null || value === undefined) return null;
  if (value instanceof Uint8Array) return Buffer.from(value).toString("hex");
  if (Object.is(value, -0)) return "-0";
  return String(value);
}

function introduce(bytes, known) {
  const message = Payload.decode(bytes);
  for (const metric of message.metrics) {
    const alias = metric.hasOwnProperty("alias") ? String(metric.alias) : null;
    if (metric.hasOwnProperty("name")) {
      if (alias !== null) known.set(alias, { name: metric.name, datatype: metric.datatype });
    } else if (known.has(alias)) {
      Object.assign(metric, known.get(alias));
    }
  }
  return Payload.encode(message).finish();
}

function decode(line) {
  const [session, hex] = line.split(" ");
  if (!sessions.has(session)) sessions.set(session, new Map());
  const payload = decodePayload(introduce(Buffer.from(hex ?? "", "hex"), sessions.get(session)));
  return {
    seq: text(payload.seq),
    timestamp: text(payload.timestamp),
    body: text(payload.body),
    metrics: (payload.metrics ?? []).map((metric) => ({
      name: metric.name ?? null,
      alias: text(metric.alias),
      type: metric.type ?? null,
      timestamp: text(metric.timestamp),
      value: text(metric.value),
      historical: metric.isHistorical === true,
      properties: Object.fromEntries(
        Object.entries(metric.properties ?? {}).map(([name, property]) => [name, text(property.value)]),
      ),
    })),
  };
}

for await (const line of createInterface({ input: process.stdin, terminal: false })) {
  let answer;
  try {
    answer = decode(line);
  } catch (error) {
    answer = { error: String(error) };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}
