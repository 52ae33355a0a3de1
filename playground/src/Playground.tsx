import { useGraphiQL, useGraphiQLActions } from "@graphiql/react"
import { createLocalStorage } from "@graphiql/toolkit"
import { GraphiQL } from "graphiql"
import { useEffect, useMemo } from "react"
import { fresh } from "./demo"
import { post } from "./server"
import type { Service } from "./service"

/** GraphiQL, talking to the service that served it and opening with that service's session and, in development, signed in. */
export function Playground({ service, headers }: { service: Service; headers: string | undefined }) {
  // A port may serve one service today and the other tomorrow: their tabs are remembered apart.
  const storage = useMemo(() => createLocalStorage({ namespace: service.name }), [service.name])
  return (
    <GraphiQL
      fetcher={async (operation, options) => post(operation, await fresh(options?.headers))}
      defaultHeaders={headers}
      defaultTabs={service.tabs}
      defaultEditorToolsVisibility="variables"
      storage={storage}
    >
      <GraphiQL.Logo>
        <span className="service">{service.title}</span>
      </GraphiQL.Logo>
      <FollowSystemTheme />
    </GraphiQL>
  )
}

/** GraphiQL's own colours follow the system at once; its editors only when told. */
function FollowSystemTheme() {
  const { setTheme } = useGraphiQLActions()
  const theme = useGraphiQL((state) => state.theme)
  useEffect(() => {
    if (theme !== null) return
    const system = window.matchMedia("(prefers-color-scheme: dark)")
    const follow = () => setTheme(null)
    system.addEventListener("change", follow)
    return () => system.removeEventListener("change", follow)
  }, [theme, setTheme])
  return null
}
