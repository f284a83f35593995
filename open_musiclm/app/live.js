// Plays a wav while it is made. gradio runs this once for the element whose value is the address of the sound; where
// the value is empty, nothing plays. An <audio> element would do, but browsers wait for 200 KB before they begin.
const HEADER_BYTES = 44, RATE_AT = 24, LEAD_SECONDS = 0.5;
let stop = () => {};

async function play(address) {
  const aborting = new AbortController();
  let context = null, next = 0, made = 0, ended = false;
  const show = (text) => { element.querySelector("span").textContent = text; };
  const timer = setInterval(() => {
    const left = context ? Math.max(next - context.currentTime, 0) : 0;
    const heard = Math.max(made - left, 0).toFixed(1);
    show(`sample 1, ${left || ended ? "playing" : "waiting for sound"}: ${heard} of ${made.toFixed(1)} s so far`);
    if (ended && !left) stop();
  }, 200);
  stop = () => {
    aborting.abort();
    clearInterval(timer);
    if (context) context.close();
    show("");
    stop = () => {};
  };
  const reader = (await fetch(address, {signal: aborting.signal})).body.getReader();
  let bytes = new Uint8Array(0);
  for (;;) {
    const {value, done} = await reader.read();
    if (done) break;
    const joined = new Uint8Array(bytes.length + value.length);
    joined.set(bytes); joined.set(value, bytes.length);
    bytes = joined;
    if (!context) {
      if (bytes.length < HEADER_BYTES) continue;
      context = new AudioContext({sampleRate: new DataView(bytes.buffer).getUint32(RATE_AT, true)});
      bytes = bytes.slice(HEADER_BYTES);
    }
    const samples = bytes.length >> 1;
    if (!samples) continue;
    const view = new DataView(bytes.buffer), buffer = context.createBuffer(1, samples, context.sampleRate);
    const wave = buffer.getChannelData(0);
    for (let n = 0; n < samples; n++) wave[n] = view.getInt16(2 * n, true) / 32768;
    bytes = bytes.slice(2 * samples);
    if (next < context.currentTime) next = context.currentTime + LEAD_SECONDS;
    const source = context.createBufferSource();
    source.buffer = buffer;
    source.connect(context.destination);
    source.start(next);
    next += buffer.duration;
    made += buffer.duration;
  }
  ended = true;
}

const begin = () => { stop(); if (props.value) play(props.value).catch(() => stop()); };
element.addEventListener("click", (event) => { if (event.target.tagName === "BUTTON") stop(); });
watch("value", begin);
