import type { Environment } from "monaco-editor"
import MonacoWorker from "./monaco.worker?worker"

// One script serves all of Monaco's workers, told apart by name: three would carry its core three times.
const environment: Environment = { getWorker: (_id, label) => new MonacoWorker({ name: label }) }

Object.assign(globalThis, { MonacoEnvironment: environment })
