// Checks the default tabs against the committed schemas: what a newcomer runs first must be valid.
// A folder of operations/ is named after its service; variables stand in a .json beside the operation.
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { basename, join } from "node:path"
import { buildSchema, getOperationAST, getVariableValues, parse, validate } from "graphql"

const operations = join(import.meta.dirname, "operations")
const repository = join(import.meta.dirname, "..")
let problems = 0

for (const service of readdirSync(operations)) {
  const folder = join(operations, service)
  const schemaFile = `ms-${service}/schema.graphql`
  const files = readdirSync(folder).filter((file) => file.endsWith(".graphql"))
  if (!existsSync(join(repository, schemaFile))) {
    console.warn(`SKIPPED: ${files.length} operations of ${service}, because there is no ${schemaFile} yet`)
    continue
  }
  const schema = buildSchema(readFileSync(join(repository, schemaFile), "utf8"))
  for (const file of files) {
    const errors = check(schema, join(folder, file))
    problems += errors.length
    for (const error of errors) console.error(`${service}/${file}: ${error.message}`)
  }
  console.log(`checked: ${files.length} operations against ${schemaFile}`)
}

process.exitCode = problems > 0 ? 1 : 0

/** The errors of one operation and of the variables it opens with. */
function check(schema, path) {
  const document = parse(readFileSync(path, "utf8"))
  const errors = validate(schema, document)
  if (errors.length > 0) return errors
  const variablesFile = join(path, "..", `${basename(path, ".graphql")}.json`)
  const variables = existsSync(variablesFile) ? JSON.parse(readFileSync(variablesFile, "utf8")) : {}
  return getVariableValues(schema, getOperationAST(document).variableDefinitions ?? [], variables).errors ?? []
}
