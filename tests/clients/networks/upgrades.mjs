// Upgrades from polling to a WebSocket that fail, or succeed at a bad moment.

import { ensure, equal, pause, until } from "./fixture.mjs";
import { HttpProxy, UPGRADES } from "./proxies.mjs";

/** More requests mean that client and server keep each other busy. */
const MAX_POLLS_PER_SECOND = 20;

/** A device behind a proxy that treats upgrades in that way, and a user with an inbox of their own. */
async function behind(fixture, upgrade) {
  const proxy = await HttpProxy.to(fixture, { upgrade });
  const ada = fixture.user("ada");
  const manager = fixture.manager({ url: proxy.url });
  const device = fixture.device(manager, "/", ada);
  const upgradeErrors = [];
  manager.on("open", () => manager.engine.on("upgradeError", (error) => upgradeErrors.push(error.message)));
  device.socket.connect();
  await device.connected(1);
  await device.until("received notification:sync", () => device.named("notification:sync").length > 0);
  return { proxy, ada, device, manager, upgradeErrors };
}

function stillPolls({ device, manager }) {
  equal("reasons for a closed transport", manager.closes, []);
  equal("disconnects", device.disconnects, []);
  equal("transport", manager.engine.transport.name, "polling");
}

/** The upgrade fails while the first notifications arrive, and the session goes on by polling. */
const fallsBack = (upgrade) => async (fixture) => {
  const place = await behind(fixture, upgrade);
  const ids = await fixture.fill(place.ada, 3, (n) => `early-${n}`);
  await place.device.until("the probe has failed", () => place.upgradeErrors.length > 0);
  ids.push(...(await fixture.fill(place.ada, 3, (n) => `late-${n}`)));
  await place.device.received(ids.at(-1));
  equal("received", place.device.ids, ids);
  stillPolls(place);
};

/** The client does not notice that the probe hangs: it polls until the server abandons the probe, and after that. */
const pollsOn = (upgrade) => async (fixture) => {
  const place = await behind(fixture, upgrade);
  const { proxy, ada, device } = place;
  await until("a probe hangs", () => proxy.webSocketsOpened > 0, device.describe);
  const [began, polls] = [performance.now(), proxy.polls().length];
  const ids = await fixture.fill(ada, 3, (n) => `early-${n}`);
  await device.received(ids.at(-1));
  await until("the server has given the probe up", () => proxy.webSocketsClosed > 0, device.describe);
  const rate = (1_000 * (proxy.polls().length - polls)) / (performance.now() - began);
  ids.push(...(await fixture.fill(ada, 3, (n) => `late-${n}`)));
  await device.received(ids.at(-1));
  equal("received", device.ids, ids);
  stillPolls(place);
  ensure(`${rate.toFixed(1)} polls a second while the probe hangs`, rate < MAX_POLLS_PER_SECOND);
};

/** Both sides have agreed on the WebSocket when it goes silent: nothing is left of the old transport. */
async function lastPacketLost(fixture) {
  let silent = false;
  const proxy = await HttpProxy.to(fixture, {
    upgrade(request, socket, head, proxy) {
      let chunks = 0;
      // The first is the probe; with the second the client ends polling.
      const toServer = () => !(silent = proxy.webSocketsOpened === 1 && ++chunks > 1);
      proxy.tunnel(request, socket, head, { toServer });
    },
  });
  const ada = fixture.user("ada");
  const manager = fixture.manager({ url: proxy.url });
  const auth = (answer) => answer({ token: fixture.token(ada), ...device.position });
  const device = fixture.device(manager, "/", ada, auth);
  device.socket.connect();
  await device.connected(1);
  await device.until("received notification:sync", () => device.named("notification:sync").length > 0);
  await until("the WebSocket is silent", () => silent, device.describe);
  const ids = await fixture.fill(ada, 3, (n) => `lost-${n}`);
  // As when the network is back: silent connections are reset.
  proxy.cut();
  await device.connected(2);
  await fixture.upgraded(device);
  ids.push(...(await fixture.fill(ada, 3, (n) => `late-${n}`)));
  await device.received(ids.at(-1));
  equal("received", device.ids, ids);
}

/** Devices that upgrade at different points of one flow, each of which has to receive all that follows. */
async function duringAFlow(fixture) {
  const [FLOW, DEVICES] = [300, 8];
  const ada = fixture.user("ada");
  const devices = [];
  for (let n = 0; n < FLOW; n += 1) {
    await fixture.notify(ada, `n${n}`);
    if (n % Math.ceil(FLOW / DEVICES) !== 0) continue;
    const device = fixture.device(fixture.manager(), "/", ada);
    device.socket.connect();
    devices.push(device);
    // A slow machine must not open them all behind the flow.
    if (devices.length === 1) await device.connected(1);
  }
  for (const device of devices) {
    await device.received(`n${FLOW - 1}`);
    await fixture.upgraded(device);
  }
  await fixture.flush(ada, ...devices);
  for (const device of devices) {
    const [sync] = device.named("notification:sync");
    const revisions = device.notifications.map(({ revision }) => revision);
    // Each notification is one revision. What precedes the sync is in the list that the device loads.
    const first = Math.min(sync.revision + 1, revisions[0]);
    const expected = Array.from({ length: FLOW + 2 - first }, (_, n) => first + n);
    equal("revisions", revisions, expected);
    equal("disconnects", device.disconnects, []);
  }
}

/** Events by both ways at the moment of the upgrade, each answered once. */
async function callsDuringTheUpgrade(fixture) {
  const ada = fixture.user("ada");
  const ids = await fixture.fill(ada, 30);
  const device = fixture.device(fixture.manager(), "/", ada);
  device.socket.connect();
  await device.connected(1);
  const answers = [];
  for (const id of ids) {
    answers.push(device.call("notification:mark_read", { id }));
    await pause(1);
  }
  const statuses = (await Promise.all(answers)).map(({ status }) => status);
  equal("acks", statuses, ids.map(() => "ok"));
  await fixture.upgraded(device);
  await device.until("all marked", () => device.named("notification:marked_read").length >= ids.length);
  equal("marked", device.named("notification:marked_read").flatMap((read) => read.ids).sort(), ids.sort());
}

const upgrade = { transports: ["upgrade"] };

export const upgrades = {
  "a session behind a proxy that strips Upgrade stays on polling": { ...upgrade, run: fallsBack(UPGRADES.strip) },
  "a session whose upgrade is answered 502 stays on polling": { ...upgrade, run: fallsBack(UPGRADES.refuse) },
  "a session whose upgrade is cut stays on polling": { ...upgrade, run: fallsBack(UPGRADES.cut) },
  "a session whose probe does not arrive stays on polling": { ...upgrade, run: pollsOn(UPGRADES.swallowFromClient) },
  "a session whose answered probe does not arrive stays on polling": {
    ...upgrade,
    run: pollsOn(UPGRADES.swallowFromServer),
  },
  "a device whose last packet of the upgrade is lost catches up": { ...upgrade, run: lastPacketLost },
  "devices that upgrade during a flow receive each notification once and in order": { ...upgrade, run: duringAFlow },
  "events sent during the upgrade are each answered once": { ...upgrade, run: callsDuringTheUpgrade },
};
