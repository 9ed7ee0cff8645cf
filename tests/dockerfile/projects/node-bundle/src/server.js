const ms = require("ms");
require("http").createServer((_, answer) => answer.end(ms(1000))).listen(8080);
