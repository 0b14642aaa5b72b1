// Runs a group of scenarios: real clients on bad networks and at bad moments. README.md describes the config and the
// output.

import { Fixture } from "./networks/fixture.mjs";

const TIME_LIMIT_MS = 150_000;

const config = JSON.parse(process.argv[2]);
const { group, only = "", clients = ["4", "3"], transports = ["websocket", "polling", "upgrade"], atOnce = 6 } = config;

function* runs(scenarios) {
  for (const [name, scenario] of Object.entries(scenarios)) {
    if (!name.includes(only)) continue;
    for (const client of scenario.clients ?? ["4", "3"]) {
      for (const transport of scenario.transports ?? ["websocket", "polling", "upgrade"]) {
        if (clients.includes(client) && transports.includes(transport)) yield { name, scenario, client, transport };
      }
    }
  }
}

async function run({ name, scenario, client, transport }) {
  const fixture = new Fixture({ ...config, client, transport });
  const start = performance.now();
  let timer;
  const limit = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`takes longer than ${TIME_LIMIT_MS} ms`)), TIME_LIMIT_MS);
  });
  let error = null;
  try {
    await Promise.race([scenario.run(fixture), limit]);
  } catch (failure) {
    error = failure.stack ?? String(failure);
  } finally {
    clearTimeout(timer);
    await fixture.close();
  }
  const took = Math.round(performance.now() - start);
  process.stdout.write(`${JSON.stringify({ name, client, transport, ok: error === null, error, took })}\n`);
}

async function main() {
  const module = await import(`./networks/${group}.mjs`);
  const queue = runs(module[group]);
  const worker = async () => {
    for (const next of queue) await run(next);
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
}

// An error means that the harness has exited.
process.stdout.on("error", () => process.exit(0));
await main();
// A connection that a failed scenario has left open must not keep the process alive.
process.exit(0);
