/** What the player changes in its SDP offer. Pure text. */

/** Asks for stereo Opus: without it browsers decode to one channel. */
export function withStereo(sdp: string): string {
  const types = [...sdp.matchAll(/^a=rtpmap:(\d+) opus\/48000\/2\r?$/gim)].map((it) => it[1]);
  return types.reduce<string>((text, type) => {
    const line = new RegExp(`^(a=fmtp:${type} (?!.*\\bstereo=)[^\\r\\n]*)`, 'm');
    return text.replace(line, '$1;stereo=1');
  }, sdp);
}
