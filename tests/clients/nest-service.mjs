// A NestJS service with one ClientRMQ per queue. Each emits numbered `notification.created` messages until a
// command stops it. README.md describes the configuration, the commands and the reports.
//
// Nothing here handles uncaught errors: the process ends as a NestJS application would.

import { createInterface } from "node:readline";
import { nest } from "./nest/packages.mjs";

const { version, url, every, phase: firstPhase, clients } = JSON.parse(process.argv[2]);
const [, { Logger }, { ClientProxyFactory, Transport }] = await nest(
  version,
  "reflect-metadata",
  "@nestjs/common",
  "@nestjs/microservices",
);

// NestJS must not log to stdout, which the harness reads.
Logger.overrideLogger(false);

function report(line) {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

process.on("uncaughtExceptionMonitor", (error) => report({ kind: "uncaught", error: String(error) }));
process.on("exit", (code) => report({ kind: "exit", code }));

let phase = firstPhase;
let number = 0;
let pending = 0;

async function start(name, { userId, options }) {
  const proxy = ClientProxyFactory.create({ transport: Transport.RMQ, options: { urls: [url], ...options } });
  const connecting = proxy.connect();
  // `proxy.client` is the connection of amqp-connection-manager, which reconnects by itself. NestJS 10 gives no other
  // access to it.
  proxy.client.on("connect", () => report({ kind: "connected", client: name }));
  proxy.client.on("disconnect", () => report({ kind: "disconnected", client: name }));
  await connecting;
  report({ kind: "ready", client: name });
  return { name, proxy, userId };
}

function emit({ name, proxy, userId }) {
  const message = { client: name, id: `${phase}.${version}.${++number}`, phase };
  const done = (kind) => (error) => {
    pending -= 1;
    report({ kind, ...message, error: error && String(error.message ?? error) });
  };
  pending += 1;
  // The observable completes on the broker's confirm, without a value.
  proxy
    .emit("notification.created", { id: message.id, userId, title: "Hello" })
    .subscribe({ complete: done("confirmed"), error: done("failed") });
}

const started = await Promise.all(Object.entries(clients).map(([name, client]) => start(name, client)));
const timer = setInterval(() => started.forEach(emit), every);

createInterface({ input: process.stdin }).on("line", async (line) => {
  const command = JSON.parse(line);
  if (command.do === "phase") {
    phase = command.name;
    report({ kind: "phase", phase });
  } else if (command.do === "stop") {
    clearInterval(timer);
    while (pending > 0) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    await Promise.all(started.map(({ proxy }) => proxy.close()));
    process.exit(0);
  }
});
