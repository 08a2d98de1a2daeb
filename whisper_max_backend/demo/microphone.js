// The microphone of the tab Live: its sound goes to the server piece by piece, 16 bits, in the
// events 'hear', one at a time: the next piece waits for the answer to the one before. 'clear'
// forgets the words.
// `element`, `props`, `trigger` and `watch` are those of Gradio's HTML component.

const PIECE_SECONDS = 0.5;
const MOST_SECONDS = 4; // of one event; what waited for an answer comes together
const PATIENCE = 30_000; // milliseconds for an answer
const AGAIN = 500; // milliseconds until what was not taken is sent again

// Runs where the browser computes sound.
const TAP = `registerProcessor("tap", class extends AudioWorkletProcessor {
  piece = new Int16Array(2048); filled = 0;
  process([[samples]]) {
    for (const sample of samples ?? []) {
      this.piece[this.filled++] = Math.max(-1, Math.min(1, sample)) * 32767;
      if (this.filled === this.piece.length) {
        this.port.postMessage(this.piece.slice());
        this.filled = 0;
      }
    }
    return true;
  }
})`;

const [start, stop, clear] = element.querySelectorAll("button");
const meter = element.querySelector("meter");
const problem = element.querySelector("[role=alert]");
let number = 0;
let open = null; // while somebody speaks, or the last words are awaited

async function begin() {
  const stream = { pieces: [], first: true, ending: false, asked: null };
  problem.textContent = "";
  show((open = stream));
  try {
    if (!navigator.mediaDevices) {
      throw new Error("A browser gives a page its microphone over https or on localhost only.");
    }
    stream.media = await navigator.mediaDevices.getUserMedia({ audio: true });
    stream.context = new AudioContext();
    const module = URL.createObjectURL(new Blob([TAP], { type: "text/javascript" }));
    await stream.context.audioWorklet.addModule(module);
    URL.revokeObjectURL(module);
    if (stream !== open) return mute(stream); // it was stopped meanwhile
    const options = { channelCount: 1, channelCountMode: "explicit", numberOfOutputs: 0 };
    const tap = new AudioWorkletNode(stream.context, "tap", options);
    tap.port.onmessage = ({ data }) => hear(stream, data);
    stream.context.createMediaStreamSource(stream.media).connect(tap);
    stream.media.getAudioTracks()[0].onended = () => finish(stream); // it was unplugged
    await stream.context.resume();
  } catch (error) {
    fail(stream, `There is no microphone: ${error.message}`);
  }
}

function hear(stream, piece) {
  if (stream !== open || stream.ending) return;
  stream.pieces.push(piece);
  meter.value = Math.max(...piece) / 32767;
  send(stream);
}

function seconds(pieces) {
  return pieces.reduce((sum, piece) => sum + piece.length, 0) / open.context.sampleRate;
}

function send(stream) {
  if (stream !== open || stream.asked) return;
  if (!stream.ending && seconds(stream.pieces) < PIECE_SECONDS) return;
  const taken = [];
  while (stream.pieces.length && seconds(taken) < MOST_SECONDS) taken.push(stream.pieces.shift());
  ask(stream, {
    samples: encoded(taken),
    rate: stream.context.sampleRate,
    first: stream.first,
    last: stream.ending && !stream.pieces.length,
  });
  stream.first = false;
}

function ask(stream, piece) {
  stream.asked = { ...piece, number: ++number };
  stream.timer = setTimeout(fail, PATIENCE, stream, "The server does not answer: try again.");
  trigger('hear', stream.asked);
}

watch('value', () => {
  const { number, taken, goes_on } = props.value;
  const stream = open;
  if (!stream?.asked || number !== stream.asked.number) return;
  clearTimeout(stream.timer);
  if (!goes_on) return close(stream);
  if (!taken) {
    return setTimeout(() => stream === open && ask(stream, { ...stream.asked, first: false }), AGAIN);
  }
  stream.asked = null;
  // At the end, the last words are asked for until they are there.
  if (stream.ending && !stream.pieces.length) setTimeout(send, AGAIN, stream);
  else send(stream);
});

function encoded(pieces) {
  let binary = "";
  for (const piece of pieces) {
    binary += String.fromCharCode(...new Uint8Array(piece.buffer));
  }
  return btoa(binary);
}

function mute(stream) {
  stream.media?.getTracks().forEach((track) => track.stop());
  stream.context?.suspend();
  meter.value = 0;
}

function close(stream) {
  mute(stream);
  stream.context?.close();
  clearTimeout(stream.timer);
  if (stream === open) show((open = null));
}

function fail(stream, reason) {
  close(stream);
  problem.textContent = reason;
}

function show(stream) {
  start.disabled = stream !== null;
  stop.disabled = stream === null || stream.ending;
}

function finish(stream) {
  if (stream !== open) return;
  stream.ending = true;
  show(stream);
  mute(stream);
  if (stream.context) send(stream);
  else close(stream);
}

start.addEventListener("click", begin);
stop.addEventListener("click", () => finish(open));
clear.addEventListener("click", () => trigger('clear'));
