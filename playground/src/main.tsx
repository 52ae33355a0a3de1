import { createRoot } from "react-dom/client"
import "./monaco"
import "./playground.css"
import { openingHeaders } from "./demo"
import { Notice, Unreachable } from "./Notice"
import { Playground } from "./Playground"
import { findService } from "./service"

const root = createRoot(document.getElementById("playground")!)

async function start() {
  root.render(<Notice busy>Loading the playground…</Notice>)
  try {
    // The editor is fetched while the server is asked, so the playground appears once and whole.
    const [service, headers] = await Promise.all([
      findService(),
      openingHeaders(),
      import("monaco-graphql/esm/monaco-editor.js"),
    ])
    document.title = `${service.title} · GraphQL playground`
    root.render(<Playground service={service} headers={headers} />)
  } catch (reason) {
    root.render(<Unreachable reason={reason} onRetry={start} />)
  }
}

void start()
