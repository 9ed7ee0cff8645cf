// Copies the pages to dist/; what they refer to gets the hash of its content into its name and may be cached for ever.
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { extname, join } from "node:path";

const [from, to] = ["pages", "dist"];
const files = readdirSync(from).sort();
const names = new Map();

mkdirSync(join(to, "assets"), { recursive: true });
for (const file of files.filter((file) => extname(file) !== ".html")) {
  const content = readFileSync(join(from, file));
  const hash = createHash("sha256").update(content).digest("hex").slice(0, 8);
  names.set(file, `assets/${hash}-${file}`);
  writeFileSync(join(to, names.get(file)), content);
}
for (const file of files.filter((file) => extname(file) === ".html")) {
  const page = readFileSync(join(from, file), "utf8");
  writeFileSync(join(to, file), page.replace(/(href|src)="([^"]+)"/g, (whole, attribute, name) =>
    names.has(name) ? `${attribute}="/${names.get(name)}"` : whole));
}
