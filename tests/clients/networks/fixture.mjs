// The users, service and devices of a scenario. Everything is closed when the scenario ends, even with an error.

import { createHmac, randomUUID } from "node:crypto";
import * as version4 from "socket.io-client";
import * as version3 from "socket.io-client-3";

/** Far longer than any wait takes, so that even on a busy machine a wait times out only for a real fault. */
const PATIENCE_MS = 30_000;
/** The pause between two checks of a condition. */
const PAUSE_MS = 10;

const LIBRARIES = { 4: version4, 3: version3 };
const TRANSPORTS = {
  websocket: ["websocket"],
  polling: ["polling"],
  upgrade: ["polling", "websocket"],
};

export const NAMESPACES = ["/", "/notifications"];

export const pause = (milliseconds) => new Promise((resume) => setTimeout(resume, milliseconds));

/** Waits until `probe` returns a truthy value, and returns it. `describe` adds the last state to the error. */
export async function until(what, probe, describe = () => "") {
  const end = performance.now() + PATIENCE_MS;
  for (;;) {
    const answer = await probe();
    if (answer) return answer;
    if (performance.now() > end) throw new Error(`waited in vain: ${what}. ${describe()}`);
    await pause(PAUSE_MS);
  }
}

export function equal(what, actual, expected) {
  const [is, shouldBe] = [actual, expected].map((value) => JSON.stringify(value));
  if (is !== shouldBe) throw new Error(`${what}: expected ${shouldBe}, was ${is}`);
}

export function ensure(what, holds) {
  if (!holds) throw new Error(what);
}

/** One client's socket (its membership in one namespace) and everything it has received, in order. */
export class Device {
  connects = 0;
  refusals = [];
  disconnects = [];
  notifications = [];
  events = [];
  /** The newest revision, as `since`, and its epoch. A handshake that sends both resumes there. */
  resumePoint = {};

  constructor(manager, namespace, auth) {
    this.manager = manager;
    this.socket = manager.socket(namespace, { auth });
    this.socket.on("connect", () => (this.connects += 1));
    this.socket.on("connect_error", ({ message }) => this.refusals.push(message));
    this.socket.on("disconnect", (reason) => this.disconnects.push(reason));
    this.socket.on("notification:sync", ({ epoch, revision, recovered }) => {
      this.resumePoint = { epoch, since: recovered ? this.resumePoint.since : revision };
    });
    this.socket.on("notification:new", ({ id, revision }) => {
      this.notifications.push({ id, revision });
      this.resumePoint.since = Math.max(this.resumePoint.since ?? 0, revision);
    });
    this.socket.onAny((name, payload) => this.events.push({ name, payload }));
  }

  get ids() {
    return this.notifications.map(({ id }) => id);
  }

  /** The payloads of all events of this name, in order. */
  named(name) {
    return this.events.filter((event) => event.name === name).map(({ payload }) => payload);
  }

  describe = () => {
    const { connects, refusals, disconnects, ids } = this;
    const transport = this.manager.engine?.transport?.name;
    return JSON.stringify({ connects, refusals, disconnects, ids, transport, closes: this.manager.closes });
  };

  until(what, probe) {
    return until(what, probe, this.describe);
  }

  /** Waits until the device has connected this many times in total, and is connected. */
  connected(times = this.connects + 1) {
    return this.until(`connected ${times} times`, () => this.connects >= times && this.socket.connected);
  }

  /** Waits until the device has received a notification with this id. */
  received(id) {
    return this.until(`received ${id}`, () => this.ids.includes(id));
  }

  /** Emits an event and returns its ack. */
  call(name, payload) {
    return answered(name, (acknowledge) => this.socket.emit(name, payload, acknowledge), this.describe);
  }
}

async function answered(name, send, describe) {
  let answer;
  send((first) => (answer = { first }));
  await until(`an ack of ${name}`, () => answer, describe);
  return answer.first;
}

export class Fixture {
  #cleanups = [];

  /** @param config `url` and `secret` of the server; `client`: "4" or "3"; `transport`: "websocket",
   *  "polling" or "upgrade" */
  constructor({ url, secret, client, transport }) {
    Object.assign(this, { url, secret, client, transport });
  }

  /** Runs this when the scenario ends. */
  cleanup(work) {
    this.#cleanups.push(work);
  }

