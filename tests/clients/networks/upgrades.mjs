// Upgrades from polling to a WebSocket that fail, or succeed at a bad moment.

import { ensure, equal, pause, until } from "./fixture.mjs";
import { HttpProxy, UPGRADES } from "./proxies.mjs";

/** More requests would mean that client and server respond to each other without a pause. */
const MAX_POLLS_PER_SECOND = 20;

/** A device of a new user, behind a proxy that treats upgrades in this way. */
async function deviceBehind(fixture, upgrade) {
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

/** Ensures that the session has never been closed and uses polling. */
function ensureStillPolls({ device, manager }) {
  equal("reasons for a closed transport", manager.closes, []);
  equal("disconnects", device.disconnects, []);
  equal("transport", manager.engine.transport.name, "polling");
}

/** The upgrade fails while the first notifications arrive, and the session continues by polling. */
const fallsBack = (upgrade) => async (fixture) => {
  const setup = await deviceBehind(fixture, upgrade);
  const ids = await fixture.fill(setup.ada, 3, (n) => `early-${n}`);
  await setup.device.until("the probe has failed", () => setup.upgradeErrors.length > 0);
  ids.push(...(await fixture.fill(setup.ada, 3, (n) => `late-${n}`)));
  await setup.device.received(ids.at(-1));
  equal("received", setup.device.ids, ids);
  ensureStillPolls(setup);
};

/** The client does not notice that the probe hangs: it polls until the server abandons the probe, and after that. */
const pollsOn = (upgrade) => async (fixture) => {
  const setup = await deviceBehind(fixture, upgrade);
  const { proxy, ada, device } = setup;
  await until("a probe hangs", () => proxy.webSocketsOpened > 0, device.describe);
  const [start, pollsBefore] = [performance.now(), proxy.polls().length];
  const ids = await fixture.fill(ada, 3, (n) => `early-${n}`);
  await device.received(ids.at(-1));
  await until("the server has abandoned the probe", () => proxy.webSocketsClosed > 0, device.describe);
  const rate = (1_000 * (proxy.polls().length - pollsBefore)) / (performance.now() - start);
  ids.push(...(await fixture.fill(ada, 3, (n) => `late-${n}`)));
  await device.received(ids.at(-1));
  equal("received", device.ids, ids);
  ensureStillPolls(setup);
  ensure(`${rate.toFixed(1)} polls a second while the probe hangs`, rate < MAX_POLLS_PER_SECOND);
};

/** The WebSocket becomes silent when the client has already given up polling for it. The session is lost, and the device
 *  catches up after a reconnect. */
async function lastPacketLost(fixture) {
  let silent = false;
  const proxy = await HttpProxy.to(fixture, {
    upgrade(request, socket, head, proxy) {
      let chunks = 0;
      // The first chunk is the probe. The second is the UPGRADE packet, with which the client ends polling.
      const toServer = () => {
        silent = proxy.webSocketsOpened === 1 && ++chunks > 1;
        return !silent;
      };
      proxy.tunnel(request, socket, head, { toServer });
    },
  });
  const ada = fixture.user("ada");
  const manager = fixture.manager({ url: proxy.url });
  const auth = (answer) => answer({ token: fixture.token(ada), ...device.resumePoint });
  const device = fixture.device(manager, "/", ada, auth);
  device.socket.connect();
  await device.connected(1);
  await device.until("received notification:sync", () => device.named("notification:sync").length > 0);
  await until("the WebSocket is silent", () => silent, device.describe);
  const ids = await fixture.fill(ada, 3, (n) => `lost-${n}`);
  // When the network is back, silent connections are reset.
  proxy.cut();
  await device.connected(2);
  await fixture.untilUpgraded(device);
  ids.push(...(await fixture.fill(ada, 3, (n) => `late-${n}`)));
  await device.received(ids.at(-1));
  equal("received", device.ids, ids);
}

/** Devices upgrade at different points of a flow of notifications. Each must receive all later notifications. */
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
    // Without this, on a slow machine all devices would connect only after the flow.
    if (devices.length === 1) await device.connected(1);
  }
  for (const device of devices) {
    await device.received(`n${FLOW - 1}`);
    await fixture.untilUpgraded(device);
  }
  await fixture.flush(ada, ...devices);
  for (const device of devices) {
    const [sync] = device.named("notification:sync");
    const revisions = device.notifications.map(({ revision }) => revision);
    // Each notification is one revision. A device loads the notifications before its sync as a list.
    const first = Math.min(sync.revision + 1, revisions[0]);
    const expected = Array.from({ length: FLOW + 2 - first }, (_, n) => first + n);
    equal("revisions", revisions, expected);
    equal("disconnects", device.disconnects, []);
  }
}

/** Messages around the moment of the upgrade use either transport, and each of them is acknowledged once. */
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
  await fixture.untilUpgraded(device);
  await device.until("all marked", () => device.named("notification:marked_read").length >= ids.length);
  equal("marked", device.named("notification:marked_read").flatMap((read) => read.ids).sort(), ids.sort());
}

const upgrade = { transports: ["upgrade"] };

export const upgrades = {
  "a session behind a proxy that strips Upgrade stays on polling": { ...upgrade, run: fallsBack(UPGRADES.strip) },
  "a session whose upgrade is refused with 502 stays on polling": { ...upgrade, run: fallsBack(UPGRADES.refuse) },
  "a session whose upgrade is cut stays on polling": { ...upgrade, run: fallsBack(UPGRADES.cut) },
  "a session whose probe does not arrive stays on polling": { ...upgrade, run: pollsOn(UPGRADES.swallowFromClient) },
  "a session whose answer to the probe does not arrive stays on polling": {
    ...upgrade,
    run: pollsOn(UPGRADES.swallowFromServer),
  },
  "a device whose last packet of the upgrade is lost catches up": { ...upgrade, run: lastPacketLost },
  "devices that upgrade during a flow receive each notification once and in order": { ...upgrade, run: duringAFlow },
  "messages sent during the upgrade are each acknowledged once": { ...upgrade, run: callsDuringTheUpgrade },
};
