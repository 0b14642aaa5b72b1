// Publishes events like a NestJS service: with a real ClientRMQ, its connection, queue declaration and message
// format. argv[1]: {"url","queue","queueOptions","events":[{"pattern","data"},…],"options":{…}}, where
// `options` are options of ClientRMQ ("wildcards", "exchange", "persistent", …).

import "reflect-metadata";
import { Logger } from "@nestjs/common";
import { ClientProxyFactory, Transport } from "@nestjs/microservices";
import { lastValueFrom } from "rxjs";

const GIVE_UP_MS = 20_000;

function fail(error) {
  // A connection that failed comes as {err, url}; the url has the password in it.
  process.stderr.write(`nest-emit: ${error?.message ?? error?.err?.message ?? error}\n`);
  process.exit(1);
}

// A refused declaration (other queue arguments) is an 'error' event that NestJS does not listen to.
process.on("uncaughtException", fail);
process.on("unhandledRejection", fail);

const { url, queue, queueOptions = { durable: true }, events, options } = JSON.parse(process.argv[2]);

// NestJS waits for the broker's confirm without a limit; a test has to end.
setTimeout(() => fail(`not confirmed by the broker within ${GIVE_UP_MS} ms`), GIVE_UP_MS);

// stdout is for the harness alone.
Logger.overrideLogger(false);

const client = ClientProxyFactory.create({
  transport: Transport.RMQ,
  options: { urls: [url], queue, queueOptions, ...options },
});
await client.connect();
for (const { pattern, data } of events) {
  // Completes on the broker's confirm, with no value.
  await lastValueFrom(client.emit(pattern, data), { defaultValue: undefined });
}
await client.close();
process.stdout.write(`${JSON.stringify({ kind: "done", count: events.length })}\n`, () => process.exit(0));
