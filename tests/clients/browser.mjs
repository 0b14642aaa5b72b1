// Three browser tabs on the development page: alice twice, bob once. argv[1]: {"url","operator","screenshots"} with a server
// in development mode whose two inboxes are empty. One line for every step that passed, then
// {"kind":"passed","steps":n}; at the first failure {"kind":"failed","step","message"} and exit code 1.

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
  let seen;
  do {
    seen = await probe();
    if (JSON.stringify(seen) === JSON.stringify(wanted)) return;
    await new Promise((resume) => setTimeout(resume, 50));
  } while (performance.now() < end);
  throw new Error(`${what}: expected ${JSON.stringify(wanted)}, saw ${JSON.stringify(seen)}`);
}

/** One tab in a context of its own, so that it can be taken offline alone, and everything that went
 *  wrong in it. */
class Tab {
  complaints = [];
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
    const atHome = (address) => {
      const { protocol, host } = new URL(address);
      if (protocol !== "data:" && host !== origin) complain(`request to another origin: ${address}`);
    };
    this.page.on("request", (request) => atHome(request.url()));
    this.page.on("websocket", (socket) => {
      this.webSockets += 1;
      atHome(socket.url());
    });
  }

  hook(id) {
    return this.page.getByTestId(id);
  }

  item(title) {
    const heading = this.page.locator(".item-title-text").getByText(title, { exact: true });
    return this.hook("item").filter({ has: heading });
  }

  // The connection as the page says it, so that a tab which only looks connected fails.
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

  /** Lets errors pass that a step causes on purpose. */
  async excusing(pattern, work) {
    this.excused = pattern;
    try {
      await work();
    } finally {
      this.excused = null;
    }
  }

  async shoot(file) {
    if (screenshots) await this.page.screenshot({ path: join(screenshots, `${file}.png`) });
  }
}

const both = (tabs, work) => Promise.all(tabs.map(work));

function scenario({ one, two, bob }) {
  const alices = [one, two];
  const all = [one, two, bob];
  return {
    "all three tabs connect, over a websocket": async () => {
      await both(all, (tab) => tab.state("connected"));
      await both(all, (tab) => until(`${tab.name}: a websocket`, () => tab.webSockets > 0));
    },

    "both inboxes are empty at first": () =>
      both(all, async (tab) => {
        await tab.badge(0);
        await tab.items(0);
      }),

    "what bob sends to alice reaches both her tabs": async () => {
      await bob.send("alice", "Lunch?", { message: "At noon, at the usual place.", link: "/lunch" });
      await both(alices, async (tab) => {
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
      await both(alices, async (tab) => {
        await Promise.all([tab.toasts(HOSTILE), tab.has(HOSTILE)]);
        await until(`${tab.name}: img elements`, () => tab.page.locator("img").count(), 0);
        await until(`${tab.name}: b elements`, () => tab.page.locator("b").count(), 0);
      });
    },

    "the second notification makes it two": () => both(alices, (tab) => tab.badge(2)),

    "one read in the first tab is read in the second": async () => {
      await one.item("Lunch?").getByTestId("mark-read").click();
      await both(alices, async (tab) => {
        await tab.badge(1);
        await tab.isRead("Lunch?", true);
        await tab.isRead(HOSTILE, false);
      });
    },

    "all read in the second tab are read in the first": async () => {
      await one.shoot("light");
      await two.hook("mark-all-read").click();
      await both(alices, async (tab) => {
        await tab.badge(0);
        await tab.isRead(HOSTILE, true);
      });
    },

    "deleted in the first tab, it leaves the second": async () => {
      await one.item(HOSTILE).getByTestId("delete").click();
      await both(alices, (tab) => tab.has(HOSTILE, 0));
      await both(alices, (tab) => tab.has("Lunch?"));
    },

    "a reload keeps the list": async () => {
      await one.page.reload();
      await one.state("connected");
      await one.items(1);
      await one.isRead("Lunch?", true);
      await one.badge(0);
    },

    "what was sent while a tab was offline arrives when it is back, once": () =>
      two.excusing(/ERR_INTERNET_DISCONNECTED|WebSocket connection to/, async () => {
        await two.context.setOffline(true);
        await until("second: has noticed", async () => (await two.hook("state").textContent()) !== "connected");
        await bob.send("alice", "While you were out", { message: "I called." });
        await bob.send("alice", "And again");
        await one.has("And again");
        await two.has("While you were out", 0);
        await two.context.setOffline(false);
        await two.state("connected");
        await both(alices, async (tab) => {
          await Promise.all([tab.has("While you were out"), tab.has("And again"), tab.badge(2)]);
          await tab.items(3);
        });
      }),

    "the unread filter hides what was read": async () => {
      await two.hook("unread-only").check();
      await two.items(2);
      await two.has("Lunch?", 0);
      await two.item("And again").getByTestId("mark-read").click();
      await two.items(1);
      await two.hook("unread-only").uncheck();
      await two.items(3);
      await both(alices, (tab) => tab.badge(1));
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

    "what the server refuses is said": () =>
      // Chromium writes every answer of 400 and above to the console.
      bob.excusing(/status of 4\d\d/, async () => {
        await bob.send("alice", "A trap", { link: "javascript:alert(3)" });
        const outcome = () => bob.hook("send-outcome").getAttribute("data-kind");
        await until("bob: the outcome of sending", outcome, "failed");
        await until("bob: has words for it", async () => (await bob.hook("send-outcome").textContent()) !== "");
        await both(alices, (tab) => tab.has("A trap", 0));
      }),

    "it fits a narrow screen, light and dark": async () => {
      for (const [colorScheme, width] of [["dark", 1180], ["light", 360], ["dark", 360]]) {
        await one.page.emulateMedia({ colorScheme });
        await one.page.setViewportSize({ width, height: 800 });
        const overflow = () => one.page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
        await until(`first: scrolls sideways at ${width} px`, overflow, false);
        await one.shoot(`${colorScheme}-${width}`);
      }
    },

    "an erased user's tabs are empty, and what is sent later arrives": async () => {
      const headers = { authorization: `Bearer ${operator}` };
      const { status } = await fetch(new URL("v1/users/alice", url), { method: "DELETE", headers });
      if (status !== 204) throw new Error(`the erasure was answered with ${status}`);
      await both(alices, (tab) => Promise.all([tab.items(0), tab.badge(0)]));
      await bob.send("alice", "A new beginning");
      await both(alices, (tab) => Promise.all([tab.has("A new beginning"), tab.badge(1)]));
    },

    // As a service in forward mode may send it.
    "a notification without a valid date is drawn, and without a link that runs a script": async () => {
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
      await until("bob: no dates", visible("time"), 0);
      await until("bob: no links", visible(".item-link"), 0);
      await bob.page.unroute(list);
    },

    "nothing went wrong on the way": async () => {
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
    for (const [name, tab] of Object.entries(tabs)) await tab.shoot(`failed-${name}`).catch(() => {});
    // What a tab complained of is often the reason why something did not show up in time.
    const complaints = Object.values(tabs).flatMap((tab) => tab.complaints);
    report("failed", { step, message: error.message, complaints });
    process.stderr.write(`browser: ${step}: ${error.message}\n${complaints.join("\n")}\n`);
    process.exitCode = 1;
  } finally {
    await browser.close();
  }
}

await main();
