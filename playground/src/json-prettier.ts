/**
 * The two Prettier plugins that GraphiQL formats variables and headers with, in one: Prettier's own carry a whole
 * JavaScript parser (half a megabyte), while GraphiQL already brings a formatter of JSON with comments.
 */
import { applyEdits, format } from "jsonc-parser"
import type { AstPath, Parser, Printer } from "prettier"

interface Text {
  text: string
}

const jsonc: Parser<Text> = {
  parse: (text) => ({ text: applyEdits(text, format(text, undefined, { insertSpaces: true, tabSize: 2 })).trim() }),
  astFormat: "formatted-json",
  locStart: () => 0,
  locEnd: ({ text }) => text.length,
}

const printer: Printer<Text> = { print: (path: AstPath<Text>) => path.node.text }

export const parsers = { jsonc }
export const printers = { "formatted-json": printer }
