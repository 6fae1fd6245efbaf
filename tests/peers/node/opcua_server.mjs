// An OPC UA server that is not ours, steered by one-line commands on its standard input (see tests/peers/program.py).
//
// Its one argument is a JSON object: {port, pki, secure, users, bulk, namespaces}. Two folders, one and two, hold what the driver
// contract wants; there are a structure, arrays, a method, events and an alarm besides, and (bulk) many values that change.

import * as opcua from "node-opcua";
import * as path from "node:path";
import * as readline from "node:readline";
import { fileURLToPath } from "node:url";

const { DataType, StatusCodes, Variant, VariantArrayType } = opcua;
const wish = JSON.parse(process.argv[2] ?? "{}");
const URI = "http://example.com/plant";

const say = (text) => process.stdout.write(text + "\n");

const pki = new opcua.OPCUACertificateManager({ rootFolder: wish.pki, automaticallyAcceptUnknownCertificate: wish.strict !== true });
await pki.initialize();
const server = new opcua.OPCUAServer({
  port: wish.port ?? 0,
  hostname: "127.0.0.1",
  resourcePath: "/plant",
  serverCertificateManager: pki,
  userCertificateManager: pki,
  serverInfo: { applicationUri: "urn:example.com:plant" },
  securityPolicies: wish.secure
    ? [opcua.SecurityPolicy.None, opcua.SecurityPolicy.Basic256Sha256, opcua.SecurityPolicy.Aes128_Sha256_RsaOaep, opcua.SecurityPolicy.Aes256_Sha256_RsaPss]
    : [opcua.SecurityPolicy.None],
  securityModes: wish.secure
    ? [opcua.MessageSecurityMode.None, opcua.MessageSecurityMode.Sign, opcua.MessageSecurityMode.SignAndEncrypt]
    : [opcua.MessageSecurityMode.None],
  disableDiscovery: true,
  nodeset_filename: [opcua.nodesets.standard, path.join(path.dirname(fileURLToPath(import.meta.url)), "axis.NodeSet2.xml")],
  allowAnonymous: wish.anonymous !== false,
  userManager: { isValidUser: (name, password) => (wish.users ?? {})[name] === password },
  serverCapabilities: { minSupportedSampleRate: 0, maxSessions: 10, maxMonitoredItems: 200000, maxMonitoredItemsPerSubscription: 200000, operationLimits: wish.limits ?? {} },
});
await server.initialize();
const space = server.engine.addressSpace;
space.installAlarmsAndConditionsService();
for (const uri of wish.namespaces ?? []) space.registerNamespace(uri); // others first: our index is another
const ns = space.registerNamespace(URI);

const silent = { one: false, two: false };
const quiet = (device) => (silent[device] ? StatusCodes.BadNoCommunication : StatusCodes.Good);
const plant = {};

function held(device, name, dataType, value, more = {}) {
  const node = ns.addVariable({
    componentOf: folders[device],
    browseName: name,
    nodeId: `s=${device}/${name}`,
    dataType,
    accessLevel: more.writable ? "CurrentRead | CurrentWrite" : "CurrentRead",
    minimumSamplingInterval: 0,
    ...(more.array ? { valueRank: 1 } : {}),
  });
  const variant = () => new Variant({ dataType: DataType[dataType], arrayType: more.array ? VariantArrayType.Array : VariantArrayType.Scalar, value: plant[`${device}/${name}`].value });
  plant[`${device}/${name}`] = { value, node, tell: () => node.setValueFromSource(variant(), quiet(device)) };
  plant[`${device}/${name}`].tell();
  return node;
}

