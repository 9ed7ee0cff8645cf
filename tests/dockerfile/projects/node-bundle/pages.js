const fs = require("fs");
const semver = require("semver");

for (const name of ["about", "index"]) {
  fs.writeFileSync(`${process.argv[2]}/${name}.html`, `<h1>${name} ${semver.inc("1.0.0", "minor")}</h1>\n`);
}
