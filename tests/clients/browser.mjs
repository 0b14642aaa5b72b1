// Three browser tabs on the development page of a server: two of alice and one of bob. README.md describes the config
// and the output. "operator" in the config is a token that may erase users.

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { chromium } from "playwright-core";

const FLAGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];
const PATIENCE_MS = 15_000;
const HOSTILE = "<img src=x onerror=alert(1)>";

const { url, operator, screenshots = null } = JSON.parse(process.argv[2]);
const origin = new URL(url).host;
const started = performance.now();

function report(kind, fields) {
  const at = Math.round(performance.now() - started);
  process.stdout.write(`${JSON.stringify({ at, kind, ...fields })}\n`);
}

/** Waits until `probe` returns `wanted`; the error contains its last result. */
async function until(what, probe, wanted = true) {
  const end = performance.now() + PATIENCE_MS;
  let last;
  do {
    last = await probe();
    if (JSON.stringify(last) === JSON.stringify(wanted)) return;
    await new Promise((resume) => setTimeout(resume, 50));
  } while (performance.now() < end);
  throw new Error(`${what}: expected ${JSON.stringify(wanted)}, got ${JSON.stringify(last)}`);
}

/** One tab, in a browser context of its own, so that it can be taken offline alone. */
class Tab {
  /** Descriptions of everything that went wrong in the tab. */
  complaints = [];
  /** A pattern of console errors that the current step causes on purpose. */
  excused = null;
  webSockets = 0;

  static async open(browser, name, user) {
    const tab = new Tab();
    tab.name = name;
    tab.context = await browser.newContext({ viewport: { width: 1180, height: 800 }, colorScheme: "light" });
    tab.page = await tab.context.newPage();
    tab.page.setDefaultTimeout(PATIENCE_MS);
    tab.watch();
    await tab.page.goto(new URL(`?user=${user}`, url).href);
    return tab;
  }

  watch() {
    const complain = (what) => this.complaints.push(`${this.name}: ${what}`);
    this.page.on("pageerror", (error) => complain(`page error: ${error.message}`));
    this.page.on("console", (message) => {
      const text = `${message.text()} ${message.location().url ?? ""}`;
      if (message.type() === "error" && !this.excused?.test(text)) complain(`console: ${text}`);
    });
    this.page.on("dialog", (dialog) => {
      complain(`dialog: ${dialog.message()}`);
      dialog.dismiss();
    });
    const checkOrigin = (address) => {
      const { protocol, host } = new URL(address);
      if (protocol !== "data:" && host !== origin) complain(`request to another origin: ${address}`);
    };
    this.page.on("request", (request) => checkOrigin(request.url()));
    this.page.on("websocket", (socket) => {
      this.webSockets += 1;
      checkOrigin(socket.url());
    });
  }

  /** The element with this `data-testid`. */
  hook(id) {
    return this.page.getByTestId(id);
  }

  item(title) {
    const heading = this.page.locator(".item-title-text").getByText(title, { exact: true });
    return this.hook("item").filter({ has: heading });
  }

  // Each of the following methods waits until the page shows the wanted value.

  /** The state of the connection. */
  state(wanted) {
    return until(`${this.name}: state`, () => this.hook("state").textContent(), wanted);
  }

  badge(wanted) {
    const probe = async () => ((await this.hook("badge").isVisible()) ? Number(await this.hook("badge").textContent()) : 0);
    return until(`${this.name}: badge`, probe, wanted);
  }

  items(wanted) {
    return until(`${this.name}: number of items`, () => this.hook("item").count(), wanted);
  }

  has(title, wanted = 1) {
    return until(`${this.name}: items with the title “${title}”`, () => this.item(title).count(), wanted);
  }

  isRead(title, wanted) {
    const probe = () => this.item(title).getAttribute("data-read");
    return until(`${this.name}: “${title}” is read`, probe, String(wanted));
  }

  async toasts(title) {
    const toast = this.page.locator("[role=status] [data-testid=toast]").filter({ hasText: title });
    await until(`${this.name}: a toast “${title}”`, () => toast.count(), 1);
  }

  async send(to, title, { message = "", link = "" } = {}) {
    await this.hook("send-to").selectOption(to);
    await this.hook("send-title").fill(title);
    await this.hook("send-message").fill(message);
    await this.hook("send-link").fill(link);
    await this.hook("send").click();
  }

