// Many devices at once, each with its own socket.io-client 4. The config, the only argument, is
// {"url","secret","prefix","users","devicesPerUser","transport","expected","replay"}. With the prefix "ada", the users
// are "ada-0", "ada-1", …
//
// With "replay":true, the devices connect as if they had missed the user's whole inbox. Otherwise one notification is
// created for each user when all devices are connected. The script ends when each device has received "expected"
// notifications, or after a time limit. It writes {"devices","complete","received","disconnects"}. "complete" is the
// number of devices that have received all notifications, "received" the number of notifications on all devices.

import { io } from "socket.io-client";
import { Fixture } from "./networks/fixture.mjs";

const TIME_LIMIT_MS = 210_000;
// More would not fit into the backlog of the server's listening socket.
const CONNECTING_AT_ONCE = 50;

const config = JSON.parse(process.argv[2]);
const { url, prefix, users, devicesPerUser, transport, expected, replay = false } = config;
const fixture = new Fixture({ ...config, client: "4" });
let disconnects = 0;

class FleetDevice {
  #ids = new Set();
  #resumePoint;

  constructor(user, resumePoint = {}) {
    this.#resumePoint = resumePoint;
    const auth = (answer) => answer({ token: fixture.token(user), ...this.#resumePoint });
    this.socket = io(url, { transports: [transport], forceNew: true, autoConnect: false, auth });
    this.socket.on("disconnect", () => (disconnects += 1));
    this.complete = new Promise((resolve) => {
      this.socket.on("notification:new", ({ id, revision }) => {
        this.#ids.add(id);
        if (replay) this.#resumePoint = { ...this.#resumePoint, since: revision };
        if (this.#ids.size === expected) resolve();
      });
    });
  }

  get received() {
    return this.#ids.size;
  }

  /** Connects. Resolves with the payload of the first `notification:sync`. */
  connect() {
    this.socket.connect();
    return new Promise((resolve) => this.socket.once("notification:sync", resolve));
  }
}

/** A resume point before the first change of any user's inbox. */
async function initialResumePoint() {
  const device = new FleetDevice(`${prefix}-0`);
  const { epoch } = await device.connect();
  device.socket.disconnect();
  return { since: 0, epoch };
}

async function connectAll(devices) {
  const waiting = devices.values();
  const worker = async () => {
    for (const device of waiting) await device.connect();
  };
  await Promise.all(Array.from({ length: CONNECTING_AT_ONCE }, worker));
}

const userNames = Array.from({ length: users }, (_, n) => `${prefix}-${n}`);
const resumePoint = replay ? await initialResumePoint() : {};
disconnects = 0;
const devices = userNames.flatMap((user) =>
  Array.from({ length: devicesPerUser }, () => new FleetDevice(user, resumePoint)),
);
const work = async () => {
  await connectAll(devices);
  if (!replay) for (const user of userNames) await fixture.notify(user, `for-${user}`);
  await Promise.all(devices.map(({ complete }) => complete));
};
const limit = new Promise((resolve) => setTimeout(resolve, TIME_LIMIT_MS));
await Promise.race([work(), limit]);

const received = devices.reduce((sum, device) => sum + device.received, 0);
const complete = devices.filter((device) => device.received === expected).length;
console.log(JSON.stringify({ devices: devices.length, complete, received, disconnects }));
process.exit(0);
