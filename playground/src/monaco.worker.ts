import { initialize } from "monaco-editor/esm/vs/editor/editor.worker.js"
import { GraphQLWorker } from "monaco-graphql/esm/GraphQLWorker.js"
// It exports nothing and leaves its start in `onmessage`: last, so that no other module replaces that.
import "monaco-editor/esm/vs/language/json/json.worker.js"

const startJson = self.onmessage

self.onmessage = (message) => {
  if (self.name === "json") startJson?.call(self, message)
  else if (self.name === "graphql") initialize((context, config) => new GraphQLWorker(context, config))
  else initialize(null)
}