const folders = {};
for (const device of ["one", "two"]) {
  folders[device] = ns.addObject({ organizedBy: space.rootFolder.objects, browseName: device, nodeId: `s=${device}`, eventNotifier: 1 });
}
const words = (value) => { const whole = BigInt.asUintN(64, BigInt(value)); return [Number(whole >> 32n), Number(whole & 0xffffffffn)]; };
const NAN = Number.NaN;
for (const [name, type, value] of [
  ["int8/least", "SByte", -128], ["uint8/most", "Byte", 255], ["int16/least", "Int16", -32768], ["uint16/most", "UInt16", 65535],
  ["int32/least", "Int32", -2147483648], ["uint32/most", "UInt32", 4294967295],
  ["int64/least", "Int64", words("-9223372036854775808")], ["int64/most", "Int64", words("9223372036854775807")], ["int64/odd", "Int64", words("9007199254740993")],
  ["uint64/most", "UInt64", words("18446744073709551615")], ["uint64/odd", "UInt64", words("9223372036854775809")],
  ["float32/exact", "Float", 1.5], ["float32/nan", "Float", NAN], ["float32/inf", "Float", Infinity], ["float32/zero", "Float", -0],
  ["float64/tenth", "Double", 0.1], ["float64/inf", "Double", -Infinity], ["float64/nan", "Double", NAN], ["float64/least", "Double", 5e-324],
  ["text", "String", "Pumpé"], ["raw", "ByteString", Buffer.from([0, 1, 255, 0])], ["truth", "Boolean", true],
]) held("one", name, type, value);
held("one", "level", "UInt16", 0);
held("two", "level", "UInt16", 0);
held("one", "setpoint", "Float", 0, { writable: true });
held("one", "text-set", "String", "", { writable: true });
held("one", "array", "Double", new Float64Array([1.5, 2.5, 3.5]), { array: true, writable: true });
held("one", "int16", "Int16", 7, { writable: true });
held("one", "locked", "Int16", 7);
const stuck = ns.addVariable({
  componentOf: folders.one, browseName: "stuck", nodeId: "s=one/stuck", dataType: "UInt16", minimumSamplingInterval: 100,
  value: { get: () => new Variant({ dataType: DataType.UInt16, value: 1 }), set: () => StatusCodes.Good },
});
stuck.accessLevel = stuck.userAccessLevel = opcua.makeAccessLevelFlag("CurrentRead | CurrentWrite");

// A structure with a structure, an array and an enumeration in it.
const axes = space.getNamespaceIndex("http://example.com/axis");
const axis = space.constructExtensionObject(space.findDataType("Axis", axes), {
  name: "X1", position: { x: 12.25, y: -3.5 }, limits: [-100, 100], state: 1, on: true, path: [{ x: 1, y: 2 }, { x: 3, y: 4 }],
});
ns.addVariable({
  componentOf: folders.one, browseName: "axis", nodeId: "s=one/axis", dataType: `ns=${axes};i=4`, minimumSamplingInterval: 100,
  value: { get: () => new Variant({ dataType: DataType.ExtensionObject, value: axis }) },
});

// Methods.
const add = ns.addMethod(folders.one, {
  browseName: "add", nodeId: "s=one/add",
  inputArguments: [{ name: "a", dataType: DataType.Int32 }, { name: "b", dataType: DataType.Double }],
  outputArguments: [{ name: "sum", dataType: DataType.Double }],
});
let calls = 0;
add.bindMethod((inputs, context, callback) => {
  calls += 1;
  callback(null, { statusCode: StatusCodes.Good, outputArguments: [{ dataType: DataType.Double, value: inputs[0].value + inputs[1].value }] });
});
const start = ns.addMethod(folders.one, { browseName: "start", nodeId: "s=one/start", inputArguments: [], outputArguments: [] });
start.bindMethod((inputs, context, callback) => { calls += 1; callback(null, { statusCode: calls > 1000 ? StatusCodes.BadInvalidState : StatusCodes.Good, outputArguments: [] }); });

