// An OPC UA client that is not ours, steered by one-line commands on its standard input; every answer is one line of JSON.
//
// Its one argument is a JSON object: {pki}. Commands are JSON: {"do": NAME, ...}; see below.

import * as opcua from "node-opcua";
import { readFileSync } from "node:fs";
import * as readline from "node:readline";

const { AttributeIds, DataType, TimestampsToReturn } = opcua;
const wish = JSON.parse(process.argv[2] ?? "{}");
const say = (text) => process.stdout.write(text + "\n");

const pki = new opcua.OPCUACertificateManager({ rootFolder: wish.pki, automaticallyAcceptUnknownCertificate: true });
await pki.initialize();
let client, session, subscription;
const seen = []; // {handle, value, status, source}

function plain(value) {
  if (value === null || value === undefined) return null;
  if (typeof value === "bigint") return value.toString();
  if (Buffer.isBuffer(value)) return value.toString("hex");
  if (value instanceof Date) return value.toISOString();
  if (typeof value === "number" && !Number.isFinite(value)) return String(value);
  return value;
}
function told(dataValue) {
  const type = dataValue.value ? DataType[dataValue.value.dataType] : "Null";
  let value = dataValue.value?.value;
  if ((type === "Int64" || type === "UInt64") && Array.isArray(value)) {
    const raw = (BigInt(value[0]) << 32n) | BigInt(value[1] >>> 0);
    value = (type === "Int64" ? BigInt.asIntN(64, raw) : BigInt.asUintN(64, raw)).toString();
  }
  return { type, value: plain(value), status: dataValue.statusCode.name, source: plain(dataValue.sourceTimestamp ?? null) };
}
async function gone() {
  const ends = [];
  if (session) ends.push(session.close().catch(() => {}));
  await Promise.all(ends);
  if (client) await client.disconnect().catch(() => {});
  client = session = subscription = undefined;
  seen.length = 0;
}

