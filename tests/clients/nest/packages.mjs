// Imports packages for one version of NestJS. The packages for versions 10 and 11 are in the folders here, those for
// version 12 in tests/clients.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

export async function nest(version, ...names) {
  const folder = version === 12 ? "../" : `./${version}/`;
  const require = createRequire(new URL(`${folder}package.json`, import.meta.url));
  return Promise.all(
    names.map(async (name) => {
      const module = await import(pathToFileURL(require.resolve(name)));
      // The packages of NestJS 12 are ES modules. Others may be CommonJS modules, whose exports are in `default`.
      return module.default ?? module;
    }),
  );
}