// An alarm on the level of device one.
folders.one.addReference({ referenceType: "HasEventSource", isForward: true, nodeId: plant["one/level"].node.nodeId });
server.engine.addressSpace.rootFolder.objects.server.addReference({ referenceType: "HasNotifier", isForward: true, nodeId: folders.one.nodeId });
const pressure = ns.addAnalogDataItem({
  componentOf: folders.one, browseName: "pressure", nodeId: "s=one/pressure", dataType: "Double",
  engineeringUnitsRange: { low: 0, high: 10 }, engineeringUnits: opcua.makeEUInformation("BAR", "bar", "bar"),
});
pressure.setValueFromSource(new Variant({ dataType: DataType.Double, value: 1 }));
folders.one.addReference({ referenceType: "HasEventSource", isForward: true, nodeId: pressure.nodeId });
ns.instantiateExclusiveLimitAlarm("ExclusiveLimitAlarmType", {
  browseName: "pressure-high", conditionSource: pressure, conditionOf: folders.one, inputNode: pressure, highHighLimit: 9, highLimit: 8, lowLimit: -100, lowLowLimit: -200,
});
plant["one/pressure"] = { value: 1, node: pressure, tell: () => pressure.setValueFromSource(new Variant({ dataType: DataType.Double, value: plant["one/pressure"].value })) };

// Many values that change, each second another number.
const bulk = [];
for (let at = 0; at < (wish.bulk ?? 0); at += 1) {
  if (at % 100 === 0) bulk.folder = ns.addObject({ componentOf: folders.two, browseName: `bulk${at / 100}` });
  bulk.push(ns.addVariable({ componentOf: bulk.folder, browseName: `v${at}`, nodeId: `s=bulk/${at}`, dataType: "Double", minimumSamplingInterval: 0 }));
}
let turn = 0;
function change() {
  turn += 1;
  for (const node of bulk) node.setValueFromSource({ dataType: DataType.Double, value: turn });
}
change();
if (wish.bulk && wish.every) setInterval(change, wish.every);

let counter = 0;
let counting = null;
const seen = [];
let created = 0;
server.on("create_session", () => { created += 1; });
server.on("request", (request) => {
  const name = request.schema.name;
  if (name === "ReadRequest" || name === "WriteRequest") seen.push(name === "ReadRequest" ? "read" : "write");
});
await server.start();
say(`ready ${server.endpoints[0].port}`);

const commands = {
  level: (device, ...values) => { // all between two publishes: nothing else runs meanwhile
    for (const value of values) { plant[`${device}/level`].value = Number(value); plant[`${device}/level`].tell(); }
  },
  set: (name, value) => { plant[name].value = JSON.parse(value); plant[name].tell(); },
  silent: (device, yes) => { silent[device] = yes === "1"; for (const [name, each] of Object.entries(plant)) if (name.startsWith(`${device}/`)) each.tell(); },
  requests: () => seen.splice(0).join(" "),
  sessions: () => `${server.engine.currentSessionCount} ${created} ${server.engine.currentSubscriptionCount}`,
  calls: () => `${calls}`,
  event: (severity, ...text) => {
    folders.one.raiseEvent("BaseEventType", { message: { dataType: DataType.LocalizedText, value: opcua.coerceLocalizedText(text.join(" ")) }, severity: { dataType: DataType.UInt16, value: Number(severity) } });
  },
  count: (upto, every) => new Promise((done) => { // one/level counts up, so that a gap or a duplicate shows
    clearInterval(counting);
    counting = setInterval(() => {
      counter += 1; plant["one/level"].value = counter % 65536; plant["one/level"].tell();
      if (counter >= Number(upto)) clearInterval(counting);
    }, Number(every));
    done();
  }),
  stop: () => { clearInterval(counting); },
};

for await (const line of readline.createInterface({ input: process.stdin })) {
  const [name, ...words] = line.trim().split(" ");
  try {
    const answer = await commands[name](...words);
    say(`ok ${answer ?? ""}`.trim());
  } catch (error) {
    say(`error ${error.message}`);
  }
}
process.exit(0);
