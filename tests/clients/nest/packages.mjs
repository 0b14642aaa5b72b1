// Imports the packages of one version of NestJS: those of 10 and 11 are in the folders here, those of 12 in
// tests/clients.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

export async function nest(version, ...names) {
  const folder = version === 12 ? "../" : `./${version}/`;
  const require = createRequire(new URL(`${folder}package.json`, import.meta.url));
  return Promise.all(
    names.map(async (name) => {
      const module = await import(pathToFileURL(require.resolve(name)));
      // Only NestJS 12 consists of ES modules.
      return module.default ?? module;
    }),
  );
}