const commands = {
  connect: async ({ endpoint, policy, user, name }) => {
    await gone();
    client = opcua.OPCUAClient.create({
      applicationName: "tester", clientCertificateManager: pki,
      securityMode: policy ? opcua.MessageSecurityMode.SignAndEncrypt : opcua.MessageSecurityMode.None,
      securityPolicy: policy ? opcua.SecurityPolicy[policy] : opcua.SecurityPolicy.None,
      endpointMustExist: false, connectionStrategy: { maxRetry: 0, initialDelay: 100, maxDelay: 200 }, requestedSessionTimeout: 60000,
      clientName: name ?? "tester",
    });
    await client.connect(endpoint);
    const identity = !user ? { type: opcua.UserTokenType.Anonymous }
      : user.name !== undefined ? { type: opcua.UserTokenType.UserName, userName: user.name, password: user.password }
      : { type: opcua.UserTokenType.Certificate, certificateData: Buffer.from(readFileSync(user.cert, "utf8").split("-----")[2], "base64"), privateKey: readFileSync(user.key, "utf8") };
    session = await client.createSession(identity);
    return { namespaces: await session.readNamespaceArray() };
  },
  endpoints: async ({ endpoint }) => {
    const asking = opcua.OPCUAClient.create({ endpointMustExist: false, clientCertificateManager: pki, connectionStrategy: { maxRetry: 0 } });
    await asking.connect(endpoint);
    const found = await asking.getEndpoints();
    await asking.disconnect();
    return found.map((one) => ({ policy: one.securityPolicyUri.split("#")[1], mode: opcua.MessageSecurityMode[one.securityMode],
      tokens: (one.userIdentityTokens ?? []).map((token) => opcua.UserTokenType[token.tokenType]), uri: one.server.applicationUri }));
  },
  browse: async ({ node, most }) => {
    session.requestedMaxReferencesPerNode = most ?? 0;
    let result = await session.browse({ nodeId: node, browseDirection: opcua.BrowseDirection.Forward, referenceTypeId: "HierarchicalReferences", includeSubtypes: true, resultMask: 63 });
    const found = [...(result.references ?? [])];
    let turns = 1;
    while (result.continuationPoint?.length) {
      result = await session.browseNext(result.continuationPoint, false);
      found.push(...(result.references ?? []));
      turns += 1;
    }
    return { status: result.statusCode.name, turns, found: found.map((one) => ({ id: one.nodeId.toString(), name: one.browseName.name, kind: opcua.NodeClass[one.nodeClass], type: one.typeDefinition.toString() })) };
  },
  path: async ({ path }) => {
    const found = await session.translateBrowsePath(opcua.makeBrowsePath("RootFolder", path));
    return { status: found.statusCode.name, ids: (found.targets ?? []).map((one) => one.targetId.toString()) };
  },
  read: async ({ nodes }) => (await session.read(nodes.map((nodeId) => ({ nodeId, attributeId: AttributeIds.Value })))).map(told),
  attributes: async ({ node }) => {
    const wanted = ["DataType", "AccessLevel", "UserAccessLevel", "ValueRank", "DisplayName", "NodeClass"];
    const got = await session.read(wanted.map((each) => ({ nodeId: node, attributeId: AttributeIds[each] })));
    return Object.fromEntries(wanted.map((each, at) => [each, String(got[at].value.value?.text ?? got[at].value.value)]));
  },
  unit: async ({ node }) => {
    const [value] = await session.read([{ nodeId: node, attributeId: AttributeIds.Value }]);
    const unit = value.value.value;
    return unit && { uri: unit.namespaceUri, id: unit.unitId, text: unit.displayName.text };
  },
  units: async () => Object.fromEntries(Object.values(opcua.standardUnits).map((one) => [one.displayName.text, one.unitId])),
  write: async ({ node, type, value, array }) => (await session.write({
    nodeId: node, attributeId: AttributeIds.Value,
    value: { value: { dataType: DataType[type], value, ...(array ? { arrayType: opcua.VariantArrayType.Array } : {}) } },
  })).name,
  attribute: async ({ node, name, type, value }) => (await session.write({ nodeId: node, attributeId: AttributeIds[name], value: { value: { dataType: DataType[type], value } } })).name,
  watch: async ({ nodes, publishing, filter, queue }) => {
    subscription ??= await session.createSubscription2({ requestedPublishingInterval: publishing ?? 100, requestedLifetimeCount: 40000 / (publishing ?? 100), requestedMaxKeepAliveCount: 8000 / (publishing ?? 100), maxNotificationsPerPublish: 0, publishingEnabled: true, priority: 1 });
    const statuses = [];
    for (let at = 0; at < nodes.length; at += 500) {
      const group = opcua.ClientMonitoredItemGroup.create(subscription, nodes.slice(at, at + 500).map((nodeId) => ({ nodeId, attributeId: AttributeIds.Value })),
        { samplingInterval: publishing ?? 100, discardOldest: true, queueSize: queue ?? 1, ...(filter ? { filter: new opcua.DataChangeFilter(filter) } : {}) }, TimestampsToReturn.Both);
      group.on("changed", (item, dataValue) => { if (wish.count) counted += 1; else seen.push({ node: item.itemToMonitor.nodeId.toString(), ...told(dataValue) }); });
      await new Promise((done) => group.on("initialized", done));
      statuses.push(...group.monitoredItems.map((item) => item.statusCode?.name));
    }
    return statuses;
  },
  unwatch: async () => { await subscription.terminate(); subscription = undefined; return true; },
  seen: async () => seen.splice(0),
  counted: async () => { const many = counted; counted = 0; return many; },
  leave: async () => { await gone(); return true; },
};
let counted = 0;

say("ready");
for await (const line of readline.createInterface({ input: process.stdin })) {
  try {
    const { do: name, ...wanted } = JSON.parse(line);
    say(`ok ${JSON.stringify((await commands[name](wanted)) ?? null)}`);
  } catch (error) {
    say(`error ${String(error.message).replaceAll("\n", " ")}`);
  }
}
process.exit(0);
