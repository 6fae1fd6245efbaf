// A sender of webhooks on node's own http module and crypto: signs, posts, and says what was answered.
//
//   node http_sender.mjs      says "ready"
//
// Commands: "doc NAME JSON-IN-BASE64" keeps a document; "pace URL STYLE SECRET NAME MS" posts it again and again, newest
// content first, until "hush URL"; "post JSON-IN-BASE64" posts once as told ({url, style, secret, body, headers, skew_s, ...}) and
// answers "ok STATUS RETRY-AFTER".

import { createHmac, randomUUID } from "node:crypto";
import http from "node:http";
import https from "node:https";
import { createInterface } from "node:readline";
import { readFileSync } from "node:fs";

const documents = new Map();
const paces = new Map();

const hex = (secret, text) => createHmac("sha256", secret).update(text).digest("hex");

export function signed(style, secret, body, time, id) {
  switch (style) {
    case "plain":
      return { "X-Timestamp": `${time}`, "X-Signature": hex(secret, `${time}.${body}`), "X-Delivery-Id": id };
    case "github":
      return { "X-Hub-Signature-256": `sha256=${hex(secret, body)}`, "X-GitHub-Delivery": id };
    case "stripe":
      return { "Stripe-Signature": `t=${time},v1=${"0".repeat(64)},v1=${hex(secret, `${time}.${body}`)},v0=old` };
    case "standard": {
      const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
      const signature = createHmac("sha256", key).update(`${id}.${time}.${body}`).digest("base64");
      return { "webhook-id": id, "webhook-timestamp": `${time}`, "webhook-signature": `v1,${signature}` };
    }
    case "bearer":
      return { Authorization: `Bearer ${secret}`, "X-Delivery-Id": id };
    default:
      return {};
  }
}

function post(order) {
  // whole seconds where a test tells the time; else with milliseconds, for the same body twice in one second is one message
  const now = Date.now() / 1000;
  const time = order.skew_s !== undefined ? Math.floor(now) + order.skew_s : order.style === "plain" ? now.toFixed(3) : Math.floor(now);
  const headers = {
    "Content-Type": order.type ?? "application/json",
    ...signed(order.style, order.secret, order.body, time, order.id ?? randomUUID()),
    ...(order.headers ?? {}),
  };
  const options = { method: order.method ?? "POST", headers };
  if (order.ca) Object.assign(options, { ca: readFileSync(order.ca) });
  return new Promise((resolve) => {
    const request = (order.url.startsWith("https") ? https : http).request(order.url, options, (response) => {
      let size = 0;
      response.on("data", (part) => (size += part.length));
      response.on("end", () => resolve([response.statusCode, response.headers["retry-after"] ?? "-", size, response.headers.server ?? "-"]));
    });
    request.on("error", (error) => resolve([error.code ?? "failed", "-", 0, "-"]));
    request.end(order.body);
  });
}

async function pace(url, style, secret, name, ms) {
  if (!paces.get(url)) return;
  await post({ url, style, secret, body: documents.get(name) });
  setTimeout(pace, ms, url, style, secret, name, ms);
}

const COMMANDS = {
  doc: ([name, base64]) => void documents.set(name, Buffer.from(base64, "base64").toString()),
  pace: ([url, style, secret, name, ms]) => {
    paces.set(url, true);
    void pace(url, style, secret, name, Number(ms));
  },
  hush: ([url]) => void paces.delete(url),
  post: async ([base64]) => (await post(JSON.parse(Buffer.from(base64, "base64").toString()))).join(" "),
};

createInterface({ input: process.stdin })
  .on("line", async (line) => {
    const [name, ...words] = line.split(" ");
    try {
      console.log(`ok ${(await COMMANDS[name](words)) ?? ""}`);
    } catch (error) {
      console.log(`error ${String(error).replaceAll("\n", " ")}`);
    }
  })
  .on("close", () => process.exit(0));
console.log("ready");
