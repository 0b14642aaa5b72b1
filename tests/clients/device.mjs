// A device on socket.io-client (JavaScript). Its config is argv[1], commands come in on stdin and what
// happens goes out on stdout, one JSON object a line: see README.md. device.py is its twin; where the
// two libraries differ is written there.

import { Agent } from "node:http";
import { createInterface } from "node:readline";
import * as version4 from "socket.io-client";
import * as version3 from "socket.io-client-3";

const ACK_TIMEOUT_MS = 5_000;

/** Remembers the connections it made, so that `drop` can cut them as a dead network would: no close
 *  frame, no Engine.IO close packet, and no reaching into the library. */
class CuttableAgent extends Agent {
  connections = new Set();

  createConnection(...args) {
    const connection = super.createConnection(...args);
    this.connections.add(connection);
    connection.once("close", () => this.connections.delete(connection));
    return connection;
  }

  cut() {
    for (const connection of this.connections) connection.destroy();
  }
}

/** The newest revision and the epoch that this device has seen: what the next handshake asks from. */
class Seen {
  since = null;
  epoch = null;

  take(name, payload) {
    if (name === "notification:sync") this.#sync(payload);
    else if (Number.isInteger(payload?.revision)) this.#advance(payload.revision);
  }

  // Where missed events are to come, their own revisions count: taking the sync's at once would lose
  // them if the connection broke in between.
  #sync({ epoch, revision, recovered }) {
    if (epoch !== this.epoch) this.since = null;
    this.epoch = epoch;
    if (!recovered) this.since = revision;
  }

  #advance(revision) {
    if (this.since === null || revision > this.since) this.since = revision;
  }

  get claims() {
    return this.since === null ? {} : { since: this.since, epoch: this.epoch };
  }
}

const started = performance.now();

function say(kind, fields) {
  process.stdout.write(`${JSON.stringify({ at: Math.round(performance.now() - started), kind, ...fields })}\n`);
}

/** Emits, and gives an error instead of an answer that does not come in time. */
function emitWithTimeout(socket, name, args, answer) {
  if (socket.timeout) return socket.timeout(ACK_TIMEOUT_MS).emit(name, ...args, answer);
  // Version 3 waits for ever, also when the connection is lost.
  const timer = setTimeout(() => {
    answer(new Error("operation has timed out"));
    answer = () => {};
  }, ACK_TIMEOUT_MS);
  return socket.emit(name, ...args, (...values) => {
    clearTimeout(timer);
    answer(null, ...values);
  });
}

function open(config, moreCommands) {
  const agent = new CuttableAgent();
  const seen = new Seen();
  let auth = config.auth ?? {};

  const { io } = config.version === 3 ? version3 : version4;
  const socket = io(config.url.replace(/\/$/, "") + (config.namespace ?? "/"), {
    path: config.path,
    transports: config.transports ?? ["websocket"],
    query: config.query,
    extraHeaders: config.headers,
    reconnection: config.reconnection ?? true,
    reconnectionDelay: config.reconnectionDelay,
    reconnectionDelayMax: config.reconnectionDelay && 5 * config.reconnectionDelay,
    auth: (answer) => answer({ ...auth, ...(config.track ? seen.claims : {}) }),
    autoConnect: false,
    agent,
  });

  socket.on("connect", () => say("connect", { sid: socket.id, transport: socket.io.engine.transport.name }));
  socket.on("connect_error", ({ message, data }) => {
    say("connect_error", { message, data: data ?? null, active: socket.active });
  });
  socket.on("disconnect", (reason) => say("disconnect", { reason, active: socket.active }));
  socket.io.on("open", () => {
    socket.io.engine.once("upgrade", ({ name }) => say("upgrade", { transport: name }));
  });
  socket.io.on("close", (reason) => say("engine_close", { reason }));
  socket.onAny((name, ...args) => {
    const acknowledge = typeof args.at(-1) === "function" ? args.pop() : undefined;
    seen.take(name, args[0]);
    say("event", { name, args });
    acknowledge?.();
  });

  const commands = {
    ...moreCommands,
    connect: () => socket.connect(),
    disconnect: () => socket.disconnect(),
    drop: () => agent.cut(),
    auth: (command) => (auth = command.auth ?? {}),
    emit({ name, args = [], ack, ref }) {
      if (!ack) return socket.emit(name, ...args);
      return emitWithTimeout(socket, name, args, (error, ...answer) => {
        if (error) say("ack_timeout", { ref, message: error.message });
        else say("ack", { ref, args: answer });
      });
    },
  };

  socket.connect();
  return commands;
}

function leave(commands) {
  commands.disconnect();
  // A moment later, so that the goodbye is on its way.
  setTimeout(() => process.exit(0), 20);
}

function obey(commands, line) {
  try {
    const command = JSON.parse(line);
    if (!Object.hasOwn(commands, command.do)) throw new Error(`no such command: ${line}`);
    commands[command.do](command);
  } catch (error) {
    say("error", { message: error.message });
  }
}

// Whoever started this is gone: nobody is left to tell.
process.stdout.on("error", () => process.exit(0));

const lines = createInterface({ input: process.stdin });
const commands = open(JSON.parse(process.argv[2]), { exit: () => lines.close() });
lines.on("line", (line) => line.trim() && obey(commands, line));
lines.on("close", () => leave(commands));
