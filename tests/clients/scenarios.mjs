// Documented behaviour of socket.io-client, checked against a server that answers the events listed in
// tests/integration/protocol/reference.rs. README.md describes the config and the output.

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { Manager, io } from "socket.io-client";
import { CuttableAgent } from "./cuttable_agent.mjs";

const PATIENCE_MS = 15_000;
/** The timeout for an ack that arrives: far longer than it takes. */
const LONG_MS = 10_000;
/** The timeout for an ack that does not arrive. */
const SHORT_MS = 50;

const config = JSON.parse(process.argv[2]);
const upgrades = config.transports.length > 1;

/** Waits for an event of a socket, manager or engine. Call it before the action that causes the event. */
const next = (emitter, name) => new Promise((resolve) => emitter.once(name, (...args) => resolve(args)));

/** Collects the arguments of every event of this name. */
function collect(emitter, name) {
  const collected = [];
  emitter.on(name, (...args) => collected.push(args));
  return collected;
}

async function until(isTrue) {
  while (!isTrue()) await sleep(5);
}

async function connected(socket) {
  if (!socket.connected) await next(socket, "connect");
  return socket;
}

/** Waits for an ack of the server. By then everything that it sent before has arrived. */
const settle = (socket) => socket.timeout(LONG_MS).emitWithAck("message-with-ack", "settle");

/** The ack of an event that the server acknowledges with the event's arguments. */
const echo = (socket, ...args) => socket.timeout(LONG_MS).emitWithAck("message-with-ack", ...args);

/** Opens connections, and closes all of them at the end of a scenario. */
class Connections {
  #managers = new Set();

  socket(namespace = "/", options = {}) {
    const socket = io(config.url + namespace, {
      transports: config.transports,
      forceNew: true,
      reconnectionDelay: 10,
      ...options,
    });
    this.#managers.add(socket.io);
    return socket;
  }

  manager(options = {}) {
    const manager = new Manager(config.url, { transports: config.transports, reconnectionDelay: 10, ...options });
    this.#managers.add(manager);
    return manager;
  }

