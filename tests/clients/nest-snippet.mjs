// Runs a TypeScript snippet of the documents with the packages of a version of NestJS. README.md describes the
// configuration and the reports.

import { createRequire } from "node:module";
import { nest } from "./nest/packages.mjs";

const { version, snippet, patterns, order } = JSON.parse(process.argv[2]);
const [, common, core, microservices, { lastValueFrom }, amqplib] = await nest(
  version,
  "reflect-metadata",
  "@nestjs/common",
  "@nestjs/core",
  "@nestjs/microservices",
  "rxjs",
  "amqplib",
);
const { Controller, Logger, Module } = common;
const { ClientProxyFactory, Ctx, EventPattern, Payload, Transport } = microservices;
Logger.overrideLogger(false);

const report = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

// Stand-ins for the application and the class that the documents have around the snippet.
let microserviceOptions;
const app = { connectMicroservice: (options) => (microserviceOptions = options) };
let clientOptions;
const ClientsModule = { register: ([client]) => (clientOptions = client) };
const self = {
  get belfry() {
    this.client ??= ClientProxyFactory.create(clientOptions);
    return this.client;
  },
};

const ts = createRequire(new URL("./nest/11/package.json", import.meta.url))("typescript");
const { outputText } = ts.transpileModule(snippet, { compilerOptions: { target: "ES2022", module: "ESNext" } });
const scope = { app, Transport, ClientsModule, lastValueFrom, connect: amqplib.connect, order };
const AsyncFunction = (async () => {}).constructor;
await new AsyncFunction(...Object.keys(scope), outputText).apply(self, Object.values(scope));

if (microserviceOptions) {
  class Handlers {}
  patterns.forEach((pattern, index) => {
    const name = `handler${index}`;
    Handlers.prototype[name] = (data, context) => report({ kind: "event", pattern: context.getPattern(), data });
    EventPattern(pattern)(Handlers.prototype, name, Object.getOwnPropertyDescriptor(Handlers.prototype, name));
    Payload()(Handlers.prototype, name, 0);
    Ctx()(Handlers.prototype, name, 1);
  });
  Controller()(Handlers);
  class App {}
  Module({ controllers: [Handlers] })(App);
  const service = await core.NestFactory.createMicroservice(App, microserviceOptions);
  await service.listen();
  report({ kind: "listening" });
  // Serve until the end of stdin.
  for await (const _ of process.stdin);
  await service.close();
} else {
  await self.belfry.close();
}
report({ kind: "done" });
process.exit(0);
