/** What the browser tests expect of each service's playground. */
export interface Service {
  name: string
  title: string
  /** Its base URL, as in `http://127.0.0.1:8000`. */
  url: string
  /** The tabs a newcomer finds, in order. */
  tabs: string[]
  /** A query that reads only, and answers on an empty database too. */
  query: string
}

export const services: Service[] = [
  {
    name: "inventory",
    title: "Inventory",
    url: required("INVENTORY_URL"),
    tabs: ["Products", "CreateProduct", "AdjustStock", "History"],
    query: "{ products(first: 2) { edges { node { id name } } } }",
  },
  {
    name: "orders",
    title: "Orders",
    url: required("ORDERS_URL"),
    tabs: ["Quote", "CreateOrder", "Order", "Orders"],
    query: "{ orders(first: 2) { edges { node { id status } } } }",
  },
]

function required(variable: string): string {
  const value = process.env[variable]
  if (!value) throw new Error(`${variable} is not set: it names the service under test, as in http://127.0.0.1:8000`)
  return value
}
