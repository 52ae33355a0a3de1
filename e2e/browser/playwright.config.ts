import { defineConfig } from "@playwright/test"
import { services } from "./services"

const hosts = services.map((service) => new URL(service.url).hostname)

/** A page has this long to do what a test waits for; it usually takes under a second. */
const DEADLINE_MS = 30_000

export default defineConfig({
  testDir: ".",
  outputDir: "test-results",
  reporter: "line",
  forbidOnly: true,
  // One browser at a time: it shares two cores with the services under test.
  workers: 1,
  timeout: 2 * DEADLINE_MS,
  expect: { timeout: DEADLINE_MS },
  use: {
    actionTimeout: DEADLINE_MS,
    navigationTimeout: DEADLINE_MS,
    screenshot: "only-on-failure",
    launchOptions: {
      // The system's browser: nothing is downloaded to run the tests.
      executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
      args: [
        "--no-sandbox", // the tests may run as root
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        // There is no internet in these tests, whatever the machine has.
        `--host-resolver-rules=${["MAP * ~NOTFOUND", ...hosts.map((host) => `EXCLUDE ${host}`)].join(", ")}`,
      ],
    },
  },
})