  close() {
    for (const manager of this.#managers) manager._close();
  }
}

const scenarios = {
  // Connecting

  async "an event emitted before the connection is open is sent when it opens"({ socket }) {
    const client = socket();
    const back = next(client, "message-back");
    client.emit("message", "early");
    assert.deepEqual(await back, ["early"]);
  },

  async "events emitted before and in the connect handler are answered in order"({ socket }) {
    const client = socket("/", { autoConnect: false });
    const answers = [];
    const record = (answer) => answers.push(answer);
    client.on("connect", () => client.emit("message-with-ack", "second", record));
    client.emit("message-with-ack", "first", record);
    client.connect();
    await until(() => answers.length === 2);
    assert.deepEqual(answers, ["first", "second"]);
  },

  async "two namespaces share one connection"({ manager }) {
    const shared = manager();
    const sockets = ["/", config.namespace].map((namespace) => shared.socket(namespace));
    await Promise.all(sockets.map(connected));
    assert.deepEqual(await Promise.all(sockets.map((client) => echo(client, client.nsp))), ["/", config.namespace]);
  },

  async "a namespace is joined after another"({ manager }) {
    const shared = manager();
    await connected(shared.socket("/"));
    await connected(shared.socket(config.namespace));
  },

  async "a namespace is joined after the connection of another was closed"({ manager }) {
    const shared = manager();
    const main = await connected(shared.socket("/"));
    main.disconnect();
    const custom = await connected(shared.socket(config.namespace));
    assert.equal(await echo(custom, 1), 1);
  },

  async "a namespace is joined while another is left"({ manager }) {
    const shared = manager();
    const main = await connected(shared.socket("/"));
    const custom = shared.socket(config.namespace);
    main.disconnect();
    await connected(custom);
    assert.equal(await echo(custom, 1), 1);
  },

  async "leaving one namespace keeps the other connected"({ manager }) {
    const shared = manager();
    const [main, custom] = await Promise.all(["/", config.namespace].map((it) => connected(shared.socket(it))));
    const lost = collect(custom, "disconnect");
    main.disconnect();
    assert.equal(await echo(custom, 1), 1);
    assert.deepEqual(lost, []);
    const closed = next(shared, "close");
    custom.disconnect();
    await closed;
  },

  async "a socket that is used again connects again"({ manager }) {
    const shared = manager();
    const client = await connected(shared.socket("/"));
    client.disconnect();
    const again = shared.socket("/");
    assert.equal(again, client);
    assert.equal(again.active, true);
    await connected(again);
  },

  async "a socket that is active already connects once"({ manager }) {
    const shared = manager();
    const sent = collect(shared.engine, "packetCreate");
    await next(shared, "open");
    const client = shared.socket("/");
    assert.equal(shared.socket("/"), client);
    await connected(client);
    const messages = sent.map(([packet]) => packet).filter(({ type }) => type === "message");
    assert.deepEqual(messages.map(({ data }) => data), ["0"]);
  },

  async "disconnecting while the connection opens is no error"({ socket }) {
    const client = socket();
    const errors = collect(client.io, "error");
    client.disconnect();
    await sleep(200);
    assert.deepEqual(errors, []);
    assert.equal(client.connected, false);
  },

  async "the connection upgrades and continues to work"({ socket }) {
    const client = await connected(socket());
    if (upgrades) {
      const { engine } = client.io;
      if (engine.transport.name !== "websocket") await next(engine, "upgrade");
    }
    assert.equal(client.io.engine.transport.name, upgrades ? "websocket" : config.transports[0]);
    assert.equal(await echo(client, 1), 1);
  },

  async "messages sent through the upgrade arrive once and in order"({ socket }) {
    const client = socket();
    const received = collect(client, "message-back");
    const sent = [];
    await connected(client);
    for (let n = 0; n < 100; n += 1) {
      client.emit("message", n);
      sent.push([n]);
      if (n % 4 === 0) await sleep(2);
    }
    await until(() => received.length >= sent.length);
    await settle(client);
    assert.deepEqual(received, sent);
  },

  // Identity

  async "the id is the one that the server has"({ socket }) {
    for (const namespace of ["/", config.namespace]) {
      const client = await connected(socket(namespace));
      assert.equal(await client.timeout(LONG_MS).emitWithAck("id"), client.id);
    }
  },

  async "the id differs from the transport's"({ socket }) {
    for (const namespace of ["/", config.namespace]) {
      const client = await connected(socket(namespace));
      assert.notEqual(client.id, client.io.engine.id);
    }
  },

  async "the id is gone after a disconnect"({ socket }) {
    const client = await connected(socket());
    const left = next(client, "disconnect");
    client.disconnect();
    assert.deepEqual((await left)[0], "io client disconnect");
    assert.equal(client.id, undefined);
  },

  async "the id changes with a reconnect"({ socket }) {
    const client = await connected(socket());
    const { id } = client;
    let between = id;
    client.io.on("reconnect_attempt", () => (between = client.id));
    const back = next(client, "connect");
    client.io.engine.close();
    await back;
    assert.equal(between, undefined);
    assert.notEqual(client.id, id);
  },

  // Authentication

  async "an auth object reaches the server"({ socket }) {
    const client = socket(config.namespace, { auth: { a: "b", c: "d" } });
    assert.deepEqual(await next(client, "auth"), [{ a: "b", c: "d" }]);
  },

  async "an auth function is asked on each connect"({ socket }) {
    let count = 0;
    const client = socket(config.namespace, { auth: (answer) => answer({ count: (count += 1) }) });
    assert.deepEqual(await next(client, "auth"), [{ count: 1 }]);
    const again = next(client, "auth");
    client.io.engine.close();
    assert.deepEqual(await again, [{ count: 2 }]);
  },

  async "a rejected client learns why and does not try again"({ socket }) {
    const client = socket(config.namespace, { auth: { reject: "no admission" } });
    const errors = collect(client, "connect_error");
    const [error] = await next(client, "connect_error");
    assert.ok(error instanceof Error);
    assert.equal(error.message, "no admission");
    assert.equal(client.active, false);
    client.io.engine.close();
    await sleep(100);
    assert.equal(errors.length, 1);
  },

  async "a rejected client connects with another auth"({ socket }) {
    const client = socket(config.namespace, { auth: { reject: "no admission" } });
    await next(client, "connect_error");
    client.auth = { token: "good" };
    const auth = next(client, "auth");
    client.connect();
    assert.deepEqual(await auth, [{ token: "good" }]);
  },

  async "an unknown namespace is a connect error"({ socket }) {
    const [error] = await next(socket("/nobody-here"), "connect_error");
    assert.equal(error.message, "Invalid namespace");
  },

  // Reconnecting

  async "a lost connection is opened again"({ socket }) {
    const client = await connected(socket());
    const errors = collect(client, "connect_error");
    const back = next(client.io, "reconnect");
    client.io.engine.close();
    await back;
    await connected(client);
    assert.equal(await echo(client, 1), 1);
    assert.deepEqual(errors, []);
  },

  async "a connection that was cut is opened again"({ socket }) {
    const agent = new CuttableAgent();
    const client = await connected(socket("/", { agent }));
    const lost = next(client, "disconnect");
    agent.cut();
    const [reason] = await lost;
    assert.match(reason, /^transport (close|error)$/);
    await connected(client);
    assert.equal(await echo(client, 1), 1);
  },

  async "a disconnected client connects again on an explicit connect"({ socket }) {
    const client = await connected(socket());
    client.disconnect();
    client.connect();
    await connected(client);
    assert.equal(await echo(client, 1), 1);
  },

  async "a connection of an explicit connect is opened again when it is lost"({ socket }) {
    const client = await connected(socket());
    client.disconnect();
    client.connect();
    await connected(client);
    const back = next(client.io, "reconnect");
    client.io.engine.close();
    await back;
  },

  async "disconnect and connect at once disconnects once"({ socket }) {
    const client = await connected(socket());
    const left = collect(client, "disconnect");
    client.disconnect().connect();
    await connected(client);
    assert.equal(await echo(client, 1), 1);
    assert.equal(left.length, 1);
  },

  async "a namespace that is left while the connection is lost stays left"({ manager }) {
    const shared = manager();
    const [main, custom] = await Promise.all(["/", config.namespace].map((it) => connected(shared.socket(it))));
    shared.on("reconnect_attempt", () => main.disconnect());
    const back = next(custom, "connect");
    shared.engine.close();
    await back;
    assert.equal(await echo(custom, 1), 1);
    assert.equal(main.connected, false);
  },

  async "a client makes no reconnect attempt while its connection is open"({ manager }) {
    const shared = manager();
    const attempts = collect(shared, "reconnect_attempt");
    const client = await connected(shared.socket(config.namespace));
    await settle(client);
    await sleep(100);
    assert.deepEqual(attempts, []);
  },

  async "a packet that cannot be read makes the client reconnect"({ manager }) {
    const shared = manager();
    const first = shared.engine;
    await next(shared, "open");
    const back = next(shared, "reconnect");
    await sleep(1);
    shared.engine.emit("data", "bad");
    await back;
    assert.notEqual(shared.engine, first);
    assert.equal(first.readyState, "closed");
  },

  async "an event is kept when the connection turns out to be dead"({ socket }) {
    const client = await connected(socket());
    let reconnected = false;
    client.io.once("reconnect", () => (reconnected = true));
    // As when a laptop wakes up: the ping is overdue, but no timer has run.
    client.io.engine._pingTimeoutTime = Date.now() - 1;
    const answer = await new Promise((resolve) => client.emit("message-with-ack", "kept", resolve));
    assert.equal(answer, "kept");
    assert.equal(reconnected, true);
  },

  async "a client that the server disconnects reconnects on an explicit connect"({ socket }) {
    for (const namespace of ["/", config.namespace]) {
      const client = await connected(socket(namespace));
      const left = next(client, "disconnect");
      client.emit("leave");
      assert.equal((await left)[0], "io server disconnect");
      assert.equal(client.active, false);
      client.connect();
      await connected(client);
      assert.equal(await echo(client, 1), 1);
    }
  },

  // Payloads

  async "values keep their type"({ socket }) {
    const client = await connected(socket());
    const back = next(client, "message-back");
    const values = [false, true, null, 0, -1.5, "", "text", [], {}, { deep: [{ er: null }] }];
    client.emit("message", ...values);
    assert.deepEqual(await back, values);
  },

  async "characters of all kinds arrive"({ socket }) {
    const client = await connected(socket());
    const back = next(client, "message-back");
    const texts = ["てすと", "Я Б Г Д", "Ä ä ß", "— “quoted” ", "🔔👩‍👩‍👧", "\u0000\u001e\n\"\\"];
    client.emit("message", ...texts);
    assert.deepEqual(await back, texts);
  },

  async "a date arrives as its text"({ socket }) {
    const client = await connected(socket());
    const date = new Date();
    const back = next(client, "message-back");
    client.emit("message", date, { date });
    assert.deepEqual(await back, [date.toISOString(), { date: date.toISOString() }]);
  },

  async "binary data arrives"({ socket }) {
    const client = await connected(socket());
    const back = next(client, "message-back");
    client.emit("message", Buffer.from([1, 2, 3]), new Uint8Array([4, 5]).buffer, new Uint8Array([6]));
    const received = (await back).map((bytes) => Buffer.from(bytes).toString("hex"));
    assert.deepEqual(received, ["010203", "0405", "06"]);
  },

  async "binary data arrives as an ArrayBuffer if that is configured"({ socket }) {
    const client = socket();
    client.io.engine.binaryType = "arraybuffer";
    // After an upgrade the new transport takes over the setting.
    await connected(client);
    const back = next(client, "message-back");
    client.emit("message", Buffer.from([1, 2, 3]));
    const [bytes] = await back;
    assert.ok(bytes instanceof ArrayBuffer);
    assert.deepEqual(new Uint8Array(bytes), new Uint8Array([1, 2, 3]));
  },

  async "binary data arrives among JSON"({ socket }) {
    const client = await connected(socket());
    const back = next(client, "message-back");
    client.emit("message", { before: "lol", bytes: Buffer.from("abc"), list: [Buffer.from("de"), 1] });
    const [{ before, bytes, list }] = await back;
    assert.equal(before, "lol");
    assert.equal(Buffer.from(bytes).toString(), "abc");
    assert.equal(Buffer.from(list[0]).toString(), "de");
    assert.equal(list[1], 1);
  },

  async "events with and without binary data arrive in order"({ socket }) {
    const client = await connected(socket());
    const received = collect(client, "message-back");
    for (let n = 0; n < 20; n += 1) client.emit("message", n, ...(n % 2 ? [Buffer.from([n])] : []));
    await until(() => received.length === 20);
    assert.deepEqual(received.map(([n]) => n), Array.from({ length: 20 }, (_, n) => n));
  },

  async "a large event arrives"({ socket }) {
    const client = await connected(socket());
    const large = "x".repeat(400_000);
    assert.equal(await echo(client, large), large);
    const bytes = await echo(client, Buffer.alloc(200_000, 7));
    assert.equal(Buffer.compare(Buffer.from(bytes), Buffer.alloc(200_000, 7)), 0);
  },

  async "every event reaches a catch-all listener"({ socket }) {
    const client = socket(config.namespace);
    const seen = [];
    client.onAny((...event) => seen.push(event));
    await connected(client);
    client.emit("message", 1);
    await until(() => seen.length === 2);
    assert.deepEqual(seen, [["auth", {}], ["message-back", 1]]);
  },

  // Acknowledgements

  async "the server acknowledges with the arguments that it received"({ socket }) {
    const client = await connected(socket());
    const answer = await new Promise((resolve) => {
      client.emit("message-with-ack", 1, { two: 2 }, (...args) => resolve(args));
    });
    assert.deepEqual(answer, [1, { two: 2 }]);
    assert.equal(await client.emitWithAck("message-with-ack", 123), 123);
  },

  async "the client acknowledges an event of the server"({ socket }) {
    const client = await connected(socket());
    client.on("question", (answer) => answer(5, { sure: true }));
    const back = next(client, "answer");
    client.emit("ask");
    assert.deepEqual(await back, [5, { sure: true }]);
  },

  async "the client acknowledges with binary data"({ socket }) {
    const client = await connected(socket());
    client.on("question", (answer) => answer(Buffer.from("yes")));
    const back = next(client, "answer");
    client.emit("ask-binary");
    assert.equal(Buffer.from((await back)[0]).toString(), "yes");
  },

  async "an ack in time is no error"({ socket }) {
    const client = socket();
    const [error, value] = await new Promise((resolve) => {
      client.timeout(LONG_MS).emit("message-with-ack", 42, (...args) => resolve(args));
    });
    assert.equal(error, null);
    assert.equal(value, 42);
    assert.equal(await client.timeout(LONG_MS).emitWithAck("message-with-ack", 43), 43);
  },

  async "an ack that does not come is an error"({ socket }) {
    const client = await connected(socket());
    const error = await new Promise((resolve) => client.timeout(SHORT_MS).emit("unanswered", resolve));
    assert.ok(error instanceof Error);
    await assert.rejects(client.timeout(SHORT_MS).emitWithAck("unanswered"));
  },

  async "an ack that comes too late is reported once, as an error"({ socket }) {
    const client = await connected(socket());
    const results = [];
    client.timeout(1).emit("message-with-ack", 42, (...args) => results.push(args));
    // Block the event loop for so long that the timer fires before anything from the network is read.
    for (const end = performance.now() + 20; performance.now() < end; );
    await settle(client);
    assert.equal(results.length, 1);
    assert.ok(results[0][0] instanceof Error);
  },

  async "a configured ack timeout applies to every ack"({ socket }) {
    const client = socket("/", { ackTimeout: SHORT_MS });
    const error = await new Promise((resolve) => client.emit("unanswered", resolve));
    assert.ok(error instanceof Error);
  },

  async "a pending ack without a timeout is dropped with the connection"({ socket }) {
    const client = await connected(socket());
    const results = [];
    client.emit("message-with-ack", "a", (...args) => results.push(args));
    client.disconnect();
    client.connect();
    await connected(client);
    await settle(client);
    assert.deepEqual(results, []);
  },

  async "a pending ack with a timeout fails with the connection"({ socket }) {
    const client = await connected(socket());
    const error = new Promise((resolve) => client.timeout(LONG_MS).emit("message-with-ack", "a", resolve));
    const rejected = assert.rejects(client.emitWithAck("message-with-ack", "a"));
    client.disconnect();
    assert.ok((await error) instanceof Error);
    await rejected;
  },

  async "an event emitted while disconnected is acknowledged after the connect"({ socket }) {
    const client = await connected(socket());
    client.disconnect();
    const answer = new Promise((resolve) => client.emit("message-with-ack", "a", resolve));
    await sleep(50);
    client.connect();
    assert.equal(await answer, "a");
  },

  // Volatile events

  async "a volatile event is dropped while disconnected"({ socket }) {
    const client = socket("/", { autoConnect: false });
    const received = collect(client, "message-back");
    client.volatile.emit("message", "volatile");
    client.emit("message", "kept");
    client.connect();
    await settle(client);
    assert.deepEqual(received, [["kept"]]);
  },

  async "a volatile event is dropped while the transport is busy"({ socket }) {
    const client = socket();
    const received = collect(client, "message-back");
    await next(client, "connect");
    client.emit("message", "kept");
    client.volatile.emit("message", "volatile");
    await settle(client);
    assert.deepEqual(received, [["kept"]]);
  },

  async "a volatile event arrives while the transport is idle"({ socket }) {
    const client = await connected(socket());
    const received = collect(client, "message-back");
    while (received.length === 0) {
      client.volatile.emit("message", "volatile");
      await sleep(50);
    }
    assert.deepEqual(received[0], ["volatile"]);
  },

  // Retries

  async "retried events keep their order"({ socket }) {
    const client = socket("/", { retries: 1, ackTimeout: LONG_MS });
    const sent = collect(client.io.engine, "packetCreate");
    const answers = [1, 2, 3].map((n) => {
      return new Promise((resolve) => client.emit("message-with-ack", n, (...args) => resolve(args)));
    });
    assert.deepEqual(await Promise.all(answers), [[null, 1], [null, 2], [null, 3]]);
    const messages = sent.map(([packet]) => packet).filter(({ type }) => type === "message");
    assert.deepEqual(
      messages.map(({ data }) => data),
      ["0", ...[1, 2, 3].map((n) => `2${n - 1}["message-with-ack",${n}]`)],
    );
  },

  async "an unacknowledged event is sent four times with three retries"({ socket }) {
    const client = socket("/", { retries: 3, ackTimeout: SHORT_MS });
    const received = collect(client, "message-back");
    const error = await new Promise((resolve) => client.emit("message", "again", resolve));
    assert.ok(error instanceof Error);
    await until(() => received.length === 4);
  },

  async "retries wait for the connection"({ socket }) {
    const client = socket("/", { autoConnect: false, retries: 3, ackTimeout: LONG_MS });
    const answer = new Promise((resolve) => client.emit("message-with-ack", 1, (...args) => resolve(args)));
    await sleep(50);
    client.connect();
    assert.deepEqual(await answer, [null, 1]);
  },

  async "an event with retries that the connect handler emits is sent once"({ socket }) {
    const client = socket("/", { retries: 3, ackTimeout: LONG_MS });
    const sent = collect(client.io.engine, "packetCreate");
    await new Promise((resolve) => {
      client.on("connect", () => client.emit("message-with-ack", null, resolve));
    });
    const messages = sent.map(([packet]) => packet).filter(({ type }) => type === "message");
    assert.deepEqual(messages.map(({ data }) => data), ["0", '20["message-with-ack",null]']);
  },
};

async function run(scenario) {
  const connections = new Connections();
  const open = {
    socket: (...args) => connections.socket(...args),
    manager: (...args) => connections.manager(...args),
  };
  const limit = new AbortController();
  try {
    await Promise.race([
      scenario(open),
      sleep(PATIENCE_MS, undefined, { signal: limit.signal }).then(() => {
        throw new Error(`not done after ${PATIENCE_MS} ms`);
      }),
    ]);
    return { ok: true, error: null };
  } catch (error) {
    return { ok: false, error: error.message };
  } finally {
    limit.abort();
    connections.close();
  }
}

// A failed assertion in a listener rejects no scenario's promise, and would otherwise go unnoticed.
process.on("uncaughtException", (error) => {
  process.stderr.write(`scenarios: ${error.stack}\n`);
  process.exit(1);
});

for (const [name, scenario] of Object.entries(scenarios)) {
  if (config.only && config.only !== name) continue;
  const outcome = await run(scenario);
  process.stdout.write(`${JSON.stringify({ name, ...outcome })}\n`);
}
process.exit(0);
