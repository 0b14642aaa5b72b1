// A device on socket.io-client (JavaScript). Its config is its only argument. It reads commands from stdin and reports
// to stdout, one JSON object a line: see README.md. device.py does the same in Python, and lists the differences
// between the two libraries.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { CuttableAgent } from "./cuttable_agent.mjs";

// Tests start hundreds of devices. The clients' CommonJS builds start in half the time of their ECMAScript modules.
const require = createRequire(import.meta.url);

const ACK_TIMEOUT_MS = 5_000;

/** The newest revision that this device has received, and its epoch. The next handshake resumes there. */
class ResumePoint {
  since = null;
  epoch = null;

  update(name, payload) {
    if (name === "notification:sync") this.#sync(payload);
    else if (Number.isInteger(payload?.revision)) this.#advance(payload.revision);
  }

  // After a recovered sync the missed events follow, and each of them advances the resume point. With the revision of
  // the sync, they would be lost if the connection broke before they arrive.
  #sync({ epoch, revision, recovered }) {
    if (epoch !== this.epoch) this.since = null;
    this.epoch = epoch;
    if (!recovered) this.since = revision;
  }

  #advance(revision) {
    if (this.since === null || revision > this.since) this.since = revision;
  }

  get authFields() {
    return this.since === null ? {} : { since: this.since, epoch: this.epoch };
  }
}

const started = performance.now();

function report(kind, fields) {
  process.stdout.write(`${JSON.stringify({ at: Math.round(performance.now() - started), kind, ...fields })}\n`);
}

/** Emits an event. Calls `answer` with the ack, or with an error if the ack does not arrive in time. */
function emitWithTimeout(socket, name, args, answer) {
  if (socket.timeout) return socket.timeout(ACK_TIMEOUT_MS).emit(name, ...args, answer);
  // Version 3 waits without a limit, even after the connection is lost.
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
  const resumePoint = new ResumePoint();
  let auth = config.auth ?? {};

  const { io } = require(config.version === 3 ? "socket.io-client-3" : "socket.io-client");
  const socket = io(config.url.replace(/\/$/, "") + (config.namespace ?? "/"), {
    path: config.path,
    transports: config.transports ?? ["websocket"],
    query: config.query,
    extraHeaders: config.headers,
    reconnection: config.reconnection ?? true,
    reconnectionDelay: config.reconnectionDelay,
    reconnectionDelayMax: config.reconnectionDelay && 5 * config.reconnectionDelay,
    auth: (answer) => answer({ ...auth, ...(config.track ? resumePoint.authFields : {}) }),
    autoConnect: false,
    agent,
  });

  socket.on("connect", () => report("connect", { sid: socket.id, transport: socket.io.engine.transport.name }));
  socket.on("connect_error", ({ message, data }) => {
    report("connect_error", { message, data: data ?? null, active: socket.active });
  });
  socket.on("disconnect", (reason) => report("disconnect", { reason, active: socket.active }));
  socket.io.on("open", () => {
    socket.io.engine.once("upgrade", ({ name }) => report("upgrade", { transport: name }));
  });
  socket.io.on("close", (reason) => report("engine_close", { reason }));
  socket.onAny((name, ...args) => {
    const acknowledge = typeof args.at(-1) === "function" ? args.pop() : undefined;
    resumePoint.update(name, args[0]);
    report("event", { name, args });
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
        if (error) report("ack_timeout", { ref, message: error.message });
        else report("ack", { ref, args: answer });
      });
    },
  };

  socket.connect();
  return commands;
}

function exit(commands) {
  commands.disconnect();
  // Wait a moment, so that the DISCONNECT packet is sent.
  setTimeout(() => process.exit(0), 20);
}

function execute(commands, line) {
  try {
    const command = JSON.parse(line);
    if (!Object.hasOwn(commands, command.do)) throw new Error(`no such command: ${line}`);
    commands[command.do](command);
  } catch (error) {
    report("error", { message: error.message });
  }
}

// An error means that the harness has exited.
process.stdout.on("error", () => process.exit(0));

const lines = createInterface({ input: process.stdin });
const commands = open(JSON.parse(process.argv[2]), { exit: () => lines.close() });
lines.on("line", (line) => line.trim() && execute(commands, line));
lines.on("close", () => exit(commands));
