// A plain HTTP(S) server on node's own http module: JSON documents by path, steered by one-line commands on standard input.
//
//   node http_server.mjs PORT [CERT KEY [CLIENT-CA]]      says "ready PORT"
//
// Commands (each answered by one line, "ok ..." or "error ..."): see COMMANDS below. Authentication is checked by this
// program itself, with node's crypto: digest as RFC 7616 says, written here apart from the code under test.

import { createHash, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import { createInterface } from "node:readline";

const [, , port, cert, key, clientCa] = process.argv;
const documents = new Map(); // path -> {body: Buffer, type, stuck: Set of fields}
const rules = new Map(); // path -> what it does instead: {kind, ...}
let auth = { kind: "none" };
let requests = [];
let connections = 0;
let accepted = 0;
let nonces = new Map();

const hash = (name, text) => createHash(name).update(text).digest("hex");
const hashName = { MD5: "md5", "SHA-256": "sha256", "SHA-512-256": "sha512-256" };

function fields(header) {
  const found = {};
  for (const [, name, quoted, plain] of header.matchAll(/([a-zA-Z*]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s,]+))/g))
    found[name] = quoted ?? plain;
  return found;
}

function challenge(response) {
  const nonce = randomBytes(12).toString("hex");
  nonces.set(nonce, 0);
  const offers = auth.algorithms.map((algorithm) =>
    `Digest realm="plant, \\"7\\"", qop="${auth.qop}", algorithm=${algorithm}, nonce="${nonce}", opaque="${hash("md5", nonce)}"`);
  response.setHeader("WWW-Authenticate", auth.basicToo ? ['Basic realm="plant"', ...offers] : offers);
}

function allowed(request, body, response) {
  const said = request.headers.authorization ?? "";
  if (auth.kind === "none") return true;
  if (auth.kind === "basic") return said === "Basic " + Buffer.from(`${auth.user}:${auth.password}`).toString("base64");
  if (auth.kind === "bearer") return said === `Bearer ${auth.token}`;
  if (auth.kind === "key") return request.headers[auth.header] === auth.key;
  const told = fields(said);
  const used = nonces.get(told.nonce);
  const count = parseInt(told.nc ?? "0", 16);
  if (!said.startsWith("Digest ") || used === undefined || count <= used || used >= auth.uses || told.uri !== request.url ||
      !auth.algorithms.includes(told.algorithm) || told.opaque !== hash("md5", told.nonce)) {
    challenge(response);
    return false;
  }
  const name = hashName[told.algorithm.replace("-sess", "")];
  let secret = hash(name, `${auth.user}:plant, "7":${auth.password}`);
  if (told.algorithm.endsWith("-sess")) secret = hash(name, `${secret}:${told.nonce}:${told.cnonce}`);
  const what = told.qop === "auth-int" ? `${request.method}:${told.uri}:${hash(name, body)}` : `${request.method}:${told.uri}`;
  const right = hash(name, `${secret}:${told.nonce}:${told.nc}:${told.cnonce}:${told.qop}:${hash(name, what)}`);
  if (told.response !== right) {
    challenge(response);
    return false;
  }
  nonces.set(told.nonce, count);
  return true;
}

function answer(request, response, body) {
  const path = request.url.split("?")[0];
  const isRead = request.method === "GET" || path === "/ask";
  requests.push(isRead ? "read" : "write");
  if (requests.length > 8192) requests.shift();
  if (!allowed(request, body, response)) return response.writeHead(401).end("no");
  const rule = rules.get(path);
  if (rule?.kind === "silent") return; // the request is taken, and nothing comes
  if (rule?.kind === "status") {
    for (const [name, value] of Object.entries(rule.headers ?? {})) response.setHeader(name, value);
    return response.writeHead(rule.status).end("<h1>so it is</h1>");
  }
  if (!isRead) return write(path, body, response);
  const document = documents.get(path === "/ask" ? JSON.parse(body.toString()).path : path);
  if (!document) return response.writeHead(404, { "Content-Type": "text/html" }).end("<h1>nothing here</h1>");
  const etag = `"${hash("sha1", document.body)}"`;
  if (rule?.kind === "etag") {
    response.setHeader("ETag", etag);
    if (request.headers["if-none-match"] === etag) {
      rule.unchanged = (rule.unchanged ?? 0) + 1;
      return response.writeHead(304).end();
    }
  }
  if (rule?.kind === "modified") {
    response.setHeader("Last-Modified", rule.date);
    if (request.headers["if-modified-since"] === rule.date) {
      rule.unchanged = (rule.unchanged ?? 0) + 1;
      return response.writeHead(304).end();
    }
  }
  response.writeHead(200, { "Content-Type": document.type }).end(document.body);
}

function write(path, body, response) {
  // PUT or POST /x/FIELD with a JSON value, or {"value": ...}: document /x gets it, unless the field is stuck
  const [, folder, field] = path.match(/^(.*)\/([^/]+)$/) ?? [];
  const document = documents.get(folder);
  if (!document) return response.writeHead(404).end();
  let value;
  try {
    value = JSON.parse(body.toString());
  } catch {
    return response.writeHead(400).end();
  }
  if (value !== null && typeof value === "object") value = value.value;
  if (!document.stuck.has(field)) {
    const whole = JSON.parse(document.body.toString());
    whole[field] = value;
    document.body = Buffer.from(JSON.stringify(whole));
  }
  response.writeHead(204).end();
}

const COMMANDS = {
  put: ([path, type, base64]) => {
    const stuck = documents.get(path)?.stuck ?? new Set();
    documents.set(path, { body: Buffer.from(base64, "base64"), type, stuck });
  },
  field: ([path, name, json]) => {
    const document = documents.get(path);
    // the text of the document is changed, not its numbers: JavaScript has no 64 bits
    document.body = Buffer.from(document.body.toString().replace(new RegExp(`"${name}":[^,}]*`), `"${name}":${json}`));
  },
  stick: ([path, field]) => documents.get(path).stuck.add(field),
  rule: ([path, json]) => rules.set(path, { ...JSON.parse(json) }),
  heal: ([path]) => rules.delete(path),
  unchanged: ([path]) => `${rules.get(path)?.unchanged ?? 0}`,
  auth: ([json]) => {
    auth = { uses: 1e9, qop: "auth", ...JSON.parse(json) };
    nonces = new Map();
  },
  requests: () => {
    const said = requests.join(" ");
    requests = [];
    return said;
  },
  connections: () => `${connections} ${accepted}`,
};

const options = cert ? { cert: readFileSync(cert), key: readFileSync(key) } : {};
if (clientCa) Object.assign(options, { ca: readFileSync(clientCa), requestCert: true, rejectUnauthorized: true });
const server = (cert ? https : http).createServer(options, (request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => answer(request, response, Buffer.concat(parts)));
});
server.keepAliveTimeout = 30000;
server.on(cert ? "secureConnection" : "connection", (socket) => {
  connections++;
  accepted++;
  socket.on("close", () => connections--);
});
server.listen(Number(port), "127.0.0.1", () => console.log(`ready ${server.address().port}`));

createInterface({ input: process.stdin })
  .on("line", (line) => {
    const [name, ...words] = line.split(" ");
    try {
      console.log(`ok ${COMMANDS[name](words) ?? ""}`);
    } catch (error) {
      console.log(`error ${String(error).replaceAll("\n", " ")}`);
    }
  })
  .on("close", () => process.exit(0));
