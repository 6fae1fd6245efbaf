// Encodes Sparkplug B payloads with the npm package sparkplug-payload, as a host application does: one JSON payload in a line, its
// bytes as hex in a line out. Numbers beyond 2^53 are not for this way.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(import.meta.url);
const { encodePayload } = require("sparkplug-payload/lib/sparkplugbpayload.js");

for await (const line of createInterface({ input: process.stdin })) {
  console.log(Buffer.from(encodePayload(JSON.parse(line))).toString("hex"));
}
