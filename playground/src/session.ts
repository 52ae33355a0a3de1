export interface Tab {
  query: string
  variables?: string
}

const operations = import.meta.glob<string>("../operations/*/*.graphql", {
  query: "?raw",
  import: "default",
  eager: true,
})
const variables = import.meta.glob<string>("../operations/*/*.json", { query: "?raw", import: "default", eager: true })

/** The tabs a service opens with: the files of its folder in `operations/`, in the order of their names. */
export function session(service: string): Tab[] {
  return Object.keys(operations)
    .filter((path) => path.startsWith(`../operations/${service}/`))
    .sort()
    .map((path) => ({
      query: operations[path]!.trimEnd(),
      variables: variables[path.replace(/graphql$/, "json")]?.trimEnd(),
    }))
}
