import { defineConfig } from "vite"

export default defineConfig({
  base: "/playground/",
  // Every service binary carries the bundle: what is replaced here is most of what GraphiQL would never use.
  resolve: {
    alias: [
      { find: "monaco-editor/esm/vs/editor/edcore.main.js", replacement: "/src/editor.ts" },
      { find: /^.*\/(multiD|d)iffEditorWidget\.js$/, replacement: "/src/no-diff-editor.ts" },
      { find: "prettier/parser-babel", replacement: "/src/json-prettier.ts" },
      { find: "prettier/plugins/estree", replacement: "/src/json-prettier.ts" },
      // The former name of the same file, which would be bundled twice.
      { find: "prettier/parser-graphql", replacement: "prettier/plugins/graphql" },
    ],
  },
  // The editors do not offer Monaco's "Format Document" (Prettify does it), so its worker needs no formatter.
  worker: {
    plugins: () => [
      {
        name: "no-prettier",
        enforce: "pre",
        resolveId(id) {
          return id.startsWith("prettier/") ? this.resolve("/src/no-prettier.ts") : null
        },
      },
    ],
  },
  build: {
    target: "es2022",
    // Licences travel with the code: the binaries are handed on.
    license: { fileName: "licenses.md" },
    chunkSizeWarningLimit: 3000,
    rollupOptions: {
      onwarn(warning, warn) {
        // React's "use client" and "use no memo" mean nothing to a bundle that runs in the browser only.
        if (warning.code !== "MODULE_LEVEL_DIRECTIVE") warn(warning)
      },
    },
  },
})
