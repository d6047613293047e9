// How loud a local microphone is, 0 to 1, for the eye: peaks of the last samples.

const PERIOD_MS = 100;

export class LevelMeter {
  #context;
  #analyser;
  #samples;
  #timer = 0;

  constructor(track) {
    this.#context = new AudioContext();
    this.#analyser = this.#context.createAnalyser();
    this.#analyser.fftSize = 1024;
    this.#samples = new Float32Array(this.#analyser.fftSize);
    this.#context.createMediaStreamSource(new MediaStream([track])).connect(this.#analyser);
  }

  get level() {
    this.#analyser.getFloatTimeDomainData(this.#samples);
    let peak = 0;
    for (const sample of this.#samples) peak = Math.max(peak, Math.abs(sample));
    return Math.min(1, peak);
  }

  follow(show) {
    this.#timer = setInterval(() => show(this.level), PERIOD_MS);
  }

  close() {
    clearInterval(this.#timer);
    this.#context.close();
  }
}
