// MQTT.js on a leash: one client, commands in and events out as lines of JSON. test_mqttjs.py decides what happens.
//
// Commands: {"do": "connect", "options": {...}} and then subscribe, unsubscribe, publish, end, drop. Each command
// with an "id" is answered by {"event": "done", "id": ..., "result": ..., "error": ...} when its exchange is over.

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import mqtt from "mqtt";

let client;

function emit(event, fields = {}) {
  process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`);
}

function connect(options) {
  for (const key of ["ca", "cert", "key"]) {
    if (options[key]) options[key] = readFileSync(options[key]);
  }
  client = mqtt.connect(options);
  client.on("connect", (connack) => emit("connect", { sessionPresent: connack.sessionPresent }));
  client.on("close", () => emit("close"));
  client.on("reconnect", () => emit("reconnect"));
  client.on("error", (error) => emit("error", { text: String(error) }));
  client.on("message", (topic, payload, packet) => {
    const { qos, retain, dup } = packet;
    emit("message", { topic, payload: payload.toString(), qos, retain, dup });
  });
}

function run({ do: verb, id, ...command }) {
  const done = (error, result) => emit("done", { id, error: error && String(error), result });
  switch (verb) {
    case "connect":
      return connect(command.options);
    case "subscribe":
      return client.subscribe(command.filters, (error, granted) => done(error, granted));
    case "unsubscribe":
      return client.unsubscribe(command.filters, (error) => done(error));
    case "publish":
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
