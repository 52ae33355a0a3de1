import type { ReactNode } from "react"

/** A page with nothing but a sentence or two: loading, or why there is no playground. */
export function Notice({ busy = false, children }: { busy?: boolean; children: ReactNode }) {
  return (
    <main className="notice" aria-busy={busy}>
      <p>{children}</p>
    </main>
  )
}

/** The service that sent this page does not answer, or sent a playground that does not load. */
export function Unreachable({ reason, onRetry }: { reason: unknown; onRetry: () => void }) {
  return (
    <main className="notice" role="alert">
      <h1>The playground could not start</h1>
      <p>{reason instanceof Error ? reason.message : String(reason)}</p>
      <button type="button" onClick={onRetry}>
        Try again
      </button>
    </main>
  )
}
