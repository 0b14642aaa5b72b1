// Lost responses in a browser. If a connection that was used before breaks before there is a response, the browser
// repeats the request by itself.

import { readFileSync } from "node:fs";
import { chromium } from "playwright-core";
import { ensure, equal, until } from "./fixture.mjs";
import { HttpProxy, UPGRADES } from "./proxies.mjs";

const FLAGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];
const LIBRARIES = { 4: "socket.io-client", 3: "socket.io-client-3" };

/** Opens a page with a device that polls. A proxy serves the page and forwards to the server, so that both have the same
 *  origin. The device does not catch up after a reconnect: it must receive everything the first time. */
async function page(fixture, user) {
  const proxy = await HttpProxy.to(fixture, { upgrade: UPGRADES.refuse });
  const file = `../node_modules/${LIBRARIES[fixture.client]}/dist/socket.io.min.js`;
  const library = readFileSync(new URL(file, import.meta.url));
  proxy.serves = ({ url }) => {
    if (url === "/page") return { type: "text/html", body: "<!doctype html><script src=/library.js></script>" };
    if (url === "/library.js") return { type: "text/javascript", body: library };
    return url === "/favicon.ico" ? { type: "image/x-icon", body: "" } : undefined;
  };
  const executablePath = process.env.BELFRY_CHROMIUM ?? "/usr/bin/chromium";
  const browser = await chromium.launch({ executablePath, args: FLAGS });
  fixture.cleanup(() => browser.close());
  const tab = await browser.newPage();
  await tab.goto(`${proxy.url}/page`);
  const token = fixture.token(user);
  await tab.evaluate((token) => {
    const socket = window.io({ transports: ["polling"], auth: { token }, reconnectionDelay: 100 });
    const seen = (window.seen = { connects: 0, disconnects: [], synced: false, ids: [], acks: [], laterAcks: 0 });
    socket.on("connect", () => (seen.connects += 1));
    socket.on("disconnect", (reason) => seen.disconnects.push(reason));
    socket.on("notification:sync", () => (seen.synced = true));
    socket.on("notification:new", ({ id }) => seen.ids.push(id));
    window.socket = socket;
  }, token);
  const seen = () => tab.evaluate(() => window.seen);
  const untilSeen = async (what, holds) => {
    let last;
    await until(what, async () => holds((last = await seen())), () => JSON.stringify(last));
  };
  await untilSeen("the page has synced", ({ synced }) => synced);
  return { proxy, tab, seen, untilSeen };
}

/** Ensures that the browser has repeated the request whose response was lost. Otherwise nothing was tested. */
function ensureRepeated(proxy, lost) {
  const same = proxy.exchanges.filter(({ method, url }) => method === lost.method && url === lost.url);
  equal("requests that the browser sent for the lost response", same.length, 2);
}

/** Waits until a poll is under way over a connection that was used before. */
function untilPollIsRepeatable(proxy) {
  const isRepeatable = ({ response, isReused }) => response === undefined && isReused;
  return until("a poll over a used connection", () => proxy.polls().some(isRepeatable));
}

async function lostPollResponse(fixture) {
  const ada = fixture.user("ada");
  const { proxy, seen, untilSeen } = await page(fixture, ada);
  await fixture.notify(ada, "one");
  await untilSeen("one", ({ ids }) => ids.includes("one"));
  await untilPollIsRepeatable(proxy);
  const lost = [];
  proxy.loses = (exchange) => exchange.response.includes('"two"') && lost.length === 0 && lost.push(exchange);
  await fixture.notify(ada, "two");
  await until("a response is lost", () => lost.length > 0);
  await fixture.notify(ada, "three");
  await untilSeen("three", ({ ids }) => ids.includes("three"));
  const { ids, connects, disconnects } = await seen();
  equal("received", ids, ["one", "two", "three"]);
  equal("connects", connects, 1);
  equal("disconnects", disconnects, []);
  ensureRepeated(proxy, lost[0]);
}

/** Ten notifications in a row. Each poll response with a notification is lost once, if the browser will repeat the poll. */
async function everyPollResponseLost(fixture) {
  const ada = fixture.user("ada");
  const { proxy, seen, untilSeen } = await page(fixture, ada);
  const lost = new Set();
  proxy.loses = ({ method, url, response, isReused }) => {
    const isLost = method === "GET" && isReused && response.includes("notification:new") && !lost.has(url);
    if (isLost) lost.add(url);
    return isLost;
  };
  const ids = await fixture.fill(ada, 10);
  await untilSeen("all", (now) => now.ids.includes(ids.at(-1)));
  const { ids: received, connects } = await seen();
  equal("received", received, ids);
  equal("connects", connects, 1);
  ensure("no response was lost", lost.size > 0);
}

/** Waits until there is an idle connection that was used before, besides the connection of the pending poll. */
async function untilReusable(proxy, tab) {
  await until("a used connection is idle beside the poll", async () => {
    await tab.evaluate(() => fetch("/page").then((response) => response.text()));
    return proxy.idle.size > 0 && proxy.polls().some(({ response }) => response === undefined);
  });
}

async function lostPostResponse(fixture) {
  const ada = fixture.user("ada");
  await fixture.notify(ada, "one");
  const observer = await fixture.signedIn(ada, { transport: "websocket" });
  const { proxy, tab, seen, untilSeen } = await page(fixture, ada);
  const lost = [];
  proxy.loses = (exchange) =>
    exchange.method === "POST" && exchange.body.includes("mark_read") && lost.length === 0 && lost.push(exchange);
  await untilReusable(proxy, tab);
  await tab.evaluate(() => {
    window.socket.emit("notification:mark_read", { id: "one" }, (answer) => window.seen.acks.push(answer.status));
  });
  await untilSeen("an ack", ({ acks }) => acks.length > 0);
  await until("a response is lost", () => lost.length > 0);
  // Messages are processed in order: the ack of a later message shows that the first one has no further ack.
  await tab.evaluate(() => {
    window.socket.emit("notification:unread_count", null, () => window.seen.laterAcks++);
  });
  await untilSeen("the later ack", ({ laterAcks }) => laterAcks > 0);
  const { connects, acks } = await seen();
  equal("acks", acks, ["ok"]);
  equal("connects", connects, 1);
  // A Socket.IO ACK (43 and the ack id), at the beginning of a response or after the separator 0x1e.
  const acknowledged = proxy.polls().flatMap(({ response }) => response?.match(/(^|\x1e)43\d+\[/g) ?? []);
  equal("acks that the server sent", acknowledged.length, 2);
  await fixture.flush(ada, observer);
  equal("marked", observer.named("notification:marked_read").length, 1);
  ensureRepeated(proxy, lost[0]);
}

const polling = { transports: ["polling"] };

export const browsers = {
  "a browser that loses a poll response receives each notification once and in order": {
    ...polling,
    run: lostPollResponse,
  },
  "a browser that loses each poll response once receives each notification once and in order": {
    ...polling,
    run: everyPollResponseLost,
  },
  "a message that the browser repeats after a lost response is processed once": { ...polling, run: lostPostResponse },
};
