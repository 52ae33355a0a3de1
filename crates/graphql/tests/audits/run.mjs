// node run.mjs URL: runs the server audits of graphql-http, prints what fails, and exits 1 if anything does.
//
// Needs at the URL a schema with `type Query { __typename }`, which is every schema.

import { serverAudits } from "graphql-http";

const url = process.argv[2];
if (!url) {
  console.error("usage: node run.mjs URL");
  process.exit(2);
}

let passed = 0;
const audits = serverAudits({ url, fetchFn: fetch });
for (const audit of audits) {
  const result = await audit.fn();
  if (result.status === "ok") {
    passed += 1;
    continue;
  }
  const { status, statusText, headers } = result.response;
  const body = result.response.bodyUsed ? "" : await result.response.text();
  console.log(`${result.status}: ${result.name}: ${result.reason}`);
  console.log(`  answered ${status} ${statusText}, ${headers.get("content-type")}: ${body}`);
}
console.log(`${passed} of ${audits.length} audits passed`);
process.exit(passed === audits.length && audits.length >= 61 ? 0 : 1);
