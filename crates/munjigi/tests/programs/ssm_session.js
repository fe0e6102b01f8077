// A session taken up by `ssm-session` from npm, which AWS's users put into their own programs: arguments are URL and token,
// standard input is typed, output is printed.
const { ssm } = require("ssm-session");
const { WebSocket } = require("ws");

const [url, token] = process.argv.slice(2);
const socket = new WebSocket(url);
socket.binaryType = "arraybuffer";
let next = 0;

socket.on("open", () => {
  ssm.init(socket, { token, termOptions: { rows: 34, cols: 97 } });
  process.stdin.on("data", (text) => ssm.sendText(socket, new Uint8Array(text)));
});
socket.on("message", (data) => {
  const message = ssm.decode(data);
  if (message.messageType === "channel_closed") {
    socket.close();
    process.stdin.destroy();
  } else if (message.messageType === "output_stream_data") {
    ssm.sendACK(socket, message);
    // The library leaves order and repetition to its user.
    if (message.sequenceNumber === next) {
      next += 1;
      process.stdout.write(Buffer.from(message.payload));
    }
  }
});
socket.on("error", (error) => {
  console.error(error.message);
  process.exitCode = 1;
});
