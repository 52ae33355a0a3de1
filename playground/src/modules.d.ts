// What is used here of Monaco's modules that come without types.

declare module "monaco-editor/esm/vs/editor/editor.worker.js" {
  import type { worker } from "monaco-editor"
  import type { ICreateData } from "monaco-graphql/esm/typings"
  type Create = (context: worker.IWorkerContext, config: ICreateData) => object
  export function initialize(create: Create | null): void
}

declare module "monaco-editor/esm/vs/*"
