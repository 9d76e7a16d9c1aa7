// MQTT.js on a leash: one client, commands in and events out as lines of JSON. test_mqttjs.py decides what happens.
//
// Commands: {"do": "connect", "options": {...}} and then subscribe, unsubscribe, publish, end, drop. Each command
// with an "id" is answered by {"event": "done", "id": ..., "result": ..., "error": ...} when its exchange is over.
// Properties of MQTT 5 are MQTT.js's own, but for correlation data, which is text here.

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import mqtt from "mqtt";

let client;

function emit(event, fields = {}) {
  process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`);
}

function withBuffers(properties) {
  if (properties?.correlationData) properties.correlationData = Buffer.from(properties.correlationData);
  return properties;
}

function withText(properties) {
  return properties?.correlationData
    ? { ...properties, correlationData: properties.correlationData.toString() }
    : properties;
}

function connect(options) {
  withBuffers(options.will?.properties);
  for (const key of ["ca", "cert", "key"]) {
    if (options[key]) options[key] = readFileSync(options[key]);
  }
  client = mqtt.connect(options);
  client.on("connect", (connack) => {
    emit("connect", { sessionPresent: connack.sessionPresent, properties: connack.properties });
  });
  client.on("disconnect", (packet) => emit("disconnect", { reasonCode: packet.reasonCode ?? 0 }));
  client.on("packetreceive", (packet) => {
    if (packet.cmd === "puback") emit("puback", { reasonCode: packet.reasonCode ?? 0 });
    // What was on the wire, before MQTT.js puts the topic in place of its alias.
    if (packet.cmd === "publish") emit("wire", { topic: packet.topic, alias: packet.properties?.topicAlias });
  });
  client.on("close", () => emit("close"));
  client.on("reconnect", () => emit("reconnect"));
  client.on("error", (error) => emit("error", { text: String(error) }));
  client.on("message", (topic, payload, packet) => {
    const { qos, retain, dup } = packet;
    emit("message", { topic, payload: payload.toString(), qos, retain, dup, properties: withText(packet.properties) });
  });
}

function run({ do: verb, id, ...command }) {
  const done = (error, result) => emit("done", { id, error: error && String(error), result });
  switch (verb) {
    case "connect":
      return connect(command.options);
    case "subscribe":
      return client.subscribe(command.filters, { properties: command.properties }, (error, granted) =>
        done(error, granted));
    case "unsubscribe":
      return client.unsubscribe(command.filters, (error) => done(error));
    case "publish":
      withBuffers(command.options.properties);
      return client.publish(command.topic, command.payload, command.options, (error) => done(error));
    case "end":
      return client.end(false, {}, (error) => done(error));
    case "drop":
      // As a lost network: no DISCONNECT, and no way back.
      client.options.reconnectPeriod = 0;
      client.stream.destroy();
      return done();
    default:
      throw new Error(`unknown command ${verb}`);
  }
}

createInterface({ input: process.stdin })
  .on("line", (line) => run(JSON.parse(line)))
  .on("close", () => process.exit(0));
