// Clients and a service of a NestJS gateway, one step after the other, against the gateway or Belfry. The transcript
// of each step is one line on stdout. README.md describes the configuration and the transcript.

import { io } from "socket.io-client";
import { nest } from "./nest/packages.mjs";

const { url, amqp, queue, secret, names, countAtConnect } = JSON.parse(process.argv[2]);
const [, { Logger }, { ClientProxyFactory, Transport }, { firstValueFrom }, { sign }] = await nest(
  11,
  "reflect-metadata",
  "@nestjs/common",
  "@nestjs/microservices",
  "rxjs",
  "jsonwebtoken",
);
Logger.overrideLogger(false);

// How long each step waits at its end for events that are not expected.
const QUIET_MS = 250;
const PATIENCE_MS = 15_000;
const ACK_TIMEOUT_MS = 5_000;

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

class Device {
  constructor(name, token, options) {
    this.name = name;
    this.lines = [];
    this.socket = io(url, { transports: ["websocket"], auth: token ? { token } : {}, forceNew: true, ...options });
    this.socket.on("connect", () => this.record("connected"));
    this.socket.on("disconnect", (reason) => this.record("disconnected", reason));
    this.socket.on("connect_error", (error) => this.record("refused", error.message));
    this.socket.onAny((event, ...args) => this.record(event, ...args));
  }

  record(event, ...args) {
    this.lines.push([this.name, event, ...args]);
  }

  /** Whether the device has observed the event at least so many times in this step. */
  has(event, times) {
    return this.lines.filter(([, name]) => name === event).length >= times;
  }

  /** Waits until the device has observed all these events. */
  async receives(...events) {
    const deadline = Date.now() + PATIENCE_MS;
    const times = (event) => events.filter((other) => other === event).length;
    while (!events.every((event) => this.has(event, times(event)))) {
      if (Date.now() > deadline) {
        throw new Error(`${this.name} waits for ${events}, has ${JSON.stringify(this.lines)}`);
      }
      await sleep(10);
    }
  }

  /** Sends a message, and waits for its acknowledgement, or for an `exception` event instead. */
  async call(event, ...args) {
    const acknowledged = this.socket
      .timeout(ACK_TIMEOUT_MS)
      .emitWithAck(event, ...args)
      .then((answer) => ["ack", answer], () => ["no ack"]);
    const failed = new Promise((resolve) => this.socket.once("exception", resolve))
      .then(() => sleep(QUIET_MS))
      .then(() => ["no ack"]);
    this.record(...(await Promise.race([acknowledged, failed])));
  }
}

const connectEvents = countAtConnect ? ["connected", names.count] : ["connected"];
const devices = [];
function device(...args) {
  const created = new Device(...args);
  devices.push(created);
  return created;
}

async function step(name, run) {
  await run();
  await sleep(QUIET_MS);
  const lines = devices.flatMap((it) => it.lines.splice(0));
  process.stdout.write(`${JSON.stringify({ step: name, lines })}\n`);
}

const token = (sub, expiresIn = 60) => sign({ sub }, secret, { expiresIn });
const service = ClientProxyFactory.create({
  transport: Transport.RMQ,
  options: { urls: [amqp], queue, queueOptions: { durable: true } },
});
const emit = (pattern, data) => firstValueFrom(service.emit(pattern, data), { defaultValue: undefined });
const create = (id, userId = "ada") =>
  emit("notification.created", {
    id,
    userId,
    type: "order.shipped",
    title: `Order ${id}`,
    message: "It is on its way",
    data: { orderId: 7 },
  });

let web;
let mobile;
let other;
await service.connect();
await step("a browser connects", async () => {
  web = device("web", token("ada"));
  await web.receives(...connectEvents);
});
await step("an app connects with a header", async () => {
  const headers = { authorization: `Bearer ${token("ada")}` };
  mobile = device("mobile", undefined, { transports: ["polling"], extraHeaders: headers });
  await mobile.receives(...connectEvents);
});
await step("another user connects", async () => {
  other = device("other", token("bob"));
  await other.receives(...connectEvents);
});
await step("a client connects with an invalid token", async () => {
  await device("eve", "garbage").receives("connected", "disconnected");
});
await step("a client connects with an expired token", async () => {
  await device("eve", token("ada", -60)).receives("connected", "disconnected");
});
await step("a client connects without a token", async () => {
  await device("eve").receives("connected", "disconnected");
});
await step("a service creates a notification", async () => {
  await create("n1");
  await Promise.all([web, mobile].map((it) => it.receives(names.new, names.count)));
});
await step("a service creates two more", async () => {
  await create("n2");
  await create("n3");
  await Promise.all([web, mobile].map((it) => it.receives(names.new, names.count, names.new, names.count)));
});
await step("a client marks one as read", async () => {
  await web.call(names.markRead, "n1");
  await Promise.all([web, mobile].map((it) => it.receives(names.read, names.count)));
});
await step("a client gets the unread count", () => mobile.call(names.getCount));
await step("a client gets the list", () => web.call(names.list, { page: 1, limit: 2 }));
await step("a service marks one as read", async () => {
  await emit("notification.marked_read", { userId: "ada", notificationId: "n2" });
  await Promise.all([web, mobile].map((it) => it.receives(names.read, names.count)));
});
await step("a client marks all as read", async () => {
  await mobile.call(names.markAllRead);
  await Promise.all([web, mobile].map((it) => it.receives(names.read, names.count)));
});
await step("a client marks an unknown notification as read", () => web.call(names.markRead, "n9"));
await step("a client sends an unknown event", () => web.call("nonsense", {}));
await step("a notification is created while the app is offline", async () => {
  mobile.socket.disconnect();
  await create("n4");
  await web.receives(names.new, names.count);
  mobile.socket.connect();
  await mobile.receives(...connectEvents);
});
await step("a token expires while its client is connected", async () => {
  await device("brief", token("ada", 2)).receives(...connectEvents);
  await sleep(2_500);
});
await step("another user's notification is created", async () => {
  await create("n5", "bob");
  await other.receives(names.new, names.count);
});
devices.forEach(({ socket }) => socket.disconnect());
await service.close();
process.exit(0);