  /** Runs `work`, and meanwhile ignores console errors that match the pattern. */
  async excusing(pattern, work) {
    this.excused = pattern;
    try {
      await work();
    } finally {
      this.excused = null;
    }
  }

  async takeScreenshot(file) {
    if (screenshots) await this.page.screenshot({ path: join(screenshots, `${file}.png`) });
  }
}

const each = (tabs, work) => Promise.all(tabs.map(work));

function scenario({ one, two, bob }) {
  const alices = [one, two];
  const all = [one, two, bob];
  return {
    "all three tabs connect, over a websocket": async () => {
      await each(all, (tab) => tab.state("connected"));
      await each(all, (tab) => until(`${tab.name}: a websocket`, () => tab.webSockets > 0));
    },

    "both inboxes are empty at first": () =>
      each(all, async (tab) => {
        await tab.badge(0);
        await tab.items(0);
      }),

    "a notification from bob to alice reaches both of her tabs": async () => {
      await bob.send("alice", "Lunch?", { message: "At noon, at the usual place.", link: "/lunch" });
      await each(alices, async (tab) => {
        await Promise.all([tab.toasts("Lunch?"), tab.badge(1), tab.has("Lunch?")]);
        await tab.isRead("Lunch?", false);
      });
    },

    "bob himself gets no notification": async () => {
      await bob.badge(0);
      await bob.items(0);
    },

    "markup in a title is text": async () => {
      await bob.send("alice", HOSTILE, { message: "<b onclick=alert(2)>bold</b>" });
      await each(alices, async (tab) => {
        await Promise.all([tab.toasts(HOSTILE), tab.has(HOSTILE)]);
        await until(`${tab.name}: img elements`, () => tab.page.locator("img").count(), 0);
        await until(`${tab.name}: b elements`, () => tab.page.locator("b").count(), 0);
      });
    },

    "the badge shows two after the second notification": () => each(alices, (tab) => tab.badge(2)),

    "a notification that is read in the first tab is read in the second": async () => {
      await one.item("Lunch?").getByTestId("mark-read").click();
      await each(alices, async (tab) => {
        await tab.badge(1);
        await tab.isRead("Lunch?", true);
        await tab.isRead(HOSTILE, false);
      });
    },

    "notifications that are all marked as read in the second tab are read in the first": async () => {
      await one.takeScreenshot("light");
      await two.hook("mark-all-read").click();
      await each(alices, async (tab) => {
        await tab.badge(0);
        await tab.isRead(HOSTILE, true);
      });
    },

    "a notification that is deleted in the first tab disappears from the second": async () => {
      await one.item(HOSTILE).getByTestId("delete").click();
      await each(alices, (tab) => tab.has(HOSTILE, 0));
      await each(alices, (tab) => tab.has("Lunch?"));
    },

    "a reload keeps the list": async () => {
      await one.page.reload();
      await one.state("connected");
      await one.items(1);
      await one.isRead("Lunch?", true);
      await one.badge(0);
    },

    "a notification that was sent while a tab was offline arrives once when the tab is online again": () =>
      two.excusing(/ERR_INTERNET_DISCONNECTED|WebSocket connection to/, async () => {
        await two.context.setOffline(true);
        const isDisconnected = async () => (await two.hook("state").textContent()) !== "connected";
        await until("alice's second tab: it is disconnected", isDisconnected);
        await bob.send("alice", "While you were out", { message: "I called." });
        await bob.send("alice", "And again");
        await one.has("And again");
        await two.has("While you were out", 0);
        await two.context.setOffline(false);
        await two.state("connected");
        await each(alices, async (tab) => {
          await Promise.all([tab.has("While you were out"), tab.has("And again"), tab.badge(2)]);
          await tab.items(3);
        });
      }),

    "the unread filter hides read notifications": async () => {
      await two.hook("unread-only").check();
      await two.items(2);
      await two.has("Lunch?", 0);
      await two.item("And again").getByTestId("mark-read").click();
      await two.items(1);
      await two.hook("unread-only").uncheck();
      await two.items(3);
      await each(alices, (tab) => tab.badge(1));
    },

    "another user in the same tab sees only their own": async () => {
      await bob.hook("user-alice").click();
      await bob.state("connected");
      await bob.items(3);
      await bob.badge(1);
      await bob.hook("user-bob").click();
      await bob.state("connected");
      await bob.items(0);
      await bob.badge(0);
    },

    "the sender sees that the server has rejected a notification": () =>
      // Chromium logs each response with a status of 400 or above as an error.
      bob.excusing(/status of 4\d\d/, async () => {
        await bob.send("alice", "A trap", { link: "javascript:alert(3)" });
        const outcome = () => bob.hook("send-outcome").getAttribute("data-kind");
        await until("bob's tab: the outcome of sending", outcome, "failed");
        const hasText = async () => (await bob.hook("send-outcome").textContent()) !== "";
        await until("bob's tab: the outcome has a text", hasText);
        await each(alices, (tab) => tab.has("A trap", 0));
      }),

    "the page fits a narrow screen, light and dark": async () => {
      for (const [colorScheme, width] of [["dark", 1180], ["light", 360], ["dark", 360]]) {
        await one.page.emulateMedia({ colorScheme });
        await one.page.setViewportSize({ width, height: 800 });
        const overflow = () => one.page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
        await until(`alice's first tab: it scrolls sideways at ${width} px`, overflow, false);
        await one.takeScreenshot(`${colorScheme}-${width}`);
      }
    },

    "the tabs of an erased user are empty, and a later notification arrives": async () => {
      const headers = { authorization: `Bearer ${operator}` };
      const { status } = await fetch(new URL("v1/users/alice", url), { method: "DELETE", headers });
      if (status !== 204) throw new Error(`the erasure was answered with ${status}`);
      await each(alices, (tab) => Promise.all([tab.items(0), tab.badge(0)]));
      await bob.send("alice", "A new beginning");
      await each(alices, (tab) => Promise.all([tab.has("A new beginning"), tab.badge(1)]));
    },

    // In forward mode a service may send such notifications.
    "a notification with an invalid date and a script as its link is shown without date and link": async () => {
      const list = /v1\/notifications\?/;
      await bob.page.route(list, async (route) => {
        const response = await route.fetch();
        const page = await response.json();
        const odd = { userId: "bob", type: "odd", isRead: false, revision: 1, link: "javascript:alert(4)" };
        const dates = ["tomorrow at tea time", "", null, undefined, {}, "2026-02-30T99:00:00Z"];
        page.items = dates.map((createdAt, n) => ({ ...odd, id: `odd-${n}`, title: `Odd ${n}`, createdAt }));
        await route.fulfill({ response, json: page });
      });
      await bob.page.reload();
      await bob.state("connected");
      await bob.items(6);
      await bob.has("Odd 5");
      const visible = (what) => () => bob.page.locator(`.item ${what}:visible`).count();
      await until("bob's tab: number of dates", visible("time"), 0);
      await until("bob's tab: number of links", visible(".item-link"), 0);
      await bob.page.unroute(list);
    },

    "no tab has had an error": async () => {
      const complaints = all.flatMap((tab) => tab.complaints);
      if (complaints.length > 0) throw new Error(complaints.join("\n"));
    },
  };
}

async function main() {
  if (screenshots) mkdirSync(screenshots, { recursive: true });
  const executablePath = process.env.BELFRY_CHROMIUM ?? "/usr/bin/chromium";
  const browser = await chromium.launch({ executablePath, args: FLAGS });
  let step = "the page opens";
  let tabs = {};
  let passed = 0;
  try {
    tabs = {
      one: await Tab.open(browser, "alice's first tab", "alice"),
      two: await Tab.open(browser, "alice's second tab", "alice"),
      bob: await Tab.open(browser, "bob's tab", "bob"),
    };
    for (const [name, work] of Object.entries(scenario(tabs))) {
      step = name;
      await work();
      report("step", { step });
      passed += 1;
    }
    report("passed", { steps: passed });
  } catch (error) {
    for (const [name, tab] of Object.entries(tabs)) await tab.takeScreenshot(`failed-${name}`).catch(() => {});
    // The complaints of a tab often explain why a step has timed out.
    const complaints = Object.values(tabs).flatMap((tab) => tab.complaints);
    report("failed", { step, message: error.message, complaints });
    process.stderr.write(`browser: ${step}: ${error.message}\n${complaints.join("\n")}\n`);
    process.exitCode = 1;
  } finally {
    await browser.close();
  }
}

await main();
