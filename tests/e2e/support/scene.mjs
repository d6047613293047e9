// A person for the camera: a script that gives a page a painted portrait and a humming voice instead of the machine's
// devices, so that a screenshot shows a call and a test knows who is who.

/** Script for `newPage`: `look` = { wall, lamp, skin, hair, shirt, long? } in CSS colours, `tone_hz` the voice. */
export function personScript(look, tone_hz, { width = 640, height = 360, framesPerSecond = 12 } = {}) {
  return `(${personInPage})(${JSON.stringify({ look, tone_hz, width, height, framesPerSecond })})`;
}

/** Script for `newPage`: the browser refuses one kind of device, as after a click on "Block". */
export function refusingScript(kind) {
  return `(${refuse})(${JSON.stringify(kind)})`;
}

function personInPage({ look, tone_hz, width, height, framesPerSecond }) {
  navigator.mediaDevices.getUserMedia = async ({ audio, video }) => {
    const tracks = [];
    if (video) tracks.push(paint());
    if (audio) tracks.push(hum());
    return new MediaStream(tracks);
  };
  navigator.mediaDevices.getDisplayMedia = async () => new MediaStream([slide()]);

  function hum() {
    const context = new AudioContext();
    const voice = new OscillatorNode(context, { frequency: tone_hz, type: 'triangle' });
    const volume = new GainNode(context, { gain: 0.2 });
    const output = context.createMediaStreamDestination();
    // In turns, as people do: two seconds in six, at a time that the pitch decides.
    const turn = Math.floor(tone_hz / 100) % 3;
    const speak = () => (volume.gain.value = Math.floor(Date.now() / 2000) % 3 === turn ? 0.25 : 0);
    setInterval(speak, 100);
    voice.connect(volume).connect(output);
    voice.start();
    return output.stream.getAudioTracks()[0];
  }

  function stream(width, height, draw) {
    const canvas = Object.assign(document.createElement('canvas'), { width, height });
    const context = canvas.getContext('2d');
    const frame = () => draw(context, performance.now() / 1000);
    frame();
    const timer = setInterval(frame, 1000 / framesPerSecond);
    const track = canvas.captureStream(framesPerSecond).getVideoTracks()[0];
    const stop = track.stop.bind(track);
    track.stop = () => {
      clearInterval(timer);
      stop();
    };
    return track;
  }

  function paint() {
    return stream(width, height, (context, t) => {
      context.setTransform(width / 640, 0, 0, height / 360, 0, 0);
      room(context);
      context.save();
      context.translate(Math.sin(t * 0.7) * 7, Math.sin(t * 1.3) * 3);
      portrait(context, t);
      context.restore();
    });
  }

  function room(context) {
    const wall = context.createLinearGradient(0, 0, 640, 360);
    wall.addColorStop(0, look.wall[0]);
    wall.addColorStop(1, look.wall[1]);
    context.fillStyle = wall;
    context.fillRect(0, 0, 640, 360);
    const light = context.createRadialGradient(520, 90, 5, 520, 90, 190);
    light.addColorStop(0, look.lamp);
    light.addColorStop(1, 'transparent');
    context.fillStyle = light;
    context.fillRect(0, 0, 640, 360);
    context.fillStyle = 'rgb(30 22 18 / 0.45)';
    context.fillRect(30, 150, 150, 7);
    const books = ['#8d4a3c', '#3c6e71', '#d9a441', '#5b5f97', '#a3b18a', '#b56576'];
    books.forEach((colour, i) => {
      context.fillStyle = colour;
      context.fillRect(38 + i * 21, 96 + (i % 3) * 7, 17, 54 - (i % 3) * 7);
    });
  }

  function portrait(context, t) {
    const ellipse = (x, y, rx, ry, colour) => {
      context.fillStyle = colour;
      context.beginPath();
      context.ellipse(x, y, rx, ry, 0, 0, Math.PI * 2);
      context.fill();
    };
    if (look.long) ellipse(320, 205, 88, 118, look.hair);
    ellipse(320, 392, 150, 110, look.shirt);
    context.fillStyle = look.skin;
    context.fillRect(293, 232, 54, 62);
    ellipse(320, 292, 29, 18, look.skin);
    ellipse(320, 170, 66, 82, look.skin);
    context.fillStyle = look.hair;
    context.beginPath();
    context.ellipse(320, 128, 72, 58, 0, Math.PI, 0);
    context.quadraticCurveTo(372, 120, 300, 112);
    context.quadraticCurveTo(262, 128, 248, 150);
    context.fill();
    const blink = t % 4 < 0.15 ? 1 : 6;
    ellipse(295, 168, 6, blink, '#2a2420');
    ellipse(345, 168, 6, blink, '#2a2420');
    context.strokeStyle = 'rgb(90 40 35 / 0.75)';
    context.lineWidth = 5;
    context.lineCap = 'round';
    context.beginPath();
    context.arc(320, 192, 22, 0.25 * Math.PI, 0.75 * Math.PI);
    context.stroke();
  }

  function slide() {
    return stream(960, 540, (context, t) => {
      context.fillStyle = '#fbfaf6';
      context.fillRect(0, 0, 960, 540);
      context.fillStyle = '#1d2b3a';
      context.font = '600 44px sans-serif';
      context.fillText('Fourier series of a square wave', 60, 90);
      context.strokeStyle = '#12796c';
      context.lineWidth = 5;
      context.beginPath();
      for (let x = 0; x <= 840; x += 4) {
        let y = 0;
        for (let k = 1; k <= 9; k += 2) y += Math.sin(k * (x / 110 + t * 0.5)) / k;
        context.lineTo(60 + x, 320 - y * 120);
      }
      context.stroke();
    });
  }
}

function refuse(refused) {
  const devices = navigator.mediaDevices;
  const real = devices.getUserMedia.bind(devices);
  devices.getUserMedia = async (wanted) => {
    if (wanted[refused]) throw new DOMException('Permission denied', 'NotAllowedError');
    return real(wanted);
  };
}
