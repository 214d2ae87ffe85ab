// A web server in a guest, with a timer; it tells what it has counted, and draws random values.
const { randomBytes, randomUUID } = require("node:crypto");
const { createServer } = require("node:http");

let ticks = 0;
let back = 0;
let last = performance.now();
setInterval(() => {
  ticks += 1;
  const now = performance.now();
  if (now < last) back += 1;
  last = now;
}, 50);
const draw = () => ({
  "randomUUID of Node.js": randomUUID(),
  "randomBytes of Node.js": randomBytes(8).toString("hex"),
  "Math.random of Node.js": Math.random(),
});
draw();
createServer({ keepAliveTimeout: 0, requestTimeout: 0, headersTimeout: 0 }, (request, reply) => {
  reply.end(JSON.stringify(request.url === "/draw" ? draw() : { ticks, back }));
}).listen(8081);
