#!/usr/bin/env node
// Makes a browser of the archives that `./run setup chromium` fetched: the program, and the libraries that a plain Debian
// does not have. Promises: what is there and of the same archives is left as it is; nothing is half made.
//
//     node scripts/browser.mjs FOLDER

import { execFileSync } from "node:child_process";
import { createReadStream, createWriteStream, existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { createBrotliDecompress } from "node:zlib";

const folder = process.argv[2];
if (!folder || !existsSync(join(folder, "chromium.br"))) {
  console.error("browser: there is no chromium.br in the folder that is named. Next: ./run setup chromium");
  process.exit(1);
}
const archives = ["chromium.br", "libraries.tar.br"];
const stamp = archives.map(name => `${name} ${statSync(join(folder, name)).size}`).join("\n");
const stamped = join(folder, "unpacked.txt");
if (!existsSync(stamped) || readFileSync(stamped, "utf8") !== stamp) {
  rmSync(stamped, { force: true });
  const unpack = (name, target) => pipeline(createReadStream(join(folder, name)), createBrotliDecompress(), createWriteStream(target, { mode: 0o755 }));
  const [program, libraries] = [join(folder, "chrome.new"), join(folder, "libraries.tar")];
  await unpack("chromium.br", program);
  await unpack("libraries.tar.br", libraries);
  mkdirSync(join(folder, "lib"), { recursive: true });
  execFileSync("tar", ["--extract", "--no-same-owner", "--strip-components=1", "--file", libraries, "--directory", join(folder, "lib")]);
  rmSync(libraries);
  renameSync(program, join(folder, "chrome"));
  writeFileSync(stamped, stamp);
}