  async close() {
    for (const work of this.#cleanups.reverse()) await work();
  }

  /** A user that no other scenario has. */
  user(name) {
    return `${name}-${randomUUID()}`;
  }

  /** A token of this user, which is valid for `expiresIn` seconds. */
  token(user, { expiresIn = 3600, scope } = {}) {
    const now = Math.floor(Date.now() / 1000);
    const base64url = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
    const claims = { sub: user, iat: now, exp: now + expiresIn, scope, jti: randomUUID() };
    const signed = `${base64url({ alg: "HS256", typ: "JWT" })}.${base64url(claims)}`;
    return `${signed}.${createHmac("sha256", this.secret).update(signed).digest("base64url")}`;
  }

  async rest(method, path, token, body) {
    const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
    const response = await fetch(new URL(path, this.url), { method, headers, body: body && JSON.stringify(body) });
    const text = await response.text();
    ensure(`${method} ${path}: ${response.status} ${text}`, response.ok);
    return text && JSON.parse(text);
  }

  /** Creates a notification with this id for the user, as a service does. */
  notify(user, id) {
    const token = this.token("shop", { scope: "notifications:write" });
    return this.rest("POST", "/v1/notifications", token, { userId: user, id, title: `About ${id}` });
  }

  revoke(user) {
    return this.rest("POST", `/v1/users/${user}/revocations`, this.token("admin", { scope: "tokens:revoke" }), {});
  }

  /** Creates `count` notifications for the user and returns their ids. */
  async fill(user, count, idOf = (n) => `n${n}`) {
    const ids = Array.from({ length: count }, (_, n) => idOf(n));
    for (const id of ids) await this.notify(user, id);
    return ids;
  }

  /** A connection that carries the sockets of several namespaces. `options` are the library's. */
  manager({ url = this.url, transport = this.transport, client = this.client, ...options } = {}) {
    const manager = new LIBRARIES[client].Manager(url, {
      transports: TRANSPORTS[transport],
      autoConnect: false,
      reconnectionDelay: 100,
      reconnectionDelayMax: 1_000,
      ...options,
    });
    this.cleanup(() => {
      // The library has no public method that ends all sockets of a connection for good.
      manager.reconnection(false);
      manager._close();
    });
    // The reasons why the transports were closed. Version 4 adds details.
    manager.closes = [];
    manager.on("close", (reason, details) => {
      const { message, context } = details ?? {};
      manager.closes.push([reason, message, context?.status, context?.responseText].filter(Boolean).join(" "));
    });
    return manager;
  }

  /** A device of this user, which does not connect by itself. */
  device(manager, namespace, user, auth = { token: this.token(user) }) {
    return new Device(manager, namespace, auth);
  }

  /** A connected device. With the transport "upgrade", it has upgraded. */
  async signedIn(user, { namespace = "/", url, transport, ...options } = {}) {
    const manager = this.manager({ url, transport, ...options });
    const device = this.device(manager, namespace, user);
    await this.connect(device, transport);
    return device;
  }

  async connect(device, transport = this.transport) {
    device.socket.connect();
    await device.connected(1);
    await this.untilUpgraded(device, transport);
    // From now on the device receives every event.
    await device.until("received notification:sync", () => device.named("notification:sync").length > 0);
  }

  /** Waits until the device has upgraded. Does nothing with another transport. */
  async untilUpgraded(device, transport = this.transport) {
    if (transport !== "upgrade") return;
    await device.until("upgraded", () => device.manager.engine?.transport?.name === "websocket");
  }

  /** Notifies the user repeatedly until the device receives a notification. After two connects in a row, a device
   *  reports `connect` before its final session has begun, and may miss the first notifications. */
  async untilServed(user, device) {
    const before = device.ids.length;
    const end = performance.now() + PATIENCE_MS;
    while (device.ids.length === before) {
      ensure(`waited in vain: a notification of ${user}. ${device.describe()}`, performance.now() < end);
      const id = `served-${randomUUID()}`;
      await this.notify(user, id);
      for (let waits = 0; waits < 100 && !device.ids.includes(id); waits += 1) await pause(PAUSE_MS);
    }
  }

  /** Notifies the user and waits until each device has received it. By then all earlier events have arrived, too. */
  async flush(user, ...devices) {
    const id = `flush-${randomUUID()}`;
    await this.notify(user, id);
    for (const device of devices) await device.received(id);
  }
}
