const TOKEN = new URL("/playground/token", window.location.origin).href

/** Tokens are valid for 15 minutes. */
const FRESH_MS = 10 * 60_000

/** The header of the demo ADMIN as the playground opened with it, and the newest one. */
let login: { opened: string; newest: string; at: number } | undefined

/** What stands in the headers of every tab, where the service is in development and has a demo ADMIN. */
export async function openingHeaders(): Promise<string | undefined> {
  const authorization = await fetchAuthorization()
  if (authorization === undefined) return undefined
  login = { opened: authorization, newest: authorization, at: Date.now() }
  return JSON.stringify({ authorization }, null, 2)
}

/** The headers as they stand there, with a fresh token in place of the one the playground opened with. */
export async function fresh(headers: Record<string, string> = {}): Promise<Record<string, string>> {
  if (login === undefined || headers.authorization !== login.opened) return headers
  if (Date.now() - login.at > FRESH_MS) {
    const newest = await fetchAuthorization()
    if (newest !== undefined) login = { ...login, newest, at: Date.now() }
  }
  return { ...headers, authorization: login.newest }
}

async function fetchAuthorization(): Promise<string | undefined> {
  const response = await fetch(TOKEN).catch(() => undefined)
  if (response?.status !== 200) return undefined
  const { authorization } = (await response.json()) as { authorization: string }
  return authorization
}
