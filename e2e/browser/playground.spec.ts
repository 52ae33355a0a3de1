import type { Page } from "@playwright/test"
import { expect, test as base } from "@playwright/test"
import { services } from "./services"

/** A page that must not speak to another host, nor complain. */
const test = base.extend<{ faults: string[] }>({
  faults: [
    async ({ page }, use) => {
      const faults: string[] = []
      const hosts = new Set(services.map((service) => new URL(service.url).host))
      page.on("request", (request) => {
        const { protocol, host } = new URL(request.url())
        if (protocol !== "data:" && protocol !== "blob:" && !hosts.has(host)) faults.push(`request to ${request.url()}`)
      })
      page.on("console", (message) => {
        if (message.type() === "error") faults.push(`console: ${message.text()} ${message.location().url}`)
      })
      page.on("pageerror", (error) => faults.push(`page: ${error.message}`))
      await use(faults)
      expect(faults).toEqual([])
    },
    { auto: true },
  ],
})

for (const { name, title, url, tabs, variable, query } of services) {
  test.describe(name, () => {
    test.beforeEach(async ({ page }) => {
      await page.goto(`${url}/graphql`)
      await expect(editor(page)).toBeVisible()
    })

    test("opens with the session of the README", async ({ page }) => {
      await expect(page).toHaveTitle(`${title} · GraphQL playground`)
      await expect(tabTitles(page)).toHaveText(tabs)
      await expect(editor(page)).toContainText(`query ${tabs[0]}`)
      await tabTitles(page).nth(1).click()
      await expect(editor(page)).toContainText(`mutation ${tabs[1]}`)
      await expect(page.getByRole("region", { name: "Variables" })).toContainText(variable)
    })

    test("opens signed in, and without the header nobody is", async ({ page }) => {
      await page.getByRole("button", { name: "Headers", exact: true }).click()
      const headers = page.getByRole("region", { name: "Headers" })
      await expect(headers).toContainText('"authorization": "Bearer ')
      await headers.locator(".graphiql-editor:not(.hidden) .view-lines").click()
      await page.keyboard.press("Control+A")
      await page.keyboard.press("Delete")
      await write(page, name === "inventory" ? "{ holds { nodes { status } } }" : query)
      await page.keyboard.press("Control+Enter")
      await expect.poll(() => result(page)).toContain('"code":"UNAUTHENTICATED"')
    })

    test("answers a typed query at the button and at Ctrl-Enter", async ({ page, request }) => {
      const headers = await (await request.get(`${url}/playground/token`)).json()
      const answer = await (await request.post(`${url}/graphql`, { data: { query }, headers })).json()
      expect(answer.errors).toBeUndefined()
      const shown = dense(JSON.stringify(answer))

      await write(page, query)
      await page.getByRole("button", { name: "Execute query" }).click()
      await expect.poll(() => result(page)).toBe(shown)

      await write(page, "{ __typename }")
      await page.keyboard.press("Control+Enter")
      await expect.poll(() => result(page)).toBe('{"data":{"__typename":"Query"}}')
    })

    test("knows the schema: completes a field and marks an unknown one", async ({ page }) => {
      const field = /\w+/.exec(query)![0]
      await write(page, "")
      await page.keyboard.type(`{ ${field.slice(0, 3)}`)
      await page.keyboard.press("Control+Space")
      await expect(page.locator(".suggest-widget")).toContainText(field)
      await page.keyboard.press("Escape")
      await write(page, "{ nonsense }")
      await expect(page.locator(".graphiql-query-editor .squiggly-error")).toBeVisible()
    })

    test("opens the documentation of the schema", async ({ page }) => {
      await page.getByRole("button", { name: "Show Documentation Explorer" }).click()
      const explorer = page.locator(".graphiql-doc-explorer")
      await explorer.getByRole("link", { name: "Query", exact: true }).click()
      await expect(explorer.locator(".graphiql-doc-explorer-title")).toHaveText("Query")
      await expect(explorer.locator(".graphiql-markdown-description").first()).toHaveText(/\w+/)
      await expect(explorer).toContainText(/\w+/.exec(query)![0])
    })
  })
}

test("says so when the service is gone, and starts once it is back", async ({ page, faults }) => {
  const { url, tabs } = services[0]!
  const endpoint = `${url}/graphql`
  await page.route(endpoint, (route) => (route.request().method() === "POST" ? route.abort() : route.continue()))
  await page.goto(endpoint)
  await expect(page.getByRole("alert")).toContainText(`No answer from ${endpoint}`)
  // The browser itself reports the request that was cut: the only complaint there may be.
  await expect.poll(() => faults.length).toBe(1)
  expect(faults.pop()).toContain("ERR_FAILED")

  await page.unroute(endpoint)
  await page.getByRole("button", { name: "Try again" }).click()
  await expect(tabTitles(page)).toHaveText(tabs)
})

function tabTitles(page: Page) {
  return page.locator("[id^=graphiql-session-tab-]")
}

/** The operation editor. */
function editor(page: Page) {
  return page.locator(".graphiql-query-editor .view-lines")
}

/** Replaces what is in the operation editor, as a person would: select all and paste over it. */
async function write(page: Page, text: string) {
  await editor(page).click()
  await page.keyboard.press("Control+A")
  await page.keyboard.press("Delete")
  await page.keyboard.insertText(text)
}

/** What the result pane shows, without the white space that lays it out. */
async function result(page: Page) {
  const lines = await page.locator(".graphiql-response .view-line").allTextContents()
  return dense(lines.join(""))
}

function dense(text: string) {
  return text.replace(/\s/g, "")
}
