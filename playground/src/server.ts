import type { FormattedExecutionResult } from "graphql"
import { getOperationAST, parse } from "graphql"

const ENDPOINT = new URL("/graphql", window.location.origin).href

/** Longer than the server's own time limit, so that its answer wins. */
const ANSWER_TIMEOUT_MS = 60_000

export interface Operation {
  query: string
  operationName?: string | null
  variables?: Record<string, unknown>
}

/** Posts one operation to the service this page came from; rejects with a sentence a person can act on. */
export async function post(
  operation: Operation,
  headers: Record<string, string> = {},
): Promise<FormattedExecutionResult> {
  const response = await fetch(ENDPOINT, {
    method: "POST",
    headers: { accept: "application/json", "content-type": "application/json", ...headers },
    body: JSON.stringify({ ...operation, operationName: nameIn(operation) }),
    signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS),
  }).catch(() => {
    throw new Error(`No answer from ${ENDPOINT}. Is the service still running?`)
  })
  return response.json().catch(() => {
    throw new Error(`${ENDPOINT} answered ${response.status} ${response.statusText}, which is no GraphQL answer.`)
  })
}

/** GraphiQL learns an operation's name a moment after the last key; a quick Ctrl-Enter would send the name before. */
function nameIn({ query, operationName }: Operation): string | undefined {
  try {
    return getOperationAST(parse(query), operationName)?.name?.value
  } catch {
    return undefined // The server says best what is wrong with the syntax.
  }
}
