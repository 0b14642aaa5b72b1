// Publishes events like a NestJS service: with a real ClientRMQ, its connection, queue declaration and message
// format. README.md describes the config and the output.

import "reflect-metadata";
import { Logger } from "@nestjs/common";
import { ClientProxyFactory, Transport } from "@nestjs/microservices";
import { lastValueFrom } from "rxjs";

const GIVE_UP_MS = 20_000;

function fail(error) {
  // The error of a failed connection is {err, url}. It must not be printed as a whole: the URL contains the password.
  process.stderr.write(`nest-emit: ${error?.message ?? error?.err?.message ?? error}\n`);
  process.exit(1);
}

// If the broker refuses the declaration because of other queue arguments, there is an `error` event that NestJS does
// not listen to.
process.on("uncaughtException", fail);
process.on("unhandledRejection", fail);

const { url, queue, queueOptions = { durable: true }, events, options } = JSON.parse(process.argv[2]);

// NestJS waits for the broker's confirm without a limit, but a test has to end.
setTimeout(() => fail(`not confirmed by the broker within ${GIVE_UP_MS} ms`), GIVE_UP_MS);

// NestJS must not log to stdout, which the harness reads.
Logger.overrideLogger(false);

const client = ClientProxyFactory.create({
  transport: Transport.RMQ,
  options: { urls: [url], queue, queueOptions, ...options },
});
await client.connect();
for (const { pattern, data } of events) {
  // The observable completes on the broker's confirm, without a value.
  await lastValueFrom(client.emit(pattern, data), { defaultValue: undefined });
}
await client.close();
process.stdout.write(`${JSON.stringify({ kind: "done", count: events.length })}\n`, () => process.exit(0));
