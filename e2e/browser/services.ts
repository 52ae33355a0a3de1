/** What the browser tests expect of each service's playground. */
export interface Service {
  name: string
  title: string
  /** Its base URL, as in `http://127.0.0.1:8000`. */
  url: string
  /** The tabs a newcomer finds, in order. */
  tabs: string[]
  /** What the second tab's variables have in them. */
  variable: string
  /** A query that reads only, and answers on an empty database too, to an ADMIN. */
  query: string
}

export const services: Service[] = [
  {
    name: "inventory",
    title: "Inventory",
    url: required("INVENTORY_URL"),
    tabs: ["Products", "CreateProduct", "AdjustStock", "History"],
    variable: '"input"',
    query: "{ products(first: 2) { edges { node { id name } } } }",
  },
  {
    name: "orders",
    title: "Orders",
    url: required("ORDERS_URL"),
    tabs: ["Quote", "CreateOrder", "Order", "Orders"],
    variable: '"input"',
    query: "{ orders(first: 2) { edges { node { id status } } } }",
  },
  {
    name: "users",
    title: "Users",
    url: required("USERS_URL"),
    tabs: ["Me", "Login", "Users", "AccountChanges"],
    variable: '"email"',
    query: "{ users(first: 2) { edges { node { id email } } } }",
  },
]

function required(variable: string): string {
  const value = process.env[variable]
  if (!value) throw new Error(`${variable} is not set: it names the service under test, as in http://127.0.0.1:8000`)
  return value
}
