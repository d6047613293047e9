// Turns the browser's cumulative statistics into what a person reads: size, frames per second, bits per second.
// Asked once per second, one getStats per direction whatever the number of tiles.

export class Statistics {
  #before = new Map();

  /**
   * Sets `measured` = { width, height, framesPerSecond, bitrate_bps, packetsLost, jitter_ms } on each incoming stream,
   * and on each own source with the largest picture that leaves and the bitrate of all its encodings. A bitrate needs two looks: null at first.
   */
  async measure(receive, streams, send, own) {
    const [incoming, outgoing] = await Promise.all([reports(receive), reports(send)]);
    const byMid = new Map(incoming.filter((r) => r.type === 'inbound-rtp').map((r) => [r.mid, r]));
    for (const stream of streams) {
      const report = byMid.get(stream.consumer.rtpParameters.mid);
      if (report) stream.measured = this.#inbound(stream.id, report);
    }
    for (const source of own) {
      const mid = source.producer?.rtpParameters.mid;
      const layers = outgoing.filter((r) => r.type === 'outbound-rtp' && r.mid === mid && mid != null);
      source.measured = layers.length > 0 ? this.#outbound(source.producer.id, layers) : null;
    }
  }

  #inbound(key, report) {
    return {
      width: report.frameWidth ?? 0,
      height: report.frameHeight ?? 0,
      framesPerSecond: report.framesPerSecond ?? 0,
      framesDecoded: report.framesDecoded ?? 0,
      bitrate_bps: this.#rate(key, report.bytesReceived ?? 0, report.timestamp),
      packetsLost: report.packetsLost ?? 0,
      jitter_ms: (report.jitter ?? 0) * 1000,
      freezes: report.freezeCount ?? 0,
    };
  }

  #outbound(key, layers) {
    const sent = layers.filter((layer) => layer.active !== false && layer.framesPerSecond > 0);
    const best = sent.reduce((best, layer) => ((layer.frameWidth ?? 0) > (best?.frameWidth ?? 0) ? layer : best), null);
    const bytes = layers.reduce((sum, layer) => sum + (layer.bytesSent ?? 0), 0);
    return {
      width: best?.frameWidth ?? 0,
      height: best?.frameHeight ?? 0,
      framesPerSecond: best?.framesPerSecond ?? 0,
      bitrate_bps: this.#rate(key, bytes, layers[0].timestamp),
      layers: sent.length,
      limitedBy: best?.qualityLimitationReason,
    };
  }

  #rate(key, bytes, timestamp_ms) {
    const before = this.#before.get(key);
    this.#before.set(key, { bytes, timestamp_ms });
    if (!before || timestamp_ms <= before.timestamp_ms) return null;
    return Math.max(0, ((bytes - before.bytes) * 8000) / (timestamp_ms - before.timestamp_ms));
  }
}

async function reports(transport) {
  if (!transport || transport.closed) return [];
  return [...(await transport.getStats()).values()];
}
