import type { Tab } from "./session"
import { session } from "./session"
import { post } from "./server"

export interface Service {
  /** Its folder in `operations/`, and the namespace of what the browser remembers. */
  name: string
  title: string
  tabs: Tab[]
}

/** All services serve the same files, so a service is recognised by a query field only it has. */
const KNOWN = [
  { field: "products", name: "inventory", title: "Inventory" },
  { field: "orders", name: "orders", title: "Orders" },
  { field: "users", name: "users", title: "Users" },
]

/** Asks the server which service it is. With introspection off it does not say, and gets a neutral tab. */
export async function findService(): Promise<Service> {
  const { data } = await post({ query: `{ __type(name: "Query") { fields { name } } }` })
  const type = data?.__type as { fields: { name: string }[] } | null | undefined
  const fields = new Set(type?.fields.map((field) => field.name))
  const known = KNOWN.find(({ field }) => fields.has(field))
  return known
    ? { name: known.name, title: known.title, tabs: session(known.name) }
    : { name: "service", title: "Service", tabs: [{ query: "query Hello {\n  __typename\n}\n" }] }
}
